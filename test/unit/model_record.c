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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_second_request_shows_only_what_is_new, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_rewritten_conversation_is_recorded_whole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(numbers_and_deltas_go_on_after_a_restart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_torn_last_line_is_cut, set_up, tear_down),
		cmocka_unit_test_setup_teardown(limits_count_across_a_restart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(two_recorders_share_one_file, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
