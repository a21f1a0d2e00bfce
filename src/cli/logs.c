/* logs: what the agent said and ran, as text; and the stable text files of a task. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/remote.h"
#include "cli/text.h"
#include "cli/view.h"
#include <inttypes.h>
#include <string.h>

#define LOG_MAX ((size_t)256 << 20)
#define PAGE_EVENTS 1000

const struct opt logs_options[] = {
	{ "follow", 'f', OPT_FLAG, NULL, "go on until the task has ended (the agent's log only)" },
	{ .name = NULL },
};

static const struct {
	const char *which, *file;
} files[] = { { "prompt", "prompt.txt" }, { "response", "llm_response.txt" }, { "setup", "setup.log" }, { "diff", "diff.patch" } };

/* Text of others: made harmless on a terminal, as it is in a pipe. */
static void print_text(const struct cli *c, const char *s, size_t n)
{
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(LOG_MAX * 2);
	if (c->out.tty)
		str_add_printable(&out, s, n);
	else
		strbuf_add(&out, s, n);
	if (n && s[n - 1] != '\n')
		strbuf_addc(&out, '\n');
	term_write(&c->out, &out);
}

static void print_command(const struct cli *c, const struct js *data)
{
	AUTO_STRBUF struct strbuf head = STRBUF_INIT;
	const char *output = js_str_or(data, "output", js_str(data, "output_tail"));
	view_add_prompt(&head, data);
	view_add_command(&head, js_str_or(data, "command", "?"));
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	term_add(&c->out, &line, COLOUR_BOLD, strbuf_str(&head));
	strbuf_addc(&line, '\n');
	term_write(&c->out, &line);
	if (!str_empty(output))
		print_text(c, output, strlen(output));
	int64_t code = js_i64(data, "exit_code", 0);
	if (code != 0) {
		AUTO_FREE char *words = mem_printf("[exit %" PRId64 "]", code);
		print_text(c, words, strlen(words));
	}
}

static void on_event(void *ctx, const struct js *event, const char *line, size_t len)
{
	const struct cli *c = ctx;
	const char *type = js_str_or(event, "type", "");
	const struct js *data = js_get(event, "data");
	const char *text = js_str_or(data, "text", js_str(data, "message"));
	if (c->json && !js_flag(event, "live", false)) {
		fwrite(line, 1, len, c->out.file);
		fputc('\n', c->out.file);
	} else if (str_eq(type, "command.finished")) {
		print_command(c, data);
	} else if ((str_eq(type, "message.done") || str_eq(type, "agent.error")) && text) {
		AUTO_JS struct js *final = view_final_answer(text);
		const char *words = final ? js_str(final, "summary") : text;
		print_text(c, words, strlen(words));
	}
}

static enum err_code print_agent(struct cli *c, const struct js *task, struct error *e)
{
	int64_t after = 0;
	for (;;) {
		AUTO_JS struct js *page = NULL;
		AUTO_FREE char *suffix = mem_printf("/events?limit=%d&after=%" PRId64, PAGE_EVENTS, after);
		AUTO_FREE char *path = remote_path(remote_id(task), suffix);
		int status = 0;
		enum err_code rc = client_call(c->client, "GET", path, NULL, &status, &page, e);
		if (rc)
			return rc;
		const struct js *data = js_get(page, "data");
		for (size_t i = 0; i < js_len(data); i++) {
			AUTO_FREE char *line = js_dump(js_at(data, i));
			on_event(c, js_at(data, i), line, strlen(line));
			after = js_i64(js_at(data, i), "seq", after);
		}
		if (!js_len(data) || js_type(js_get(page, "next_cursor")) != JS_INT)
			return ERR_OK;
	}
}

static enum err_code follow_agent(struct cli *c, const struct js *task, struct error *e)
{
	AUTO_JS struct js *settled = NULL;
	struct follow f = { .c = c, .task_id = remote_id(task), .on_event = on_event, .ctx = c, .past_waiting = true, .interrupted = interrupt_watch() };
	enum err_code rc = follow_task(&f, &settled, e);
	if (!rc)
		c->exit_status = remote_exit_status(settled);
	if (rc != ERR_CANCELED || !*f.interrupted)
		return rc;
	error_clear(e);
	cli_say(c, "stopped looking; the task goes on\n  again   signalbox logs -f %s", remote_label(task));
	c->exit_status = EXIT_DETACHED;
	return ERR_OK;
}

static enum err_code print_file(struct cli *c, const struct js *task, const char *file, struct error *e)
{
	AUTO_STRBUF struct strbuf path = STRBUF_INIT, text = STRBUF_LIMIT(LOG_MAX);
	int status = 0;
	strbuf_adds(&path, "/logs/");
	str_add_urlenc(&path, remote_id(task));
	strbuf_addf(&path, "/%s", file);
	enum err_code rc = client_get(c->client, strbuf_str(&path), "text/plain", &status, &text, e);
	if (rc)
		return rc;
	if (!c->json) {
		print_text(c, strbuf_str(&text), text.len);
		return ERR_OK;
	}
	AUTO_JS struct js *answer = js_object();
	js_set_str(answer, "file", file);
	js_set(answer, "text", js_string_n(strbuf_str(&text), text.len));
	cli_json(c, answer);
	return ERR_OK;
}

enum err_code cmd_logs(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	const char *which = c->arg_count > 1 ? c->args[1] : "agent", *file = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (str_eq(files[i].which, which))
			file = files[i].file;
	if (!file && !str_eq(which, "agent")) {
		error_set(e, ERR_USAGE, "there is no log '%s'", which);
		error_hint(e, "signalbox logs %s agent, prompt, setup, response or diff", c->args[0]);
		return ERR_USAGE;
	}
	if (file && cli_flag(c, "follow"))
		return error_set(e, ERR_USAGE, "-f follows the agent's log only; '%s' is complete when its step has ended", which);
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (rc)
		return rc;
	if (file)
		return print_file(c, task, file, e);
	return cli_flag(c, "follow") ? follow_agent(c, task, e) : print_agent(c, task, e);
}
