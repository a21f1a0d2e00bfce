/* One exchange, from the agent's request to the last byte of the reply.
 *
 *   check token, body, provider, model -> record start -> send -> wait for the head -> stream -> record end
 *
 * What goes wrong before the reply's head is an ordinary error reply in the providers' own form, since the reader is an agent.
 * An upstream that is slow to answer gets its 200 in advance (limits.early_ms): from then on the agent is probed with comments,
 * and an error must be told inside the stream. */
#include "gateway/exchange.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "gateway/gateway.h"
#include "model/messages.h"
#include "model/meter.h"
#include <string.h>

#define FORWARD_LINES_MAX 12

/* What of an agent's head a provider gets to see. */
static const char *const forwarded_headers[] = { "Accept", "Content-Type", "User-Agent", "OpenAI-Beta", "Originator", "Session-Id",
	"Anthropic-Version", "Anthropic-Beta" };

_Static_assert(ARRAY_SIZE(forwarded_headers) + 2 <= FORWARD_LINES_MAX, "each line has its place");

struct exchange {
	struct exchange_host *host;
	struct config *config;
	const struct provider *provider;
	struct token_claims claims;
	char request_id[ID_SIZE];
	enum wire wire;	   /* the API that the agent speaks */
	bool wants_stream;
	struct record_ticket ticket;
	struct transfer *transfer;
	struct meter meter;
	bool metering;
	bool early;	   /* the 200 went out before the upstream's head came */
	bool head_known;   /* early: it has come since */
	bool recorded;
	char tail[4];	   /* the last bytes given to the agent: a comment fits only between events */
	bool admitted;	   /* in the host's list */
	struct exchange *prev, *next; /* guarded by the host's lock */
	int status;
	int64_t bytes_out;
	struct strbuf late_error; /* early: an error's body, to be told inside the stream */
};

struct config *exchange_config(struct exchange_host *h)
{
	struct config *c;

	pthread_mutex_lock(&h->lock);
	c = config_ref(h->config);
	pthread_mutex_unlock(&h->lock);
	return c;
}

static struct js *error_body(const char *type, const char *code, const char *message)
{
	struct js *body = js_object(), *error = js_object();

	js_set_str(error, "message", message);
	js_set_str(error, "type", type);
	js_set_str(error, "code", code);
	js_set(body, "error", error);
	return body;
}

static void exchange_record(struct exchange *x, const char *error)
{
	struct record_result res = { .status = x->status, .bytes_out = x->bytes_out, .error = error };
	struct error e = ERROR_INIT;

	if (x->recorded || x->ticket.fd < 0)
		return;
	x->recorded = true;
	if (x->metering) {
		meter_finish(&x->meter);
		res.meter = &x->meter;
		if (res.error == NULL)
			res.error = x->meter.error != NULL ? x->meter.error : x->meter.completed ? NULL : "the reply ended before it was complete";
	}
	if (record_end(x->host->recorder, &x->ticket, &res, &e) != ERR_OK)
		log_error("run=%s record: %s", x->claims.run, e.text);
}

/* One run must not take all connections for itself. */
static bool host_admit(struct exchange *x)
{
	struct exchange_host *h = x->host;
	int same = 0;

	pthread_mutex_lock(&h->lock);
	for (const struct exchange *o = h->admitted; o != NULL; o = o->next)
		same += str_eq(o->claims.run, x->claims.run);
	x->admitted = same < GATEWAY_RUN_ACTIVE_MAX;
	if (x->admitted) {
		x->next = h->admitted;
		if (x->next != NULL)
			x->next->prev = x;
		h->admitted = x;
	}
	pthread_mutex_unlock(&h->lock);
	return x->admitted;
}

static void host_leave(struct exchange *x)
{
	struct exchange_host *h = x->host;

	if (!x->admitted)
		return;
	pthread_mutex_lock(&h->lock);
	if (x->prev != NULL)
		x->prev->next = x->next;
	else
		h->admitted = x->next;
	if (x->next != NULL)
		x->next->prev = x->prev;
	pthread_mutex_unlock(&h->lock);
}

static void exchange_free(void *state)
{
	struct exchange *x = state;
	struct exchange_host *h = x->host;

	exchange_record(x, "the agent went away before the reply was complete");
	host_leave(x);
	transfer_free(x->transfer);
	if (x->metering)
		meter_release(&x->meter);
	strbuf_release(&x->late_error);
	token_claims_release(&x->claims);
	config_unref(x->config);
	free(x);
	if (atomic_fetch_sub(&h->active, 1) == 1 && h->idle != NULL)
		h->idle(h->idle_ctx);
}

static struct exchange *exchange_new(struct exchange_host *h)
{
	struct exchange *x = NEW(struct exchange);

	atomic_fetch_add(&h->active, 1);
	x->host = h;
	x->config = exchange_config(h);
	x->ticket.fd = -1;
	memcpy(x->tail, "\r\n\r\n", sizeof(x->tail));
	x->late_error.max = GATEWAY_ERROR_BODY_MAX;
	clock_new_id(x->request_id);
	return x;
}

/* The one way to say no before the stream. */
static void exchange_refuse(struct exchange *x, struct http_request *r, int status, const char *type, const char *code, const char *message)
{
	x->status = status;
	exchange_record(x, message);
	if (status == 429 || status == 503)
		http_reply_header(r, "Retry-After", "1");
	http_reply_js(r, status, x->wire == WIRE_MESSAGES ? messages_error_body(status, NULL, message) : error_body(type, code, message));
	exchange_free(x);
}

static bool token_check(struct exchange *x, struct http_request *r)
{
	const char *header = http_header(r, "Authorization");
	const char *token = header != NULL && str_starts(header, "Bearer ") ? header + strlen("Bearer ") : http_header(r, "X-Api-Key");
	struct error e = ERROR_INIT;

	if (token != NULL) {
		if (token_verify(x->config->key, token, clock_wall_ms() / 1000, &x->claims, &e) == ERR_OK)
			return true;
	} else {
		(void)error_set(&e, ERR_DENIED, "a run token is needed: Authorization: Bearer sbx1...");
	}
	exchange_refuse(x, r, 401, "invalid_request_error", "invalid_api_key", e.text);
	return false;
}

static bool provider_check(struct exchange *x, struct http_request *r, const struct js *body)
{
	const char *model = js_str_or(body, "model", "");
	AUTO_FREE char *message = NULL;

	x->provider = config_provider_for(x->config, x->claims.provider, x->wire);
	if (x->provider == NULL) {
		const char *name = x->claims.provider != NULL ? x->claims.provider : x->config->default_provider;

		message = config_provider(x->config, name) == NULL ? mem_printf("the gateway has no provider '%s'", name)
			: mem_printf("the provider '%s' does not speak the %s API", name, x->wire == WIRE_MESSAGES ? "Messages" : "Responses");
		exchange_refuse(x, r, 403, "invalid_request_error", "provider_not_found", message);
		return false;
	}
	if (x->claims.model == NULL || str_eq(x->claims.model, model))
		return true;
	message = mem_printf("the run may use the model '%s', not '%s'", x->claims.model, model);
	exchange_refuse(x, r, 403, "invalid_request_error", "model_not_allowed", message);
	return false;
}

/* The agent's own bytes, unless the provider wants another model's name in them. */
static char *body_forward(const struct exchange *x, const struct http_request *r, struct js *body, size_t *ret_len)
{
	const char *bytes = http_body(r, ret_len);
	char *text;

	if (x->provider->model == NULL) {
		text = mem_alloc(*ret_len + 1);
		memcpy(text, bytes, *ret_len);
		return text;
	}
	js_set_str(body, "model", x->provider->model);
	text = js_dump(body);
	*ret_len = strlen(text);
	return text;
}

static bool record_begin(struct exchange *x, struct http_request *r, const struct js *body)
{
	size_t len;
	AUTO_JS struct js *input = x->wire == WIRE_MESSAGES ? messages_for_record(js_get(body, "messages")) : js_ref(js_get(body, "input"));
	struct record_request rq = { .request_id = x->request_id, .provider = x->provider->name, .model = js_str(body, "model"),
		.input = input, .stream = x->wants_stream };
	struct error e = ERROR_INIT;
	enum err_code rc;

	(void)http_body(r, &len);
	rq.bytes = len;
	rc = record_start(x->host->recorder, &x->claims, &rq, &x->ticket, &e);
	if (rc == ERR_OK)
		return true;
	if (rc == ERR_LIMIT) { /* not 429: that would ask the agent to come again, and hides the reason from who watches it */
		exchange_refuse(x, r, 403, "invalid_request_error", "run_limit_reached", e.text);
		return false;
	}
	if (rc == ERR_DENIED) {
		exchange_refuse(x, r, 401, "invalid_request_error", "invalid_api_key", e.text);
		return false;
	}
	log_error("run=%s record: %s", x->claims.run, e.text);
	exchange_refuse(x, r, 503, "server_error", "record_failed", "the gateway cannot record the exchange, so it was not made");
	return false;
}

/* What the agent asked for, below the provider's own base; of the query only what is known passes. */
static char *exchange_url(const struct exchange *x, const struct http_request *r)
{
	bool beta = str_eq(http_query(r, "beta"), "true");

	if (x->wire == WIRE_RESPONSES)
		return mem_printf("%s/responses", x->provider->url);
	return mem_printf("%s/messages%s%s", x->provider->url, str_ends(http_path(r), "/count_tokens") ? "/count_tokens" : "", beta ? "?beta=true" : "");
}

static bool exchange_send(struct exchange *x, struct http_request *r, struct js *body)
{
	const char *lines[FORWARD_LINES_MAX] = { NULL };
	char *made[FORWARD_LINES_MAX] = { NULL };
	size_t n = 0;
	struct error e = ERROR_INIT;
	AUTO_FREE char *url = exchange_url(x, r);
	struct transfer_request rq = { .url = url, .host = x->provider->host, .key = x->provider->key, .headers = lines,
		.key_header = x->wire == WIRE_MESSAGES ? "x-api-key" : NULL, .connect_ms = x->config->connect_ms, .idle_ms = x->config->idle_ms };
	enum err_code rc;

	for (size_t i = 0; i < ARRAY_SIZE(forwarded_headers); i++) {
		const char *value = http_header(r, forwarded_headers[i]);

		if (value != NULL && value[0] != '\0')
			made[n++] = mem_printf("%s: %s", forwarded_headers[i], value);
	}
	made[n++] = mem_printf("X-Client-Request-Id: %s", x->request_id);
	memcpy(lines, made, sizeof(made));
	rq.body_taken = body_forward(x, r, body, &rq.body_len);
	rc = transfer_start(x->host->upstream, &rq, &x->transfer, &e);
	for (size_t i = 0; i < n; i++)
		free(made[i]);
	if (rc != ERR_OK)
		exchange_refuse(x, r, 503, "server_error", "gateway_busy", e.text);
	return rc == ERR_OK;
}

static void meter_begin(struct exchange *x)
{
	const char *type = transfer_header(x->transfer, "Content-Type");

	meter_init(&x->meter, type != NULL && str_starts(type, "text/event-stream"));
	x->meter.scrub = &x->ticket.scrub;
	x->metering = true;
}

static void out_note(struct exchange *x, const char *buf, size_t n)
{
	x->bytes_out += (int64_t)n;
	for (size_t i = n > sizeof(x->tail) ? n - sizeof(x->tail) : 0; i < n; i++) {
		memmove(x->tail, x->tail + 1, sizeof(x->tail) - 1);
		x->tail[sizeof(x->tail) - 1] = buf[i];
	}
}

/* Nothing has come for a while: something harmless that shows whether the agent is still there. */
static ssize_t probe_write(struct exchange *x, char *buf, size_t max)
{
	static const char comment[] = ": waiting for the model\n\n";
	bool sse = x->head_known ? x->meter.sse : x->wants_stream;
	bool between = memcmp(x->tail + 2, "\n\n", 2) == 0 || memcmp(x->tail, "\r\n\r\n", 4) == 0;

	if (sse && between && max >= sizeof(comment)) {
		memcpy(buf, comment, sizeof(comment) - 1);
		return (ssize_t)sizeof(comment) - 1;
	}
	if (sse || x->bytes_out > 0)
		return 0;
	buf[0] = ' '; /* white space before a JSON document */
	return 1;
}

static struct js *late_failure(const struct exchange *x, const char *message)
{
	struct js *response = js_object(), *error = js_object();

	js_set_str(error, "code", "server_error");
	js_set_str(error, "message", message);
	js_set_str(response, "id", x->request_id);
	js_set_str(response, "status", "failed");
	js_set(response, "error", error);
	return response;
}

/* An error that came after the 200: told as the stream's own failure event, or as the plain body. */
static ssize_t late_error_write(struct exchange *x, char *buf, size_t max, const char *message)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	AUTO_JS struct js *told = x->wire == WIRE_MESSAGES ? messages_error_body(502, NULL, message) : late_failure(x, message);
	AUTO_JS struct js *event = js_object();

	js_set_str(event, "type", "response.failed");
	js_set(event, "response", js_ref(told));
	if (x->wants_stream)
		strbuf_adds(&out, x->wire == WIRE_MESSAGES ? "event: error\ndata: " : "event: response.failed\ndata: ");
	js_dump_to(x->wants_stream && x->wire == WIRE_RESPONSES ? event : told, &out);
	strbuf_adds(&out, "\n\n");
	if (out.len > max)
		return -2;
	memcpy(buf, out.data, out.len);
	x->bytes_out += (int64_t)out.len;
	return (ssize_t)out.len;
}

static ssize_t late_end(struct exchange *x, char *buf, size_t max, const char *message)
{
	if (x->recorded)
		return -1; /* it was told with the previous call */
	x->status = x->status == 200 ? 502 : x->status;
	exchange_record(x, message);
	return late_error_write(x, buf, max, message);
}

/* Early: what the upstream said after all. 1: go on streaming it; else the result of the read. */
static ssize_t early_read(struct exchange *x, char *buf, size_t max)
{
	AUTO_FREE char *message = NULL;
	int status = transfer_status(x->transfer, x->config->probe_ms);
	ssize_t n;

	if (status == 0)
		return probe_write(x, buf, max);
	if (status < 0)
		return late_end(x, buf, max, transfer_error(x->transfer));
	if (!x->metering)
		meter_begin(x);
	if (status < 300) {
		x->head_known = true;
		return 1;
	}
	while ((n = transfer_read(x->transfer, buf, max, x->config->probe_ms)) > 0) {
		meter_feed(&x->meter, buf, (size_t)n);
		strbuf_add(&x->late_error, buf, (size_t)n);
	}
	if (n == 0)
		return probe_write(x, buf, max);
	message = mem_printf("the model provider at %s answered %d: %s", x->provider->host, status, strbuf_str(&x->late_error));
	if (strlen(message) > METER_ERROR_MAX)
		message[METER_ERROR_MAX] = '\0';
	x->status = status;
	return late_end(x, buf, max, message);
}

static ssize_t exchange_read(void *state, char *buf, size_t max)
{
	struct exchange *x = state;
	ssize_t n;

	if (x->early && !x->head_known) {
		n = early_read(x, buf, max);
		if (!x->head_known)
			return n;
	}
	do {
		n = transfer_read(x->transfer, buf, max, x->config->probe_ms);
		if (n > 0) {
			meter_feed(&x->meter, buf, (size_t)n);
			out_note(x, buf, (size_t)n);
			return n;
		}
		if (n == 0)
			n = probe_write(x, buf, max);
	} while (n == 0);
	if (n == -1)
		exchange_record(x, NULL);
	else if (n == -2)
		exchange_record(x, transfer_error(x->transfer));
	return n;
}

/* An agent that is told to come again in an hour waits for an hour. */
static const char *retry_after_bounded(const char *value)
{
	int64_t s = 0;

	return str_to_i64(value, "Retry-After", 0, GATEWAY_RETRY_AFTER_MAX_S, &s, NULL) == ERR_OK ? value : GATEWAY_RETRY_AFTER_MAX;
}

static void reply_headers(const struct exchange *x, struct http_request *r)
{
	size_t n;
	const struct transfer_header *h = transfer_headers(x->transfer, &n);

	for (size_t i = 0; i < n; i++) {
		if (str_eq(h[i].name, "Content-Type") || str_eq(h[i].name, "Location"))
			continue;
		http_reply_header(r, h[i].name, str_eq(h[i].name, "Retry-After") ? retry_after_bounded(h[i].value) : h[i].value);
	}
}

/* Replies that an agent must not see as they are. True when it was answered. */
static bool reply_is_ours(struct exchange *x, struct http_request *r, int status)
{
	AUTO_FREE char *message = NULL;

	if (status == 401) { /* providers quote the key in it, and it is not the agent's fault */
		message = mem_printf("the provider '%s' at %s refused the gateway's key (401)", x->provider->name, x->provider->host);
		log_error("run=%s %s", x->claims.run, message);
		exchange_refuse(x, r, 403, "invalid_request_error", "provider_refused_key", message);
		return true;
	}
	if (status < 300 || status >= 400)
		return false;
	message = mem_printf("the model provider at %s answered with a redirect (%d), which is not followed", x->provider->host, status);
	exchange_refuse(x, r, 502, "server_error", "provider_redirects", message);
	return true;
}

static void exchange_reply(struct exchange *x, struct http_request *r)
{
	static const struct http_stream_ops ops = { .read = exchange_read, .free = exchange_free };
	int status = transfer_status(x->transfer, x->config->early_ms);
	const char *type;

	if (status < 0) {
		bool late = transfer_timed_out(x->transfer);

		exchange_refuse(x, r, late ? 504 : 502, "server_error", late ? "provider_timeout" : "provider_unreachable", transfer_error(x->transfer));
		return;
	}
	if (status > 0 && reply_is_ours(x, r, status))
		return;
	x->early = status == 0;
	x->status = status == 0 ? 200 : status;
	if (x->early) {
		http_stream(r, 200, x->wants_stream ? "text/event-stream" : "application/json", &ops, x, NULL);
		return;
	}
	meter_begin(x);
	x->head_known = true;
	reply_headers(x, r);
	type = transfer_header(x->transfer, "Content-Type");
	http_stream(r, status, type != NULL ? type : "application/octet-stream", &ops, x, NULL);
}

/* Both APIs; which one shows in the path. */
static void handle_ask(struct http_request *r, void *ctx)
{
	struct exchange_host *h = ctx;
	struct exchange *x = exchange_new(h);
	AUTO_JS struct js *body = NULL;
	struct error e = ERROR_INIT;
	const char *bytes;
	size_t len;

	x->wire = str_ends(http_path(r), "/responses") ? WIRE_RESPONSES : WIRE_MESSAGES;
	if (atomic_load(&h->draining)) {
		exchange_refuse(x, r, 503, "server_error", "gateway_draining", "this gateway is ending; the next one answers on the same socket");
		return;
	}
	if (!token_check(x, r))
		return;
	if (!host_admit(x)) {
		exchange_refuse(x, r, 429, "rate_limit_exceeded", "run_busy", "the run has as many model requests open as it may have");
		return;
	}
	bytes = http_body(r, &len);
	body = js_parse(bytes, len, &e);
	if (js_type(body) != JS_OBJECT) {
		exchange_refuse(x, r, 400, "invalid_request_error", "invalid_json", body == NULL ? e.text : "the request is not a JSON object");
		return;
	}
	x->wants_stream = js_flag(body, "stream", false);
	if (provider_check(x, r, body) && record_begin(x, r, body) && exchange_send(x, r, body)) {
		js_free(TAKE_PTR(body)); /* a stream may last; what was parsed need not */
		exchange_reply(x, r);
	}
}

static void handle_other(struct http_request *r, UNUSED void *ctx)
{
	AUTO_FREE char *message = mem_printf("the model gateway has only POST /v1/responses and /v1/messages, not %s %s", http_method(r), http_path(r));

	http_reply_js(r, 404, error_body("invalid_request_error", "not_found", message));
}

const struct http_route exchange_routes[] = {
	{ .method = "POST", .pattern = "/v1/responses", .handle = handle_ask, .body_max = GATEWAY_BODY_MAX, .summary = "Ask the model" },
	{ .method = "POST", .pattern = "/responses", .handle = handle_ask, .body_max = GATEWAY_BODY_MAX, .summary = "The same, for a base URL without /v1" },
	{ .method = "POST", .pattern = "/v1/messages", .handle = handle_ask, .body_max = GATEWAY_BODY_MAX, .summary = "Ask the model" },
	{ .method = "POST", .pattern = "/v1/messages/count_tokens", .handle = handle_ask, .body_max = GATEWAY_BODY_MAX, .summary = "Count a request's tokens" },
	{ .method = "GET", .pattern = "/", .handle = handle_other, .summary = "Nothing else is here" },
	{ .method = "GET", .pattern = "/{path*}", .handle = handle_other, .summary = "Nothing else is here" },
	{ .method = "POST", .pattern = "/{path*}", .handle = handle_other, .body_max = GATEWAY_BODY_MAX, .summary = "Nothing else is here" },
	{ .method = "PUT", .pattern = "/{path*}", .handle = handle_other, .body_max = GATEWAY_BODY_MAX, .summary = "Nothing else is here" },
	{ .method = "DELETE", .pattern = "/{path*}", .handle = handle_other, .summary = "Nothing else is here" },
	{ .method = NULL },
};
