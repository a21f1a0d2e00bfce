/* Plans become todos whose ids stay. */
#include "agent/backend.h"
#include "base/cleanup.h"
#include "base/str.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static struct strbuf told = STRBUF_INIT;

static void on_event(void *ctx, const char *type, struct js *data_taken)
{
	const struct js *items = js_get(data_taken, "items");
	(void)ctx;
	strbuf_addf(&told, "%s", str_eq(type, "todo.snapshot") ? "=" : "~");
	if (!items)
		strbuf_addf(&told, "%s:%s:%s>%s", js_str(data_taken, "id"), js_str(data_taken, "text"), js_str(data_taken, "was"), js_str(data_taken, "status"));
	for (size_t i = 0; i < js_len(items); i++)
		strbuf_addf(&told, "%s%s:%s:%s", i ? "," : "", js_str(js_at(items, i), "id"), js_str(js_at(items, i), "text"), js_str(js_at(items, i), "status"));
	strbuf_addc(&told, ' ');
	js_free(data_taken);
}

/* "+" completed, ">" in progress, "-" pending, then the text; separated by commas. */
static const char *plan(struct agent *a, const char *steps)
{
	struct js *list = js_array();
	strbuf_reset(&told);
	for (const char *at = steps; *at; at += strspn(at, ",")) {
		struct js *step = js_object();
		size_t n = strcspn(at, ",");
		js_set_str(step, "status", *at == '+' ? "completed" : *at == '>' ? "in_progress" : "pending");
		js_set(step, "text", js_string_n(at + 1, n - 1));
		js_push(list, step);
		at += n;
	}
	agent_todos(a, list);
	return strbuf_str(&told);
}

static struct agent *open_agent(void)
{
	const struct agent_sink sink = { .event = on_event };
	AUTO_JS struct js *settings = js_object();
	const struct agent_run run = { .agent = settings };
	struct agent *a = NULL;
	js_set_str(settings, "adapter", "fake");
	assert_int_equal(agent_new(&run, &sink, &a, NULL), ERR_OK);
	return a;
}

static void only_what_changed_is_told(void **state)
{
	(void)state;
	struct agent *a = open_agent();
	assert_string_equal(plan(a, ">look,-mend"), "=1:look:in_progress,2:mend:pending ");
	assert_string_equal(plan(a, ">look,-mend"), "");
	assert_string_equal(plan(a, "+look,>mend"), "~1:look:in_progress>completed ~2:mend:pending>in_progress ");
	agent_free(a);
}

static void a_step_keeps_its_id_by_its_text_or_by_its_place(void **state)
{
	(void)state;
	struct agent *a = open_agent();
	assert_string_equal(plan(a, "-a,-b,-c"), "=1:a:pending,2:b:pending,3:c:pending ");
	assert_string_equal(plan(a, "-c,-b,-a"), "=3:c:pending,2:b:pending,1:a:pending ");
	assert_string_equal(plan(a, "-c,-B,-a"), "=3:c:pending,2:B:pending,1:a:pending ");
	assert_string_equal(plan(a, "-x,-c,-B,-a"), "=4:x:pending,3:c:pending,2:B:pending,1:a:pending ");
	assert_string_equal(plan(a, "+a"), "=1:a:completed ");
	assert_string_equal(plan(a, "+a,-b"), "=1:a:completed,5:b:pending ");
	agent_free(a);
}

static void equal_steps_are_different_ones(void **state)
{
	(void)state;
	struct agent *a = open_agent();
	assert_string_equal(plan(a, "-test,-mend,-test"), "=1:test:pending,2:mend:pending,3:test:pending ");
	assert_string_equal(plan(a, "+test,>mend,-test"), "~1:test:pending>completed ~2:mend:pending>in_progress ");
	agent_free(a);
}

static void an_empty_plan_and_an_endless_one_are_bounded(void **state)
{
	AUTO_STRBUF struct strbuf many = STRBUF_INIT;
	(void)state;
	struct agent *a = open_agent();
	assert_string_equal(plan(a, ""), "= ");
	for (int i = 0; i < 5000; i++)
		strbuf_addf(&many, "-step %d,", i);
	plan(a, strbuf_str(&many));
	assert_int_equal(js_len(a->todos), 200);
	agent_todos(a, NULL);
	assert_int_equal(js_len(a->todos), 0);
	agent_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_what_changed_is_told), cmocka_unit_test(a_step_keeps_its_id_by_its_text_or_by_its_place),
		cmocka_unit_test(equal_steps_are_different_ones), cmocka_unit_test(an_empty_plan_and_an_endless_one_are_bounded),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	strbuf_release(&told);
	return failed;
}
