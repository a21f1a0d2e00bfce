/* Reading a Responses request the way the scripted model needs it. */
#include "model/turn.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/messages.h"
#include <string.h>

#define TOOL_DEPTH_MAX 4

static void text_add_content(struct strbuf *out, const struct js *content)
{
	if (js_type(content) == JS_STRING) {
		strbuf_adds(out, js_text(content));
		return;
	}
	for (size_t i = 0; i < js_len(content); i++) {
		const char *text = js_str(js_at(content, i), "text");

		if (text == NULL)
			continue;
		if (out->len > 0)
			strbuf_addc(out, '\n');
		strbuf_adds(out, text);
	}
}

/* Agents put their own notes into the user's mouth; those are no prompts. */
static bool text_is_context(const char *text)
{
	static const char *const starts[] = { "<environment_context", "<user_instructions", "<turn_aborted", "<skill", "<permissions", "# AGENTS.md instructions",
		"[Request interrupted by user" };

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
		if (str_starts(text, starts[i]))
			return true;
	return false;
}

static bool item_is_user_message(const struct js *item)
{
	return str_eq(js_str(item, "role"), "user") && str_eq(js_str_or(item, "type", "message"), "message");
}

static void turn_find_prompt(struct turn *t, const struct js *input)
{
	for (size_t i = js_len(input); i-- > 0;) {
		AUTO_STRBUF struct strbuf text = STRBUF_INIT;

		if (!item_is_user_message(js_at(input, i)))
			continue;
		text_add_content(&text, js_get(js_at(input, i), "content"));
		if (text_is_context(strbuf_str(&text)))
			continue;
		t->prompt = strbuf_detach(&text);
		t->prompt_index = i;
		return;
	}
}

static bool item_is_tool_output(const struct js *item)
{
	return str_ends(js_str_or(item, "type", ""), "call_output");
}

/* One call may give several outputs (notifications); it is one step all the same. */
static bool call_was_seen(const struct js *input, size_t from, size_t to, const char *call_id)
{
	for (size_t i = from; i < to; i++)
		if (item_is_tool_output(js_at(input, i)) && str_eq(js_str(js_at(input, i), "call_id"), call_id))
			return true;
	return false;
}

static bool item_is_poll(const struct js *item)
{
	return str_starts(js_str_or(item, "call_id", ""), TURN_POLL_PREFIX);
}

/* The number behind the words an agent uses for a command that is still running. */
static int64_t running_session(const char *text)
{
	static const char *const marks[] = { "Process running with session ID ", "\"session_id\":" };

	for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
		const char *mark = strstr(text, marks[i]);

		if (mark != NULL)
			return strtoll(mark + strlen(marks[i]), NULL, 10);
	}
	return -1;
}

static void turn_take_output(struct turn *t, const struct js *item)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(TURN_OUTPUT_TEXT_MAX);
	AUTO_STRBUF struct strbuf all = STRBUF_LIMIT(TURN_OUTPUT_TEXT_MAX);
	const struct js *output = js_get(item, "output");

	if (js_type(output) == JS_OBJECT)
		js_dump_to(output, &text);
	else
		text_add_content(&text, output);
	t->running_session = running_session(strbuf_str(&text));
	if (item_is_poll(item) && t->last_output != NULL) /* more of the same command's output */
		strbuf_adds(&all, t->last_output);
	strbuf_add(&all, strbuf_str(&text), text.len);
	free(t->last_output);
	t->last_output = strbuf_detach(&all);
}

static void turn_count(struct turn *t, const struct js *input)
{
	size_t from = t->prompt_index + 1;

	for (size_t i = from; i < js_len(input); i++) {
		const struct js *item = js_at(input, i);

		if (!item_is_tool_output(item))
			continue;
		if (str_starts(js_str_or(item, "call_id", ""), TURN_FINAL_PREFIX)) {
			t->final_given = true;
			continue;
		}
		if (!item_is_poll(item) && !call_was_seen(input, from, i, js_str_or(item, "call_id", "")))
			t->position++;
		turn_take_output(t, item);
	}
}

static void tools_flatten(struct js *ret, const struct js *tools, const char *space, int depth)
{
	for (size_t i = 0; i < js_len(tools); i++) {
		const struct js *tool = js_at(tools, i);

		if (js_type(js_get(tool, "tools")) == JS_ARRAY && depth < TOOL_DEPTH_MAX) {
			tools_flatten(ret, js_get(tool, "tools"), js_str(tool, "name"), depth + 1);
			continue;
		}
		struct js *flat = js_object();

		js_set_str(flat, "type", js_str_or(tool, "type", ""));
		js_set_str(flat, "name", js_str_or(tool, "name", js_str_or(js_get(tool, "function"), "name", "")));
		js_set_str(flat, "namespace", space);
		js_push(ret, flat);
	}
}

/* Newer agents send their tools as an item of the input. */
static void turn_find_tools(struct turn *t, const struct js *input)
{
	t->tools = js_array();
	tools_flatten(t->tools, js_get(t->request, "tools"), NULL, 0);
	for (size_t i = 0; i < js_len(input); i++)
		if (str_eq(js_str(js_at(input, i), "type"), "additional_tools"))
			tools_flatten(t->tools, js_get(js_at(input, i), "tools"), NULL, 0);
}

enum err_code turn_read(const struct js *request, struct turn *ret, struct error *e)
{
	AUTO_TURN struct turn t = { .request = request, .running_session = -1 };
	const struct js *input = js_get(request, "input");
	const struct js *format = js_path(request, "text.format");

	t.model = js_str_or(request, "model", "scripted");
	t.stream = js_flag(request, "stream", false);
	if (js_type(input) == JS_STRING)
		t.prompt = mem_strdup(js_text(input));
	else if (js_type(input) == JS_ARRAY && js_len(input) <= TURN_INPUT_ITEMS_MAX)
		turn_find_prompt(&t, input);
	else
		return error_set(e, ERR_INVALID, "input: expected a text or a list of at most %d items", TURN_INPUT_ITEMS_MAX);
	if (t.prompt == NULL)
		return error_set(e, ERR_INVALID, "input: there is no message of a user");
	turn_count(&t, input);
	turn_find_tools(&t, input);
	if (str_eq(js_str(format, "type"), "json_schema"))
		t.schema = js_get(format, "schema");
	if (t.last_output == NULL)
		t.last_output = mem_strdup("");
	*ret = t;
	memset(&t, 0, sizeof(t));
	return ERR_OK;
}

/* Agents tell their model where they work, each in words of its own. */
static char *directory_in(const char *text)
{
	static const char *const marks[] = { "orking directory: ", "<cwd>" };

	for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
		const char *at = text == NULL ? NULL : strstr(text, marks[i]);

		if (at == NULL)
			continue;
		at += strlen(marks[i]);
		return mem_strndup(at, strcspn(at, "\n<"));
	}
	return NULL;
}

static char *directory_of_content(const struct js *content)
{
	char *found = directory_in(js_text(content));

	for (size_t i = 0; i < js_len(content) && found == NULL; i++)
		found = directory_in(js_str(js_at(content, i), "text"));
	return found;
}

/* In the system prompt, or in a message of that role. */
static char *directory_of(const struct js *request)
{
	const struct js *messages = js_get(request, "messages");
	char *found = directory_of_content(js_get(request, "system"));

	for (size_t i = 0; i < js_len(messages) && found == NULL; i++)
		if (!str_eq(js_str(js_at(messages, i), "role"), "assistant"))
			found = directory_of_content(js_get(js_at(messages, i), "content"));
	return found;
}

enum err_code turn_read_messages(const struct js *request, struct turn *ret, struct error *e)
{
	AUTO_JS struct js *said = messages_to_responses(request, e);
	enum err_code rc;

	if (said == NULL)
		return ERR_INVALID;
	rc = turn_read(said, ret, e);
	if (rc != ERR_OK)
		return rc;
	ret->directory = directory_of(request);
	ret->final_tool = turn_offers(ret, "function", MESSAGES_FINAL_TOOL) ? MESSAGES_FINAL_TOOL : NULL;
	ret->said_as_responses = js_ref(said);
	return ERR_OK;
}

void turn_release(struct turn *t)
{
	js_free(t->said_as_responses);
	free(t->directory);
	free(t->prompt);
	free(t->last_output);
	js_free(t->tools);
	memset(t, 0, sizeof(*t));
}

bool turn_offers(const struct turn *t, const char *type, const char *name)
{
	for (size_t i = 0; i < js_len(t->tools); i++) {
		const struct js *tool = js_at(t->tools, i);

		if (str_eq(js_str(tool, "type"), type) && (name == NULL || str_eq(js_str(tool, "name"), name)))
			return true;
	}
	return false;
}

const char *turn_namespace(const struct turn *t, const char *name)
{
	for (size_t i = 0; i < js_len(t->tools); i++)
		if (str_eq(js_str(js_at(t->tools, i), "name"), name))
			return js_str(js_at(t->tools, i), "namespace");
	return NULL;
}

void turn_tool_names(const struct turn *t, struct strbuf *out)
{
	for (size_t i = 0; i < js_len(t->tools); i++)
		strbuf_addf(out, "%s%s", i == 0 ? "" : ", ", js_str_or(js_at(t->tools, i), "name", js_str_or(js_at(t->tools, i), "type", "?")));
}
