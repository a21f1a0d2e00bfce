/* run: submit, follow to the end, tell the result. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/submit.h"
#include "cli/summary.h"
#include "cli/remote.h"
#include "cli/text.h"
#include "cli/view.h"

/* What the callbacks of one `run` share. */
struct run_view {
	struct view view;
	bool troubled;
	struct strbuf gate; /* id of the newest question */
};

static void on_event(void *ctx, const struct js *event, const char *line UNUSED, size_t len UNUSED)
{
	struct run_view *r = ctx;
	if (r->troubled)
		view_note(&r->view, COLOUR_DIM, "connected again");
	r->troubled = false;
	if (str_eq(js_str(event, "type"), "gate.blocked")) {
		strbuf_reset(&r->gate);
		text_add_line(&r->gate, js_str_or(js_get(event, "data"), "gate", ""));
	}
	view_event(&r->view, event);
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

static void say_detached(const struct cli *c, const struct js *task)
{
	const char *t = remote_label(task);
	cli_say(c, "detached; the task goes on\n  follow  signalbox events -f %s\n  wait    signalbox wait %s\n  stop    signalbox cancel %s", t, t, t);
}

static void say_next(const struct cli *c, const struct js *task)
{
	const char *t = remote_label(task);
	const char *dir = js_str(task, "directory");
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
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
	/* For a script the id of what waits comes first, alone on its line. */
	if (remote_is_waiting(task) && !c->out.tty && r->gate.len)
		strbuf_addf(&out, "%s\n", strbuf_str(&r->gate));
	summary_add(&c->out, &out, task);
	term_write(&c->out, &out);
	say_next(c, task);
}

static enum err_code follow_to_end(struct cli *c, const struct js *task, struct error *e)
{
	AUTO_JS struct js *settled = NULL;
	struct run_view r = { .troubled = false };
	const char *created = js_str(task, "created_at");
	int64_t since = created ? clock_parse_rfc3339(created) : -1;
	struct follow f = {
		.c = c, .task_id = remote_id(task), .on_event = on_event, .on_trouble = on_trouble, .ctx = &r, .interrupted = interrupt_watch(),
	};
	view_start(&r.view, &c->err, c->quiet, true, since >= 0 ? since : clock_wall_ms());
	live_text(&r.view.live, "submitted");
	enum err_code rc = follow_task(&f, &settled, e);
	view_stop(&r.view);
	if (!rc) {
		tell_result(c, settled, &r);
	} else if (rc == ERR_CANCELED && *f.interrupted) {
		say_detached(c, task);
		c->exit_status = EXIT_DETACHED;
		error_clear(e);
		rc = ERR_OK;
	}
	strbuf_release(&r.gate);
	return rc;
}

enum err_code cmd_run(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	enum err_code rc = submit_task(c, &task, e);
	if (rc)
		return rc;
	say_begin(c, task);
	return follow_to_end(c, task, e);
}
