/* run: submit, follow to the end, tell the result. On a terminal the questions that come are asked right there. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "cli/ask_prompt.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/run.h"
#include "cli/submit.h"
#include "cli/summary.h"
#include "cli/remote.h"
#include "cli/text.h"
#include "cli/view.h"

#define OPEN_GATES_MAX 1000 /* remembered at once; an agent asks few things at a time */

/* What the callbacks of one `run` share. */
struct run_view {
	struct view view;
	struct follow *follow;
	const struct run_typing *typing; /* may be NULL */
	bool asks;			 /* there is a terminal to ask at */
	struct js *asked;		 /* ids; each is asked once */
	bool troubled;
	struct js *open; /* ids of what waits as far as is known, the newest last */
};

static void hold(struct run_view *r, bool hold)
{
	if (r->typing)
		r->typing->hold(r->typing->ctx, hold);
	live_hold(&r->view.live, hold);
}

/* Shows it with its choices until it is settled; ASK_LEFT also when that could not be done. */
static enum ask_end ask_at_terminal(struct run_view *r, const struct js *gate)
{
	struct ask_prompt p = { .c = r->follow->c, .gate = gate, .interrupted = r->follow->interrupted };
	struct error e = ERROR_INIT;
	enum ask_end end = ASK_LEFT;
	hold(r, true);
	enum err_code rc = ask_person(&p, &end, &e);
	hold(r, false);
	js_free(p.settled);
	if (!rc)
		return end;
	view_note(&r->view, COLOUR_YELLOW, e.text);
	return ASK_LEFT;
}

/* A question that still waits. Left for later it ends the run's looking on, as it does without a terminal. */
static void ask_now(struct run_view *r, const char *id)
{
	struct error e = ERROR_INIT;
	struct js *gate = NULL;
	if (js_get(r->asked, id))
		return;
	js_set_bool(r->asked, id, true);
	if (ask_get(r->follow->c, id, &gate, &e)) {
		view_note(&r->view, COLOUR_YELLOW, e.text);
		return;
	}
	bool left = ask_is_open(gate) && ask_at_terminal(r, gate) == ASK_LEFT;
	js_free(gate);
	if (!left || r->typing)
		return;
	r->follow->past_waiting = false;
	r->follow->look = true;
}

static void note_open(struct run_view *r, const char *gate)
{
	AUTO_STRBUF struct strbuf id = STRBUF_INIT;
	text_add_line(&id, gate);
	if (id.len && js_len(r->open) < OPEN_GATES_MAX)
		js_set_bool(r->open, strbuf_str(&id), true);
}

/* What has waited since before the events that are shown. */
static void ask_earlier(struct run_view *r)
{
	AUTO_JS struct js *open = NULL;
	if (ask_list(r->follow->c, r->follow->task_id, false, &open, NULL, NULL))
		return; /* the stream will tell */
	for (size_t i = js_len(open); i-- > 0;)
		note_open(r, ask_id(js_at(open, i)));
	for (size_t i = js_len(open); r->asks && i-- > 0;)
		ask_now(r, ask_id(js_at(open, i)));
}

static void note_gate(struct run_view *r, const char *type, const char *gate)
{
	AUTO_STRBUF struct strbuf id = STRBUF_INIT;
	if (str_eq(type, "gate.blocked"))
		note_open(r, gate);
	if (str_eq(type, "gate.blocked") || !str_starts(type, "gate."))
		return;
	text_add_line(&id, gate);
	js_del(r->open, strbuf_str(&id));
}

/* The newest that waits; NULL: none is known. */
static const char *open_gate(const struct run_view *r)
{
	const char *id = NULL;
	for (struct js_iter it = js_iter(r->open); it.key; js_next(&it))
		id = it.key;
	return id;
}

static void on_event(void *ctx, const struct js *event, const char *line UNUSED, size_t len UNUSED)
{
	struct run_view *r = ctx;
	if (r->troubled)
		view_note(&r->view, COLOUR_DIM, "connected again");
	r->troubled = false;
	note_gate(r, js_str_or(event, "type", ""), js_str_or(js_get(event, "data"), "gate", ""));
	view_event(&r->view, event);
	if (str_eq(js_str(event, "type"), "gate.blocked") && r->asks && r->follow->past_waiting)
		ask_now(r, js_str_or(js_get(event, "data"), "gate", ""));
}

static void on_trouble(void *ctx, const char *text)
{
	struct run_view *r = ctx;
	if (!r->troubled)
		view_note(&r->view, COLOUR_YELLOW, "connection lost; the task goes on");
	r->troubled = true;
	live_text(&r->view.live, text);
}

static void say_begin(const struct cli *c, const struct js *task)
{
	AUTO_STRBUF struct strbuf source = STRBUF_INIT;
	remote_add_source(&source, task);
	if (js_str(task, "name"))
		cli_say(c, "task %s (%s)  %s", remote_id(task), remote_label(task), strbuf_str(&source));
	else
		cli_say(c, "task %s  %s", remote_id(task), strbuf_str(&source));
}

static void say_detached(const struct cli *c, const struct js *task, const char *gate)
{
	const char *t = remote_label(task);
	cli_say(c, "detached; the task %s", gate ? "waits for you" : "goes on");
	if (gate)
		cli_say(c, "  reply   signalbox gates %s", gate);
	cli_say(c, "  follow  signalbox events -f %s\n  wait    signalbox wait %s\n  stop    signalbox cancel %s", t, t, t);
}

static void say_next(const struct cli *c, const struct js *task)
{
	const char *t = remote_label(task);
	const char *dir = js_str(task, "directory");
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	if (remote_is_waiting(task))
		strbuf_addf(&out, "\n  answer  signalbox gates --task %s", t);
	if (js_len(js_get(js_get(task, "result"), "files")))
		strbuf_addf(&out, "\n  diff    signalbox diff %s\n  apply   signalbox apply %s", t, t);
	else if (!remote_is_waiting(task) && remote_exit_status(task) != EXIT_DONE)
		strbuf_addf(&out, "\n  log     signalbox logs %s", t);
	strbuf_addf(&out, "\n  more    signalbox show %s", t);
	if (dir) {
		strbuf_adds(&out, "\n  files   ");
		text_add_line(&out, dir);
	}
	cli_say(c, "%s", strbuf_str(&out));
}

/* For a script the id of what waits comes first, alone on its line. */
static void add_gate(struct cli *c, const struct js *task, const struct run_view *r, struct strbuf *out)
{
	AUTO_JS struct js *open = NULL;
	if (open_gate(r))
		strbuf_addf(out, "%s\n", open_gate(r));
	else if (!ask_list(c, remote_id(task), false, &open, NULL, NULL) && js_len(open)) {
		text_add_line(out, ask_id(js_at(open, 0)));
		strbuf_addc(out, '\n');
	}
}

static void tell_result(struct cli *c, const struct js *task, const struct run_view *r)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	c->exit_status = remote_exit_status(task);
	if (c->json) {
		cli_json(c, task);
		return;
	}
	if (c->err.tty && !c->quiet)
		cli_say(c, "%s", "");
	if (remote_is_waiting(task) && !c->out.tty)
		add_gate(c, task, r, &out);
	summary_add(&c->out, &out, task);
	term_write(&c->out, &out);
	say_next(c, task);
}

enum err_code run_follow(struct cli *c, const struct js *task, int64_t after, const struct run_typing *typing, const char *begin, struct error *e)
{
	AUTO_JS struct js *settled = NULL;
	AUTO_JS struct js *asked = js_object();
	AUTO_JS struct js *open = js_object();
	struct run_view r = { .typing = typing, .asks = ask_can(c), .asked = asked, .open = open };
	const char *created = js_str(task, "created_at");
	int64_t since = created ? clock_parse_rfc3339(created) : -1;
	struct follow f = {
		.c = c, .task_id = remote_id(task), .after = after, .past_waiting = typing || r.asks, .on_event = on_event, .on_trouble = on_trouble, .ctx = &r,
		.interrupted = interrupt_watch(),
	};
	r.follow = &f;
	view_start(&r.view, &c->err, c->quiet, !typing, since >= 0 ? since : clock_wall_ms());
	live_text(&r.view.live, begin);
	if (after > 0)
		ask_earlier(&r);
	enum err_code rc = follow_task(&f, &settled, e);
	view_stop(&r.view);
	if (!rc) {
		tell_result(c, settled, &r);
	} else if (rc == ERR_CANCELED && *f.interrupted) {
		say_detached(c, task, open_gate(&r));
		c->exit_status = EXIT_DETACHED;
		error_clear(e);
		rc = ERR_OK;
	}
	return rc;
}

enum err_code cmd_run(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	enum err_code rc = submit_task(c, &task, e);
	if (rc)
		return rc;
	say_begin(c, task);
	return run_follow(c, task, 0, NULL, "submitted", e);
}
