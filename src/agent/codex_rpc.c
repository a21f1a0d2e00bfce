/* JSON-RPC without its version member, one object a line.  Both sides call: ids of our calls are counted by us, the server's requests have ids
 * of its own.  Whatever a line holds, it is answered, told or kept raw, and nothing grows without a limit. */
#include "agent/codex.h"
#include "agent/tell.h"
#include "agent/rpc.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define RPC_OVERLOADED (-32001) /* the server's queue was full; it did nothing */

static void call_send(struct codex *c, const struct codex_call *call)
{
	AUTO_JS struct js *o = js_object();
	js_set_int(o, "id", call->id);
	js_set_str(o, "method", call->method);
	js_set(o, "params", js_ref(call->params));
	agent_send(c->agent, o);
}

static void call_release(struct codex_call *call)
{
	js_free(call->params);
	free(call->message);
}

void codex_call(struct codex *c, const char *method, struct js *params_taken, codex_done *done, const char *message)
{
	struct codex_call call = { .id = ++c->last_call, .method = method, .params = params_taken, .done = done, .message = mem_strdup(message) };
	if (c->call_count == CODEX_CALLS_MAX) {
		done(c, &call, NULL, "too many calls wait for Codex's reply");
		call_release(&call);
		return;
	}
	c->calls[c->call_count++] = call;
	call_send(c, &call);
}

void codex_notify(struct codex *c, const char *method)
{
	AUTO_JS struct js *o = js_object();
	js_set_str(o, "method", method);
	agent_send(c->agent, o);
}

void codex_answer(struct codex *c, const struct js *id, struct js *result_taken)
{
	AUTO_JS struct js *o = js_object();
	js_set(o, "id", js_ref(id));
	js_set(o, "result", result_taken);
	agent_send(c->agent, o);
}

void codex_refuse(struct codex *c, const struct js *id, const char *why)
{
	AUTO_JS struct js *o = js_object();
	struct js *error = js_object();
	js_set_int(error, "code", RPC_NO_METHOD);
	js_set_str(error, "message", why);
	js_set(o, "id", js_ref(id));
	js_set(o, "error", error);
	agent_send(c->agent, o);
}

/* The server's queue is emptied between its reading our call and our reading its reply, so the next try is made at once. */
static bool call_again(struct codex *c, struct codex_call *call, const struct js *error)
{
	if (js_i64(error, "code", 0) != RPC_OVERLOADED || ++call->tries >= CODEX_OVERLOAD_TRIES)
		return false;
	call_send(c, call);
	return true;
}

static bool on_reply(struct codex *c, const struct js *line)
{
	int64_t id = js_num(js_get(line, "id"), -1);
	const struct js *error = js_get(line, "error");
	for (size_t i = 0; i < c->call_count; i++) {
		struct codex_call call = c->calls[i];
		if (call.id != id)
			continue;
		if (error && call_again(c, &c->calls[i], error))
			return true;
		c->calls[i] = c->calls[--c->call_count];
		AUTO_FREE char *refused = error ? tell_plain_words(js_str_or(error, "message", "an error without words")) : NULL;
		call.done(c, &call, js_get(line, "result"), refused);
		call_release(&call);
		return true;
	}
	return c->agent->settled && id > 0 && id <= c->last_call; /* to a call that the turn's end overtook */
}

void codex_calls_drop(struct codex *c, const char *why)
{
	while (c->call_count) {
		struct codex_call call = c->calls[--c->call_count];
		if (call.message)
			c->agent->sink.said(c->agent->sink.ctx, call.message, why);
		call_release(&call);
	}
}

/* Threads of agents that our agent started are its own business; their requests are refused, since nobody can tell what they belong to. */
static bool is_foreign(struct codex *c, const struct js *params)
{
	const char *thread = js_str(params, "threadId");
	return thread && c->thread && !str_eq(thread, c->thread);
}

static void tell_foreign(struct codex *c, const char *method, const char *thread)
{
	if (c->foreign_told)
		return;
	c->foreign_told = true;
	AUTO_FREE char *text = mem_printf("%s for another thread, %s: such are not followed", method, thread);
	tell_warning(c->agent, text);
}

static void on_request(struct codex *c, const char *method, const struct js *id, const struct js *params)
{
	const char *why = "Signalbox knows no such request";
	if (is_foreign(c, params)) {
		tell_foreign(c, method, js_str(params, "threadId"));
		why = "Signalbox follows one thread only, and this is another one's";
	} else if (codex_ask(c, method, id, params)) {
		return;
	}
	codex_refuse(c, id, why);
	AUTO_FREE char *text = mem_printf("Codex asked for %s, which was refused: %s", method, why);
	tell_warning(c->agent, text);
}

static bool on_notice(struct codex *c, const char *method, const struct js *params)
{
	if (!is_foreign(c, params))
		return codex_notice(c, method, params);
	tell_foreign(c, method, js_str(params, "threadId"));
	return true;
}

static bool is_id(const struct js *id)
{
	return id && (js_type(id) == JS_INT || js_type(id) == JS_STRING);
}

static bool dispatch(struct codex *c, const struct js *line)
{
	const char *method = js_str(line, "method");
	const struct js *id = js_get(line, "id"), *params = js_get(line, "params");
	if (method && !id)
		return on_notice(c, method, params);
	if (!method || !is_id(id))
		return is_id(id) && on_reply(c, line);
	on_request(c, method, id, params);
	return true;
}

void codex_rpc_line(struct codex *c, const char *line, size_t len)
{
	AUTO_JS struct js *parsed = js_parse(line, len, NULL);
	AUTO_JS struct js *cut = parsed ? NULL : rpc_id_of_cut(line, len);
	if (cut) /* it would wait for ever */
		codex_refuse(c, cut, "the request is longer than Signalbox reads");
	if (!parsed || js_type(parsed) != JS_OBJECT || !dispatch(c, parsed))
		agent_emit_raw(c->agent, line, len);
}
