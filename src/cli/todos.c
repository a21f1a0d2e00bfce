/* todos: the agent's plan, as it is and as it came to be. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/remote.h"
#include "cli/table.h"
#include "cli/view.h"
#include <inttypes.h>

#define HISTORY_PAGES_MAX 1000

const struct opt todos_options[] = {
	{ "history", 0, OPT_FLAG, NULL, "every change of the plan, oldest first" },
	{ .name = NULL },
};

static enum colour status_colour(const char *status)
{
	return str_eq(status, "completed") ? COLOUR_GREEN : str_eq(status, "in_progress") ? COLOUR_YELLOW : COLOUR_NONE;
}

static void add_step(struct table *t, const struct js *step, bool workers)
{
	const char *status = js_str_or(step, "status", "pending");
	table_add(t, COLOUR_DIM, js_str_or(step, "id", ""));
	table_add(t, COLOUR_NONE, workers ? js_str_or(step, "worker", "") : "");
	table_add(t, status_colour(status), status);
	table_add(t, COLOUR_NONE, js_str_or(step, "text", ""));
}

static void print_plan(struct cli *c, const struct js *steps)
{
	static const char *const titles[] = { "STEP", "WORKER", "STATUS", "TEXT", NULL };
	bool workers = false;
	struct table t;
	table_init(&t, titles);
	for (size_t i = 1; i < js_len(steps); i++)
		workers = workers || !str_eq(js_str(js_at(steps, i), "worker"), js_str(js_at(steps, 0), "worker"));
	for (size_t i = 0; i < js_len(steps); i++)
		add_step(&t, js_at(steps, i), workers);
	table_print(&t, &c->out);
	table_release(&t);
}

static void print_event(struct cli *c, const struct js *event)
{
	const struct js *data = js_get(event, "data"), *items = js_get(data, "items");
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	const char *at = js_str_or(event, "at", "");
	if (c->json) {
		cli_json(c, event);
		return;
	}
	for (size_t i = 0; i < js_len(items); i++)
		strbuf_addf(&out, "%s  plan    %s  %-11s  %s\n", at, js_str_or(js_at(items, i), "id", "?"), js_str_or(js_at(items, i), "status", "pending"), js_str_or(js_at(items, i), "text", ""));
	if (!js_len(items))
		strbuf_addf(&out, "%s  change  %s  %-11s  %s\n", at, js_str_or(data, "id", "?"), js_str_or(data, "status", "?"), js_str_or(data, "text", ""));
	AUTO_STRBUF struct strbuf clean = STRBUF_INIT;
	str_add_printable(&clean, strbuf_str(&out), out.len);
	term_write(&c->out, &clean);
}

static enum err_code print_history(struct cli *c, const struct js *task, struct error *e)
{
	int64_t after = 0;
	enum err_code rc = ERR_OK;
	for (int page = 0; page < HISTORY_PAGES_MAX && after >= 0; page++) {
		AUTO_JS struct js *answer = NULL;
		AUTO_FREE char *suffix = mem_printf("/todos/events?after=%" PRId64, after);
		AUTO_FREE char *path = remote_path(remote_id(task), suffix);
		int status = 0;
		rc = client_call(c->client, "GET", path, NULL, &status, &answer, e);
		if (rc)
			return rc;
		const struct js *data = js_get(answer, "data");
		for (size_t i = 0; i < js_len(data); i++)
			print_event(c, js_at(data, i));
		int64_t next = js_i64(answer, "next_cursor", -1);
		after = next > after ? next : -1;
	}
	return ERR_OK;
}

enum err_code cmd_todos(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	AUTO_JS struct js *answer = NULL;
	int status = 0;
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (!rc && cli_flag(c, "history"))
		return print_history(c, task, e);
	AUTO_FREE char *path = rc ? NULL : remote_path(remote_id(task), "/todos");
	if (!rc)
		rc = client_call(c->client, "GET", path, NULL, &status, &answer, e);
	if (rc)
		return rc;
	if (c->json)
		cli_json(c, answer);
	else
		print_plan(c, js_get(answer, "data"));
	if (!js_len(js_get(answer, "data")))
		cli_say(c, "signalbox: task %s has told no plan", remote_label(task));
	return ERR_OK;
}
