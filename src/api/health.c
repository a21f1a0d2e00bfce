/* What the server says of itself. */
#include "agent/agent.h"
#include "api/api.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "core/core.h"
#include <string.h>
#include <unistd.h>

void api_healthz(struct http_request *r, void *ctx UNUSED)
{
	http_reply(r, 200, "text/plain", "ok\n", 3);
}

void api_readyz(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct js *o = js_object();
	bool ready = core_ready(a->core);
	js_set_bool(o, "ready", ready);
	if (http_query(r, "verbose"))
		js_set(o, "checks", core_checks(a->core));
	http_reply_js(r, ready ? 200 : 503, o);
}

void api_doctor(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct js *o = js_object();
	js_set(o, "checks", core_checks(a->core));
	http_reply_js(r, 200, o);
}

static void http_metrics(struct http_request *r, struct strbuf *out)
{
	struct http_stats s = { 0 };
	http_request_stats(r, &s);
	const struct { const char *name, *type, *help; uint64_t value; } rows[] = {
		{ "signalbox_http_requests_total", "counter", "Requests whose head has come, on the sockets for people and programs.", s.requests },
		{ "signalbox_http_connections", "gauge", "Connections open now.", s.connections_now },
		{ "signalbox_http_streams", "gauge", "Answers that are streams, now.", s.streams_now },
		{ "signalbox_http_received_bytes_total", "counter", "Bytes of request bodies.", s.bytes_in },
		{ "signalbox_http_sent_bytes_total", "counter", "Bytes of answers' bodies.", s.bytes_out },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		strbuf_addf(out, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", rows[i].name, rows[i].help, rows[i].name, rows[i].type, rows[i].name,
			(unsigned long long)rows[i].value);
}

void api_metrics(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;
	core_metrics(a->core, &b);
	http_metrics(r, &b);
	http_reply(r, 200, "text/plain; version=0.0.4", strbuf_str(&b), b.len);
}

void api_version(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct js *o = js_object();
	char started[RFC3339_SIZE];
	clock_rfc3339(a->started_ms, started);
	js_set_str(o, "name", "signalbox");
	js_set_str(o, "version", SIGNALBOX_VERSION);
	js_set_int(o, "runner_protocol", RUNNER_PROTOCOL);
	js_set_int(o, "pid", (int64_t)getpid());
	js_set_str(o, "started_at", started);
	http_reply_js(r, 200, o);
}

void api_agents(struct http_request *r, void *ctx UNUSED)
{
	struct js *o = js_object();
	js_set(o, "data", agent_capabilities());
	js_set(o, "next_cursor", js_null());
	http_reply_js(r, 200, o);
}

void api_post_key(struct http_request *r, void *ctx)
{
	static const char *const members[] = { "provider", "key", NULL };
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	const char *provider = NULL, *key = NULL;
	const struct js *body = http_body_js(r, &e);
	enum err_code rc = body ? js_check_members(body, "", members, &e) : e.code;
	if (!rc)
		rc = js_want_str(body, "", "provider", &provider, &e);
	if (!rc)
		rc = js_want_str(body, "", "key", &key, &e);
	if (!rc && (str_empty(provider) || str_empty(key)))
		rc = error_set(&e, ERR_INVALID, "provider and key must be given");
	if (!rc)
		rc = core_offer_key(a->core, provider, key, &e);
	if (rc)
		http_reply_error(r, &e);
	else
		http_reply(r, 204, NULL, "", 0);
}

void api_reconcile(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	http_reply_js(r, 200, core_reconcile(a->core));
}
