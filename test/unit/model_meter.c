/* The meter reads the same out of a reply however it is cut into pieces, and never keeps more than its limits. */
#include "base/js.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/meter.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char reply[] =
	"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\"}}\n\n"
	": a comment\n\n"
	"event: response.output_text.delta\r\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"h\\u00e4\"}\r\n\r\n"
	"event: response.output_item.done\ndata: {\"type\":\"response.output_item.done\",\n"
	"data: \"item\":{\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"h\xc3\xa4\"}]}}\n\n"
	"data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"output\":[],\"usage\":{\"input_tokens\":10,"
	"\"input_tokens_details\":{\"cached_tokens\":4},\"output_tokens\":3,\"output_tokens_details\":{\"reasoning_tokens\":1},\"total_tokens\":13}}}\n\n";

static void assert_reply_was_read(struct meter *m)
{
	assert_true(m->completed);
	assert_true(m->has_usage);
	assert_int_equal(m->usage.input_tokens, 10);
	assert_int_equal(m->usage.cached_input_tokens, 4);
	assert_int_equal(m->usage.output_tokens, 3);
	assert_int_equal(m->usage.reasoning_output_tokens, 1);
	assert_int_equal(m->usage.total_tokens, 13);
	assert_int_equal(js_len(m->output), 1);
	assert_string_equal(js_str(js_at(js_get(js_at(m->output, 0), "content"), 0), "text"), "h\xc3\xa4");
	assert_null(m->error);
	assert_false(m->overflow);
}

static void every_way_to_cut_the_stream_reads_the_same(void **state)
{
	size_t len = sizeof(reply) - 1;

	(void)state;
	for (size_t cut = 0; cut <= len; cut++) {
		struct meter m;

		meter_init(&m, true);
		meter_feed(&m, reply, cut);
		meter_feed(&m, reply + cut, len - cut);
		meter_finish(&m);
		assert_reply_was_read(&m);
		meter_release(&m);
	}
}

static void single_bytes_read_the_same(void **state)
{
	struct meter m;

	(void)state;
	meter_init(&m, true);
	for (size_t i = 0; i < sizeof(reply) - 1; i++)
		meter_feed(&m, reply + i, 1);
	meter_finish(&m);
	assert_reply_was_read(&m);
	meter_release(&m);
}

static void a_plain_reply_is_read_at_its_end(void **state)
{
	static const char plain[] = "  {\"status\":\"completed\",\"output\":[{\"type\":\"message\"}],\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}";
	struct meter m;

	(void)state;
	meter_init(&m, false);
	meter_feed(&m, plain, 10);
	meter_feed(&m, plain + 10, sizeof(plain) - 11);
	meter_finish(&m);
	assert_true(m.completed);
	assert_int_equal(m.usage.total_tokens, 3);
	assert_int_equal(js_len(m.output), 1);
	meter_release(&m);
}

static void the_models_own_words_become_the_error(void **state)
{
	static const char *const failures[] = {
		"data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"x\",\"message\":\"too hot\"}}}\n\n",
		"data: {\"type\":\"error\",\"message\":\"too hot\"}\n\n",
		"data: {\"type\":\"error\",\"error\":{\"message\":\"too hot\"}}\n\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
		struct meter m;

		meter_init(&m, true);
		meter_feed(&m, failures[i], strlen(failures[i]));
		meter_finish(&m);
		assert_false(m.completed);
		assert_string_equal(m.error, "too hot");
		meter_release(&m);
	}
}

static void a_cut_reply_is_not_complete(void **state)
{
	struct meter m;

	(void)state;
	meter_init(&m, true);
	meter_feed(&m, reply, sizeof(reply) - 40);
	meter_finish(&m);
	assert_false(m.completed);
	assert_false(m.has_usage);
	assert_int_equal(js_len(m.output), 1);
	meter_release(&m);
}

static void garbage_is_survived(void **state)
{
	static const char garbage[] = "data: {\"type\":\"response.completed\n\n\0\xff\xfe<html>\n\ndata: [1,2\n\ndata:\"error\"\n\ndata: {\"type\":\"error\"}\n\n";
	struct meter m;

	(void)state;
	meter_init(&m, true);
	meter_feed(&m, garbage, sizeof(garbage) - 1);
	meter_finish(&m);
	assert_false(m.completed);
	meter_release(&m);
}

static void a_long_item_is_cut_and_says_so(void **state)
{
	AUTO_STRBUF struct strbuf event = STRBUF_INIT;
	struct meter m;
	const struct js *item;
	char *text;

	(void)state;
	strbuf_adds(&event, "data: {\"type\":\"response.output_item.done\",\"item\":{\"type\":\"message\",\"id\":\"m1\",\"text\":\"");
	for (int i = 0; i < 20000; i++)
		strbuf_adds(&event, "\xc3\xa4");
	strbuf_adds(&event, "\"}}\n\n");
	meter_init(&m, true);
	meter_feed(&m, event.data, event.len);
	meter_finish(&m);
	item = js_at(m.output, 0);
	assert_string_equal(js_str(item, "id"), "m1");
	assert_true(js_i64(item, "truncated", 0) > 40000);
	text = js_dump(item);
	assert_true(strlen(text) <= METER_ITEM_MAX);
	free(text);
	meter_release(&m);
}

static void many_items_are_kept_up_to_the_limit_of_all(void **state)
{
	AUTO_STRBUF struct strbuf event = STRBUF_INIT;
	struct meter m;

	(void)state;
	strbuf_adds(&event, "data: {\"type\":\"response.output_item.done\",\"item\":{\"text\":\"");
	for (int i = 0; i < 10000; i++)
		strbuf_addc(&event, 'x');
	strbuf_adds(&event, "\"}}\n\n");
	meter_init(&m, true);
	for (int i = 0; i < 100; i++)
		meter_feed(&m, event.data, event.len);
	meter_finish(&m);
	assert_true(m.output_bytes <= METER_OUTPUT_MAX);
	assert_true(m.overflow);
	assert_true(js_len(m.output) > 10);
	meter_release(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_way_to_cut_the_stream_reads_the_same), cmocka_unit_test(single_bytes_read_the_same),
		cmocka_unit_test(a_plain_reply_is_read_at_its_end), cmocka_unit_test(the_models_own_words_become_the_error),
		cmocka_unit_test(a_cut_reply_is_not_complete), cmocka_unit_test(garbage_is_survived),
		cmocka_unit_test(a_long_item_is_cut_and_says_so), cmocka_unit_test(many_items_are_kept_up_to_the_limit_of_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
