/* Streams of log lines, as SSE or JSON lines.  One holds no thread while nothing happens and no lines while it keeps up:
 *
 *   subscribed --> page by page from the database --> the shared ring (core/hub.h), copied from there straight into what is sent
 *                        ^------ fell out of the ring ------'
 *
 * What is said beside the log (hello, sync, end, lagged, stopping): SSE events of that name; among JSON lines objects of that `type` without `seq`,
 * only when the stream follows. */
#include "api/feed.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/tokens.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEED_PAGE 128			   /* lines of one page from the database, ... */
#define FEED_PAGE_BYTES ((size_t)16 << 10) /* ... and bytes: with one line more, what a reader that stops reading costs */
#define FEED_KEEP_BYTES ((size_t)1 << 10)  /* a buffer that was larger is given back when it is empty */
#define FEED_TOKEN_LOOK_MS 1000		   /* between looks whether its token opens still */
#define FEED_RETRY_MS "1000"		   /* what SSE clients are told to wait before they reconnect */

struct feed {
	struct api *api;
	char task[27]; /* "": all */
	char *who, project[PROJECT_SIZE];
	bool sse, follow;
	bool greeted, caught_up, synced, over, closed;
	int64_t cursor, next_comment, next_look;
	int64_t given_at; /* when it got bytes that it may not have taken yet; 0: it has taken all */
	struct strbuf out;
	size_t sent;
	struct hub_sub *sub;
	struct http_stream *stream;
};

static bool is_all(const struct feed *f)
{
	return !f->task[0];
}

static struct caller caller_of(const struct feed *f)
{
	return (struct caller){ .who = f->who, .project = f->project };
}

static enum hub_form form_of(const struct feed *f)
{
	return f->sse ? HUB_SSE : HUB_JSONL;
}

/* --- what is put into `out` */

static void add_line(void *ctx, int64_t seq, const char *line)
{
	struct feed *f = ctx;
	char cursor[FEED_CURSOR_SIZE];
	snprintf(cursor, sizeof(cursor), "%lld", (long long)seq);
	hub_frame(&f->out, form_of(f), cursor, false, line);
	f->cursor = seq;
	f->over = (f->over && !core_line_begins_again(line)) || core_line_is(line, "task.done\"");
}

static void add_any(void *ctx, int64_t n, const char *cursor, const char *line)
{
	struct feed *f = ctx;
	(void)n; /* the page's end moves our cursor */
	hub_frame(&f->out, form_of(f), cursor, true, line);
}

static void add_live(void *ctx, const char *line)
{
	struct feed *f = ctx;
	strbuf_adds(&f->out, f->sse ? "event: live\ndata: " : "");
	strbuf_adds(&f->out, line);
	strbuf_adds(&f->out, f->sse ? "\n\n" : "\n");
}

static void add_word(struct feed *f, const char *word, struct js *data_taken)
{
	if (f->sse) {
		strbuf_addf(&f->out, "event: %s\ndata: ", word);
		js_dump_to(data_taken, &f->out);
		strbuf_adds(&f->out, "\n\n");
	} else if (f->follow) {
		struct js *line = js_object();
		js_set_str(line, "type", word);
		js_merge(line, data_taken);
		js_dump_to(line, &f->out);
		strbuf_addc(&f->out, '\n');
		js_free(line);
	}
	js_free(data_taken);
}

static void greet(struct feed *f, struct js *hello_taken)
{
	if (f->sse)
		strbuf_adds(&f->out, "retry: " FEED_RETRY_MS "\n");
	add_word(f, "hello", hello_taken);
	f->greeted = true;
}

static void greet_task(struct feed *f, int64_t head)
{
	struct js *hello = js_object();
	js_set_int(hello, "head", head);
	js_set_int(hello, "oldest", head ? 1 : 0);
	js_set_int(hello, "generation", core_generation(f->api->core, f->task));
	greet(f, hello);
}

static void greet_all(struct feed *f, const struct feed_place *place)
{
	struct js *hello = js_object();
	js_set_str(hello, "head", place->head_cursor);
	greet(f, hello);
}

/* It resumes by its cursor: nothing is lost but time. */
static void let_go(struct feed *f, const char *word)
{
	struct js *data = js_object();
	if (!is_all(f))
		js_set_int(data, "after", f->cursor);
	add_word(f, word, data);
	f->closed = true;
}

static void finish(struct feed *f)
{
	struct js *task = NULL, *end = js_object();
	if (!is_all(f) && core_task(f->api->core, caller_of(f), f->task, NULL, &task, NULL) == ERR_OK)
		js_set_str(end, "status", js_str(task, "status"));
	js_free(task);
	add_word(f, "end", end);
	f->closed = true;
}

/* --- from the database: the past, or what the ring no longer has */

static bool page_of_task(struct feed *f)
{
	int64_t head = 0;
	bool over = false;
	if (!f->greeted) {
		if (core_events(f->api->core, caller_of(f), f->task, 0, 0, add_line, f, &head, &over, NULL))
			return false;
		greet_task(f, head);
	}
	if (core_events_within(f->api->core, caller_of(f), f->task, f->cursor, FEED_PAGE, FEED_PAGE_BYTES, add_line, f, &head, &over, NULL))
		return false;
	f->caught_up = f->cursor >= head;
	f->over = f->over || (over && f->caught_up);
	return true;
}

static bool page_of_all(struct feed *f)
{
	struct feed_place place = { 0 };
	if (!f->greeted) {
		int64_t after = f->cursor;
		if (core_feed(f->api->core, caller_of(f), &after, 0, 0, add_any, f, &place, NULL))
			return false;
		greet_all(f, &place);
	}
	if (core_feed(f->api->core, caller_of(f), &f->cursor, FEED_PAGE, FEED_PAGE_BYTES, add_any, f, &place, NULL))
		return false;
	f->caught_up = f->cursor >= place.head;
	return true;
}

/* --- its turn */

/* Straight into the connection's memory; 0: `out` may have something, or nothing is new. */
static size_t take_new(struct feed *f, char *buf, size_t max)
{
	const struct hub_out out = { .form = form_of(f), .buf = buf, .max = max, .rest = &f->out };
	size_t n = 0;
	bool gap = false;
	f->cursor = hub_copy(f->sub, f->cursor, &out, &n, &f->over, &gap);
	f->caught_up = !gap;
	f->over = f->over && !is_all(f); /* a task's end is not that of all */
	if (!n && f->caught_up)
		hub_read_live(f->sub, add_live, f);
	return n;
}

static void go_on(struct feed *f)
{
	if (f->api->stopping && f->greeted && !f->caught_up) {
		let_go(f, "stopping");
		return;
	}
	if (!f->caught_up && !(is_all(f) ? page_of_all(f) : page_of_task(f))) {
		f->closed = true; /* the task was removed, the database fails, or the past is not kept: the reader comes again with its cursor */
		return;
	}
	if (f->out.len || !f->caught_up)
		return;
	if (!f->synced) {
		f->synced = true;
		add_word(f, "sync", js_object());
	}
	if (f->over || !f->follow)
		finish(f);
	else if (f->api->stopping)
		let_go(f, "stopping");
	else if (!f->out.len && f->sse && clock_mono_ms() >= f->next_comment)
		strbuf_adds(&f->out, ": here\n\n");
}

static ssize_t take_out(struct feed *f, char *buf, size_t max)
{
	size_t n = f->out.len - f->sent < max ? f->out.len - f->sent : max;
	memcpy(buf, f->out.data + f->sent, n);
	f->sent += n;
	if (f->sent == f->out.len) {
		if (f->out.cap > FEED_KEEP_BYTES)
			strbuf_release(&f->out);
		strbuf_reset(&f->out);
		f->sent = 0;
	}
	return (ssize_t)n;
}

/* Bytes, 0 for none now, -1 at the end. */
static ssize_t feed_next(struct feed *f, char *buf, size_t max)
{
	for (;;) {
		if (f->out.len)
			return take_out(f, buf, max);
		if (f->closed)
			return -1;
		bool behind = !f->caught_up;
		size_t n = behind ? 0 : take_new(f, buf, max);
		if (n)
			return (ssize_t)n;
		if (!f->out.len)
			go_on(f);
		if (!f->out.len && !f->closed && f->caught_up && !behind)
			return 0;
	}
}

static void feed_wake(void *arg)
{
	struct feed *f = arg;
	http_stream_wake(f->stream);
}

/* The end of its token is the end of a stream: who comes again hears why. */
static bool is_welcome(struct feed *f, int64_t now)
{
	if (now < f->next_look)
		return true;
	f->next_look = now + FEED_TOKEN_LOOK_MS;
	return core_token_lives(f->api->core, caller_of(f));
}

static ssize_t feed_read(void *state, char *buf, size_t max)
{
	struct feed *f = state;
	int64_t now = clock_mono_ms();
	if (!is_welcome(f, now))
		return -1;
	if (!f->sub)
		f->sub = is_all(f) ? hub_subscribe_all(core_hub(f->api->core), f->project, feed_wake, f) : hub_subscribe(core_hub(f->api->core), f->task, feed_wake, f);
	if (f->given_at && now - f->given_at > FEED_LAG_MS && !f->closed)
		let_go(f, "lagged");
	ssize_t n = feed_next(f, buf, max);
	f->given_at = n > 0 ? now : 0;
	if (n > 0)
		f->next_comment = now + API_COMMENT_INTERVAL_MS;
	return n;
}

static void feed_free(void *state)
{
	struct feed *f = state;
	hub_unsubscribe(f->sub);
	strbuf_release(&f->out);
	free(f->who);
	free(f);
}

void feed_reply(struct http_request *r, struct api *a, const char *task, int64_t after, bool sse)
{
	static const struct http_stream_ops ops = { feed_read, feed_free };
	struct feed *f = NEW(struct feed);
	f->api = a;
	f->who = mem_strdup(http_principal(r));
	snprintf(f->task, sizeof(f->task), "%s", task ? task : "");
	snprintf(f->project, sizeof(f->project), "%s", http_project(r));
	f->sse = sse;
	f->follow = sse || str_eq(http_query(r, "follow"), "1");
	f->cursor = after;
	f->next_comment = clock_mono_ms() + API_COMMENT_INTERVAL_MS;
	f->next_look = clock_mono_ms() + FEED_TOKEN_LOOK_MS;
	http_reply_header(r, "Cache-Control", "no-store");
	http_reply_header(r, "X-Accel-Buffering", "no");
	if (f->follow)
		http_stream_crowd(r, 200, sse ? "text/event-stream" : "application/jsonl", &ops, f, &f->stream);
	else
		http_stream(r, 200, "application/jsonl", &ops, f, &f->stream);
}
