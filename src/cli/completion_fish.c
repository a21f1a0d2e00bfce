/* Completion for fish and for zsh, out of the tables; both know descriptions, which bash does not. */
#include "base/cleanup.h"
#include "base/str.h"
#include "cli/completion.h"
#include <string.h>

/* 'text' for fish: backslash and quote are escaped within. */
static void add_fish(struct strbuf *out, const char *s)
{
	strbuf_addc(out, '\'');
	for (; *s; s++) {
		if (*s == '\'' || *s == '\\')
			strbuf_addc(out, '\\');
		strbuf_addc(out, *s);
	}
	strbuf_addc(out, '\'');
}

static void add_fish_value(struct strbuf *out, const struct opt *o)
{
	AUTO_STRBUF struct strbuf words = STRBUF_INIT;
	strbuf_adds(out, completion_is_file(o) ? " -r -F" : " -x");
	if (!completion_is_file(o) && completion_add_values(o, &words)) {
		strbuf_adds(out, " -a ");
		add_fish(out, strbuf_str(&words));
	}
}

static void add_fish_options(struct strbuf *out, const char *condition, const struct opt *table)
{
	for (; table && table->name; table++) {
		strbuf_addf(out, "complete -c signalbox%s -l %s", condition, table->name);
		if (table->letter)
			strbuf_addf(out, " -s %c", table->letter);
		if (table->type != OPT_FLAG)
			add_fish_value(out, table);
		strbuf_adds(out, " -d ");
		add_fish(out, table->help);
		strbuf_addc(out, '\n');
	}
}

/* The command is the first word that is no option: `secret rm` is not `rm`. */
void completion_fish(struct strbuf *out)
{
	strbuf_adds(out, "function __signalbox_list\n\tSIGNALBOX_AUTOSTART=0 signalbox $argv 2>/dev/null | cut -f1,2 | string split \\t | string match -r '^(?!-)[" COMPLETION_LETTERS "]+$'\nend\n"
		"function __signalbox_is\n\tset -l words (commandline -opc)\n\tset -l skip\n\tset -e words[1]\n\tfor word in $words\n\t\tif test -n \"$skip\"\n\t\t\tset skip\n\t\t\tcontinue\n\t\tend\n"
		"\t\tswitch $word\n\t\t\tcase ");
	completion_add_valued(out, ' ');
	strbuf_adds(out, "\n\t\t\t\tset skip 1\n\t\t\tcase '-*'\n\t\t\tcase '*'\n\t\t\t\ttest $word = $argv[1]\n\t\t\t\treturn\n\t\tend\n\tend\n\treturn 1\nend\n"
		"complete -c signalbox -f\n");
	for (const struct command *cmd = commands; cmd->name; cmd++) {
		strbuf_addf(out, "complete -c signalbox -n __fish_use_subcommand -a %s -d ", cmd->name);
		add_fish(out, cmd->summary);
		strbuf_addc(out, '\n');
		AUTO_STRBUF struct strbuf condition = STRBUF_INIT;
		strbuf_addf(&condition, " -n '__signalbox_is %s'", cmd->name);
		add_fish_options(out, strbuf_str(&condition), cmd->options);
		AUTO_STRBUF struct strbuf verbs = STRBUF_INIT;
		if (completion_add_verbs(cmd, &verbs))
			strbuf_addf(out, "complete -c signalbox -n '__signalbox_is %s; and not __fish_seen_subcommand_from %s' -a '%s'\n", cmd->name, strbuf_str(&verbs), strbuf_str(&verbs));
		if (completion_lister(cmd))
			strbuf_addf(out, "complete -c signalbox%s -a '(__signalbox_list %s)'\n", strbuf_str(&condition), completion_lister(cmd));
	}
	add_fish_options(out, "", global_options);
}

/* 'text' for zsh; within _describe a colon ends the word, within _arguments brackets end the help. */
static void add_zsh(struct strbuf *out, const char *s)
{
	for (; *s; s++) {
		if (*s == '\'')
			strbuf_adds(out, "'\\'");
		else if (strchr(":[]\\", *s))
			strbuf_addc(out, '\\');
		strbuf_addc(out, *s);
	}
}

static void add_zsh_option(struct strbuf *out, const struct opt *o, bool by_letter)
{
	bool repeats = o->type == OPT_LIST;
	strbuf_adds(out, repeats ? " '*" : " '");
	if (by_letter)
		strbuf_addf(out, "-%c[", o->letter);
	else
		strbuf_addf(out, "--%s%s[", o->name, o->type == OPT_FLAG ? "" : "=");
	add_zsh(out, o->help);
	strbuf_addc(out, ']');
	if (o->type != OPT_FLAG) {
		strbuf_addc(out, ':');
		add_zsh(out, o->value ? o->value : "value");
		AUTO_STRBUF struct strbuf words = STRBUF_INIT;
		if (!completion_is_file(o) && completion_add_values(o, &words))
			strbuf_addf(out, ":(%s)", strbuf_str(&words));
		else
			strbuf_adds(out, completion_is_file(o) ? ":_files" : ": ");
	}
	strbuf_addc(out, '\'');
}

static void add_zsh_options(struct strbuf *out, const struct opt *table)
{
	for (; table && table->name; table++) {
		add_zsh_option(out, table, false);
		if (table->letter)
			add_zsh_option(out, table, true);
	}
}

void completion_zsh(struct strbuf *out)
{
	strbuf_adds(out, "#compdef signalbox\n_signalbox_list()\n{\n\tlocal -a found\n\tfound=(${=\"$(SIGNALBOX_AUTOSTART=0 signalbox $1 2>/dev/null | cut -f1,2)\"})\n"
		"\tfound=(${${found:#*[^" COMPLETION_LETTERS "]*}:#-*})\n\tcompadd -a found\n}\n_signalbox()\n{\n\tlocal -a globals verbs\n\tlocal verb\n\tlocal -i i\n\tglobals=(");
	add_zsh_options(out, global_options);
	strbuf_adds(out, ")\n\tverbs=(");
	for (const struct command *cmd = commands; cmd->name; cmd++) {
		strbuf_addf(out, " '%s:", cmd->name);
		add_zsh(out, cmd->summary);
		strbuf_addc(out, '\'');
	}
	strbuf_adds(out, ")\n\tfor ((i = 2; i < CURRENT; i++)); do\n\t\tcase $words[i] in\n\t\t(");
	completion_add_valued(out, '|');
	strbuf_adds(out, ") ((i++)) ;;\n\t\t(-*) ;;\n\t\t(*) verb=$words[i]; break ;;\n\t\tesac\n\tdone\n\tcase $verb in\n\t'') _arguments -S $globals '1: :{_describe command verbs}' ;;\n");
	for (const struct command *cmd = commands; cmd->name; cmd++) {
		strbuf_addf(out, "\t%s) _arguments -S", cmd->name);
		if (!cmd->daemon)
			strbuf_adds(out, " $globals");
		add_zsh_options(out, cmd->options);
		const char *lister = completion_lister(cmd);
		AUTO_STRBUF struct strbuf verbs = STRBUF_INIT;
		strbuf_adds(out, " '1: :'");
		if (completion_add_verbs(cmd, &verbs))
			strbuf_addf(out, " '2: :(%s)'", strbuf_str(&verbs));
		strbuf_addf(out, " '*: :%s%s%s' ;;\n", lister ? "{_signalbox_list " : "_files", lister ? lister : "", lister ? "}" : "");
	}
	strbuf_adds(out, "\tesac\n}\n# autoloaded by its name, or evaluated\nif [ \"$funcstack[1]\" = _signalbox ]; then\n\t_signalbox \"$@\"\nelif (( $+functions[compdef] )); then\n\tcompdef _signalbox signalbox\nfi\n");
}
