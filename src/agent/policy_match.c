/* What fits a rule.  Three answers: it does, it does not, and it may, for words that a shell has yet to expand. */
#include "agent/glob.h"
#include "agent/policy_inside.h"
#include "agent/shell.h"
#include "base/cleanup.h"
#include "base/str.h"
#include <string.h>

#define WORKSPACE "/workspace"
#define PATH_PARTS_MAX 256

enum fit { FIT_NO, FIT_PERHAPS, FIT_YES };

/* Words to compare: a head, and what follows it. */
struct words {
	const struct shell_word *head, *rest;
	size_t rest_count;
	bool more; /* others may follow that are not seen */
	bool deny;
};

static const char *const system_dirs[] = { "/bin/", "/usr/bin/", "/usr/local/bin/", "/sbin/", "/usr/sbin/", NULL };

/* Variables before a command that change nothing about what is run. Others must be named by the rule. */
static const char *const harmless[] = { "CI", "COLUMNS", "DEBUG", "FORCE_COLOR", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LINES", "NODE_ENV", "NO_COLOR", "PYTHONDONTWRITEBYTECODE",
	"PYTHONUNBUFFERED", "RUST_BACKTRACE", "RUST_LOG", "TERM", "TZ", "VERBOSE", NULL };

static enum fit less(enum fit a, enum fit b)
{
	return a < b ? a : b;
}

/* May the known beginning of a word begin something that fits? */
static bool may_begin(const char *pattern, const struct shell_word *w)
{
	size_t literal = strcspn(pattern, "*?");
	size_t n = literal < w->fixed ? literal : w->fixed;
	if (memcmp(pattern, w->text, n) != 0)
		return false;
	return pattern[literal] || w->fixed <= literal;
}

static enum fit word_fits(const char *pattern, const struct shell_word *w)
{
	if (w->open == SHELL_PLAIN)
		return glob_word(pattern, w->text) ? FIT_YES : FIT_NO;
	if (w->open == SHELL_ONE && str_eq(pattern, "*"))
		return FIT_YES;
	return (w->open == SHELL_MANY && w->fixed == 0) || may_begin(pattern, w) ? FIT_PERHAPS : FIT_NO;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* A program may be called by its path: by that of the system's when allowed, by any when refused. */
static enum fit head_fits(const char *pattern, const struct shell_word *w, bool deny)
{
	enum fit fit = word_fits(pattern, w);
	const char *base = base_name(w->text);
	if (deny && w->open != SHELL_PLAIN && memchr(w->text, '/', w->fixed))
		return FIT_PERHAPS;
	if (fit != FIT_NO || w->open != SHELL_PLAIN || base == w->text)
		return fit;
	for (size_t i = 0; !deny && system_dirs[i]; i++)
		if (str_starts(w->text, system_dirs[i]) && strlen(system_dirs[i]) == (size_t)(base - w->text))
			return glob_word(pattern, base) ? FIT_YES : FIT_NO;
	return deny && glob_word(pattern, base) ? FIT_YES : FIT_NO;
}

static const struct shell_word *word_at(const struct words *w, size_t i)
{
	return i == 0 ? w->head : &w->rest[i - 1];
}

static enum fit words_fit(const struct policy_rule *r, const struct words *w)
{
	enum fit fit = FIT_YES;
	size_t count = w->rest_count + 1, i = 0;
	for (; i < r->word_count && i < count; i++) {
		const struct shell_word *word = word_at(w, i);
		fit = less(fit, i == 0 ? head_fits(r->words[i], word, w->deny) : word_fits(r->words[i], word));
		/* Any number of words may come here. A beginning that is known must fit still. */
		if (fit == FIT_NO || word->open == SHELL_MANY)
			return fit;
	}
	if (i < r->word_count)
		return w->more ? FIT_PERHAPS : FIT_NO;
	if (r->rest || i == count)
		return fit;
	return word_at(w, i)->open == SHELL_MANY && word_at(w, i)->fixed == 0 ? FIT_PERHAPS : FIT_NO;
}

static enum fit command_fits_at(const struct policy_rule *r, const struct shell_command *c, size_t head, size_t rest)
{
	struct words w = { &c->words[head], c->words + rest, rest < c->count ? c->count - rest : 0, c->wraps, r->deny };
	return words_fit(r, &w);
}

/* A locale says what the bytes of a line are: only those that read them as we did. */
static bool is_known_locale(const char *value)
{
	return str_eq(value, "") || str_eq(value, "C") || str_eq(value, "POSIX") || str_ends(value, ".UTF-8") || str_ends(value, ".utf8");
}

static bool is_harmless(const struct shell_word *w)
{
	if ((str_starts(w->text, "LC_") || str_starts(w->text, "LANG")) && (w->open != SHELL_PLAIN || !is_known_locale(w->text + w->assign + 1)))
		return false;
	for (size_t i = 0; harmless[i]; i++)
		if (strlen(harmless[i]) == w->assign && memcmp(harmless[i], w->text, w->assign) == 0)
			return true;
	return false;
}

static bool names_assignment(const char *pattern)
{
	size_t n = strcspn(pattern, "=*?/");
	return n > 0 && pattern[n] == '=';
}

/* Variables in front must be harmless, or stand in the rule. */
static enum fit allow_fits(const struct policy_rule *r, const struct shell_command *c)
{
	size_t from = 0;
	if (c->wraps)
		return FIT_NO;
	bool named = r->word_count && names_assignment(r->words[0]);
	while (!named && from < c->assigns && is_harmless(&c->words[from]))
		from++;
	if (!named && from < c->assigns)
		return FIT_NO;
	return from < c->count ? command_fits_at(r, c, from, from + 1) : FIT_NO;
}

/* With and without what stands in front; of a wrapper every beginning. */
static enum fit deny_fits(const struct policy_rule *r, const struct shell_command *c)
{
	enum fit fit = c->assigns ? command_fits_at(r, c, 0, 1) : FIT_NO;
	for (size_t i = c->assigns; i < c->count; i++) {
		if (i > c->assigns && (!c->wraps || c->words[i].open != SHELL_PLAIN))
			continue;
		enum fit here = command_fits_at(r, c, i, i + 1);
		fit = here > fit ? here : fit;
	}
	if (c->verb) {
		enum fit bare = command_fits_at(r, c, c->assigns, c->verb);
		fit = bare > fit ? bare : fit;
	}
	return fit;
}

static bool is_only_harmless(const struct shell_command *c)
{
	for (size_t i = 0; i < c->assigns; i++)
		if (!is_harmless(&c->words[i]))
			return false;
	return c->assigns == c->count;
}

/* The first rule that fits one simple command. */
static struct judged judge_simple(const struct policy *p, const struct shell_command *c)
{
	struct judged j = { .verdict = POLICY_ASK };
	for (size_t i = 0; i < p->rule_count; i++) {
		const struct policy_rule *r = &p->rules[i];
		enum fit fit = r->path ? FIT_NO : r->deny ? deny_fits(r, c) : allow_fits(r, c);
		if (fit == FIT_PERHAPS && r->deny && !j.perhaps)
			j.perhaps = r->name;
		if (fit != FIT_YES || (!r->deny && j.perhaps))
			continue;
		j.verdict = r->deny ? POLICY_DENY : POLICY_ALLOW;
		j.rule = r->name;
		break;
	}
	return j;
}

static struct judged judge_split(const struct policy *p, const struct shell_split *s)
{
	struct judged all = { .verdict = POLICY_ASK };
	size_t allowed = 0;
	for (size_t i = 0; i < s->count; i++) {
		const struct shell_command *c = &s->commands[i];
		struct judged j = judge_simple(p, c);
		if (j.verdict == POLICY_DENY)
			return j;
		if (!all.perhaps)
			all.perhaps = j.perhaps;
		if (j.verdict == POLICY_ALLOW && !all.rule)
			all.rule = j.rule;
		allowed += j.verdict == POLICY_ALLOW || is_only_harmless(c);
	}
	if (!s->why && s->count && allowed == s->count && all.rule)
		all.verdict = POLICY_ALLOW;
	return all;
}

/* Without "." and "..", absolute; NULL when it leaves the root or has too many parts. The caller frees. */
static char *normal_path(const char *base, const char *path)
{
	AUTO_STRBUF struct strbuf full = STRBUF_INIT, out = STRBUF_INIT;
	strbuf_addf(&full, "%s/%s", path[0] == '/' ? "" : base, path);
	const char *at = strbuf_str(&full);
	for (int parts = 0; *at && parts < PATH_PARTS_MAX; parts++) {
		at += strspn(at, "/");
		size_t n = strcspn(at, "/");
		if (n == 2 && at[0] == '.' && at[1] == '.') {
			const char *slash = out.len ? strrchr(out.data, '/') : NULL;
			if (!slash)
				return NULL;
			out.len = (size_t)(slash - out.data);
			out.data[out.len] = 0;
		} else if (n && !(n == 1 && at[0] == '.')) {
			strbuf_addc(&out, '/');
			strbuf_add(&out, at, n);
		}
		at += n;
	}
	return *at ? NULL : strbuf_detach(&out);
}

/* The part below the workspace, "" for itself; NULL when it is outside. */
static const char *below_workspace(const char *path)
{
	size_t n = strlen(WORKSPACE);
	if (!path || !str_starts(path, WORKSPACE) || (path[n] && path[n] != '/'))
		return NULL;
	return path[n] ? path + n + 1 : path + n;
}

bool policy_is_whole(const struct js *data)
{
	return !js_get(data, "truncated") && !js_flag(data, "stdin", false) && !js_str(data, "host");
}

struct judged policy_judge_command(const struct policy *p, const struct js *data)
{
	struct shell_split split;
	const struct js *command = js_get(data, "command");
	const char *cwd = js_str(data, "cwd");
	AUTO_FREE char *directory = normal_path(WORKSPACE, cwd ? cwd : ".");
	if (js_type(command) != JS_STRING)
		return (struct judged){ .verdict = POLICY_ASK };
	shell_split(js_text(command), js_text_len(command), &split);
	struct judged j = judge_split(p, &split);
	shell_split_release(&split);
	/* The same words somewhere else are another command. */
	if (j.verdict == POLICY_ALLOW && (!below_workspace(directory) || !policy_is_whole(data)))
		j = (struct judged){ .verdict = POLICY_ASK };
	return j;
}

void policy_add_paths(const struct js *file, struct js *out)
{
	static const char *const members[] = { "path", "move_path", NULL };
	for (size_t i = 0; members[i]; i++)
		if (js_str(file, members[i]))
			js_push_str(out, js_str(file, members[i]));
}

/* .git holds programs that are run outside of any question. */
static bool is_git_inside(const char *path)
{
	for (const char *at = path; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
		if (strncasecmp(at, ".git", 4) == 0 && (at[4] == '/' || at[4] == 0))
			return true;
	return false;
}

static bool path_fits(const struct policy_rule *r, const char *full)
{
	const char *path = below_workspace(full);
	const char *pattern = r->path;
	if (str_starts(pattern, "./"))
		pattern += 2;
	if (path)
		return pattern[0] == '/' ? glob_path(pattern, full) : *path && glob_path(pattern, path);
	/* Outside a rule can only refuse. */
	return r->deny && full && glob_path(pattern, pattern[0] == '/' ? full : full + 1);
}

static struct judged judge_path(const struct policy *p, const char *told)
{
	struct judged j = { .verdict = POLICY_ASK };
	AUTO_FREE char *full = normal_path(WORKSPACE, told);
	const char *path = below_workspace(full);
	bool odd = !path || is_git_inside(path) || strlen(told) == 0;
	for (size_t i = 0; full && i < p->rule_count; i++) {
		const struct policy_rule *r = &p->rules[i];
		if (!r->path || (!r->deny && odd) || !path_fits(r, full))
			continue;
		j.verdict = r->deny ? POLICY_DENY : POLICY_ALLOW;
		j.rule = r->name;
		break;
	}
	return j;
}

struct judged policy_judge_patch(const struct policy *p, const struct js *data)
{
	struct judged all = { .verdict = POLICY_ASK };
	AUTO_JS struct js *paths = js_array();
	const struct js *files = js_get(data, "files");
	size_t allowed = 0;
	bool whole = js_len(files) > 0;
	for (size_t i = 0; i < js_len(files); i++) {
		policy_add_paths(js_at(files, i), paths);
		whole = whole && js_str(js_at(files, i), "path");
	}
	for (size_t i = 0; i < js_len(paths); i++) {
		struct judged j = judge_path(p, js_text(js_at(paths, i)));
		if (j.verdict == POLICY_DENY)
			return j;
		allowed += j.verdict == POLICY_ALLOW;
		if (!all.rule)
			all.rule = j.rule;
	}
	if (whole && allowed == js_len(paths) && !js_str(data, "root"))
		all.verdict = POLICY_ALLOW;
	return all;
}
