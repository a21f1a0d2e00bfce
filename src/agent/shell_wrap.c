/* Commands that run other commands: what is looked through, what has a line of its own in a word, and what cannot be known. */
#include "agent/shell_inside.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

/* Programs that run the rest of their words as one command. Options that are not here make them uncertain. */
static const struct through {
	const char *name;
	const char *flags;  /* options without a value */
	const char *valued; /* with one: -n 5, -n5, --x=5, --x 5 */
	size_t operands;    /* words of its own before the command */
	bool assigns;	    /* words with = before the command are variables */
	bool numbers;	    /* -5 is an option */
	const char *asks;   /* options with which it only tells something */
} throughs[] = {
	{ "env", "-i - --ignore-environment -v --debug", "-u --unset", 0, true, false, NULL },
	{ "command", "-p", "", 0, false, false, "-v -V" },
	{ "builtin", "", "", 0, false, false, NULL },
	{ "nice", "", "-n --adjustment", 0, false, true, NULL },
	{ "nohup", "", "", 0, false, false, NULL },
	{ "ionice", "-t --ignore", "-c --class -n --classdata", 0, false, false, NULL },
	{ "setsid", "-f --fork -w --wait -c --ctty", "", 0, false, false, NULL },
	{ "stdbuf", "", "-i --input -o --output -e --error", 0, false, false, NULL },
	{ "time", "-p -v --portability --verbose", "", 0, false, false, NULL },
	{ "timeout", "-v --verbose --foreground --preserve-status", "-k --kill-after -s --signal", 1, false, false, NULL },
};

/* Commands that run others in ways which are not looked through, or that change how a shell reads what follows. */
static const char *const hiding[] = { "exec", "source", ".", "enable", "hash", "shopt", "coproc", "bind", "complete", "compgen", "mapfile", "readarray", "fc", "let", "declare", "typeset",
	"local", "read", "getopts", "unalias", "xargs", "sudo", "doas", "pkexec", "setpriv", "chroot", "unshare", "nsenter", "bwrap", "firejail", "proot", "fakeroot", "systemd-run", "chrt", "taskset",
	"numactl", "setarch", "strace", "ltrace", "gdb", "perf", "valgrind", "faketime", "unbuffer", "expect", "rlwrap", "entr", "start-stop-daemon", "dbus-run-session",
	"ssh-agent", "socat", "at", "batch", "crontab", NULL };
/* The same, and any of their words may be a whole line. */
static const char *const hiding_lines[] = { "eval", "trap", "alias", "su", "runuser", "ssh", "watch", "script", "flock", "parallel", "tmux", "screen", "busybox", "toybox", "zsh", "ksh",
	"mksh", "fish", "csh", "tcsh", "rbash", NULL };
static const char *const shells[] = { "bash", "sh", "dash", NULL };
/* Builtins that compute what stands between [ and ] of a variable's name, commands in there included. */
static const char *const computing[] = { "test", "[", "printf", "unset", "wait", "export", "readonly", NULL };
static const char *const system_dirs[] = { "/bin/", "/usr/bin/", "/usr/local/bin/", "/sbin/", "/usr/sbin/", NULL };

/* Options by which a program runs others. */
static const struct running {
	const char *name, *options;
} running[] = {
	{ "find", "-exec -execdir -ok -okdir" },
	{ "tar", "-I -F --use-compress-program --to-command --checkpoint-action --info-script --new-volume-script --rsh-command" },
	{ "rsync", "-e --rsh --rsync-path" },
	{ "sort", "--compress-program" },
	{ "make", "-E --eval" },
	{ "go", "-exec -toolexec -vettool --exec --toolexec --vettool" },
};

static bool is_one_of(const char *word, const char *const *list)
{
	for (; *list; list++)
		if (str_eq(word, *list))
			return true;
	return false;
}

/* Is `word` among the space-separated ones? */
static bool is_in(const char *words, const char *word, size_t len)
{
	for (const char *at = words; *at;) {
		size_t n = strcspn(at, " ");
		if (n == len && memcmp(at, word, n) == 0)
			return true;
		at += n + (at[n] == ' ');
	}
	return false;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* The name, when the program is the system's; a file of that name elsewhere is something else. */
static const char *system_name(const char *path)
{
	const char *base = base_name(path);
	for (size_t i = 0; base != path && system_dirs[i]; i++)
		if (str_starts(path, system_dirs[i]) && strlen(system_dirs[i]) == (size_t)(base - path))
			return base;
	return base == path ? path : "";
}

static void add(struct shell_split *out, struct shell_command *c)
{
	if (out->count >= SHELL_COMMANDS_MAX) {
		shell_doubt(out, "it has too many commands");
		shell_command_release(c);
		return;
	}
	if (out->count == out->cap) {
		out->cap = out->cap ? out->cap * 2 : 8;
		out->commands = mem_grow(out->commands, out->cap * sizeof(*out->commands));
	}
	out->commands[out->count++] = *c;
	*c = (struct shell_command){ .words = NULL };
}

static void read_lines(struct shell_split *out, const struct shell_command *c, size_t from, int depth)
{
	for (size_t i = from; i < c->count; i++) {
		const struct shell_word *w = &c->words[i];
		const char *line = w->assign ? w->text + w->assign + 1 : w->text;
		if (strpbrk(line, " \t\n;|&"))
			shell_inner(out, line, strlen(line), false, depth + 1);
	}
}

/* Runs what we cannot know. Its words are kept, and looked into where they are lines. */
static void hide(struct shell_split *out, struct shell_command *c, bool lines, int depth)
{
	shell_doubt(out, "a command that runs other commands");
	c->wraps = true;
	for (size_t i = c->assigns + 1; i < c->count; i++) {
		const char *name = base_name(c->words[i].text);
		lines = lines || is_one_of(name, shells) || is_one_of(name, hiding_lines);
	}
	if (lines)
		read_lines(out, c, c->assigns + 1, depth);
	add(out, c);
}

/* eval reads all its words as one line. */
static void hide_eval(struct shell_split *out, struct shell_command *c, bool posix, int depth)
{
	AUTO_STRBUF struct strbuf line = STRBUF_LIMIT(SHELL_LINE_MAX);
	for (size_t i = c->assigns + 1; i < c->count; i++) {
		strbuf_adds(&line, c->words[i].text);
		strbuf_addc(&line, ' ');
	}
	shell_doubt(out, "a command that runs other commands");
	shell_inner(out, strbuf_str(&line), line.len, posix, depth + 1);
	c->wraps = true;
	add(out, c);
}

enum option { OPTION_NONE, OPTION_FLAG, OPTION_VALUED, OPTION_ASKS, OPTION_UNKNOWN };

static enum option option_of(const struct through *w, const char *word)
{
	size_t len = strlen(word), name = strcspn(word, "=");
	if (word[0] != '-')
		return OPTION_NONE;
	if (w->asks && is_in(w->asks, word, len))
		return OPTION_ASKS;
	if (is_in(w->flags, word, len) || (w->numbers && len > 1 && strspn(word + 1, "0123456789") == len - 1))
		return OPTION_FLAG;
	if (is_in(w->valued, word, len))
		return OPTION_VALUED;
	if (str_starts(word, "--") && word[name] && is_in(w->valued, word, name))
		return OPTION_FLAG;
	return len > 2 && word[1] != '-' && is_in(w->valued, word, 2) ? OPTION_FLAG : OPTION_UNKNOWN;
}

/* The place of the command's name behind the wrapper's own words; 0: there is none, SIZE_MAX: cannot be known. */
static size_t find_inner(const struct through *w, const struct shell_command *c)
{
	size_t i = c->assigns + 1;
	for (; i < c->count; i++) {
		if (c->words[i].open != SHELL_PLAIN)
			return SIZE_MAX;
		if (str_eq(c->words[i].text, "--")) {
			i++;
			break;
		}
		enum option o = option_of(w, c->words[i].text);
		if (o == OPTION_NONE)
			break;
		if (o == OPTION_ASKS)
			return 0;
		if (o == OPTION_UNKNOWN)
			return SIZE_MAX;
		i += o == OPTION_VALUED;
	}
	for (size_t k = 0; k < w->operands && i < c->count; k++, i++)
		if (c->words[i].open != SHELL_PLAIN)
			return SIZE_MAX;
	return i < c->count ? i : 0;
}

/* Assignments that stand in env's words; the first word without = is the command. */
static size_t mark_assigns(const struct shell_command *c, size_t i)
{
	for (; i < c->count; i++) {
		struct shell_word *w = &c->words[i];
		const char *sign = strchr(w->text, '=');
		if (!sign || (w->open != SHELL_PLAIN && (size_t)(sign - w->text) >= w->fixed))
			break;
		w->assign = (size_t)(sign - w->text);
	}
	return i;
}

static void move_word(struct shell_split *out, struct shell_command *to, struct shell_command *from, size_t i)
{
	shell_command_add(out, to, &from->words[i]);
	from->words[i] = (struct shell_word){ .text = NULL };
}

static void look_through(struct shell_split *out, const struct through *w, struct shell_command *c, bool posix, int depth)
{
	struct shell_command inner = { .words = NULL };
	size_t at = find_inner(w, c);
	if (at == SIZE_MAX) {
		hide(out, c, true, depth);
		return;
	}
	size_t command = at && w->assigns ? mark_assigns(c, at) : at;
	if (command == 0 || command >= c->count) {
		add(out, c);
		return;
	}
	for (size_t i = 0; i < c->assigns; i++)
		move_word(out, &inner, c, i);
	for (size_t i = at; i < command; i++)
		move_word(out, &inner, c, i);
	inner.assigns = c->assigns + (command - at);
	for (size_t i = command; i < c->count; i++)
		move_word(out, &inner, c, i);
	shell_command_release(c);
	if (depth >= SHELL_DEPTH_MAX)
		hide(out, &inner, true, depth);
	else
		shell_emit(out, &inner, posix, depth + 1);
}

/* What the words before a shell's string say. */
struct shell_words {
	size_t string; /* place of the string; 0: none */
	bool unknown, posix;
};

static bool read_shell_letters(const struct shell_command *c, size_t *i, bool *ret_string)
{
	static const char *const options[] = { "pipefail", "errexit", "nounset", NULL };
	for (const char *l = c->words[*i].text + 1; *l; l++) {
		if (*l == 'c') {
			*ret_string = true;
		} else if (*l == 'o') {
			if (++*i >= c->count || !is_one_of(c->words[*i].text, options))
				return false;
			return !l[1];
		} else if (!strchr("leu", *l)) {
			return false;
		}
	}
	return true;
}

static struct shell_words read_shell_words(const struct shell_command *c)
{
	static const char *const longs[] = { "--login", "--norc", "--noprofile", NULL };
	struct shell_words r = { .posix = !str_eq(base_name(c->words[c->assigns].text), "bash") };
	bool string = false;
	size_t i = c->assigns + 1;
	for (; i < c->count && !r.unknown; i++) {
		const char *word = c->words[i].text;
		if (c->words[i].open != SHELL_PLAIN || str_eq(word, "-"))
			break;
		if (word[0] != '-' && word[0] != '+')
			break;
		if (str_eq(word, "--")) {
			i++;
			break;
		}
		r.unknown = word[0] == '+' || (word[1] == '-' ? !is_one_of(word, longs) : !read_shell_letters(c, &i, &string));
	}
	r.string = string ? i : 0;
	if (i < c->count && (c->words[i].open != SHELL_PLAIN || str_eq(c->words[i].text, "-")))
		r.unknown = true;
	if (string && i + 1 != c->count)
		r.unknown = true;
	return r;
}

static void look_into_shell(struct shell_split *out, struct shell_command *c, int depth)
{
	struct shell_words w = read_shell_words(c);
	if (w.unknown) {
		hide(out, c, true, depth);
		return;
	}
	if (!w.string) {
		add(out, c); /* a script, or what comes from stdin: a command like others */
		return;
	}
	struct shell_word line = c->words[w.string];
	c->words[w.string].text = NULL;
	/* Its variables stand for themselves. */
	for (size_t i = c->assigns; i < c->count; i++)
		free(c->words[i].text);
	c->count = c->assigns;
	if (c->count)
		add(out, c);
	else
		shell_command_release(c);
	shell_inner(out, line.text, strlen(line.text), w.posix, depth + 1);
	free(line.text);
}

/* The verb of git behind its options. An option that brings a configuration brings commands. */
static void look_at_git(struct shell_split *out, struct shell_command *c)
{
	static const char *const valued[] = { "-C", "-c", "--git-dir", "--work-tree", "--namespace", "--super-prefix", "--config-env", "--attr-source", NULL };
	size_t i = c->assigns + 1;
	bool value = false;
	for (; i < c->count; i++) {
		const char *word = c->words[i].text;
		bool known = c->words[i].fixed > 0 && word[0] != '-' && !value;
		if (c->words[i].open != SHELL_PLAIN && !known) {
			shell_doubt(out, "an option that may run other commands");
			return;
		}
		if (!value && word[0] != '-')
			break;
		if (!value && (str_starts(word, "-c") || str_starts(word, "--config-env") || str_starts(word, "--exec-path=")))
			shell_doubt(out, "an option that may run other commands");
		value = !value && is_one_of(word, valued);
	}
	c->verb = i > c->assigns + 1 && i < c->count ? i : 0;
}

/* One of the options in `word`: as it is, with a value, abbreviated, or as a letter among letters. */
static bool is_option(const char *options, const char *word)
{
	size_t name = strcspn(word, "="), n;
	if (word[0] != '-' || name < 2)
		return false;
	for (const char *at = options; *at; at += n + (at[n] == ' ')) {
		n = strcspn(at, " ");
		bool is_long = at[1] == '-';
		if ((n == name || (is_long && name > 2 && name < n)) && memcmp(at, word, name) == 0)
			return true;
		if (n == 2 && word[1] != '-' && memchr(word + 1, at[1], strlen(word) - 1))
			return true;
	}
	return false;
}

/* Is there an option in it, or may there be, that runs other commands? */
static bool runs_others(const struct shell_command *c, const char *name)
{
	const char *options = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(running); i++)
		if (str_eq(running[i].name, name))
			options = running[i].options;
	size_t first = c->assigns + 1;
	if (str_eq(name, "tar") && first < c->count && strpbrk(c->words[first].text, "IF"))
		return true; /* letters without a dash */
	for (size_t i = first; options && i < c->count; i++)
		if ((c->words[i].open != SHELL_PLAIN && (c->words[i].fixed == 0 || c->words[i].text[0] == '-')) || is_option(options, c->words[i].text))
			return true;
	return false;
}

static bool has_substitution(const struct shell_word *w)
{
	return strstr(w->text, "$(") || strchr(w->text, '`') || (w->open == SHELL_PLAIN && strstr(w->text, "${"));
}

/* May a builtin that computes names find a substitution in one of its words? */
static bool may_compute(const struct shell_command *c)
{
	bool named = false, open = false;
	for (size_t i = c->assigns + 1; i < c->count; i++) {
		const struct shell_word *w = &c->words[i];
		if (has_substitution(w) || w->subscript || (w->open == SHELL_MANY && w->fixed == 0))
			return true;
		named = named || str_starts(w->text, "-v") || str_eq(w->text, "-R");
		open = open || w->open != SHELL_PLAIN;
	}
	return named && open;
}

static bool changes_options(const struct shell_command *c)
{
	static const char *const known[] = { "-e", "-u", "-eu", "-ue", "-o", "-eo", "-euo", "-ueo", "+e", "+u", "pipefail", "errexit", "nounset", NULL };
	for (size_t i = c->assigns + 1; i < c->count; i++)
		if (!is_one_of(c->words[i].text, known))
			return true;
	return false;
}

static void check_words(struct shell_split *out, const struct shell_command *c, const char *name)
{
	bool later = is_one_of(name, computing) && may_compute(c);
	if (str_eq(name, "printf") && c->count > c->assigns + 1 && str_starts(c->words[c->assigns + 1].text, "-v"))
		shell_doubt(out, "a variable is set"); /* PATH, for example */
	for (size_t i = 0; i < c->assigns && !later; i++)
		later = has_substitution(&c->words[i]);
	if (later)
		shell_doubt(out, "a text that a shell may run later");
	if (str_eq(name, "set") && changes_options(c))
		shell_doubt(out, "an option of the shell");
}

void shell_emit(struct shell_split *out, struct shell_command *c, bool posix, int depth)
{
	if (c->count == c->assigns) {
		check_words(out, c, "");
		add(out, c);
		return;
	}
	const struct shell_word *word = &c->words[c->assigns];
	const char *name = base_name(word->text), *certain = system_name(word->text);
	check_words(out, c, name);
	if (word->text[0] == '%')
		shell_doubt(out, "a job of the shell");
	if (word->open != SHELL_PLAIN) {
		shell_doubt(out, "a command whose name is not plain");
		add(out, c);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(throughs); i++)
		if (str_eq(throughs[i].name, certain)) {
			look_through(out, &throughs[i], c, posix, depth);
			return;
		}
	if (str_eq(name, "eval")) {
		hide_eval(out, c, posix, depth);
	} else if (is_one_of(certain, shells)) {
		look_into_shell(out, c, depth);
	} else if (is_one_of(name, hiding) || is_one_of(name, hiding_lines)) {
		hide(out, c, is_one_of(name, hiding_lines), depth);
	} else if (runs_others(c, name)) {
		hide(out, c, false, depth);
	} else {
		if (str_eq(name, "git"))
			look_at_git(out, c);
		add(out, c);
	}
}
