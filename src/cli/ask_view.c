/* Gates for people's eyes. Everything in them came from an agent: it passes through text_add_line and text_add_block. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/ask.h"
#include "cli/text.h"
#include "cli/view.h"
#include <string.h>

#define MATTER_INDENT 4

void ask_add_title(struct strbuf *out, const struct js *gate)
{
	const struct js *data = js_get(gate, "data"), *questions = ask_questions(gate);
	const char *first = js_str(js_at(questions, 0), "text");
	if (js_str(data, "command") && str_eq(js_str(gate, "kind"), "command"))
		view_add_command(out, js_str(data, "command"));
	else
		text_add_line(out, first ? first : js_str_or(data, "title", js_str_or(data, "message", js_str_or(data, "text", ""))));
	if (js_len(questions) > 1)
		strbuf_addf(out, " (and %zu more)", js_len(questions) - 1);
}

void ask_add_settled(struct strbuf *out, const struct js *gate)
{
	const struct js *decision = js_get(gate, "decision");
	text_add_line(out, js_str_or(gate, "state", "settled"));
	if (str_eq(js_str(decision, "scope"), "session"))
		strbuf_adds(out, " for the session");
	if (str_eq(js_str(decision, "decision"), "abort"))
		strbuf_adds(out, ", the turn ended");
	if (js_str(gate, "actor")) {
		strbuf_adds(out, " by ");
		text_add_line(out, js_str(gate, "actor"));
	}
	if (js_str(gate, "settled_at")) {
		strbuf_adds(out, " at ");
		text_add_line(out, js_str(gate, "settled_at"));
	}
}

static void add_block(struct strbuf *out, const char *before, const char *text)
{
	if (str_empty(text))
		return;
	text_add_spaces(out, MATTER_INDENT);
	strbuf_adds(out, before);
	text_add_block(out, text, MATTER_INDENT + strlen(before));
	strbuf_addc(out, '\n');
}

static void add_json(struct strbuf *out, const char *before, const struct js *value)
{
	AUTO_FREE char *text = value && js_type(value) != JS_NULL ? js_pretty(value) : NULL;
	add_block(out, before, text);
}

static void add_files(struct strbuf *out, const struct js *files)
{
	for (size_t i = 0; i < js_len(files); i++) {
		AUTO_STRBUF struct strbuf line = STRBUF_INIT;
		strbuf_addf(&line, "%s %s", js_str_or(js_at(files, i), "kind", "change"), js_str_or(js_at(files, i), "path", "?"));
		if (js_str(js_at(files, i), "move_path"))
			strbuf_addf(&line, " -> %s", js_str(js_at(files, i), "move_path"));
		add_block(out, "", strbuf_str(&line));
	}
}

static size_t count_lines(const char *text)
{
	size_t n = 0;
	for (; *text; text++)
		n += *text == '\n';
	return n;
}

static void add_diff(struct strbuf *out, const struct js *gate, size_t lines)
{
	const char *diff = js_str(js_get(gate, "data"), "diff");
	if (str_empty(diff))
		return;
	size_t all = count_lines(diff), shown = all < lines ? all : lines;
	const char *end = diff;
	for (size_t i = 0; i < shown; i++)
		end = strchr(end, '\n') + 1;
	AUTO_FREE char *head = shown < all ? mem_strndup(diff, (size_t)(end - diff)) : mem_strdup(diff);
	add_block(out, "", head);
	if (shown < all)
		strbuf_addf(out, "    ... %zu more lines: signalbox gates %s\n", all - shown, ask_id(gate));
}

void ask_add_matter(struct strbuf *out, const struct js *gate, size_t diff_lines)
{
	const struct js *data = js_get(gate, "data");
	add_block(out, "$ ", js_str(data, "command"));
	add_block(out, "in ", js_str(data, "cwd"));
	add_files(out, js_get(data, "files"));
	add_block(out, "wants to write below ", js_str(data, "root"));
	add_diff(out, gate, diff_lines);
	add_json(out, "wants ", js_get(data, "permissions"));
	add_block(out, "from ", js_str(data, "server"));
	add_block(out, "", js_str(data, "message"));
	add_block(out, "because ", js_str(data, "reason"));
	if (!js_len(ask_questions(gate)))
		add_block(out, "", js_str(data, "text"));
}

void ask_add_question(struct strbuf *out, const struct js *question, size_t number)
{
	const struct js *options = js_get(question, "options");
	AUTO_FREE char *before = number ? mem_printf("%zu. ", number) : mem_strdup("");
	const char *header = js_str(question, "header");
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	if (!str_empty(header) && !str_eq(header, js_str(question, "text")))
		strbuf_addf(&text, "%s: ", header);
	strbuf_adds(&text, js_str_or(question, "text", "?"));
	if (ask_is_secret(question))
		strbuf_adds(&text, " (secret)");
	if (ask_takes_several(question))
		strbuf_adds(&text, " (several)");
	add_block(out, before, strbuf_str(&text));
	for (size_t i = 0; i < js_len(options); i++) {
		const struct js *o = js_at(options, i);
		AUTO_FREE char *mark = mem_printf("  %zu) ", i + 1);
		AUTO_FREE char *line = mem_printf("%s%s%s", js_str_or(o, "label", "?"), str_empty(js_str(o, "description")) ? "" : "  - ", js_str_or(o, "description", ""));
		add_block(out, mark, line);
	}
}

static const struct {
	const char *choice, *command;
} replies[] = {
	{ "approve", "signalbox approve %s" }, { "approve_session", "signalbox approve --session %s" }, { "answer", "signalbox answer %s" },
	{ "reject", "signalbox reject %s" }, { "abort", "signalbox reject --abort %s" },
};

/* What goes behind `answer GATE`; questions by their numbers, since an id is the agent's and the line is one to be copied. */
static void add_answer_words(struct strbuf *out, const struct js *gate)
{
	const struct js *questions = ask_questions(gate);
	if (!js_len(questions))
		strbuf_adds(out, " --json-content FILE");
	else if (js_len(questions) == 1 && !ask_is_secret(js_at(questions, 0)))
		strbuf_adds(out, js_len(js_get(js_at(questions, 0), "options")) ? " NUMBER" : " TEXT");
	for (size_t i = 0; js_len(questions) > 1 && i < js_len(questions); i++)
		if (!ask_is_secret(js_at(questions, i)))
			strbuf_addf(out, " --set %zu=TEXT", i + 1);
}

void ask_add_replies(struct strbuf *out, const struct js *gate)
{
	for (size_t i = 0; i < ARRAY_SIZE(replies); i++) {
		const char *place = strstr(replies[i].command, "%s");
		if (!ask_takes(gate, replies[i].choice))
			continue;
		strbuf_adds(out, "    ");
		strbuf_add(out, replies[i].command, (size_t)(place - replies[i].command));
		text_add_line(out, ask_id(gate));
		if (str_eq(replies[i].choice, "answer"))
			add_answer_words(out, gate);
		strbuf_addc(out, '\n');
	}
}
