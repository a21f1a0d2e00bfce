/* The human in the loop over HTTP: gates listed and looked at, turns interrupted, the agent's plan. Messages and decisions are in tasks.c, with what is idempotent. */
#include "api/api.h"
#include "base/cleanup.h"
#include "base/str.h"
#include <string.h>

#define GATES_DEFAULT 200
#define TODO_EVENTS_MAX 1000 /* of one page */

void api_list_gates(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	struct gate_filter f = { .state = http_query(r, "state"), .task = http_query(r, "task"), .after = http_query(r, "after"), .limit = GATES_DEFAULT };
	enum err_code rc = http_query_i64(r, "limit", 1, 1000, &f.limit, &e);
	if (!rc)
		rc = core_gates(a->core, api_caller(r), &f, &text, &e);
	if (rc)
		http_reply_error(r, &e);
	else
		http_reply(r, 200, "application/json", text.data, text.len);
}

void api_get_gate(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *gate = NULL;
	enum err_code rc = core_gate(a->core, api_caller(r), http_param(r, "gate"), &gate, &e);
	http_reply_outcome(r, rc, 200, gate, &e);
}

void api_interrupt_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *task = NULL;
	if (!api_has_no_words(r))
		return;
	enum err_code rc = core_interrupt(a->core, api_caller(r), http_param(r, "task"), http_query(r, "repo"), &task, &e);
	http_reply_outcome(r, rc, 202, task, &e);
}

void api_get_todos(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *list = NULL;
	enum err_code rc = core_todos(a->core, api_caller(r), http_param(r, "task"), http_query(r, "repo"), &list, &e);
	http_reply_outcome(r, rc, 200, list, &e);
}

struct todo_page {
	struct strbuf lines;
	int64_t cursor, limit, found;
	bool full;
};

static void take_line(void *ctx, int64_t seq, const char *line)
{
	struct todo_page *p = ctx;
	if (p->full)
		return;
	if (core_line_is(line, "todo.")) {
		strbuf_addf(&p->lines, "%s%s", p->lines.len ? "," : "", line);
		p->full = ++p->found == p->limit;
	}
	p->cursor = seq;
}

/* The plan's history: the log's todo events, from a cursor of the log on. */
void api_get_todo_events(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct todo_page p = { .limit = GATES_DEFAULT };
	AUTO_STRBUF struct strbuf body = STRBUF_INIT;
	char task[27];
	int64_t head = 0, before = -1;
	bool over = false;
	if (!api_task_id(r, a, task))
		return;
	enum err_code rc = http_query_i64(r, "after", 0, INT64_MAX, &p.cursor, &e);
	if (!rc)
		rc = http_query_i64(r, "limit", 1, TODO_EVENTS_MAX, &p.limit, &e);
	while (!rc && !p.full && p.cursor != before) {
		before = p.cursor;
		rc = core_events(a->core, api_caller(r), task, p.cursor, EVENTS_PAGE_MAX, take_line, &p, &head, &over, &e);
	}
	if (rc) {
		http_reply_error(r, &e);
	} else {
		strbuf_addf(&body, "{\"data\":[%s],\"next_cursor\":", strbuf_str(&p.lines));
		if (p.cursor < head)
			strbuf_addf(&body, "%lld", (long long)p.cursor);
		else
			strbuf_adds(&body, "null");
		strbuf_addf(&body, ",\"head\":%lld}", (long long)head);
		http_reply(r, 200, "application/json", body.data, body.len);
	}
	strbuf_release(&p.lines);
}
