/* Writing a Messages event stream: message_start, a content block for each thing said, message_delta, message_stop. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/sse.h"
#include <string.h>

static struct js *event_new(const char *type)
{
	struct js *ev = js_object();

	js_set_str(ev, "type", type);
	return ev;
}

static void event_send(struct sse *s, struct js *ev_taken)
{
	strbuf_adds(&s->out, "event: ");
	strbuf_adds(&s->out, js_str(ev_taken, "type"));
	strbuf_adds(&s->out, "\ndata: ");
	js_dump_to(ev_taken, &s->out);
	strbuf_adds(&s->out, "\n\n");
	js_free(ev_taken);
}

static void block_event(struct sse *s, const char *type, const char *key, struct js *value_taken)
{
	struct js *ev = event_new(type);

	js_set_int(ev, "index", (int64_t)js_len(js_get(s->response, "content")));
	if (value_taken != NULL)
		js_set(ev, key, value_taken);
	event_send(s, ev);
}

static void deltas(struct sse *s, const char *type, const char *key, const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		size_t n = sse_piece(text, len);
		struct js *delta = js_object();

		js_set_str(delta, "type", type);
		js_set(delta, key, js_string_n(text, n));
		block_event(s, "content_block_delta", "delta", delta);
		text += n;
		len -= n;
	}
}

/* A block that carries a text under `key`. */
static void text_block(struct sse *s, const char *type, const char *key, const char *delta_type, const char *text)
{
	struct js *block = event_new(type);

	js_set_str(block, key, "");
	block_event(s, "content_block_start", "content_block", js_copy(block));
	deltas(s, delta_type, key, text);
	block_event(s, "content_block_stop", NULL, NULL);
	js_set_str(block, key, text);
	js_push(js_get(s->response, "content"), block);
}

static void messages_message(struct sse *s, const char *text)
{
	text_block(s, "text", "text", "text_delta", text);
}

static void messages_refusal(struct sse *s, const char *text)
{
	messages_message(s, text);
	js_set_str(s->response, "stop_reason", "refusal");
}

/* Thinking is signed by its maker; who gets it back does not look inside. */
static void messages_reasoning(struct sse *s, const char *text)
{
	struct js *block = event_new("thinking"), *delta = event_new("signature_delta");

	js_set_str(block, "thinking", "");
	js_set_str(block, "signature", "");
	block_event(s, "content_block_start", "content_block", js_copy(block));
	deltas(s, "thinking_delta", "thinking", text);
	js_set_str(delta, "signature", "scripted");
	block_event(s, "content_block_delta", "delta", delta);
	block_event(s, "content_block_stop", NULL, NULL);
	js_set_str(block, "thinking", text);
	js_set_str(block, "signature", "scripted");
	js_push(js_get(s->response, "content"), block);
}

static void messages_call(struct sse *s, struct js *item_taken)
{
	struct js *block = event_new("tool_use");
	const char *text = js_str_or(item_taken, "arguments", "{}");
	struct js *input = js_parse(text, strlen(text), NULL);

	js_set_str(block, "id", js_str(item_taken, "call_id"));
	js_set_str(block, "name", js_str(item_taken, "name"));
	js_set(block, "input", js_object());
	block_event(s, "content_block_start", "content_block", js_copy(block));
	deltas(s, "input_json_delta", "partial_json", text);
	block_event(s, "content_block_stop", NULL, NULL);
	js_set(block, "input", input != NULL ? input : js_object());
	js_push(js_get(s->response, "content"), block);
	js_set_str(s->response, "stop_reason", "tool_use");
	js_free(item_taken);
}

/* Cached tokens are no part of input_tokens here. */
static struct js *usage_of(const struct js *u)
{
	struct js *o = js_object();
	int64_t cached = js_i64(js_get(u, "input_tokens_details"), "cached_tokens", 0);

	js_set_int(o, "input_tokens", js_i64(u, "input_tokens", 0) - cached);
	js_set_int(o, "cache_creation_input_tokens", 0);
	js_set_int(o, "cache_read_input_tokens", cached);
	js_set_int(o, "output_tokens", js_i64(u, "output_tokens", 0));
	return o;
}

static void messages_created(struct sse *s, const char *model, const struct js *usage)
{
	struct js *ev = event_new("message_start"), *told = usage_of(usage);
	char id[ID_SIZE];
	AUTO_FREE char *full = NULL;

	clock_new_id(id);
	full = mem_printf("msg_%s", id);
	js_set_str(s->response, "id", full);
	js_set_str(s->response, "type", "message");
	js_set_str(s->response, "role", "assistant");
	js_set_str(s->response, "model", model);
	js_set(s->response, "content", js_array());
	js_set(s->response, "stop_reason", js_null());
	js_set(s->response, "stop_sequence", js_null());
	js_set_int(told, "output_tokens", 1);
	js_set(s->response, "usage", told);
	js_set(ev, "message", js_copy(s->response));
	event_send(s, ev);
	event_send(s, event_new("ping"));
}

static void messages_completed(struct sse *s, struct js *usage_taken)
{
	struct js *ev = event_new("message_delta"), *delta = js_object();

	if (js_str(s->response, "stop_reason") == NULL)
		js_set_str(s->response, "stop_reason", "end_turn");
	js_set(s->response, "usage", usage_of(usage_taken));
	js_free(usage_taken);
	js_set_str(delta, "stop_reason", js_str(s->response, "stop_reason"));
	js_set(delta, "stop_sequence", js_null());
	js_set(ev, "delta", delta);
	js_set(ev, "usage", js_copy(js_get(s->response, "usage")));
	event_send(s, ev);
	event_send(s, event_new("message_stop"));
}

const struct sse_wire sse_wire_messages = {
	.created = messages_created,
	.message = messages_message,
	.refusal = messages_refusal,
	.reasoning = messages_reasoning,
	.call = messages_call,
	.completed = messages_completed,
};
