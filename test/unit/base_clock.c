/* Time, identifiers and log lines: formats read back, order holds, tests own the clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/clock.h"
#include "base/cleanup.h"
#include "base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static int64_t now_ms = 1795169472123;

static int64_t fixed(void)
{
	return now_ms;
}

static void times_are_written_and_read_back(void **state)
{
	static const struct { int64_t ms; const char *text; } cases[] = {
		{ 0, "1970-01-01T00:00:00.000Z" }, { 951782400000, "2000-02-29T00:00:00.000Z" },
		{ 1795169472123, "2026-11-20T10:11:12.123Z" }, { 253402300799999, "9999-12-31T23:59:59.999Z" },
	};
	char text[RFC3339_SIZE];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		clock_rfc3339(cases[i].ms, text);
		assert_string_equal(text, cases[i].text);
		assert_int_equal(clock_parse_rfc3339(text), cases[i].ms);
	}
	for (int64_t day = 0; day < 200000; day += 13) {
		clock_rfc3339(day * 86400000 + 5, text);
		assert_int_equal(clock_parse_rfc3339(text), day * 86400000 + 5);
	}
	clock_rfc3339(INT64_MAX, text);
	assert_string_equal(text, "9999-12-31T23:59:59.999Z");
	clock_rfc3339(-1, text);
	assert_string_equal(text, "1970-01-01T00:00:00.000Z");
}

static void other_ways_to_write_a_time_are_read(void **state)
{
	(void)state;
	assert_int_equal(clock_parse_rfc3339("2026-11-20T12:11:12+02:00"), 1795169472000);
	assert_int_equal(clock_parse_rfc3339("2026-11-20T09:41:12.1-00:30"), 1795169472100);
	assert_int_equal(clock_parse_rfc3339("2026-11-20t10:11:12.123456789z"), 1795169472123);
}

static void what_is_no_time_is_refused(void **state)
{
	static const char *const bad[] = { "", "2026-11-20", "2026-11-20T10:11:12", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-00-01T00:00:00Z",
					   "2026-01-00T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-01-01T00:00:60Z",
					   "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00Zx", "2026-01-01 00:00:00Z", "1969-12-31T23:59:59Z",
					   "2026-01-01T00:00:00+2:00", "2026-01-01T00:00:00+24:00", "1970-01-01T00:00:00+01:00", NULL };

	(void)state;
	for (int i = 0; bad[i]; i++)
		assert_int_equal(clock_parse_rfc3339(bad[i]), -1);
	assert_int_equal(clock_parse_rfc3339(NULL), -1);
}

static void a_test_owns_the_time(void **state)
{
	(void)state;
	clock_test_set(fixed, fixed);
	assert_int_equal(clock_wall_ms(), now_ms);
	assert_int_equal(clock_mono_ms(), now_ms);
	assert_int_equal(clock_mono_us(), now_ms * 1000);
	clock_test_set(NULL, NULL);
	int64_t before = clock_mono_us();
	assert_true(clock_mono_us() >= before);
}

static void identifiers_ascend_even_when_time_stands_or_steps_back(void **state)
{
	char last[ID_SIZE] = "", id[ID_SIZE];

	(void)state;
	clock_test_set(fixed, fixed);
	for (int i = 0; i < 20000; i++) {
		if (i == 10000)
			now_ms -= 5000;
		clock_new_id(id);
		assert_true(clock_is_id(id));
		assert_true(strcmp(id, last) > 0);
		memcpy(last, id, ID_SIZE);
	}
	now_ms += 5000;
	clock_test_set(NULL, NULL);
}

static void an_identifier_begins_with_its_time(void **state)
{
	char id[ID_SIZE];

	(void)state;
	now_ms = 281474976710655 - 1; /* near the end of 48 bits, later than every other test's */
	clock_test_set(fixed, fixed);
	clock_new_id(id);
	clock_test_set(NULL, NULL);
	id[10] = 0;
	assert_string_equal(id, "7zzzzzzzzy");
}

static void only_identifiers_are_identifiers(void **state)
{
	(void)state;
	assert_true(clock_is_id("01arz3ndektsv4rrffq69g5fav"));
	assert_false(clock_is_id("01ARZ3NDEKTSV4RRFFQ69G5FAV"));
	assert_false(clock_is_id("01arz3ndektsv4rrffq69g5fa"));
	assert_false(clock_is_id("01arz3ndektsv4rrffq69g5fau"));
	assert_false(clock_is_id("81arz3ndektsv4rrffq69g5fav"));
	assert_false(clock_is_id(NULL));
}

#define THREADS 4
#define EACH 500
static char made[THREADS * EACH][ID_SIZE];

static void *make_ids(void *from)
{
	for (int i = 0; i < EACH; i++)
		clock_new_id(((char(*)[ID_SIZE])from)[i]);
	return NULL;
}

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void threads_never_get_the_same_identifier(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, make_ids, made[i * EACH]), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	qsort(made, ARRAY_SIZE(made), ID_SIZE, compare);
	for (size_t i = 1; i < ARRAY_SIZE(made); i++)
		assert_string_not_equal(made[i - 1], made[i]);
}

static void random_bytes_are_not_all_alike(void **state)
{
	unsigned char a[32] = { 0 }, b[32] = { 0 };

	(void)state;
	clock_random(a, sizeof(a));
	clock_random(b, sizeof(b));
	assert_memory_not_equal(a, b, sizeof(a));
	assert_int_equal(strlen(clock_boot_id()), 36);
}

/* Runs `say` with stderr in a pipe and gives back what was written. */
static void capture_stderr(void (*say)(void), char *ret, size_t size)
{
	int ends[2], saved = dup(2);

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	dup2(ends[1], 2);
	say();
	dup2(saved, 2);
	close(saved);
	close(ends[1]);
	ssize_t n = read(ends[0], ret, size - 1);
	ret[n > 0 ? n : 0] = 0;
	close(ends[0]);
}

static void say_things(void)
{
	unsetenv("SIGNALBOX_LOG");
	log_open("test", LOG_INFO);
	errno = 42;
	log_debug("not %s", "this");
	log_info("task=%d two\nlines \x1b[2J", 7);
	assert_int_equal(errno, 42);
	setenv("SIGNALBOX_LOG", "error", 1);
	log_open("test", LOG_INFO);
	log_warn("nor this");
	log_error("this");
	unsetenv("SIGNALBOX_LOG");
}

static void a_log_line_is_one_line(void **state)
{
	char text[1000];

	(void)state;
	now_ms = 1795169472123;
	clock_test_set(fixed, fixed);
	capture_stderr(say_things, text, sizeof(text));
	clock_test_set(NULL, NULL);
	assert_string_equal(text, "2026-11-20T10:11:12.123Z info program=test task=7 two\\nlines \\x1b[2J\n"
				  "2026-11-20T10:11:12.123Z error program=test this\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(times_are_written_and_read_back),
		cmocka_unit_test(other_ways_to_write_a_time_are_read),
		cmocka_unit_test(what_is_no_time_is_refused),
		cmocka_unit_test(a_test_owns_the_time),
		cmocka_unit_test(identifiers_ascend_even_when_time_stands_or_steps_back),
		cmocka_unit_test(threads_never_get_the_same_identifier),
		cmocka_unit_test(an_identifier_begins_with_its_time),
		cmocka_unit_test(only_identifiers_are_identifiers),
		cmocka_unit_test(random_bytes_are_not_all_alike),
		cmocka_unit_test(a_log_line_is_one_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
