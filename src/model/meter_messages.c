/* The meter's ear for the Messages API: usage comes in two parts, and what was said in deltas. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/meter.h"
#include <string.h>

static void count_set(int64_t *at, const struct js *o, const char *key)
{
	int64_t n = js_i64(o, key, -1);

	if (n >= 0)
		*at = n;
}

/* message_start tells the input, message_delta the output so far and sometimes all again: the last word counts. Input here is all of it,
 * as in the other API; there the cached part is counted within. */
static void take_usage(struct meter *m, const struct js *u)
{
	int64_t fresh = m->usage.input_tokens - m->usage.cached_input_tokens - m->usage.cache_write_input_tokens;

	if (js_type(u) != JS_OBJECT)
		return;
	m->has_usage = true;
	count_set(&fresh, u, "input_tokens");
	count_set(&m->usage.cached_input_tokens, u, "cache_read_input_tokens");
	count_set(&m->usage.cache_write_input_tokens, u, "cache_creation_input_tokens");
	count_set(&m->usage.output_tokens, u, "output_tokens");
	count_set(&m->usage.reasoning_output_tokens, js_get(u, "output_tokens_details"), "thinking_tokens");
	m->usage.input_tokens = fresh + m->usage.cached_input_tokens + m->usage.cache_write_input_tokens;
	m->usage.total_tokens = m->usage.input_tokens + m->usage.output_tokens;
}

static void block_begin(struct meter *m, const struct js *block)
{
	js_free(m->block);
	m->block = js_type(block) == JS_OBJECT ? js_copy(block) : js_object();
	strbuf_reset(&m->block_text);
}

static void block_add(struct meter *m, const struct js *delta)
{
	static const char *const keys[] = { "text", "partial_json", "thinking" };

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (js_str(delta, keys[i]) != NULL)
			strbuf_adds(&m->block_text, js_str(delta, keys[i]));
}

static void block_end(struct meter *m)
{
	const char *type = js_str_or(m->block, "type", "");
	struct js *input;

	if (m->block == NULL)
		return;
	if (m->scrub != NULL && m->block_text.over) { /* what is cut off must not leave the half of a secret */
		scrub_text(m->scrub, &m->block_text);
		scrub_cut_end(m->scrub, &m->block_text);
	}
	if (str_ends(type, "tool_use")) {
		input = js_parse(strbuf_str(&m->block_text), m->block_text.len, NULL);
		js_set(m->block, "input", input != NULL ? input : js_string(strbuf_str(&m->block_text)));
	} else if (m->block_text.len > 0) {
		js_set_str(m->block, str_eq(type, "thinking") ? "thinking" : "text", strbuf_str(&m->block_text));
	}
	meter_take_item(m, m->block);
	js_free(m->block);
	m->block = NULL;
}

static void take_message(struct meter *m, const struct js *message)
{
	const struct js *content = js_get(message, "content");

	take_usage(m, js_get(message, "usage"));
	for (size_t i = 0; i < js_len(content); i++)
		meter_take_item(m, js_at(content, i));
}

bool meter_take_messages(struct meter *m, const struct js *event)
{
	const char *type = js_str_or(event, "type", "");

	if (str_eq(type, "message_start"))
		take_usage(m, js_path(event, "message.usage"));
	else if (str_eq(type, "content_block_start"))
		block_begin(m, js_get(event, "content_block"));
	else if (str_eq(type, "content_block_delta"))
		block_add(m, js_get(event, "delta"));
	else if (str_eq(type, "content_block_stop"))
		block_end(m);
	else if (str_eq(type, "message_delta"))
		take_usage(m, js_get(event, "usage"));
	else if (str_eq(type, "message_stop"))
		m->completed = true;
	else if (str_eq(type, "message"))
		take_message(m, event);
	else
		return false;
	return true;
}
