/* What every adapter that talks tells, in our types of events. */
#include "agent/tell.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "agent/codex_home.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void tell_session(struct agent *a, const char *id)
{
	char *copy = mem_strdup(id);
	free(a->session_id);
	a->session_id = copy;
	struct js *o = js_object();
	js_set_str(o, "session", copy);
	agent_emit(a, "run.session", o);
}

void tell_command_started(struct agent *a, const char *item, const char *command)
{
	struct js *o = js_object();
	AUTO_FREE char *doing = mem_printf("running %s", str_empty(command) ? "a command" : command);
	agent_set_progress(a, doing);
	js_set_str(o, "id", item);
	agent_set_text(o, "command", command);
	agent_emit(a, "command.started", o);
}

void tell_command_finished(struct agent *a, const char *item, const char *command, const char *status, const struct js *exit_code, const char *output)
{
	struct js *o = js_object();
	js_set_str(o, "id", item);
	agent_set_text(o, "command", command);
	js_set(o, "exit_code", exit_code ? js_ref(exit_code) : js_null());
	js_set_str(o, "status", status);
	agent_set_text(o, "output", output);
	agent_emit(a, "command.finished", o);
}

void tell_message(struct agent *a, const char *item, const char *text)
{
	free(a->last_message);
	a->last_message = mem_strdup(text);
	if (text[0] != '{')
		agent_set_progress(a, text);
	struct js *o = js_object();
	js_set_str(o, "item", item);
	agent_set_text(o, "text", text);
	agent_emit(a, "message.done", o);
}

void tell_reasoning(struct agent *a, const char *text)
{
	struct js *o = js_object();
	agent_set_text(o, "text", text);
	agent_emit(a, "reasoning.done", o);
}

void tell_warning(struct agent *a, const char *text)
{
	struct js *o = js_object();
	agent_set_text(o, "message", text);
	agent_emit(a, "agent.warning", o);
}

char *tell_plain_words(const char *message)
{
	AUTO_JS struct js *v = message[0] == '{' ? js_parse(message, strlen(message), NULL) : NULL;
	const char *inner = js_str(js_get(v, "error"), "message");
	return mem_strdup(str_empty(inner) ? message : inner);
}

void tell_error(struct agent *a, const char *said, bool goes_on)
{
	AUTO_FREE char *message = tell_plain_words(said);
	struct js *o = js_object();
	agent_set_text(o, "message", message);
	if (goes_on)
		js_set_bool(o, "retrying", true);
	agent_emit(a, "agent.error", o);
	if (!a->failed) { /* kept for an end without turn.failed */
		free(a->error);
		a->error = TAKE_PTR(message);
	}
}

void tell_turn(struct agent *a, const char *status, const struct js *usage, const char *error)
{
	struct js *o = js_object();
	if (usage)
		js_set(o, "usage", js_ref(usage));
	js_set_str(o, "status", status);
	agent_set_text(o, "error", error);
	agent_emit(a, "run.turn", o);
}

static void set_bounded(struct js *o, const char *key, const struct js *value)
{
	AUTO_FREE char *text = js_dump(value);
	if (strlen(text) <= AGENT_TEXT_MAX)
		js_set(o, key, js_ref(value));
	else
		agent_set_text(o, key, text);
}

void tell_tool(struct agent *a, const char *kind, const struct js *item, const char *const *keys, bool done)
{
	struct js *o = js_object();
	js_set_str(o, "kind", kind);
	for (; *keys; keys++)
		if (js_get(item, *keys) && js_type(js_get(item, *keys)) != JS_NULL)
			set_bounded(o, *keys, js_get(item, *keys));
	agent_emit(a, done ? "tool.finished" : "tool.started", o);
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
