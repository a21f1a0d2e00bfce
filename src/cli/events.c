/* events: the task's log; with -f as it grows. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/remote.h"
#include "cli/text.h"
#include "cli/view.h"
#include <inttypes.h>

#define PAGE_EVENTS 1000

const struct opt events_options[] = {
	{ "follow", 'f', OPT_FLAG, NULL, "go on until the task has ended" },
	{ "after", 0, OPT_INT, "SEQ", "only events after this number" },
	{ .name = NULL },
};

/* Where the events go. */
struct printer {
	struct cli *c;
	struct view view; /* terminal */
	bool lines;	  /* JSON lines as they came */
};

static void print_tabs(struct printer *p, const struct js *event)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	if (js_flag(event, "live", false))
		return;
	strbuf_addf(&out, "%" PRId64 "\t", js_i64(event, "seq", 0));
	text_add_line(&out, js_str_or(event, "at", ""));
	strbuf_addc(&out, '\t');
	text_add_line(&out, js_str_or(event, "type", ""));
	strbuf_addc(&out, '\t');
	view_event_text(&p->view, event, &out);
	strbuf_addc(&out, '\n');
	term_write(&p->c->out, &out);
}

static void on_event(void *ctx, const struct js *event, const char *line, size_t len)
{
	struct printer *p = ctx;
	if (p->lines) {
		fwrite(line, 1, len, p->c->out.file);
		fputc('\n', p->c->out.file);
		fflush(p->c->out.file);
	} else if (p->c->out.tty) {
		view_event(&p->view, event);
	} else {
		print_tabs(p, event);
	}
}

static void on_trouble(void *ctx, const char *text)
{
	struct printer *p = ctx;
	if (p->c->out.tty && !p->lines)
		live_text(&p->view.live, text);
	else
		cli_say(p->c, "signalbox: %s", text);
}

/* The log as it is now, page by page. */
static enum err_code print_pages(struct printer *p, const char *id, int64_t after, struct error *e)
{
	bool more = true;
	while (more) {
		AUTO_JS struct js *page = NULL;
		AUTO_FREE char *suffix = mem_printf("/events?limit=%d&after=%" PRId64, PAGE_EVENTS, after);
		AUTO_FREE char *path = remote_path(id, suffix);
		int status = 0;
		enum err_code rc = client_call(p->c->client, "GET", path, NULL, &status, &page, e);
		if (rc)
			return rc;
		const struct js *data = js_get(page, "data");
		for (size_t i = 0; i < js_len(data); i++) {
			AUTO_FREE char *line = js_dump(js_at(data, i));
			AUTO_STRBUF struct strbuf text = STRBUF_INIT;
			strbuf_adds(&text, line);
			on_event(p, js_at(data, i), line, text.len);
			after = js_i64(js_at(data, i), "seq", after);
		}
		more = js_len(data) && js_type(js_get(page, "next_cursor")) == JS_INT;
	}
	return ERR_OK;
}

static enum err_code follow(struct printer *p, const char *id, int64_t after, struct error *e)
{
	AUTO_JS struct js *settled = NULL;
	struct follow f = {
		.c = p->c, .task_id = id, .after = after, .on_event = on_event, .on_trouble = on_trouble, .ctx = p, .past_waiting = true,
		.interrupted = interrupt_watch(),
	};
	enum err_code rc = follow_task(&f, &settled, e);
	if (!rc)
		p->c->exit_status = remote_exit_status(settled);
	if (rc != ERR_CANCELED || !*f.interrupted)
		return rc;
	error_clear(e);
	p->c->exit_status = EXIT_DETACHED;
	return ERR_OK;
}

enum err_code cmd_events(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	struct printer p = { .c = c, .lines = c->json };
	int64_t after = cli_opt(c, "after")->set ? cli_opt(c, "after")->number : 0;
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (rc)
		return rc;
	const char *created = js_str(task, "created_at");
	bool following = cli_flag(c, "follow");
	view_start(&p.view, &c->out, false, following && !c->json, created ? clock_parse_rfc3339(created) : clock_wall_ms());
	p.view.all = true;
	rc = following ? follow(&p, remote_id(task), after, e) : print_pages(&p, remote_id(task), after, e);
	view_stop(&p.view);
	if (c->exit_status == EXIT_DETACHED)
		cli_say(c, "stopped looking; the task goes on\n  again   signalbox events -f %s", remote_label(task));
	return rc;
}
