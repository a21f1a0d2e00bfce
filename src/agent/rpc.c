/* Lines, ids and replies. */
#include "agent/rpc.h"
#include "agent/tell.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <ctype.h>
#include <string.h>

#define HEAD_BYTES 512 /* of a line that is too long to be read: its id is looked for there */

static struct js *message_new(const struct rpc *r, const struct js *id)
{
	struct js *o = js_object();
	if (!r->bare)
		js_set_str(o, "jsonrpc", "2.0");
	if (id)
		js_set(o, "id", js_ref(id));
	return o;
}

/* id 0: nobody replies. */
static void send_call(struct rpc *r, int64_t id, const char *method, const struct js *params)
{
	AUTO_JS struct js *number = js_int(id);
	AUTO_JS struct js *o = message_new(r, id ? number : NULL);
	js_set_str(o, "method", method);
	if (params)
		js_set(o, "params", js_ref(params));
	agent_send(r->agent, o);
}

static void call_release(struct rpc_call *call)
{
	js_free(call->params);
	free(call->message);
}

void rpc_call(struct rpc *r, const char *method, struct js *params_taken, rpc_done *done, const char *message)
{
	AUTO_JS struct js *params = params_taken;
	struct rpc_call call = { .id = ++r->last, .method = method, .done = done, .message = mem_strdup(message) };
	if (r->count == RPC_CALLS_MAX) {
		done(r->agent, &call, NULL, "too many calls wait for the agent's reply", 0);
		call_release(&call);
		return;
	}
	call.params = r->busy_code ? js_ref(params) : NULL;
	r->calls[r->count++] = call;
	send_call(r, call.id, method, params);
}

void rpc_notify(struct rpc *r, const char *method, struct js *params_taken)
{
	AUTO_JS struct js *params = params_taken;
	send_call(r, 0, method, params);
}

void rpc_answer(struct rpc *r, const struct js *id, struct js *result_taken)
{
	AUTO_JS struct js *o = message_new(r, id);
	js_set(o, "result", result_taken);
	agent_send(r->agent, o);
}

void rpc_refuse(struct rpc *r, const struct js *id, int code, const char *why)
{
	AUTO_JS struct js *o = message_new(r, id);
	struct js *error = js_object();
	js_set_int(error, "code", code);
	js_set_str(error, "message", why);
	js_set(o, "error", error);
	agent_send(r->agent, o);
}

static char *words_of(const struct js *error)
{
	const char *details = js_text(js_get(error, "data")) ? js_text(js_get(error, "data")) : js_str(js_get(error, "data"), "details");
	return tell_plain_words(!str_empty(details) ? details : js_str_or(error, "message", "an error without words"));
}

/* The queue is emptied between the other side's reading our call and our reading its reply, so the next try is made at once. */
static bool call_again(struct rpc *r, struct rpc_call *call, const struct js *error)
{
	if (!r->busy_code || js_i64(error, "code", 0) != r->busy_code || ++call->tries >= RPC_BUSY_TRIES)
		return false;
	send_call(r, call->id, call->method, call->params);
	return true;
}

static bool on_reply(struct rpc *r, const struct js *line)
{
	int64_t id = js_num(js_get(line, "id"), -1);
	const struct js *error = js_get(line, "error");
	bool refused = error && js_type(error) != JS_NULL;
	for (size_t i = 0; i < r->count; i++) {
		struct rpc_call call = r->calls[i];
		if (call.id != id)
			continue;
		if (refused && call_again(r, &r->calls[i], error))
			return true;
		r->calls[i] = r->calls[--r->count];
		AUTO_FREE char *words = refused ? words_of(error) : NULL;
		call.done(r->agent, &call, js_get(line, "result"), words, js_i64(error, "code", 0));
		call_release(&call);
		return true;
	}
	return r->agent->settled && id > 0 && id <= r->last; /* to a call that the turn's end overtook */
}

void rpc_drop(struct rpc *r, const char *why)
{
	while (r->count) {
		struct rpc_call call = r->calls[--r->count];
		if (call.message)
			r->agent->sink.said(r->agent->sink.ctx, call.message, why);
		call_release(&call);
	}
}

void rpc_release(struct rpc *r)
{
	while (r->count)
		call_release(&r->calls[--r->count]);
}

static bool is_id(const struct js *id)
{
	return id && (js_type(id) == JS_INT || js_type(id) == JS_STRING);
}

static bool dispatch(struct rpc *r, const struct js *line)
{
	const char *method = js_str(line, "method");
	const struct js *id = js_get(line, "id"), *params = js_get(line, "params");
	if (method && !id)
		return r->notice(r->agent, method, params);
	if (!method || !is_id(id))
		return is_id(id) && on_reply(r, line);
	if (!r->request(r->agent, method, id, params))
		rpc_refuse(r, id, RPC_NO_METHOD, "Signalbox knows no such request");
	return true;
}

/* The id in the head of a request that is cut; NULL: none. */
static struct js *id_in(const char *head)
{
	const char *at = strstr(head, "\"id\":");
	char *end = NULL;
	if (!at || !strstr(head, "\"method\":"))
		return NULL;
	for (at += strlen("\"id\":"); isspace((unsigned char)*at);)
		at++;
	if (*at == '"')
		return js_string_n(at + 1, strcspn(at + 1, "\"\\"));
	long long number = strtoll(at, &end, 10);
	return end == at ? NULL : js_int(number);
}

/* A request that is too long to be read would wait for ever. */
static void refuse_cut(struct rpc *r, const char *line, size_t len)
{
	AUTO_FREE char *head = mem_strndup(line, len < HEAD_BYTES ? len : HEAD_BYTES);
	AUTO_JS struct js *id = len >= AGENT_LINE_MAX ? id_in(head) : NULL;
	if (id)
		rpc_refuse(r, id, RPC_BAD_REQUEST, "the request is longer than Signalbox reads");
}

void rpc_line(struct rpc *r, const char *line, size_t len)
{
	AUTO_JS struct js *parsed = js_parse(line, len, NULL);
	if (!parsed)
		refuse_cut(r, line, len);
	if (!parsed || js_type(parsed) != JS_OBJECT || !dispatch(r, parsed))
		agent_emit_raw(r->agent, line, len);
}
