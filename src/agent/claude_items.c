/* What Claude Code says and does: an assistant message has one block a line; a tool begins in one and ends in a user message that carries its result. */
#include "agent/claude.h"
#include "agent/tell.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define EXIT_CODE "Exit code "
#define FINAL_TOOL "StructuredOutput"

/* --- tools that run */

static struct claude_tool *tool_find(struct claude *c, const char *id)
{
	for (size_t i = 0; i < c->tool_count; i++)
		if (str_eq(c->tools[i].id, id))
			return &c->tools[i];
	return NULL;
}

static bool is_command(const struct claude_tool *t)
{
	return str_eq(t->name, "Bash");
}

static const char *command_of(const struct claude_tool *t)
{
	return js_str_or(t->input, "command", "");
}

/* The newest command that runs: what waits for a person does not run. */
static void refresh_open_command(struct claude *c)
{
	free(c->agent->open_command);
	c->agent->open_command = NULL;
	for (size_t i = c->tool_count; i-- > 0 && !c->agent->open_command;)
		if (is_command(&c->tools[i]) && !c->tools[i].asked)
			c->agent->open_command = mem_strdup(command_of(&c->tools[i]));
}

static void on_claude_tool(struct claude *c, const struct claude_tool *t, const struct js *result, bool failed)
{
	static const char *const keys[] = { "id", "tool", "arguments", "result", "status", NULL };
	AUTO_JS struct js *o = js_object();
	js_set_str(o, "id", t->id);
	js_set_str(o, "tool", t->name);
	js_set(o, "arguments", js_ref(t->input));
	if (result) {
		js_set(o, "result", js_ref(result));
		js_set_str(o, "status", failed ? "failed" : "completed");
	}
	tell_tool(c->agent, str_starts(t->name, "mcp__") ? "mcp_tool_call" : "tool_call", o, keys, result != NULL);
}

static bool is_edit(const struct claude_tool *t)
{
	static const char *const names[] = { "Edit", "Write", "MultiEdit", "NotebookEdit" };
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (str_eq(names[i], t->name))
			return true;
	return false;
}

/* Tools that show in other ways than as a tool: their gate, their list, the final answer. */
static bool is_silent(const struct claude_tool *t)
{
	return str_eq(t->name, "AskUserQuestion") || str_eq(t->name, "TodoWrite") || str_eq(t->name, FINAL_TOOL) || is_edit(t);
}

static void tell_start(struct claude *c, struct claude_tool *t)
{
	if (t->told)
		return;
	t->told = true;
	if (is_command(t))
		tell_command_started(c->agent, t->id, command_of(t));
	else if (!is_silent(t))
		on_claude_tool(c, t, NULL, false);
}

static void tool_remove(struct claude *c, struct claude_tool *t)
{
	free(t->id);
	free(t->name);
	js_free(t->input);
	memmove(t, t + 1, (size_t)(&c->tools[c->tool_count] - (t + 1)) * sizeof *t);
	c->tool_count--;
}

void claude_tools_release(struct claude *c)
{
	while (c->tool_count)
		tool_remove(c, &c->tools[c->tool_count - 1]);
	refresh_open_command(c);
}

void claude_tool_asked(struct claude *c, const char *id, bool asked, bool goes_on)
{
	struct claude_tool *t = tool_find(c, id);
	if (!t)
		return;
	t->asked = asked || !goes_on;
	if (goes_on)
		tell_start(c, t);
	refresh_open_command(c);
}

/* Comes when a command has run for a moment. */
void claude_task(struct claude *c, const struct js *line)
{
	struct claude_tool *t = tool_find(c, js_str(line, "tool_use_id"));
	if (t)
		tell_start(c, t);
}

static void take_todos(struct claude *c, const struct js *todos)
{
	struct js *list = js_array();
	for (size_t i = 0; i < js_len(todos); i++) {
		struct js *one = js_object();
		js_set_str(one, "text", js_str_or(js_at(todos, i), "content", ""));
		js_set_str(one, "status", js_str_or(js_at(todos, i), "status", "pending"));
		js_push(list, one);
	}
	agent_todos(c->agent, list);
}

/* Whether a person will be asked shows only with the next line, so that where any is, a start is told when something says that it runs, or with its end. */
static void tool_begins(struct claude *c, const struct js *block)
{
	const char *id = js_str(block, "id"), *name = js_str(block, "name");
	if (!id || !name || tool_find(c, id) || c->tool_count == CLAUDE_TOOLS_MAX)
		return;
	struct claude_tool *t = &c->tools[c->tool_count++];
	*t = (struct claude_tool){ .id = mem_strdup(id), .name = mem_strdup(name), .input = js_get(block, "input") ? js_ref(js_get(block, "input")) : js_object() };
	if (!is_command(t) || !claude_is_asking(c))
		tell_start(c, t);
	if (str_eq(name, FINAL_TOOL) && js_type(t->input) == JS_OBJECT) {
		js_free(c->final);
		c->final = js_ref(t->input);
	}
	refresh_open_command(c);
}

/* --- tools that have ended */

static void add_text(struct strbuf *out, const struct js *content)
{
	if (js_text(content))
		strbuf_adds(out, js_text(content));
	for (size_t i = 0; i < js_len(content); i++)
		if (js_type(content) == JS_ARRAY && js_str(js_at(content, i), "text"))
			strbuf_addf(out, "%s%s", out->len ? "\n" : "", js_str(js_at(content, i), "text"));
}

/* Told only in the words of a failed command; a command that did not fail ended with 0. NULL: unknown. */
static struct js *exit_code_of(const char *text, bool failed, const struct js *result)
{
	bool cut_short = js_flag(result, "interrupted", false) || js_str(result, "backgroundTaskId");
	char *end = NULL;
	if (!failed)
		return cut_short ? NULL : js_int(0);
	if (!str_starts(text, EXIT_CODE))
		return NULL;
	long code = strtol(text + strlen(EXIT_CODE), &end, 10);
	return end == text + strlen(EXIT_CODE) ? NULL : js_int(code);
}

static void command_ends(struct claude *c, struct claude_tool *t, const char *text, bool failed, const struct js *result)
{
	AUTO_JS struct js *code = exit_code_of(text, failed, result);
	bool declined = t->asked;
	const char *output = failed && code && strchr(text, '\n') ? strchr(text, '\n') + 1 : text;
	if (!declined)
		tell_start(c, t);
	tell_command_finished(c->agent, t->id, command_of(t), declined ? "declined" : failed ? "failed" : "completed", code, declined ? "" : output);
}

static void seen(struct claude *c, const char *path)
{
	c->seen = c->seen ? c->seen : js_object();
	if (path && js_len(c->seen) < CLAUDE_SEEN_MAX)
		js_set_bool(c->seen, path, true);
}

static void edit_ends(struct claude *c, struct claude_tool *t, bool failed, const struct js *result)
{
	const char *path = js_str_or(t->input, "file_path", js_str_or(t->input, "notebook_path", "?"));
	bool creates = str_eq(t->name, "Write") && (js_str(result, "type") ? str_eq(js_str(result, "type"), "create") : !js_true(js_get(c->seen, path)));
	struct js *o = js_object(), *files = js_array(), *one = js_object();
	js_set_str(one, "path", path);
	js_set_str(one, "kind", creates ? "add" : "update");
	js_push(files, one);
	js_set_str(o, "id", t->id);
	js_set(o, "changes", files);
	js_set_str(o, "status", t->asked ? "declined" : failed ? "failed" : "completed");
	agent_emit(c->agent, "file.changed", o);
	if (!failed)
		seen(c, path);
}

static void tool_ends(struct claude *c, const struct js *block, const struct js *result)
{
	struct claude_tool *t = tool_find(c, js_str(block, "tool_use_id"));
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(AGENT_LINE_MAX);
	bool failed = js_flag(block, "is_error", false);
	if (!t)
		return;
	add_text(&text, js_get(block, "content"));
	AUTO_JS struct js *said = js_string_n(strbuf_str(&text), text.len);
	if (is_command(t))
		command_ends(c, t, strbuf_str(&text), failed, result);
	else if (is_edit(t))
		edit_ends(c, t, failed, result);
	else if (str_eq(t->name, "TodoWrite") && !failed)
		take_todos(c, js_get(t->input, "todos"));
	else if (!is_silent(t))
		on_claude_tool(c, t, said, failed);
	if (str_eq(t->name, "Read") && !failed)
		seen(c, js_str(t->input, "file_path"));
	tool_remove(c, t);
	refresh_open_command(c);
}

/* --- messages */

void claude_assistant(struct claude *c, const struct js *line)
{
	const struct js *content = js_path(line, "message.content");
	bool own = !js_str(line, "parent_tool_use_id"); /* what helpers of the agent say is its own business */
	for (size_t i = 0; i < js_len(content); i++) {
		const struct js *block = js_at(content, i);
		const char *type = js_str_or(block, "type", "");
		if (str_eq(type, "tool_use"))
			tool_begins(c, block);
		else if (own && str_eq(type, "text") && !str_empty(js_str(block, "text")))
			tell_message(c->agent, NULL, js_str(block, "text"));
		else if (own && str_eq(type, "thinking") && !str_empty(js_str(block, "thinking")))
			tell_reasoning(c->agent, js_str(block, "thinking"));
	}
}

void claude_user(struct claude *c, const struct js *line)
{
	const struct js *content = js_path(line, "message.content");
	for (size_t i = 0; i < js_len(content); i++)
		if (js_type(content) == JS_ARRAY && str_eq(js_str(js_at(content, i), "type"), "tool_result"))
			tool_ends(c, js_at(content, i), js_get(line, "tool_use_result"));
}
