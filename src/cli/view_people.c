/* Lines of what people and agents have to say to each other: gates, decisions, messages. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/text.h"
#include "cli/view.h"
#include "cli/view_inside.h"
#include <string.h>

/* Louder than anything else. */
void view_line_gate(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->colour = COLOUR_YELLOW;
	strbuf_adds(&l->text, "a human is needed");
	if (str_eq(js_str(data, "kind"), "command") && js_str(data, "command")) {
		strbuf_adds(&l->text, ": run ");
		view_add_command(&l->text, js_str(data, "command"));
		return;
	}
	const char *title = js_str(data, "title") ? js_str(data, "title") : js_str(data, "text");
	view_add_pair(&l->text, ": ", title);
	for (size_t i = 0; i < js_len(js_get(data, "questions")); i++) {
		const struct js *q = js_at(js_get(data, "questions"), i);
		const char *text = js_text(q) ? js_text(q) : js_str(q, "text");
		if (str_eq(text, title)) /* the only question is the title itself */
			continue;
		strbuf_addc(&l->text, '\n');
		text_add_spaces(&l->text, MESSAGE_INDENT - 2);
		view_add_pair(&l->text, "? ", text);
	}
}

/* ": blue", or ": blue; size L" of several; secret ones have come as ***. */
static void add_answers(struct strbuf *out, const struct js *answers)
{
	const char *before = ": ";
	for (struct js_iter it = js_iter(answers); it.key; js_next(&it))
		for (size_t i = 0; i < js_len(it.value); i++) {
			view_add_pair(out, before, js_text(js_at(it.value, i)));
			before = "; ";
		}
}

/* "gate.approved" and its like: who, and what else was said. */
void view_line_settled(struct view *v UNUSED, const struct js *event, const struct js *data, struct line *l)
{
	const char *type = js_str_or(event, "type", "gate.?");
	const struct js *decision = js_get(data, "decision");
	l->colour = COLOUR_YELLOW;
	text_add_line(&l->text, type + strlen("gate."));
	if (str_eq(js_str(decision, "scope"), "session"))
		strbuf_adds(&l->text, " for the session");
	view_add_pair(&l->text, " by ", js_str(decision, "actor") ? js_str(decision, "actor") : js_str(event, "actor"));
	if (str_eq(type, "gate.expired"))
		strbuf_adds(&l->text, str_eq(js_str(decision, "then"), "fail") ? ", the task ends" : str_eq(js_str(decision, "then"), "answer") ? ", answered" : ", goes on without");
	add_answers(&l->text, js_get(decision, "answers"));
	view_add_pair(&l->text, ": ", js_str(decision, "note"));
}

void view_line_delivered(struct view *v, const struct js *event UNUSED, const struct js *data UNUSED, struct line *l)
{
	l->hide = !v->all; /* shows by what the agent does */
	l->colour = COLOUR_DIM;
	strbuf_adds(&l->text, "the agent has the decision");
}

void view_line_policy(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	bool refused = str_eq(js_str(data, "decision"), "reject");
	l->hide = !v->all && !refused; /* what was allowed shows by what is done */
	l->colour = refused ? COLOUR_YELLOW : COLOUR_DIM;
	strbuf_adds(&l->text, refused ? "refused" : "allowed");
	view_add_pair(&l->text, " by the rule '", js_str_or(data, "rule", "?"));
	strbuf_adds(&l->text, "': ");
	if (js_str(data, "command"))
		view_add_command(&l->text, js_str(data, "command"));
	else
		text_add_line(&l->text, js_str_or(data, "title", js_str_or(data, "kind", "?")));
}

void view_line_said(struct view *v UNUSED, const struct js *event, const struct js *data, struct line *l)
{
	strbuf_adds(&l->text, str_eq(js_str(event, "type"), "message.queued") ? "for the next turn" : "told");
	view_add_pair(&l->text, " by ", js_str(event, "actor"));
	view_add_pair(&l->text, ": ", js_str(data, "text"));
}

/* The words did not reach the running turn: whoever said them was told that they would. */
void view_line_unsaid(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->colour = COLOUR_YELLOW;
	strbuf_adds(&l->text, "not told now, but as the next turn");
	view_add_pair(&l->text, ": ", js_str(data, "refused"));
}

void view_line_steered(struct view *v, const struct js *event UNUSED, const struct js *data UNUSED, struct line *l)
{
	l->hide = !v->all;
	l->colour = COLOUR_DIM;
	strbuf_adds(&l->text, "the agent has heard it");
}

void view_line_interrupt(struct view *v UNUSED, const struct js *event, const struct js *data UNUSED, struct line *l)
{
	l->colour = COLOUR_YELLOW;
	strbuf_adds(&l->text, "asked to end its turn");
	view_add_pair(&l->text, " by ", js_str(event, "actor"));
}
