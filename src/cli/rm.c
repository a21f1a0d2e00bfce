/* rm: remove tasks and their record. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/remote.h"

#define STOP_TIMEOUT_MS 60000 /* for a canceled task to be gone */

const struct opt rm_options[] = {
	{ "force", 'f', OPT_FLAG, NULL, "cancel tasks that still run first" },
	{ .name = NULL },
};

static enum err_code stop_first(struct cli *c, struct js **task, struct error *e)
{
	AUTO_JS struct js *body = js_object();
	AUTO_JS struct js *reply = NULL;
	AUTO_FREE char *id = mem_strdup(remote_id(*task));
	AUTO_FREE char *path = remote_path(id, "/cancel");
	struct follow f = { .c = c, .task_id = id, .past_waiting = true, .interrupted = interrupt_watch() };
	int status = 0;
	enum err_code rc = client_call(c->client, "POST", path, body, &status, &reply, e);
	return rc ? rc : follow_wait(&f, STOP_TIMEOUT_MS, task, e);
}

static enum err_code remove_one(struct cli *c, const char *ref, void *ctx UNUSED, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	AUTO_JS struct js *reply = NULL;
	int status = 0;
	enum err_code rc = remote_find(c, ref, &task, e);
	if (!rc && cli_flag(c, "force") && !remote_is_over(task))
		rc = stop_first(c, &task, e);
	if (rc)
		return rc;
	AUTO_FREE char *path = remote_path(remote_id(task), "");
	rc = client_call(c->client, "DELETE", path, NULL, &status, &reply, e);
	if (rc == ERR_CONFLICT)
		error_hint(e, "signalbox rm --force %s", ref);
	if (!rc && c->json)
		cli_json(c, task);
	else if (!rc)
		cli_say(c, "removed %s", remote_label(task));
	return rc;
}

enum err_code cmd_rm(struct cli *c, struct error *e)
{
	return cli_each(c, remove_one, NULL, e);
}
