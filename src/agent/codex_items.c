/* What Codex tells while it works: items begun and ended, deltas, the plan, usage, errors. */
#include "agent/codex.h"
#include "agent/tell.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

/* The newest command that runs: what waits for a person, or may still have to, does not run. */
static void refresh_open_command(struct codex *c)
{
	free(c->agent->open_command);
	c->agent->open_command = NULL;
	for (size_t i = c->command_count; i-- > 0 && !c->agent->open_command;)
		if (c->commands[i].told && !c->commands[i].asked)
			c->agent->open_command = mem_strdup(c->commands[i].text);
}

static struct codex_command *command_find(struct codex *c, const char *item)
{
	for (size_t i = 0; i < c->command_count; i++)
		if (str_eq(c->commands[i].item, item))
			return &c->commands[i];
	return NULL;
}

static void command_tell(struct codex *c, struct codex_command *cmd)
{
	if (!cmd->told)
		tell_command_started(c->agent, cmd->item, cmd->text);
	cmd->told = true;
}

static void command_remove(struct codex *c, struct codex_command *cmd)
{
	free(cmd->item);
	free(cmd->text);
	memmove(cmd, cmd + 1, (size_t)(&c->commands[c->command_count] - (cmd + 1)) * sizeof *cmd);
	c->command_count--;
}

void codex_commands_forget(struct codex *c)
{
	while (c->command_count)
		command_remove(c, &c->commands[c->command_count - 1]);
	refresh_open_command(c);
}

void codex_command_asked(struct codex *c, const char *item, bool asked, bool goes_on)
{
	struct codex_command *cmd = command_find(c, item);
	if (!cmd)
		return;
	cmd->asked = asked || !goes_on;
	if (goes_on)
		command_tell(c, cmd);
	refresh_open_command(c);
}

/* A command without a process yet may still have to be asked for: it is told when it goes on, or says or ends something. */
static void command_started(struct codex *c, const struct js *item)
{
	const char *id = js_str_or(item, "id", "");
	if (command_find(c, id) || c->command_count == CODEX_COMMANDS_MAX)
		return;
	struct codex_command *cmd = &c->commands[c->command_count++];
	*cmd = (struct codex_command){ .item = mem_strdup(id), .text = mem_strdup(js_str_or(item, "command", "")) };
	if (js_str(item, "processId") || !codex_asks_commands(c))
		command_tell(c, cmd);
	refresh_open_command(c);
}

static void on_command(struct codex *c, const struct js *item, bool done)
{
	const char *status = js_str_or(item, "status", "completed");
	const struct js *code = js_get(item, "exitCode");
	if (!done) {
		command_started(c, item);
		return;
	}
	struct codex_command *cmd = command_find(c, js_str_or(item, "id", ""));
	if (cmd && (js_str(item, "processId") || js_type(code) == JS_INT)) /* else it was refused and never ran */
		command_tell(c, cmd);
	if (cmd)
		command_remove(c, cmd);
	refresh_open_command(c);
	tell_command_finished(c->agent, js_str(item, "id"), js_str_or(item, "command", ""), str_eq(status, "inProgress") ? "in_progress" : status, code,
		js_str_or(item, "aggregatedOutput", ""));
}

static void on_message(struct codex *c, const struct js *item, bool done)
{
	if (done)
		tell_message(c->agent, js_str(item, "id"), js_str_or(item, "text", ""));
}

static void add_parts(struct strbuf *out, const struct js *parts)
{
	for (size_t i = 0; i < js_len(parts); i++)
		if (js_text(js_at(parts, i)))
			strbuf_addf(out, "%s%s", out->len ? "\n\n" : "", js_text(js_at(parts, i)));
}

static void on_reasoning(struct codex *c, const struct js *item, bool done)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(AGENT_LINE_MAX);
	add_parts(&text, js_get(item, "summary"));
	add_parts(&text, js_get(item, "content"));
	if (done && text.len)
		tell_reasoning(c->agent, strbuf_str(&text));
}

static struct js *plain_changes(const struct js *changes)
{
	struct js *list = js_array();
	for (size_t i = 0; i < js_len(changes); i++) {
		const struct js *given = js_at(changes, i);
		struct js *one = js_object();
		js_set_str(one, "path", js_str(given, "path"));
		js_set_str(one, "kind", js_str(js_get(given, "kind"), "type"));
		js_set_str(one, "moved_to", js_str(js_get(given, "kind"), "move_path"));
		js_push(list, one);
	}
	return list;
}

/* The request for leave to write comes behind the beginning of its item and names only that. */
static void keep_patch(struct codex *c, const char *item, const struct js *changes)
{
	c->patches = c->patches ? c->patches : js_object();
	if (changes && (js_get(c->patches, item) || js_len(c->patches) < CODEX_PATCHES_MAX))
		js_set(c->patches, item, js_ref(changes));
}

static void on_file_change(struct codex *c, const struct js *item, bool done)
{
	const char *id = js_str_or(item, "id", "");
	if (!done) {
		keep_patch(c, id, js_get(item, "changes"));
		return;
	}
	if (c->patches)
		js_del(c->patches, id);
	struct js *o = js_object();
	js_set_str(o, "id", id);
	js_set(o, "changes", plain_changes(js_get(item, "changes")));
	js_set_str(o, "status", js_str(item, "status"));
	agent_emit(c->agent, "file.changed", o);
}

static void on_compaction(struct codex *c, const struct js *item UNUSED, bool done)
{
	if (done)
		tell_warning(c->agent, "Codex shortened what it remembers of the conversation");
}

/* What a tool of ours answered is in the record of the gate, and may be a secret: it is not among the members. */
static void on_codex_tool(struct codex *c, const char *kind, const struct js *item, bool done)
{
	static const char *const keys[] = { "id", "server", "tool", "arguments", "query", "action", "result", "error", "status", "success", "prompt", "agentsStates",
		"path", "review", NULL };
	tell_tool(c->agent, kind, item, keys, done);
}

static void on_nothing(struct codex *c UNUSED, const struct js *item UNUSED, bool done UNUSED)
{
}

static const struct {
	const char *type;
	void (*on)(struct codex *c, const struct js *item, bool done);
	const char *tool; /* instead of `on`: told as a tool of this kind */
} items[] = {
	{ "commandExecution", on_command, NULL },
	{ "agentMessage", on_message, NULL },
	{ "plan", on_message, NULL },
	{ "reasoning", on_reasoning, NULL },
	{ "fileChange", on_file_change, NULL },
	{ "contextCompaction", on_compaction, NULL },
	{ "userMessage", on_nothing, NULL },
	{ "hookPrompt", on_nothing, NULL },
	{ "functionCallOutput", on_nothing, NULL },
	{ "mcpToolCall", NULL, "mcp_tool_call" },
	{ "dynamicToolCall", NULL, "dynamic_tool_call" },
	{ "collabAgentToolCall", NULL, "collab_tool_call" },
	{ "webSearch", NULL, "web_search" },
	{ "imageView", NULL, "image_view" },
	{ "imageGeneration", NULL, "image_generation" },
	{ "enteredReviewMode", NULL, "review" },
	{ "exitedReviewMode", NULL, "review" },
};

static bool on_item(struct codex *c, const struct js *params, bool done)
{
	const struct js *item = js_get(params, "item");
	for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
		if (!str_eq(items[i].type, js_str(item, "type")))
			continue;
		if (items[i].tool)
			on_codex_tool(c, items[i].tool, item, done);
		else
			items[i].on(c, item, done);
		return true;
	}
	return false;
}

static bool on_item_started(struct codex *c, const struct js *params)
{
	return on_item(c, params, false);
}

static bool on_item_completed(struct codex *c, const struct js *params)
{
	return on_item(c, params, true);
}

static bool tell_live(struct codex *c, const char *type, const struct js *params)
{
	if (!js_str(params, "itemId") || !js_str(params, "delta"))
		return false;
	struct js *o = js_object();
	js_set_str(o, "item", js_str(params, "itemId"));
	agent_set_text(o, "text", js_str(params, "delta"));
	c->agent->sink.live(c->agent->sink.ctx, type, o);
	return true;
}

static bool on_message_delta(struct codex *c, const struct js *params)
{
	return tell_live(c, "message.delta", params);
}

static bool on_command_delta(struct codex *c, const struct js *params)
{
	struct codex_command *cmd = command_find(c, js_str_or(params, "itemId", ""));
	if (cmd && !cmd->told) {
		command_tell(c, cmd);
		refresh_open_command(c);
	}
	return tell_live(c, "command.output", params);
}

static bool on_patch_updated(struct codex *c, const struct js *params)
{
	keep_patch(c, js_str_or(params, "itemId", ""), js_get(params, "changes"));
	return true;
}

static bool on_diff(struct codex *c, const struct js *params)
{
	struct js *o = js_object();
	agent_set_text(o, "diff", js_str_or(params, "diff", ""));
	c->agent->sink.live(c->agent->sink.ctx, "turn.diff", o);
	return true;
}

static bool on_plan(struct codex *c, const struct js *params)
{
	const struct js *plan = js_get(params, "plan");
	if (js_type(plan) != JS_ARRAY)
		return false;
	struct js *list = js_array();
	for (size_t i = 0; i < js_len(plan); i++) {
		const char *status = js_str_or(js_at(plan, i), "status", "pending");
		struct js *step = js_object();
		js_set_str(step, "text", js_str(js_at(plan, i), "step"));
		js_set_str(step, "status", str_eq(status, "inProgress") ? "in_progress" : status);
		js_push(list, step);
	}
	agent_todos(c->agent, list);
	return true;
}

/* Codex counts over the whole life of the thread, and says at its resumption how much that was; we count this turn. */
static bool on_usage(struct codex *c, const struct js *params)
{
	static const struct { const char *theirs, *ours; } members[] = { { "inputTokens", "input_tokens" }, { "cachedInputTokens", "cached_input_tokens" },
		{ "cacheWriteInputTokens", "cache_write_input_tokens" }, { "outputTokens", "output_tokens" }, { "reasoningOutputTokens", "reasoning_output_tokens" } };
	const struct js *total = js_get(js_get(params, "tokenUsage"), "total");
	bool earlier = !c->turn || !str_eq(js_str(params, "turnId"), c->turn);
	if (js_type(total) != JS_OBJECT)
		return false;
	struct js *usage = js_object();
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		js_set_int(usage, members[i].ours, js_i64(total, members[i].theirs, 0) - (earlier ? 0 : js_i64(c->usage_before, members[i].ours, 0)));
	struct js **place = earlier ? &c->usage_before : &c->usage;
	js_free(*place);
	*place = usage;
	return true;
}

static bool on_error(struct codex *c, const struct js *params)
{
	const struct js *error = js_get(params, "error");
	const char *message = js_str_or(error, "message", "an error without words"), *details = js_str(error, "additionalDetails");
	AUTO_FREE char *said = details ? mem_printf("%s: %s", message, details) : mem_strdup(message);
	tell_error(c->agent, said, js_flag(params, "willRetry", false));
	return true;
}

static bool on_warning(struct codex *c, const struct js *params)
{
	const char *text = js_str(params, "message") ? js_str(params, "message") : js_str(params, "summary");
	if (text)
		tell_warning(c->agent, text);
	return text != NULL;
}

static bool on_turn_started(struct codex *c, const struct js *params)
{
	codex_turn_started(c, js_get(params, "turn"));
	return true;
}

static bool on_turn_completed(struct codex *c, const struct js *params)
{
	const struct js *turn = js_get(params, "turn");
	if (!c->turn || !str_eq(js_str(turn, "id"), c->turn))
		return false;
	codex_turn_completed(c, turn);
	return true;
}

static bool on_resolved(struct codex *c, const struct js *params)
{
	codex_resolved(c, js_get(params, "requestId"));
	return true;
}

static const struct {
	const char *method;
	bool (*on)(struct codex *c, const struct js *params); /* NULL: nothing that we tell; false: not as it should be */
} notices[] = {
	{ "item/started", on_item_started },
	{ "item/completed", on_item_completed },
	{ "item/agentMessage/delta", on_message_delta },
	{ "item/plan/delta", on_message_delta },
	{ "item/commandExecution/outputDelta", on_command_delta },
	{ "item/fileChange/patchUpdated", on_patch_updated },
	{ "turn/started", on_turn_started },
	{ "turn/plan/updated", on_plan },
	{ "turn/diff/updated", on_diff },
	{ "turn/completed", on_turn_completed },
	{ "thread/tokenUsage/updated", on_usage },
	{ "serverRequest/resolved", on_resolved },
	{ "error", on_error },
	{ "warning", on_warning },
	{ "guardianWarning", on_warning },
	{ "configWarning", on_warning },
	{ "deprecationNotice", on_warning },
	{ "account/rateLimits/updated", NULL },
	{ "account/updated", NULL },
	{ "item/commandExecution/terminalInteraction", NULL },
	{ "item/mcpToolCall/progress", NULL },
	{ "item/reasoning/summaryPartAdded", NULL },
	{ "item/reasoning/summaryTextDelta", NULL },
	{ "item/reasoning/textDelta", NULL },
	{ "mcpServer/startupStatus/updated", NULL },
	{ "remoteControl/status/changed", NULL },
	{ "skills/changed", NULL },
	{ "thread/closed", NULL },
	{ "thread/compacted", NULL },
	{ "thread/environment/connected", NULL },
	{ "thread/goal/cleared", NULL },
	{ "thread/goal/updated", NULL },
	{ "thread/name/updated", NULL },
	{ "thread/readState/changed", NULL },
	{ "thread/settings/updated", NULL },
	{ "thread/started", NULL },
	{ "thread/status/changed", NULL },
};

bool codex_notice(struct codex *c, const char *method, const struct js *params)
{
	for (size_t i = 0; i < ARRAY_SIZE(notices); i++)
		if (str_eq(notices[i].method, method))
			return !notices[i].on || notices[i].on(c, params);
	return false;
}
