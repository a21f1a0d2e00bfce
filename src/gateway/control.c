/* The gateway's control socket: GET /healthz, GET /version, POST /drain. */
#include "gateway/control.h"
#include <unistd.h>

static void handle_health(struct http_request *r, void *ctx)
{
	struct control *c = ctx;
	struct js *o = js_object();

	js_set_str(o, "status", atomic_load(&c->host->draining) ? "draining" : "ok");
	http_reply_js(r, 200, o);
}

static struct js *control_state(struct control *c)
{
	struct config *config = exchange_config(c->host);
	struct js *o = js_object();

	js_set_int(o, "pid", getpid());
	js_set_str(o, "config_hash", config->hash);
	js_set_str(o, "started", c->started);
	js_set_int(o, "active", atomic_load(&c->host->active));
	js_set_bool(o, "draining", atomic_load(&c->host->draining));
	config_unref(config);
	return o;
}

static void handle_version(struct http_request *r, void *ctx)
{
	http_reply_js(r, 200, control_state(ctx));
}

static void handle_drain(struct http_request *r, void *ctx)
{
	struct control *c = ctx;

	c->drain(c->drain_ctx);
	http_reply_js(r, 202, control_state(c));
}

const struct http_route control_routes[] = {
	{ .method = "GET", .pattern = "/healthz", .handle = handle_health, .summary = "Alive" },
	{ .method = "GET", .pattern = "/version", .handle = handle_version, .summary = "Process, configuration, active exchanges" },
	{ .method = "POST", .pattern = "/drain", .handle = handle_drain, .summary = "Take no more requests, end when the last is done" },
	{ .method = NULL },
};
