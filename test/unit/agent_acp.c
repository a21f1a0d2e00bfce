/* The ACP adapters: what the real agents printed (test/data/acp), as events, requests and an outcome; and what no sane one would print. */
#define SITE_ADAPTERS_DATA "acp"
#include "agent_talking_site.h"

static const struct session sessions[] = {
	{ "claude-acp", "claude-approve", "always", approve, "run.session reasoning.done message.done todo.snapshot ask command command.started command.finished ask patch "
	  "file.changed todo.update todo.update tool.started tool.finished ask patch file.changed todo.update message.done run.turn ", AGENT_SUCCESS },
	{ "claude-acp", "claude-question", "never", "{\"decision\":\"answer\",\"answers\":{\"question_0\":[\"blue\"]}}",
	  "run.session tool.started ask question tool.finished message.done run.turn ", AGENT_SUCCESS },
	{ "codex-acp", "codex-approve", "on-request", approve, "run.session reasoning.done message.done todo.snapshot ask patch file.changed todo.update todo.update "
	  "ask patch file.changed todo.update message.done run.turn ", AGENT_SUCCESS },
	{ "acp", "codex-commands", "never", NULL, "run.session reasoning.done message.done todo.snapshot command.started command.finished file.changed "
	  "todo.update todo.update file.changed todo.update message.done run.turn ", AGENT_SUCCESS },
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
	static const char *const lines[] = { "{", "[]", "5", "\xff\xfe", "{\"method\":5}", "{\"id\":77,\"result\":{}}", "{\"id\":1,\"error\":{\"code\":1}}",
		"{\"id\":[],\"method\":\"fs/read_text_file\"}", "{\"id\":\"x\",\"method\":\"fs/read_text_file\",\"params\":{}}",
		"{\"id\":2,\"method\":\"session/request_permission\",\"params\":{}}", "{\"method\":\"session/update\"}", "{\"method\":\"session/update\",\"params\":[]}", NULL };
	AUTO(seen_release) struct seen seen;
	(void)state;
	settings = js_object();
	js_set_str(settings, "adapter", "acp");
	struct agent *a = open_agent(&seen, "always", NULL);
	for (const char *const *line = lines; *line; line++)
		feed(a, *line);
	assert_true(agent_settled(a)); /* by the refused `initialize` */
	agent_free(a);
	js_free(settings);
	hostile_lines("acp", lines + 7, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"session/request_permission\",\"params\":{\"a\":\"");
}

static void an_answer_in_plain_words_is_a_success_that_says_so(void **state)
{
	static const char *const lines[] = { "{\"id\":1,\"result\":{\"protocolVersion\":1}}", "{\"id\":2,\"result\":{\"sessionId\":\"s\"}}",
		"{\"method\":\"session/update\",\"params\":{\"sessionId\":\"s\",\"update\":{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":\"All\"}}}}",
		"{\"method\":\"session/update\",\"params\":{\"sessionId\":\"s\",\"update\":{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":\" done.\"}}}}",
		"{\"id\":3,\"result\":{\"stopReason\":\"end_turn\"}}", NULL };
	AUTO(seen_release) struct seen seen;
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	(void)state;
	settings = js_object();
	js_set_str(settings, "adapter", "acp");
	struct agent *a = open_agent(&seen, "always", NULL);
	for (const char *const *line = lines; *line; line++)
		feed(a, *line);
	agent_finish(a, 0, "", &o);
	assert_string_equal(strbuf_str(&seen.story), "run.session message.done run.turn agent.warning ");
	assert_int_equal(o.status, AGENT_SUCCESS);
	assert_string_equal(js_str(o.final, "summary"), "All done.");
	agent_free(a);
	js_free(settings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_is_told_as_it_was),
		cmocka_unit_test(no_member_of_any_line_can_break_it),
		cmocka_unit_test(what_is_no_line_of_it_is_kept_raw_or_refused),
		cmocka_unit_test(an_answer_in_plain_words_is_a_success_that_says_so),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
