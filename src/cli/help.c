/* Help out of the tables. */
#include "base/cleanup.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/text.h"
#include <string.h>

#define NAME_COLUMN 12
#define OPTION_COLUMN 30

static void add_padded(const struct term *t, struct strbuf *out, enum colour colour, const char *s, size_t width)
{
	size_t n = strlen(s);
	strbuf_adds(out, "  ");
	term_add(t, out, colour, s);
	text_add_spaces(out, n < width ? width - n : 1);
}

static void add_group(const struct term *t, struct strbuf *out, enum command_group group)
{
	strbuf_addc(out, '\n');
	term_add(t, out, COLOUR_BOLD, command_groups[group]);
	strbuf_addc(out, '\n');
	for (const struct command *cmd = commands; cmd->name; cmd++) {
		if (cmd->group != group)
			continue;
		add_padded(t, out, COLOUR_CYAN, cmd->name, NAME_COLUMN);
		strbuf_addf(out, "%s\n", cmd->summary);
	}
}

static void add_option(const struct term *t, struct strbuf *out, const struct opt *o)
{
	AUTO_STRBUF struct strbuf words = STRBUF_INIT;
	if (o->letter)
		strbuf_addf(&words, "-%c, --%s", o->letter, o->name);
	else
		strbuf_addf(&words, "    --%s", o->name);
	if (o->value)
		strbuf_addf(&words, " %s", o->value);
	add_padded(t, out, COLOUR_CYAN, strbuf_str(&words), OPTION_COLUMN);
	strbuf_addf(out, "%s\n", o->help);
}

static void add_options(const struct term *t, struct strbuf *out, const char *title, const struct opt *table)
{
	if (!table)
		return;
	strbuf_addc(out, '\n');
	term_add(t, out, COLOUR_BOLD, title);
	strbuf_addc(out, '\n');
	for (; table->name; table++)
		add_option(t, out, table);
}

void help_all(const struct term *t)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	strbuf_adds(&out, "signalbox: coding agents in sandboxes, on your repository; back comes a diff.\n\n"
			  "  signalbox run \"fix the failing test\" --verify \"make test\"\n"
			  "  signalbox diff TASK; signalbox apply TASK\n");
	for (int group = 0; group < GROUP_COUNT; group++)
		add_group(t, &out, (enum command_group)group);
	add_options(t, &out, "Options of every command", global_options);
	strbuf_adds(&out, "\nMore about one: signalbox help COMMAND\n");
	term_write(t, &out);
}

void help_command(const struct term *t, const struct command *cmd)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	strbuf_addf(&out, "signalbox %s%s%s%s: %s\n", cmd->name, cmd->args[0] ? " " : "", cmd->args, cmd->options ? " [OPTIONS]" : "", cmd->summary);
	if (cmd->details)
		strbuf_addf(&out, "\n%s\n", cmd->details);
	add_options(t, &out, "Options", cmd->options);
	if (!cmd->daemon)
		add_options(t, &out, "Options of every command", global_options);
	term_write(t, &out);
}

const struct opt help_options[] = {
	{ "man", 0, OPT_FLAG, NULL, "as a manual page, for `man -l -`" },
	{ .name = NULL },
};

static void print_man(const struct cli *c, const struct command *cmd)
{
	AUTO_STRBUF struct strbuf page = STRBUF_INIT;
	man_page(&page, cmd);
	term_write(&c->out, &page);
}

enum err_code cmd_help(struct cli *c, struct error *e)
{
	const struct command *cmd = c->arg_count ? command_find(c->args[0]) : NULL;
	if (cli_flag(c, "man") && (cmd || !c->arg_count)) {
		print_man(c, cmd);
		return ERR_OK;
	}
	if (!c->arg_count) {
		help_all(&c->out);
		return ERR_OK;
	}
	if (!cmd) {
		const char *near = command_nearest(c->args[0]);
		AUTO_STRBUF struct strbuf shown = STRBUF_INIT;
		text_add_line(&shown, c->args[0]);
		error_set(e, ERR_USAGE, "there is no command '%s'", strbuf_str(&shown));
		error_hint(e, near ? "signalbox help %s" : "signalbox help", near);
		return ERR_USAGE;
	}
	help_command(&c->out, cmd);
	return ERR_OK;
}
