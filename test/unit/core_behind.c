/* Which task's directory is written next: in order, without doubles, the ended ones first, what failed again. */
#include "base/cleanup.h"
#include "core/behind.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static unsigned expect_next(struct behind *b, const char *id, bool written)
{
	char got[ID_SIZE];
	unsigned flags = 0;
	assert_true(behind_take(b, got, &flags));
	assert_string_equal(got, id);
	behind_done(b, written);
	return flags;
}

static void each_is_taken_once_in_the_order_in_which_it_came(void **state UNUSED)
{
	struct behind *b = behind_new();
	behind_add(b, "one", 0);
	behind_add(b, "two", 0);
	behind_add(b, "one", BEHIND_WHOLE);
	behind_add(b, "three", 0);
	assert_int_equal(expect_next(b, "one", true), BEHIND_WHOLE);
	behind_add(b, "one", 0);
	expect_next(b, "two", true);
	expect_next(b, "three", true);
	assert_int_equal(expect_next(b, "one", true), 0);
	behind_free(b);
}

static void who_has_ended_goes_before_the_others_also_when_it_was_queued_already(void **state UNUSED)
{
	struct behind *b = behind_new();
	behind_add(b, "one", 0);
	behind_add(b, "two", 0);
	behind_add(b, "three", BEHIND_ENDED);
	behind_add(b, "two", BEHIND_ENDED);
	behind_add(b, "three", 0);
	expect_next(b, "three", true);
	expect_next(b, "two", true);
	expect_next(b, "one", true);
	behind_free(b);
}

static void what_failed_is_taken_again_when_asked_and_then_written_whole(void **state UNUSED)
{
	struct behind *b = behind_new();
	behind_add(b, "one", BEHIND_ENDED);
	behind_add(b, "two", 0);
	expect_next(b, "one", false);
	expect_next(b, "two", true);
	assert_false(behind_has(b, "one", 0));
	behind_again(b);
	assert_true(behind_has(b, "one", 0));
	assert_int_equal(expect_next(b, "one", true), BEHIND_ENDED | BEHIND_WHOLE);
	behind_free(b);
}

static void one_is_behind_until_it_has_been_written(void **state UNUSED)
{
	struct behind *b = behind_new();
	char got[ID_SIZE];
	unsigned flags;
	behind_add(b, "one", 0);
	assert_true(behind_has(b, "one", 0));
	assert_false(behind_has(b, "one", BEHIND_ENDED));
	assert_true(behind_take(b, got, &flags));
	assert_true(behind_has(b, "one", BEHIND_ENDED));
	behind_done(b, true);
	assert_false(behind_has(b, "one", 0));
	behind_free(b);
}

static void *take_all(void *arg)
{
	char got[ID_SIZE];
	unsigned flags;
	intptr_t n = 0;
	for (; behind_take(arg, got, &flags); n++)
		behind_done(arg, true);
	return (void *)n;
}

static void stopped_it_hands_out_what_is_left_and_ends(void **state UNUSED)
{
	struct behind *b = behind_new();
	pthread_t thread;
	void *n = NULL;
	assert_int_equal(pthread_create(&thread, NULL, take_all, b), 0);
	behind_add(b, "one", 0);
	behind_add(b, "two", BEHIND_ENDED);
	behind_stop(b);
	pthread_join(thread, &n);
	assert_int_equal((intptr_t)n, 2);
	behind_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_is_taken_once_in_the_order_in_which_it_came),
		cmocka_unit_test(who_has_ended_goes_before_the_others_also_when_it_was_queued_already),
		cmocka_unit_test(what_failed_is_taken_again_when_asked_and_then_written_whole),
		cmocka_unit_test(one_is_behind_until_it_has_been_written),
		cmocka_unit_test(stopped_it_hands_out_what_is_left_and_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
