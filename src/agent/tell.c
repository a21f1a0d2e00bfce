/* What every adapter that talks tells, in our types of events. */
#include "agent/tell.h"
#include "agent/shell_inside.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdlib.h>
#include <string.h>

void tell_session(struct agent *a, const char *id)
{
	char *copy = mem_strdup(id);
	free(a->session_id);
	a->session_id = copy;
	struct js *o = js_object();
	js_set_str(o, "session", copy);
	agent_emit(a, "run.session", o);
}

/* The one word that this is to a shell; NULL when there are more, or none, or what a shell makes of it is not certain. */
static char *unquote(const char *s)
{
	struct shell_split doubts = { 0 };
	struct shell_text text = { .s = s, .len = strlen(s), .out = &doubts };
	struct shell_word word;
	if (text.len > SHELL_LINE_MAX)
		return NULL;
	shell_word_read(&text, &word);
	bool is_it = text.at == text.len && word.open == SHELL_PLAIN && !str_empty(word.text) && !doubts.why;
	shell_split_release(&doubts);
	if (!is_it)
		free(TAKE_PTR(word.text));
	return word.text;
}

/* Codex starts every command by /bin/bash -c '...'. */
char *tell_as_typed(const char *command)
{
	static const char *const places[] = { "", "/bin/", "/usr/bin/" }, *const shells[] = { "bash -c ", "bash -lc " };
	for (size_t p = 0; p < ARRAY_SIZE(places); p++)
		for (size_t i = 0; i < ARRAY_SIZE(shells); i++) {
			AUTO_FREE char *prefix = mem_printf("%s%s", places[p], shells[i]);
			char *inner = str_starts(command, prefix) ? unquote(command + strlen(prefix)) : NULL;
			if (inner)
				return inner;
		}
	return mem_strdup(command);
}

void tell_command_started(struct agent *a, const char *item, const char *command)
{
	struct js *o = js_object();
	AUTO_FREE char *typed = tell_as_typed(str_empty(command) ? "a command" : command);
	AUTO_FREE char *doing = mem_printf("running %s", typed);
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

void tell_given_up(struct agent *a, const char *what, const char *why)
{
	AUTO_FREE char *text = mem_printf("%s: %s", what, why);
	tell_turn(a, "failed", NULL, text);
	agent_fail(a, text);
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
