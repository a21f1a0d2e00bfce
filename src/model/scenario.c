/* Scenarios: the table of steps, the loader with errors that carry the path in the document, and the cutting into responses. */
#include "model/scenario.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/yaml.h"
#include <string.h>

#define SHAPE_TEXT 1u
#define SHAPE_OBJECT 2u
#define SHAPE_LIST 4u
#define SHAPE_TRUE 8u
#define SHAPE_DURATION 16u

static const char *const scenario_members[] = { "match", "default", "steps", "note", NULL };
static const char *const script_members[] = { "scenarios", NULL };
static const char *const ask_members[] = { "tool", "arguments", NULL };
static const char *const question_members[] = { "text", "header", "options", NULL };
static const char *const usage_members[] = { "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens", NULL };
static const char *const error_members[] = { "status", "retry_after", "code", "type", "message", "times", NULL };
static const char *const times_members[] = { "times", NULL };
static const char *const hang_members[] = { "times", "after_headers", NULL };

/* name, shapes, ends the response, members of an object (NULL: any), what is expected, in words */
static const struct step_spec {
	const char *name;
	enum step_kind kind;
	unsigned shapes;
	bool ends;
	const char *const *members;
	const char *expected;
} step_specs[] = {
	{ "say", STEP_SAY, SHAPE_TEXT, false, NULL, "a text" },
	{ "final", STEP_FINAL, SHAPE_TEXT | SHAPE_OBJECT, true, NULL, "a text or an object" },
	{ "reason", STEP_REASON, SHAPE_TEXT, false, NULL, "a text" },
	{ "shell", STEP_SHELL, SHAPE_TEXT, true, NULL, "a command line" },
	{ "patch", STEP_PATCH, SHAPE_TEXT, true, NULL, "a patch from '*** Begin Patch' to '*** End Patch'" },
	{ "plan", STEP_PLAN, SHAPE_LIST, true, NULL, "a list of {step, status}" },
	{ "ask", STEP_ASK, SHAPE_OBJECT, true, ask_members, "{tool, arguments}" },
	{ "question", STEP_QUESTION, SHAPE_OBJECT, true, question_members, "{text, header, options}" },
	{ "usage", STEP_USAGE, SHAPE_OBJECT, false, usage_members, "an object of token counts" },
	{ "delay", STEP_DELAY, SHAPE_DURATION, false, NULL, "a duration like 500ms or 2s, at most 10m" },
	{ "expect", STEP_EXPECT, SHAPE_TEXT, false, NULL, "a text to be found in the previous tool's output" },
	{ "error", STEP_ERROR, SHAPE_OBJECT, false, error_members, "{status, retry_after, code, type, message, times}" },
	{ "cut", STEP_CUT, SHAPE_TRUE | SHAPE_OBJECT, false, times_members, "true or {times}" },
	{ "garbage", STEP_GARBAGE, SHAPE_TRUE | SHAPE_OBJECT, false, times_members, "true or {times}" },
	{ "hang", STEP_HANG, SHAPE_TRUE | SHAPE_OBJECT, false, hang_members, "true or {times, after_headers}" },
	{ "refuse", STEP_REFUSE, SHAPE_TEXT, true, NULL, "a text" },
};

static const struct step_spec *step_spec_of(enum step_kind k)
{
	for (size_t i = 0; i < ARRAY_SIZE(step_specs); i++)
		if (step_specs[i].kind == k)
			return &step_specs[i];
	return NULL;
}

const char *step_name(enum step_kind k)
{
	return step_spec_of(k)->name;
}

static enum err_code step_unknown(const char *where, const char *key, struct error *e)
{
	AUTO_STRBUF struct strbuf names = STRBUF_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(step_specs); i++)
		strbuf_addf(&names, "%s%s", i == 0 ? "" : ", ", step_specs[i].name);
	return error_set(e, ERR_INVALID, "%s.%s: no such step, expected one of %s", where, key, strbuf_str(&names));
}

static bool shape_fits(const struct step_spec *spec, const struct js *v)
{
	switch (js_type(v)) {
	case JS_STRING: return (spec->shapes & (SHAPE_TEXT | SHAPE_DURATION)) != 0;
	case JS_OBJECT: return (spec->shapes & SHAPE_OBJECT) != 0;
	case JS_ARRAY: return (spec->shapes & SHAPE_LIST) != 0;
	case JS_BOOL: return (spec->shapes & SHAPE_TRUE) != 0 && js_true(v);
	case JS_INT: return (spec->shapes & SHAPE_DURATION) != 0;
	case JS_NULL:
	case JS_REAL: return false;
	}
	return false;
}

static enum err_code delay_read(const char *where, const struct js *v, struct step *ret, struct error *e)
{
	AUTO_FREE char *what = mem_printf("%s.delay", where);

	if (js_type(v) == JS_STRING)
		return str_to_duration_ms(js_text(v), what, 0, SCENARIO_DELAY_MAX_MS, &ret->delay_ms, e);
	ret->delay_ms = js_num(v, -1);
	if (ret->delay_ms < 0 || ret->delay_ms > SCENARIO_DELAY_MAX_MS / 1000)
		return error_set(e, ERR_INVALID, "%s: expected a duration of at most 10m", what);
	ret->delay_ms *= 1000;
	return ERR_OK;
}

static enum err_code plan_check(const char *where, const struct js *list, struct error *e)
{
	static const char *const members[] = { "step", "status", NULL };
	static const char *const states[] = { "pending", "in_progress", "completed" };

	for (size_t i = 0; i < js_len(list); i++) {
		AUTO_FREE char *at = mem_printf("%s.plan[%zu]", where, i);
		const char *status = js_str_or(js_at(list, i), "status", "");
		bool known = false;
		enum err_code rc = js_check_members(js_at(list, i), at, members, e);

		if (rc != ERR_OK)
			return rc;
		for (size_t k = 0; k < ARRAY_SIZE(states); k++)
			known = known || str_eq(status, states[k]);
		if (!known || js_str(js_at(list, i), "step") == NULL)
			return error_set(e, ERR_INVALID, "%s: expected {step: TEXT, status: pending|in_progress|completed}", at);
	}
	return ERR_OK;
}

static enum err_code counts_check(const char *where, const char *name, const struct js *v, struct error *e)
{
	AUTO_FREE char *at = mem_printf("%s.%s", where, name);
	static const struct { const char *key; int64_t min, max; } counts[] = {
		{ "times", 1, 1000000 }, { "retry_after", 0, 86400 }, { "status", 400, 599 },
		{ "input_tokens", 0, INT32_MAX }, { "cached_input_tokens", 0, INT32_MAX },
		{ "output_tokens", 0, INT32_MAX }, { "reasoning_output_tokens", 0, INT32_MAX },
	};

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		int64_t n = 0;
		enum err_code rc = js_want_i64(v, at, counts[i].key, counts[i].min, counts[i].max, &n, e);

		if (rc != ERR_OK)
			return rc;
	}
	return ERR_OK;
}

static enum err_code step_object_check(const char *where, const struct step_spec *spec, const struct js *v, struct error *e)
{
	AUTO_FREE char *at = mem_printf("%s.%s", where, spec->name);
	enum err_code rc;

	if (spec->members == NULL)
		return ERR_OK;
	rc = js_check_members(v, at, spec->members, e);
	if (rc != ERR_OK)
		return rc;
	if (spec->kind == STEP_ASK && js_str(v, "tool") == NULL)
		return error_set(e, ERR_INVALID, "%s: expected %s", at, spec->expected);
	if (spec->kind == STEP_QUESTION && (js_str(v, "text") == NULL || (js_get(v, "options") != NULL && js_type(js_get(v, "options")) != JS_ARRAY)))
		return error_set(e, ERR_INVALID, "%s: expected %s, options being a list of texts", at, spec->expected);
	if (spec->kind == STEP_ERROR && js_get(v, "status") == NULL)
		return error_set(e, ERR_INVALID, "%s.status: missing, expected a number from 400 to 599", at);
	return counts_check(where, spec->name, v, e);
}

static enum err_code step_read(const char *where, const struct js *v, struct step *ret, struct error *e)
{
	struct js_iter it = js_iter(v);
	const struct step_spec *spec = NULL;

	if (js_type(v) != JS_OBJECT || js_len(v) != 1)
		return error_set(e, ERR_INVALID, "%s: expected one step, like `say: TEXT`, got %s", where,
			js_type(v) == JS_OBJECT ? "an object with another number of members" : js_type_name(js_type(v)));
	for (size_t i = 0; i < ARRAY_SIZE(step_specs); i++)
		if (str_eq(step_specs[i].name, it.key))
			spec = &step_specs[i];
	if (spec == NULL)
		return step_unknown(where, it.key, e);
	if (!shape_fits(spec, it.value))
		return error_set(e, ERR_INVALID, "%s.%s: expected %s, got %s", where, spec->name, spec->expected, js_type_name(js_type(it.value)));
	ret->kind = spec->kind;
	ret->value = it.value;
	ret->times = js_i64(it.value, "times", INT64_MAX);
	if (spec->kind == STEP_DELAY)
		return delay_read(where, it.value, ret, e);
	if (spec->kind == STEP_PLAN)
		return plan_check(where, it.value, e);
	return js_type(it.value) == JS_OBJECT ? step_object_check(where, spec, it.value, e) : ERR_OK;
}

static enum err_code steps_read(const char *where, const struct js *list, struct scenario *ret, struct error *e)
{
	size_t n = js_len(list);

	if (js_type(list) != JS_ARRAY || n == 0 || n > SCENARIO_STEPS_MAX)
		return error_set(e, ERR_INVALID, "%s.steps: expected a list of 1 to %d steps", where, SCENARIO_STEPS_MAX);
	ret->steps = mem_alloc(n * sizeof(*ret->steps));
	for (size_t i = 0; i < n; i++) {
		AUTO_FREE char *at = mem_printf("%s.steps[%zu]", where, i);
		enum err_code rc = step_read(at, js_at(list, i), &ret->steps[i], e);

		if (rc != ERR_OK)
			return rc;
		ret->steps[i].number = i + 1;
		ret->step_count++;
	}
	return ERR_OK;
}

static enum err_code scenario_read(const char *where, const struct js *v, struct scenario *ret, struct error *e)
{
	enum err_code rc;

	if (js_type(v) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "%s: expected an object with match (or default) and steps, got %s", where, js_type_name(js_type(v)));
	rc = js_check_members(v, where, scenario_members, e);
	if (rc == ERR_OK)
		rc = js_want_str(v, where, "match", &ret->match, e);
	if (rc == ERR_OK)
		rc = js_want_bool(v, where, "default", &ret->is_default, e);
	if (rc != ERR_OK)
		return rc;
	if (str_empty(ret->match) && !ret->is_default)
		return error_set(e, ERR_INVALID, "%s.match: missing, expected a text that is in the prompt, or `default: true`", where);
	return steps_read(where, js_get(v, "steps"), ret, e);
}

static enum err_code script_read(struct script *s, struct error *e)
{
	const struct js *list = js_get(s->doc, "scenarios");
	enum err_code rc = js_check_members(s->doc, "the document", script_members, e);
	size_t n = js_len(list);

	if (rc != ERR_OK)
		return rc;
	if (js_type(list) != JS_ARRAY || n == 0 || n > SCENARIOS_MAX)
		return error_set(e, ERR_INVALID, "scenarios: expected a list of 1 to %d scenarios", SCENARIOS_MAX);
	s->scenarios = mem_alloc(n * sizeof(*s->scenarios));
	s->scenario_count = n;
	for (size_t i = 0; i < n; i++) {
		AUTO_FREE char *where = mem_printf("scenarios[%zu]", i);

		rc = scenario_read(where, js_at(list, i), &s->scenarios[i], e);
		if (rc != ERR_OK)
			return rc;
	}
	return ERR_OK;
}

static enum err_code script_from(struct js *doc_taken, struct script *ret, struct error *e)
{
	AUTO_SCRIPT struct script s = { .doc = doc_taken };
	enum err_code rc;

	if (doc_taken == NULL)
		return e == NULL || e->code == ERR_OK ? error_set(e, ERR_INVALID, "not a YAML document") : e->code;
	rc = script_read(&s, e);
	if (rc != ERR_OK)
		return rc;
	*ret = s;
	memset(&s, 0, sizeof(s));
	return ERR_OK;
}

enum err_code script_load(const char *path, struct script *ret, struct error *e)
{
	enum err_code rc = script_from(yaml_load(path, e), ret, e);

	if (rc == ERR_OK)
		return rc;
	error_wrap(e, "scenario file '%s'", path);
	error_hint(e, "doc/scenario.md has the format");
	return rc;
}

enum err_code script_parse(const char *yaml, size_t len, struct script *ret, struct error *e)
{
	return script_from(yaml_parse(yaml, len, e), ret, e);
}

void script_release(struct script *s)
{
	for (size_t i = 0; i < s->scenario_count; i++)
		free(s->scenarios[i].steps);
	free(s->scenarios);
	js_free(s->doc);
	memset(s, 0, sizeof(*s));
}

const struct scenario *script_find(const struct script *s, const char *prompt)
{
	const struct scenario *otherwise = NULL;

	for (size_t i = 0; i < s->scenario_count; i++) {
		const struct scenario *one = &s->scenarios[i];

		if (!str_empty(one->match) && strstr(prompt, one->match) != NULL)
			return one;
		if (one->is_default && otherwise == NULL)
			otherwise = one;
	}
	return otherwise;
}

bool scenario_response(const struct scenario *s, size_t n, size_t *ret_first, size_t *ret_count)
{
	size_t first = 0, i = 0;

	for (; i < s->step_count; i++) {
		if (!step_spec_of(s->steps[i].kind)->ends)
			continue;
		if (n == 0)
			break;
		n--;
		first = i + 1;
	}
	if (n > 0 || first >= s->step_count)
		return false;
	*ret_first = first;
	*ret_count = (i < s->step_count ? i + 1 : i) - first;
	return true;
}
