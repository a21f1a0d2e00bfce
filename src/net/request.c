/* A request from its head to its handler.
 *
 *   head --> framing, route, query, authorize, declared length --> body, up to the route's limit --> handler
 *              \__ refused: answered after a short body was read off (the connection lives on), or at once before a long one
 *
 * MHD calls request_on_access once for the head, once per piece of body, and once at the end. */
#include "base/check.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/http.h"
#include "net/ws_loop.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

static struct http_request *request_new(struct listener *l, struct MHD_Connection *c, const char *url, const char *method)
{
	struct http_request *r = NEW(struct http_request);
	r->server = l->server;
	r->listener = l;
	r->connection = c;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	r->client = info ? info->socket_context : NULL;
	r->path = url;
	r->method = method;
	atomic_fetch_add_explicit(&l->server->requests, 1, memory_order_relaxed);
	return r;
}

void reply_headers_free(struct reply_header *h)
{
	while (h) {
		struct reply_header *next = h->next;
		free(h->name);
		free(h->value);
		free(h);
		h = next;
	}
}

void request_free(struct http_request *r)
{
	if (r->ws)
		ws_abandon(r->ws);
	if (r->later)
		r->later->free(r->later_state);
	intake_end(r);
	for (size_t i = 0; i < r->n_params; i++)
		free(r->params[i].value);
	for (size_t i = 0; i < r->n_query; i++) {
		free(r->query[i].name);
		free(r->query[i].value);
	}
	free(r->query);
	free(r->principal);
	free(r->project);
	strbuf_release(&r->body);
	atomic_fetch_sub_explicit(&r->server->bodies_bytes, r->body_charged, memory_order_relaxed);
	js_free(r->body_js);
	reply_headers_free(r->headers);
	free(r->refusal);
	free(r);
}

void request_on_completed(void *listener, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode why)
{
	(void)listener, (void)c, (void)why;
	struct http_request *r = *state;
	if (r) {
		pace_set(r->client, PACE_HEAD); /* the next one's */
		if (!later_keeps(r))
			request_free(r);
	}
	*state = NULL;
}

/* The first refusal stands. */
struct error *request_refuse(struct http_request *r, int status)
{
	if (!r->refusal) {
		r->refusal = NEW(struct error);
		r->refusal_status = status;
	}
	return r->refusal;
}

static void route_check(struct http_request *r)
{
	AUTO_STRBUF struct strbuf allow = STRBUF_INIT;
	switch (route_find(r, &allow)) {
	case MATCH_OK:
		return;
	case MATCH_NONE:
		error_set(request_refuse(r, 404), ERR_NOT_FOUND, "there is nothing at '%s'", r->path);
		return;
	case MATCH_METHOD:
		error_set(request_refuse(r, 405), ERR_UNSUPPORTED, "'%s' does not take %s", r->path, r->method);
		error_hint(request_refuse(r, 405), "it takes %s", strbuf_str(&allow));
		http_reply_header(r, "Allow", strbuf_str(&allow));
		return;
	case MATCH_BAD:
		error_set(request_refuse(r, 400), ERR_INVALID, "the path '%s' is not well encoded", r->path);
		error_hint(request_refuse(r, 400), "percent-encode it as UTF-8, without %%00");
		return;
	}
}

static char *query_decode(const char *s, bool *ok)
{
	struct strbuf out = STRBUF_LIMIT(HTTP_HEADER_MEMORY);
	*ok = *ok && str_add_urldec(&out, s, strlen(s), false) && str_is_utf8(strbuf_str(&out), out.len);
	return strbuf_detach(&out);
}

/* MHD has split the query at & and = and made + a space; the escapes are left to us. */
static enum MHD_Result query_add(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	(void)kind;
	struct http_request *r = arg;
	bool ok = true;
	if (r->n_query == HTTP_QUERY_MAX) {
		error_set(request_refuse(r, 400), ERR_LIMIT, "the query has more than %d parameters", HTTP_QUERY_MAX);
		return MHD_NO;
	}
	r->query = mem_grow(r->query, (r->n_query + 1) * sizeof(*r->query));
	struct query *q = &r->query[r->n_query++];
	q->name = query_decode(name, &ok);
	q->value = query_decode(value ? value : "", &ok);
	if (!ok) {
		error_set(request_refuse(r, 400), ERR_INVALID, "the query parameter '%s' is not well encoded", name);
		error_hint(request_refuse(r, 400), "percent-encode it as UTF-8, without %%00");
	}
	return ok ? MHD_YES : MHD_NO;
}

static void authorize(struct http_request *r)
{
	struct error e = ERROR_INIT;
	enum err_code rc = r->server->cfg.authorize ? r->server->cfg.authorize(r, r->server->cfg.ctx, &e) : ERR_OK;
	if (rc)
		*request_refuse(r, r->error_status ? r->error_status : err_http_status(rc)) = e;
}

static void too_large(struct http_request *r)
{
	size_t max = route_body_max(r->route);
	if (max == 0)
		error_set(request_refuse(r, 400), ERR_INVALID, "%s %s takes no body", r->method, r->path);
	else
		error_set(request_refuse(r, 413), ERR_LIMIT, "the body is larger than the limit of %zu bytes", max);
}

/* UINT64_MAX when it is chunked; MHD has checked the number. */
static uint64_t declared_length(const struct http_request *r)
{
	const char *length = http_header(r, "Content-Length");
	if (http_header(r, "Transfer-Encoding"))
		return UINT64_MAX;
	return length ? strtoull(length, NULL, 10) : 0;
}

static void refusal_answer(struct http_request *r)
{
	http_reply_error_status(r, r->refusal_status, r->refusal);
}

static enum MHD_Result on_head(struct http_request *r, const char *version)
{
	head_check(r, version);
	if (!r->refusal)
		route_check(r);
	if (!r->refusal)
		MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, query_add, r);
	if (!r->refusal)
		authorize(r);
	uint64_t length = r->declared = declared_length(r);
	if (!r->refusal)
		intake_begin(r, length);
	if (!r->refusal && !r->intake && length != UINT64_MAX && length > route_body_max(r->route))
		too_large(r);
	r->body.max = r->refusal ? 1 : route_body_max(r->route) + 1;
	bool long_body = length > HTTP_DRAIN_MAX || (length > 0 && http_header(r, "Expect"));
	if (r->unsafe || (r->refusal && long_body))
		refusal_answer(r);
	pace_set(r->client, length && !r->replied ? PACE_BODY : PACE_ANSWER);
	return MHD_YES;
}

static bool body_charge(struct http_request *r, size_t n)
{
	atomic_fetch_add_explicit(&r->server->bodies_bytes, n, memory_order_relaxed);
	r->body_charged += n;
	return atomic_load_explicit(&r->server->bodies_bytes, memory_order_relaxed) <= HTTP_BODIES_MAX;
}

static void body_keep(struct http_request *r, const char *data, size_t n)
{
	if (r->body_seen > route_body_max(r->route)) {
		too_large(r);
	} else if (!body_charge(r, n)) {
		error_set(request_refuse(r, 503), ERR_BUSY, "the server holds %zu bytes of request bodies, its limit", HTTP_BODIES_MAX);
		error_hint(request_refuse(r, 503), "try again in a moment");
	} else {
		strbuf_add(&r->body, data, n);
	}
	if (r->refusal)
		strbuf_release(&r->body);
}

bool request_take(struct http_request *r, const char *data, size_t n)
{
	r->body_seen += n;
	atomic_fetch_add_explicit(&r->server->bytes_in, n, memory_order_relaxed);
	if (!r->refusal && r->intake)
		intake_take(r, data, n);
	else if (!r->refusal)
		body_keep(r, data, n);
	if (r->intake)
		return !intake_is_over(r);
	size_t limit = r->route ? route_body_max(r->route) : 0;
	return !r->refusal || r->body_seen <= limit || r->body_seen - limit <= HTTP_DISCARD_MAX;
}

static enum MHD_Result on_body(struct http_request *r, const char *data, size_t n)
{
	pace_progress(r->client, n);
	if (!request_take(r, data, n))
		return MHD_NO;
	if (r->intake)
		haul_begin(r);
	return MHD_YES;
}

void request_whole(struct http_request *r)
{
	pace_set(r->client, PACE_ANSWER);
	if (r->refusal) {
		refusal_answer(r);
		return;
	}
	if (!r->later_due) /* else MHD calls again */
		r->route->handle(r, r->server->cfg.ctx);
	if (r->later_due && later_waits(r))
		return;
	if (r->later_due)
		later_answer(r);
	if (r->stream)
		stream_queue(r);
	if (!r->replied) {
		struct error e = ERROR_INIT;
		error_set(&e, ERR_INTERNAL, "%s %s was not answered", r->method, r->path);
		http_reply_error(r, &e);
	}
}

enum MHD_Result request_on_access(void *listener, struct MHD_Connection *c, const char *url, const char *method, const char *version,
	const char *data, size_t *len, void **state)
{
	struct http_request *r = *state;
	if (!r) {
		*state = r = request_new(listener, c, url, method);
		r->http10 = str_eq(version, "HTTP/1.0");
		return on_head(r, version);
	}
	if (r->haul || r->taken)
		return MHD_NO;
	if (*len) {
		size_t n = *len;
		*len = 0;
		return on_body(r, data, n);
	}
	if (!r->replied)
		request_whole(r);
	return MHD_YES;
}

const struct http_route *http_route_of(const struct http_request *r)
{
	return r->route;
}

const char *http_method(const struct http_request *r)
{
	return r->method;
}

const char *http_path(const struct http_request *r)
{
	return r->path;
}

const char *http_param(const struct http_request *r, const char *name)
{
	size_t len = strlen(name);
	for (size_t i = 0; i < r->n_params; i++)
		if (r->params[i].name_len == len && memcmp(r->params[i].name, name, len) == 0)
			return r->params[i].value;
	return NULL;
}

const char *http_query_nth(const struct http_request *r, const char *name, size_t n)
{
	for (size_t i = 0; i < r->n_query; i++)
		if (str_eq(r->query[i].name, name) && n-- == 0)
			return r->query[i].value;
	return NULL;
}

const char *http_query(const struct http_request *r, const char *name)
{
	return http_query_nth(r, name, 0);
}

const char *http_query_name(const struct http_request *r, size_t i)
{
	return i < r->n_query ? r->query[i].name : NULL;
}

const char *http_header(const struct http_request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

const char *http_body(const struct http_request *r, size_t *ret_len)
{
	if (ret_len)
		*ret_len = r->body.len;
	return strbuf_str(&r->body);
}

/* "application/json", "application/merge-patch+json; charset=utf-8" */
static bool type_is_json(const char *type)
{
	if (!type)
		return false;
	size_t n = strcspn(type, "; \t");
	return (n == strlen("application/json") && strncasecmp(type, "application/json", n) == 0) || (n > 5 && strncasecmp(type + n - 5, "+json", 5) == 0);
}

struct js *http_body_js(struct http_request *r, struct error *e)
{
	if (r->body_js)
		return r->body_js;
	const char *type = http_header(r, "Content-Type");
	if (!type_is_json(type)) {
		r->error_status = 415;
		error_set(e, ERR_INVALID, "the body's Content-Type is '%s', not application/json", type ? type : "");
		return NULL;
	}
	AUTO_JS struct js *body = js_parse(strbuf_str(&r->body), r->body.len, e);
	if (!body) {
		error_wrap(e, "request body");
		return NULL;
	}
	if (js_type(body) != JS_OBJECT) {
		error_set(e, ERR_INVALID, "the body is JSON, but not an object");
		return NULL;
	}
	r->body_js = TAKE_PTR(body);
	return r->body_js;
}

bool http_is_unix(const struct http_request *r)
{
	return r->listener->is_unix;
}

bool http_peer_uid(const struct http_request *r, uid_t *ret)
{
	if (!r->listener->is_unix)
		return false;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct ucred peer;
	socklen_t n = sizeof(peer);
	if (!info || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &n))
		return false;
	*ret = peer.uid;
	return true;
}

void http_request_stats(const struct http_request *r, struct http_stats *ret)
{
	http_server_stats(r->server, ret);
}

void http_set_principal(struct http_request *r, const char *who)
{
	free(r->principal);
	r->principal = mem_strdup(who);
}

const char *http_principal(const struct http_request *r)
{
	return r->principal;
}

void http_set_project(struct http_request *r, const char *project, unsigned rights)
{
	free(r->project);
	r->project = mem_strdup(project);
	r->rights = rights;
}

const char *http_project(const struct http_request *r)
{
	return r->project;
}

unsigned http_rights(const struct http_request *r)
{
	return r->rights;
}

enum err_code http_query_i64(const struct http_request *r, const char *name, int64_t min, int64_t max, int64_t *ret, struct error *e)
{
	const char *value = http_query(r, name);
	return value ? str_to_i64(value, name, min, max, ret, e) : ERR_OK;
}

void http_deny_status(struct http_request *r, int status)
{
	r->error_status = status;
}
