/* Adapter `command`: any program.  Its output lines become message.done events, several lines that came together as one; its exit code
 * is the outcome, unless it wrote a final answer to $SIGNALBOX_FINAL.  Without a configured command the prompt is run by /bin/sh. */
#include "agent/backend.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define COMMAND_FINAL "final.json"
#define COMMAND_PROMPT "prompt.txt"
#define COMMAND_INSIDE "/home/agent/"
#define COMMAND_BATCH_MAX ((size_t)8 << 10) /* bytes of output lines in one event */

static enum err_code command_check(struct js *agent, const char *codex_path UNUSED, struct error *e)
{
	const struct js *argv = js_get(agent, "command");
	if (!argv)
		return ERR_OK;
	if (js_type(argv) != JS_ARRAY || js_len(argv) == 0 || js_len(argv) >= AGENT_ARGS_MAX) /* env may come before it */
		return error_set(e, ERR_INVALID, "agent command: expected a list of 1 to %d strings", AGENT_ARGS_MAX - 1);
	for (size_t i = 0; i < js_len(argv); i++)
		if (!js_text(js_at(argv, i)))
			return error_set(e, ERR_INVALID, "agent command[%zu]: expected a string", i);
	return ERR_OK;
}

static enum err_code command_prepare(struct agent *a, struct agent_launch *l, struct error *e)
{
	AUTO_FREE char *prompt = file_join(a->run.home, COMMAND_PROMPT);
	AUTO_FREE char *final = file_join(a->run.home, COMMAND_FINAL);
	enum err_code rc = file_replace(prompt, a->run.prompt, strlen(a->run.prompt), 0600, FILE_NOSYNC, e);
	if (rc)
		return rc;
	unlink(final);
	const struct js *argv = js_get(a->run.agent, "command");
	const char *program = js_text(js_at(argv, 0));
	AUTO_FREE char *relative = program && program[0] != '/' && strchr(program, '/') ? mem_printf("/workspace/%s", program) : NULL;
	if (program && !strchr(program, '/'))
		agent_launch_arg(l, "/usr/bin/env"); /* looks along the sandbox's PATH */
	if (program)
		agent_launch_arg(l, relative ? relative : program);
	for (size_t i = 1; i < js_len(argv); i++)
		agent_launch_arg(l, js_text(js_at(argv, i)));
	if (!argv) {
		agent_launch_arg(l, "/bin/sh");
		agent_launch_arg(l, "-c");
		agent_launch_arg(l, js_str_or(a->run.agent, "shell", a->run.prompt));
	}
	agent_launch_env(l, "SIGNALBOX_PROMPT", COMMAND_INSIDE COMMAND_PROMPT);
	agent_launch_env(l, "SIGNALBOX_FINAL", COMMAND_INSIDE COMMAND_FINAL);
	agent_launch_env(l, "OPENAI_BASE_URL", a->run.model_url);
	agent_launch_env(l, "OPENAI_API_KEY", a->run.model_token);
	a->final_file = true;
	return ERR_OK;
}

static void flush(struct agent *a)
{
	if (!a->pending.len)
		return;
	struct js *o = js_object();
	js_set(o, "text", js_string_n(a->pending.data, a->pending.len));
	strbuf_reset(&a->pending);
	agent_emit(a, "message.done", o);
}

static void command_line(struct agent *a, const char *line, size_t len)
{
	if (!str_is_utf8(line, len) || memchr(line, 0, len)) {
		flush(a);
		agent_emit_raw(a, line, len);
		return;
	}
	if (a->pending.len + len + 1 > COMMAND_BATCH_MAX)
		flush(a);
	if (a->pending.len)
		strbuf_addc(&a->pending, '\n');
	size_t kept = len < AGENT_TEXT_MAX ? len : AGENT_TEXT_MAX;
	strbuf_add(&a->pending, line, kept);
	free(a->last_message);
	a->last_message = mem_strndup(line, kept);
	agent_set_progress(a, a->last_message);
}

static void read_final(struct agent *a, struct agent_outcome *o)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(AGENT_FINAL_MAX);
	AUTO_CLOSE int fd = open(a->run.home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct error e = ERROR_INIT;
	enum err_code rc = fd < 0 ? ERR_NOT_FOUND : file_read_at(fd, COMMAND_FINAL, AGENT_FINAL_MAX, &text, &e);
	if (rc == ERR_NOT_FOUND)
		return;
	if (!rc)
		o->final = agent_final_parse(strbuf_str(&text), text.len, &e);
	if (!o->final) {
		o->status = AGENT_FAILED;
		o->reason = "final_invalid";
		o->error = mem_strdup(e.text);
		return;
	}
	o->text = strbuf_detach(&text);
	const char *status = js_str(o->final, "status");
	o->status = str_eq(status, "blocked") ? AGENT_BLOCKED : str_eq(status, "failed") ? AGENT_FAILED : AGENT_SUCCESS;
	if (o->status == AGENT_FAILED) {
		o->reason = "agent_failed";
		o->error = mem_printf("the agent says that it failed: %s", js_str_or(o->final, "summary", ""));
	}
}

static void command_finish(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *o)
{
	if (exit_status != 0) {
		o->status = AGENT_FAILED;
		o->reason = "agent_exited";
		o->error = exit_status > 128 ? mem_printf("the command was ended by signal %d", exit_status - 128)
					     : mem_printf("the command ended with status %d%s%s", exit_status,
						       str_empty(stderr_tail) ? "" : ": ", str_empty(stderr_tail) ? "" : stderr_tail);
		return;
	}
	read_final(a, o);
}

const struct agent_backend agent_command = {
	.name = "command",
	.capabilities = "interrupt",
	.check = command_check,
	.prepare = command_prepare,
	.line = command_line,
	.batch_end = flush,
	.finish = command_finish,
};
