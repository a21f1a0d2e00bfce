/* Which words can follow, out of the tables: a command's first word, an option's value. */
#include "base/check.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "cli/completion.h"
#include <string.h>

/* Values that would not fit into the help's column as "a|b|c". */
static const struct { const char *option, *words; } values[] = {
	{ "approvals", "always on-request never" },
	{ "state", "RUNNING QUEUED WAITING DONE ERROR TIMEOUT CANCELED" },
	{ "require", "gates questions steer interrupt resume todos usage" },
};

/* "set NAME|ls|rm NAME" -> "set ls rm"; nothing when one of them is a placeholder. */
static bool add_first_words(struct strbuf *out, const char *text)
{
	AUTO_STRBUF struct strbuf words = STRBUF_INIT;
	while (*text) {
		size_t whole = strcspn(text, "|"), n = strcspn(text, " |");
		if (!n || strspn(text, "abcdefghijklmnopqrstuvwxyz-") < n)
			return false;
		strbuf_adds(&words, words.len ? " " : "");
		strbuf_add(&words, text, n);
		text += whole + (text[whole] == '|');
	}
	strbuf_adds(out, strbuf_str(&words));
	return true;
}

bool completion_add_values(const struct opt *o, struct strbuf *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		if (str_eq(values[i].option, o->name)) {
			strbuf_adds(out, values[i].words);
			return true;
		}
	return o->value && strchr(o->value, '|') && add_first_words(out, o->value);
}

bool completion_add_verbs(const struct command *cmd, struct strbuf *out)
{
	return strchr(cmd->args, '|') && add_first_words(out, cmd->args);
}
