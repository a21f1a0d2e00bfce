/* Adapter `codex-exec`: the real Codex CLI through `codex exec --json`.  Facts (0.169): one JSON object a line; the turn is over at
 * turn.completed or turn.failed although the process may linger; --output-schema is not checked against the reply; a null exit_code on a
 * completed command means unknown; a refused start (bad config, bad resume id) gives no JSON at all. */
#include "agent/backend.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define CODEX_INSIDE "/run/signalbox/codex"
#define CODEX_HOME_INSIDE "/home/agent/codex"
#define CODEX_TOKEN_ENV "SIGNALBOX_MODEL_TOKEN"
#define LAST_MESSAGE "last-message.txt"
#define CODEX_DEFAULT_MODEL "gpt-5.5"
#define CODEX_REQUEST_RETRIES 3
#define CODEX_STREAM_RETRIES 4
#define CODEX_STREAM_IDLE_MS 300000

static enum err_code codex_check(struct js *agent, const char *codex_path, struct error *e)
{
	AUTO_FREE char *program = NULL;
	const char *own = js_str(agent, "path");
	enum err_code rc = codex_find(own ? own : codex_path, &program, e);
	if (!rc)
		js_set_str(agent, "program", program);
	if (!rc && !js_str(agent, "model"))
		js_set_str(agent, "model", CODEX_DEFAULT_MODEL);
	return rc;
}

static void toml_string(struct strbuf *out, const char *s)
{
	AUTO_JS struct js *v = js_string(s); /* a JSON string is a TOML basic string, but for \/ which jansson does not write */
	js_dump_to(v, out);
}

static void config_toml(const struct agent_run *run, struct strbuf *out)
{
	strbuf_adds(out, "model = ");
	toml_string(out, js_str_or(run->agent, "model", CODEX_DEFAULT_MODEL));
	strbuf_adds(out, "\nmodel_provider = \"gateway\"\ncheck_for_update_on_startup = false\nallow_login_shell = false\n"
		"[analytics]\nenabled = false\n[feedback]\nenabled = false\n"
		"[otel]\nexporter = \"none\"\nmetrics_exporter = \"none\"\ntrace_exporter = \"none\"\n"
		"[features]\nplugins = false\napps = false\nremote_plugin = false\nshell_snapshot = false\nunbounded_connection_retries = false\n"
		"[tools.update_plan]\nenabled = true\n"
		"[model_providers.gateway]\nname = \"gateway\"\nwire_api = \"responses\"\nsupports_websockets = false\n"
		"env_key = \"" CODEX_TOKEN_ENV "\"\nbase_url = ");
	toml_string(out, run->model_url);
	strbuf_addf(out, "\nrequest_max_retries = %d\nstream_max_retries = %d\nstream_idle_timeout_ms = %d\n", CODEX_REQUEST_RETRIES,
		CODEX_STREAM_RETRIES, CODEX_STREAM_IDLE_MS);
}

/* The home was the agent's in earlier turns: its directory is opened without following what may have become a link. */
static enum err_code open_home(struct agent *a, int *ret_fd, struct error *e)
{
	AUTO_FREE char *dir = file_join(a->run.home, "codex");
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return error_errno(e, "make '%s'", dir);
	*ret_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return *ret_fd < 0 ? error_errno(e, "open '%s'", dir) : ERR_OK;
}

static enum err_code write_home(struct agent *a, char **ret_prompt_path, struct error *e)
{
	AUTO_CLOSE int dir = -1;
	AUTO_STRBUF struct strbuf toml = STRBUF_INIT;
	config_toml(&a->run, &toml);
	enum err_code rc = open_home(a, &dir, e);
	if (!rc)
		rc = file_replace_at(dir, "config.toml", toml.data, toml.len, 0600, FILE_NOSYNC, e);
	if (!rc)
		rc = file_replace_at(dir, "final-schema.json", agent_final_schema, strlen(agent_final_schema), 0600, FILE_NOSYNC, e);
	if (!rc)
		rc = file_replace_at(dir, "prompt.txt", a->run.prompt, strlen(a->run.prompt), 0600, FILE_NOSYNC, e);
	if (rc)
		return rc;
	unlinkat(dir, LAST_MESSAGE, 0); /* an earlier turn's answer must not be taken for this one's */
	*ret_prompt_path = mem_printf("%s/codex/prompt.txt", a->run.home);
	return ERR_OK;
}

static enum err_code codex_prepare(struct agent *a, struct agent_launch *l, struct error *e)
{
	const char *program = js_str(a->run.agent, "program");
	if (!program)
		return error_set(e, ERR_INTERNAL, "the spec names no Codex program");
	enum err_code rc = write_home(a, &l->stdin_path, e);
	if (rc)
		return error_wrap(e, "prepare Codex's home");
	/* <vendor>/bin/codex: the whole vendor directory is shown, since Codex brings tools of its own beside it. */
	AUTO_FREE char *bin = file_dirname(program);
	AUTO_FREE char *vendor = file_dirname(bin);
	bool packaged = str_ends(bin, "/bin") && str_ends(program, "/codex");
	agent_launch_bind(l, packaged ? vendor : program, packaged ? CODEX_INSIDE : CODEX_INSIDE "/bin/codex");
	static const char *const fixed[] = { CODEX_INSIDE "/bin/codex", "exec", NULL };
	static const char *const flags[] = { "--json", "-o", CODEX_HOME_INSIDE "/" LAST_MESSAGE, "--output-schema",
		CODEX_HOME_INSIDE "/final-schema.json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", NULL };
	for (const char *const *f = fixed; *f; f++)
		agent_launch_arg(l, *f);
	if (a->run.session_id)
		agent_launch_arg(l, "resume");
	for (const char *const *f = flags; *f; f++)
		agent_launch_arg(l, *f);
	if (a->run.session_id)
		agent_launch_arg(l, a->run.session_id);
	agent_launch_arg(l, "-"); /* the prompt comes on stdin: no limit of argv, not in anybody's process list */
	agent_launch_env(l, "CODEX_HOME", CODEX_HOME_INSIDE);
	agent_launch_env(l, CODEX_TOKEN_ENV, a->run.model_token);
	a->final_file = true;
	return ERR_OK;
}

static void copy_members(struct js *to, const struct js *from, const char *const *keys)
{
	for (; *keys; keys++)
		if (js_get(from, *keys))
			js_set(to, *keys, js_ref(js_get(from, *keys)));
}

static void on_command(struct agent *a, const struct js *item, bool done)
{
	struct js *o = js_object();
	free(a->open_command);
	a->open_command = done ? NULL : mem_strdup(js_str_or(item, "command", ""));
	js_set_str(o, "id", js_str(item, "id"));
	agent_set_text(o, "command", js_str_or(item, "command", ""));
	if (done) {
		const struct js *code = js_get(item, "exit_code");
		js_set(o, "exit_code", code ? js_ref(code) : js_null());
		js_set_str(o, "status", js_str(item, "status"));
		agent_set_text(o, "output", js_str_or(item, "aggregated_output", ""));
	} else {
		AUTO_FREE char *doing = mem_printf("running %s", js_str_or(item, "command", "a command"));
		agent_set_progress(a, doing);
	}
	agent_emit(a, done ? "command.finished" : "command.started", o);
}

static void on_message(struct agent *a, const struct js *item, bool done)
{
	const char *text = js_str_or(item, "text", "");
	if (!done)
		return;
	free(a->last_message);
	a->last_message = mem_strdup(text);
	if (text[0] != '{')
		agent_set_progress(a, text);
	struct js *o = js_object();
	agent_set_text(o, "text", text);
	agent_emit(a, "message.done", o);
}

static void on_reasoning(struct agent *a, const struct js *item, bool done)
{
	if (!done)
		return;
	struct js *o = js_object();
	agent_set_text(o, "text", js_str_or(item, "text", ""));
	agent_emit(a, "reasoning.done", o);
}

static void on_file_change(struct agent *a, const struct js *item, bool done)
{
	static const char *const keys[] = { "id", "changes", "status", NULL };
	if (!done)
		return;
	struct js *o = js_object();
	copy_members(o, item, keys);
	agent_emit(a, "file.changed", o);
}

/* Codex's list has no ids of its own: the place in the list is the step's id within this plan. */
static void on_todo_list(struct agent *a, const struct js *item, bool done UNUSED)
{
	struct js *o = js_object(), *list = js_array();
	const struct js *items = js_get(item, "items");
	for (size_t i = 0; i < js_len(items); i++) {
		struct js *step = js_object();
		AUTO_FREE char *id = mem_printf("%zu", i + 1);
		js_set_str(step, "id", id);
		js_set_str(step, "text", js_str(js_at(items, i), "text"));
		js_set_str(step, "status", js_flag(js_at(items, i), "completed", false) ? "completed" : "pending");
		js_push(list, step);
	}
	js_set(o, "items", list);
	agent_emit(a, "todo.snapshot", o);
}

static void on_tool(struct agent *a, const struct js *item, bool done)
{
	static const char *const keys[] = { "id", "server", "tool", "arguments", "query", "action", "result", "error", "status", "prompt",
		"agents_states", NULL };
	struct js *o = js_object();
	js_set_str(o, "kind", js_str(item, "type"));
	copy_members(o, item, keys);
	agent_emit(a, done ? "tool.finished" : "tool.started", o);
}

static void on_warning(struct agent *a, const struct js *item, bool done)
{
	if (!done)
		return;
	struct js *o = js_object();
	agent_set_text(o, "message", js_str_or(item, "message", ""));
	agent_emit(a, "agent.warning", o);
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

/* A refused request is told as the provider's whole answer; its message is what people want. */
static char *plain_words(const char *message)
{
	AUTO_JS struct js *v = message[0] == '{' ? js_parse(message, strlen(message), NULL) : NULL;
	const char *inner = js_str(js_get(v, "error"), "message");
	return mem_strdup(str_empty(inner) ? message : inner);
}

static void on_turn_completed(struct agent *a, const struct js *line)
{
	struct js *o = js_object();
	if (js_get(line, "usage"))
		js_set(o, "usage", js_ref(js_get(line, "usage")));
	js_set_str(o, "status", "completed");
	agent_emit(a, "run.turn", o);
	a->settled = true;
}

static void on_turn_failed(struct agent *a, const char *said)
{
	AUTO_FREE char *message = plain_words(said);
	struct js *o = js_object();
	js_set_str(o, "status", "failed");
	agent_set_text(o, "error", message);
	agent_emit(a, "run.turn", o);
	agent_fail(a, message);
	a->settled = true;
}

static void on_thread(struct agent *a, const struct js *line)
{
	free(a->session_id);
	a->session_id = mem_strdup(js_str(line, "thread_id"));
	struct js *o = js_object();
	js_set_str(o, "session", a->session_id);
	agent_emit(a, "run.session", o);
}

static void on_error(struct agent *a, const char *said)
{
	AUTO_FREE char *message = plain_words(said);
	struct js *o = js_object();
	agent_set_text(o, "message", message);
	agent_emit(a, "agent.error", o);
	if (!a->failed) { /* kept for an end without turn.failed */
		free(a->error);
		a->error = TAKE_PTR(message);
	}
}

static bool dispatch(struct agent *a, const struct js *line)
{
	const char *type = js_str_or(line, "type", "");
	if (str_starts(type, "item."))
		return on_item(a, type, js_get(line, "item"));
	if (str_eq(type, "thread.started"))
		on_thread(a, line);
	else if (str_eq(type, "turn.started"))
		agent_set_progress(a, "working");
	else if (str_eq(type, "turn.completed"))
		on_turn_completed(a, line);
	else if (str_eq(type, "turn.failed"))
		on_turn_failed(a, js_str_or(js_get(line, "error"), "message", "the turn failed"));
	else if (str_eq(type, "error"))
		on_error(a, js_str_or(line, "message", "an error without words"));
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
	AUTO_FREE char *dir = file_join(a->run.home, "codex");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(AGENT_FINAL_MAX);
	AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && a->final_file && !file_read_at(fd, LAST_MESSAGE, AGENT_FINAL_MAX, &text, NULL) && text.len)
		o->text = strbuf_detach(&text);
	else
		o->text = mem_strdup(a->last_message);
}

static void outcome_of_failure(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *o)
{
	o->status = AGENT_FAILED;
	if (a->failed) {
		o->reason = "agent_failed";
		o->error = mem_strdup(a->error);
		return;
	}
	o->reason = "agent_exited";
	o->error = mem_printf("Codex ended with status %d before its turn was over%s%s%s%s", exit_status, a->error ? ": " : "",
		a->error ? a->error : "", str_empty(stderr_tail) ? "" : "; it said: ", str_empty(stderr_tail) ? "" : stderr_tail);
}

void codex_exec_finish(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *o)
{
	static const enum agent_status of[] = { AGENT_SUCCESS, AGENT_BLOCKED, AGENT_FAILED };
	static const char *const words[] = { "success", "blocked", "failed" };
	if (!a->settled || a->failed) {
		outcome_of_failure(a, exit_status, stderr_tail, o);
		return;
	}
	struct error e = ERROR_INIT;
	read_last_message(a, o);
	o->final = agent_final_parse(o->text ? o->text : "", o->text ? strlen(o->text) : 0, &e);
	if (!o->final) {
		o->status = AGENT_FAILED;
		o->reason = "final_invalid";
		o->error = mem_strdup(e.text);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(of); i++)
		if (str_eq(js_str(o->final, "status"), words[i]))
			o->status = of[i];
	if (o->status == AGENT_FAILED) {
		o->reason = "agent_failed";
		o->error = mem_printf("the agent says that it failed: %s", js_str_or(o->final, "summary", ""));
	}
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
