/* session/update: pieces of messages and thoughts, tool calls that change as they go, the plan.  What an agent leaves out is left out here. */
#include "agent/acp.h"
#include "agent/tell.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define OUTPUT_MAX ((size_t)64 << 10) /* bytes of a command's output that are kept until it ends */
#define EXIT_CODE "Exit code "

/* --- messages and thoughts */

void acp_text_flush(struct acp *c)
{
	const char *text = strbuf_str(&c->text);
	text += strspn(text, "\n");
	if (*text && c->is_thought)
		tell_reasoning(c->agent, text);
	else if (*text)
		tell_message(c->agent, c->text_id, text);
	strbuf_reset(&c->text);
	free(c->text_id);
	c->text_id = NULL;
}

static void on_chunk(struct acp *c, const struct js *update, bool thought)
{
	const char *text = js_str(js_get(update, "content"), "text"), *id = js_str(update, "messageId");
	if (!text)
		return;
	if (c->text.len && (c->is_thought != thought || !str_eq(c->text_id, id)))
		acp_text_flush(c);
	c->is_thought = thought;
	if (!c->text_id)
		c->text_id = mem_strdup(id);
	strbuf_adds(&c->text, text);
	if (thought || !*text)
		return;
	struct js *o = js_object();
	js_set_str(o, "item", id);
	agent_set_text(o, "text", text);
	c->agent->sink.live(c->agent->sink.ctx, "message.delta", o);
}

/* --- tool calls */

static struct acp_tool *tool_find(struct acp *c, const char *id)
{
	for (size_t i = 0; i < c->tool_count; i++)
		if (str_eq(c->tools[i].id, id))
			return &c->tools[i];
	return NULL;
}

static bool is_kind(const struct acp_tool *t, const char *kind)
{
	return str_eq(t->kind, kind);
}

/* Agents tell a command as a text, as words for a shell, or only in the title. */
const char *acp_tool_command(const struct acp_tool *t)
{
	const struct js *command = js_get(t->input, "command");
	size_t words = js_len(command);
	if (js_text(command))
		return js_text(command);
	if (js_type(command) == JS_ARRAY && words && js_text(js_at(command, words - 1)))
		return js_text(js_at(command, words - 1));
	return t->title ? t->title : "";
}

/* The newest command that runs: what waits for a person does not run. */
static void refresh_open_command(struct acp *c)
{
	free(c->agent->open_command);
	c->agent->open_command = NULL;
	for (size_t i = c->tool_count; i-- > 0 && !c->agent->open_command;)
		if (is_kind(&c->tools[i], "execute") && !c->tools[i].asked && (c->tools[i].told || js_len(c->tools[i].input)))
			c->agent->open_command = mem_strdup(acp_tool_command(&c->tools[i]));
}

static void keep_text(char **at, const struct js *o, const char *key)
{
	if (!js_str(o, key))
		return;
	char *copy = mem_strdup(js_str(o, key));
	free(*at);
	*at = copy;
}

static void keep_value(struct js **at, const struct js *value)
{
	if (!value || js_type(value) == JS_NULL || ((js_type(value) == JS_OBJECT || js_type(value) == JS_ARRAY) && !js_len(value)))
		return;
	js_free(*at);
	*at = js_ref(value);
}

/* Where agents tell how a command ended, each in its way. */
static const struct js *exit_code_in(const struct js *update)
{
	static const char *const places[] = { "_meta.terminal_exit.exit_code", "rawOutput.exit_code", "rawOutput.exitCode", "rawOutput.metadata.exit_code" };
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		const struct js *code = js_path(update, places[i]);
		if (code && js_type(code) == JS_INT)
			return code;
	}
	return NULL;
}

struct acp_tool *acp_tool_take(struct acp *c, const struct js *update)
{
	const char *id = js_str(update, "toolCallId"), *piece = js_text(js_path(update, "_meta.terminal_output_delta.data"));
	struct acp_tool *t = tool_find(c, id);
	if (!id || (!t && c->tool_count == ACP_TOOLS_MAX))
		return NULL;
	if (!t) {
		t = &c->tools[c->tool_count++];
		*t = (struct acp_tool){ .id = mem_strdup(id), .output = STRBUF_LIMIT(OUTPUT_MAX) };
	}
	keep_text(&t->title, update, "title");
	keep_text(&t->kind, update, "kind");
	keep_value(&t->input, js_get(update, "rawInput"));
	keep_value(&t->content, js_get(update, "content"));
	keep_value(&t->exit_code, exit_code_in(update));
	if (piece)
		strbuf_adds(&t->output, piece);
	return t;
}

static void tool_remove(struct acp *c, struct acp_tool *t)
{
	free(t->id);
	free(t->title);
	free(t->kind);
	js_free(t->input);
	js_free(t->content);
	js_free(t->exit_code);
	strbuf_release(&t->output);
	memmove(t, t + 1, (size_t)(&c->tools[c->tool_count] - (t + 1)) * sizeof *t);
	c->tool_count--;
}

void acp_tools_release(struct acp *c)
{
	while (c->tool_count)
		tool_remove(c, &c->tools[c->tool_count - 1]);
	refresh_open_command(c);
}

static void on_acp_tool(struct acp *c, const struct acp_tool *t, const char *status, const char *result)
{
	static const char *const keys[] = { "id", "tool", "tool_kind", "arguments", "result", "status", NULL };
	AUTO_JS struct js *o = js_object();
	js_set_str(o, "id", t->id);
	js_set_str(o, "tool", t->title);
	js_set_str(o, "tool_kind", t->kind);
	js_set(o, "arguments", t->input ? js_ref(t->input) : js_null());
	js_set_str(o, "result", result);
	js_set_str(o, "status", status);
	tell_tool(c->agent, "tool_call", o, keys, status != NULL);
}

static void tell_start(struct acp *c, struct acp_tool *t)
{
	if (t->told)
		return;
	t->told = true;
	if (is_kind(t, "execute"))
		tell_command_started(c->agent, t->id, acp_tool_command(t));
	else if (!is_kind(t, "edit"))
		on_acp_tool(c, t, NULL, NULL);
}

void acp_tool_asked(struct acp *c, const char *id, bool asked, bool goes_on)
{
	struct acp_tool *t = tool_find(c, id);
	if (!t)
		return;
	t->asked = asked || !goes_on;
	t->refused = !asked && !goes_on;
	if (goes_on)
		tell_start(c, t);
	refresh_open_command(c);
}

static void add_content(struct strbuf *out, const struct js *content)
{
	for (size_t i = 0; i < js_len(content); i++) {
		const char *text = js_str(js_get(js_at(content, i), "content"), "text");
		if (text)
			strbuf_addf(out, "%s%s", out->len ? "\n" : "", text);
	}
}

static void add_output(struct strbuf *out, const struct acp_tool *t, const struct js *update)
{
	static const char *const places[] = { "aggregated_output", "formatted_output", "stdout", "output" };
	const struct js *raw = js_get(update, "rawOutput");
	const char *text = t->output.len ? strbuf_str(&t->output) : js_text(raw);
	for (size_t i = 0; i < ARRAY_SIZE(places) && !text; i++)
		text = js_str(raw, places[i]);
	if (text)
		strbuf_adds(out, text);
	else
		add_content(out, js_get(update, "content"));
}

static void command_ends(struct acp *c, struct acp_tool *t, const char *status, const struct js *update)
{
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(AGENT_LINE_MAX);
	AUTO_JS struct js *code = t->exit_code ? js_ref(t->exit_code) : NULL;
	const char *text;
	add_output(&out, t, update);
	text = strbuf_str(&out);
	if (!code && str_starts(text, EXIT_CODE) && str_eq(status, "failed")) {
		char *end = NULL;
		code = js_int(strtol(text + strlen(EXIT_CODE), &end, 10));
		text = *end == '\n' ? end + 1 : end;
	}
	if (!t->refused)
		tell_start(c, t);
	tell_command_finished(c->agent, t->id, acp_tool_command(t), t->refused ? "declined" : status, t->refused ? NULL : code, t->refused ? "" : text);
}

static void edit_ends(struct acp *c, const struct acp_tool *t, const char *status)
{
	struct js *o = js_object(), *changes = js_array();
	for (size_t i = 0; i < js_len(t->content); i++) {
		const struct js *diff = js_at(t->content, i);
		struct js *one;
		if (!str_eq(js_str(diff, "type"), "diff"))
			continue;
		one = js_object();
		js_set_str(one, "path", js_str(diff, "path"));
		js_set_str(one, "kind", js_str(diff, "oldText") ? "update" : "add");
		js_push(changes, one);
	}
	js_set_str(o, "id", t->id);
	js_set(o, "changes", changes);
	js_set_str(o, "status", t->refused ? "declined" : status);
	agent_emit(c->agent, "file.changed", o);
}

static void tool_ends(struct acp *c, struct acp_tool *t, const char *status, const struct js *update)
{
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(AGENT_LINE_MAX);
	if (is_kind(t, "execute")) {
		command_ends(c, t, status, update);
	} else if (is_kind(t, "edit")) {
		edit_ends(c, t, status);
	} else {
		tell_start(c, t);
		add_output(&out, t, update);
		on_acp_tool(c, t, t->refused ? "declined" : status, strbuf_str(&out));
	}
	tool_remove(c, t);
	refresh_open_command(c);
}

/* Whether a person will be asked shows only later, so that where any is, a start is told with the decision, or with the end. */
static void on_tool(struct acp *c, const struct js *update)
{
	struct acp_tool *t = acp_tool_take(c, update);
	const char *status = js_str_or(update, "status", "");
	if (!t)
		return;
	if (str_eq(status, "completed") || str_eq(status, "failed")) {
		tool_ends(c, t, status, update);
		return;
	}
	if (!acp_is_asking(c) && (js_len(t->input) || str_eq(status, "in_progress"))) /* an empty input is still to come */
		tell_start(c, t);
	refresh_open_command(c);
}

/* --- the rest */

static void on_plan(struct acp *c, const struct js *update)
{
	const struct js *entries = js_get(update, "entries");
	struct js *list = js_array();
	for (size_t i = 0; i < js_len(entries); i++) {
		struct js *one = js_object();
		js_set_str(one, "text", js_str_or(js_at(entries, i), "content", ""));
		js_set_str(one, "status", js_str_or(js_at(entries, i), "status", "pending"));
		js_push(list, one);
	}
	agent_todos(c->agent, list);
}

static bool on_update(struct acp *c, const struct js *update)
{
	static const char *const known[] = { "user_message_chunk", "available_commands_update", "current_mode_update", "config_option_update", "usage_update",
		"session_info_update" };
	const char *kind = js_str_or(update, "sessionUpdate", "");
	if (str_eq(kind, "agent_message_chunk") || str_eq(kind, "agent_thought_chunk") || str_eq(kind, "tool_call"))
		acp_asks_given_up(c);
	if (str_eq(kind, "agent_message_chunk") || str_eq(kind, "agent_thought_chunk")) {
		on_chunk(c, update, str_eq(kind, "agent_thought_chunk"));
		return true;
	}
	if (str_eq(js_text(js_path(update, "_meta.codex.threadStatus.type")), "systemError"))
		c->broken = true;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (str_eq(known[i], kind))
			return true;
	acp_text_flush(c);
	if (str_eq(kind, "tool_call") || str_eq(kind, "tool_call_update"))
		on_tool(c, update);
	else if (str_eq(kind, "plan"))
		on_plan(c, update);
	else
		return false;
	return true;
}

bool acp_notice(struct agent *a, const char *method, const struct js *params)
{
	struct acp *c = acp_of(a);
	if (method[0] == '_' || a->settled) /* extensions of an agent's own */
		return true;
	if (str_eq(method, "$/cancel_request"))
		return acp_ask_canceled(c, js_get(params, "requestId"));
	if (!str_eq(method, "session/update"))
		return false;
	if (!c->prompting || (js_str(params, "sessionId") && !str_eq(js_str(params, "sessionId"), c->session)))
		return true; /* a session's past as it is loaded, or what belongs to helpers of the agent */
	return on_update(c, js_get(params, "update"));
}
