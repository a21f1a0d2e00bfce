/* The one answer of a request: bytes, JSON, a file, or a problem (RFC 9457). */
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RETRY_AFTER_S "1"

static const struct { int status; const char *title; } titles[] = {
	{ 200, "OK" }, { 201, "Created" }, { 202, "Accepted" }, { 204, "No Content" },
	{ 400, "Bad Request" }, { 401, "Unauthorized" }, { 403, "Forbidden" }, { 404, "Not Found" }, { 405, "Method Not Allowed" },
	{ 408, "Request Timeout" }, { 409, "Conflict" }, { 410, "Gone" }, { 412, "Precondition Failed" }, { 413, "Content Too Large" },
	{ 415, "Unsupported Media Type" }, { 421, "Misdirected Request" }, { 422, "Unprocessable Content" }, { 426, "Upgrade Required" }, { 428, "Precondition Required" },
	{ 429, "Too Many Requests" }, { 431, "Request Header Fields Too Large" }, { 500, "Internal Server Error" }, { 501, "Not Implemented" }, { 502, "Bad Gateway" },
	{ 503, "Service Unavailable" }, { 504, "Gateway Timeout" }, { 507, "Insufficient Storage" },
};

static const char *title_of(int status)
{
	for (size_t i = 0; i < ARRAY_SIZE(titles); i++)
		if (titles[i].status == status)
			return titles[i].title;
	return "Error";
}

void http_reply_header(struct http_request *r, const char *name, const char *value)
{
	struct reply_header *h = NEW(struct reply_header);
	h->name = mem_strdup(name);
	h->value = mem_strdup(value);
	h->next = r->headers;
	r->headers = h;
}

/* MHD refuses names and values with control characters: better an answer without that header than two answers. */
static void header_add(struct MHD_Response *response, const char *name, const char *value)
{
	if (MHD_add_response_header(response, name, value) != MHD_YES)
		log_warn("http header not sent name=%s", name);
}

static void header_write(struct strbuf *out, const char *name, const char *value)
{
	for (const char *c = value; *c; c++)
		if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
			return;
	strbuf_addf(out, "%s: %s\r\n", name, value);
}

static void date_write(struct strbuf *out)
{
	static const char days[][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
	static const char months[][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	time_t now = clock_wall_ms() / 1000;
	struct tm t;
	gmtime_r(&now, &t);
	strbuf_addf(out, "Date: %s, %02d %s %d %02d:%02d:%02d GMT\r\n", days[t.tm_wday], t.tm_mday, months[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

void reply_head_write(struct http_request *r, int status, const char *content_type, struct strbuf *out)
{
	strbuf_addf(out, "HTTP/1.1 %d %s\r\n", status, title_of(status));
	date_write(out);
	strbuf_adds(out, "Connection: close\r\n");
	if (content_type)
		header_write(out, "Content-Type", content_type);
	if (r->server->server_name)
		header_write(out, "Server", r->server->server_name);
	for (const struct reply_header *h = r->headers; h; h = h->next)
		header_write(out, h->name, h->value);
}

void reply_begin(struct http_request *r)
{
	CHECK(!r->replied);
	r->replied = true;
}

void reply_queue(struct http_request *r, int status, const char *content_type, struct MHD_Response *taken)
{
	CHECK(taken);
	if (content_type)
		header_add(taken, "Content-Type", content_type);
	if (r->server->server_name)
		header_add(taken, "Server", r->server->server_name);
	for (struct reply_header *h = r->headers; h; h = h->next)
		header_add(taken, h->name, h->value);
	reply_headers_free(r->headers); /* a stream's would be kept for hours */
	r->headers = NULL;
	MHD_queue_response(r->connection, (unsigned)status, taken);
	MHD_destroy_response(taken);
}

static void reply_once(struct http_request *r, int status, const char *content_type, struct MHD_Response *taken)
{
	reply_begin(r);
	reply_queue(r, status, content_type, taken);
}

static void sent(struct http_request *r, uint64_t n)
{
	atomic_fetch_add_explicit(&r->server->bytes_out, n, memory_order_relaxed);
}

/* A large answer that waits for its reader. */
struct kept {
	struct http_server *server;
	char *data;
	size_t len;
};

static void kept_free(void *arg)
{
	struct kept *k = arg;
	atomic_fetch_sub_explicit(&k->server->replies_bytes, k->len, memory_order_relaxed);
	free(k->data);
	free(k);
}

/* What was done is always told; what was only asked for may be asked for again. */
static bool large_refused(struct http_request *r, size_t len)
{
	struct http_server *s = r->server;
	bool is_question = strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0;
	struct error e = ERROR_INIT;
	if (atomic_fetch_add_explicit(&s->replies_bytes, len, memory_order_relaxed) + len <= HTTP_REPLIES_MAX || !is_question)
		return false;
	atomic_fetch_sub_explicit(&s->replies_bytes, len, memory_order_relaxed);
	error_set(&e, ERR_BUSY, "the server holds %zu bytes of answers that nobody has read yet, its limit", HTTP_REPLIES_MAX);
	error_hint(&e, "read them; or ask for less at once: ?limit=");
	http_reply_error_status(r, 503, &e);
	return true;
}

static void reply_bytes(struct http_request *r, int status, const char *content_type, char *taken, size_t len)
{
	if (len > HTTP_REPLY_SMALL && large_refused(r, len)) {
		free(taken);
		return;
	}
	sent(r, len);
	if (r->haul) {
		reply_begin(r);
		haul_answer(r, status, content_type, taken, len);
		free(taken);
		return;
	}
	if (len <= HTTP_REPLY_SMALL) {
		reply_once(r, status, content_type, MHD_create_response_from_buffer(len, taken, MHD_RESPMEM_MUST_FREE));
		return;
	}
	struct kept *k = NEW(struct kept);
	*k = (struct kept){ r->server, taken, len };
	reply_once(r, status, content_type, MHD_create_response_from_buffer_with_free_callback_cls(len, taken, kept_free, k));
}

void http_reply(struct http_request *r, int status, const char *content_type, const void *data, size_t len)
{
	AUTO_FREE char *copy = mem_alloc(len); /* MHD's own copying takes no const */
	if (len)
		memcpy(copy, data, len);
	reply_bytes(r, status, content_type, TAKE_PTR(copy), len);
}

static void reply_text(struct http_request *r, int status, const char *content_type, char *taken)
{
	reply_bytes(r, status, content_type, taken, strlen(taken));
}

void http_reply_json(struct http_request *r, int status, char *text_taken)
{
	reply_text(r, status, "application/json", text_taken);
}

void http_reply_js(struct http_request *r, int status, struct js *taken)
{
	char *text = js_dump(taken);
	js_free(taken);
	http_reply_json(r, status, text);
}

void http_reply_outcome(struct http_request *r, enum err_code rc, int status, struct js *taken, const struct error *e)
{
	if (rc)
		http_reply_error(r, e);
	else
		http_reply_js(r, status, taken);
}

static void reply_problem(struct http_request *r, int status, const struct error *e, const char *key, struct js *more_taken)
{
	AUTO_JS struct js *problem = js_object();
	js_set_str(problem, "type", "about:blank");
	js_set_str(problem, "title", title_of(status));
	js_set_int(problem, "status", status);
	js_set_str(problem, "code", err_name(e->code));
	js_set_str(problem, "detail", e->text);
	if (e->hint[0])
		js_set_str(problem, "hint", e->hint);
	if (key)
		js_set(problem, key, more_taken);
	if (status == 413 || status == 429 || status == 503)
		http_reply_header(r, "Retry-After", RETRY_AFTER_S);
	if (status == 401)
		http_reply_header(r, "WWW-Authenticate", "Bearer");
	reply_text(r, status, "application/problem+json", js_dump(problem));
}

void http_reply_error_status(struct http_request *r, int status, const struct error *e)
{
	reply_problem(r, status, e, NULL, NULL);
}

void http_reply_error_with(struct http_request *r, const struct error *e, const char *key, struct js *taken)
{
	reply_problem(r, r->error_status ? r->error_status : err_http_status(e->code), e, key, taken);
}

void http_reply_error(struct http_request *r, const struct error *e)
{
	http_reply_error_with(r, e, NULL, NULL);
}

void http_reply_fd(struct http_request *r, const char *content_type, int fd_taken, uint64_t size)
{
	struct MHD_Response *response = MHD_create_response_from_fd64(size, fd_taken);
	if (response) {
		sent(r, size);
		reply_once(r, 200, content_type, response);
		return;
	}
	close(fd_taken);
	struct error e = ERROR_INIT;
	error_set(&e, ERR_INTERNAL, "the file cannot be sent");
	http_reply_error(r, &e);
}
