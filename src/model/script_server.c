/* The HTTP side of the scripted model. */
#include "model/script_server.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/messages.h"
#include "model/play.h"
#include "model/script.h"
#include "model/turn.h"
#include "net/server.h"
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define WAIT_SLICE_MS INT64_C(20000) /* a longer wait is broken by comments, so that no side takes the line for dead */
#define LOG_TEXT_BYTES 400 /* of a prompt or a tool's output in a log line */

struct counter {
	struct counter *next; /* newest first */
	char *key;
	int64_t taken;
};

struct script_server {
	struct script_server_config cfg;
	struct http_server *http;
	pthread_mutex_t lock; /* guards stopping, counters, counter_count, requests */
	pthread_cond_t changed;
	bool stopping;
	struct counter *counters;
	size_t counter_count;
	int64_t requests;
};

/* A reply on its way out. */
struct playing {
	struct script_server *server;
	struct play play;
	size_t at;     /* frame */
	size_t offset; /* in it */
	int64_t waited_ms; /* in a delay */
};

static struct counter *counter_find(struct script_server *s, const char *key)
{
	struct counter *c = s->counters, **last = &s->counters;

	for (; c != NULL; c = c->next)
		if (str_eq(c->key, key))
			return c;
	if (s->counter_count >= SCRIPT_COUNTERS_MAX) {
		while ((*last)->next != NULL)
			last = &(*last)->next;
		free((*last)->key);
		free(*last);
		*last = NULL;
		s->counter_count--;
	}
	c = NEW(struct counter);
	c->key = mem_strdup(key);
	c->next = s->counters;
	s->counters = c;
	s->counter_count++;
	return c;
}

static bool counter_take(void *ctx, const char *key, int64_t times)
{
	struct script_server *s = ctx;
	struct counter *c;
	bool due;

	pthread_mutex_lock(&s->lock);
	c = counter_find(s, key);
	due = c->taken < times;
	c->taken += due ? 1 : 0;
	pthread_mutex_unlock(&s->lock);
	return due;
}

/* Waits, but not past the server's end; false when that has come. */
static bool server_wait(struct script_server *s, int64_t ms)
{
	struct timespec until;
	bool stopping;
	int rc = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(ms / 1000);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&s->lock);
	while (!s->stopping && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &until);
	stopping = s->stopping;
	pthread_mutex_unlock(&s->lock);
	return !stopping;
}

/* One slice of a delay: 0 when the delay is over, else what to say meanwhile, or the end. */
static ssize_t playing_delay(struct playing *p, const struct frame *f, char *buf, size_t max)
{
	static const char comment[] = ": thinking\n\n";
	int64_t left = f->ms - p->waited_ms;
	int64_t slice = left < WAIT_SLICE_MS ? left : WAIT_SLICE_MS;

	if (!server_wait(p->server, slice))
		return -2;
	p->waited_ms += slice;
	if (p->waited_ms < f->ms && max >= sizeof(comment)) {
		memcpy(buf, comment, sizeof(comment) - 1);
		return (ssize_t)sizeof(comment) - 1;
	}
	p->waited_ms = 0;
	p->at++;
	return 0;
}

static ssize_t playing_read(void *state, char *buf, size_t max)
{
	struct playing *p = state;

	while (p->at < p->play.frame_count) {
		const struct frame *f = &p->play.frames[p->at];
		size_t n = f->len - p->offset < max ? f->len - p->offset : max;

		if (f->kind == FRAME_CUT)
			return -2;
		if (f->kind == FRAME_HANG) {
			(void)server_wait(p->server, SCRIPT_HANG_MAX_MS);
			return -2;
		}
		if (f->kind == FRAME_DELAY) {
			ssize_t comment = playing_delay(p, f, buf, max);

			if (comment != 0)
				return comment;
			continue;
		}
		memcpy(buf, f->data + p->offset, n);
		p->offset += n;
		if (p->offset == f->len) {
			p->offset = 0;
			p->at++;
		}
		return (ssize_t)n;
	}
	return -1;
}

static void playing_free(void *state)
{
	struct playing *p = state;

	play_release(&p->play);
	free(p);
}

static void js_set_head(struct js *o, const char *key, const char *text)
{
	size_t n = strlen(text);

	js_set(o, key, js_string_n(text, n < LOG_TEXT_BYTES ? n : LOG_TEXT_BYTES));
}

static void request_log(struct http_request *r, const struct turn *t, const struct scenario *sc, int status, const char *problem)
{
	AUTO_JS struct js *o = js_object();
	AUTO_STRBUF struct strbuf tools = STRBUF_INIT;
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	char at[RFC3339_SIZE];

	clock_rfc3339(clock_wall_ms(), at);
	js_set_str(o, "at", at);
	js_set_str(o, "method", http_method(r));
	js_set_str(o, "path", http_path(r));
	js_set_int(o, "status", status);
	js_set_str(o, "problem", problem);
	if (t != NULL) {
		js_set_str(o, "model", t->model);
		js_set_bool(o, "stream", t->stream);
		js_set_str(o, "scenario", sc == NULL ? NULL : sc->match == NULL ? "default" : sc->match);
		js_set_int(o, "position", (int64_t)t->position);
		js_set_head(o, "prompt", t->prompt);
		js_set_head(o, "last_output", t->last_output);
		turn_tool_names(t, &tools);
		js_set_str(o, "tools", strbuf_str(&tools));
		js_set_bool(o, "schema", t->schema != NULL);
	}
	js_dump_to(o, &line);
	strbuf_addc(&line, '\n');
	(void)!write(STDOUT_FILENO, line.data, line.len);
}

static bool request_is_messages(const struct http_request *r)
{
	return str_starts(http_path(r), "/v1/messages");
}

/* Each API has its own form of an error. */
static void reply_error(struct http_request *r, int status, struct js *error_taken)
{
	const struct js *error = js_get(error_taken, "error");
	const char *type = js_str(error, "type");

	if (!request_is_messages(r)) {
		http_reply_js(r, status, error_taken);
		return;
	}
	if (str_eq(type, "server_error") || str_eq(type, "invalid_request_error"))
		type = NULL; /* not the scenario's word: the status says it */
	http_reply_js(r, status, messages_error_body(status, type, js_str(error, "message")));
	js_free(error_taken);
}

static void reply_problem(struct script_server *s, struct http_request *r, int status, const char *message, const char *type, const char *code)
{
	if (s->cfg.log)
		request_log(r, NULL, NULL, status, message);
	reply_error(r, status, play_error_body(message, type, code));
}

static bool request_is_allowed(struct script_server *s, struct http_request *r)
{
	const char *header = http_header(r, "Authorization");
	const char *key = http_header(r, "X-Api-Key");

	if (s->cfg.key == NULL)
		return true;
	if (request_is_messages(r) && key != NULL && str_const_time_eq(key, s->cfg.key))
		return true;
	if (header != NULL && str_starts(header, "Bearer ") && str_const_time_eq(header + strlen("Bearer "), s->cfg.key))
		return true;
	reply_problem(s, r, 401, "the API key is missing or wrong", "invalid_request_error", "invalid_api_key");
	return false;
}

static void request_record(struct script_server *s, struct http_request *r)
{
	struct error e = ERROR_INIT;
	AUTO_FREE char *path = NULL;
	const char *body;
	size_t len;
	int64_t n;

	pthread_mutex_lock(&s->lock);
	n = ++s->requests;
	pthread_mutex_unlock(&s->lock);
	if (s->cfg.record_dir == NULL)
		return;
	path = mem_printf("%s/%06lld.json", s->cfg.record_dir, (long long)n);
	body = http_body(r, &len);
	if (file_replace(path, body, len, 0600, FILE_NOSYNC, &e) != ERR_OK)
		log_warn("record: %s", e.text);
}

static void play_send_whole(struct script_server *s, struct http_request *r, struct play *p)
{
	for (size_t i = 0; i < p->frame_count; i++)
		if (p->frames[i].kind == FRAME_DELAY && !server_wait(s, p->frames[i].ms))
			break;
	http_reply_js(r, 200, js_ref(p->response));
}

static void play_send(struct script_server *s, struct http_request *r, struct play *p, bool stream)
{
	static const struct http_stream_ops ops = { .read = playing_read, .free = playing_free };
	AUTO_FREE char *retry = NULL;
	struct playing *playing;

	if (p->wait_ms > 0)
		(void)server_wait(s, p->wait_ms);
	if (p->hang)
		(void)server_wait(s, SCRIPT_HANG_MAX_MS);
	if (p->retry_after_s >= 0) {
		retry = mem_printf("%lld", (long long)p->retry_after_s);
		http_reply_header(r, "Retry-After", retry);
	}
	if (p->hang || p->error != NULL) {
		reply_error(r, p->hang ? 503 : p->status, p->hang ? play_error_body("it hung", "server_error", NULL) : js_copy(p->error));
		return;
	}
	if (!stream) {
		play_send_whole(s, r, p);
		return;
	}
	playing = NEW(struct playing);
	playing->server = s;
	playing->play = *p;
	memset(p, 0, sizeof(*p));
	http_stream(r, 200, "text/event-stream", &ops, playing, NULL);
}

/* Both APIs; which one shows in the path. */
static void handle_ask(struct http_request *r, void *ctx)
{
	struct script_server *s = ctx;
	const struct play_counter counter = { .take = counter_take, .ctx = s };
	struct error e = ERROR_INIT;
	AUTO_TURN struct turn t = { .request = NULL };
	AUTO_PLAY struct play p = { .status = 0 };
	const struct scenario *sc;
	const struct js *body;

	if (!request_is_allowed(s, r))
		return;
	request_record(s, r);
	body = http_body_js(r, &e);
	if (body == NULL || (request_is_messages(r) ? turn_read_messages(body, &t, &e) : turn_read(body, &t, &e)) != ERR_OK) {
		reply_problem(s, r, 400, e.text, "invalid_request_error", "bad_request");
		return;
	}
	sc = script_find(s->cfg.script, t.prompt);
	play_make(sc, &t, &counter, &p);
	if (s->cfg.log)
		request_log(r, &t, sc, p.hang ? 0 : p.status, NULL);
	play_send(s, r, &p, t.stream);
}

static void handle_count_tokens(struct http_request *r, void *ctx)
{
	struct script_server *s = ctx;
	struct js *o;
	size_t len;

	if (!request_is_allowed(s, r))
		return;
	(void)http_body(r, &len);
	o = js_object();
	js_set_int(o, "input_tokens", (int64_t)len / PLAY_BYTES_PER_TOKEN);
	http_reply_js(r, 200, o);
}

static void handle_models(struct http_request *r, void *ctx)
{
	struct script_server *s = ctx;
	struct js *o = js_object(), *list = js_array(), *one = js_object();

	if (!request_is_allowed(s, r)) {
		js_free(o);
		js_free(list);
		js_free(one);
		return;
	}
	js_set_str(one, "id", "scripted");
	js_set_str(one, "object", "model");
	js_set_str(one, "owned_by", "signalbox");
	js_push(list, one);
	js_set_str(o, "object", "list");
	js_set(o, "data", list);
	http_reply_js(r, 200, o);
}

static const struct http_route routes[] = {
	{ .method = "POST", .pattern = "/v1/responses", .handle = handle_ask, .body_max = SCRIPT_BODY_MAX, .summary = "Answer by the scenario" },
	{ .method = "POST", .pattern = "/v1/messages", .handle = handle_ask, .body_max = SCRIPT_BODY_MAX, .summary = "Answer by the scenario" },
	{ .method = "POST", .pattern = "/v1/messages/count_tokens", .handle = handle_count_tokens, .body_max = SCRIPT_BODY_MAX, .summary = "About how many tokens" },
	{ .method = "GET", .pattern = "/v1/models", .handle = handle_models, .summary = "The one model there is" },
	{ .method = NULL },
};

static void server_free(struct script_server *s)
{
	while (s->counters != NULL) {
		struct counter *c = s->counters;

		s->counters = c->next;
		free(c->key);
		free(c);
	}
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

enum err_code script_server_start(const struct script_server_config *cfg, struct script_server **ret, struct error *e)
{
	struct script_server *s = NEW(struct script_server);
	struct http_config http = { .routes = routes, .ctx = s, .unix_fd = cfg->unix_fd, .tcp_fd = cfg->tcp_fd, .threads = SCRIPT_THREADS,
		.thread_per_connection = true, .server_name = "signalbox-model" };
	pthread_condattr_t attr;
	enum err_code rc;

	s->cfg = *cfg;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&s->lock, NULL);
	rc = http_server_start(&http, &s->http, e);
	if (rc != ERR_OK) {
		server_free(s);
		return rc;
	}
	*ret = s;
	return ERR_OK;
}

void script_server_stop(struct script_server *s)
{
	if (s == NULL)
		return;
	http_server_quiesce(s->http);
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	http_server_stop(s->http);
	server_free(s);
}
