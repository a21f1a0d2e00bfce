/* Decisions: what fits which gate, in one form whatever the form of the answer, with the place where it does not fit. */
#include "agent/decision.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define COMMAND "{\"title\":\"make\",\"command\":\"make\",\"choices\":[\"approve\",\"approve_session\",\"reject\",\"abort\"]}"
#define PATCH "{\"title\":\"a patch\",\"choices\":[\"approve\",\"reject\"]}"
#define COLOUR "{\"choices\":[\"answer\",\"reject\"],\"questions\":[{\"id\":\"q1\",\"text\":\"Which colour?\",\"options\":[{\"label\":\"red\"},{\"label\":\"blue\"}],\"free_text\":false}]}"
#define SEVERAL "{\"choices\":[\"answer\"],\"questions\":[{\"id\":\"q1\",\"text\":\"Which?\",\"options\":[{\"label\":\"red\"},{\"label\":\"blue\"}],\"multiple\":true}]}"
#define LISTS "{\"choices\":[\"answer\"],\"schema\":{\"type\":\"object\",\"properties\":{\"tag\":{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}," \
	"\"day\":{\"type\":\"string\",\"oneOf\":[{\"const\":\"mo\",\"title\":\"Monday\"},{\"const\":\"tu\",\"title\":\"Tuesday\"}]}," \
	"\"days\":{\"type\":\"array\",\"minItems\":1,\"maxItems\":2,\"items\":{\"type\":\"string\",\"enum\":[\"mo\",\"tu\",\"we\"]}}}}}"
#define FREE "{\"choices\":[\"answer\"],\"questions\":[{\"id\":\"q1\",\"text\":\"Its name?\"}]}"
#define OPEN "{\"choices\":[\"answer\"],\"questions\":[{\"id\":\"q1\",\"text\":\"Which?\",\"options\":[{\"label\":\"red\"}],\"free_text\":true}]}"
#define TWO "{\"choices\":[\"answer\"],\"questions\":[{\"id\":\"a\",\"text\":\"A?\"},{\"id\":\"b\",\"text\":\"B?\",\"options\":[{\"label\":\"x\"}]}]}"
#define SECRET "{\"choices\":[\"answer\"],\"questions\":[{\"id\":\"q1\",\"text\":\"The password?\",\"secret\":true,\"options\":[{\"label\":\"x\"}]}]}"
#define SCHEMA "{\"choices\":[\"answer\",\"reject\"],\"server\":\"s\",\"message\":\"m\",\"schema\":{\"type\":\"object\",\"required\":[\"name\"],\"properties\":{" \
	"\"name\":{\"type\":\"string\",\"minLength\":2},\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":130},\"size\":{\"type\":\"number\"}," \
	"\"ok\":{\"type\":\"boolean\"},\"colour\":{\"type\":\"string\",\"enum\":[\"red\",\"blue\"]}}}}"

static struct js *parsed(const char *text)
{
	struct js *v = js_parse(text, strlen(text), NULL);
	assert_non_null(v);
	return v;
}

static enum err_code checked(const char *kind, const char *data_text, const char *body_text, char **ret, struct error *e)
{
	AUTO_JS struct js *data = parsed(data_text);
	AUTO_JS struct js *body = parsed(body_text);
	AUTO_JS struct js *decision = NULL;
	enum err_code rc = decision_check(kind, data, body, &decision, e);
	*ret = decision ? js_dump(decision) : NULL;
	return rc;
}

struct decision_case {
	const char *kind, *data, *body, *kept; /* kept: the decision in its one form, or what the error names */
	enum err_code code;
};

static void assert_cases(const struct decision_case *cases, size_t n)
{
	size_t wrong = 0;
	for (size_t i = 0; i < n; i++) {
		struct error e = ERROR_INIT;
		AUTO_FREE char *got = NULL;
		enum err_code rc = checked(cases[i].kind, cases[i].data, cases[i].body, &got, &e);
		bool good = rc == cases[i].code && (rc ? !got && strstr(e.text, cases[i].kept) != NULL : str_eq(got, cases[i].kept));
		if (!good)
			print_error("%s\n got: %d %s %s\nnot: %d %s\n", cases[i].body, rc, e.text, got ? got : "", cases[i].code, cases[i].kept);
		wrong += !good;
	}
	assert_int_equal(wrong, 0);
}

static void what_fits_is_kept_in_one_form(void **state)
{
	static const struct decision_case cases[] = {
		{ "command", COMMAND, "{\"decision\":\"approve\"}", "{\"decision\":\"approve\",\"scope\":\"once\"}", ERR_OK },
		{ "command", COMMAND, "{\"decision\":\"approve\",\"scope\":\"once\"}", "{\"decision\":\"approve\",\"scope\":\"once\"}", ERR_OK },
		{ "command", COMMAND, "{\"decision\":\"approve\",\"scope\":\"session\"}", "{\"decision\":\"approve\",\"scope\":\"session\"}", ERR_OK },
		{ "command", COMMAND, "{\"decision\":\"reject\",\"note\":\"no\"}", "{\"decision\":\"reject\",\"note\":\"no\"}", ERR_OK },
		{ "command", COMMAND, "{\"decision\":\"abort\"}", "{\"decision\":\"abort\"}", ERR_OK },
		{ "question", COLOUR, "{\"decision\":\"answer\",\"answer\":\"red\"}", "{\"decision\":\"answer\",\"answers\":{\"q1\":[\"red\"]}}", ERR_OK },
		{ "question", COLOUR, "{\"decision\":\"answer\",\"answer\":[\"red\"]}", "{\"decision\":\"answer\",\"answers\":{\"q1\":[\"red\"]}}", ERR_OK },
		{ "question", SEVERAL, "{\"decision\":\"answer\",\"answer\":[\"red\",\"blue\"]}", "{\"decision\":\"answer\",\"answers\":{\"q1\":[\"red\",\"blue\"]}}", ERR_OK },
		{ "elicitation", LISTS, "{\"decision\":\"answer\",\"answer\":{\"tag\":\"äöü\",\"day\":\"tu\",\"days\":[\"mo\",\"we\"]}}",
			"{\"decision\":\"answer\",\"content\":{\"tag\":\"äöü\",\"day\":\"tu\",\"days\":[\"mo\",\"we\"]}}", ERR_OK },
		{ "question", COLOUR, "{\"decision\":\"answer\",\"answer\":{\"q1\":\"blue\"}}", "{\"decision\":\"answer\",\"answers\":{\"q1\":[\"blue\"]}}", ERR_OK },
		{ "question", FREE, "{\"decision\":\"answer\",\"answer\":\"Ümläut \\n\"}", "{\"decision\":\"answer\",\"answers\":{\"q1\":[\"Ümläut \\n\"]}}", ERR_OK },
		{ "question", OPEN, "{\"decision\":\"answer\",\"answer\":\"green\"}", "{\"decision\":\"answer\",\"answers\":{\"q1\":[\"green\"]}}", ERR_OK },
		{ "question", TWO, "{\"decision\":\"answer\",\"answer\":{\"b\":\"x\",\"a\":[\"1\"]}}", "{\"decision\":\"answer\",\"answers\":{\"a\":[\"1\"],\"b\":[\"x\"]}}", ERR_OK },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":{\"name\":\"Jo\",\"age\":130,\"size\":1,\"ok\":true,\"colour\":\"red\"}}",
			"{\"decision\":\"answer\",\"content\":{\"name\":\"Jo\",\"age\":130,\"size\":1,\"ok\":true,\"colour\":\"red\"}}", ERR_OK },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":{\"name\":\"Jo\",\"size\":1.5}}", "{\"decision\":\"answer\",\"content\":{\"name\":\"Jo\",\"size\":1.5}}", ERR_OK },
	};
	(void)state;
	assert_cases(cases, ARRAY_SIZE(cases));
}

static void what_does_not_fit_says_where(void **state)
{
	static const struct decision_case cases[] = {
		{ "command", COMMAND, "{}", "decision", ERR_INVALID },
		{ "command", COMMAND, "{\"decision\":\"perhaps\"}", "decision", ERR_INVALID },
		{ "command", COMMAND, "{\"decision\":7}", "decision", ERR_INVALID },
		{ "command", COMMAND, "{\"decision\":\"expire\"}", "decision", ERR_INVALID },
		{ "command", COMMAND, "{\"decision\":\"cancel\"}", "decision", ERR_INVALID },
		{ "command", COMMAND, "{\"decision\":\"approve\",\"scope\":\"ever\"}", "scope", ERR_INVALID },
		{ "command", COMMAND, "{\"decision\":\"approve\",\"actor\":\"root\"}", "actor", ERR_INVALID },
		{ "command", COMMAND, "{\"decision\":\"approve\",\"note\":[]}", "note", ERR_INVALID },
		{ "command", COMMAND, "{\"decision\":\"answer\",\"answer\":\"x\"}", "decision", ERR_UNPROCESSABLE },
		{ "patch", PATCH, "{\"decision\":\"approve\",\"scope\":\"session\"}", "scope", ERR_UNPROCESSABLE },
		{ "patch", PATCH, "{\"decision\":\"abort\"}", "decision", ERR_UNPROCESSABLE },
		{ "question", COLOUR, "{\"decision\":\"approve\"}", "decision", ERR_UNPROCESSABLE },
		{ "question", COLOUR, "{\"decision\":\"answer\"}", "answer", ERR_INVALID },
		{ "question", COLOUR, "{\"decision\":\"answer\",\"answer\":\"green\"}", "answer.q1", ERR_UNPROCESSABLE },
		{ "question", COLOUR, "{\"decision\":\"answer\",\"answer\":[]}", "answer.q1", ERR_UNPROCESSABLE },
		{ "question", COLOUR, "{\"decision\":\"answer\",\"answer\":[\"red\",\"blue\"]}", "answer.q1: 2 answers, but the question takes one", ERR_UNPROCESSABLE },
		{ "question", FREE, "{\"decision\":\"answer\",\"answer\":[\"a\",\"b\"]}", "answer.q1", ERR_UNPROCESSABLE },
		{ "question", SEVERAL, "{\"decision\":\"answer\",\"answer\":[\"red\",7]}", "answer.q1", ERR_UNPROCESSABLE },
		{ "elicitation", LISTS, "{\"decision\":\"answer\",\"answer\":{\"tag\":\"abcd\"}}", "answer.tag: longer than 3", ERR_UNPROCESSABLE },
		{ "elicitation", LISTS, "{\"decision\":\"answer\",\"answer\":{\"tag\":\"ü\"}}", "answer.tag: shorter than 2", ERR_UNPROCESSABLE },
		{ "elicitation", LISTS, "{\"decision\":\"answer\",\"answer\":{\"day\":\"Tuesday\"}}", "answer.day", ERR_UNPROCESSABLE },
		{ "elicitation", LISTS, "{\"decision\":\"answer\",\"answer\":{\"days\":[]}}", "answer.days", ERR_UNPROCESSABLE },
		{ "elicitation", LISTS, "{\"decision\":\"answer\",\"answer\":{\"days\":[\"mo\",\"tu\",\"we\"]}}", "answer.days", ERR_UNPROCESSABLE },
		{ "elicitation", LISTS, "{\"decision\":\"answer\",\"answer\":{\"days\":[\"mo\",\"su\"]}}", "answer.days[1]", ERR_UNPROCESSABLE },
		{ "question", COLOUR, "{\"decision\":\"answer\",\"answer\":{\"q2\":\"red\"}}", "answer.q1", ERR_UNPROCESSABLE },
		{ "question", COLOUR, "{\"decision\":\"answer\",\"answer\":{\"q1\":\"red\",\"q2\":\"red\"}}", "answer.q2", ERR_UNPROCESSABLE },
		{ "question", FREE, "{\"decision\":\"answer\",\"answer\":\"\"}", "answer.q1", ERR_UNPROCESSABLE },
		{ "question", FREE, "{\"decision\":\"answer\",\"answer\":null}", "answer.q1", ERR_UNPROCESSABLE },
		{ "question", TWO, "{\"decision\":\"answer\",\"answer\":\"x\"}", "answer", ERR_UNPROCESSABLE },
		{ "question", TWO, "{\"decision\":\"answer\",\"answer\":{\"a\":\"x\"}}", "answer.b", ERR_UNPROCESSABLE },
		{ "question", TWO, "{\"decision\":\"answer\",\"answer\":{\"a\":\"x\",\"b\":\"y\"}}", "answer.b", ERR_UNPROCESSABLE },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":\"Jo\"}", "answer", ERR_UNPROCESSABLE },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":{}}", "answer.name", ERR_UNPROCESSABLE },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":{\"name\":\"J\"}}", "answer.name", ERR_UNPROCESSABLE },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":{\"name\":\"Jo\",\"age\":1.5}}", "answer.age", ERR_UNPROCESSABLE },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":{\"name\":\"Jo\",\"age\":131}}", "answer.age", ERR_UNPROCESSABLE },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":{\"name\":\"Jo\",\"age\":-1}}", "answer.age", ERR_UNPROCESSABLE },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":{\"name\":\"Jo\",\"ok\":1}}", "answer.ok", ERR_UNPROCESSABLE },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":{\"name\":\"Jo\",\"colour\":\"green\"}}", "answer.colour", ERR_UNPROCESSABLE },
		{ "elicitation", SCHEMA, "{\"decision\":\"answer\",\"answer\":{\"name\":\"Jo\",\"shoe\":1}}", "answer.shoe", ERR_UNPROCESSABLE },
	};
	(void)state;
	assert_cases(cases, ARRAY_SIZE(cases));
}

static void a_wrong_secret_is_not_quoted(void **state)
{
	struct error e = ERROR_INIT;
	AUTO_FREE char *got = NULL;
	(void)state;
	assert_int_equal(checked("question", SECRET, "{\"decision\":\"answer\",\"answer\":\"sesame\"}", &got, &e), ERR_UNPROCESSABLE);
	assert_null(strstr(e.text, "sesame"));
}

static void what_is_too_long_is_refused(void **state)
{
	AUTO_FREE char *text = mem_alloc(DECISION_TEXT_MAX + 2);
	memset(text, 'x', DECISION_TEXT_MAX);
	AUTO_FREE char *fits = mem_printf("{\"decision\":\"answer\",\"answer\":\"%s\"}", text);
	AUTO_FREE char *over = mem_printf("{\"decision\":\"answer\",\"answer\":\"%sx\"}", text);
	AUTO_FREE char *note = mem_printf("{\"decision\":\"answer\",\"answer\":\"a\",\"note\":\"%sx\"}", text);
	AUTO_FREE char *got = NULL;
	AUTO_FREE char *none = NULL;
	AUTO_FREE char *too = NULL;
	(void)state;
	assert_int_equal(checked("question", FREE, fits, &got, NULL), ERR_OK);
	assert_int_equal(checked("question", FREE, over, &none, NULL), ERR_UNPROCESSABLE);
	assert_int_equal(checked("question", FREE, note, &too, NULL), ERR_UNPROCESSABLE);
}

static char *default_of(const char *kind, const char *data_text, const char *text)
{
	AUTO_JS struct js *data = parsed(data_text);
	AUTO_JS struct js *answers = decision_default(kind, data, text);
	return answers ? js_dump(answers) : NULL;
}

static void the_default_is_the_first_option_or_the_given_text(void **state)
{
	AUTO_FREE char *first = default_of("question", COLOUR, NULL);
	AUTO_FREE char *text = default_of("question", FREE, "as you like");
	(void)state;
	assert_string_equal(first, "{\"q1\":[\"red\"]}");
	assert_string_equal(text, "{\"q1\":[\"as you like\"]}");
	assert_null(default_of("question", FREE, NULL));
	assert_null(default_of("question", TWO, NULL));
	assert_null(default_of("question", SECRET, NULL));
	assert_null(default_of("question", SECRET, "x"));
	assert_null(default_of("command", COMMAND, "x"));
}

static void nobody_answered(const char *kind, const char *data_text, const char *expected)
{
	AUTO_JS struct js *data = parsed(data_text);
	AUTO_JS struct js *decision = decision_expired(kind, data);
	AUTO_FREE char *text = js_dump(decision);
	assert_string_equal(text, expected);
}

static void the_gates_own_rule_says_what_happens_when_nobody_answers(void **state)
{
	(void)state;
	nobody_answered("command", "{}", "{\"decision\":\"expire\",\"then\":\"reject\"}");
	nobody_answered("command", "{\"at_deadline\":\"fail\"}", "{\"decision\":\"expire\",\"then\":\"fail\"}");
	nobody_answered("command", "{\"at_deadline\":\"default\",\"default_answer\":\"yes\"}", "{\"decision\":\"expire\",\"then\":\"reject\"}");
	nobody_answered("question", "{\"at_deadline\":\"default\",\"default_answer\":\"yes\",\"questions\":[{\"id\":\"q1\",\"text\":\"?\"}]}",
		"{\"decision\":\"expire\",\"then\":\"answer\",\"answers\":{\"q1\":[\"yes\"]}}");
}

static void a_decision_that_is_made_has_an_id_and_is_nobody_elses(void **state)
{
	AUTO_JS struct js *checked = parsed("{\"decision\":\"answer\",\"answers\":{\"q1\":[\"red\"]}}");
	AUTO_JS struct js *one = decision_make("G1", checked, "ann");
	AUTO_JS struct js *two = decision_make("G2", checked, "bob");
	(void)state;
	js_set_str(js_get(one, "answers"), "q1", "sealed");
	assert_string_equal(js_str(one, "gate"), "G1");
	assert_string_equal(js_str(two, "actor"), "bob");
	assert_string_not_equal(js_str(one, "id"), js_str(two, "id"));
	assert_true(clock_is_id(js_str(one, "id")) && clock_parse_rfc3339(js_str(two, "at")) > 0);
	assert_true(js_equal(js_get(two, "answers"), js_get(checked, "answers")));
	assert_string_equal(js_text(js_at(js_path(checked, "answers.q1"), 0)), "red");
}

static void one_secret_question_makes_a_gate_secret(void **state)
{
	AUTO_JS struct js *secret = parsed(SECRET);
	AUTO_JS struct js *plain = parsed(TWO);
	(void)state;
	assert_true(decision_is_secret(secret));
	assert_false(decision_is_secret(plain));
	assert_false(decision_is_secret(NULL));
}

static void the_same_request_is_the_same_whatever_its_words_around(void **state)
{
	AUTO_JS struct js *a = parsed("{\"title\":\"one\",\"reason\":\"x\",\"command\":\"make\",\"cwd\":\"/w\",\"request\":\"1\"}");
	AUTO_JS struct js *b = parsed("{\"title\":\"two\",\"command\":\"make\",\"cwd\":\"/w\",\"request\":\"2\"}");
	AUTO_JS struct js *other = parsed("{\"title\":\"one\",\"command\":\"make all\",\"cwd\":\"/w\"}");
	AUTO_JS struct js *elsewhere = parsed("{\"title\":\"one\",\"command\":\"make\",\"cwd\":\"/\"}");
	AUTO_JS struct js *less = parsed("{\"title\":\"one\",\"command\":\"make\"}");
	(void)state;
	assert_true(decision_same_request("command", a, "command", b));
	assert_false(decision_same_request("command", a, "patch", b));
	assert_false(decision_same_request("command", a, "command", other));
	assert_false(decision_same_request("command", a, "command", elsewhere));
	assert_false(decision_same_request("command", a, "command", less));
}

static char *told(const char *kind, const char *data_text, const char *decision_text)
{
	struct strbuf out = STRBUF_INIT;
	AUTO_JS struct js *data = parsed(data_text);
	AUTO_JS struct js *decision = parsed(decision_text);
	decision_tell(kind, data, decision, &out);
	return strbuf_detach(&out);
}

static void an_agent_is_told_what_it_asked_and_what_was_decided(void **state)
{
	AUTO_FREE char *command = told("command", COMMAND, "{\"decision\":\"reject\",\"note\":\"not now\"}");
	AUTO_FREE char *colour = told("question", COLOUR, "{\"decision\":\"answer\",\"answers\":{\"q1\":[\"red\",\"blue\"]}}");
	AUTO_FREE char *form = told("elicitation", SCHEMA, "{\"decision\":\"answer\",\"content\":{\"name\":\"Jo\"}}");
	(void)state;
	assert_string_equal(command, "You asked: make\nIt was refused: go on without it\nThey said: not now\n");
	assert_string_equal(colour, "You asked: Which colour?\nThe answer: red; blue\n");
	assert_non_null(strstr(form, "{\"name\":\"Jo\"}"));
}

static void a_secret_is_named_to_the_agent_not_told(void **state)
{
	AUTO_FREE char *text = told("question", SECRET, "{\"decision\":\"answer\",\"answers\":{\"q1\":[\"sesame\"]}}");
	(void)state;
	assert_null(strstr(text, "sesame"));
	assert_non_null(strstr(text, "The password?"));
}

static void every_decision_has_a_state(void **state)
{
	static const char *const words[][2] = { { "approve", "approved" }, { "reject", "rejected" }, { "abort", "rejected" }, { "answer", "answered" },
		{ "expire", "expired" }, { "cancel", "canceled" } };
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		assert_string_equal(decision_state(words[i][0]), words[i][1]);
	assert_null(decision_state("maybe"));
	assert_null(decision_state(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_fits_is_kept_in_one_form),
		cmocka_unit_test(what_does_not_fit_says_where),
		cmocka_unit_test(a_wrong_secret_is_not_quoted),
		cmocka_unit_test(what_is_too_long_is_refused),
		cmocka_unit_test(the_default_is_the_first_option_or_the_given_text),
		cmocka_unit_test(the_gates_own_rule_says_what_happens_when_nobody_answers),
		cmocka_unit_test(a_decision_that_is_made_has_an_id_and_is_nobody_elses), cmocka_unit_test(one_secret_question_makes_a_gate_secret),
		cmocka_unit_test(the_same_request_is_the_same_whatever_its_words_around),
		cmocka_unit_test(an_agent_is_told_what_it_asked_and_what_was_decided),
		cmocka_unit_test(a_secret_is_named_to_the_agent_not_told),
		cmocka_unit_test(every_decision_has_a_state),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
