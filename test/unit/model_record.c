/* The record: a conversation as deltas, numbers and limits that survive a restart, torn lines that do not hurt. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "model/record.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

struct fixture {
	char *dir;
	struct recorder *recorder;
};

static int set_up(void **state)
{
	struct fixture *f = NEW(struct fixture);

	assert_int_equal(file_tmpdir("/tmp", "record", &f->dir, NULL), ERR_OK);
	assert_int_equal(recorder_open(f->dir, &f->recorder, NULL), ERR_OK);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	recorder_free(f->recorder);
	assert_int_equal(file_remove_tree(f->dir, NULL), ERR_OK);
	free(f->dir);
	free(f);
	return 0;
}

static void restart(struct fixture *f)
{
	recorder_free(f->recorder);
	assert_int_equal(recorder_open(f->dir, &f->recorder, NULL), ERR_OK);
}

static struct js *line(struct fixture *f, size_t n)
{
	AUTO_FREE char *path = file_join(f->dir, "run.jsonl");
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	const char *at;

	assert_int_equal(file_read(path, (size_t)1 << 20, &text, NULL), ERR_OK);
	at = strbuf_str(&text);
	while (n-- > 0)
		at = strchr(at, '\n') + 1;
	return js_parse(at, (size_t)(strchr(at, '\n') - at), NULL);
}

static enum err_code begin(struct fixture *f, const char *input_text, int64_t requests, int64_t tokens, struct record_ticket *ret)
{
	char run[] = "run";
	const struct token_claims claims = { .run = run, .exp_s = 1, .limit_requests = requests, .limit_tokens = tokens };
	AUTO_JS struct js *input = js_parse(input_text, strlen(input_text), NULL);
	const struct record_request rq = { .request_id = "q", .provider = "p", .model = "m", .input = input, .stream = true, .bytes = 5 };

	return record_start(f->recorder, &claims, &rq, ret, NULL);
}

static void exchange(struct fixture *f, const char *input_text, const char *reply)
{
	struct record_ticket t = RECORD_TICKET_INIT;
	struct record_result res = { .status = 200, .bytes_out = 3 };
	struct meter m;

	assert_int_equal(begin(f, input_text, 0, 0, &t), ERR_OK);
	meter_init(&m, false);
	m.scrub = &t.scrub;
	meter_feed(&m, reply, strlen(reply));
	meter_finish(&m);
	res.meter = &m;
	assert_int_equal(record_end(f->recorder, &t, &res, NULL), ERR_OK);
	assert_int_equal(t.fd, -1);
	meter_release(&m);
}

#define ANSWER "{\"output\":[{\"type\":\"function_call\",\"call_id\":\"c\"}],\"usage\":{\"input_tokens\":6,\"output_tokens\":4}}"

static void the_second_request_shows_only_what_is_new(void **state)
{
	struct fixture *f = *state;
	AUTO_JS struct js *second = NULL;

	exchange(f, "[{\"role\":\"user\",\"n\":1}]", ANSWER);
	exchange(f, "[{\"role\":\"user\",\"n\":1},{\"type\":\"function_call\",\"call_id\":\"c\"},{\"type\":\"function_call_output\",\"call_id\":\"c\"}]", ANSWER);
	second = line(f, 2);
	assert_int_equal(js_i64(second, "n", 0), 2);
	assert_string_equal(js_str(second, "phase"), "start");
	assert_int_equal(js_i64(second, "input_items", 0), 3);
	assert_int_equal(js_i64(second, "input_from", 0), 1);
	assert_int_equal(js_i64(second, "input_echoed", 0), 1);
	assert_int_equal(js_len(js_get(second, "input_delta")), 1);
	assert_string_equal(js_str(js_at(js_get(second, "input_delta"), 0), "type"), "function_call_output");
}

static void a_rewritten_conversation_is_recorded_whole(void **state)
{
	struct fixture *f = *state;
	AUTO_JS struct js *second = NULL;

	exchange(f, "[{\"n\":1},{\"n\":2}]", ANSWER);
	exchange(f, "[{\"n\":7},{\"n\":2},{\"n\":3}]", ANSWER);
	second = line(f, 2);
	assert_int_equal(js_i64(second, "input_from", -1), 0);
	assert_int_equal(js_len(js_get(second, "input_delta")), 3);
}

static void numbers_and_deltas_go_on_after_a_restart(void **state)
{
	struct fixture *f = *state;
	AUTO_JS struct js *second = NULL;

	exchange(f, "[{\"n\":1}]", ANSWER);
	restart(f);
	exchange(f, "[{\"n\":1},{\"n\":2}]", ANSWER);
	second = line(f, 2);
	assert_int_equal(js_i64(second, "n", 0), 2);
	assert_int_equal(js_len(js_get(second, "input_delta")), 1);
}

static void a_torn_last_line_is_cut(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *path = file_join(f->dir, "run.jsonl");
	AUTO_JS struct js *second = NULL;
	int fd;

	exchange(f, "[{\"n\":1}]", ANSWER);
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_int_equal(write(fd, "{\"n\":9,\"phase\":\"sta", 19), 19);
	close(fd);
	restart(f);
	exchange(f, "[{\"n\":1},{\"n\":2}]", ANSWER);
	second = line(f, 2);
	assert_int_equal(js_i64(second, "n", 0), 2);
}

static void limits_count_across_a_restart(void **state)
{
	struct fixture *f = *state;
	struct record_ticket t = RECORD_TICKET_INIT;

	exchange(f, "[{\"n\":1}]", ANSWER);
	exchange(f, "[{\"n\":1}]", ANSWER);
	assert_int_equal(begin(f, "[]", 2, 0, &t), ERR_LIMIT);
	assert_int_equal(begin(f, "[]", 0, 20, &t), ERR_LIMIT);
	restart(f);
	assert_int_equal(begin(f, "[]", 2, 0, &t), ERR_LIMIT);
	assert_int_equal(begin(f, "[]", 0, 20, &t), ERR_LIMIT);
	assert_int_equal(begin(f, "[]", 3, 21, &t), ERR_OK);
	close(t.fd);
	scrub_release(&t.scrub);
}

static void two_recorders_share_one_file(void **state)
{
	struct fixture *f = *state;
	struct recorder *other = NULL, *mine = f->recorder;
	AUTO_JS struct js *third = NULL;

	exchange(f, "[{\"n\":1}]", ANSWER);
	assert_int_equal(recorder_open(f->dir, &other, NULL), ERR_OK);
	f->recorder = other;
	exchange(f, "[{\"n\":1}]", ANSWER);
	f->recorder = mine;
	exchange(f, "[{\"n\":1}]", ANSWER);
	third = line(f, 4);
	assert_int_equal(js_i64(third, "n", 0), 3);
	recorder_free(other);
}

static void hide(struct fixture *f, const char *task, const char *texts)
{
	AUTO_JS struct js *list = js_parse(texts, strlen(texts), NULL);

	assert_int_equal(record_hide(f->recorder, task, list, NULL), ERR_OK);
}

static bool file_has(struct fixture *f, const char *text)
{
	AUTO_FREE char *path = file_join(f->dir, "run.jsonl");
	AUTO_STRBUF struct strbuf all = STRBUF_INIT;

	assert_int_equal(file_read(path, (size_t)1 << 20, &all, NULL), ERR_OK);
	return strstr(strbuf_str(&all), text) != NULL;
}

#define PASSWORD "say \\\"sesame\\\" 4711"
#define TOLD "[{\"n\":1},{\"type\":\"function_call_output\",\"output\":\"it is " PASSWORD "\"}]"
#define SAID "{\"output\":[{\"type\":\"function_call\",\"call_id\":\"c\",\"arguments\":\"{\\\"p\\\":\\\"say \\\\\\\"sesame\\\\\\\" 4711\\\"}\"}]," \
	"\"usage\":{\"input_tokens\":4711,\"output_tokens\":4}}"

static void what_is_hidden_is_in_no_line_and_the_lines_stay_whole(void **state)
{
	struct fixture *f = *state;
	AUTO_JS struct js *start = NULL, *end = NULL;

	hide(f, "other", "[\"n\"]");
	hide(f, "run", "[\"" PASSWORD "\",7,null]");
	hide(f, "run", "[\"" PASSWORD "\"]");
	exchange(f, "[{\"n\":1}]", ANSWER);
	exchange(f, TOLD, SAID);
	assert_false(file_has(f, "sesame"));
	start = line(f, 2);
	end = line(f, 3);
	assert_string_equal(js_str(js_at(js_get(start, "input_delta"), 0), "output"), "it is ***");
	assert_string_equal(js_str(js_at(js_get(end, "output"), 0), "call_id"), "c");
	assert_int_equal(js_i64(start, "n", 0), 2);
	assert_int_equal(js_i64(js_get(end, "usage"), "total_tokens", 0), 4715); /* counts are no words */
}

static void the_conversation_is_known_again_when_the_secrets_were_told_again(void **state)
{
	struct fixture *f = *state;
	AUTO_JS struct js *second = NULL;

	hide(f, "run", "[\"" PASSWORD "\"]");
	exchange(f, TOLD, ANSWER);
	restart(f);
	hide(f, "run", "[\"" PASSWORD "\"]");
	exchange(f, "[{\"n\":1},{\"type\":\"function_call_output\",\"output\":\"it is " PASSWORD "\"},{\"n\":3}]", ANSWER);
	second = line(f, 2);
	assert_int_equal(js_i64(second, "input_from", 0), 2);
	assert_int_equal(js_len(js_get(second, "input_delta")), 1);
	assert_false(file_has(f, "sesame"));
}

/* The record keeps the head of a long item: a secret that lies across its end is cut out before. */
static void a_secret_across_the_cut_of_a_long_item_leaves_no_half(void **state)
{
	struct fixture *f = *state;

	hide(f, "run", "[\"open-sesame-4711\"]");
	for (size_t before = METER_ITEM_MAX / 2 - 60; before < METER_ITEM_MAX / 2; before++) {
		AUTO_FREE char *pad = mem_alloc(METER_ITEM_MAX + 1);
		memset(pad, 'x', METER_ITEM_MAX);
		AUTO_FREE char *text = mem_printf("[{\"t\":\"%.*sopen-sesame-4711%s\"}]", (int)before, pad, pad);
		AUTO_FREE char *reply = mem_printf("{\"output\":%s}", text);
		exchange(f, text, reply);
	}
	assert_true(file_has(f, "truncated"));
	assert_false(file_has(f, "open"));
}

static void of_too_many_tasks_the_longest_unused_is_forgotten(void **state)
{
	struct fixture *f = *state;

	hide(f, "old", "[\"zzz\"]");
	hide(f, "run", "[\"sesame\"]");
	for (int i = 0; i < RECORD_HIDE_TASKS_MAX - 1; i++) {
		AUTO_FREE char *task = mem_printf("t%d", i);

		if (i % 1000 == 0)
			hide(f, "run", "[]"); /* it is in use */
		hide(f, task, "[\"x\"]");
	}
	exchange(f, TOLD, ANSWER);
	assert_false(file_has(f, "sesame"));
}

static void a_run_has_a_file_from_its_beginning_to_its_end_and_no_request_without(void **state)
{
	struct fixture *f = *state;
	struct record_ticket t = RECORD_TICKET_INIT;
	AUTO_FREE char *path = file_join(f->dir, "run.jsonl");

	recorder_expect_files(f->recorder);
	assert_int_equal(begin(f, "[1]", 0, 0, &t), ERR_DENIED);
	assert_false(file_exists(path));
	assert_int_equal(file_replace(path, "", 0, 0600, FILE_NOSYNC, NULL), ERR_OK);
	exchange(f, "[1]", ANSWER);
	assert_int_equal(chmod(path, 0400), 0);
	assert_int_equal(begin(f, "[1]", 0, 0, &t), ERR_DENIED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_second_request_shows_only_what_is_new, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_rewritten_conversation_is_recorded_whole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(numbers_and_deltas_go_on_after_a_restart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_torn_last_line_is_cut, set_up, tear_down),
		cmocka_unit_test_setup_teardown(limits_count_across_a_restart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(two_recorders_share_one_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_hidden_is_in_no_line_and_the_lines_stay_whole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_conversation_is_known_again_when_the_secrets_were_told_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_secret_across_the_cut_of_a_long_item_leaves_no_half, set_up, tear_down),
		cmocka_unit_test_setup_teardown(of_too_many_tasks_the_longest_unused_is_forgotten, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_run_has_a_file_from_its_beginning_to_its_end_and_no_request_without, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
