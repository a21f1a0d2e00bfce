/* Lists, pipes, groups and redirections of a shell's line.  Reads on after a doubt, so that rules which refuse see as much as can be seen. */
#include "agent/shell.h"
#include "agent/shell_inside.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

void shell_doubt(struct shell_split *out, const char *why)
{
	if (!out->why)
		out->why = mem_strdup(why);
}

int shell_peek(const struct shell_text *t, size_t ahead)
{
	return t->at + ahead < t->len ? (unsigned char)t->s[t->at + ahead] : -1;
}

bool shell_joins(const struct shell_text *t, size_t ahead)
{
	return shell_peek(t, ahead) == '\\' && shell_peek(t, ahead + 1) == '\n';
}

bool shell_is_name(int c, bool first)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (!first && c >= '0' && c <= '9');
}

void shell_command_release(struct shell_command *c)
{
	for (size_t i = 0; i < c->count; i++)
		free(c->words[i].text);
	free(c->words);
	*c = (struct shell_command){ .words = NULL };
}

void shell_split_release(struct shell_split *s)
{
	for (size_t i = 0; i < s->count; i++)
		shell_command_release(&s->commands[i]);
	free(s->commands);
	free(s->why);
	*s = (struct shell_split){ .commands = NULL };
}

void shell_command_add(struct shell_split *out, struct shell_command *c, struct shell_word *taken)
{
	if (++out->words > SHELL_WORDS_MAX) {
		shell_doubt(out, "it has too many words");
		free(taken->text);
		return;
	}
	if (c->count == c->cap) {
		c->cap = c->cap ? c->cap * 2 : 8;
		c->words = mem_grow(c->words, c->cap * sizeof(*c->words));
	}
	c->words[c->count++] = *taken;
}

static void skip_comment(struct shell_text *t)
{
	while (t->at < t->len && t->s[t->at] != '\n')
		t->at++;
}

static void skip_blanks(struct shell_text *t)
{
	for (;; t->at++) {
		int c = shell_peek(t, 0);
		if (shell_joins(t, 0)) {
			t->at++;
			if (shell_peek(t, 1) == '#')
				shell_doubt(t->out, "a comment after a continued line");
		} else if (c != ' ' && c != '\t') {
			return;
		}
	}
}

/* Steps over an operator's byte. An operator that goes on behind a continued line would be read wrongly. */
static void step_operator(struct shell_text *t, size_t n)
{
	t->at += n;
	if (shell_joins(t, 0))
		shell_doubt(t->out, "an operator at the end of a continued line");
}

static bool line_is(const char *line, size_t len, const char *word)
{
	while (len && *line == '\t') {
		line++;
		len--;
	}
	return strlen(word) == len && memcmp(line, word, len) == 0;
}

/* After a newline: the texts of here-documents are no commands. */
static void skip_heredocs(struct shell_text *t)
{
	for (int i = 0; i < t->heredoc_count; i++) {
		bool end = false;
		while (t->at < t->len && !end) {
			const char *line = t->s + t->at;
			const char *newline = memchr(line, '\n', t->len - t->at);
			size_t n = newline ? (size_t)(newline - line) : t->len - t->at;
			end = line_is(line, n, t->heredocs[i]);
			t->at += n + (newline != NULL);
		}
		free(t->heredocs[i]);
	}
	t->heredoc_count = 0;
}

static void begin_heredoc(struct shell_text *t)
{
	struct shell_word end;
	step_operator(t, shell_peek(t, 2) == '-' ? 3 : 2);
	skip_blanks(t);
	shell_word_read(t, &end);
	shell_doubt(t->out, "a here-document");
	if (t->heredoc_count < SHELL_HEREDOCS_MAX)
		t->heredocs[t->heredoc_count++] = end.text;
	else
		free(end.text);
}

/* > >> >| < &> with their target, and >&1. */
static void read_target(struct shell_text *t, size_t op, bool duplicates)
{
	struct shell_word target;
	step_operator(t, op);
	skip_blanks(t);
	shell_word_read(t, &target);
	bool fits = duplicates ? (str_eq(target.text, "1") || str_eq(target.text, "2")) && target.bare : str_eq(target.text, "/dev/null");
	if (!fits || target.open != SHELL_PLAIN || target.joined)
		shell_doubt(t->out, "a redirection");
	free(target.text);
}

static void read_redirection(struct shell_text *t)
{
	int c = shell_peek(t, 0), next = shell_peek(t, 1);
	if (c == '&' && t->posix)
		shell_doubt(t->out, "a redirection");
	if (next == '(' && c != '&') {
		shell_doubt(t->out, "a process substitution");
		t->at += 2;
		if (++t->depth <= SHELL_DEPTH_MAX)
			shell_list(t, ')');
		t->depth--;
	} else if (c == '<' && next == '<' && shell_peek(t, 2) != '<') {
		begin_heredoc(t);
	} else if (c == '<' && (next == '<' || next == '&' || next == '>')) {
		shell_doubt(t->out, "a redirection");
		read_target(t, next == '<' ? 3 : 2, false);
	} else if (c == '>' && next == '&') {
		read_target(t, 2, true);
	} else if (c == '&') {
		read_target(t, shell_peek(t, 2) == '>' ? 3 : 2, false);
	} else {
		read_target(t, c == '>' && (next == '>' || next == '|') ? 2 : 1, false);
	}
}

static bool at_redirection(const struct shell_text *t)
{
	int c = shell_peek(t, 0);
	return c == '<' || c == '>' || (c == '&' && shell_peek(t, 1) == '>');
}

static bool is_number(const struct shell_word *w)
{
	size_t n = strspn(w->text, "0123456789");
	return n > 0 && !w->text[n] && w->bare;
}

/* Words with which a shell's own syntax begins; what follows them is looked at, but nothing there is certain. */
static const char *const reserved[] = { "if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac", "in", "select", "function", "coproc",
	"[[", "]]", "}", "{", "!", "time", NULL };

static bool is_reserved(const struct shell_word *w)
{
	for (size_t i = 0; w->bare && w->open == SHELL_PLAIN && reserved[i]; i++)
		if (str_eq(w->text, reserved[i]))
			return true;
	return false;
}

/* What has been read of one simple command. */
struct simple {
	struct shell_command command;
	bool redirected;
	bool wanted; /* ! or time came before: something must follow */
	bool timed;  /* the word before was time */
	bool grouped;
};

static void read_group(struct shell_text *t, int until)
{
	size_t before = t->out->count;
	bool had_doubt = t->out->why != NULL;
	t->piped = false;
	if (++t->depth > SHELL_DEPTH_MAX)
		shell_doubt(t->out, "it is nested too deeply");
	else if (!shell_list(t, until))
		shell_doubt(t->out, "a group is not closed");
	t->depth--;
	if (!had_doubt && t->out->count == before)
		shell_doubt(t->out, "an empty group");
}

/* A reserved word where a command may begin. */
static void take_reserved(struct shell_text *t, struct simple *s, const struct shell_word *w)
{
	bool begins = !s->redirected && !w->joined;
	if (t->piped && str_eq(w->text, "time"))
		begins = false; /* it may be a program there */
	if (begins && str_eq(w->text, "{")) {
		read_group(t, '}');
		s->grouped = true;
	} else if (begins && (str_eq(w->text, "!") || (str_eq(w->text, "time") && !t->posix))) {
		s->timed = w->text[0] == 't';
		s->wanted = true;
	} else if (str_eq(w->text, "time")) {
		shell_doubt(t->out, "time in a place where it may be a program");
	} else {
		shell_doubt(t->out, "a shell's own syntax");
	}
}

static void take_assignment(struct shell_text *t, struct shell_command *c, const struct shell_word *w)
{
	c->assigns++;
	if (t->posix && w->text[w->assign - 1] == '+')
		shell_doubt(t->out, "+= means something else to a plain sh");
}

static void take_word(struct shell_text *t, struct simple *s, struct shell_word *w)
{
	struct shell_command *c = &s->command;
	bool first = c->count == 0;
	if (s->timed && w->text[0] == '-') {
		if (!str_eq(w->text, "-p") || !w->bare)
			shell_doubt(t->out, "an option of time");
		free(w->text);
		s->timed = false;
		return;
	}
	s->timed = false;
	if (s->grouped)
		shell_doubt(t->out, "words after a group");
	if (first && is_reserved(w)) {
		take_reserved(t, s, w);
		free(w->text);
		return;
	}
	if (c->count == c->assigns && is_reserved(w))
		shell_doubt(t->out, "a shell's own syntax");
	if (c->count == c->assigns && w->subscript)
		shell_doubt(t->out, "an array's member"); /* its word goes on to the bracket that closes it */
	if (c->count == c->assigns && w->assign)
		take_assignment(t, c, w);
	shell_command_add(t->out, c, w);
}

/* A word, or the number before a redirection. */
static void read_word(struct shell_text *t, struct simple *s)
{
	struct shell_word w;
	shell_word_read(t, &w);
	int c = shell_peek(t, 0);
	if (is_number(&w) && (c == '<' || c == '>')) {
		if (w.joined)
			shell_doubt(t->out, "a redirection");
		free(w.text);
		read_redirection(t);
		s->redirected = true;
		return;
	}
	take_word(t, s, &w);
}

static void read_parenthesis(struct shell_text *t, struct simple *s)
{
	if (shell_peek(t, 1) == '(')
		shell_doubt(t->out, "arithmetic");
	if (s->command.count || s->redirected || s->grouped)
		shell_doubt(t->out, "a function, an array or a pattern");
	if (s->command.count)
		shell_emit(t->out, &s->command, t->posix, t->depth);
	s->command = (struct shell_command){ .words = NULL };
	step_operator(t, 1);
	read_group(t, ')');
	s->grouped = true;
}

static bool ends_command(const struct shell_text *t)
{
	int c = shell_peek(t, 0);
	return c < 0 || c == '\n' || c == ';' || c == '|' || c == ')' || (c == '&' && shell_peek(t, 1) != '>');
}

static void read_parts(struct shell_text *t, struct simple *s)
{
	for (skip_blanks(t); !ends_command(t); skip_blanks(t)) {
		if (at_redirection(t)) {
			read_redirection(t);
			s->redirected = true;
		} else if (shell_peek(t, 0) == '#') {
			skip_comment(t);
		} else if (shell_peek(t, 0) == '(') {
			read_parenthesis(t, s);
		} else {
			read_word(t, s);
		}
	}
}

static void read_command(struct shell_text *t)
{
	struct simple s = { .redirected = false };
	read_parts(t, &s);
	if (!s.command.count && !s.grouped && (s.wanted || !s.redirected))
		shell_doubt(t->out, "a command is missing");
	if (s.command.count)
		shell_emit(t->out, &s.command, t->posix, t->depth);
	else
		shell_command_release(&s.command);
}

/* Where we are between commands. */
struct between {
	bool have; /* a command stands before */
	bool need; /* && || or | stands before: one must follow */
};

static void read_operator(struct shell_text *t, struct between *b)
{
	int c = shell_peek(t, 0), next = shell_peek(t, 1);
	bool twice = next == c && c != '\n';
	if (!b->have)
		shell_doubt(t->out, "a command is missing");
	if (c == ';' && (twice || next == '&'))
		shell_doubt(t->out, "a shell's own syntax");
	if (c == '|' && next == '&' && t->posix)
		shell_doubt(t->out, "|& means something else to a plain sh");
	step_operator(t, twice || (c == '|' && next == '&') ? 2 : 1);
	b->need = c == '|' || (c == '&' && twice);
	b->have = false;
	t->piped = c == '|' && !twice;
}

static bool at_end(const struct shell_text *t, int until)
{
	int c = shell_peek(t, 0), next = shell_peek(t, 1);
	if (c < 0 || (until == ')' && c == ')'))
		return true;
	return until == '}' && c == '}' && (next < 0 || strchr(" \t\n;&|<>()", next));
}

bool shell_list(struct shell_text *t, int until)
{
	struct between b = { .have = false };
	for (skip_blanks(t); !(at_end(t, until) && (until != '}' || !b.have)); skip_blanks(t)) {
		int c = shell_peek(t, 0);
		if (c < 0)
			break;
		if (c == '#') {
			skip_comment(t);
		} else if (c == '\n') {
			t->at++;
			skip_heredocs(t);
			b.have = false;
		} else if (c == ';' || c == '|' || (c == '&' && shell_peek(t, 1) != '>')) {
			read_operator(t, &b);
		} else if (c == ')') {
			shell_doubt(t->out, "a parenthesis too many");
			t->at++;
		} else {
			if (b.have)
				shell_doubt(t->out, "a command behind a group");
			read_command(t);
			t->piped = false;
			b = (struct between){ .have = true };
		}
		if (t->out->count >= SHELL_COMMANDS_MAX && t->at < t->len) {
			shell_doubt(t->out, "it has too many commands");
			t->at = t->len;
		}
	}
	if (b.need)
		shell_doubt(t->out, "a command is missing");
	if (shell_peek(t, 0) < 0)
		return until == 0;
	t->at++;
	return true;
}

void shell_inner(struct shell_split *out, const char *s, size_t len, bool posix, int depth)
{
	struct shell_text t = { .s = s, .len = len, .posix = posix, .depth = depth, .out = out };
	if (depth > SHELL_DEPTH_MAX) {
		shell_doubt(out, "it is nested too deeply");
		return;
	}
	shell_list(&t, 0);
	for (int i = 0; i < t.heredoc_count; i++)
		free(t.heredocs[i]);
}

void shell_split(const char *line, size_t len, struct shell_split *ret)
{
	*ret = (struct shell_split){ .commands = NULL };
	if (len > SHELL_LINE_MAX)
		shell_doubt(ret, "it is too long");
	else if (memchr(line, 0, len) || memchr(line, SHELL_MARK_1, len) || memchr(line, SHELL_MARK_2, len))
		shell_doubt(ret, "it has a byte in it that shells use for themselves");
	else
		shell_inner(ret, line, len, false, 0);
}
