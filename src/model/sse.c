/* Writing a Responses event stream, and the door to the other wires. */
#include "model/sse.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

static void set_new_id(struct js *o, const char *prefix)
{
	char id[ID_SIZE];
	AUTO_FREE char *full = NULL;

	clock_new_id(id);
	full = mem_printf("%s_%s", prefix, id);
	js_set_str(o, "id", full);
}

void sse_init(struct sse *s, const struct sse_wire *wire)
{
	memset(s, 0, sizeof(*s));
	s->wire = wire;
	s->response = js_object();
}

void sse_release(struct sse *s)
{
	strbuf_release(&s->out);
	js_free(s->response);
	s->response = NULL;
}

static struct js *event_new(struct sse *s, const char *type)
{
	struct js *ev = js_object();

	js_set_str(ev, "type", type);
	js_set_int(ev, "sequence_number", s->sequence++);
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

static void response_event(struct sse *s, const char *type)
{
	struct js *ev = event_new(s, type);

	js_set(ev, "response", js_copy(s->response));
	event_send(s, ev);
}

static void responses_created(struct sse *s, const char *model, UNUSED const struct js *usage)
{
	set_new_id(s->response, "resp");
	js_set_str(s->response, "object", "response");
	js_set_int(s->response, "created_at", clock_wall_ms() / 1000);
	js_set_str(s->response, "status", "in_progress");
	js_set_str(s->response, "model", model);
	js_set(s->response, "output", js_array());
	response_event(s, "response.created");
	response_event(s, "response.in_progress");
}

static int64_t output_index(const struct sse *s)
{
	return (int64_t)js_len(js_get(s->response, "output"));
}

static void item_event(struct sse *s, const char *type, const struct js *item)
{
	struct js *ev = event_new(s, type);

	js_set_int(ev, "output_index", output_index(s));
	js_set(ev, "item", js_copy(item));
	event_send(s, ev);
}

/* An event about a part of an item: "delta", "text" or "part" and its value. */
static void part_event(struct sse *s, const char *type, const struct js *item, const char *index_name, const char *key, struct js *value_taken)
{
	struct js *ev = event_new(s, type);

	js_set_str(ev, "item_id", js_str(item, "id"));
	js_set_int(ev, "output_index", output_index(s));
	if (index_name != NULL)
		js_set_int(ev, index_name, 0);
	js_set(ev, key, value_taken);
	event_send(s, ev);
}

size_t sse_piece(const char *text, size_t len)
{
	size_t n = len < SSE_DELTA_BYTES ? len : SSE_DELTA_BYTES;

	while (n < len && ((unsigned char)text[n] & 0xC0) == 0x80)
		n++;
	return n;
}

static void text_deltas(struct sse *s, const char *type, const struct js *item, const char *index_name, const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		size_t n = sse_piece(text, len);

		part_event(s, type, item, index_name, "delta", js_string_n(text, n));
		text += n;
		len -= n;
	}
}

static struct js *part_new(const char *type, const char *key, const char *text)
{
	struct js *part = js_object();

	js_set_str(part, "type", type);
	js_set_str(part, key, text);
	if (str_eq(type, "output_text"))
		js_set(part, "annotations", js_array());
	return part;
}

static struct js *item_new(const char *type, const char *prefix, const char *list)
{
	struct js *item = js_object();

	js_set_str(item, "type", type);
	set_new_id(item, prefix);
	js_set(item, list, js_array());
	return item;
}

static void item_done(struct sse *s, struct js *item_taken)
{
	item_event(s, "response.output_item.done", item_taken);
	js_push(js_get(s->response, "output"), item_taken);
}

static void message_of(struct sse *s, const char *text, const char *part_type, const char *key, const char *delta_type, const char *done_type)
{
	struct js *item = item_new("message", "msg", "content");

	js_set_str(item, "role", "assistant");
	js_set_str(item, "status", "in_progress");
	item_event(s, "response.output_item.added", item);
	part_event(s, "response.content_part.added", item, "content_index", "part", part_new(part_type, key, ""));
	text_deltas(s, delta_type, item, "content_index", text);
	part_event(s, done_type, item, "content_index", key, js_string(text));
	part_event(s, "response.content_part.done", item, "content_index", "part", part_new(part_type, key, text));
	js_push(js_get(item, "content"), part_new(part_type, key, text));
	js_set_str(item, "status", "completed");
	item_done(s, item);
}

static void responses_message(struct sse *s, const char *text)
{
	message_of(s, text, "output_text", "text", "response.output_text.delta", "response.output_text.done");
}

static void responses_refusal(struct sse *s, const char *text)
{
	message_of(s, text, "refusal", "refusal", "response.refusal.delta", "response.refusal.done");
}

static void responses_reasoning(struct sse *s, const char *text)
{
	struct js *item = item_new("reasoning", "rs", "summary");

	item_event(s, "response.output_item.added", item);
	part_event(s, "response.reasoning_summary_part.added", item, "summary_index", "part", part_new("summary_text", "text", ""));
	text_deltas(s, "response.reasoning_summary_text.delta", item, "summary_index", text);
	part_event(s, "response.reasoning_summary_text.done", item, "summary_index", "text", js_string(text));
	part_event(s, "response.reasoning_summary_part.done", item, "summary_index", "part", part_new("summary_text", "text", text));
	js_push(js_get(item, "summary"), part_new("summary_text", "text", text));
	item_done(s, item);
}

/* What a kind of call carries its text in, and the events that stream it. */
static const struct call_kind {
	const char *type, *prefix, *member, *delta, *done;
} call_kinds[] = {
	{ "function_call", "fc", "arguments", "response.function_call_arguments.delta", "response.function_call_arguments.done" },
	{ "custom_tool_call", "ctc", "input", "response.custom_tool_call_input.delta", "response.custom_tool_call_input.done" },
	{ "local_shell_call", "lsh", NULL, NULL, NULL },
};

static void call_stream(struct sse *s, const struct call_kind *k, struct js *item)
{
	AUTO_JS struct js *started = js_copy(item);
	const char *text = k->member == NULL ? NULL : js_str(item, k->member);

	js_set_str(started, "status", "in_progress");
	if (k->member != NULL)
		js_set_str(started, k->member, "");
	item_event(s, "response.output_item.added", started);
	if (text == NULL)
		return;
	text_deltas(s, k->delta, item, NULL, text);
	part_event(s, k->done, item, NULL, k->member, js_string(text));
}

static void responses_call(struct sse *s, struct js *item_taken)
{
	for (size_t i = 0; i < ARRAY_SIZE(call_kinds); i++) {
		if (!str_eq(js_str(item_taken, "type"), call_kinds[i].type))
			continue;
		set_new_id(item_taken, call_kinds[i].prefix);
		js_set_str(item_taken, "status", "completed");
		call_stream(s, &call_kinds[i], item_taken);
	}
	item_done(s, item_taken);
}

static void responses_completed(struct sse *s, struct js *usage_taken)
{
	js_set_str(s->response, "status", "completed");
	js_set(s->response, "usage", usage_taken);
	response_event(s, "response.completed");
}

const struct sse_wire sse_wire_responses = {
	.created = responses_created,
	.message = responses_message,
	.refusal = responses_refusal,
	.reasoning = responses_reasoning,
	.call = responses_call,
	.completed = responses_completed,
};

void sse_created(struct sse *s, const char *model, const struct js *usage)
{
	s->wire->created(s, model, usage);
}

void sse_message(struct sse *s, const char *text)
{
	s->wire->message(s, text);
}

void sse_refusal(struct sse *s, const char *text)
{
	s->wire->refusal(s, text);
}

void sse_reasoning(struct sse *s, const char *text)
{
	s->wire->reasoning(s, text);
}

void sse_call(struct sse *s, struct js *item_taken)
{
	s->wire->call(s, item_taken);
}

void sse_completed(struct sse *s, struct js *usage_taken)
{
	s->wire->completed(s, usage_taken);
}
