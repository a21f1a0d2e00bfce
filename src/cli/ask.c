/* Gates of the server: finding and settling them. */
#include "cli/ask.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/remote.h"
#include "cli/server.h"
#include "cli/text.h"
#include <math.h>
#include <string.h>

#define ASK_PAGE 1000	   /* gates of one call */
#define ASK_PAGES_MAX 20   /* calls of one listing */
#define ASK_ID_LENGTH 26

const char *ask_id(const struct js *gate)
{
	return js_str_or(gate, "id", "");
}

const char *ask_task(const struct js *gate)
{
	return js_str_or(gate, "name", js_str_or(gate, "task", ""));
}

bool ask_is_open(const struct js *gate)
{
	return str_eq(js_str(gate, "state"), "blocked");
}

const struct js *ask_questions(const struct js *gate)
{
	return js_get(js_get(gate, "data"), "questions");
}

bool ask_is_secret(const struct js *question)
{
	return js_flag(question, "secret", false);
}

bool ask_takes_several(const struct js *question)
{
	return js_flag(question, "multiple", false) && js_len(js_get(question, "options")) > 1;
}

bool ask_takes(const struct js *gate, const char *choice)
{
	const struct js *choices = js_get(js_get(gate, "data"), "choices");
	for (size_t i = 0; i < js_len(choices); i++)
		if (str_eq(js_text(js_at(choices, i)), choice))
			return true;
	return false;
}

static char *gate_path(const char *id, const char *suffix)
{
	AUTO_STRBUF struct strbuf path = STRBUF_INIT;
	strbuf_adds(&path, "/v1/gates/");
	str_add_urlenc(&path, id);
	strbuf_adds(&path, suffix);
	return strbuf_detach(&path);
}

enum err_code ask_get(struct cli *c, const char *id, struct js **ret_gate, struct error *e)
{
	AUTO_FREE char *path = gate_path(id, "");
	int status = 0;
	enum err_code rc = c->client ? ERR_OK : server_connect(c, e);
	if (!rc)
		rc = client_call(c->client, "GET", path, NULL, &status, ret_gate, e);
	if (!rc && !*ret_gate)
		rc = error_set(e, ERR_INTERNAL, "the server told nothing about gate '%s'", id);
	return rc;
}

enum err_code ask_decide(struct cli *c, const struct js *gate, const struct js *body, struct js **ret_gate, struct error *e)
{
	AUTO_FREE char *path = gate_path(ask_id(gate), "/decision");
	int status = 0;
	return client_call(c->client, "POST", path, body, &status, ret_gate, e);
}

static enum err_code list_page(struct cli *c, const char *task, bool all, const char *after, struct js **ret, struct error *e)
{
	AUTO_STRBUF struct strbuf path = STRBUF_INIT;
	int status = 0;
	strbuf_addf(&path, "/v1/gates?limit=%d%s", ASK_PAGE, all ? "" : "&state=blocked");
	if (task) {
		strbuf_adds(&path, "&task=");
		str_add_urlenc(&path, task);
	}
	if (after) {
		strbuf_adds(&path, "&after=");
		str_add_urlenc(&path, after);
	}
	return client_call(c->client, "GET", strbuf_str(&path), NULL, &status, ret, e);
}

enum err_code ask_list(struct cli *c, const char *task, bool all, struct js **ret, bool *ret_more, struct error *e)
{
	AUTO_JS struct js *list = js_array();
	AUTO_FREE char *after = NULL;
	enum err_code rc = c->client ? ERR_OK : server_connect(c, e);
	bool more = true;
	for (int page = 0; !rc && more && page < ASK_PAGES_MAX; page++) {
		AUTO_JS struct js *answer = NULL;
		rc = list_page(c, task, all, after, &answer, e);
		const struct js *data = js_get(answer, "data");
		for (size_t i = 0; i < js_len(data); i++)
			js_push(list, js_ref(js_at(data, i)));
		free(after);
		after = mem_strdup(js_str(answer, "next_cursor"));
		more = after != NULL;
	}
	if (rc)
		return rc;
	if (ret_more)
		*ret_more = more;
	*ret = js_ref(list);
	return ERR_OK;
}

/* What a word may mean among the gates of a list. */
struct match {
	const struct js *by_id, *by_task, *by_prefix; /* the gate's id begins so; its task is named so; its task's id begins so */
	size_t ids, tasks, prefixes;
};

static struct match find_in(const struct js *list, const char *ref)
{
	struct match m = { .ids = 0 };
	for (size_t i = 0; i < js_len(list); i++) {
		const struct js *gate = js_at(list, i);
		if (str_starts(ask_id(gate), ref)) {
			m.by_id = gate;
			m.ids++;
		}
		if (str_eq(js_str(gate, "name"), ref) || str_eq(js_str(gate, "task"), ref)) {
			m.by_task = gate;
			m.tasks++;
		}
		if (js_str(gate, "task") && str_starts(js_str(gate, "task"), ref)) {
			m.by_prefix = gate;
			m.prefixes++;
		}
	}
	return m;
}

static enum err_code pick(const struct match *m, const char *ref, struct js **ret_gate, struct error *e)
{
	if (m->tasks == 1 || (!m->tasks && m->ids == 1)) {
		*ret_gate = js_ref(m->tasks ? m->by_task : m->by_id);
		return ERR_OK;
	}
	if (m->tasks) {
		error_set(e, ERR_USAGE, "task '%s' has %zu open gates", ref, m->tasks);
		error_hint(e, "signalbox gates --task %s", ref);
		return ERR_USAGE;
	}
	if (m->ids) {
		error_set(e, ERR_USAGE, "%zu gates begin with '%s'", m->ids, ref);
		error_hint(e, "signalbox gates");
		return ERR_USAGE;
	}
	if (m->prefixes == 1) {
		*ret_gate = js_ref(m->by_prefix);
		return ERR_OK;
	}
	if (m->prefixes) {
		error_set(e, ERR_USAGE, "%zu open gates are of tasks whose ids begin with '%s'", m->prefixes, ref);
		error_hint(e, "signalbox gates");
		return ERR_USAGE;
	}
	error_set(e, ERR_NOT_FOUND, "there is no gate '%s', and no task of that name with an open one", ref);
	error_hint(e, "signalbox gates");
	return ERR_NOT_FOUND;
}

enum err_code ask_find(struct cli *c, const char *ref, struct js **ret_gate, struct error *e)
{
	AUTO_JS struct js *open = NULL;
	AUTO_JS struct js *all = NULL;
	AUTO_STRBUF struct strbuf shown = STRBUF_INIT;
	text_add_line(&shown, ref);
	if (!str_is_name(ref)) {
		error_set(e, ERR_USAGE, "'%s' is neither a gate's id nor a task's name", strbuf_str(&shown));
		error_hint(e, "signalbox gates");
		return ERR_USAGE;
	}
	if (strlen(ref) == ASK_ID_LENGTH) {
		enum err_code rc = ask_get(c, ref, ret_gate, e);
		if (rc != ERR_NOT_FOUND)
			return rc;
		error_clear(e);
	}
	if (ask_list(c, NULL, false, &open, NULL, e))
		return e->code;
	struct match m = find_in(open, ref);
	if (m.ids || m.tasks || m.prefixes)
		return pick(&m, ref, ret_gate, e);
	/* A settled one may be looked at, and deciding it again tells who did. */
	if (ask_list(c, NULL, true, &all, NULL, e))
		return e->code;
	m = find_in(all, ref);
	m.prefixes = 0; /* of those only what is meant exactly */
	m.tasks = 0;
	return pick(&m, ref, ret_gate, e);
}

static bool is_number(const char *text)
{
	return *text && text[strspn(text, "0123456789")] == 0;
}

static bool has_label(const struct js *options, const char *text)
{
	for (size_t i = 0; i < js_len(options); i++)
		if (str_eq(js_str(js_at(options, i), "label"), text))
			return true;
	return false;
}

/* Where an option is a number itself, another number is an answer of its own. */
static bool has_number(const struct js *options)
{
	for (size_t i = 0; i < js_len(options); i++)
		if (is_number(js_str_or(js_at(options, i), "label", "")))
			return true;
	return false;
}

static bool takes_words(const struct js *question)
{
	return js_flag(question, "free_text", false) || !js_len(js_get(question, "options"));
}

/* What is not to be guessed at: an option by its words, and a secret in one's own, which may be a number or begin with "=". */
static bool is_meant_so(const struct js *question, const char *text)
{
	const struct js *options = js_get(question, "options");
	return !js_len(options) || has_label(options, text) || (ask_is_secret(question) && takes_words(question));
}

/* A secret is not told back, not even a wrong one. */
static enum err_code refuse_number(const struct js *question, const char *text, struct error *e)
{
	size_t n = js_len(js_get(question, "options"));
	if (ask_is_secret(question))
		return error_set(e, ERR_USAGE, "the question has %zu options, and no such number", n);
	return error_set(e, ERR_USAGE, "the question has %zu options, and no number %s (=%s answers with the number itself)", n, text, text);
}

static enum err_code take_number(const struct js *question, const char *text, struct js *list, struct error *e)
{
	const struct js *options = js_get(question, "options");
	int64_t n = 0;
	if (!str_to_i64(text, "option", 1, (int64_t)js_len(options), &n, NULL))
		js_push_str(list, js_str(js_at(options, (size_t)n - 1), "label"));
	else if (ask_is_secret(question) || !has_number(options))
		return refuse_number(question, text, e);
	else
		js_push_str(list, text);
	return ERR_OK;
}

static enum err_code take_one(const struct js *question, const char *text, struct js *list, struct error *e)
{
	bool as_is = is_meant_so(question, text);
	if (!as_is && (is_number(text) || ask_is_secret(question)))
		return take_number(question, text, list, e);
	if (!as_is && text[0] == '=' && !*++text)
		return error_set(e, ERR_USAGE, "= takes what follows it as the answer, and nothing follows");
	js_push_str(list, text);
	return ERR_OK;
}

/* The next part of "1, 3,=10": behind "=" it goes on to the comma. NULL: there is none left. */
static char *next_part(const char **text)
{
	*text += strspn(*text, ", ");
	size_t n = strcspn(*text, **text == '=' ? "," : ", ");
	const char *part = *text;
	*text += n;
	while (n && part[n - 1] == ' ')
		n--;
	return n ? mem_strndup(part, n) : NULL;
}

/* Numbers, and parts behind "=", with commas between them; all else is words of somebody's own. */
static bool is_list(const char *text)
{
	bool fits = strchr(text, ',') != NULL;
	char *part = NULL;
	while (fits && (part = next_part(&text))) {
		fits = part[0] == '=' || is_number(part);
		free(part);
	}
	return fits;
}

static enum err_code take_parts(const struct js *question, const char *text, struct js *list, struct error *e)
{
	enum err_code rc = ERR_OK;
	char *part = NULL;
	while (!rc && (part = next_part(&text))) {
		rc = take_one(question, part, list, e);
		free(part);
	}
	return rc;
}

enum err_code ask_take_text(const struct js *question, const char *text, struct js *answers, struct error *e)
{
	AUTO_JS struct js *list = js_array();
	bool several = ask_takes_several(question) && !is_meant_so(question, text);
	enum err_code rc = ERR_OK;
	if (!str_is_utf8(text, strlen(text)))
		return error_set(e, ERR_INVALID, "the answer is not UTF-8 text");
	if (several && !text[strspn(text, ", ")])
		return error_set(e, ERR_USAGE, "the answer chooses nothing: options are given as 1,3");
	if (several && is_list(text))
		rc = take_parts(question, text, list, e);
	else
		rc = take_one(question, text, list, e);
	if (!rc)
		js_set(answers, js_str_or(question, "id", "?"), js_ref(list));
	return rc;
}

static struct js *read_number(const char *text, bool whole)
{
	char *end = NULL;
	int64_t n = 0;
	if (!str_to_i64(text, "number", INT64_MIN, INT64_MAX, &n, NULL))
		return js_int(n);
	double v = strtod(text, &end);
	return !whole && *text && !*end && isfinite(v) ? js_real(v) : NULL;
}

static struct js *read_bool(const char *text)
{
	static const char *const yes[] = { "yes", "y", "true", "1" }, *const no[] = { "no", "n", "false", "0" };
	for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
		if (str_eq(text, yes[i]) || str_eq(text, no[i]))
			return js_bool(str_eq(text, yes[i]));
	return NULL;
}

enum err_code ask_take_value(const char *name, const struct js *schema, const char *text, struct js *content, struct error *e)
{
	const char *type = js_str_or(schema, "type", "string");
	const struct js *options = js_get(schema, "enum");
	int64_t n = 0;
	struct js *v = NULL;
	if (js_len(options) && !str_to_i64(text, "option", 1, (int64_t)js_len(options), &n, NULL))
		v = js_copy(js_at(options, (size_t)n - 1));
	else if (str_eq(type, "integer") || str_eq(type, "number"))
		v = read_number(text, str_eq(type, "integer"));
	else if (str_eq(type, "boolean"))
		v = read_bool(text);
	else
		v = js_string(text);
	if (!v)
		return error_set(e, ERR_INVALID, "%s: expected %s", name, str_eq(type, "boolean") ? "yes or no" : str_eq(type, "integer") ? "a whole number" : "a number");
	js_set(content, name, v);
	return ERR_OK;
}
