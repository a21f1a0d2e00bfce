/* completion: a script for the shell, out of the tables. */
#include "base/cleanup.h"
#include "base/str.h"
#include "cli/completion.h"
#include <string.h>

static void add_option_words(struct strbuf *out, const struct opt *table)
{
	for (; table && table->name; table++)
		strbuf_addf(out, " --%s", table->name);
}

bool completion_is_file(const struct opt *o)
{
	return o->value && (strstr(o->value, "FILE") || strstr(o->value, "DIR") || strstr(o->value, "SOCKET"));
}

/* Options whose value is a file or a directory: bash's own completion serves them. */
static void add_file_options(struct strbuf *out, const struct opt *table)
{
	for (; table && table->name; table++)
		if (completion_is_file(table))
			strbuf_addf(out, "%s--%s", out->len ? "|" : "", table->name);
}

/* A case for each option whose values are known, and one for all the others that take one: what follows those is no task. */
static void add_value_cases(struct strbuf *out, struct strbuf *others, const struct opt *table)
{
	for (const struct opt *o = table; o && o->name; o++) {
		AUTO_STRBUF struct strbuf words = STRBUF_INIT, name = STRBUF_INIT;
		strbuf_addf(&name, "--%s)", o->name);
		if (o->type == OPT_FLAG || completion_is_file(o) || (out->len && strstr(strbuf_str(out), strbuf_str(&name))))
			continue;
		if (completion_add_values(o, &words))
			strbuf_addf(out, "\t%s COMPREPLY=($(compgen -W \"%s\" -- \"$current\")); return;;\n", strbuf_str(&name), strbuf_str(&words));
		else
			strbuf_addf(others, "%s--%s", others->len ? "|" : "", o->name);
	}
}

static void add_values(struct strbuf *out)
{
	AUTO_STRBUF struct strbuf cases = STRBUF_INIT, others = STRBUF_INIT;
	for (const struct command *cmd = commands; cmd->name; cmd++)
		if (cmd->options != submit_options || str_eq(cmd->name, "run"))
			add_value_cases(&cases, &others, cmd->options);
	add_value_cases(&cases, &others, global_options);
	strbuf_addf(out, "\tcase $previous in\n%s\t%s) return;;\n\tesac\n", strbuf_str(&cases), strbuf_str(&others));
}

const char *completion_lister(const struct command *cmd)
{
	if (str_starts(cmd->args, "GATE") || str_starts(cmd->args, "[GATE"))
		return "gates";
	return str_starts(cmd->args, "TASK") ? "ls" : NULL;
}

const char *completion_columns(const char *lister)
{
	return str_eq(lister, "secret") ? "1" : str_eq(lister, "context") ? "2" : "1,2";
}

/* Names were chosen by others, and `compgen -W` would run the commands that stand in them: they are only compared here, and those of harmless letters offered. */
static const char offer_function[] =
	"_signalbox_offer()\n{\n\tlocal word columns=$1\n\tshift\n\twhile IFS= read -r word; do\n"
	"\t\tcase $word in '' | -* | *[!" COMPLETION_LETTERS "]*) continue;; esac\n"
	"\t\t[[ $word == \"$current\"* ]] && COMPREPLY+=(\"$word\")\n"
	"\tdone <<< \"$(SIGNALBOX_AUTOSTART=0 signalbox \"$@\" 2>/dev/null | cut -f\"$columns\" | tr '\\t' '\\n')\"\n}\n";

static void add_cases(struct strbuf *out)
{
	for (const struct command *cmd = commands; cmd->name; cmd++) {
		strbuf_addf(out, "\t%s) words=\"", cmd->name);
		AUTO_STRBUF struct strbuf words = STRBUF_INIT;
		add_option_words(&words, cmd->options);
		const char *lister = completion_lister(cmd);
		AUTO_STRBUF struct strbuf verbs = STRBUF_INIT;
		strbuf_addf(out, "%s\"; lister=%s", words.len ? strbuf_str(&words) + 1 : "", lister ? lister : "");
		if (lister)
			strbuf_addf(out, "; columns=%s", completion_columns(lister));
		if (completion_add_verbs(cmd, &verbs))
			strbuf_addf(out, "; verbs=\"%s\"; columns=%s", strbuf_str(&verbs), completion_columns(cmd->name));
		strbuf_adds(out, ";;\n");
	}
}

void completion_add_valued(struct strbuf *out, char between)
{
	const char *mark = "";
	char next[2] = { between, 0 };
	for (const struct opt *o = global_options; o->name; o++)
		if (o->type != OPT_FLAG) {
			strbuf_addf(out, "%s--%s", mark, o->name);
			mark = next;
		}
}

void completion_bash(struct strbuf *out)
{
	AUTO_STRBUF struct strbuf files = STRBUF_INIT;
	for (const struct command *cmd = commands; cmd->name; cmd++)
		if (cmd->options != submit_options || str_eq(cmd->name, "run"))
			add_file_options(&files, cmd->options);
	add_file_options(&files, global_options);
	strbuf_adds(out, offer_function);
	strbuf_adds(out, "_signalbox()\n{\n\tlocal current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} verb= verbs= words= lister= columns= i\n\tCOMPREPLY=()\n"
			 "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n\t\tcase ${COMP_WORDS[i]} in\n\t\t");
	completion_add_valued(out, '|');
	strbuf_addf(out, ") ((i++));;\n\t\t-*) ;;\n\t\t*) verb=${COMP_WORDS[i]}; break;;\n\t\tesac\n\tdone\n"
			 "\tcase $previous in %s) COMPREPLY=($(compgen -f -- \"$current\")); return;; esac\n", strbuf_str(&files));
	add_values(out);
	strbuf_adds(out, "\tcase $verb in\n\t'') words=\"");
	for (const struct command *cmd = commands; cmd->name; cmd++)
		strbuf_addf(out, "%s%s", cmd == commands ? "" : " ", cmd->name);
	strbuf_adds(out, "\";;\n\thelp) words=\"");
	for (const struct command *cmd = commands; cmd->name; cmd++)
		strbuf_addf(out, "%s%s", cmd == commands ? "" : " ", cmd->name);
	strbuf_adds(out, "\";;\n");
	add_cases(out);
	/* `rm` and its like take what the command's own `ls` tells. */
	strbuf_adds(out, "\tesac\n\tif [ -n \"$verbs\" ] && [[ $current != -* ]]; then\n\t\twords=$verbs\n\t\tif ((COMP_CWORD > i + 1)); then\n"
			 "\t\t\t[[ \" $verbs \" == *' ls '* ]] && _signalbox_offer $columns $verb ls\n\t\t\treturn\n\t\tfi\n"
			 "\telif [ -n \"$lister\" ] && [[ $current != -* ]]; then\n\t\t_signalbox_offer $columns $lister\n\t\treturn\n"
			 "\telif [[ $current == -* ]]; then\n\t\twords+=\"");
	AUTO_STRBUF struct strbuf globals = STRBUF_INIT;
	add_option_words(&globals, global_options);
	strbuf_adds(out, strbuf_str(&globals));
	strbuf_adds(out, "\"\n\tfi\n\tCOMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n}\ncomplete -o default -F _signalbox signalbox\n");
}

enum err_code cmd_completion(struct cli *c, struct error *e)
{
	static const struct { const char *shell; void (*make)(struct strbuf *out); } shells[] = {
		{ "bash", completion_bash }, { "zsh", completion_zsh }, { "fish", completion_fish },
	};
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	const char *shell = c->arg_count ? c->args[0] : "bash";
	for (size_t i = 0; i < ARRAY_SIZE(shells); i++)
		if (str_eq(shells[i].shell, shell)) {
			shells[i].make(&out);
			term_write(&c->out, &out);
			return ERR_OK;
		}
	error_set(e, ERR_USAGE, "there is no completion for '%s'", shell);
	error_hint(e, "signalbox completion bash, zsh or fish");
	return ERR_USAGE;
}
