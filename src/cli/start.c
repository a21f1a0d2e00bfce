/* start: submit and return. */
#include "base/cleanup.h"
#include "cli/submit.h"
#include "cli/table.h"
#include "cli/remote.h"

enum err_code cmd_start(struct cli *c, struct error *e)
{
	static const char *const titles[] = { "ID", "SESSION", "URL", NULL };
	AUTO_JS struct js *task = NULL;
	struct table t;
	enum err_code rc = submit_task(c, &task, e);
	if (rc)
		return rc;
	if (c->json) {
		cli_json(c, task);
		return ERR_OK;
	}
	table_init(&t, titles);
	t.whole = true;
	table_add(&t, COLOUR_BOLD, remote_id(task));
	table_add(&t, COLOUR_NONE, js_str(task, "session_id"));
	table_add(&t, COLOUR_NONE, js_str(task, "url"));
	table_print(&t, &c->out);
	table_release(&t);
	if (c->err.tty)
		cli_say(c, "  follow  signalbox events -f %s\n  wait    signalbox wait %s", remote_label(task), remote_label(task));
	return ERR_OK;
}
