/* Requests to providers over one libcurl multi handle in one thread. */
#include "gateway/upstream.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mask.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/strbuf.h"
#include "base/thread.h"
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define UPSTREAM_TICK_MS 1000 /* how often silence is looked for */
#define UPSTREAM_STACK_BYTES ((size_t)256 << 10)
#define UPSTREAM_UPLOAD_BYTES (16L << 10)

/* What of a provider's reply an agent gets to see. */
static const char *const kept_headers[] = { "Content-Type", "Retry-After", "X-Request-Id", "Request-Id", "OpenAI-Processing-Ms", "X-RateLimit-Limit-Requests",
	"X-RateLimit-Limit-Tokens", "X-RateLimit-Remaining-Requests", "X-RateLimit-Remaining-Tokens", "X-RateLimit-Reset-Requests",
	"X-RateLimit-Reset-Tokens", "Location" };

_Static_assert(ARRAY_SIZE(kept_headers) <= UPSTREAM_HEADERS_MAX, "every kept header has its place");

struct transfer {
	struct upstream *upstream;
	struct transfer *next_command; /* guarded by the upstream's lock */
	bool queued;		       /* " */

	struct transfer *prev, *next;  /* of the upstream thread: the running ones */
	CURL *easy;
	struct curl_slist *request_headers;
	char *body; /* until it was sent */
	size_t body_len;
	char errbuf[CURL_ERROR_SIZE];
	int64_t idle_ms, last_ms;
	bool running;
	struct mask key; /* a provider that says our key again does not say it to the agent, nor to the record */

	char *host;
	struct transfer_header headers[UPSTREAM_HEADERS_MAX]; /* written before status is */
	size_t header_count;

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t changed;
	int references; /* reader, upstream thread */
	int status;
	struct strbuf bytes;
	bool paused, canceled, done, failed, timed_out;
	char *error;
};

struct upstream {
	CURLM *multi;
	pthread_t thread;
	pthread_mutex_t lock; /* guards commands, stopping */
	struct transfer *commands;
	bool stopping, joined;
	struct transfer *running; /* of the thread */
};

static void transfer_unref(struct transfer *t)
{
	bool last;

	pthread_mutex_lock(&t->lock);
	last = --t->references == 0;
	pthread_mutex_unlock(&t->lock);
	if (!last)
		return;
	for (size_t i = 0; i < t->header_count; i++)
		free(t->headers[i].value);
	curl_easy_cleanup(t->easy);
	curl_slist_free_all(t->request_headers);
	free(t->body);
	free(t->host);
	free(t->error);
	mask_release(&t->key);
	strbuf_release(&t->bytes);
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static void transfer_changed(struct transfer *t)
{
	pthread_cond_broadcast(&t->changed);
}

static void header_keep(struct transfer *t, const char *data, size_t len, const char *colon)
{
	const char *value = colon + 1, *end = data + len;

	for (size_t i = 0; i < ARRAY_SIZE(kept_headers); i++) {
		if (strlen(kept_headers[i]) != (size_t)(colon - data) || strncasecmp(data, kept_headers[i], (size_t)(colon - data)) != 0)
			continue;
		while (value < end && (*value == ' ' || *value == '\t'))
			value++;
		while (end > value && strchr(" \t\r\n", end[-1]) != NULL)
			end--;
		struct strbuf shown = STRBUF_INIT;
		mask_feed(&t->key, value, (size_t)(end - value), &shown);
		mask_end(&t->key, &shown);
		t->headers[t->header_count++] = (struct transfer_header){ kept_headers[i], strbuf_detach(&shown) };
		return;
	}
}

/* Once the reply's head is here and the request is out, nobody needs the request's body any more. */
static void body_drop(struct transfer *t)
{
	curl_off_t sent = 0;

	if (curl_easy_getinfo(t->easy, CURLINFO_SIZE_UPLOAD_T, &sent) != CURLE_OK || sent < (curl_off_t)t->body_len)
		return;
	free(t->body);
	t->body = NULL;
}

static void status_learn(struct transfer *t)
{
	long status = 0;

	if (curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status) != CURLE_OK || status < 200)
		return;
	body_drop(t);
	pthread_mutex_lock(&t->lock);
	t->status = (int)status;
	transfer_changed(t);
	pthread_mutex_unlock(&t->lock);
}

/* Called per line; the empty one ends the head.  Trailers come later and are left out, since the reader looks at the headers then. */
static size_t on_header(char *data, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;
	size_t len = size * n;
	const char *colon = memchr(data, ':', len);

	t->last_ms = clock_mono_ms();
	if (t->status != 0)
		return len;
	if (len <= 2 && (data[0] == '\r' || data[0] == '\n'))
		status_learn(t);
	else if (colon != NULL && len <= UPSTREAM_HEADER_BYTES_MAX && t->header_count < UPSTREAM_HEADERS_MAX)
		header_keep(t, data, len, colon);
	return len;
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;
	size_t len = size * n;
	bool full;

	t->last_ms = clock_mono_ms();
	pthread_mutex_lock(&t->lock);
	full = t->bytes.len > 0 && t->bytes.len + len > UPSTREAM_BUFFER;
	t->paused = full;
	if (!full)
		mask_feed(&t->key, data, len, &t->bytes);
	transfer_changed(t);
	pthread_mutex_unlock(&t->lock);
	return full ? CURL_WRITEFUNC_PAUSE : len;
}

static const char *code_text(CURLcode code)
{
	switch ((int)code) {
	case CURLE_COULDNT_RESOLVE_HOST: return "its name cannot be resolved";
	case CURLE_COULDNT_RESOLVE_PROXY: return "the proxy's name cannot be resolved";
	case CURLE_COULDNT_CONNECT: return "the connection was refused or the host is unreachable";
	case CURLE_OPERATION_TIMEDOUT: return "the connection was not made in time";
	case CURLE_PEER_FAILED_VERIFICATION: return "its certificate is not trusted";
	case CURLE_GOT_NOTHING: return "it closed the connection without an answer";
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR: return "it broke off its answer";
	case CURLE_SEND_ERROR: return "it broke off while the request was sent";
	default: return curl_easy_strerror(code);
	}
}

/* Takes it off the multi handle and says how it ended. The upstream thread's reference goes. */
static void transfer_end(struct transfer *t, CURLcode code, const char *why)
{
	struct upstream *u = t->upstream;

	curl_multi_remove_handle(u->multi, t->easy);
	if (t->prev != NULL)
		t->prev->next = t->next;
	else
		u->running = t->next;
	if (t->next != NULL)
		t->next->prev = t->prev;
	t->running = false;
	pthread_mutex_lock(&t->lock);
	mask_end(&t->key, &t->bytes);
	t->failed = code != CURLE_OK || why != NULL;
	t->timed_out = t->timed_out || code == CURLE_OPERATION_TIMEDOUT;
	if (t->failed)
		t->error = mem_printf("the model provider at %s: %s", t->host, why != NULL ? why : code_text(code));
	t->done = true;
	transfer_changed(t);
	pthread_mutex_unlock(&t->lock);
	transfer_unref(t);
}

static void running_add(struct upstream *u, struct transfer *t)
{
	t->next = u->running;
	if (t->next != NULL)
		t->next->prev = t;
	u->running = t;
	t->running = true;
	t->last_ms = clock_mono_ms();
	if (curl_multi_add_handle(u->multi, t->easy) != CURLM_OK)
		transfer_end(t, CURLE_FAILED_INIT, NULL);
}

/* A command only names the transfer; what is to be done shows in its state. Holds a reference of its own. */
static void command_obey(struct upstream *u, struct transfer *t)
{
	bool canceled, resume;

	pthread_mutex_lock(&t->lock);
	canceled = t->canceled;
	resume = t->paused && t->bytes.len == 0;
	if (resume)
		t->paused = false;
	pthread_mutex_unlock(&t->lock);
	if (!t->running && !t->done && !canceled)
		running_add(u, t);
	else if (canceled && t->running)
		transfer_end(t, CURLE_OK, "canceled");
	else if (canceled && !t->done) { /* it never ran */
		t->done = true;
		transfer_unref(t);
	} else if (resume && t->running) {
		t->last_ms = clock_mono_ms();
		curl_easy_pause(t->easy, CURLPAUSE_CONT);
	}
	transfer_unref(t);
}

static bool commands_obey(struct upstream *u)
{
	struct transfer *t;
	bool stopping;

	for (;;) {
		pthread_mutex_lock(&u->lock);
		stopping = u->stopping;
		t = u->commands;
		if (t != NULL) {
			u->commands = t->next_command;
			t->queued = false;
		}
		pthread_mutex_unlock(&u->lock);
		if (t == NULL)
			return !stopping;
		command_obey(u, t);
	}
}

/* With the upstream's lock held and t's not. */
static void command_queue(struct upstream *u, struct transfer *t)
{
	struct transfer **at = &u->commands;

	if (t->queued)
		return;
	pthread_mutex_lock(&t->lock);
	t->references++;
	pthread_mutex_unlock(&t->lock);
	t->queued = true;
	t->next_command = NULL;
	while (*at != NULL)
		at = &(*at)->next_command;
	*at = t;
}

/* Without t's lock held. */
static void command_send(struct transfer *t)
{
	struct upstream *u = t->upstream;

	pthread_mutex_lock(&u->lock);
	command_queue(u, t);
	pthread_mutex_unlock(&u->lock);
	curl_multi_wakeup(u->multi);
}

/* The first command of a transfer; refused once the thread may have looked at its queue for the last time. */
static bool command_begin(struct transfer *t)
{
	struct upstream *u = t->upstream;
	bool open;

	pthread_mutex_lock(&u->lock);
	open = !u->stopping;
	if (open)
		command_queue(u, t);
	pthread_mutex_unlock(&u->lock);
	curl_multi_wakeup(u->multi);
	return open;
}

static void finished_collect(struct upstream *u)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(u->multi, &left)) != NULL) {
		struct transfer *t = NULL;

		if (msg->msg == CURLMSG_DONE && curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&t) == CURLE_OK)
			transfer_end(t, msg->data.result, NULL);
	}
}

static void silent_end(struct upstream *u)
{
	int64_t now = clock_mono_ms();

	for (struct transfer *t = u->running, *next; t != NULL; t = next) {
		next = t->next;
		if (t->paused || now - t->last_ms < t->idle_ms)
			continue;
		pthread_mutex_lock(&t->lock);
		t->timed_out = true;
		pthread_mutex_unlock(&t->lock);
		transfer_end(t, CURLE_OK, "it has been silent for too long");
	}
}

static void *upstream_run(void *arg)
{
	struct upstream *u = arg;
	int count;

	while (commands_obey(u)) {
		if (curl_multi_perform(u->multi, &count) != CURLM_OK)
			log_error("upstream: curl_multi_perform failed");
		finished_collect(u);
		silent_end(u);
		curl_multi_poll(u->multi, NULL, 0, UPSTREAM_TICK_MS, NULL);
	}
	while (u->running != NULL)
		transfer_end(u->running, CURLE_OK, "the gateway is ending");
	return NULL;
}

enum err_code upstream_start(struct upstream **ret, struct error *e)
{
	struct upstream *u = NEW(struct upstream);
	u->multi = curl_multi_init();
	pthread_mutex_init(&u->lock, NULL);
	int rc = thread_start(&u->thread, UPSTREAM_STACK_BYTES, upstream_run, u);
	if (rc == 0) {
		*ret = u;
		return ERR_OK;
	}
	u->joined = true;
	upstream_free(u);
	errno = rc;
	return error_errno(e, "start the upstream thread");
}

void upstream_stop(struct upstream *u)
{
	pthread_mutex_lock(&u->lock);
	u->stopping = true;
	pthread_mutex_unlock(&u->lock);
	curl_multi_wakeup(u->multi);
	if (!u->joined)
		pthread_join(u->thread, NULL);
	u->joined = true;
}

void upstream_free(struct upstream *u)
{
	if (u == NULL)
		return;
	upstream_stop(u);
	commands_obey(u); /* cancellations that came after the thread */
	curl_multi_cleanup(u->multi);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static void easy_set_up(struct transfer *t, const struct transfer_request *rq)
{
	CURL *c = t->easy;

	curl_easy_setopt(c, CURLOPT_URL, rq->url);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1); /* a paused HTTP/2 stream may buffer 32 MB */
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)rq->connect_ms);
	curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, UPSTREAM_UPLOAD_BYTES);
	curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(c, CURLOPT_POST, 1L);
	curl_easy_setopt(c, CURLOPT_POSTFIELDS, t->body);
	curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)rq->body_len);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, t->request_headers);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, t->errbuf);
	curl_easy_setopt(c, CURLOPT_PRIVATE, (char *)t);
}

static void headers_set_up(struct transfer *t, const struct transfer_request *rq)
{
	for (size_t i = 0; rq->headers[i] != NULL; i++)
		t->request_headers = curl_slist_append(t->request_headers, rq->headers[i]);
	t->request_headers = curl_slist_append(t->request_headers, "Expect:");
	if (rq->key != NULL) {
		AUTO_FREE char *line = rq->key_header != NULL ? mem_printf("%s: %s", rq->key_header, rq->key) : mem_printf("Authorization: Bearer %s", rq->key);

		t->request_headers = curl_slist_append(t->request_headers, line);
		explicit_bzero(line, strlen(line));
	}
}

enum err_code transfer_start(struct upstream *u, struct transfer_request *rq, struct transfer **ret, struct error *e)
{
	struct transfer *t = NEW(struct transfer);
	pthread_condattr_t attr;

	t->upstream = u;
	t->easy = curl_easy_init();
	t->body = TAKE_PTR(rq->body_taken);
	t->body_len = rq->body_len;
	t->host = mem_strdup(rq->host);
	t->idle_ms = rq->idle_ms;
	mask_init(&t->key, rq->key);
	t->bytes.max = UPSTREAM_BUFFER + CURL_MAX_WRITE_SIZE;
	t->references = 2;
	pthread_mutex_init(&t->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (t->easy != NULL) {
		headers_set_up(t, rq);
		easy_set_up(t, rq);
		if (command_begin(t)) {
			*ret = t;
			return ERR_OK;
		}
	}
	transfer_unref(t);
	transfer_unref(t);
	return error_set(e, ERR_BUSY, "the gateway is ending or out of memory");
}

/* Waits on the transfer's lock, which is held; false when the time is up. */
static bool changed_wait(struct transfer *t, const struct timespec *until)
{
	return pthread_cond_timedwait(&t->changed, &t->lock, until) != ETIMEDOUT;
}

static struct timespec deadline_of(int64_t timeout_ms)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += (time_t)(timeout_ms / 1000);
	at.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (at.tv_nsec >= 1000000000) {
		at.tv_sec++;
		at.tv_nsec -= 1000000000;
	}
	return at;
}

int transfer_status(struct transfer *t, int64_t timeout_ms)
{
	struct timespec until = deadline_of(timeout_ms);
	int status;

	pthread_mutex_lock(&t->lock);
	while (t->status == 0 && !t->done && changed_wait(t, &until))
		;
	status = t->status != 0 ? t->status : t->done ? -1 : 0;
	pthread_mutex_unlock(&t->lock);
	return status;
}

const struct transfer_header *transfer_headers(const struct transfer *t, size_t *ret_count)
{
	*ret_count = t->header_count;
	return t->headers;
}

const char *transfer_header(const struct transfer *t, const char *name)
{
	for (size_t i = 0; i < t->header_count; i++)
		if (strcasecmp(t->headers[i].name, name) == 0)
			return t->headers[i].value;
	return NULL;
}

ssize_t transfer_read(struct transfer *t, char *buf, size_t max, int64_t timeout_ms)
{
	struct timespec until = deadline_of(timeout_ms);
	bool resume;
	ssize_t n;

	pthread_mutex_lock(&t->lock);
	while (t->bytes.len == 0 && !t->done && changed_wait(t, &until))
		;
	n = (ssize_t)(t->bytes.len < max ? t->bytes.len : max);
	if (n > 0) {
		memcpy(buf, t->bytes.data, (size_t)n);
		strbuf_cut(&t->bytes, (size_t)n);
	} else if (t->done) {
		n = t->failed ? -2 : -1;
	}
	resume = t->paused && t->bytes.len == 0 && !t->done;
	pthread_mutex_unlock(&t->lock);
	if (resume)
		command_send(t);
	return n;
}

const char *transfer_error(const struct transfer *t)
{
	return t->error;
}

bool transfer_timed_out(const struct transfer *t)
{
	return t->timed_out;
}

void transfer_free(struct transfer *t)
{
	bool running;

	if (t == NULL)
		return;
	pthread_mutex_lock(&t->lock);
	t->canceled = true;
	running = !t->done;
	pthread_mutex_unlock(&t->lock);
	if (running)
		command_send(t);
	transfer_unref(t);
}
