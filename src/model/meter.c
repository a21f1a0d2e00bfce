/* The meter: an incremental, bounded reader of Responses and Messages replies (SSE, or one JSON object). */
#include "model/meter.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define METER_KEEP_CAPACITY ((size_t)16 << 10) /* a buffer larger than this is given back after its event */

void meter_init(struct meter *m, bool sse)
{
	memset(m, 0, sizeof(*m));
	m->sse = sse;
	m->output = js_array();
	m->event.max = METER_EVENT_MAX;
	m->block_text.max = METER_ITEM_MAX;
	line_init(&m->lines, METER_EVENT_MAX);
}

void meter_release(struct meter *m)
{
	js_free(m->output);
	free(m->error);
	line_release(&m->lines);
	strbuf_release(&m->event);
	js_free(m->block);
	strbuf_release(&m->block_text);
	m->block = NULL;
	m->output = NULL;
	m->error = NULL;
}

/* Characters are cut at a code point's start, so that the head stays valid UTF-8. */
static size_t utf8_floor(const char *s, size_t n)
{
	while (n > 0 && ((unsigned char)s[n] & 0xC0) == 0x80)
		n--;
	return n;
}

struct js *item_cut(const struct js *item, size_t max)
{
	static const char *const kept[] = { "type", "role", "name", "call_id", "id", "status" };
	AUTO_FREE char *text = js_dump(item);
	size_t full = strlen(text);
	struct js *cut;

	if (full <= max)
		return js_copy(item);
	cut = js_object();
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		const char *v = js_str(item, kept[i]);

		if (v != NULL && strlen(v) <= 256)
			js_set_str(cut, kept[i], v);
	}
	/* A quoted head can grow by escapes; half of the room is what is safe to keep readable. */
	js_set(cut, "head", js_string_n(text, utf8_floor(text, max / 2)));
	js_set_int(cut, "truncated", (int64_t)full);
	return cut;
}

struct js *usage_to_js(const struct usage *u)
{
	struct js *o = js_object();

	js_set_int(o, "input_tokens", u->input_tokens);
	js_set_int(o, "cached_input_tokens", u->cached_input_tokens);
	if (u->cache_write_input_tokens > 0)
		js_set_int(o, "cache_write_input_tokens", u->cache_write_input_tokens);
	js_set_int(o, "output_tokens", u->output_tokens);
	js_set_int(o, "reasoning_output_tokens", u->reasoning_output_tokens);
	js_set_int(o, "total_tokens", u->total_tokens);
	return o;
}

static int64_t count_of(const struct js *o, const char *key)
{
	int64_t n = js_i64(o, key, 0);

	return n < 0 ? 0 : n;
}

static void meter_take_usage(struct meter *m, const struct js *u)
{
	if (js_type(u) != JS_OBJECT)
		return;
	m->has_usage = true;
	m->usage.input_tokens = count_of(u, "input_tokens");
	m->usage.output_tokens = count_of(u, "output_tokens");
	m->usage.cached_input_tokens = count_of(js_get(u, "input_tokens_details"), "cached_tokens");
	m->usage.reasoning_output_tokens = count_of(js_get(u, "output_tokens_details"), "reasoning_tokens");
	m->usage.total_tokens = count_of(u, "total_tokens");
	if (m->usage.total_tokens == 0)
		m->usage.total_tokens = m->usage.input_tokens + m->usage.output_tokens;
}

void meter_take_item(struct meter *m, const struct js *item)
{
	AUTO_JS struct js *clean = m->scrub != NULL ? scrub_js(m->scrub, item) : js_ref(item);
	struct js *kept;
	AUTO_FREE char *text = NULL;

	if (js_type(item) != JS_OBJECT)
		return;
	kept = item_cut(clean, METER_ITEM_MAX);
	text = js_dump(kept);
	if (m->output_bytes + strlen(text) > METER_OUTPUT_MAX) {
		m->overflow = true;
		js_free(kept);
		return;
	}
	m->output_bytes += strlen(text);
	js_push(m->output, kept);
}

void meter_take_error(struct meter *m, const struct js *error, const char *otherwise)
{
	AUTO_JS struct js *clean = m->scrub != NULL ? scrub_js(m->scrub, error) : js_ref(error);
	const char *text = js_str_or(clean, "message", js_str_or(clean, "code", otherwise));

	if (m->error != NULL || str_empty(text))
		return;
	m->error = mem_strndup(text, strlen(text) <= METER_ERROR_MAX ? strlen(text) : utf8_floor(text, METER_ERROR_MAX));
}

/* A whole response object: that of response.completed and its kin, or a plain reply. */
static void meter_take_response(struct meter *m, const struct js *r)
{
	const struct js *output = js_get(r, "output");
	const char *status = js_str_or(r, "status", "completed");

	meter_take_usage(m, js_get(r, "usage"));
	if (js_len(m->output) == 0)
		for (size_t i = 0; i < js_len(output); i++)
			meter_take_item(m, js_at(output, i));
	if (js_type(js_get(r, "error")) == JS_OBJECT)
		meter_take_error(m, js_get(r, "error"), "the model reported an error");
	else if (str_eq(status, "incomplete"))
		meter_take_error(m, NULL, js_str_or(js_get(r, "incomplete_details"), "reason", "the model's answer is incomplete"));
}

static void meter_take_event(struct meter *m, const struct js *ev)
{
	const char *type = js_str_or(ev, "type", "");

	if (meter_take_messages(m, ev))
		return;
	if (str_eq(type, "response.output_item.done")) {
		meter_take_item(m, js_get(ev, "item"));
	} else if (str_eq(type, "response.completed") || str_eq(type, "response.incomplete")) {
		m->completed = true;
		meter_take_response(m, js_get(ev, "response"));
	} else if (str_eq(type, "response.failed")) {
		meter_take_response(m, js_get(ev, "response"));
		meter_take_error(m, NULL, "the model reported a failure");
	} else if (str_eq(type, "error")) {
		meter_take_error(m, js_type(js_get(ev, "error")) == JS_OBJECT ? js_get(ev, "error") : ev, "the model reported an error");
	}
}

/* Deltas are by far the most; they are not worth parsing. */
static bool event_is_wanted(const char *data, size_t n)
{
	static const char *const types[] = { "response.output_item.done", "response.completed", "response.incomplete", "response.failed", "\"error\"",
		"\"message_", "\"content_block_" };

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (memmem(data, n, types[i], strlen(types[i])) != NULL)
			return true;
	return false;
}

static void meter_end_event(struct meter *m)
{
	if (m->event.over)
		m->overflow = true;
	else if (m->event.len > 0 && event_is_wanted(m->event.data, m->event.len)) {
		AUTO_JS struct js *ev = js_parse(m->event.data, m->event.len, NULL);

		if (ev != NULL)
			meter_take_event(m, ev);
	}
	if (m->event.cap > METER_KEEP_CAPACITY) {
		strbuf_release(&m->event);
		m->event.max = METER_EVENT_MAX;
	}
	strbuf_reset(&m->event);
}

static void meter_line(void *ctx, const char *line, size_t len, size_t full_len)
{
	struct meter *m = ctx;

	if (len > 0 && line[len - 1] == '\r')
		len--;
	if (len == 0) {
		meter_end_event(m);
		return;
	}
	if (len < 5 || memcmp(line, "data:", 5) != 0)
		return;
	if (full_len > len + 1)
		m->overflow = true;
	line += 5;
	len -= 5;
	if (len > 0 && *line == ' ') {
		line++;
		len--;
	}
	if (m->event.len > 0)
		strbuf_addc(&m->event, '\n');
	strbuf_add(&m->event, line, len);
}

void meter_feed(struct meter *m, const char *data, size_t n)
{
	if (m->sse)
		line_feed(&m->lines, data, n, meter_line, m);
	else
		strbuf_add(&m->event, data, n);
}

void meter_finish(struct meter *m)
{
	if (m->sse) {
		line_finish(&m->lines, meter_line, m);
		meter_end_event(m);
	} else if (!m->event.over && m->event.len > 0) {
		AUTO_JS struct js *r = js_parse(m->event.data, m->event.len, NULL);

		if (js_type(r) == JS_OBJECT) {
			m->completed = js_type(js_get(r, "error")) != JS_OBJECT;
			if (!meter_take_messages(m, r))
				meter_take_response(m, r);
		}
	}
	strbuf_release(&m->event);
	m->event.max = METER_EVENT_MAX;
}
