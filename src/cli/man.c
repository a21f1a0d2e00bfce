/* Manual pages out of the tables: signalbox(1), and signalbox-VERB(1) for each command. */
#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/version.h"
#include <string.h>

/* Text as roff takes it: its own characters are escaped, lines that would be requests are not. */
static void add_text(struct strbuf *out, const char *s)
{
	bool line_start = true;
	for (; *s; s++) {
		if (line_start && (*s == '.' || *s == '\''))
			strbuf_adds(out, "\\&");
		line_start = *s == '\n';
		switch (*s) {
		case '\\': strbuf_adds(out, "\\(rs"); break;
		case '-': strbuf_adds(out, "\\-"); break;
		case '~': strbuf_adds(out, "\\(ti"); break;
		case '^': strbuf_adds(out, "\\(ha"); break;
		case '`': strbuf_adds(out, "\\(ga"); break;
		case '\'': strbuf_adds(out, "\\(aq"); break;
		default: strbuf_addc(out, *s);
		}
	}
}

/* Paragraphs as they stand: an indented line is a table's row and keeps its place. */
static void add_block(struct strbuf *out, const char *s)
{
	bool fixed = false;
	while (*s) {
		size_t n = strcspn(s, "\n");
		bool wants = *s == ' ';
		if (wants != fixed)
			strbuf_adds(out, wants ? ".nf\n" : ".fi\n");
		fixed = wants;
		struct strbuf line = STRBUF_INIT;
		strbuf_add(&line, s, n);
		add_text(out, n ? strbuf_str(&line) : ".PP");
		strbuf_release(&line);
		strbuf_addc(out, '\n');
		s += n + (s[n] == '\n');
	}
	if (fixed)
		strbuf_adds(out, ".fi\n");
}

static void add_title(struct strbuf *out, const char *name, const char *summary)
{
	strbuf_adds(out, ".\\\" made by signalbox help --man\n.TH ");
	for (const char *p = name; *p; p++)
		strbuf_addc(out, *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p);
	strbuf_adds(out, " 1 2026-11-20 \"signalbox " SIGNALBOX_VERSION "\" \"Signalbox\"\n.SH NAME\n");
	add_text(out, name);
	strbuf_adds(out, " \\- ");
	add_text(out, summary);
	strbuf_addc(out, '\n');
}

static void add_options(struct strbuf *out, const char *title, const struct opt *table)
{
	if (!table || !table->name)
		return;
	strbuf_addf(out, ".SH %s\n", title);
	for (const struct opt *o = table; o->name; o++) {
		strbuf_adds(out, ".TP\n\\fB");
		if (o->letter)
			strbuf_addf(out, "\\-%c\\fR, \\fB", o->letter);
		strbuf_adds(out, "\\-\\-");
		add_text(out, o->name);
		strbuf_adds(out, "\\fR");
		if (o->value) {
			strbuf_adds(out, " \\fI");
			add_text(out, o->value);
			strbuf_adds(out, "\\fR");
		}
		strbuf_addc(out, '\n');
		add_text(out, o->help);
		strbuf_addc(out, '\n');
	}
}

static void add_exit_status(struct strbuf *out)
{
	static const struct { const char *status, *meaning; } rows[] = {
		{ "0", "the task is DONE; the command succeeded" }, { "1", "ERROR" }, { "2", "usage" }, { "3", "CANCELED" }, { "4", "not allowed" },
		{ "5", "not found" }, { "6", "conflict: already settled, or the name is taken" }, { "7", "the server cannot be reached" },
		{ "8", "wait's own time is up, the task goes on" }, { "9", "a human is needed" }, { "124", "TIMEOUT" }, { "125", "the runner was lost" },
		{ "130", "Ctrl-C; the task goes on" },
	};
	strbuf_adds(out, ".SH EXIT STATUS\n");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		strbuf_addf(out, ".TP\n%s\n", rows[i].status);
		add_text(out, rows[i].meaning);
		strbuf_addc(out, '\n');
	}
}

static void add_environment(struct strbuf *out)
{
	strbuf_adds(out, ".SH ENVIRONMENT\n");
	for (int i = 0; i < SET_COUNT; i++) {
		strbuf_addf(out, ".TP\n.B %s\n", setting_defs[i].env);
		add_text(out, setting_defs[i].help);
		strbuf_addc(out, '\n');
	}
	strbuf_adds(out, ".SH FILES\n.TP\n.I \\(ti/.config/signalbox/config.yaml\nsettings of the command line and of your own server\n"
		".TP\n.I /etc/signalbox/config.yaml\nthe same for everybody\n"
		".TP\n.I \\(ti/.config/signalbox/servers.json\nservers that you have logged in to, with their tokens\n");
}

static void man_command(struct strbuf *out, const struct command *cmd)
{
	AUTO_STRBUF struct strbuf name = STRBUF_INIT;
	strbuf_addf(&name, "signalbox-%s", cmd->name);
	add_title(out, strbuf_str(&name), cmd->summary);
	strbuf_addf(out, ".SH SYNOPSIS\n.B signalbox %s\n", cmd->name);
	if (cmd->options)
		strbuf_adds(out, "[\\fIOPTIONS\\fR]\n");
	if (cmd->args[0]) {
		strbuf_adds(out, "\\fI");
		add_text(out, cmd->args);
		strbuf_adds(out, "\\fR\n");
	}
	if (cmd->details) {
		strbuf_adds(out, ".SH DESCRIPTION\n");
		add_block(out, cmd->details);
	}
	add_options(out, "OPTIONS", cmd->options);
	if (!cmd->daemon) {
		add_options(out, "OPTIONS OF EVERY COMMAND", global_options);
		add_exit_status(out);
	}
	strbuf_adds(out, ".SH SEE ALSO\n.BR signalbox (1)\n");
}

static void man_all(struct strbuf *out)
{
	add_title(out, "signalbox", "coding agents in sandboxes, on your repository; back comes a diff");
	strbuf_adds(out, ".SH SYNOPSIS\n.B signalbox\n\\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]\n.SH DESCRIPTION\n");
	add_text(out, "Takes a repository and a request, puts the code into an isolated sandbox, runs a coding agent on it, watches it, and hands back a diff "
		"with the whole record of how it came about. Data goes to standard output, talk to standard error; --json answers in JSON.");
	strbuf_addc(out, '\n');
	for (int group = 0; group < GROUP_COUNT; group++) {
		strbuf_adds(out, ".SH ");
		for (const char *p = command_groups[group]; *p; p++)
			strbuf_addc(out, *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p);
		strbuf_addc(out, '\n');
		for (const struct command *cmd = commands; cmd->name; cmd++) {
			if ((int)cmd->group != group)
				continue;
			strbuf_addf(out, ".TP\n.BR signalbox\\-%s (1)\n", cmd->name);
			add_text(out, cmd->summary);
			strbuf_addc(out, '\n');
		}
	}
	add_options(out, "OPTIONS OF EVERY COMMAND", global_options);
	add_environment(out);
	add_exit_status(out);
}

void man_page(struct strbuf *out, const struct command *cmd)
{
	if (cmd)
		man_command(out, cmd);
	else
		man_all(out);
}
