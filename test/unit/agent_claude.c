/* Adapter `claude`: what the real Claude Code printed (test/data/claude), as events, requests and an outcome; and what no sane one would print. */
#define SITE_ADAPTERS_DATA "claude"
#include "agent_talking_site.h"

static const struct session sessions[] = {
	{ "claude", "approve", "always", approve, "run.session reasoning.done message.done todo.snapshot ask command command.started command.finished ask patch file.changed "
	  "todo.update todo.update tool.started tool.finished ask patch file.changed todo.update run.turn ", AGENT_SUCCESS },
	{ "claude", "approve", "never", NULL, "run.session reasoning.done message.done todo.snapshot command.started command.finished file.changed "
	  "todo.update todo.update tool.started tool.finished file.changed todo.update run.turn ", AGENT_SUCCESS },
	{ "claude", "question", "never", "{\"decision\":\"answer\",\"answers\":{\"q1\":[\"blue\"]}}", "run.session ask question run.turn ", AGENT_SUCCESS },
	{ "claude", "question", NULL, "{\"decision\":\"expire\"}", "run.session ask question run.turn ", AGENT_SUCCESS },
	{ "claude", "interrupt", NULL, NULL, "run.session command.started command.finished run.turn ", AGENT_FAILED },
};

static void a_session_is_told_as_it_was(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sessions); i++)
		tell_as_recorded(&sessions[i]);
}

static void no_member_of_any_line_can_break_it(void **state)
{
	AUTO_JS struct js *done = js_object();
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sessions); i++)
		any_member_may_be_anything(done, &sessions[i]);
}

static void what_is_no_line_of_it_is_kept_raw_or_refused(void **state)
{
	static const char *const lines[] = { "{", "[]", "5", "\xff\xfe", "{\"type\":\"nonsense\"}", "{\"type\":\"control_request\"}",
		"{\"type\":\"control_request\",\"request_id\":\"a\",\"request\":{\"subtype\":\"hook_callback\"}}",
		"{\"type\":\"control_request\",\"request_id\":\"b\",\"request\":{\"subtype\":\"can_use_tool\",\"tool_name\":\"Bash\",\"input\":{\"command\":\"ls\"}}}",
		"{\"type\":\"control_request\",\"request_id\":\"b\",\"request\":{\"subtype\":\"can_use_tool\",\"tool_name\":\"Bash\",\"input\":{\"command\":\"ls\"}}}",
		"{\"type\":\"control_cancel_request\",\"request_id\":\"nobody\"}", "{\"type\":\"control_cancel_request\",\"request_id\":\"b\"}", NULL };
	(void)state;
	hostile_lines("claude", lines, "{\"type\":\"control_request\",\"request_id\":\"long\",\"request\":{\"subtype\":\"can_use_tool\",\"input\":\"");
}

static void a_result_that_is_too_long_to_be_read_ends_the_turn(void **state)
{
	AUTO(seen_release) struct seen seen;
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	AUTO_STRBUF struct strbuf big = STRBUF_INIT;
	(void)state;
	settings = js_object();
	js_set_str(settings, "adapter", "claude");
	struct agent *a = open_agent(&seen, "never", NULL);
	strbuf_adds(&big, "{\"duration_api_ms\":5,\"result\":\"");
	while (big.len < AGENT_LINE_MAX)
		strbuf_adds(&big, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
	agent_line(a, big.data, AGENT_LINE_MAX);
	assert_true(agent_settled(a));
	agent_finish(a, -1, "", &o);
	assert_string_equal(o.reason, "agent_failed");
	agent_free(a);
	js_free(settings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_is_told_as_it_was),
		cmocka_unit_test(no_member_of_any_line_can_break_it),
		cmocka_unit_test(what_is_no_line_of_it_is_kept_raw_or_refused),
		cmocka_unit_test(a_result_that_is_too_long_to_be_read_ends_the_turn),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
