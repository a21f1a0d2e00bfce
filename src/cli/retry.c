/* retry: begin ended tasks again, in the workspace and the session they left. */
#include "base/cleanup.h"
#include "cli/remote.h"
#include "cli/table.h"

static enum err_code retry_one(struct cli *c, const char *ref, struct table *t, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	AUTO_JS struct js *after = NULL;
	AUTO_JS struct js *body = js_object();
	int status = 0;
	enum err_code rc = remote_find(c, ref, &task, e);
	if (rc)
		return rc;
	AUTO_FREE char *path = remote_path(remote_id(task), "/retry");
	rc = client_call(c->client, "POST", path, body, &status, &after, e);
	if (rc)
		return rc;
	if (c->json)
		cli_json(c, after);
	table_add(t, COLOUR_BOLD, remote_label(after));
	table_add(t, remote_colour(after), remote_status(after));
	return ERR_OK;
}

enum err_code cmd_retry(struct cli *c, struct error *e)
{
	static const char *const titles[] = { "TASK", "STATUS", NULL };
	enum err_code rc = ERR_OK;
	struct table t;
	table_init(&t, titles);
	for (int i = 0; i < c->arg_count && !rc; i++)
		rc = retry_one(c, c->args[i], &t, e);
	if (!c->json)
		table_print(&t, &c->out);
	table_release(&t);
	return rc;
}
