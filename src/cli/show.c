/* show: everything about one task. */
#include "base/cleanup.h"
#include "base/str.h"
#include "cli/ask.h"
#include "cli/summary.h"
#include "cli/table.h"
#include "cli/remote.h"
#include "cli/text.h"
#include <inttypes.h>

static void add_member(struct table *t, const char *title, const char *value)
{
	if (str_empty(value))
		return;
	table_add(t, COLOUR_DIM, title);
	table_add(t, COLOUR_NONE, value);
}

static void add_labels(struct table *t, const struct js *labels)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	for (struct js_iter it = js_iter(labels); it.key; js_next(&it)) {
		const char *v = js_text(it.value);
		strbuf_addf(&text, "%s%s=%s", text.len ? " " : "", it.key, v ? v : "");
	}
	add_member(t, "labels", strbuf_str(&text));
}

static void add_run(struct table *t, const struct js *run)
{
	if (js_type(run) != JS_OBJECT)
		return;
	table_add(t, COLOUR_DIM, "run");
	table_addf(t, COLOUR_NONE, "%" PRId64 " (turn %" PRId64 ", attempt %" PRId64 ") %s", js_i64(run, "n", 1), js_i64(run, "turn", 1), js_i64(run, "attempt", 1),
		   js_str_or(run, "phase", ""));
}

static void add_members(struct table *t, const struct js *task)
{
	static const char *const plain[] = { "id", "name", "session_id", "status", "phase", "progress", "agent", "model", "environment", "created_at", "started_at",
					     "last_heartbeat", "completed_at", "directory", "url" };
	AUTO_STRBUF struct strbuf source = STRBUF_INIT, why = STRBUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		const char *value = js_str(task, plain[i]);
		/* What it was doing last is no news of a task that is over, nor is its phase told twice. */
		if (str_eq(plain[i], "progress") && (remote_is_over(task) || str_eq(value, js_str(task, "phase"))))
			continue;
		add_member(t, plain[i], value);
	}
	remote_add_why(&why, task);
	add_member(t, "why", strbuf_str(&why));
	remote_add_source(&source, task);
	add_member(t, "source", strbuf_str(&source));
	add_member(t, "commit", js_str(js_get(task, "source"), "commit"));
	add_labels(t, js_get(task, "labels"));
	add_run(t, js_get(task, "run"));
	if (js_type(js_get(task, "queue_position")) == JS_INT) {
		table_add(t, COLOUR_DIM, "queue_position");
		table_addf(t, COLOUR_NONE, "%" PRId64, js_i64(task, "queue_position", 0));
	}
	add_member(t, "waits_for", js_str(task, "waits_for"));
	add_member(t, "prompt", js_str(task, "prompt"));
}

/* What it waits for, each with its question. */
static void add_gates(struct cli *c, const struct js *task)
{
	AUTO_JS struct js *gates = NULL;
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	if (!remote_is_waiting(task) || ask_list(c, remote_id(task), false, &gates, NULL, NULL) || !js_len(gates))
		return;
	strbuf_adds(&out, "\nWaits for you\n");
	for (size_t i = 0; i < js_len(gates); i++) {
		strbuf_adds(&out, "  ");
		text_add_line(&out, ask_id(js_at(gates, i)));
		strbuf_adds(&out, "  ");
		ask_add_title(&out, js_at(gates, i));
		strbuf_addc(&out, '\n');
	}
	term_write(&c->out, &out);
}

enum err_code cmd_show(struct cli *c, struct error *e)
{
	static const char *const titles[] = { "MEMBER", "VALUE", NULL };
	AUTO_JS struct js *task = NULL;
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct table t;
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (rc)
		return rc;
	if (c->json) {
		cli_json(c, task);
		return ERR_OK;
	}
	table_init(&t, titles);
	t.whole = true;
	add_members(&t, task);
	table_print(&t, &c->out);
	table_release(&t);
	add_gates(c, task);
	if (js_type(js_get(task, "result")) != JS_OBJECT)
		return ERR_OK;
	strbuf_addc(&out, '\n');
	summary_add(&c->out, &out, task);
	term_write(&c->out, &out);
	return ERR_OK;
}
