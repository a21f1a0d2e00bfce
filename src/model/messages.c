/* Reading a Messages request as if it were a Responses request. */
#include "model/messages.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define REMINDER "<system-reminder>"
#define STEERED "The user sent a new message while you were working:\n"

static struct js *item_new(struct js *input, const char *type)
{
	struct js *item = js_object();

	js_set_str(item, "type", type);
	js_push(input, item);
	return item;
}

static void text_add(struct js *content, const char *text, size_t len)
{
	struct js *part = js_object();

	js_set_str(part, "type", "input_text");
	js_set(part, "text", js_string_n(text, len));
	js_push(content, part);
}

/* What a person said while the agent worked comes inside a note. */
static void note_text(struct js *content, const char *text)
{
	const char *said = strstr(text, STEERED), *end;

	if (said == NULL)
		return;
	said += strlen(STEERED);
	end = strstr(said, "\n\n");
	text_add(content, said, end == NULL ? strlen(said) : (size_t)(end - said));
}

static void said_text(struct js *content, const char *text, bool by_system)
{
	if (by_system || str_starts(text, REMINDER))
		note_text(content, text);
	else
		text_add(content, text, strlen(text));
}

static void result_add(struct js *input, const struct js *block)
{
	struct js *item = item_new(input, "function_call_output");
	const struct js *content = js_get(block, "content");

	js_set_str(item, "call_id", js_str_or(block, "tool_use_id", ""));
	js_set(item, "output", content == NULL ? js_string("") : js_ref(content));
}

static void user_add(struct js *input, const struct js *content, bool by_system)
{
	AUTO_JS struct js *said = js_array();
	struct js *item;

	if (js_type(content) == JS_STRING)
		said_text(said, js_text(content), by_system);
	for (size_t i = 0; i < js_len(content); i++) {
		const struct js *block = js_at(content, i);

		if (str_eq(js_str(block, "type"), "tool_result"))
			result_add(input, block);
		else if (js_str(block, "text") != NULL)
			said_text(said, js_str(block, "text"), by_system);
	}
	if (js_len(said) == 0)
		return;
	item = item_new(input, "message");
	js_set_str(item, "role", "user");
	js_set(item, "content", js_ref(said));
}

static void assistant_add(struct js *input, const struct js *content)
{
	struct js *item = item_new(input, "message");

	js_set_str(item, "role", "assistant");
	if (content != NULL)
		js_set(item, "content", js_ref(content));
}

static struct js *tools_of(const struct js *request, const struct js **ret_schema)
{
	const struct js *tools = js_get(request, "tools");
	struct js *list = js_array();

	for (size_t i = 0; i < js_len(tools); i++) {
		const struct js *tool = js_at(tools, i);
		struct js *one = js_object();

		js_set_str(one, "type", "function");
		js_set_str(one, "name", js_str_or(tool, "name", ""));
		js_push(list, one);
		if (str_eq(js_str(tool, "name"), MESSAGES_FINAL_TOOL))
			*ret_schema = js_get(tool, "input_schema");
	}
	return list;
}

static void schema_set(struct js *out, const struct js *schema)
{
	struct js *text = js_object(), *format = js_object();

	js_set_str(format, "type", "json_schema");
	js_set(format, "schema", js_ref(schema));
	js_set(text, "format", format);
	js_set(out, "text", text);
}

static struct js *input_of(const struct js *messages)
{
	struct js *input = js_array();

	for (size_t i = 0; i < js_len(messages); i++) {
		const struct js *one = js_at(messages, i);

		if (str_eq(js_str(one, "role"), "assistant"))
			assistant_add(input, js_get(one, "content"));
		else
			user_add(input, js_get(one, "content"), str_eq(js_str(one, "role"), "system"));
	}
	return input;
}

struct js *messages_to_responses(const struct js *request, struct error *e)
{
	const struct js *messages = js_get(request, "messages");
	const struct js *schema = js_path(request, "output_config.format.schema");
	struct js *out;

	if (js_type(messages) != JS_ARRAY || js_len(messages) > MESSAGES_ITEMS_MAX) {
		(void)error_set(e, ERR_INVALID, "messages: expected a list of at most %d messages", MESSAGES_ITEMS_MAX);
		return NULL;
	}
	out = js_object();
	js_set_str(out, "model", js_str(request, "model"));
	js_set_bool(out, "stream", js_flag(request, "stream", false));
	js_set_str(out, "prompt_cache_key", js_str(js_get(request, "metadata"), "user_id"));
	js_set(out, "input", input_of(messages));
	js_set(out, "tools", tools_of(request, &schema));
	if (schema != NULL)
		schema_set(out, schema);
	return out;
}

struct js *messages_for_record(const struct js *messages)
{
	struct js *list = js_copy(messages);

	for (size_t i = 0; i < js_len(list); i++) {
		struct js *content = js_get(js_at(list, i), "content");

		for (size_t k = 0; k < js_len(content); k++)
			if (js_type(js_at(content, k)) == JS_OBJECT)
				js_del(js_at(content, k), "cache_control");
	}
	return list;
}

static const char *error_type(int status)
{
	static const struct { int status; const char *type; } types[] = {
		{ 400, "invalid_request_error" }, { 401, "authentication_error" }, { 403, "permission_error" }, { 404, "not_found_error" },
		{ 413, "request_too_large" }, { 429, "rate_limit_error" }, { 529, "overloaded_error" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (types[i].status == status)
			return types[i].type;
	return status >= 500 ? "api_error" : "invalid_request_error";
}

struct js *messages_error_body(int status, const char *type, const char *message)
{
	struct js *body = js_object(), *error = js_object();

	js_set_str(error, "type", type != NULL ? type : error_type(status));
	js_set_str(error, "message", message);
	js_set_str(body, "type", "error");
	js_set(body, "error", error);
	return body;
}
