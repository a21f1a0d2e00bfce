/* Takes command lines apart as the policy of approvals does: lines from stdin, each ended by a zero byte; one line of JSON for each. */
#include "agent/shell.h"
#include "base/cleanup.h"
#include "base/js.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct js *word_js(const struct shell_word *w)
{
	struct js *o = js_object();
	js_set_str(o, "text", w->text);
	js_set_int(o, "open", w->open);
	js_set(o, "begins", js_string_n(w->text, w->fixed));
	return o;
}

static void print_split(const char *line, size_t len)
{
	struct shell_split split;
	AUTO_JS struct js *out = js_object();
	struct js *commands = js_array();
	shell_split(line, len, &split);
	for (size_t i = 0; i < split.count; i++) {
		struct js *command = js_object(), *words = js_array();
		for (size_t k = 0; k < split.commands[i].count; k++)
			js_push(words, word_js(&split.commands[i].words[k]));
		js_set(command, "words", words);
		js_set_int(command, "assigns", (int64_t)split.commands[i].assigns);
		js_set_bool(command, "wraps", split.commands[i].wraps);
		js_push(commands, command);
	}
	js_set_str(out, "why", split.why);
	js_set(out, "commands", commands);
	shell_split_release(&split);
	AUTO_FREE char *text = js_dump(out);
	puts(text);
}

int main(void)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	char part[65536];
	for (ssize_t n; (n = read(STDIN_FILENO, part, sizeof(part))) > 0;)
		strbuf_add(&in, part, (size_t)n);
	for (size_t at = 0; at < in.len;) {
		size_t n = strlen(in.data + at);
		print_split(in.data + at, n);
		at += n + 1;
	}
	return in.over;
}
