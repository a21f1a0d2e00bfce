/* Scenarios: what is well written is read, what is not is refused with its place, and the count of tool outputs finds the step. */
#include "base/cleanup.h"
#include "base/js.h"
#include "base/strbuf.h"
#include "model/play.h"
#include "model/scenario.h"
#include "model/turn.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const char good[] =
	"scenarios:\n"
	"  - match: '[one]'\n"
	"    steps:\n"
	"      - say: first\n"
	"      - shell: ls\n"
	"      - expect: found\n"
	"      - plan: [{step: a, status: pending}]\n"
	"      - delay: 5ms\n"
	"      - final: {status: success}\n"
	"  - match: '[fails]'\n"
	"    steps:\n"
	"      - error: {status: 500, times: 2}\n"
	"      - say: at last\n"
	"  - match: '[dead]'\n"
	"    steps:\n"
	"      - say: half\n"
	"      - cut: true\n"
	"  - default: true\n"
	"    steps: [{say: otherwise}]\n";

static void a_good_file_is_read(void **state)
{
	AUTO_SCRIPT struct script s = { .doc = NULL };
	const struct scenario *one;
	size_t first, count;

	(void)state;
	assert_int_equal(script_parse(good, strlen(good), &s, NULL), ERR_OK);
	one = script_find(&s, "please [one] now");
	assert_string_equal(one->match, "[one]");
	assert_true(script_find(&s, "nothing")->is_default);
	assert_true(scenario_response(one, 0, &first, &count));
	assert_int_equal(first, 0);
	assert_int_equal(count, 2);
	assert_true(scenario_response(one, 1, &first, &count));
	assert_int_equal(first, 2);
	assert_int_equal(count, 2);
	assert_true(scenario_response(one, 2, &first, &count));
	assert_int_equal(one->steps[first].delay_ms, 5);
	assert_int_equal(count, 2);
	assert_false(scenario_response(one, 3, &first, &count));
}

static void a_bad_file_is_refused_with_its_place(void **state)
{
	static const struct { const char *yaml, *words; } bad[] = {
		{ "{}", "scenarios: expected a list" },
		{ "scenarios: []", "scenarios: expected a list" },
		{ "scenarioz: []", "scenarioz" },
		{ "scenarios: [{match: a}]", "scenarios[0].steps: expected a list" },
		{ "scenarios: [{steps: [{say: a}]}]", "scenarios[0].match: missing" },
		{ "scenarios: [{match: a, setps: []}]", "setps" },
		{ "scenarios: [{match: a, steps: [{sya: x}]}]", "scenarios[0].steps[0].sya: no such step, expected one of say, final" },
		{ "scenarios: [{match: a, steps: [say]}]", "scenarios[0].steps[0]: expected one step" },
		{ "scenarios: [{match: a, steps: [{say: 3}]}]", "scenarios[0].steps[0].say: expected a text" },
		{ "scenarios: [{match: a, steps: [{say: x, shell: y}]}]", "expected one step" },
		{ "scenarios: [{match: a, steps: [{delay: 1y}]}]", "delay" },
		{ "scenarios: [{match: a, steps: [{delay: 3h}]}]", "delay" },
		{ "scenarios: [{match: a, steps: [{error: {}}]}]", "error.status: missing" },
		{ "scenarios: [{match: a, steps: [{error: {status: 200}}]}]", "error" },
		{ "scenarios: [{match: a, steps: [{error: {status: 500, tmies: 2}}]}]", "tmies" },
		{ "scenarios: [{match: a, steps: [{cut: false}]}]", "steps[0].cut: expected true" },
		{ "scenarios: [{match: a, steps: [{ask: {arguments: {}}}]}]", "ask: expected {tool, arguments}" },
		{ "scenarios: [{match: a, steps: [{plan: [{step: a, status: done}]}]}]", "plan[0]: expected" },
		{ "scenarios: [{match: a, steps: [{usage: {input_tokens: -1}}]}]", "usage" },
		{ ": : :", "" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		AUTO_SCRIPT struct script s = { .doc = NULL };
		struct error e = ERROR_INIT;

		assert_int_not_equal(script_parse(bad[i].yaml, strlen(bad[i].yaml), &s, &e), ERR_OK);
		if (strstr(e.text, bad[i].words) == NULL)
			fail_msg("%s: %s", bad[i].yaml, e.text);
	}
}

/* Counts like the server does, for one conversation. */
static bool take(void *ctx, const char *key, int64_t times)
{
	int64_t *taken = ctx;

	(void)key;
	return (*taken)++ < times;
}

static void play(const char *prompt, const char *more, int64_t *taken, struct play *ret)
{
	AUTO_SCRIPT struct script s = { .doc = NULL };
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	AUTO_TURN struct turn t = { .request = NULL };
	AUTO_JS struct js *request = NULL;
	const struct play_counter counter = { take, taken };

	assert_int_equal(script_parse(good, strlen(good), &s, NULL), ERR_OK);
	strbuf_addf(&text, "{\"model\":\"m\",\"stream\":true,\"tools\":[{\"type\":\"function\",\"name\":\"exec_command\"},"
		"{\"type\":\"function\",\"name\":\"write_stdin\"}],"
		"\"input\":[{\"role\":\"user\",\"content\":\"%s\"}%s]}", prompt, more);
	request = js_parse(text.data, text.len, NULL);
	assert_non_null(request);
	assert_int_equal(turn_read(request, &t, NULL), ERR_OK);
	play_make(script_find(&s, t.prompt), &t, &counter, ret);
}

static const struct js *last_item(const struct play *p)
{
	const struct js *output = js_get(p->response, "output");

	return js_at(output, js_len(output) - 1);
}

static void the_first_response_ends_with_the_call(void **state)
{
	AUTO_PLAY struct play p = { .status = 0 };
	int64_t taken = 0;

	(void)state;
	play("[one]", "", &taken, &p);
	assert_int_equal(p.status, 200);
	assert_int_equal(js_len(js_get(p.response, "output")), 2);
	assert_string_equal(js_str(last_item(&p), "name"), "exec_command");
	assert_non_null(strstr(js_str(last_item(&p), "arguments"), "\"cmd\":\"ls\""));
}

static void an_output_moves_on_and_may_be_expected(void **state)
{
	AUTO_PLAY struct play met = { .status = 0 };
	AUTO_PLAY struct play missed = { .status = 0 };
	int64_t taken = 0;

	(void)state;
	play("[one]", ",{\"type\":\"function_call_output\",\"call_id\":\"a\",\"output\":\"it was found\"}", &taken, &met);
	assert_string_equal(js_str(last_item(&met), "type"), "function_call"); /* no plan tool: still one call */
	play("[one]", ",{\"type\":\"function_call_output\",\"call_id\":\"a\",\"output\":\"nothing\"}", &taken, &missed);
	assert_string_equal(js_str(last_item(&missed), "type"), "message");
	assert_non_null(strstr(js_str(js_at(js_get(last_item(&missed), "content"), 0), "text"), "expected 'found'"));
}

static void a_command_that_still_runs_is_waited_for(void **state)
{
	AUTO_PLAY struct play p = { .status = 0 };
	int64_t taken = 0;

	(void)state;
	play("[one]", ",{\"type\":\"function_call_output\",\"call_id\":\"a\",\"output\":\"Process running with session ID 12\\n\"}", &taken, &p);
	assert_string_equal(js_str(last_item(&p), "name"), "write_stdin");
	assert_non_null(strstr(js_str(last_item(&p), "arguments"), "\"session_id\":12"));
	assert_int_equal(strncmp(js_str(last_item(&p), "call_id"), TURN_POLL_PREFIX, strlen(TURN_POLL_PREFIX)), 0);
}

static void a_failure_is_played_as_often_as_it_says(void **state)
{
	int64_t taken = 0;

	(void)state;
	for (int i = 0; i < 3; i++) {
		AUTO_PLAY struct play p = { .status = 0 };

		play("[fails]", "", &taken, &p);
		assert_int_equal(p.status, i < 2 ? 500 : 200);
	}
}

static void a_cut_leaves_the_stream_incomplete(void **state)
{
	AUTO_PLAY struct play p = { .status = 0 };
	int64_t taken = 0;

	(void)state;
	play("[dead]", "", &taken, &p);
	assert_int_equal(p.frames[p.frame_count - 1].kind, FRAME_CUT);
	assert_null(strstr(p.frames[0].data, "response.completed"));
}

static void notes_of_the_agent_are_no_prompt(void **state)
{
	AUTO_PLAY struct play p = { .status = 0 };
	int64_t taken = 0;

	(void)state;
	play("[one]", ",{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"<environment_context>x</environment_context>\"}]}", &taken, &p);
	assert_string_equal(js_str(last_item(&p), "type"), "function_call");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_file_is_read), cmocka_unit_test(a_bad_file_is_refused_with_its_place),
		cmocka_unit_test(the_first_response_ends_with_the_call), cmocka_unit_test(an_output_moves_on_and_may_be_expected),
		cmocka_unit_test(a_command_that_still_runs_is_waited_for), cmocka_unit_test(a_failure_is_played_as_often_as_it_says),
		cmocka_unit_test(a_cut_leaves_the_stream_incomplete), cmocka_unit_test(notes_of_the_agent_are_no_prompt),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
