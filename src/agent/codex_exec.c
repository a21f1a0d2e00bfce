/* Adapter `codex-exec`: the real Codex CLI through `codex exec --json`.  Facts (0.169): one JSON object a line; the turn is over at
 * turn.completed or turn.failed although the process may linger; --output-schema is not checked against the reply; a null exit_code on a
 * completed command means unknown; a refused start (bad config, bad resume id) gives no JSON at all. */
#include "agent/tell.h"
#include "agent/codex_home.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static enum err_code write_home(struct agent *a, char **ret_prompt_path, struct error *e)
{
	AUTO_CLOSE int dir = -1;
	enum err_code rc = codex_home_write(a, &dir, e);
	if (!rc)
		rc = file_replace_at(dir, "final-schema.json", agent_final_schema, strlen(agent_final_schema), 0600, FILE_NOSYNC, e);
	if (!rc)
		rc = file_replace_at(dir, "prompt.txt", a->run.prompt, strlen(a->run.prompt), 0600, FILE_NOSYNC, e);
	if (rc)
		return rc;
	unlinkat(dir, CODEX_LAST_MESSAGE, 0); /* an earlier turn's answer must not be taken for this one's */
	*ret_prompt_path = mem_printf("%s/" CODEX_HOME_NAME "/prompt.txt", a->run.home);
	return ERR_OK;
}

static enum err_code codex_prepare(struct agent *a, struct agent_launch *l, struct error *e)
{
	enum err_code rc = codex_launch(a, l, e);
	if (!rc && (rc = write_home(a, &l->stdin_path, e)))
		error_wrap(e, "prepare Codex's home");
	if (rc)
		return rc;
	static const char *const flags[] = { "--json", "-o", CODEX_HOME_INSIDE "/" CODEX_LAST_MESSAGE, "--output-schema",
		CODEX_HOME_INSIDE "/final-schema.json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", NULL };
	agent_launch_arg(l, "exec");
	if (a->run.session_id)
		agent_launch_arg(l, "resume");
	for (const char *const *f = flags; *f; f++)
		agent_launch_arg(l, *f);
	if (a->run.session_id)
		agent_launch_arg(l, a->run.session_id);
	agent_launch_arg(l, "-"); /* the prompt comes on stdin: no limit of argv, not in anybody's process list */
	a->final_file = true;
	return ERR_OK;
}

static void on_command(struct agent *a, const struct js *item, bool done)
{
	const char *id = js_str(item, "id"), *command = js_str_or(item, "command", "");
	free(a->open_command);
	a->open_command = done ? NULL : mem_strdup(command);
	if (done)
		tell_command_finished(a, id, command, js_str(item, "status"), js_get(item, "exit_code"), js_str_or(item, "aggregated_output", ""));
	else
		tell_command_started(a, id, command);
}

static void on_message(struct agent *a, const struct js *item, bool done)
{
	if (done)
		tell_message(a, NULL, js_str_or(item, "text", ""));
}

static void on_reasoning(struct agent *a, const struct js *item, bool done)
{
	if (done)
		tell_reasoning(a, js_str_or(item, "text", ""));
}

static void on_file_change(struct agent *a, const struct js *item, bool done)
{
	static const char *const keys[] = { "id", "changes", "status", NULL };
	if (!done)
		return;
	struct js *o = js_object();
	for (const char *const *k = keys; *k; k++)
		if (js_get(item, *k))
			js_set(o, *k, js_ref(js_get(item, *k)));
	agent_emit(a, "file.changed", o);
}

static void on_todo_list(struct agent *a, const struct js *item, bool done UNUSED)
{
	struct js *list = js_array();
	const struct js *steps = js_get(item, "items");
	for (size_t i = 0; i < js_len(steps); i++) {
		struct js *step = js_object();
		js_set_str(step, "text", js_str(js_at(steps, i), "text"));
		js_set_str(step, "status", js_flag(js_at(steps, i), "completed", false) ? "completed" : "pending");
		js_push(list, step);
	}
	agent_todos(a, list);
}

static void on_tool(struct agent *a, const struct js *item, bool done)
{
	static const char *const keys[] = { "id", "server", "tool", "arguments", "query", "action", "result", "error", "status", "prompt",
		"agents_states", NULL };
	tell_tool(a, js_str(item, "type"), item, keys, done);
}

static void on_warning(struct agent *a, const struct js *item, bool done)
{
	if (done)
		tell_warning(a, js_str_or(item, "message", ""));
}

static const struct {
	const char *type;
	void (*on)(struct agent *a, const struct js *item, bool done);
	bool updates; /* item.updated means something */
} items[] = {
	{ "command_execution", on_command, false },
	{ "agent_message", on_message, false },
	{ "reasoning", on_reasoning, false },
	{ "file_change", on_file_change, false },
	{ "todo_list", on_todo_list, true },
	{ "mcp_tool_call", on_tool, false },
	{ "web_search", on_tool, false },
	{ "collab_tool_call", on_tool, false },
	{ "error", on_warning, false },
};

static bool on_item(struct agent *a, const char *type, const struct js *item)
{
	bool done = str_eq(type, "item.completed"), updated = str_eq(type, "item.updated");
	const char *kind = js_str_or(item, "type", "");
	for (size_t i = 0; i < ARRAY_SIZE(items); i++)
		if (str_eq(items[i].type, kind)) {
			if (!updated || items[i].updates)
				items[i].on(a, item, done);
			return true;
		}
	return false;
}

static void on_turn_completed(struct agent *a, const struct js *line)
{
	tell_turn(a, "completed", js_get(line, "usage"), NULL);
	a->settled = true;
}

static void on_turn_failed(struct agent *a, const char *said)
{
	AUTO_FREE char *message = tell_plain_words(said);
	tell_turn(a, "failed", NULL, message);
	agent_fail(a, message);
	a->settled = true;
}

static bool dispatch(struct agent *a, const struct js *line)
{
	const char *type = js_str_or(line, "type", "");
	if (str_starts(type, "item."))
		return on_item(a, type, js_get(line, "item"));
	if (str_eq(type, "thread.started"))
		tell_session(a, js_str(line, "thread_id"));
	else if (str_eq(type, "turn.started"))
		agent_set_progress(a, "working");
	else if (str_eq(type, "turn.completed"))
		on_turn_completed(a, line);
	else if (str_eq(type, "turn.failed"))
		on_turn_failed(a, js_str_or(js_get(line, "error"), "message", "the turn failed"));
	else if (str_eq(type, "error"))
		tell_error(a, js_str_or(line, "message", "an error without words"), false);
	else
		return false;
	return true;
}

void codex_exec_line(struct agent *a, const char *line, size_t len)
{
	AUTO_JS struct js *parsed = js_parse(line, len, NULL);
	if (!parsed || js_type(parsed) != JS_OBJECT || !dispatch(a, parsed))
		agent_emit_raw(a, line, len);
}

/* What -o wrote, else the last message. On failure Codex leaves an empty file. */
static void read_last_message(struct agent *a, struct agent_outcome *o)
{
	AUTO_FREE char *dir = file_join(a->run.home, CODEX_HOME_NAME);
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(AGENT_FINAL_MAX);
	AUTO_CLOSE int fd = a->final_file ? open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
	if (fd >= 0 && !file_read_at(fd, CODEX_LAST_MESSAGE, AGENT_FINAL_MAX, &text, NULL) && text.len)
		o->text = strbuf_detach(&text);
	else
		o->text = mem_strdup(a->last_message);
}

void codex_exec_finish(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *o)
{
	struct error e = ERROR_INIT;
	if (!a->settled || a->failed) {
		agent_outcome_of_exit(a, "Codex", exit_status, stderr_tail, o);
		return;
	}
	read_last_message(a, o);
	o->final = agent_final_parse(o->text ? o->text : "", o->text ? strlen(o->text) : 0, &e);
	if (o->final) {
		agent_outcome_of_final(o);
		return;
	}
	o->status = AGENT_FAILED;
	o->reason = "final_invalid";
	o->error = mem_strdup(e.text);
}

const struct agent_backend agent_codex_exec = {
	.name = "codex-exec",
	.uses_model = true,
	.capabilities = "resume todos usage interrupt",
	.check = codex_check,
	.prepare = codex_prepare,
	.line = codex_exec_line,
	.finish = codex_exec_finish,
};
