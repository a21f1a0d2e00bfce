/* Translation of what the real `codex exec --json` printed (test/data/codex-exec) into our events and into an outcome. */
#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

struct seen {
	struct strbuf types;
	struct js *last[16];
	int count;
};

static void on_event(void *ctx, const char *type, struct js *data_taken)
{
	struct seen *s = ctx;
	strbuf_addf(&s->types, "%s ", type);
	js_free(s->last[s->count % 16]);
	s->last[s->count++ % 16] = data_taken;
}

static void on_live(void *ctx, const char *type, struct js *data_taken)
{
	(void)ctx;
	(void)type;
	js_free(data_taken);
}

static void seen_release(struct seen *s)
{
	strbuf_release(&s->types);
	for (int i = 0; i < 16; i++)
		js_free(s->last[i]);
}

static struct agent *open_agent(struct seen *s, struct js *settings)
{
	const struct agent_sink sink = { .event = on_event, .live = on_live, .ctx = s };
	struct agent_run run = { .agent = settings, .home = "/nonexistent", .prompt = "", .model_url = "", .model_token = "" };
	struct agent *a = NULL;
	js_set_str(settings, "adapter", "codex-exec");
	assert_int_equal(agent_new(&run, &sink, &a, NULL), ERR_OK);
	return a;
}

static void play(const char *name, struct seen *s, struct agent_outcome *o, int status)
{
	AUTO_JS struct js *settings = js_object();
	AUTO_FREE char *path = mem_printf("%s/test/data/codex-exec/%s.jsonl", getenv("SIGNALBOX_SOURCE"), name);
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	assert_int_equal(file_read(path, 1 << 20, &text, NULL), ERR_OK);
	struct agent *a = open_agent(s, settings);
	for (char *save = NULL, *line = strtok_r(text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		agent_line(a, line, strlen(line));
	agent_finish(a, status, "", o);
	agent_free(a);
}

static void a_whole_turn_becomes_commands_changes_todos_and_a_success(void **state)
{
	AUTO(seen_release) struct seen s = { .types = STRBUF_INIT };
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	static const char *const expected[] = { "run.session", "reasoning.done", "message.done", "todo.snapshot", "command.started", "command.finished",
		"file.changed", "run.turn" };
	(void)state;
	play("fix-test", &s, &o, 0);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		assert_non_null(strstr(strbuf_str(&s.types), expected[i]));
	assert_null(strstr(strbuf_str(&s.types), "agent.raw"));
	assert_int_equal(o.status, AGENT_SUCCESS);
	assert_non_null(o.final);
	assert_int_equal(strlen(o.session_id), 36);
}

static void every_failure_of_the_model_is_a_failed_run_with_words(void **state)
{
	static const char *const names[] = { "error-500", "error-400", "error-429", "cut", "garbage", "no-provider", "usage-limit", "context-too-long" };
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		AUTO(seen_release) struct seen s = { .types = STRBUF_INIT };
		AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
		play(names[i], &s, &o, 1);
		assert_int_equal(o.status, AGENT_FAILED);
		assert_non_null(o.reason);
		assert_true(o.error && strlen(o.error) > 10);
	}
}

static void a_turn_without_a_final_answer_is_not_called_a_success(void **state)
{
	AUTO(seen_release) struct seen s = { .types = STRBUF_INIT };
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	(void)state;
	play("refuse", &s, &o, 0);
	assert_int_equal(o.status, AGENT_FAILED);
	assert_string_equal(o.reason, "final_invalid");
}

static void lines_that_nobody_knows_are_kept_raw(void **state)
{
	AUTO(seen_release) struct seen s = { .types = STRBUF_INIT };
	AUTO_JS struct js *settings = js_object();
	static const char *const lines[] = { "not json", "{\"type\":\"new.thing\",\"x\":1}", "[1]", "{\"type\":\"item.completed\",\"item\":{\"type\":\"novel\"}}", "\xff\xfe" };
	(void)state;
	struct agent *a = open_agent(&s, settings);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		agent_line(a, lines[i], strlen(lines[i]));
	assert_string_equal(strbuf_str(&s.types), "agent.raw agent.raw agent.raw agent.raw agent.raw ");
	assert_string_equal(js_str(s.last[0], "line"), "not json");
	assert_non_null(js_str(s.last[4], "base64"));
	assert_false(agent_settled(a));
	agent_free(a);
}

static void an_end_before_the_turn_is_over_is_a_failure_that_quotes_the_agent(void **state)
{
	AUTO(seen_release) struct seen s = { .types = STRBUF_INIT };
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	AUTO_JS struct js *settings = js_object();
	(void)state;
	struct agent *a = open_agent(&s, settings);
	agent_finish(a, 1, "unknown variant in config.toml", &o);
	assert_int_equal(o.status, AGENT_FAILED);
	assert_string_equal(o.reason, "agent_exited");
	assert_non_null(strstr(o.error, "unknown variant"));
	agent_free(a);
}

static void long_texts_are_cut_and_say_so(void **state)
{
	AUTO(seen_release) struct seen s = { .types = STRBUF_INIT };
	AUTO_JS struct js *settings = js_object();
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	(void)state;
	strbuf_adds(&line, "{\"type\":\"item.completed\",\"item\":{\"id\":\"1\",\"type\":\"command_execution\",\"command\":\"x\",\"exit_code\":0,\"aggregated_output\":\"");
	for (size_t i = 0; i < AGENT_TEXT_MAX * 2; i++)
		strbuf_addc(&line, 'y');
	strbuf_adds(&line, "\"}}");
	struct agent *a = open_agent(&s, settings);
	agent_line(a, line.data, line.len);
	assert_int_equal(strlen(js_str(s.last[0], "output")), AGENT_TEXT_MAX);
	assert_int_equal(js_i64(s.last[0], "truncated", 0), AGENT_TEXT_MAX);
	agent_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_turn_becomes_commands_changes_todos_and_a_success), cmocka_unit_test(every_failure_of_the_model_is_a_failed_run_with_words),
		cmocka_unit_test(a_turn_without_a_final_answer_is_not_called_a_success), cmocka_unit_test(lines_that_nobody_knows_are_kept_raw),
		cmocka_unit_test(an_end_before_the_turn_is_over_is_a_failure_that_quotes_the_agent), cmocka_unit_test(long_texts_are_cut_and_say_so),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
