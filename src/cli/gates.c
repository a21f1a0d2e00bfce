/* gates: what waits for people, and one of them whole. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "cli/ask.h"
#include "cli/table.h"
#include "cli/text.h"

#define NARROW_COLUMNS 100 /* below: without the task, so that the question can be read */

const struct opt gates_options[] = {
	{ "task", 0, OPT_STRING, "TASK", "only those of this task" },
	{ "all", 'a', OPT_FLAG, NULL, "also those that are settled" },
	{ .name = NULL },
};

/* "3 min", "3 min, 21 h left" */
static void add_waits(struct strbuf *out, const struct js *gate, int64_t now)
{
	const char *created = js_str(gate, "created_at"), *deadline = js_str(gate, "deadline_at");
	int64_t since = created ? clock_parse_rfc3339(created) : -1, until = deadline ? clock_parse_rfc3339(deadline) : -1;
	if (!ask_is_open(gate)) {
		text_add_line(out, js_str_or(gate, "state", "settled"));
		return;
	}
	if (since >= 0)
		text_add_age(out, now - since);
	if (until >= 0) {
		strbuf_adds(out, ", ");
		text_add_age(out, until - now);
		strbuf_adds(out, " left");
	}
}

static void add_row(struct table *t, const struct js *gate, int64_t now, bool narrow)
{
	AUTO_STRBUF struct strbuf waits = STRBUF_INIT, title = STRBUF_INIT;
	add_waits(&waits, gate, now);
	ask_add_title(&title, gate);
	table_add(t, COLOUR_BOLD, ask_id(gate));
	table_add(t, COLOUR_NONE, narrow ? NULL : ask_task(gate));
	table_add(t, COLOUR_YELLOW, js_str_or(gate, "kind", ""));
	table_add(t, COLOUR_NONE, strbuf_str(&waits));
	table_add(t, COLOUR_NONE, strbuf_str(&title));
}

static enum err_code list_gates(struct cli *c, struct error *e)
{
	static const char *const titles[] = { "GATE", "TASK", "KIND", "WAITS", "QUESTION", NULL };
	AUTO_JS struct js *list = NULL;
	bool more = false, narrow = c->out.tty && term_width(&c->out) < NARROW_COLUMNS;
	struct table t;
	enum err_code rc = ask_list(c, cli_opt_text(c, "task"), cli_flag(c, "all"), &list, &more, e);
	if (rc)
		return rc;
	if (c->json) {
		AUTO_JS struct js *page = js_object(); /* as the other lists are */
		js_set(page, "data", js_ref(list));
		cli_json(c, page);
		return ERR_OK;
	}
	table_init(&t, titles);
	for (size_t i = 0; i < js_len(list); i++)
		add_row(&t, js_at(list, i), clock_wall_ms(), narrow);
	table_print(&t, &c->out);
	table_release(&t);
	if (!js_len(list))
		cli_say(c, "signalbox: nobody waits for you");
	if (more)
		cli_say(c, "signalbox: only the newest %zu; --task narrows it down", js_len(list));
	return ERR_OK;
}

static void add_member(struct table *t, const char *title, const char *value)
{
	if (str_empty(value))
		return;
	table_add(t, COLOUR_DIM, title);
	table_add(t, COLOUR_NONE, value);
}

static void add_decision(struct table *t, const struct js *gate)
{
	const struct js *decision = js_get(gate, "decision"), *answers = js_get(decision, "answers");
	add_member(t, "scope", js_str(decision, "scope"));
	add_member(t, "note", js_str(decision, "note"));
	for (struct js_iter it = js_iter(answers); it.key; js_next(&it)) {
		AUTO_STRBUF struct strbuf text = STRBUF_INIT;
		for (size_t i = 0; i < js_len(it.value); i++)
			strbuf_addf(&text, "%s%s", i ? "; " : "", js_text(js_at(it.value, i)) ? js_text(js_at(it.value, i)) : "");
		if (js_text(it.value))
			strbuf_adds(&text, js_text(it.value));
		table_addf(t, COLOUR_DIM, "answer %s", it.key);
		table_add(t, COLOUR_NONE, strbuf_str(&text));
	}
	AUTO_FREE char *content = js_get(decision, "content") ? js_dump(js_get(decision, "content")) : NULL;
	add_member(t, "answer", content);
}

static void print_members(struct cli *c, const struct js *gate)
{
	static const char *const titles[] = { "MEMBER", "VALUE", NULL };
	static const char *const plain[] = { "id", "task", "name", "run", "worker", "kind", "created_at", "deadline_at", "at_deadline", "delivered_at" };
	AUTO_STRBUF struct strbuf state = STRBUF_INIT;
	struct table t;
	table_init(&t, titles);
	t.whole = true;
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		add_member(&t, plain[i], js_str(gate, plain[i]));
	if (ask_is_open(gate))
		strbuf_adds(&state, "blocked");
	else
		ask_add_settled(&state, gate);
	add_member(&t, "state", strbuf_str(&state));
	add_decision(&t, gate);
	table_print(&t, &c->out);
	table_release(&t);
}

static void print_matter(const struct cli *c, const struct js *gate)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT, title = STRBUF_INIT;
	const struct js *questions = ask_questions(gate);
	text_add_line(&title, js_str_or(js_get(gate, "data"), "title", ""));
	strbuf_addf(&out, "\n%s%s", strbuf_str(&title), title.len ? "\n" : "");
	ask_add_matter(&out, gate, ASK_DIFF_ANY);
	for (size_t i = 0; i < js_len(questions); i++)
		ask_add_question(&out, js_at(questions, i), js_len(questions) > 1 ? i + 1 : 0);
	if (ask_is_open(gate)) {
		strbuf_adds(&out, "\nTo reply\n");
		ask_add_replies(&out, gate);
	}
	term_write(&c->out, &out);
}

enum err_code cmd_gates(struct cli *c, struct error *e)
{
	AUTO_JS struct js *gate = NULL;
	bool shows = c->arg_count == 2 && str_eq(c->args[0], "show");
	if (!c->arg_count)
		return list_gates(c, e);
	if (c->arg_count == 2 && !shows) {
		error_set(e, ERR_USAGE, "shows one gate at a time");
		error_hint(e, "signalbox gates GATE");
		return ERR_USAGE;
	}
	enum err_code rc = ask_find(c, c->args[c->arg_count - 1], &gate, e);
	if (rc)
		return rc;
	if (c->json) {
		cli_json(c, gate);
		return ERR_OK;
	}
	print_members(c, gate);
	print_matter(c, gate);
	return ERR_OK;
}
