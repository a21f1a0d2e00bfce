/* apply: the task's diff onto your own files. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/summary.h"
#include "cli/remote.h"
#include "source/apply.h"
#include <fcntl.h>
#include <unistd.h>

#define DIFF_MAX ((size_t)256 << 20)

const struct opt apply_options[] = {
	{ "check", 0, OPT_FLAG, NULL, "only tell whether it would fit" },
	{ "dir", 'd', OPT_STRING, "DIR", "apply it there" },
	{ .name = NULL },
};

/* The named directory; else the one the task came from; else the repository we stand in; else where we stand. */
static enum err_code choose_dir(const struct cli *c, const struct js *task, char **ret, struct error *e)
{
	const char *named = cli_opt_text(c, "dir");
	const char *origin = js_str(js_get(task, "source"), "dir");
	if (named)
		return file_realpath(named, ret, e);
	if (origin && file_is_dir(origin))
		return file_realpath(origin, ret, e);
	*ret = remote_here();
	return *ret ? ERR_OK : file_realpath(".", ret, e);
}

static enum err_code fetch_patch(struct cli *c, const struct js *task, const char *file, bool *ret_empty, struct error *e)
{
	AUTO_STRBUF struct strbuf patch = STRBUF_LIMIT(DIFF_MAX);
	AUTO_FREE char *path = remote_path(remote_id(task), "/diff");
	int status = 0;
	enum err_code rc = client_get(c->client, path, "text/x-diff", &status, &patch, e);
	if (rc == ERR_NOT_FOUND && !remote_is_over(task)) {
		error_set(e, ERR_CONFLICT, "task '%s' is %s: its diff is made when it ends", remote_label(task), remote_status(task));
		error_hint(e, "signalbox wait %s", remote_label(task));
		return ERR_CONFLICT;
	}
	*ret_empty = !patch.len;
	return rc ? rc : file_replace(file, strbuf_str(&patch), patch.len, 0600, FILE_NOSYNC, e);
}

static void tell(struct cli *c, const struct js *task, const char *dir, bool empty)
{
	bool check = cli_flag(c, "check");
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	if (c->json) {
		AUTO_JS struct js *answer = js_object();
		js_set_str(answer, "id", remote_id(task));
		js_set_str(answer, "dir", dir);
		js_set_bool(answer, "applied", !check && !empty);
		js_set_bool(answer, "fits", true);
		js_set(answer, "files", js_ref(js_get(js_get(task, "result"), "files")));
		cli_json(c, answer);
		return;
	}
	if (empty) {
		cli_say(c, "task %s changed nothing", remote_label(task));
		return;
	}
	diffstat_add(&c->out, &out, js_get(task, "result"));
	term_write(&c->out, &out);
	cli_say(c, check ? "it would fit in %s" : "applied in %s", dir);
}

static enum err_code apply_in(struct cli *c, const struct js *task, const char *dir, const char *tmp, struct error *e)
{
	AUTO_FREE char *file = file_join(tmp, "task.patch");
	bool empty = true;
	enum err_code rc = fetch_patch(c, task, file, &empty, e);
	if (!rc && !empty)
		rc = apply_patch(dir, file, cli_flag(c, "check"), e);
	if (!rc)
		tell(c, task, dir, empty);
	return rc;
}

enum err_code cmd_apply(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	AUTO_FREE char *dir = NULL;
	AUTO_FREE char *tmp = NULL;
	const char *parent = getenv("TMPDIR");
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (!rc)
		rc = choose_dir(c, task, &dir, e);
	if (!rc)
		rc = file_tmpdir(str_empty(parent) ? "/tmp" : parent, "signalbox-apply-", &tmp, e);
	if (rc)
		return rc;
	rc = apply_in(c, task, dir, tmp, e);
	if (file_remove_tree(tmp, NULL))
		cli_say(c, "signalbox: could not remove %s", tmp);
	return rc;
}
