/* Following one task. */
#include "cli/follow.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/interrupt.h"
#include "cli/remote.h"
#include <inttypes.h>
#include <string.h>

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 4000
#define GIVE_UP_MS 300000     /* without any answer of the server */
#define WAIT_SLICE_MS 25000   /* one long poll */

/* One try after another, with growing pauses. */
struct patience {
	int64_t backoff_ms;
	int64_t last_good_ms; /* monotonic: when the server last answered */
};

static struct patience patience_new(void)
{
	return (struct patience){ .backoff_ms = BACKOFF_FIRST_MS, .last_good_ms = clock_mono_ms() };
}

static bool is_settled(const struct follow *f, const struct js *task)
{
	return remote_is_over(task) || (!f->past_waiting && remote_is_waiting(task));
}

static bool may_pass(enum err_code rc)
{
	return rc == ERR_UNREACHABLE || rc == ERR_IO || rc == ERR_BUSY || rc == ERR_TIMEOUT;
}

static void tell(struct follow *f, const char *text)
{
	if (f->on_trouble)
		f->on_trouble(f->ctx, text);
}

static bool tells_waiting(const struct js *event)
{
	return str_eq(js_str(event, "type"), "task.waiting") || str_eq(js_str(js_get(event, "data"), "to"), "waiting_human");
}

static bool take_line(void *ctx, const char *line, size_t len)
{
	struct follow *f = ctx;
	if (!len)
		return true;
	AUTO_JS struct js *event = js_parse(line, len, NULL);
	int64_t seq = js_i64(event, "seq", -1);
	if (!event || (seq >= 0 && seq <= f->after) || (seq < 0 && !js_flag(event, "live", false)))
		return true; /* nothing, twice, or said beside the log */
	if (seq >= 0)
		f->after = seq;
	f->on_event(f->ctx, event, line, len);
	if (f->look)
		return f->look = false;
	if (f->last)
		return f->after < f->last;
	/* The stream stays open while a human thinks: then the task itself is looked at. */
	return f->past_waiting || !tells_waiting(event);
}

static enum err_code stream_once(struct follow *f, struct error *e)
{
	AUTO_FREE char *suffix = mem_printf("/events?follow=1&after=%" PRId64, f->after);
	AUTO_FREE char *path = remote_path(f->task_id, suffix);
	return client_lines(f->c->stream, path, "application/jsonl", take_line, f, f->interrupted, e);
}

/* A pause before the next try; an error when it is time to give up. */
static enum err_code pause_or_give_up(struct follow *f, struct patience *p, enum err_code rc, struct error *e)
{
	AUTO_FREE char *text = NULL;
	if (clock_mono_ms() - p->last_good_ms > GIVE_UP_MS) {
		if (!rc)
			error_set(e, ERR_UNREACHABLE, "the server ends every stream of task '%s'", f->task_id);
		error_hint(e, "signalbox wait %s", f->task_id);
		return e->code;
	}
	text = mem_printf("connection lost, trying again in %.1f s", (double)p->backoff_ms / 1000);
	if (rc)
		tell(f, text);
	interrupt_sleep(p->backoff_ms);
	p->backoff_ms = p->backoff_ms * 2 < BACKOFF_MAX_MS ? p->backoff_ms * 2 : BACKOFF_MAX_MS;
	return ERR_OK;
}

/* One stream and a look at the task after it. *ret_task only when settled. */
static enum err_code follow_once(struct follow *f, struct patience *p, struct js **ret_task, struct error *e)
{
	int64_t before = f->after;
	AUTO_JS struct js *task = NULL;
	enum err_code rc = stream_once(f, e);
	if (f->after != before)
		*p = patience_new();
	if (rc == ERR_GONE && f->after > 0) {
		tell(f, "the log was rebuilt; reading it from its beginning");
		f->after = 0;
		return ERR_OK;
	}
	if (rc || (f->interrupted && *f->interrupted))
		return rc;
	rc = remote_get(f->c, f->task_id, &task, e);
	if (rc)
		return rc;
	p->last_good_ms = clock_mono_ms();
	/* Settled by the row, but its last lines may not have been seen: the next stream brings them. */
	f->last = is_settled(f, task) ? js_i64(task, "last_seq", 0) : 0;
	if (is_settled(f, task) && f->after >= f->last)
		*ret_task = TAKE_PTR(task);
	return ERR_OK;
}

enum err_code follow_task(struct follow *f, struct js **ret_task, struct error *e)
{
	struct patience p = patience_new();
	for (;;) {
		int64_t before = f->after;
		enum err_code rc = follow_once(f, &p, ret_task, e);
		if (*ret_task)
			return ERR_OK;
		if (f->interrupted && *f->interrupted)
			return error_set(e, ERR_CANCELED, "interrupted");
		if (rc && !may_pass(rc))
			return rc;
		if (!rc && f->after != before)
			continue;
		rc = pause_or_give_up(f, &p, rc, e);
		if (rc)
			return rc;
	}
}

struct reply {
	struct strbuf text;
};

static bool take_reply(void *ctx, const char *line, size_t len)
{
	struct reply *r = ctx;
	strbuf_add(&r->text, line, len);
	strbuf_addc(&r->text, '\n');
	return true;
}

static bool stop_at_event(void *ctx, const char *line, size_t len)
{
	struct follow *f = ctx;
	AUTO_JS struct js *event = js_parse(line, len, NULL);
	if (js_i64(event, "seq", -1) > f->after)
		f->after = js_i64(event, "seq", -1);
	return js_i64(event, "seq", -1) < 0;
}

/* The long poll answers at once for a task that waits for a human: then the next event is what is waited for. */
static enum err_code wait_for_event(struct follow *f, const struct js *task, struct error *e)
{
	f->after = js_i64(task, "last_seq", f->after);
	AUTO_FREE char *suffix = mem_printf("/events?follow=1&after=%" PRId64, f->after);
	AUTO_FREE char *path = remote_path(f->task_id, suffix);
	return client_lines(f->c->stream, path, "application/jsonl", stop_at_event, f, f->interrupted, e);
}

static enum err_code poll_once(struct follow *f, int64_t left_ms, struct js **ret_task, struct error *e)
{
	int64_t slice = left_ms < 0 || left_ms > WAIT_SLICE_MS ? WAIT_SLICE_MS : left_ms;
	struct reply reply = { .text = STRBUF_INIT };
	AUTO_FREE char *suffix = mem_printf("/wait?timeout=%" PRId64, (slice + 999) / 1000);
	AUTO_FREE char *path = remote_path(f->task_id, suffix);
	enum err_code rc = client_lines(f->c->stream, path, "application/json", take_reply, &reply, f->interrupted, e);
	if (!rc && !(f->interrupted && *f->interrupted)) {
		js_free(*ret_task);
		*ret_task = js_parse(strbuf_str(&reply.text), reply.text.len, e);
		if (js_str(*ret_task, "code") && !js_str(*ret_task, "status")) /* it was removed while we waited */
			rc = error_set(e, err_from_name(js_str(*ret_task, "code")), "%s", js_str_or(*ret_task, "detail", "the task is gone"));
		if (!*ret_task)
			rc = error_set(e, ERR_IO, "the server's answer about task '%s' broke off", f->task_id);
	}
	strbuf_release(&reply.text);
	return rc;
}

enum err_code follow_wait(struct follow *f, int64_t timeout_ms, struct js **ret_task, struct error *e)
{
	struct patience p = patience_new();
	int64_t deadline = timeout_ms < 0 ? -1 : clock_mono_ms() + timeout_ms;
	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - clock_mono_ms();
		enum err_code rc = poll_once(f, left < 0 && deadline >= 0 ? 0 : left, ret_task, e);
		if (!rc && is_settled(f, *ret_task))
			return ERR_OK;
		if (f->interrupted && *f->interrupted)
			return error_set(e, ERR_CANCELED, "interrupted");
		if (rc && !may_pass(rc))
			return rc;
		if (deadline >= 0 && clock_mono_ms() >= deadline)
			return error_set(e, ERR_TIMEOUT, "task '%s' is not done after the time to wait", f->task_id);
		if (!rc)
			p = patience_new();
		if (!rc && remote_is_waiting(*ret_task))
			rc = wait_for_event(f, *ret_task, e);
		if (rc && (rc = pause_or_give_up(f, &p, rc, e)))
			return rc;
	}
}
