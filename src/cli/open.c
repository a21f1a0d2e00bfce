/* open: where a task can be looked at. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "cli/remote.h"
#include "cli/server.h"
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX ((size_t)1 << 20)
#define OPENER "xdg-open"
#define OPENER_TIMEOUT_MS 10000

const struct opt open_options[] = {
	{ "print", 'p', OPT_FLAG, NULL, "only print it" },
	{ .name = NULL },
};

/* The task's page, when this server has pages and a browser can reach it; the caller frees. */
static char *page_of(struct cli *c, const struct js *task)
{
	AUTO_STRBUF struct strbuf page = STRBUF_LIMIT(PAGE_MAX);
	AUTO_FREE char *path = server_socket(c);
	int status = 0;
	if (path || client_get(c->client, "/", "text/html", &status, &page, NULL) || status != 200)
		return NULL;
	return mem_printf("%s/t/%s", cli_setting(c, SET_SERVER), remote_id(task));
}

static bool is_graphical(const struct cli *c)
{
	return c->out.tty && (!str_empty(getenv("DISPLAY")) || !str_empty(getenv("WAYLAND_DISPLAY")));
}

static void start_opener(const struct cli *c, const char *what)
{
	const char *argv[] = { OPENER, what, NULL };
	struct proc_spec spec = PROC_SPEC_INIT;
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct error e = ERROR_INIT;
	int status = 0;
	spec.argv = argv;
	if (proc_run(&spec, NULL, 0, OPENER_TIMEOUT_MS, &out, NULL, &status, &e) || status)
		cli_say(c, "signalbox: %s did not open it", OPENER);
}

enum err_code cmd_open(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (rc)
		return rc;
	AUTO_FREE char *page = page_of(c, task);
	const char *dir = js_str_or(task, "directory", ""), *what = page ? page : dir;
	AUTO_FREE char *own = server_socket(c);
	bool here = page || (own && file_is_dir(dir));
	if (c->json) {
		AUTO_JS struct js *answer = js_object();
		js_set(answer, "url", js_string(page));
		js_set_str(answer, "directory", dir);
		cli_json(c, answer);
	} else {
		fprintf(c->out.file, "%s\n", what);
	}
	if (!page)
		cli_say(c, own ? here ? "signalbox: this server has no page for it; this is its directory" : "signalbox: it has no directory yet: it has not begun"
			: "signalbox: this server has no page for it; this is its directory, on the server's machine");
	if (here && !cli_flag(c, "print") && is_graphical(c))
		start_opener(c, what);
	return ERR_OK;
}
