/* Translation of what the real `codex app-server` printed (test/data/codex), requests and decisions. */
#include "agent_codex_site.h"

static void play(const char *name, const char *approvals, const char *decision, struct seen *s, struct agent_outcome *o)
{
	AUTO(recording_release) struct recording r;
	recording_open(&r, name);
	struct agent *a = open_agent(s, approvals, decision);
	for (int i = 0; i < r.count; i++)
		feed(a, r.lines[i]);
	assert_true(agent_settled(a));
	assert_null(agent_open_command(a));
	agent_finish(a, -1, "", o);
	agent_free(a);
}

static void recorded_sessions_are_told_in_our_words(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sessions); i++) {
		AUTO(seen_release) struct seen s;
		AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
		play(sessions[i].name, sessions[i].approvals, sessions[i].decision, &s, &o);
		assert_string_equal(strbuf_str(&s.story), sessions[i].story);
		assert_int_equal(o.status, sessions[i].status);
		assert_int_equal(strlen(o.session_id), 36);
	}
}

static void a_whole_repair_is_told_without_a_line_that_nobody_knows(void **state)
{
	AUTO(seen_release) struct seen s;
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	static const char *const expected[] = { "run.session", "reasoning.done", "message.done", "todo.snapshot", "command.started", "command.finished", "file.changed", "run.turn" };
	(void)state;
	play("fix-test", NULL, NULL, &s, &o);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		assert_non_null(strstr(strbuf_str(&s.story), expected[i]));
	assert_null(strstr(strbuf_str(&s.story), "agent.raw"));
	assert_int_equal(o.status, AGENT_SUCCESS);
	assert_non_null(o.final);
}

/* The last thing sent that has this member. */
static const struct js *last_sent(const struct seen *s, const char *key)
{
	for (size_t i = js_len(s->sent); i-- > 0;)
		if (js_get(js_at(s->sent, i), key))
			return js_at(s->sent, i);
	return NULL;
}

static void decisions_become_codex_answers(void **state)
{
	static const struct { const char *session, *decision, *dotted, *expected; } cases[] = {
		{ "interrupted", "{\"decision\":\"approve\"}", "decision", "accept" },
		{ "interrupted", "{\"decision\":\"approve\",\"scope\":\"session\"}", "decision", "acceptForSession" },
		{ "interrupted", "{\"decision\":\"reject\"}", "decision", "decline" },
		{ "interrupted", "{\"decision\":\"expire\"}", "decision", "decline" },
		{ "interrupted", "{\"decision\":\"abort\"}", "decision", "cancel" },
		{ "interrupted", "{\"decision\":\"cancel\"}", "decision", "cancel" },
		{ "interrupted", "{\"decision\":\"nonsense\"}", "decision", "decline" },
		{ "interrupted", "[]", "decision", "decline" },
		{ "askuser", "{\"decision\":\"answer\",\"answers\":{\"answer\":[\"x\",\"y\"]}}", "contentItems.0.text", "x\ny" },
		{ "user-input", "{\"decision\":\"answer\",\"answers\":{\"colour\":[\"red\"]}}", "answers.colour.answers.0", "red" },
		{ "permissions", "{\"decision\":\"approve\",\"scope\":\"session\"}", "scope", "session" },
		{ "permissions", "{\"decision\":\"reject\"}", "scope", "turn" },
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO(seen_release) struct seen s;
		AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
		play(cases[i].session, "always", cases[i].decision, &s, &o);
		assert_string_equal(js_text(js_path(js_get(last_sent(&s, "result"), "result"), cases[i].dotted)), cases[i].expected);
	}
}

static void nothing_is_decided_twice_and_an_unknown_request_is_ignored(void **state)
{
	AUTO(seen_release) struct seen s;
	AUTO(recording_release) struct recording r;
	AUTO_JS struct js *decision = js_parse(approve, strlen(approve), NULL);
	(void)state;
	recording_open(&r, "interrupted");
	struct agent *a = open_agent(&s, "always", NULL);
	for (int i = 0; i < r.count && s.ask_count == 0; i++)
		feed(a, r.lines[i]);
	assert_int_equal(s.ask_count, 1);
	assert_null(agent_open_command(a));
	agent_decide(a, "no-such-request", decision);
	agent_decide(a, s.asks[0], decision);
	assert_non_null(agent_open_command(a));
	size_t sent = js_len(s.sent);
	agent_decide(a, s.asks[0], decision);
	assert_int_equal(js_len(s.sent), sent);
	agent_free(a);
}

static const char turn_begun[] = "{\"id\":3,\"result\":{\"turn\":{\"id\":\"U\"}}}";

/* A turn that runs, in a thread T. */
static struct agent *running(struct seen *s, const char *approvals, const char *decision)
{
	struct agent *a = open_agent(s, approvals, decision);
	feed(a, "{\"id\":1,\"result\":{}}");
	feed(a, "{\"id\":2,\"result\":{\"thread\":{\"id\":\"T\"}}}");
	feed(a, turn_begun);
	strbuf_reset(&s->story);
	return a;
}

static void several_commands_at_once_are_followed(void **state)
{
	AUTO(seen_release) struct seen s;
	(void)state;
	struct agent *a = running(&s, NULL, NULL);
	feed(a, "{\"method\":\"item/started\",\"params\":{\"threadId\":\"T\",\"item\":{\"type\":\"commandExecution\",\"id\":\"a\",\"command\":\"first\",\"processId\":\"1\"}}}");
	feed(a, "{\"method\":\"item/started\",\"params\":{\"threadId\":\"T\",\"item\":{\"type\":\"commandExecution\",\"id\":\"b\",\"command\":\"second\",\"processId\":\"2\"}}}");
	assert_string_equal(agent_open_command(a), "second");
	feed(a, "{\"method\":\"item/completed\",\"params\":{\"threadId\":\"T\",\"item\":{\"type\":\"commandExecution\",\"id\":\"b\",\"command\":\"second\",\"status\":\"completed\",\"exitCode\":3}}}");
	assert_int_equal(js_i64(s.last, "exit_code", 0), 3);
	assert_string_equal(agent_open_command(a), "first");
	feed(a, "{\"method\":\"turn/completed\",\"params\":{\"threadId\":\"T\",\"turn\":{\"id\":\"U\",\"status\":\"completed\"}}}");
	assert_null(agent_open_command(a));
	feed(a, "{\"method\":\"item/completed\",\"params\":{\"threadId\":\"T\",\"item\":{\"type\":\"commandExecution\",\"id\":\"a\",\"command\":\"first\",\"status\":\"failed\"}}}");
	assert_string_equal(strbuf_str(&s.story), "command.started command.started command.finished run.turn command.finished ");
	agent_free(a);
}

/* One request in a turn that runs; its data is s->last. */
static struct agent *asked(struct seen *s, const char *method, const char *params)
{
	struct agent *a = running(s, "always", NULL);
	AUTO_JS struct js *o = js_object();
	struct js *p = js_parse(params, strlen(params), NULL);
	assert_non_null(p);
	js_set_str(p, "threadId", "T");
	js_set_int(o, "id", 0);
	js_set_str(o, "method", method);
	js_set(o, "params", p);
	AUTO_FREE char *line = js_dump(o);
	feed(a, line);
	return a;
}

static void a_command_is_shown_as_one_would_type_it(void **state)
{
	static const struct { const char *given, *typed; } cases[] = {
		{ "/bin/bash -c 'make test'", "make test" },
		{ "/bin/bash -lc ls", "ls" },
		{ "bash -c \"echo 'it''s' \\\"x\\\" \\$HOME\"", "echo 'it''s' \"x\" $HOME" },
		{ "bash -c 'a'\"'\"'b'", "a'b" },
		{ "sh -c 'make test'", "sh -c 'make test'" }, /* it reads lines otherwise: the rules look through it themselves */
		{ "bash -c a\\ b", "a b" },
		{ "bash -c 'a' b", "bash -c 'a' b" },
		{ "bash -c 'open", "bash -c 'open" },
		{ "bash -c ''", "bash -c ''" },
		{ "bash -c $'a\\tb'", "a\tb" },
		{ "bash -c 'a';b", "bash -c 'a';b" },
		{ "bash -c \"echo $HOME\"", "bash -c \"echo $HOME\"" }, /* another shell puts it in first */
		{ "git status", "git status" },
		{ "/opt/bash -c x", "/opt/bash -c x" }, /* whatever that is */
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO(seen_release) struct seen s;
		AUTO_JS struct js *params = js_object();
		js_set_str(params, "command", cases[i].given);
		AUTO_FREE char *text = js_dump(params);
		struct agent *a = asked(&s, "item/commandExecution/requestApproval", text);
		assert_string_equal(js_str(s.last, "command"), cases[i].typed);
		agent_free(a);
	}
}

static void a_command_too_long_to_be_read_is_refused(void **state)
{
	AUTO(seen_release) struct seen s;
	AUTO_STRBUF struct strbuf params = STRBUF_INIT;
	(void)state;
	strbuf_adds(&params, "{\"command\":\"make test");
	for (int i = 0; i < 40000; i++)
		strbuf_addc(&params, ' ');
	strbuf_adds(&params, "; rm -rf /\"}");
	struct agent *a = asked(&s, "item/commandExecution/requestApproval", strbuf_str(&params));
	assert_int_equal(s.ask_count, 0);
	assert_non_null(last_sent(&s, "error"));
	agent_free(a);
}

static void a_title_is_one_short_line_of_whole_characters(void **state)
{
	AUTO(seen_release) struct seen s;
	AUTO_STRBUF struct strbuf params = STRBUF_INIT;
	(void)state;
	strbuf_adds(&params, "{\"command\":\"");
	for (int i = 0; i < 200; i++)
		strbuf_adds(&params, "\xc3\xbc");
	strbuf_adds(&params, "\\nsecond\"}");
	struct agent *a = asked(&s, "item/commandExecution/requestApproval", strbuf_str(&params));
	const char *title = js_str(s.last, "title");
	assert_true(strlen(title) <= 160 && !strchr(title, '\n') && str_is_utf8(title, strlen(title)) && str_ends(title, "\xc3\xbc"));
	agent_free(a);
}

static void a_patch_is_shown_as_a_diff_with_all_its_files(void **state)
{
	static const char item[] = "{\"method\":\"item/started\",\"params\":{\"threadId\":\"T\",\"item\":{\"type\":\"fileChange\",\"id\":\"p\",\"changes\":["
		"{\"path\":\"/workspace/new\",\"kind\":{\"type\":\"add\"},\"diff\":\"a\\nb\"},{\"path\":\"/workspace/old\",\"kind\":{\"type\":\"delete\"},\"diff\":\"c\\n\"},"
		"{\"path\":\"/etc/x\",\"kind\":{\"type\":\"update\",\"move_path\":\"/workspace/y\"},\"diff\":\"@@ -1 +1 @@\\n-d\\n+e\\n\"}]}}}";
	AUTO(seen_release) struct seen s;
	(void)state;
	struct agent *a = running(&s, "always", NULL);
	feed(a, item);
	feed(a, "{\"id\":0,\"method\":\"item/fileChange/requestApproval\",\"params\":{\"threadId\":\"T\",\"itemId\":\"p\"}}");
	assert_string_equal(js_str(s.last, "title"), "Change new, old, /etc/x");
	assert_string_equal(js_str(s.last, "diff"), "--- /dev/null\n+++ b/new\n@@ -0,0 +1,2 @@\n+a\n+b\n--- a/old\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-c\n"
		"--- a//etc/x\n+++ b//etc/x\n@@ -1 +1 @@\n-d\n+e\n");
	AUTO_FREE char *files = js_dump(js_get(s.last, "files"));
	assert_string_equal(files, "[{\"path\":\"new\",\"kind\":\"add\"},{\"path\":\"old\",\"kind\":\"delete\"},{\"path\":\"/etc/x\",\"kind\":\"update\"},{\"path\":\"y\",\"kind\":\"add\"}]");
	agent_free(a);
}

static void what_is_not_ours_and_what_is_too_much_is_refused(void **state)
{
	static const char *const refused[] = {
		"{\"id\":7,\"method\":\"item/commandExecution/requestApproval\",\"params\":{\"threadId\":\"OTHER\",\"command\":\"x\"}}",
		"{\"id\":8,\"method\":\"novel/request\",\"params\":{\"threadId\":\"T\"}}",
		"{\"id\":\"s\",\"method\":\"account/chatgptAuthTokens/refresh\",\"params\":{}}",
		"{\"id\":9,\"method\":\"item/commandExecution/requestApproval\",\"params\":{\"threadId\":\"T\"}}",
		"{\"id\":10,\"method\":\"item/permissions/requestApproval\",\"params\":{\"threadId\":\"T\",\"permissions\":5}}",
		"{\"id\":11,\"method\":\"item/tool/requestUserInput\",\"params\":{\"threadId\":\"T\",\"questions\":[]}}",
		"{\"id\":12,\"method\":\"mcpServer/elicitation/request\",\"params\":{\"threadId\":\"T\"}}",
	};
	AUTO(seen_release) struct seen s;
	(void)state;
	struct agent *a = running(&s, "always", NULL);
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		AUTO_JS struct js *line = js_parse(refused[i], strlen(refused[i]), NULL);
		feed(a, refused[i]);
		assert_true(js_equal(js_get(last_sent(&s, "error"), "id"), js_get(line, "id")));
		assert_non_null(strstr(strbuf_str(&s.story), "agent.warning"));
	}
	assert_int_equal(s.ask_count, 0);
	agent_free(a);
}

static void requests_beyond_the_limit_are_refused_and_a_used_id_is_ignored(void **state)
{
	AUTO(seen_release) struct seen s;
	(void)state;
	struct agent *a = running(&s, "always", NULL);
	for (int i = 0; i < 100; i++) {
		AUTO_FREE char *line = mem_printf("{\"id\":%d,\"method\":\"item/tool/call\",\"params\":{\"threadId\":\"T\",\"tool\":\"askuser\",\"arguments\":{\"question\":\"%d?\"}}}", i, i);
		feed(a, line);
	}
	assert_int_equal(s.ask_count, 64);
	assert_int_equal(js_i64(last_sent(&s, "error"), "id", 0), 99);
	size_t sent = js_len(s.sent);
	feed(a, "{\"id\":5,\"method\":\"item/tool/call\",\"params\":{\"threadId\":\"T\",\"tool\":\"askuser\",\"arguments\":{\"question\":\"again?\"}}}");
	assert_int_equal(js_len(s.sent), sent);
	feed(a, "{\"method\":\"serverRequest/resolved\",\"params\":{\"threadId\":\"T\",\"requestId\":5}}");
	assert_true(str_ends(strbuf_str(&s.story), "withdraw "));
	agent_free(a);
}

static void an_overloaded_server_is_asked_again_a_limited_number_of_times(void **state)
{
	AUTO(seen_release) struct seen s;
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	(void)state;
	struct agent *a = open_agent(&s, NULL, NULL);
	for (int i = 0; i < 5; i++)
		feed(a, "{\"id\":1,\"error\":{\"code\":-32001,\"message\":\"overloaded\"}}");
	assert_int_equal(js_len(s.sent), 6);
	assert_false(agent_settled(a));
	for (int i = 0; i < 100; i++)
		feed(a, "{\"id\":1,\"error\":{\"code\":-32001,\"message\":\"overloaded\"}}");
	assert_int_equal(js_len(s.sent), 10);
	assert_true(agent_settled(a));
	agent_finish(a, -1, "", &o);
	assert_string_equal(o.reason, "agent_failed");
	assert_non_null(strstr(o.error, "overloaded"));
	agent_free(a);
}

static void words_are_taken_or_refused_but_never_left_unanswered(void **state)
{
	AUTO(seen_release) struct seen s;
	(void)state;
	struct agent *a = open_agent(&s, NULL, NULL);
	assert_false(agent_say(a, "m0", "too early"));
	agent_free(a);
	seen_release(&s);
	a = running(&s, NULL, NULL);
	assert_true(agent_say(a, "m1", "left"));
	assert_string_equal(js_str(js_get(last_sent(&s, "method"), "params"), "expectedTurnId"), "U");
	feed(a, "{\"id\":4,\"result\":{\"turnId\":\"U\"}}");
	assert_true(agent_say(a, "m2", "right"));
	feed(a, "{\"id\":5,\"error\":{\"code\":-32600,\"message\":\"no active turn to steer\"}}");
	assert_true(agent_say(a, "m3", "back"));
	feed(a, "{\"method\":\"turn/completed\",\"params\":{\"threadId\":\"T\",\"turn\":{\"id\":\"U\",\"status\":\"completed\"}}}");
	assert_string_equal(strbuf_str(&s.story), "said yes said no run.turn said no ");
	assert_false(agent_say(a, "m4", "too late"));
	agent_free(a);
}

static void an_interrupt_before_the_turn_waits_for_it(void **state)
{
	AUTO(seen_release) struct seen s;
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	(void)state;
	struct agent *a = open_agent(&s, NULL, NULL);
	assert_true(agent_interrupt(a));
	feed(a, "{\"id\":1,\"result\":{}}");
	feed(a, "{\"id\":2,\"result\":{\"thread\":{\"id\":\"T\"}}}");
	assert_true(agent_settled(a));
	agent_finish(a, -1, "", &o);
	assert_string_equal(o.reason, "interrupted");
	agent_free(a);
}

static void an_end_without_the_turns_end_is_agent_exited(void **state)
{
	AUTO(seen_release) struct seen s;
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	(void)state;
	struct agent *a = running(&s, "always", NULL);
	assert_true(agent_say(a, "m1", "left"));
	feed(a, "{\"id\":0,\"method\":\"item/tool/call\",\"params\":{\"threadId\":\"T\",\"tool\":\"askuser\",\"arguments\":{\"question\":\"1?\"}}}");
	agent_finish(a, 137, "killed", &o);
	assert_string_equal(o.reason, "agent_exited");
	assert_non_null(strstr(o.error, "137"));
	assert_string_equal(strbuf_str(&s.story), "ask question said no ");
	agent_free(a);
}

static void bad_lines_are_kept_raw(void **state)
{
	static const char *const lines[] = { "not json", "[1]", "{}", "{\"id\":99,\"result\":{}}", "{\"method\":5}", "{\"id\":{},\"method\":\"x\"}", "\xff\xfe",
		"{\"method\":\"novel/notice\",\"params\":{}}", "{\"method\":\"turn/completed\",\"params\":{\"turn\":{\"id\":\"X\"}}}" };
	AUTO(seen_release) struct seen s;
	(void)state;
	struct agent *a = running(&s, "always", NULL);
	size_t sent = js_len(s.sent);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		strbuf_reset(&s.story);
		feed(a, lines[i]);
		assert_string_equal(strbuf_str(&s.story), "agent.raw ");
	}
	assert_int_equal(js_len(s.sent), sent);
	assert_false(agent_settled(a));
	agent_free(a);
}

static void a_line_that_was_cut_is_kept_as_far_as_an_event_goes(void **state)
{
	AUTO(seen_release) struct seen s;
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	(void)state;
	struct agent *a = running(&s, NULL, NULL);
	strbuf_adds(&line, "{\"method\":\"item/agentMessage/delta\",\"params\":{\"threadId\":\"T\",\"delta\":\"");
	while (line.len < AGENT_LINE_MAX)
		strbuf_addc(&line, 'x');
	feed(a, strbuf_str(&line));
	assert_string_equal(strbuf_str(&s.story), "agent.raw ");
	assert_int_equal(strlen(js_str(s.last, "line")), AGENT_TEXT_MAX);
	assert_int_equal(js_i64(s.last, "truncated", 0), AGENT_LINE_MAX - AGENT_TEXT_MAX);
	agent_free(a);
}

static void a_request_that_was_cut_is_answered_all_the_same(void **state)
{
	AUTO(seen_release) struct seen s;
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	(void)state;
	struct agent *a = running(&s, NULL, NULL);
	size_t sent = js_len(s.sent);
	strbuf_adds(&line, "{\"method\":\"item/commandExecution/requestApproval\",\"id\":7,\"params\":{\"threadId\":\"T\",\"command\":\"");
	while (line.len < AGENT_LINE_MAX)
		strbuf_addc(&line, 'x');
	feed(a, strbuf_str(&line));
	assert_int_equal(js_len(s.sent), sent + 1);
	assert_int_equal(js_i64(js_at(s.sent, sent), "id", 0), 7);
	assert_non_null(js_get(js_at(s.sent, sent), "error"));
	agent_free(a);
}

static void a_reply_that_the_turns_end_overtook_is_nothing_strange(void **state)
{
	AUTO(seen_release) struct seen s;
	(void)state;
	struct agent *a = running(&s, NULL, NULL);
	assert_true(agent_interrupt(a));
	feed(a, "{\"method\":\"turn/completed\",\"params\":{\"threadId\":\"T\",\"turn\":{\"id\":\"U\",\"status\":\"interrupted\"}}}");
	feed(a, "{\"id\":4,\"result\":{}}");
	assert_string_equal(strbuf_str(&s.story), "run.turn ");
	agent_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(recorded_sessions_are_told_in_our_words), cmocka_unit_test(a_whole_repair_is_told_without_a_line_that_nobody_knows),
		cmocka_unit_test(decisions_become_codex_answers), cmocka_unit_test(nothing_is_decided_twice_and_an_unknown_request_is_ignored),
		cmocka_unit_test(several_commands_at_once_are_followed), cmocka_unit_test(a_command_is_shown_as_one_would_type_it),
		cmocka_unit_test(a_command_too_long_to_be_read_is_refused), cmocka_unit_test(a_title_is_one_short_line_of_whole_characters),
		cmocka_unit_test(a_patch_is_shown_as_a_diff_with_all_its_files), cmocka_unit_test(what_is_not_ours_and_what_is_too_much_is_refused),
		cmocka_unit_test(requests_beyond_the_limit_are_refused_and_a_used_id_is_ignored),
		cmocka_unit_test(an_overloaded_server_is_asked_again_a_limited_number_of_times), cmocka_unit_test(words_are_taken_or_refused_but_never_left_unanswered),
		cmocka_unit_test(an_interrupt_before_the_turn_waits_for_it), cmocka_unit_test(an_end_without_the_turns_end_is_agent_exited),
		cmocka_unit_test(bad_lines_are_kept_raw), cmocka_unit_test(a_line_that_was_cut_is_kept_as_far_as_an_event_goes),
		cmocka_unit_test(a_request_that_was_cut_is_answered_all_the_same),
		cmocka_unit_test(a_reply_that_the_turns_end_overtook_is_nothing_strange),
	};
	return cmocka_run_group_tests(tests, make_settings, free_settings);
}
