/* The log over HTTP, of one task and of all: a JSON page here, or a stream (feed.c), by Accept. */
#include "api/api.h"
#include "api/feed.h"
#include "base/cleanup.h"
#include "base/str.h"
#include <string.h>

#define PAGE_DEFAULT 200

/* What the reader wants: Accept, and where it was. */
static bool wants_sse(const struct http_request *r)
{
	const char *accept = http_header(r, "Accept");
	return accept && strstr(accept, "text/event-stream");
}

static bool wants_lines(const struct http_request *r)
{
	const char *accept = http_header(r, "Accept");
	return accept && (strstr(accept, "jsonl") || strstr(accept, "ndjson"));
}

struct page {
	struct strbuf lines;
	int64_t cursor;
	char next[FEED_CURSOR_SIZE];
};

static void page_add(struct page *p, const char *head, const char *line)
{
	if (p->lines.len)
		strbuf_addc(&p->lines, ',');
	strbuf_adds(&p->lines, head);
	strbuf_adds(&p->lines, line);
}

/* --- one task */

static void page_line(void *ctx, int64_t seq, const char *line)
{
	struct page *p = ctx;
	page_add(p, "", line);
	p->cursor = seq;
}

static void reply_page(struct http_request *r, struct api *a, const char *task, int64_t after)
{
	struct page p = { .cursor = after };
	struct error e = ERROR_INIT;
	int64_t limit = PAGE_DEFAULT, head = 0;
	bool over = false;
	AUTO_STRBUF struct strbuf body = STRBUF_INIT;
	enum err_code rc = http_query_i64(r, "limit", 1, EVENTS_PAGE_MAX, &limit, &e);
	if (!rc)
		rc = core_events(a->core, api_caller(r), task, after, limit, page_line, &p, &head, &over, &e);
	if (rc) {
		http_reply_error(r, &e);
	} else {
		strbuf_addf(&body, "{\"data\":[%s],\"next_cursor\":", strbuf_str(&p.lines)); /* the lines are JSON as they are */
		if (p.cursor < head)
			strbuf_addf(&body, "%lld", (long long)p.cursor);
		else
			strbuf_adds(&body, "null");
		strbuf_addf(&body, ",\"head\":%lld}", (long long)head);
		http_reply(r, 200, "application/json", body.data, body.len);
	}
	strbuf_release(&p.lines);
}

/* A cursor beyond the log's end was given by a log that is no more (its generation tells). */
static bool cursor_is_good(struct http_request *r, struct api *a, const char *task, int64_t after)
{
	struct error e = ERROR_INIT;
	int64_t head = 0;
	bool over = false;
	enum err_code rc = core_events(a->core, api_caller(r), task, after, 0, NULL, NULL, &head, &over, &e);
	if (!rc && after <= head)
		return true;
	if (rc) {
		http_reply_error(r, &e);
		return false;
	}
	error_set(&e, ERR_GONE, "the cursor %lld is beyond the log's end, %lld", (long long)after, (long long)head);
	error_hint(&e, "begin again from the oldest: ?after=0");
	http_reply_error_with(r, &e, "oldest", js_int(head ? 1 : 0)); /* as hello says it */
	return false;
}

void api_get_events(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	char task[27];
	int64_t after = 0;
	const char *last = http_header(r, "Last-Event-ID");
	if (!api_task_id(r, a, task))
		return;
	enum err_code rc = http_query_i64(r, "after", 0, INT64_MAX, &after, &e);
	if (!rc && last)
		rc = str_to_i64(last, "Last-Event-ID", 0, INT64_MAX, &after, &e);
	if (rc)
		http_reply_error(r, &e);
	else if (!cursor_is_good(r, a, task, after))
		return;
	else if (wants_sse(r) || wants_lines(r))
		feed_reply(r, a, task, after, wants_sse(r));
	else
		reply_page(r, a, task, after);
}

/* --- all tasks */

static void page_any(void *ctx, int64_t n, const char *cursor, const char *line)
{
	struct page *p = ctx;
	AUTO_STRBUF struct strbuf head = STRBUF_INIT;
	(void)n;
	strbuf_addf(&head, "{\"cursor\":\"%s\",", cursor);
	page_add(p, strbuf_str(&head), line + 1);
	strbuf_reset(&head);
	memcpy(p->next, cursor, strlen(cursor) + 1);
}

static void reply_page_of_all(struct http_request *r, struct api *a, int64_t after)
{
	struct page p = { .cursor = after };
	struct feed_place place = { 0 };
	struct error e = ERROR_INIT;
	int64_t limit = PAGE_DEFAULT;
	AUTO_STRBUF struct strbuf body = STRBUF_INIT;
	enum err_code rc = http_query_i64(r, "limit", 1, EVENTS_PAGE_MAX, &limit, &e);
	do /* lines of removed tasks fill no page */
		if (!rc)
			rc = core_feed(a->core, api_caller(r), &p.cursor, limit, EVENTS_PAGE_BYTES, page_any, &p, &place, &e);
	while (!rc && !p.lines.len && p.cursor < place.head);
	if (rc) {
		http_reply_error(r, &e);
	} else {
		strbuf_addf(&body, "{\"data\":[%s],\"next_cursor\":", strbuf_str(&p.lines));
		if (p.next[0] && p.cursor < place.head)
			strbuf_addf(&body, "\"%s\"", p.next);
		else
			strbuf_adds(&body, "null");
		strbuf_addf(&body, ",\"head\":\"%s\"}", place.head_cursor);
		http_reply(r, 200, "application/json", body.data, body.len);
	}
	strbuf_release(&p.lines);
}

void api_get_all_events(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	int64_t after = 0;
	const char *last = http_header(r, "Last-Event-ID"), *given = http_query(r, "after");
	if (core_feed_cursor(a->core, api_caller(r), last ? last : given ? given : "0", &after, &e))
		http_reply_error(r, &e);
	else if (wants_sse(r) || wants_lines(r))
		feed_reply(r, a, NULL, after, wants_sse(r));
	else
		reply_page_of_all(r, a, after);
}
