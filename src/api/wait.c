/* Replies that come later: `wait` and the runners' long poll.  One JSON document, given when it is ready; until then the connection is
 * suspended and holds no thread. */
#include "api/api.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_RECORD_MS 10000 /* for the record of an end: a matter of milliseconds, but of seconds on a disk that is busy with other things */

struct later {
	struct api *api;
	char task[27], project[PROJECT_SIZE];
	char *run, *token, *topic;
	int64_t after, deadline_ms;
	int64_t record_until_ms; /* its end is known; 0: not yet */
	/* The document when it is ready or the time is up, else NULL. */
	struct js *(*ready)(struct later *l, bool time_is_up);
	struct strbuf out;
	size_t sent;
	struct hub_sub *sub;
	struct http_stream *stream;
};

static void later_wake(void *arg)
{
	struct later *l = arg;
	http_stream_wake(l->stream);
}

static ssize_t later_read(void *state, char *buf, size_t max)
{
	struct later *l = state;
	if (!l->sub)
		l->sub = hub_watch(core_hub(l->api->core), l->topic, later_wake, l);
	if (!l->out.len) {
		struct js *body = l->ready(l, clock_mono_ms() >= l->deadline_ms || l->api->stopping);
		if (!body)
			return 0;
		js_dump_to(body, &l->out);
		js_free(body);
	}
	size_t n = l->out.len - l->sent < max ? l->out.len - l->sent : max;
	if (!n)
		return -1;
	memcpy(buf, l->out.data + l->sent, n);
	l->sent += n;
	return (ssize_t)n;
}

static void later_free(void *state)
{
	struct later *l = state;
	hub_unsubscribe(l->sub);
	strbuf_release(&l->out);
	free(l->run);
	free(l->token);
	free(l->topic);
	free(l);
}

static const struct http_stream_ops later_ops = { later_read, later_free };

/* Whoever waited for the end may look into the task's directory next; a disk that is full does not keep the answer for ever. */
static bool is_on_record(struct later *l, const struct js *task)
{
	int64_t now = clock_mono_ms();
	if (!l->record_until_ms)
		l->record_until_ms = now + WAIT_RECORD_MS;
	const char *at = js_str(task, "completed_at");
	bool long_ago = at && clock_wall_ms() - clock_parse_rfc3339(at) > WAIT_RECORD_MS;
	return long_ago || now >= l->record_until_ms || core_record_is_whole(l->api->core, task);
}

static struct js *task_ready(struct later *l, bool time_is_up)
{
	struct js *task = NULL;
	struct error e = ERROR_INIT;
	bool at_work = false;
	if (!time_is_up && core_is_at_work(l->api->core, l->task, &at_work, NULL) == ERR_OK && at_work)
		return NULL; /* woken by an event on the way: nothing to be told yet */
	if (core_task(l->api->core, (struct caller){ .project = l->project }, l->task, NULL, &task, &e)) {
		task = js_object(); /* it was removed while we waited */
		js_set_str(task, "code", err_name(e.code));
		js_set_str(task, "detail", e.text);
		return task;
	}
	const char *status = js_str_or(task, "status", "");
	bool live = str_eq(status, "PENDING") || str_eq(status, "QUEUED") || str_eq(status, "RUNNING");
	bool done = !live && !str_eq(status, "WAITING");
	if (!time_is_up && (live || (done && !is_on_record(l, task)))) {
		js_free(task);
		return NULL;
	}
	js_set_bool(task, "done", done);
	return task;
}

void api_wait_task(struct http_request *r, void *ctx)
{
	struct error e = ERROR_INIT;
	int64_t seconds = API_WAIT_DEFAULT_S;
	struct later *l = NEW(struct later);
	l->api = ctx;
	if (!api_task_id(r, l->api, l->task)) {
		later_free(l);
		return;
	}
	snprintf(l->project, sizeof(l->project), "%s", http_project(r));
	if (http_query_i64(r, "timeout", 0, API_WAIT_MAX_S, &seconds, &e)) {
		later_free(l);
		http_reply_error(r, &e);
		return;
	}
	l->topic = mem_strdup(l->task);
	l->deadline_ms = clock_mono_ms() + seconds * 1000;
	l->ready = task_ready;
	http_stream(r, 200, "application/json", &later_ops, l, &l->stream);
}

static struct js *commands_document(struct js *list_taken, bool over)
{
	struct js *o = js_object();
	js_set(o, "commands", list_taken ? list_taken : js_array());
	js_set_bool(o, "over", over);
	return o;
}

static struct js *commands_ready(struct later *l, bool time_is_up)
{
	struct js *list = NULL;
	struct error e = ERROR_INIT;
	if (core_commands(l->api->core, l->run, l->token, l->after, &list, &e))
		return commands_document(NULL, true);
	if (js_len(list) || time_is_up)
		return commands_document(list, false);
	js_free(list);
	return NULL;
}

void api_wait_commands(struct http_request *r, void *ctx)
{
	struct error e = ERROR_INIT;
	int64_t seconds = 0, after = 0;
	struct js *list = NULL;
	struct api *a = ctx;
	enum err_code rc = http_query_i64(r, "after", 0, INT64_MAX, &after, &e);
	if (!rc)
		rc = http_query_i64(r, "wait", 0, API_COMMANDS_WAIT_MAX_S, &seconds, &e);
	if (!rc)
		rc = core_commands(a->core, http_param(r, "run"), api_bearer(r), after, &list, &e);
	if (rc) {
		http_reply_error(r, &e);
		return;
	}
	js_free(list);
	struct later *l = NEW(struct later);
	const char *run = http_param(r, "run");
	l->api = a;
	l->run = mem_strdup(run);
	l->token = mem_strdup(api_bearer(r));
	l->topic = mem_printf("commands:%.*s", (int)strcspn(run, "."), run);
	l->after = after;
	l->deadline_ms = clock_mono_ms() + seconds * 1000;
	l->ready = commands_ready;
	http_stream(r, 200, "application/json", &later_ops, l, &l->stream);
}
