/* The HTTP client over libcurl: one easy handle, so that calls one after another share a connection.  Lines are read through a
 * multi handle, because only its wait can be interrupted. */
#include "base/check.h"
#include "base/cleanup.h"
#include "base/line.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/client.h"
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REPLY_MAX ((size_t)64 << 20)	/* a JSON reply held in memory */
#define PROBLEM_MAX ((size_t)64 << 10)	/* of an error's body is looked at */
#define LINE_MAX_BYTES ((size_t)4 << 20)
#define LINES_POLL_MS 100
#define SEND_BUFFER (2L << 20)		/* the most that libcurl takes */
#define CONNECT_TIMEOUT_MS 10000	/* when the configuration names none */

struct client {
	CURL *easy;
	char *base;   /* what is put before the path */
	char *where;  /* for people */
	bool is_unix;
	char *authorization;
	struct curl_slist *extra; /* headers of the next call */
	int64_t timeout_ms;
};

/* Where a reply's body goes: the problem of an error reply, else the caller's place. */
struct sink {
	struct client *client;
	struct strbuf *bytes;		/* or lines: */
	struct line_reader *lines;
	client_line_fn *fn;
	void *ctx;
	struct strbuf problem;
	long status;
	bool stopped, full;
};

static void curl_setup(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void setup_once(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, curl_setup);
}

static void on_line(void *arg, const char *line, size_t len, size_t full_len)
{
	struct sink *s = arg;
	(void)full_len;
	if (!s->stopped)
		s->stopped = !s->fn(s->ctx, line, len);
}

static size_t on_data(char *data, size_t one, size_t n, void *arg)
{
	struct sink *s = arg;
	n *= one;
	if (!s->status)
		curl_easy_getinfo(s->client->easy, CURLINFO_RESPONSE_CODE, &s->status);
	if (s->status >= 400) {
		strbuf_add(&s->problem, data, n);
		return n;
	}
	if (s->lines)
		line_feed(s->lines, data, n, on_line, s);
	else
		strbuf_add(s->bytes, data, n);
	s->full = s->bytes && s->bytes->over;
	return s->stopped || s->full ? 0 : n;
}

static void set_address(struct client *c, const struct client_config *cfg)
{
	c->is_unix = cfg->socket != NULL;
	if (c->is_unix) {
		curl_easy_setopt(c->easy, CURLOPT_UNIX_SOCKET_PATH, cfg->socket);
		curl_easy_setopt(c->easy, CURLOPT_PROXY, "");
		c->base = mem_strdup("http://localhost");
		c->where = mem_strdup(cfg->socket);
		return;
	}
	size_t n = strlen(cfg->url);
	while (n && cfg->url[n - 1] == '/')
		n--;
	c->base = mem_strndup(cfg->url, n);
	c->where = mem_strdup(c->base);
}

static bool has_line_end(const char *s)
{
	return s && strpbrk(s, "\r\n");
}

static enum err_code config_check(const struct client_config *cfg, struct error *e)
{
	if (!cfg->socket && !str_starts(cfg->url ? cfg->url : "", "http://") && !str_starts(cfg->url ? cfg->url : "", "https://")) {
		error_set(e, ERR_INVALID, "'%s' is not the address of a server", cfg->url ? cfg->url : "");
		error_hint(e, "write it as https://host:port");
		return ERR_INVALID;
	}
	return has_line_end(cfg->token) ? error_set(e, ERR_INVALID, "the token holds a line end") : ERR_OK;
}

enum err_code client_open(const struct client_config *cfg, struct client **ret, struct error *e)
{
	enum err_code rc = config_check(cfg, e);
	if (rc)
		return rc;
	setup_once();
	struct client *c = NEW(struct client);
	c->easy = curl_easy_init();
	CHECK(c->easy);
	set_address(c, cfg);
	c->timeout_ms = cfg->timeout_ms;
	if (cfg->token)
		c->authorization = mem_printf("Authorization: Bearer %s", cfg->token);
	curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c->easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(cfg->connect_timeout_ms ? cfg->connect_timeout_ms : CONNECT_TIMEOUT_MS));
	curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_data);
	/* As other programs do it; libcurl itself does not look. */
	if (!str_empty(getenv("SSL_CERT_FILE")))
		curl_easy_setopt(c->easy, CURLOPT_CAINFO, getenv("SSL_CERT_FILE"));
	if (!str_empty(getenv("SSL_CERT_DIR")))
		curl_easy_setopt(c->easy, CURLOPT_CAPATH, getenv("SSL_CERT_DIR"));
	*ret = c;
	return ERR_OK;
}

void client_close(struct client *c)
{
	if (!c)
		return;
	curl_easy_cleanup(c->easy);
	curl_slist_free_all(c->extra);
	free(c->base);
	free(c->where);
	free(c->authorization);
	free(c);
}

static void slist_add(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);
	CHECK(longer);
	*list = longer;
}

void client_header(struct client *c, const char *line)
{
	if (!has_line_end(line))
		slist_add(&c->extra, line);
}

/* A request's parts that libcurl only borrows, so that they live as long as the call. */
struct call {
	struct curl_slist *headers;
	char *url, *body;
	struct sink sink;
	char words[CURL_ERROR_SIZE];
};

static void call_begin(struct client *c, struct call *call, const char *method, const char *path, const char *accept, const struct js *body)
{
	call->sink.client = c;
	call->sink.problem.max = PROBLEM_MAX;
	call->headers = TAKE_PTR(c->extra);
	AUTO_FREE char *accept_line = mem_printf("Accept: %s", accept);
	slist_add(&call->headers, accept_line);
	if (c->authorization)
		slist_add(&call->headers, c->authorization);
	if (body)
		slist_add(&call->headers, "Content-Type: application/json");
	call->url = mem_printf("%s%s", c->base, path);
	call->body = body ? js_dump(body) : NULL;
	bool plain_get = str_eq(method, "GET") && !body;
	bool wants_length = !plain_get && !str_eq(method, "DELETE");
	curl_easy_setopt(c->easy, CURLOPT_HTTPGET, 1L);
	if (body || wants_length) {
		curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(body ? strlen(call->body) : 0));
		curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, body ? call->body : "");
	}
	curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, plain_get ? NULL : method);
	curl_easy_setopt(c->easy, CURLOPT_URL, call->url);
	curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, call->headers);
	curl_easy_setopt(c->easy, CURLOPT_TIMEOUT_MS, (long)c->timeout_ms);
	curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, call->words);
	curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, &call->sink);
}

static void call_release(struct call *call)
{
	if (call->sink.client)
		curl_easy_setopt(call->sink.client->easy, CURLOPT_ERRORBUFFER, NULL);
	curl_slist_free_all(call->headers);
	strbuf_release(&call->sink.problem);
	free(call->url);
	free(call->body);
}

static const struct { CURLcode code; const char *hint; } hints[] = {
	{ CURLE_PEER_FAILED_VERIFICATION, "its certificate is not trusted here, or is another name's; SSL_CERT_FILE names a file with your own authority" },
	{ CURLE_SSL_CACERT_BADFILE, "the file that SSL_CERT_FILE names cannot be read" },
	{ CURLE_SSL_CONNECT_ERROR, "does it speak TLS at all? Without, its address begins with http://" },
	{ CURLE_GOT_NOTHING, "it closed without an answer: does it want https://?" },
	{ CURLE_WEIRD_SERVER_REPLY, "it does not speak HTTP there: does it want https://?" },
	{ CURLE_RECV_ERROR, "it broke the connection off: does it want https://?" },
	{ CURLE_COULDNT_RESOLVE_HOST, "is the name right?" },
	{ CURLE_OPERATION_TIMEDOUT, "is the name right? Neither a name server nor anybody there has answered" },
};

/* Of the two limits of time, the whole call's was reached; else it was the one for a connection, and nobody was there to answer. */
static bool whole_time_is_up(const struct client *c)
{
	curl_off_t took_us = 0;
	curl_easy_getinfo(c->easy, CURLINFO_TOTAL_TIME_T, &took_us);
	return c->timeout_ms && took_us / 1000 + 1 >= c->timeout_ms;
}

static enum err_code transport_error(const struct client *c, const struct call *call, CURLcode rc, struct error *e)
{
	const char *words = call->words[0] ? call->words : curl_easy_strerror(rc);
	if (call->sink.full)
		return error_set(e, ERR_LIMIT, "the reply of '%s' is larger than %zu bytes", c->where, call->sink.bytes->max ? call->sink.bytes->max : STRBUF_DEFAULT_MAX);
	if (rc == CURLE_OPERATION_TIMEDOUT && whole_time_is_up(c))
		return error_set(e, ERR_TIMEOUT, "no answer from '%s' within %lld ms", c->where, (long long)c->timeout_ms);
	error_set(e, ERR_UNREACHABLE, "cannot reach the server at '%s': %s", c->where, words);
	for (size_t i = 0; i < ARRAY_SIZE(hints) && !c->is_unix; i++)
		if (hints[i].code == rc)
			error_hint(e, "%s", hints[i].hint);
	if (c->is_unix && (rc == CURLE_GOT_NOTHING || rc == CURLE_RECV_ERROR || rc == CURLE_SEND_ERROR))
		error_hint(e, "it ended before it answered; try again");
	error_hint(e, c->is_unix ? "is it running? `signalbox doctor` tells" : "look at its address and at the network between");
	return ERR_UNREACHABLE;
}

static const struct { long status; enum err_code code; } by_status[] = {
	{ 401, ERR_DENIED }, { 403, ERR_DENIED }, { 404, ERR_NOT_FOUND }, { 409, ERR_CONFLICT }, { 410, ERR_GONE }, { 413, ERR_LIMIT },
	{ 422, ERR_CONFLICT }, { 429, ERR_LIMIT }, { 503, ERR_BUSY }, { 504, ERR_TIMEOUT },
};

static enum err_code code_by_status(long status)
{
	for (size_t i = 0; i < ARRAY_SIZE(by_status); i++)
		if (by_status[i].status == status)
			return by_status[i].code;
	return status < 500 ? ERR_INVALID : ERR_INTERNAL;
}

/* What the server said; or, from something that does not speak problem+json (a proxy), its status. */
static enum err_code problem_error(const struct client *c, const struct call *call, struct error *e)
{
	const struct strbuf *text = &call->sink.problem;
	struct error ignored = ERROR_INIT;
	AUTO_JS struct js *problem = js_parse(strbuf_str(text), text->len, &ignored);
	const char *code = js_str(problem, "code");
	const char *detail = js_str(problem, "detail");
	if (!detail) {
		error_set(e, code_by_status(call->sink.status), "'%s' answered with status %ld", c->where, call->sink.status);
		error_hint(e, strstr(strbuf_str(text), "HTTPS") ? "it wants https://" : "that was not Signalbox itself, but something between, or another program");
		return code_by_status(call->sink.status);
	}
	error_set(e, code ? err_from_name(code) : code_by_status(call->sink.status), "%s", detail);
	if (js_str(problem, "hint"))
		error_hint(e, "%s", js_str(problem, "hint"));
	return e ? e->code : code_by_status(call->sink.status);
}

static enum err_code call_end(struct client *c, struct call *call, CURLcode rc, int *ret_status, struct error *e)
{
	curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &call->sink.status);
	if (ret_status)
		*ret_status = (int)call->sink.status;
	if (call->sink.status >= 400)
		return problem_error(c, call, e); /* also when the server closed while we were still sending */
	return rc == CURLE_OK || call->sink.stopped ? ERR_OK : transport_error(c, call, rc, e);
}

static enum err_code call_run(struct client *c, const char *method, const char *path, const char *accept, const struct js *body,
	struct strbuf *out, int *ret_status, struct error *e)
{
	struct call call = { .sink = { .bytes = out } };
	call_begin(c, &call, method, path, accept, body);
	CURLcode rc = curl_easy_perform(c->easy);
	enum err_code code = call_end(c, &call, rc, ret_status, e);
	call_release(&call);
	return code;
}

enum err_code client_call(struct client *c, const char *method, const char *path, const struct js *body, int *ret_status, struct js **ret_body,
	struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(REPLY_MAX);
	int status = 0;
	enum err_code rc = call_run(c, method, path, "application/json", body, &text, &status, e);
	if (ret_status)
		*ret_status = status;
	if (ret_body)
		*ret_body = NULL;
	if (!rc && status >= 300) {
		error_set(e, ERR_UNREACHABLE, "'%s' sends elsewhere (status %d)", c->where, status);
		error_hint(e, "give the address that it sends to, often the same with https://");
		return ERR_UNREACHABLE;
	}
	if (rc || !ret_body || text.len == 0)
		return rc;
	*ret_body = js_parse(text.data, text.len, e);
	return *ret_body ? ERR_OK : error_wrap(e, "the reply of '%s' to %s %s", c->where, method, path);
}

enum err_code client_get(struct client *c, const char *path, const char *accept, int *ret_status, struct strbuf *out, struct error *e)
{
	return call_run(c, "GET", path, accept ? accept : "*/*", NULL, out, ret_status, e);
}

/* CURLE_OK and *ret_interrupted when the caller's flag rose; else how the transfer ended. */
static CURLcode lines_drive(CURLM *multi, const struct sink *sink, const volatile int *interrupted, bool *ret_interrupted)
{
	int running = 1;
	for (;;) {
		if (curl_multi_perform(multi, &running) != CURLM_OK)
			return CURLE_RECV_ERROR;
		*ret_interrupted = interrupted && __atomic_load_n(interrupted, __ATOMIC_ACQUIRE); /* set by a signal or a thread */
		if (*ret_interrupted || sink->stopped)
			return CURLE_OK;
		int left;
		CURLMsg *m = running ? NULL : curl_multi_info_read(multi, &left);
		if (m && m->msg == CURLMSG_DONE)
			return m->data.result;
		if (!running)
			return CURLE_RECV_ERROR;
		curl_multi_poll(multi, NULL, 0, LINES_POLL_MS, NULL);
	}
}

enum err_code client_lines(struct client *c, const char *path, const char *accept, client_line_fn *fn, void *ctx, const volatile int *interrupted,
	struct error *e)
{
	struct line_reader lines;
	line_init(&lines, LINE_MAX_BYTES);
	struct call call = { .sink = { .lines = &lines, .fn = fn, .ctx = ctx } };
	call_begin(c, &call, "GET", path, accept, NULL);
	CURLM *multi = curl_multi_init();
	CHECK(multi && curl_multi_add_handle(multi, c->easy) == CURLM_OK);
	bool stop = false;
	CURLcode result = lines_drive(multi, &call.sink, interrupted, &stop);
	enum err_code rc = stop ? error_set(e, ERR_CANCELED, "interrupted") : call_end(c, &call, result, NULL, e);
	if (!rc && !call.sink.stopped && call.sink.status < 400)
		line_finish(&lines, on_line, &call.sink);
	curl_multi_remove_handle(multi, c->easy);
	curl_multi_cleanup(multi);
	call_release(&call);
	line_release(&lines);
	return rc;
}

/* ---- files ---- */

struct sending {
	const struct client_file *file;
	int64_t sent;
	bool failed;
};

static size_t on_want(char *buf, size_t one, size_t n, void *arg)
{
	struct sending *s = arg;
	int64_t left = s->file->length < 0 ? INT64_MAX : s->file->length - s->sent;
	size_t want = (int64_t)(one * n) < left ? one * n : (size_t)left;
	ssize_t got;
	do
		got = s->file->length < 0 ? read(s->file->fd, buf, want) : pread(s->file->fd, buf, want, s->file->offset + s->sent);
	while (got < 0 && errno == EINTR);
	s->failed = got < 0 || (got == 0 && want > 0 && s->file->length >= 0); /* the file has become shorter */
	if (s->failed)
		return CURL_READFUNC_ABORT;
	s->sent += got;
	if (s->file->progress)
		s->file->progress(s->file->ctx, s->sent);
	return (size_t)got;
}

static void send_begin(struct client *c, struct call *call, const char *method, struct sending *s)
{
	slist_add(&call->headers, "Content-Type: application/octet-stream");
	slist_add(&call->headers, "Expect:");
	curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, call->headers);
	curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, NULL);
	curl_easy_setopt(c->easy, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(c->easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)s->file->length);
	curl_easy_setopt(c->easy, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BUFFER);
	curl_easy_setopt(c->easy, CURLOPT_READFUNCTION, on_want);
	curl_easy_setopt(c->easy, CURLOPT_READDATA, s);
	curl_easy_setopt(c->easy, CURLOPT_TIMEOUT_MS, 0L);
	curl_easy_setopt(c->easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(c->easy, CURLOPT_LOW_SPEED_TIME, (long)CLIENT_SEND_SILENCE_S);
}

enum err_code client_send_file(struct client *c, const char *method, const char *path, const struct client_file *file, int *ret_status,
	struct js **ret_body, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(REPLY_MAX);
	struct call call = { .sink = { .bytes = &text } };
	struct sending s = { .file = file };
	call_begin(c, &call, "POST", path, "application/json", NULL);
	send_begin(c, &call, method, &s);
	CURLcode rc = curl_easy_perform(c->easy);
	curl_easy_setopt(c->easy, CURLOPT_UPLOAD, 0L);
	curl_easy_setopt(c->easy, CURLOPT_LOW_SPEED_LIMIT, 0L);
	enum err_code code = call_end(c, &call, rc, ret_status, e);
	call_release(&call);
	if (s.failed)
		return error_set(e, ERR_IO, "the file could not be read to its end while it was sent");
	if (code || !text.len)
		return code;
	*ret_body = js_parse(text.data, text.len, e);
	return *ret_body ? ERR_OK : error_wrap(e, "the reply of '%s' to %s %s", c->where, method, path);
}
