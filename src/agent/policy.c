/* The policy of approvals: read and checked once, then asked for each command and each patch. */
#include "agent/policy.h"
#include "agent/glob.h"
#include "agent/policy_inside.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define NEVER_RULE "never ask"
#define SESSION_RULE "session"

static const char *const modes[] = { "never", "always", "on-request", NULL };
static const char *const at_deadlines[] = { "reject", "fail", "default", NULL };

static const char *one_of(const char *const *list, const char *word)
{
	for (; *list; list++)
		if (str_eq(*list, word))
			return *list;
	return NULL;
}

static void rule_release(struct policy_rule *r)
{
	for (size_t i = 0; i < r->word_count; i++)
		free(r->words[i]);
	free(r->words);
	free(r->name);
	free(r->path);
}

void policy_free(struct policy *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->rule_count; i++)
		rule_release(&p->rules[i]);
	free(p->rules);
	free(p->answer);
	js_free(p->session);
	free(p);
}

static enum err_code read_words(const char *pattern, const char *where, struct policy_rule *r, struct error *e)
{
	r->words = mem_alloc((strlen(pattern) / 2 + 1) * sizeof(char *));
	for (const char *at = pattern + strspn(pattern, " \t"); *at; at += strspn(at, " \t")) {
		size_t n = strcspn(at, " \t");
		r->words[r->word_count++] = mem_strndup(at, n);
		at += n;
	}
	for (size_t i = 0; i + 1 < r->word_count; i++)
		if (str_eq(r->words[i], "**"))
			return error_set(e, ERR_INVALID, "%s.command: ** stands for the rest of the words and can only be the last", where);
	if (!r->word_count)
		return error_set(e, ERR_INVALID, "%s.command: expected words", where);
	r->rest = str_eq(r->words[r->word_count - 1], "**");
	if (r->rest) {
		r->word_count--;
		free(TAKE_PTR(r->words[r->word_count]));
	}
	return ERR_OK;
}

static enum err_code check_pattern(const char *pattern, const char *where, const char *member, struct error *e)
{
	if (strlen(pattern) > POLICY_PATTERN_MAX)
		return error_set(e, ERR_INVALID, "%s.%s: longer than %d bytes", where, member, POLICY_PATTERN_MAX);
	if (strpbrk(pattern, "\n\r") || (str_eq(member, "command") && strpbrk(pattern, "'\"`\\|;&<>"))) {
		error_set(e, ERR_INVALID, "%s.%s: a pattern is one command's words; quotes and operators have no place in it", where, member);
		error_hint(e, "* fits one word, also one with blanks in it; the commands of a line are looked at one by one");
		return ERR_INVALID;
	}
	return ERR_OK;
}

/* {command: "..."} or {path: "..."} */
static enum err_code read_what(const struct js *what, const char *where, struct policy_rule *r, struct error *e)
{
	static const char *const members[] = { "command", "path", NULL };
	const char *command = NULL, *path = NULL;
	if (js_type(what) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "%s: expected {command: ...} or {path: ...}", where);
	enum err_code rc = js_check_members(what, where, members, e);
	if (!rc)
		rc = js_want_str(what, where, "command", &command, e);
	if (!rc)
		rc = js_want_str(what, where, "path", &path, e);
	if (!rc && !command == !path)
		rc = error_set(e, ERR_INVALID, "%s: expected one of command and path", where);
	if (!rc)
		rc = check_pattern(command ? command : path, where, command ? "command" : "path", e);
	if (rc)
		return rc;
	if (command)
		return read_words(command, where, r, e);
	if (!*path)
		return error_set(e, ERR_INVALID, "%s.path: expected a pattern", where);
	r->path = mem_strdup(path);
	return ERR_OK;
}

static enum err_code read_rule(const struct js *o, size_t n, struct policy_rule *r, struct error *e)
{
	static const char *const members[] = { "name", "allow", "deny", NULL };
	AUTO_FREE char *where = mem_printf("approvals.rules[%zu]", n);
	const char *name = NULL;
	if (js_type(o) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "%s: expected {name, allow: {...}} or {name, deny: {...}}", where);
	enum err_code rc = js_check_members(o, where, members, e);
	if (!rc)
		rc = js_want_str(o, where, "name", &name, e);
	if (rc)
		return rc;
	const struct js *allow = js_get(o, "allow"), *deny = js_get(o, "deny");
	if (!allow == !deny)
		return error_set(e, ERR_INVALID, "%s: expected one of allow and deny", where);
	if (name && (!*name || strlen(name) > POLICY_NAME_MAX))
		return error_set(e, ERR_INVALID, "%s.name: expected 1 to %d bytes", where, POLICY_NAME_MAX);
	r->name = name ? mem_strdup(name) : mem_printf("rule %zu", n + 1);
	r->deny = deny != NULL;
	AUTO_FREE char *inside = mem_printf("%s.%s", where, deny ? "deny" : "allow");
	return read_what(deny ? deny : allow, inside, r, e);
}

static enum err_code read_rules(struct policy *p, const struct js *rules, struct error *e)
{
	if (!rules || js_type(rules) == JS_NULL)
		return ERR_OK;
	if (js_type(rules) != JS_ARRAY)
		return error_set(e, ERR_INVALID, "approvals.rules: expected a list");
	if (js_len(rules) > POLICY_RULES_MAX)
		return error_set(e, ERR_INVALID, "approvals.rules: more than %d rules", POLICY_RULES_MAX);
	p->rules = mem_alloc((js_len(rules) + 1) * sizeof(*p->rules));
	for (size_t i = 0; i < js_len(rules); i++) {
		p->rule_count++;
		enum err_code rc = read_rule(js_at(rules, i), i, &p->rules[i], e);
		if (rc)
			return rc;
	}
	return ERR_OK;
}

static enum err_code read_word(const struct js *o, const char *key, const char *const *words, const char **ret, struct error *e)
{
	const char *text = NULL;
	enum err_code rc = js_want_str(o, "approvals", key, &text, e);
	*ret = text ? one_of(words, text) : words[0];
	if (!rc && !*ret)
		return error_set(e, ERR_INVALID, "approvals.%s: expected %s, %s or %s", key, words[0], words[1], words[2]);
	return rc;
}

static enum err_code read_deadline(struct policy *p, const struct js *v, struct error *e)
{
	if (!v || js_type(v) == JS_NULL)
		return ERR_OK;
	if (js_type(v) == JS_STRING)
		return str_to_duration_ms(js_text(v), "approvals.deadline", POLICY_DEADLINE_MIN_MS, POLICY_DEADLINE_MAX_MS, &p->deadline_ms, e);
	int64_t seconds = js_type(v) == JS_INT ? js_num(v, 0) : 0;
	if (seconds < POLICY_DEADLINE_MIN_MS / 1000 || seconds > POLICY_DEADLINE_MAX_MS / 1000)
		return error_set(e, ERR_INVALID, "approvals.deadline: expected a time, such as 30m or 24h");
	p->deadline_ms = seconds * 1000;
	return ERR_OK;
}

static enum err_code read_answer(struct policy *p, const struct js *o, struct error *e)
{
	const char *answer = NULL;
	enum err_code rc = js_want_str(o, "approvals", "answer", &answer, e);
	if (rc || !answer)
		return rc;
	if (!str_eq(p->at_deadline, "default"))
		return error_set(e, ERR_INVALID, "approvals.answer: is used with at_deadline: default only");
	if (strlen(answer) > POLICY_ANSWER_MAX)
		return error_set(e, ERR_INVALID, "approvals.answer: longer than %d bytes", POLICY_ANSWER_MAX);
	p->answer = mem_strdup(answer);
	return ERR_OK;
}

static enum err_code policy_read(struct policy *p, const struct js *o, struct error *e)
{
	static const char *const members[] = { "ask", "rules", "deadline", "at_deadline", "answer", NULL };
	if (js_type(o) == JS_NULL)
		o = NULL;
	if (o && js_type(o) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "approvals: expected {ask: always|on-request|never, ...}");
	enum err_code rc = js_check_members(o, "approvals", members, e);
	if (!rc)
		rc = read_word(o, "ask", modes, &p->mode, e);
	if (!rc)
		rc = read_word(o, "at_deadline", at_deadlines, &p->at_deadline, e);
	if (!rc)
		rc = read_deadline(p, js_get(o, "deadline"), e);
	if (!rc)
		rc = read_answer(p, o, e);
	return rc ? rc : read_rules(p, js_get(o, "rules"), e);
}

enum err_code policy_new(const struct js *approvals, struct policy **ret, struct error *e)
{
	struct policy *p = NEW(struct policy);
	enum err_code rc = policy_read(p, approvals, e);
	if (rc) {
		policy_free(p);
		return rc;
	}
	p->session = js_array();
	*ret = p;
	return ERR_OK;
}

const char *policy_agent_mode(const struct policy *p)
{
	return str_eq(p->mode, "never") && p->rule_count ? "always" : p->mode;
}

int64_t policy_deadline_ms(const struct policy *p)
{
	return p->deadline_ms;
}

const char *policy_at_deadline(const struct policy *p)
{
	return p->at_deadline;
}

const char *policy_default_answer(const struct policy *p)
{
	return p->answer;
}

/* What must be the same for "this session" to hold: the command and where it runs, the files of a patch, the permissions. */
static struct js *session_key(const char *kind, const struct js *data)
{
	struct js *key = js_object();
	js_set_str(key, "kind", kind);
	if (str_eq(kind, "command") && js_get(data, "command") && policy_is_whole(data)) {
		js_set(key, "command", js_ref(js_get(data, "command")));
		js_set(key, "cwd", js_ref(js_get(data, "cwd")));
	} else if (str_eq(kind, "permission") && js_get(data, "permissions")) {
		js_set(key, "permissions", js_ref(js_get(data, "permissions")));
		js_set(key, "cwd", js_ref(js_get(data, "cwd")));
	} else if (str_eq(kind, "patch") && js_len(js_get(data, "files"))) {
		struct js *files = js_array();
		for (size_t i = 0; i < js_len(js_get(data, "files")); i++)
			policy_add_paths(js_at(js_get(data, "files"), i), files);
		js_set(key, "files", files);
		js_set(key, "root", js_ref(js_get(data, "root")));
	} else {
		js_free(key);
		return NULL;
	}
	return key;
}

static bool holds_all(const struct js *have, const struct js *want)
{
	for (size_t i = 0; i < js_len(want); i++) {
		bool found = false;
		for (size_t j = 0; j < js_len(have) && !found; j++)
			found = js_equal(js_at(have, j), js_at(want, i));
		if (!found)
			return false;
	}
	return true;
}

static bool same_session(const struct js *known, const struct js *key)
{
	if (!js_get(key, "files"))
		return js_equal(known, key);
	return js_get(known, "files") && js_equal(js_get(known, "root"), js_get(key, "root")) && holds_all(js_get(known, "files"), js_get(key, "files"));
}

static bool is_remembered(const struct policy *p, const char *kind, const struct js *data)
{
	AUTO_JS struct js *key = session_key(kind, data);
	for (size_t i = 0; key && i < js_len(p->session); i++)
		if (same_session(js_at(p->session, i), key))
			return true;
	return false;
}

void policy_remember(struct policy *p, const char *kind, const struct js *data)
{
	struct js *key = js_len(p->session) < POLICY_SESSION_MAX && !is_remembered(p, kind, data) ? session_key(kind, data) : NULL;
	if (key)
		js_push(p->session, key);
}

/* What the rules left open. */
static enum policy_verdict judge_rest(const struct policy *p, const char *kind, const struct js *data, const struct judged *j, const char **ret_rule)
{
	bool never = str_eq(p->mode, "never");
	if (is_remembered(p, kind, data)) {
		*ret_rule = SESSION_RULE;
		return POLICY_ALLOW;
	}
	/* Nobody is to be asked, and it may be what a rule refuses: the agent can say it more plainly. */
	if (never && j->perhaps) {
		*ret_rule = j->perhaps;
		return POLICY_DENY;
	}
	if (!never)
		return POLICY_ASK;
	*ret_rule = NEVER_RULE;
	return POLICY_ALLOW;
}

enum policy_verdict policy_judge(const struct policy *p, const char *kind, const struct js *data, const char **ret_rule)
{
	struct judged j = { .verdict = POLICY_ASK };
	*ret_rule = NULL;
	if (str_eq(kind, "command"))
		j = policy_judge_command(p, data);
	else if (str_eq(kind, "patch"))
		j = policy_judge_patch(p, data);
	else if (!str_eq(kind, "permission"))
		return POLICY_ASK;
	if (j.verdict == POLICY_ASK)
		return judge_rest(p, kind, data, &j, ret_rule);
	*ret_rule = j.rule;
	return j.verdict;
}
