/* The agent's final answer is checked by us: what fits is taken, what does not is named. */
#include "agent/agent.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static struct js *parse(const char *text, struct error *e)
{
	return agent_final_parse(text, strlen(text), e);
}

static void a_whole_answer_is_taken(void **state)
{
	struct js *o = parse("{\"status\":\"success\",\"summary\":\"done\",\"questions\":[],\"nextActions\":[\"x\"],\"testsRun\":3,\"testsPassed\":2}", NULL);
	(void)state;
	assert_non_null(o);
	assert_string_equal(js_str(o, "summary"), "done");
	js_free(o);
}

static void what_does_not_fit_is_refused_with_its_member(void **state)
{
	static const char *const bad[][2] = { { "", "final answer" }, { "all is well", "final answer" }, { "[]", "object" }, { "{}", "status" },
		{ "{\"status\":\"great\",\"summary\":\"\"}", "status" }, { "{\"status\":\"success\"}", "summary" },
		{ "{\"status\":\"success\",\"summary\":\"x\",\"questions\":\"none\"}", "questions" },
		{ "{\"status\":\"success\",\"summary\":\"x\",\"questions\":[1]}", "questions[0]" },
		{ "{\"status\":\"success\",\"summary\":\"x\",\"testsRun\":-1}", "testsRun" } };
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct error e = ERROR_INIT;
		assert_null(parse(bad[i][0], &e));
		assert_non_null(strstr(e.text, bad[i][1]));
	}
}

static void the_schema_that_agents_get_is_json_itself(void **state)
{
	struct js *schema = js_parse(agent_final_schema, strlen(agent_final_schema), NULL);
	(void)state;
	assert_non_null(schema);
	assert_int_equal(js_len(js_get(schema, "required")), js_len(js_get(schema, "properties")));
	js_free(schema);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_whole_answer_is_taken), cmocka_unit_test(what_does_not_fit_is_refused_with_its_member),
		cmocka_unit_test(the_schema_that_agents_get_is_json_itself) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
