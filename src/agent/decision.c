/* Decisions: which fit which gate, in which form they are kept, and how they are told to an agent that has to hear them anew. */
#include "agent/decision.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

static const struct {
	const char *decision, *state, *words;
} decisions[] = {
	{ "approve", "approved", "approved: do it" },
	{ "reject", "rejected", "refused: go on without it" },
	{ "abort", "rejected", "refused: do not go on with it" },
	{ "answer", "answered", "answered" },
	{ "expire", "expired", "not answered in time: go on without it" },
	{ "cancel", "canceled", "withdrawn" },
};

const char *decision_state(const char *decision)
{
	for (size_t i = 0; i < ARRAY_SIZE(decisions); i++)
		if (str_eq(decisions[i].decision, decision))
			return decisions[i].state;
	return NULL;
}

static bool has_text(const struct js *list, const char *text)
{
	for (size_t i = 0; i < js_len(list); i++)
		if (str_eq(js_text(js_at(list, i)), text))
			return true;
	return false;
}

static enum err_code check_choice(const struct js *data, const char *decision, const char *scope, struct error *e)
{
	const struct js *choices = js_get(data, "choices");
	AUTO_STRBUF struct strbuf known = STRBUF_INIT;
	const char *wanted = str_eq(decision, "approve") && str_eq(scope, "session") ? "approve_session" : decision;
	if (has_text(choices, wanted))
		return ERR_OK;
	for (size_t i = 0; i < js_len(choices); i++)
		strbuf_addf(&known, "%s%s", i ? ", " : "", js_text(js_at(choices, i)) ? js_text(js_at(choices, i)) : "?");
	error_set(e, ERR_UNPROCESSABLE, "%s: this gate does not take '%s'", str_eq(wanted, decision) ? "decision" : "scope", wanted);
	error_hint(e, "it takes %s", strbuf_str(&known));
	return ERR_UNPROCESSABLE;
}

static bool is_option(const struct js *question, const char *text)
{
	const struct js *options = js_get(question, "options");
	for (size_t i = 0; i < js_len(options); i++)
		if (str_eq(js_str(js_at(options, i), "label"), text))
			return true;
	return false;
}

static enum err_code check_text(const struct js *question, const char *path, const struct js *value, struct error *e)
{
	const char *text = js_text(value);
	if (!text || !text[0])
		return error_set(e, ERR_UNPROCESSABLE, "%s: expected a text that is not empty", path);
	if (js_text_len(value) > DECISION_TEXT_MAX)
		return error_set(e, ERR_UNPROCESSABLE, "%s: %zu bytes, at most %zu are taken", path, js_text_len(value), DECISION_TEXT_MAX);
	if (js_flag(question, "free_text", false) || !js_len(js_get(question, "options")) || is_option(question, text))
		return ERR_OK;
	AUTO_STRBUF struct strbuf known = STRBUF_INIT;
	const struct js *options = js_get(question, "options");
	for (size_t i = 0; i < js_len(options); i++)
		strbuf_addf(&known, "%s'%s'", i ? ", " : "", js_str_or(js_at(options, i), "label", ""));
	error_set(e, ERR_UNPROCESSABLE, "%s: '%.80s' is not one of its options", path, js_flag(question, "secret", false) ? "***" : text);
	error_hint(e, "its options are %s", strbuf_str(&known));
	return ERR_UNPROCESSABLE;
}

/* A text or a list of texts becomes a list. */
static enum err_code take_answer(const struct js *question, const struct js *value, struct js *answers, struct error *e)
{
	const char *id = js_str_or(question, "id", "?");
	AUTO_FREE char *path = mem_printf("answer.%.80s", id);
	AUTO_JS struct js *list = js_type(value) == JS_ARRAY ? js_ref(value) : js_array();
	if (js_type(value) != JS_ARRAY && value)
		js_push(list, js_ref(value));
	if (!js_len(list))
		return error_set(e, ERR_UNPROCESSABLE, "%s: missing", path);
	if (js_len(list) > 1 && !js_flag(question, "multiple", false))
		return error_set(e, ERR_UNPROCESSABLE, "%s: %zu answers, but the question takes one", path, js_len(list));
	for (size_t i = 0; i < js_len(list); i++) {
		enum err_code rc = check_text(question, path, js_at(list, i), e);
		if (rc)
			return rc;
	}
	js_set(answers, id, js_ref(list));
	return ERR_OK;
}

static enum err_code check_answers(const struct js *questions, const struct js *answer, struct js **ret, struct error *e)
{
	AUTO_JS struct js *answers = js_object();
	bool by_id = js_type(answer) == JS_OBJECT;
	enum err_code rc = ERR_OK;
	if (!by_id && js_len(questions) > 1) {
		error_set(e, ERR_UNPROCESSABLE, "answer: this gate has %zu questions", js_len(questions));
		error_hint(e, "give an object with an answer for each, as {\"%s\": \"...\"}", js_str_or(js_at(questions, 0), "id", "?"));
		return ERR_UNPROCESSABLE;
	}
	for (size_t i = 0; i < js_len(questions) && !rc; i++) {
		const struct js *q = js_at(questions, i);
		rc = take_answer(q, by_id ? js_get(answer, js_str_or(q, "id", "")) : answer, answers, e);
	}
	for (struct js_iter it = js_iter(by_id ? answer : NULL); !rc && it.key; js_next(&it))
		if (!js_get(answers, it.key))
			rc = error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: there is no such question", it.key);
	if (!rc)
		*ret = js_ref(answers);
	return rc;
}

static bool type_fits(const char *type, const struct js *v)
{
	enum js_type t = js_type(v);
	if (str_eq(type, "string"))
		return t == JS_STRING;
	if (str_eq(type, "integer"))
		return t == JS_INT;
	if (str_eq(type, "number"))
		return t == JS_INT || t == JS_REAL;
	if (str_eq(type, "boolean"))
		return t == JS_BOOL;
	return str_eq(type, "array") ? t == JS_ARRAY : str_eq(type, "object") ? t == JS_OBJECT : true;
}

static double number_of(const struct js *v)
{
	AUTO_JS struct js *holder = js_object();
	js_set(holder, "v", js_ref(v));
	return js_type(v) == JS_INT ? (double)js_num(v, 0) : js_f64(holder, "v", 0);
}

/* As JSON Schema counts: characters, not bytes. */
static int64_t count_characters(const struct js *v)
{
	const char *text = js_text(v);
	int64_t n = 0;
	for (size_t i = 0; i < js_text_len(v); i++)
		n += ((unsigned char)text[i] & 0xc0) != 0x80;
	return n;
}

static enum err_code check_length(const char *name, const struct js *schema, const struct js *v, struct error *e)
{
	int64_t least = js_i64(schema, "minLength", 0), most = js_i64(schema, "maxLength", INT64_MAX);
	if (js_text_len(v) > DECISION_TEXT_MAX)
		return error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: longer than %zu bytes", name, DECISION_TEXT_MAX);
	if (count_characters(v) < least)
		return error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: shorter than %lld", name, (long long)least);
	if (count_characters(v) > most)
		return error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: longer than %lld", name, (long long)most);
	return ERR_OK;
}

/* enum: [value], or with titles for people oneOf: [{const, title}]. */
static bool is_offered(const struct js *schema, const struct js *v)
{
	const struct js *values = js_get(schema, "enum"), *titled = js_get(schema, "oneOf") ? js_get(schema, "oneOf") : js_get(schema, "anyOf");
	bool found = !values && !js_get(js_at(titled, 0), "const");
	for (size_t i = 0; i < js_len(values); i++)
		found = found || js_equal(js_at(values, i), v);
	for (size_t i = 0; !values && i < js_len(titled); i++)
		found = found || (js_get(js_at(titled, i), "const") && js_equal(js_get(js_at(titled, i), "const"), v));
	return found;
}

static enum err_code check_plain(const char *name, const struct js *schema, const struct js *v, struct error *e)
{
	const char *type = js_str(schema, "type");
	bool number = js_type(v) == JS_INT || js_type(v) == JS_REAL;
	if (type && !type_fits(type, v))
		return error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: expected %s, got %s", name, type, js_type_name(js_type(v)));
	if (!is_offered(schema, v))
		return error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: it is not one of the values that are offered", name);
	if (js_text(v))
		return check_length(name, schema, v, e);
	if (number && ((js_get(schema, "minimum") && number_of(v) < number_of(js_get(schema, "minimum"))) ||
			      (js_get(schema, "maximum") && number_of(v) > number_of(js_get(schema, "maximum")))))
		return error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: out of its range", name);
	return ERR_OK;
}

/* A list is of plain values, each of which is looked at. */
static enum err_code check_value(const char *name, const struct js *schema, const struct js *v, struct error *e)
{
	int64_t n = (int64_t)js_len(v);
	enum err_code rc = check_plain(name, schema, v, e);
	if (rc || js_type(v) != JS_ARRAY)
		return rc;
	if (n < js_i64(schema, "minItems", 0) || n > js_i64(schema, "maxItems", INT64_MAX))
		return error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: %lld values are too %s", name, (long long)n, n < js_i64(schema, "minItems", 0) ? "few" : "many");
	for (size_t i = 0; !rc && i < js_len(v); i++) {
		AUTO_FREE char *one = mem_printf("%.80s[%zu]", name, i);
		bool plain = js_type(js_at(v, i)) != JS_ARRAY && js_type(js_at(v, i)) != JS_OBJECT;
		rc = plain ? check_plain(one, js_get(schema, "items"), js_at(v, i), e) : error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: expected a plain value, got %s", one, js_type_name(js_type(js_at(v, i))));
	}
	return rc;
}

/* What elicitations use of JSON Schema: one flat object of plain values. */
static enum err_code check_content(const struct js *schema, const struct js *content, struct error *e)
{
	const struct js *properties = js_get(schema, "properties"), *required = js_get(schema, "required");
	enum err_code rc = ERR_OK;
	if (js_type(content) != JS_OBJECT)
		return error_set(e, ERR_UNPROCESSABLE, "answer: expected an object, got %s", js_type_name(js_type(content)));
	for (size_t i = 0; i < js_len(required); i++)
		if (js_text(js_at(required, i)) && !js_get(content, js_text(js_at(required, i))))
			return error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: missing", js_text(js_at(required, i)));
	for (struct js_iter it = js_iter(content); !rc && it.key; js_next(&it)) {
		if (properties && !js_get(properties, it.key))
			rc = error_set(e, ERR_UNPROCESSABLE, "answer.%.80s: nothing of that name is asked for", it.key);
		else
			rc = check_value(it.key, js_get(properties, it.key), it.value, e);
	}
	return rc;
}

static enum err_code check_answer(const char *kind, const struct js *data, const struct js *answer, struct js *decision, struct error *e)
{
	struct js *answers = NULL;
	enum err_code rc;
	if (!answer)
		return error_set(e, ERR_INVALID, "answer: missing");
	if (str_eq(kind, "elicitation")) {
		rc = check_content(js_get(data, "schema"), answer, e);
		if (!rc)
			js_set(decision, "content", js_copy(answer));
		return rc;
	}
	rc = check_answers(js_get(data, "questions"), answer, &answers, e);
	if (!rc)
		js_set(decision, "answers", answers);
	return rc;
}

enum err_code decision_check(const char *kind, const struct js *data, const struct js *body, struct js **ret, struct error *e)
{
	static const char *const members[] = { "decision", "scope", "answer", "note", NULL };
	const char *word = NULL, *scope = NULL, *note = NULL;
	enum err_code rc = js_check_members(body, "", members, e);
	if (!rc)
		rc = js_want_str(body, "", "decision", &word, e);
	if (!rc)
		rc = js_want_str(body, "", "scope", &scope, e);
	if (!rc)
		rc = js_want_str(body, "", "note", &note, e);
	if (!rc && (!decision_state(word) || str_eq(word, "expire") || str_eq(word, "cancel")))
		rc = error_set(e, ERR_INVALID, "decision: expected approve, reject, abort or answer");
	if (!rc && scope && !str_eq(scope, "once") && !str_eq(scope, "session"))
		rc = error_set(e, ERR_INVALID, "scope: expected once or session");
	if (!rc && note && strlen(note) > DECISION_TEXT_MAX)
		rc = error_set(e, ERR_UNPROCESSABLE, "note: %zu bytes, at most %zu are taken", strlen(note), DECISION_TEXT_MAX);
	if (!rc)
		rc = check_choice(data, word, scope, e);
	if (rc)
		return rc;
	AUTO_JS struct js *decision = js_object();
	js_set_str(decision, "decision", word);
	if (str_eq(word, "approve"))
		js_set_str(decision, "scope", scope ? scope : "once");
	if (str_eq(word, "answer"))
		rc = check_answer(kind, data, js_get(body, "answer"), decision, e);
	js_set_str(decision, "note", note);
	if (!rc)
		*ret = js_ref(decision);
	return rc;
}

struct js *decision_default(const char *kind, const struct js *data, const char *text)
{
	const struct js *questions = js_get(data, "questions");
	if (!str_eq(kind, "question") || !js_len(questions))
		return NULL;
	AUTO_JS struct js *answers = js_object();
	for (size_t i = 0; i < js_len(questions); i++) {
		const struct js *q = js_at(questions, i);
		const char *first = text ? text : js_str(js_at(js_get(q, "options"), 0), "label");
		struct js *list = js_array();
		if (!first || js_flag(q, "secret", false)) {
			js_free(list);
			return NULL;
		}
		js_push_str(list, first);
		js_set(answers, js_str_or(q, "id", "?"), list);
	}
	return js_ref(answers);
}

struct js *decision_make(const char *gate, const struct js *checked, const char *actor)
{
	char id[ID_SIZE], at[RFC3339_SIZE];
	struct js *o = js_object();
	AUTO_JS struct js *own = js_copy(checked);
	clock_new_id(id);
	clock_rfc3339(clock_wall_ms(), at);
	js_set_str(o, "id", id);
	js_set_str(o, "gate", gate);
	js_merge(o, own);
	js_set_str(o, "actor", actor);
	js_set_str(o, "at", at);
	return o;
}

struct js *decision_expired(const char *kind, const struct js *data)
{
	const char *then = js_str_or(data, "at_deadline", "reject");
	struct js *o = js_object(), *answers = str_eq(then, "default") ? decision_default(kind, data, js_str(data, "default_answer")) : NULL;
	js_set_str(o, "decision", "expire");
	js_set_str(o, "then", answers ? "answer" : str_eq(then, "fail") ? "fail" : "reject");
	if (answers)
		js_set(o, "answers", answers);
	return o;
}

bool decision_is_secret(const struct js *data)
{
	const struct js *questions = js_get(data, "questions");
	for (size_t i = 0; i < js_len(questions); i++)
		if (js_flag(js_at(questions, i), "secret", false))
			return true;
	return false;
}

bool decision_same_request(const char *kind_a, const struct js *data_a, const char *kind_b, const struct js *data_b)
{
	static const char *const compared[] = { "command", "cwd", "files", "diff", "root", "permissions", "questions", "server", "message", "schema" };
	if (!str_eq(kind_a, kind_b))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(compared); i++) {
		const struct js *a = js_get(data_a, compared[i]), *b = js_get(data_b, compared[i]);
		if (!a != !b || (a && !js_equal(a, b)))
			return false;
	}
	return true;
}

static void tell_answers(const struct js *data, const struct js *decision, struct strbuf *out)
{
	const struct js *questions = js_get(data, "questions"), *answers = js_get(decision, "answers");
	for (size_t i = 0; i < js_len(questions); i++) {
		const struct js *q = js_at(questions, i), *list = js_get(answers, js_str_or(q, "id", ""));
		strbuf_addf(out, "You asked: %s\n", js_str_or(q, "text", ""));
		if (js_flag(q, "secret", false)) {
			strbuf_adds(out, "The answer is secret and ready: ask the same question again to get it.\n");
			continue;
		}
		strbuf_adds(out, "The answer: ");
		for (size_t n = 0; n < js_len(list); n++)
			strbuf_addf(out, "%s%s", n ? "; " : "", js_text(js_at(list, n)) ? js_text(js_at(list, n)) : "");
		strbuf_addc(out, '\n');
	}
}

void decision_tell(const char *kind, const struct js *data, const struct js *decision, struct strbuf *out)
{
	const char *word = js_str_or(decision, "decision", "");
	if (str_eq(kind, "question") && js_get(decision, "answers")) {
		tell_answers(data, decision, out);
	} else {
		strbuf_addf(out, "You asked: %s\n", js_str_or(data, "title", kind));
		for (size_t i = 0; i < ARRAY_SIZE(decisions); i++)
			if (str_eq(decisions[i].decision, word))
				strbuf_addf(out, "It was %s\n", decisions[i].words);
		if (js_get(decision, "content")) {
			strbuf_adds(out, "The answer: ");
			js_dump_to(js_get(decision, "content"), out);
			strbuf_addc(out, '\n');
		}
	}
	if (js_str(decision, "note"))
		strbuf_addf(out, "They said: %s\n", js_str(decision, "note"));
}
