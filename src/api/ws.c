/* The real-time channel: GET /v1/ws, subprotocol signalbox.v1; each message is one JSON object.
 *
 *   watch.c     what a client subscribed to, from the log and then from the hub
 *   this file   its messages, and the agents that speak here: each hears `interrupt` when it shall end, `end` when its task is over
 *
 * All of a channel happens on the WebSocket thread; the hub only wakes it. */
#include "api/ws.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/external.h"
#include "core/tokens.h"
#include <stdlib.h>
#include <string.h>

#define CHANNEL_PROTOCOL "signalbox.v1"
#define CHANNEL_OWNED_MAX 256 /* external tasks that one connection speaks for */
#define REF_TEXT_MAX ((size_t)256)

/* An external task that speaks here. */
struct owned {
	char task[27];
	char *task_id; /* as its agent calls it */
	struct hub_sub *sub;
	bool told;
};

struct channel {
	struct api *api;
	struct ws *ws;
	char *who, *project;
	struct caller by; /* of these texts */
	struct watches *watches;
	struct owned *owned;
	size_t owned_count;
};

static void channel_wake(void *arg)
{
	struct channel *ch = arg;
	ws_wake(ch->ws);
}

static void say(struct channel *ch, struct js *message_taken)
{
	AUTO_FREE char *text = js_dump(message_taken);
	js_free(message_taken);
	ws_send(ch->ws, text, strlen(text));
}

static struct js *message_of(const char *type)
{
	struct js *o = js_object();
	js_set_str(o, "type", type);
	return o;
}

/* --- agents */

static void owned_drop(struct channel *ch, size_t i)
{
	hub_unsubscribe(ch->owned[i].sub);
	free(ch->owned[i].task_id);
	ch->owned[i] = ch->owned[--ch->owned_count];
}

static void tell_interrupt(struct channel *ch, struct owned *o)
{
	struct js *message = message_of("interrupt");
	js_set_str(message, "task", o->task);
	js_set_str(message, "taskId", o->task_id);
	o->told = true;
	say(ch, message);
}

static void tell_end(struct channel *ch, const struct owned *o)
{
	AUTO_JS struct js *task = NULL;
	struct js *message = message_of("end");
	js_set_str(message, "task", o->task);
	js_set_str(message, "taskId", o->task_id);
	if (core_task(ch->api->core, ch->by, o->task, NULL, &task, NULL) == ERR_OK) {
		js_set_str(message, "status", js_str(task, "status"));
		js_set(message, "reason", js_ref(js_get(task, "reason")));
	}
	say(ch, message);
}

static void look_at_owned(struct channel *ch)
{
	for (size_t i = ch->owned_count; i-- > 0;) {
		struct owned *o = &ch->owned[i];
		bool interrupt = false;
		if (!core_external_look(ch->api->core, o->task, &interrupt)) {
			tell_end(ch, o);
			owned_drop(ch, i);
		} else if (interrupt && !o->told) {
			tell_interrupt(ch, o);
		}
	}
}

/* From its first word on the agent hears here what is wanted of it; its own end it knows. */
static void own(struct channel *ch, const struct js *reply)
{
	const char *task = js_str_or(reply, "task", "");
	size_t i = 0;
	while (i < ch->owned_count && !str_eq(ch->owned[i].task, task))
		i++;
	if (!js_flag(reply, "live", false)) {
		if (i < ch->owned_count)
			owned_drop(ch, i);
		return;
	}
	if (i < ch->owned_count || i == CHANNEL_OWNED_MAX)
		return;
	ch->owned = mem_grow(ch->owned, (ch->owned_count + 1) * sizeof(*ch->owned));
	struct owned *o = &ch->owned[ch->owned_count++];
	*o = (struct owned){ .task_id = mem_strdup(js_str(reply, "taskId")) };
	memcpy(o->task, task, sizeof(o->task));
	o->sub = hub_watch(core_hub(ch->api->core), o->task, channel_wake, ch);
	ws_wake(ch->ws); /* it may have been asked to end already */
}

/* --- messages */

static enum err_code take_subscribe(struct channel *ch, const struct js *m, struct js *reply, struct error *e)
{
	static const char *const members[] = { "type", "ref", "tasks", "after", NULL };
	enum err_code rc = js_check_members(m, "", members, e);
	return rc ? rc : watches_add(ch->watches, js_get(m, "tasks"), js_get(m, "after"), reply, e);
}

static enum err_code take_unsubscribe(struct channel *ch, const struct js *m, struct js *reply, struct error *e)
{
	static const char *const members[] = { "type", "ref", "tasks", NULL };
	enum err_code rc = js_check_members(m, "", members, e);
	return rc ? rc : watches_remove(ch->watches, js_get(m, "tasks"), reply, e);
}

/* A run of ours has no finer interrupt than its cancel yet, and the reply says which it was. */
static enum err_code take_interrupt(struct channel *ch, const struct js *m, struct js *reply, struct error *e)
{
	static const char *const members[] = { "type", "ref", "task", NULL };
	AUTO_JS struct js *task = NULL;
	const char *ref = NULL;
	bool ignored;
	enum err_code rc = js_check_members(m, "", members, e);
	if (!rc)
		rc = js_want_str(m, "", "task", &ref, e);
	if (!rc && str_empty(ref))
		rc = error_set(e, ERR_INVALID, "task: missing or empty");
	if (!rc)
		rc = core_cancel(ch->api->core, ch->by, ref, NULL, &task, e);
	if (rc)
		return rc;
	js_set_str(reply, "task", js_str(task, "id"));
	js_set_str(reply, "status", js_str(task, "status"));
	js_set_str(reply, "action", core_external_look(ch->api->core, js_str_or(task, "id", ""), &ignored) ? "interrupt" : "cancel");
	return ERR_OK;
}

static enum err_code take_agent(struct channel *ch, const struct js *m, struct js *reply, struct error *e)
{
	AUTO_JS struct js *answer = NULL;
	enum err_code rc = core_external(ch->api->core, ch->by, m, &answer, e);
	if (rc)
		return rc;
	js_merge(reply, answer);
	own(ch, answer);
	return ERR_OK;
}

static const struct {
	const char *type;
	enum err_code (*take)(struct channel *ch, const struct js *m, struct js *reply, struct error *e);
} kinds[] = {
	{ "subscribe", take_subscribe }, { "unsubscribe", take_unsubscribe }, { "interrupt", take_interrupt },
	{ "register", take_agent }, { "heartbeat", take_agent }, { "progress", take_agent }, { "complete", take_agent }, { "error", take_agent }, { "canceled", take_agent },
};

static enum err_code take(struct channel *ch, const struct js *m, struct js *reply, struct error *e)
{
	const char *type = NULL;
	enum err_code rc = js_want_str(m, "", "type", &type, e);
	for (size_t i = 0; !rc && i < ARRAY_SIZE(kinds); i++)
		if (str_eq(kinds[i].type, type))
			return kinds[i].take(ch, m, reply, e);
	if (rc)
		return rc;
	error_set(e, ERR_INVALID, "type '%.40s' is not known", type ? type : "");
	error_hint(e, "expected subscribe, unsubscribe, interrupt, register, heartbeat, progress, complete, error or canceled");
	return ERR_INVALID;
}

/* `ref` comes back as it was given, so that replies find their questions. */
static enum err_code check_ref(const struct js *m, struct error *e)
{
	const struct js *ref = js_get(m, "ref");
	enum js_type type = js_type(ref);
	if (type == JS_NULL || type == JS_INT || (type == JS_STRING && js_text_len(ref) <= REF_TEXT_MAX))
		return ERR_OK;
	return error_set(e, ERR_INVALID, "ref: expected an integer or a string of at most %zu bytes", REF_TEXT_MAX);
}

static struct js *parse(const char *text, size_t len, struct error *e)
{
	struct js *m = js_parse(text, len, e);
	if (m && js_type(m) == JS_OBJECT)
		return m;
	if (m)
		error_set(e, ERR_INVALID, "the message is JSON, but not an object");
	js_free(m);
	return NULL;
}

/* A token that was revoked, or is too old by now, has nothing more to say or to hear. */
static bool is_welcome(struct channel *ch)
{
	if (core_token_lives(ch->api->core, ch->by))
		return true;
	ws_close(ch->ws, WS_POLICY, "the token does not open this server any more");
	return false;
}

static void channel_text(void *state, const char *text, size_t len)
{
	struct channel *ch = state;
	if (!is_welcome(ch))
		return;
	struct error e = ERROR_INIT;
	AUTO_JS struct js *m = parse(text, len, &e);
	struct js *reply = message_of("ok");
	const struct js *ref = NULL;
	enum err_code rc = m ? check_ref(m, &e) : e.code;
	if (!rc) {
		ref = js_get(m, "ref");
		rc = take(ch, m, reply, &e);
	}
	if (rc) {
		js_free(reply);
		reply = message_of("error");
		js_set_str(reply, "code", err_name(rc));
		js_set_str(reply, "detail", e.text);
		if (e.hint[0])
			js_set_str(reply, "hint", e.hint);
	}
	js_set(reply, "ref", ref ? js_ref(ref) : js_null());
	say(ch, reply);
	watches_fill(ch->watches);
}

/* --- the connection */

static void channel_open(void *state, struct ws *w)
{
	struct channel *ch = state;
	ch->ws = w;
	ch->watches = watches_new(ch->api->core, ch->by, w);
}

static void channel_ready(void *state)
{
	struct channel *ch = state;
	if (!is_welcome(ch))
		return;
	look_at_owned(ch);
	watches_fill(ch->watches);
	if (ch->api->stopping)
		ws_close(ch->ws, WS_GOING_AWAY, "the server stops");
}

static void channel_closed(void *state)
{
	struct channel *ch = state;
	while (ch->owned_count)
		owned_drop(ch, ch->owned_count - 1);
	watches_free(ch->watches);
	free(ch->owned);
	free(ch->who);
	free(ch->project);
	free(ch);
}

void api_ws(struct http_request *r, void *ctx)
{
	static const struct ws_ops ops = { channel_open, channel_text, channel_ready, channel_closed };
	static const struct ws_config config = { .protocol = CHANNEL_PROTOCOL };
	struct channel *ch = NEW(struct channel);
	ch->api = ctx;
	ch->who = mem_strdup(http_principal(r));
	ch->project = mem_strdup(http_project(r));
	ch->by = api_caller(r);
	ch->by.who = ch->who;
	ch->by.project = ch->project;
	http_upgrade_ws(r, &config, &ops, ch);
}

/* --- the same for programs that have one thing to say */

void api_post_external(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *reply = NULL;
	const struct js *m = http_body_js(r, &e);
	enum err_code rc = m ? core_external(a->core, api_caller(r), m, &reply, &e) : e.code;
	http_reply_outcome(r, rc, 200, reply, &e);
}

void api_get_external(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	http_reply_js(r, 200, core_externals(a->core, api_caller(r)));
}
