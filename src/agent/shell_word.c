/* One word of a shell's line: quotes are taken off, escapes decoded, and what the shell would expand makes the word open. */
#include "agent/shell_inside.h"
#include "base/cleanup.h"
#include "base/str.h"
#include <string.h>

#define OCTAL_DIGITS_MAX 3
#define HEX_DIGITS_MAX 2

struct building {
	struct strbuf text;
	struct shell_word *word;
	bool fixed_set, quoted, bracket;
	size_t bracket_at; /* of the first [ */
};

static void open_here(struct building *b, enum shell_open how)
{
	if (!b->fixed_set)
		b->word->fixed = b->text.len;
	b->fixed_set = true;
	if (how > b->word->open)
		b->word->open = how;
}

static void take(struct shell_text *t, struct building *b, size_t n)
{
	strbuf_add(&b->text, t->s + t->at, n);
	t->at += n;
}

static void read_single(struct shell_text *t, struct building *b)
{
	const char *end = memchr(t->s + t->at + 1, '\'', t->len - t->at - 1);
	b->quoted = true;
	t->at++;
	if (!end) {
		shell_doubt(t->out, "a quote is not closed");
		take(t, b, t->len - t->at);
		return;
	}
	take(t, b, (size_t)(end - (t->s + t->at)));
	t->at++;
}

static int digit_value(int c, int base)
{
	int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : base;
	return v < base ? v : -1;
}

static void ansi_number(struct shell_text *t, struct building *b, int base, int digits)
{
	int value = 0, n = 0;
	while (n < digits && shell_peek(t, 0) >= 0 && digit_value(shell_peek(t, 0), base) >= 0) {
		value = value * base + digit_value(shell_peek(t, 0), base);
		t->at++;
		n++;
	}
	if (n == 0 || (value & 0xff) == 0 || (value & 0xff) == SHELL_MARK_1 || (value & 0xff) == SHELL_MARK_2)
		shell_doubt(t->out, "an escape that is not plain");
	else
		strbuf_addc(&b->text, (char)(value & 0xff));
}

/* After the backslash inside $'...'. */
static void ansi_escape(struct shell_text *t, struct building *b)
{
	static const char from[] = "abeEfnrtv\\'\"?", to[] = "\a\b\033\033\f\n\r\t\v\\'\"?";
	int c = shell_peek(t, 0);
	const char *known = c > 0 ? strchr(from, c) : NULL;
	if (known) {
		strbuf_addc(&b->text, to[known - from]);
		t->at++;
	} else if (c >= '0' && c <= '7') {
		ansi_number(t, b, 8, OCTAL_DIGITS_MAX);
	} else if (c == 'x') {
		t->at++;
		ansi_number(t, b, 16, HEX_DIGITS_MAX);
	} else {
		if (c < 0 || c == 'u' || c == 'U' || c == 'c')
			shell_doubt(t->out, "an escape that is not plain");
		strbuf_addc(&b->text, '\\');
	}
}

static void read_ansi(struct shell_text *t, struct building *b)
{
	b->quoted = true;
	if (t->posix)
		shell_doubt(t->out, "$'...' means something else to a plain sh");
	t->at += 2;
	while (t->at < t->len && t->s[t->at] != '\'') {
		if (t->s[t->at] != '\\') {
			take(t, b, 1);
			continue;
		}
		t->at++;
		ansi_escape(t, b);
	}
	if (t->at >= t->len)
		shell_doubt(t->out, "a quote is not closed");
	else
		t->at++;
}

/* Between backquotes the text has a level of backslashes of its own. */
static void read_backquoted(struct shell_text *t, struct building *b, bool quoted)
{
	AUTO_STRBUF struct strbuf inner = STRBUF_LIMIT(SHELL_LINE_MAX);
	shell_doubt(t->out, "a command substitution");
	open_here(b, quoted ? SHELL_ONE : SHELL_MANY);
	t->at++;
	while (t->at < t->len && t->s[t->at] != '`') {
		if (t->s[t->at] == '\\' && t->at + 1 < t->len && strchr("`\\$", t->s[t->at + 1]))
			t->at++;
		strbuf_addc(&inner, t->s[t->at++]);
	}
	t->at += t->at < t->len;
	shell_inner(t->out, strbuf_str(&inner), inner.len, t->posix, t->depth + 1);
}

static void read_substitution(struct shell_text *t, struct building *b, bool quoted)
{
	shell_doubt(t->out, "a command substitution");
	open_here(b, quoted ? SHELL_ONE : SHELL_MANY);
	t->at += 2;
	if (++t->depth <= SHELL_DEPTH_MAX)
		shell_list(t, ')');
	t->depth--;
}

static void read_variable(struct shell_text *t, struct building *b, size_t sigil, bool quoted)
{
	size_t n = sigil;
	open_here(b, !quoted || t->s[t->at + sigil] == '@' ? SHELL_MANY : SHELL_ONE);
	if (shell_is_name(shell_peek(t, n), true))
		while (shell_is_name(shell_peek(t, n), false))
			n++;
	else
		n++;
	if (sigil == 2 && shell_peek(t, n) != '}')
		shell_doubt(t->out, "an expansion that is not a plain variable");
	else if (sigil == 2)
		n++;
	take(t, b, n);
}

static void read_dollar(struct shell_text *t, struct building *b, bool quoted)
{
	int next = shell_peek(t, 1);
	bool special = next > 0 && (strchr("@*#?-$!", next) || (next >= '0' && next <= '9'));
	if (next == '(') {
		read_substitution(t, b, quoted);
	} else if (next == '{' && shell_is_name(shell_peek(t, 2), true)) {
		read_variable(t, b, 2, quoted);
	} else if (shell_is_name(next, true) || special) {
		read_variable(t, b, 1, quoted);
	} else if (next == '\'' && !quoted) {
		read_ansi(t, b);
	} else {
		if (next == '{' || next == '[' || (next == '"' && !quoted) || shell_joins(t, 1)) {
			shell_doubt(t->out, "an expansion that is not a plain variable");
			open_here(b, SHELL_MANY);
		}
		take(t, b, 1);
	}
}

static void read_escape(struct shell_text *t, struct building *b, bool quoted)
{
	int next = shell_peek(t, 1);
	if (next == '\n') {
		b->word->joined = true;
		t->at += 2;
	} else if (next < 0) {
		shell_doubt(t->out, "it ends with a backslash");
		t->at++;
	} else if (quoted && !strchr("$`\"\\", next)) {
		take(t, b, 2);
	} else {
		b->quoted = true;
		t->at++;
		take(t, b, 1);
	}
}

static void read_double(struct shell_text *t, struct building *b)
{
	b->quoted = true;
	t->at++;
	while (t->at < t->len && t->s[t->at] != '"') {
		switch (t->s[t->at]) {
		case '\\':
			read_escape(t, b, true);
			break;
		case '$':
			read_dollar(t, b, true);
			break;
		case '`':
			read_backquoted(t, b, true);
			break;
		default:
			take(t, b, 1);
		}
	}
	if (t->at >= t->len)
		shell_doubt(t->out, "a quote is not closed");
	else
		t->at++;
}

static bool may_assign(const struct building *b)
{
	size_t n = b->text.len;
	const char *s = strbuf_str(&b->text);
	if (b->quoted || b->word->assign || b->word->open || n == 0)
		return false;
	if (n > 1 && s[n - 1] == '+')
		n--;
	for (size_t i = 0; i < n; i++)
		if (!shell_is_name((unsigned char)s[i], i == 0))
			return false;
	return true;
}

static void open_bracket(struct building *b)
{
	b->bracket = true;
	b->bracket_at = b->text.len;
	b->word->subscript = may_assign(b);
}

/* An unquoted byte that is not a quote and ends no word. */
static void read_plain(struct shell_text *t, struct building *b)
{
	char c = t->s[t->at];
	char before = b->text.len ? b->text.data[b->text.len - 1] : 0;
	if (c == '*' || c == '?')
		open_here(b, SHELL_MANY);
	else if (c == '{')
		open_here(b, SHELL_MANY);
	else if (c == '~' && (b->text.len == 0 || before == '=' || before == ':'))
		open_here(b, SHELL_ONE);
	else if (c == '[' && !b->bracket)
		open_bracket(b);
	else if (c == '=' && may_assign(b))
		b->word->assign = b->text.len;
	take(t, b, 1);
}

static void read_part(struct shell_text *t, struct building *b)
{
	switch (t->s[t->at]) {
	case '\\':
		read_escape(t, b, false);
		break;
	case '\'':
		read_single(t, b);
		break;
	case '"':
		read_double(t, b);
		break;
	case '$':
		read_dollar(t, b, false);
		break;
	case '`':
		read_backquoted(t, b, false);
		break;
	default:
		read_plain(t, b);
	}
}

void shell_word_read(struct shell_text *t, struct shell_word *ret)
{
	struct building b = { .text = STRBUF_LIMIT(SHELL_LINE_MAX), .word = ret };
	*ret = (struct shell_word){ .text = NULL };
	while (t->at < t->len && !strchr(" \t\n;&|<>()", t->s[t->at]))
		read_part(t, &b);
	ret->bare = !b.quoted;
	/* {} is itself to a shell, and so is a brace alone. */
	if (ret->bare && (str_eq(strbuf_str(&b.text), "{}") || str_eq(strbuf_str(&b.text), "{")))
		ret->open = SHELL_PLAIN;
	/* [ alone is a command's name; with any ] after it, a pattern. */
	if (b.bracket && strchr(strbuf_str(&b.text) + b.bracket_at, ']')) {
		open_here(&b, SHELL_MANY);
		ret->fixed = ret->fixed < b.bracket_at ? ret->fixed : b.bracket_at;
	}
	if (ret->open == SHELL_PLAIN)
		ret->fixed = b.text.len;
	ret->text = strbuf_detach(&b.text);
}
