/* The gateway's control socket: GET /healthz, GET /version, POST /drain, POST /hide. */
#include "gateway/control.h"
#include "base/str.h"
#include <string.h>
#include <unistd.h>

#define CONTROL_TASK_MAX 64 /* bytes of a task's id */
#define CONTROL_HIDE_MAX ((size_t)16 << 20)

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
	js_set_bool(o, "hides", true); /* it knows POST /hide */
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

/* {task, texts: [...]}: from now on these are not in the record of the task's runs. The same again is harmless. */
static void handle_hide(struct http_request *r, void *ctx)
{
	static const char *const members[] = { "task", "texts", NULL };
	struct control *c = ctx;
	struct error e = ERROR_INIT;
	const struct js *body = http_body_js(r, &e), *texts = js_get(body, "texts");
	const char *task = NULL;
	enum err_code rc = body != NULL ? js_check_members(body, "", members, &e) : e.code;

	if (rc == ERR_OK)
		rc = js_want_str(body, "", "task", &task, &e);
	if (rc == ERR_OK && (str_empty(task) || strlen(task) > CONTROL_TASK_MAX || strchr(task, '.') != NULL))
		rc = error_set(&e, ERR_INVALID, "task: expected a task's id");
	if (rc == ERR_OK && js_type(texts) != JS_ARRAY)
		rc = error_set(&e, ERR_INVALID, "texts: expected an array");
	if (rc == ERR_OK)
		rc = record_hide(c->host->recorder, task, texts, &e);
	if (rc != ERR_OK)
		http_reply_error(r, &e);
	else
		http_reply(r, 204, NULL, "", 0);
}

const struct http_route control_routes[] = {
	{ .method = "GET", .pattern = "/healthz", .handle = handle_health, .summary = "Alive" },
	{ .method = "GET", .pattern = "/version", .handle = handle_version, .summary = "Process, configuration, active exchanges" },
	{ .method = "POST", .pattern = "/drain", .handle = handle_drain, .summary = "Take no more requests, end when the last is done" },
	{ .method = "POST", .pattern = "/hide", .handle = handle_hide, .body_max = CONTROL_HIDE_MAX, .summary = "Keep these texts out of a task's record" },
	{ .method = NULL },
};
