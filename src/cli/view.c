/* The table of event lines. */
#include "cli/view.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/text.h"
#include "cli/view_inside.h"
#include "sandbox/sandbox.h"
#include <inttypes.h>
#include <string.h>

#define FAILED_TAIL_LINES 10 /* of a setup or verify command's output */
#define SHORT_ID 10
#define OTHER_COLUMNS 200     /* of an event whose type is unknown */

void view_add_command(struct strbuf *out, const char *command)
{
	static const char *const wrappers[] = { "/bin/bash -lc ", "bash -lc ", "/bin/sh -c ", "sh -c ", "/usr/bin/bash -lc ", "/bin/bash -c ", "bash -c " };
	for (size_t i = 0; i < ARRAY_SIZE(wrappers); i++) {
		if (!str_starts(command, wrappers[i]))
			continue;
		const char *inner = command + strlen(wrappers[i]);
		size_t n = strlen(inner);
		bool quoted = n >= 2 && (inner[0] == '\'' || inner[0] == '"') && inner[n - 1] == inner[0] && !memchr(inner + 1, inner[0], n - 2);
		AUTO_FREE char *bare = quoted ? mem_strndup(inner + 1, n - 2) : mem_strdup(inner);
		text_add_line(out, bare);
		return;
	}
	text_add_line(out, command);
}

void view_add_prompt(struct strbuf *out, const struct js *data)
{
	const char *step = js_str(data, "step");
	if (step && !str_eq(step, "agent")) {
		text_add_line(out, step);
		strbuf_addc(out, ' ');
	}
	strbuf_adds(out, "$ ");
}

/* Paths as seen from the top of the workspace, which is where the diff has them. */
static void add_path(struct strbuf *out, const char *path)
{
	text_add_line(out, str_starts(path, SANDBOX_WORKSPACE "/") ? path + strlen(SANDBOX_WORKSPACE "/") : path);
}

void view_add_pair(struct strbuf *out, const char *before, const char *value)
{
	if (str_empty(value))
		return;
	strbuf_adds(out, before);
	text_add_line(out, value);
}

static void line_created(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->hide = !v->all;
	strbuf_adds(&l->text, "created");
	view_add_pair(&l->text, " ", js_str(data, "name"));
	view_add_pair(&l->text, ", agent ", js_str(data, "agent"));
}

static void line_queued(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	int64_t position = js_i64(data, "position", 0);
	l->colour = COLOUR_DIM;
	strbuf_adds(&l->text, "queued");
	if (position > 1)
		strbuf_addf(&l->text, ", %" PRId64 " before it", position - 1);
}

static void line_claimed(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->hide = !v->all;
	strbuf_adds(&l->text, "claimed");
	if (js_type(js_get(data, "run")) == JS_INT)
		strbuf_addf(&l->text, " as run %" PRId64, js_i64(data, "run", 1));
}

static void line_run_started(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	int64_t attempt = js_i64(data, "attempt", 1), n = js_i64(data, "n", 1);
	l->hide = !v->all && attempt <= 1 && n <= 1;
	strbuf_addf(&l->text, "run %" PRId64 " started", n);
	if (attempt > 1)
		strbuf_addf(&l->text, ", attempt %" PRId64, attempt);
	const struct js *walls = js_get(data, "walls");
	view_add_pair(&l->text, ", layers ", js_str(walls, "layers"));
	view_add_pair(&l->text, ", confined by ", js_str(walls, "confinement"));
}

static void line_phase(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	const char *to = js_str_or(data, "to", "?");
	l->colour = COLOUR_DIM;
	/* claimed, queued and the last phases are told by other lines. */
	l->hide = !v->all && (str_eq(to, "claimed") || str_eq(to, "queued") || str_eq(to, "succeeded") || str_eq(to, "failed"));
	text_add_line(&l->text, str_eq(to, "waiting_human") ? "waiting for a human" : to);
	live_text(&v->live, strbuf_str(&l->text));
}

static void line_fetched(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	const char *commit = js_str_or(data, "commit", "");
	strbuf_adds(&l->text, "code");
	if (*commit)
		strbuf_addf(&l->text, " %.*s", SHORT_ID, commit);
	view_add_pair(&l->text, " on ", js_str(data, "branch"));
	if (js_get(data, "files"))
		strbuf_addf(&l->text, ", %" PRId64 " file%s", js_i64(data, "files", 0), js_i64(data, "files", 0) == 1 ? "" : "s");
	if (js_flag(data, "reused", false))
		strbuf_adds(&l->text, ", from the cache");
}

static void line_ready(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->hide = !v->all;
	strbuf_adds(&l->text, "workspace ready");
	view_add_pair(&l->text, ", ", js_str(data, "layers"));
}

static void line_warning(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->colour = COLOUR_YELLOW;
	strbuf_adds(&l->text, "warning: ");
	text_add_line(&l->text, js_str_or(data, "text", ""));
}

struct js *view_final_answer(const char *text)
{
	AUTO_JS struct js *v = text[0] == '{' ? js_parse(text, strlen(text), NULL) : NULL;
	return js_str(v, "summary") && (js_str(v, "status") || js_str(v, "outcome")) ? TAKE_PTR(v) : NULL;
}

static void line_message(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	const char *text = js_str_or(data, "text", "");
	/* The final answer is the result, which is told at the end; not a message. */
	AUTO_JS struct js *final = view_final_answer(text);
	l->hide = !*text || (!v->all && final);
	strbuf_adds(&l->text, "> ");
	if (v->live.term->tty)
		text_add_wrapped(&l->text, final ? js_str(final, "summary") : text, MESSAGE_INDENT, term_width(v->live.term));
	else
		text_add_block(&l->text, final ? js_str(final, "summary") : text, MESSAGE_INDENT);
}

static void line_reasoning(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	const char *text = js_str_or(data, "text", "");
	AUTO_FREE char *first = mem_strndup(text, strcspn(text, "\n"));
	l->colour = COLOUR_DIM;
	l->hide = !*first;
	strbuf_adds(&l->text, ". ");
	text_add_line(&l->text, first);
}

static int64_t event_ms(const struct js *event)
{
	const char *at = js_str(event, "at");
	return at ? clock_parse_rfc3339(at) : -1;
}

static void line_command_started(struct view *v, const struct js *event, const struct js *data, struct line *l)
{
	const char *id = js_str(data, "id");
	l->hide = !v->all;
	view_add_prompt(&l->text, data);
	view_add_command(&l->text, js_str_or(data, "command", "?"));
	live_text(&v->live, strbuf_str(&l->text));
	if (!id)
		return;
	struct js *entry = js_object();
	js_set_int(entry, "at", event_ms(event));
	js_set_str(entry, "command", js_str(data, "command"));
	js_set(v->commands, id, entry);
}

/* Milliseconds a command took: as told, or from when its start was seen; -1 when unknown. */
static int64_t command_ms(struct view *v, const struct js *event, const struct js *data, const char *id)
{
	int64_t ms = js_i64(data, "ms", -1);
	int64_t began = id ? js_i64(js_get(v->commands, id), "at", -1) : -1;
	int64_t ended = event_ms(event);
	return ms >= 0 ? ms : began >= 0 && ended >= began ? ended - began : -1;
}

static void line_command_finished(struct view *v, const struct js *event, const struct js *data, struct line *l)
{
	const char *id = js_str(data, "id");
	const char *command = js_str(data, "command");
	int64_t ms = command_ms(v, event, data, id), code = js_i64(data, "exit_code", -1);
	if (!command && id)
		command = js_str(js_get(v->commands, id), "command");
	view_add_prompt(&l->text, data);
	view_add_command(&l->text, command ? command : js_str_or(data, "step", "?"));
	if (code >= 0)
		strbuf_addf(&l->text, "  [exit %" PRId64, code);
	else
		strbuf_addf(&l->text, "  [%s", js_str_or(data, "status", "ended"));
	if (ms >= 0) {
		strbuf_adds(&l->text, ", ");
		str_add_duration(&l->text, ms);
	}
	strbuf_addc(&l->text, ']');
	l->colour = code > 0 ? COLOUR_RED : COLOUR_CYAN;
	/* Why a setup or a check failed is what one looks for next. */
	const char *tail = js_str(data, "output_tail");
	if (code > 0 && !str_empty(tail)) {
		strbuf_addc(&l->text, '\n');
		text_add_spaces(&l->text, MESSAGE_INDENT);
		text_add_block(&l->text, text_tail(tail, FAILED_TAIL_LINES), MESSAGE_INDENT);
	}
	if (id)
		js_del(v->commands, id);
	live_text(&v->live, "working");
}

static void line_file_changed(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	const struct js *changes = js_get(data, "changes");
	l->colour = COLOUR_GREEN;
	l->hide = js_len(changes) == 0;
	for (size_t i = 0; i < js_len(changes); i++) {
		const char *kind = js_str_or(js_at(changes, i), "kind", "update");
		strbuf_adds(&l->text, i ? "  " : "");
		strbuf_adds(&l->text, str_eq(kind, "add") ? "+ " : str_eq(kind, "delete") ? "- " : "~ ");
		add_path(&l->text, js_str_or(js_at(changes, i), "path", "?"));
	}
}

static void line_tool(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	strbuf_adds(&l->text, "tool ");
	if (!str_empty(js_str(data, "server"))) { /* the agent's own tools are on none */
		text_add_line(&l->text, js_str(data, "server"));
		strbuf_addc(&l->text, '.');
	}
	text_add_line(&l->text, js_str_or(data, "tool", "?"));
	view_add_pair(&l->text, "  [", js_str(data, "status"));
	strbuf_adds(&l->text, js_str(data, "status") ? "]" : "");
	l->colour = js_str(data, "error") ? COLOUR_RED : COLOUR_CYAN;
}

static const char *plan_mark(const char *status)
{
	if (str_eq(status, "completed") || str_eq(status, "done"))
		return "[x]";
	return str_eq(status, "in_progress") ? "[>]" : "[ ]";
}

/* Only the steps that changed since the last time. */
static void line_plan(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	const struct js *items = js_get(data, "items");
	bool first = true;
	l->colour = COLOUR_BLUE;
	for (size_t i = 0; i < js_len(items); i++) {
		const struct js *item = js_at(items, i);
		const char *text = js_str_or(item, "text", "");
		const char *status = js_str_or(item, "status", "pending");
		if (str_eq(js_str(v->plan, text), status))
			continue;
		js_set_str(v->plan, text, status);
		if (!first) {
			strbuf_addc(&l->text, '\n');
			text_add_spaces(&l->text, MESSAGE_INDENT - 2);
		}
		first = false;
		strbuf_addf(&l->text, "%s ", plan_mark(status));
		text_add_line(&l->text, text);
	}
	l->hide = first && !v->all;
	if (first)
		strbuf_adds(&l->text, "plan as before");
}

static void line_plan_step(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	const char *text = js_str_or(data, "text", ""), *status = js_str_or(data, "status", "pending");
	l->colour = COLOUR_BLUE;
	js_set_str(v->plan, text, status);
	strbuf_addf(&l->text, "%s ", plan_mark(status));
	text_add_line(&l->text, text);
}

static void line_turn(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	strbuf_addf(&l->text, "turn %" PRId64, js_i64(data, "turn", 1));
	view_add_pair(&l->text, ": ", js_str(data, "text"));
}

static void line_retry(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->colour = COLOUR_YELLOW;
	strbuf_adds(&l->text, "tries again in ");
	str_add_duration(&l->text, js_i64(data, "pause_ms", 0));
}

static void line_usage(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	v->tokens += js_i64(data, "input_tokens", 0) + js_i64(data, "output_tokens", 0);
	l->hide = !v->all;
	strbuf_addf(&l->text, "usage %" PRId64 " in, %" PRId64 " out", js_i64(data, "input_tokens", 0), js_i64(data, "output_tokens", 0));
}

static void line_raw(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->hide = !v->all;
	l->colour = COLOUR_DIM;
	text_add_line(&l->text, js_str_or(data, "line", "(bytes)"));
}

static void line_truncated(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->colour = COLOUR_YELLOW;
	strbuf_adds(&l->text, str_eq(js_str(data, "what"), "line") ? "a line of the agent was too long and is not read: " : "the record of the agent's output is full, dropped: ");
	str_add_size(&l->text, js_i64(data, "bytes", 0));
}

static void line_agent_error(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->colour = COLOUR_RED;
	strbuf_adds(&l->text, "agent: ");
	text_add_line(&l->text, js_str_or(data, "message", "error"));
}

static void line_agent_warning(struct view *v UNUSED, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->colour = COLOUR_DIM;
	l->hide = !v->all;
	strbuf_adds(&l->text, "agent: ");
	text_add_line(&l->text, js_str_or(data, "message", js_str_or(data, "text", "warning")));
}

static void line_artifact(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->hide = !v->all;
	strbuf_adds(&l->text, "artifact ");
	text_add_line(&l->text, js_str_or(data, "path", "?"));
	strbuf_adds(&l->text, ", ");
	str_add_size(&l->text, js_i64(data, "bytes", 0));
}

static void line_run_ended(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	const char *outcome = js_str_or(data, "outcome", "?");
	const char *error = js_str_or(js_get(data, "error"), "text", js_str(data, "error"));
	bool good = str_eq(outcome, "success") || str_eq(outcome, "succeeded");
	l->hide = !v->all && good;
	l->colour = good ? COLOUR_NONE : COLOUR_YELLOW;
	strbuf_adds(&l->text, "run ended: ");
	text_add_line(&l->text, outcome);
	view_add_pair(&l->text, ", ", js_str(data, "reason"));
	if (v->all)
		view_add_pair(&l->text, ": ", error); /* who follows reads it in the result */
}

static void line_done(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->hide = !v->all;
	text_add_line(&l->text, js_str_or(data, "status", "ended"));
	view_add_pair(&l->text, ": ", js_str(data, "reason"));
}

static void line_result(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->hide = !v->all;
	const struct js *result = js_get(data, "result") ? js_get(data, "result") : data;
	strbuf_adds(&l->text, "result ");
	view_add_pair(&l->text, "", js_str(result, "outcome"));
	view_add_pair(&l->text, ": ", js_str(result, "summary"));
}

static void line_progress(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	l->hide = true;
	text_add_line(&text, js_str_or(data, "step", "working"));
	if (js_get(data, "percent") && js_type(js_get(data, "percent")) != JS_NULL)
		strbuf_addf(&text, " %" PRId64 " %%", js_i64(data, "percent", (int64_t)js_f64(data, "percent", 0)));
	view_add_pair(&text, "  ", js_str(data, "text"));
	live_text(&v->live, strbuf_str(&text));
}

static void line_session(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->hide = !v->all;
	l->colour = COLOUR_DIM;
	strbuf_adds(&l->text, "session");
	view_add_pair(&l->text, " ", js_str(data, "session"));
}

static void line_turn_ended(struct view *v, const struct js *event UNUSED, const struct js *data, struct line *l)
{
	l->hide = !v->all; /* the run's end tells it */
	l->colour = COLOUR_DIM;
	strbuf_adds(&l->text, "turn ended");
	view_add_pair(&l->text, ": ", js_str(data, "status"));
	view_add_pair(&l->text, ", ", js_str(data, "error"));
}

/* Types that we do not know are not ours to tell to who follows; in the log they stand as they are. */
static void line_other(struct view *v, const struct js *event, const struct js *data, struct line *l)
{
	AUTO_FREE char *members = js_len(data) ? js_dump(data) : mem_strdup("");
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	l->hide = !v->all;
	text_add_line(&line, js_str_or(event, "type", "?"));
	strbuf_addc(&line, ' ');
	text_add_line(&line, members);
	text_add_cut(&l->text, strbuf_str(&line), OTHER_COLUMNS);
}

static const struct {
	const char *type;
	line_maker *make;
} makers[] = {
	{ "task.created", line_created }, { "task.queued", line_queued }, { "task.claimed", line_claimed }, { "run.started", line_run_started }, { "run.phase", line_phase },
	{ "workspace.fetched", line_fetched }, { "workspace.ready", line_ready }, { "workspace.warning", line_warning },
	{ "workspace.progress", line_progress }, { "message.done", line_message }, { "task.progress", line_message }, { "reasoning.done", line_reasoning },
	{ "command.started", line_command_started }, { "command.finished", line_command_finished }, { "file.changed", line_file_changed },
	{ "tool.finished", line_tool }, { "todo.snapshot", line_plan }, { "todo.update", line_plan_step }, { "task.turn", line_turn }, { "task.retry_scheduled", line_retry }, { "usage.added", line_usage }, { "agent.raw", line_raw },
	{ "agent.truncated", line_truncated }, { "agent.error", line_agent_error }, { "agent.warning", line_agent_warning }, { "artifact.written", line_artifact },
	{ "run.result", line_result }, { "run.ended", line_run_ended }, { "task.done", line_done }, { "task.waiting", line_done }, { "gate.blocked", view_line_gate },
	{ "gate.approved", view_line_settled }, { "gate.rejected", view_line_settled }, { "gate.answered", view_line_settled }, { "gate.expired", view_line_settled }, { "gate.canceled", view_line_settled },
	{ "policy.decided", view_line_policy }, { "message.sent", view_line_said }, { "message.queued", view_line_said }, { "message.refused", view_line_unsaid }, { "message.steered", view_line_steered },
	{ "gate.delivered", view_line_delivered }, { "task.interrupt_asked", view_line_interrupt }, { "run.session", line_session }, { "run.turn", line_turn_ended },
};

static void make_line(struct view *v, const struct js *event, struct line *l)
{
	const char *type = js_str_or(event, "type", "");
	const struct js *data = js_get(event, "data");
	for (size_t i = 0; i < ARRAY_SIZE(makers); i++)
		if (str_eq(makers[i].type, type)) {
			makers[i].make(v, event, data, l);
			return;
		}
	line_other(v, event, data, l);
}

static void add_elapsed(struct view *v, int64_t at_ms, struct strbuf *out)
{
	AUTO_STRBUF struct strbuf clock = STRBUF_INIT;
	text_add_clock(&clock, at_ms - v->since_ms);
	text_add_spaces(out, clock.len < 6 ? 6 - clock.len : 0);
	strbuf_adds(out, strbuf_str(&clock));
	strbuf_adds(out, "  ");
}

static void print_line(struct view *v, int64_t at_ms, enum colour colour, const char *text)
{
	AUTO_STRBUF struct strbuf when = STRBUF_INIT, clean = STRBUF_INIT, out = STRBUF_INIT;
	add_elapsed(v, at_ms, &when);
	/* Makers clean what they lay out; this is the one door to the terminal that no text passes around. */
	str_add_printable(&clean, text, strlen(text));
	term_add(v->term, &out, COLOUR_DIM, strbuf_str(&when));
	term_add(v->term, &out, colour, strbuf_str(&clean));
	strbuf_addc(&out, '\n');
	live_print(&v->live, &out);
}

void view_start(struct view *v, const struct term *t, bool quiet, bool live, int64_t since_ms)
{
	*v = (struct view){ .term = t, .quiet = quiet, .since_ms = since_ms, .commands = js_object(), .plan = js_object() };
	live_start(&v->live, t, live && !quiet, since_ms);
}

void view_stop(struct view *v)
{
	live_stop(&v->live);
	js_free(v->commands);
	js_free(v->plan);
}

void view_event(struct view *v, const struct js *event)
{
	struct line l = { .colour = COLOUR_NONE };
	int64_t at = event_ms(event);
	make_line(v, event, &l);
	if (!l.hide && !v->quiet && !js_flag(event, "live", false))
		print_line(v, at >= 0 ? at : clock_wall_ms(), l.colour, strbuf_str(&l.text));
	strbuf_release(&l.text);
}

void view_note(struct view *v, enum colour colour, const char *text)
{
	if (!v->quiet)
		print_line(v, clock_wall_ms(), colour, text);
}

void view_event_text(struct view *v, const struct js *event, struct strbuf *out)
{
	struct line l = { .colour = COLOUR_NONE };
	make_line(v, event, &l);
	text_add_line(out, strbuf_str(&l.text));
	strbuf_release(&l.text);
}
