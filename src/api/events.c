/* The log over HTTP: a JSON page, or a stream (SSE, JSONL) by cursor that holds no thread while nothing happens. */
#include "api/api.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdlib.h>
#include <string.h>

#define PAGE_DEFAULT 200
#define FEED_PAGE 128	     /* lines taken at once: bounds a reader's memory */
#define FEED_RETRY_MS "1000" /* what SSE clients are told to wait before they reconnect */

struct feed {
	struct api *api;
	char task[27];
	bool sse, follow;
	bool greeted, caught_up, synced, over, closed;
	int64_t cursor, next_comment;
	struct strbuf out;
	size_t sent;
	struct hub_sub *sub;
	struct http_stream *stream;
};

static void feed_line(void *ctx, int64_t seq, const char *line)
{
	struct feed *f = ctx;
	f->cursor = seq;
	if (f->sse)
		strbuf_addf(&f->out, "id: %lld\ndata: ", (long long)seq);
	strbuf_adds(&f->out, line);
	strbuf_adds(&f->out, f->sse ? "\n\n" : "\n");
	if (core_line_is(line, "task.done\""))
		f->over = true;
	else if (core_line_begins_again(line))
		f->over = false;
}

static void feed_live(void *ctx, const char *line)
{
	struct feed *f = ctx;
	if (f->sse)
		strbuf_adds(&f->out, "event: live\ndata: ");
	strbuf_adds(&f->out, line);
	strbuf_adds(&f->out, f->sse ? "\n\n" : "\n");
}

static void feed_event(struct feed *f, const char *name, struct js *data_taken)
{
	if (f->sse) {
		strbuf_addf(&f->out, "event: %s\ndata: ", name);
		js_dump_to(data_taken, &f->out);
		strbuf_adds(&f->out, "\n\n");
	}
	js_free(data_taken);
}

static void feed_wake(void *arg)
{
	struct feed *f = arg;
	http_stream_wake(f->stream);
}

static void greet(struct feed *f, int64_t head)
{
	struct js *hello = js_object();
	js_set_int(hello, "head", head);
	js_set_int(hello, "oldest", head ? 1 : 0);
	js_set_int(hello, "generation", core_generation(f->api->core, f->task));
	if (f->sse)
		strbuf_adds(&f->out, "retry: " FEED_RETRY_MS "\n");
	feed_event(f, "hello", hello);
	f->greeted = true;
}

/* From the database: the past, or what the ring no longer has. */
static bool catch_up(struct feed *f)
{
	struct strbuf page = f->out;
	int64_t head = 0, before = f->cursor;
	bool over = false;
	struct error e = ERROR_INIT;
	f->out = (struct strbuf)STRBUF_INIT; /* so that hello, which needs the head, can come first */
	enum err_code rc = core_events(f->api->core, f->task, f->cursor, FEED_PAGE, feed_line, f, &head, &over, &e);
	struct strbuf lines = f->out;
	f->out = page;
	if (!rc && !f->greeted)
		greet(f, head);
	strbuf_add(&f->out, strbuf_str(&lines), lines.len);
	strbuf_release(&lines);
	f->caught_up = !rc && f->cursor - before < FEED_PAGE;
	f->over = f->over || (over && f->cursor >= head);
	return rc == ERR_OK;
}

static void finish(struct feed *f)
{
	struct js *task = NULL, *end = js_object();
	struct error e = ERROR_INIT;
	if (core_task(f->api->core, f->task, NULL, &task, &e) == ERR_OK)
		js_set_str(end, "status", js_str(task, "status"));
	js_free(task);
	feed_event(f, "end", end);
	f->closed = true;
}

static void feed_fill(struct feed *f)
{
	bool gap = false;
	if (f->caught_up) {
		if (f->sse)
			f->cursor = hub_read_frames(f->sub, f->cursor, FEED_PAGE, &f->out, &f->over, &gap);
		else
			hub_read(f->sub, f->cursor, FEED_PAGE, feed_line, f, &gap);
		hub_read_live(f->sub, feed_live, f);
		f->caught_up = !gap;
	}
	if (!f->caught_up && !catch_up(f)) {
		f->closed = true; /* the task was removed, or the database fails: the reader comes again with its cursor */
		return;
	}
	if (f->caught_up && !f->synced) {
		f->synced = true;
		feed_event(f, "sync", js_object());
	}
	if (f->caught_up && (f->over || !f->follow))
		finish(f);
	if (f->api->stopping && !f->closed) { /* nothing is lost: the reader comes again with its cursor */
		feed_event(f, "stopping", js_object());
		f->closed = true;
	}
	if (!f->out.len && f->sse && clock_mono_ms() >= f->next_comment)
		strbuf_adds(&f->out, ": here\n\n");
	if (f->out.len)
		f->next_comment = clock_mono_ms() + API_COMMENT_INTERVAL_MS;
}

static ssize_t feed_read(void *state, char *buf, size_t max)
{
	struct feed *f = state;
	if (!f->sub)
		f->sub = hub_subscribe(core_hub(f->api->core), f->task, feed_wake, f);
	while (f->sent == f->out.len) {
		strbuf_reset(&f->out);
		f->sent = 0;
		if (f->closed)
			return -1;
		feed_fill(f);
		if (!f->out.len && !f->closed)
			return 0;
	}
	size_t n = f->out.len - f->sent < max ? f->out.len - f->sent : max;
	memcpy(buf, f->out.data + f->sent, n);
	f->sent += n;
	return (ssize_t)n;
}

static void feed_free(void *state)
{
	struct feed *f = state;
	hub_unsubscribe(f->sub);
	strbuf_release(&f->out);
	free(f);
}

static const struct http_stream_ops feed_ops = { feed_read, feed_free };

static void start_feed(struct http_request *r, struct api *a, const char *task, int64_t after, bool sse)
{
	struct feed *f = NEW(struct feed);
	f->api = a;
	memcpy(f->task, task, sizeof(f->task));
	f->sse = sse;
	f->follow = sse || str_eq(http_query(r, "follow"), "1");
	f->cursor = after;
	f->next_comment = clock_mono_ms() + API_COMMENT_INTERVAL_MS;
	http_reply_header(r, "Cache-Control", "no-store");
	http_reply_header(r, "X-Accel-Buffering", "no");
	http_stream(r, 200, sse ? "text/event-stream" : "application/jsonl", &feed_ops, f, &f->stream);
}

static void page_line(void *ctx, int64_t seq, const char *line)
{
	struct feed *f = ctx;
	if (f->out.len)
		strbuf_addc(&f->out, ',');
	strbuf_adds(&f->out, line);
	f->cursor = seq;
}

static void reply_page(struct http_request *r, struct api *a, const char *task, int64_t after)
{
	struct feed f = { .cursor = after };
	struct error e = ERROR_INIT;
	int64_t limit = PAGE_DEFAULT, head = 0;
	bool over = false;
	AUTO_STRBUF struct strbuf body = STRBUF_INIT;
	enum err_code rc = http_query_i64(r, "limit", 1, EVENTS_PAGE_MAX, &limit, &e);
	if (!rc)
		rc = core_events(a->core, task, after, limit, page_line, &f, &head, &over, &e);
	if (rc) {
		http_reply_error(r, &e);
	} else {
		strbuf_addf(&body, "{\"data\":[%s],\"next_cursor\":", strbuf_str(&f.out)); /* the lines are JSON as they are */
		if (f.cursor < head)
			strbuf_addf(&body, "%lld", (long long)f.cursor);
		else
			strbuf_adds(&body, "null");
		strbuf_addf(&body, ",\"head\":%lld}", (long long)head);
		http_reply(r, 200, "application/json", body.data, body.len);
	}
	strbuf_release(&f.out);
}

static void no_line(void *ctx UNUSED, int64_t seq UNUSED, const char *line UNUSED)
{
}

/* A cursor beyond the log's end was given by a log that is no more (its generation tells). */
static enum err_code check_cursor(struct api *a, const char *task, int64_t after, struct error *e)
{
	int64_t head = 0;
	bool over = false;
	enum err_code rc = core_events(a->core, task, after, 0, no_line, NULL, &head, &over, e);
	if (rc || after <= head)
		return rc;
	error_set(e, ERR_GONE, "the cursor %lld is beyond the log's end, %lld", (long long)after, (long long)head);
	error_hint(e, "begin again from the oldest: ?after=0");
	return ERR_GONE;
}

void api_get_events(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	char task[27];
	int64_t after = 0;
	const char *accept = http_header(r, "Accept"), *last = http_header(r, "Last-Event-ID");
	if (!api_task_id(r, a, task))
		return;
	enum err_code rc = http_query_i64(r, "after", 0, INT64_MAX, &after, &e);
	if (!rc && last)
		rc = str_to_i64(last, "Last-Event-ID", 0, INT64_MAX, &after, &e);
	if (!rc)
		rc = check_cursor(a, task, after, &e);
	if (rc)
		http_reply_error(r, &e);
	else if (accept && strstr(accept, "text/event-stream"))
		start_feed(r, a, task, after, true);
	else if (accept && (strstr(accept, "jsonl") || strstr(accept, "ndjson")))
		start_feed(r, a, task, after, false);
	else
		reply_page(r, a, task, after);
}
