/* The table of states: what may follow what, and what the outside is told. */
#include "core/state.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void the_ordinary_way_of_a_run_is_legal(void **state)
{
	static const enum phase way[] = { PHASE_QUEUED, PHASE_CLAIMED, PHASE_FETCHING, PHASE_PREPARING, PHASE_SETUP, PHASE_RUNNING, PHASE_COLLECTING, PHASE_SUCCEEDED };
	(void)state;
	for (size_t i = 0; i + 1 < sizeof(way) / sizeof(way[0]); i++)
		assert_int_equal(state_move_check(way[i], way[i + 1], NULL), ERR_OK);
}

static void nothing_follows_an_end(void **state)
{
	struct error e = ERROR_INIT;
	(void)state;
	for (int from = 0; from < PHASE_COUNT; from++)
		for (int to = 0; to < PHASE_COUNT; to++)
			if (phase_is_terminal((enum phase)from))
				assert_int_equal(state_move_check((enum phase)from, (enum phase)to, &e), ERR_CONFLICT);
}

static void every_live_phase_can_be_canceled(void **state)
{
	(void)state;
	for (int from = 0; from < PHASE_COUNT; from++)
		if (!phase_is_terminal((enum phase)from))
			assert_int_equal(state_move_check((enum phase)from, PHASE_CANCELED, NULL), ERR_OK);
}

static void success_comes_only_from_collecting(void **state)
{
	(void)state;
	for (int from = 0; from < PHASE_COUNT; from++)
		assert_int_equal(state_move_check((enum phase)from, PHASE_SUCCEEDED, NULL) == ERR_OK, from == PHASE_COLLECTING);
}

static void names_go_there_and_back(void **state)
{
	(void)state;
	for (int p = 0; p < PHASE_COUNT; p++) {
		enum phase back = PHASE_COUNT;
		assert_true(phase_from_name(phase_name((enum phase)p), &back));
		assert_int_equal(back, p);
	}
	enum phase kept = PHASE_RUNNING;
	assert_false(phase_from_name("nonsense", &kept));
	assert_int_equal(kept, PHASE_RUNNING);
}

static void statuses_are_those_of_the_outside(void **state)
{
	(void)state;
	assert_string_equal(phase_status(PHASE_QUEUED), "QUEUED");
	assert_string_equal(phase_status(PHASE_SETUP), "RUNNING");
	assert_string_equal(phase_status(PHASE_WAITING_HUMAN), "WAITING");
	assert_string_equal(phase_status(PHASE_LOST), "ERROR");
	assert_string_equal(phase_status(PHASE_TIMED_OUT), "TIMEOUT");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_ordinary_way_of_a_run_is_legal), cmocka_unit_test(nothing_follows_an_end),
		cmocka_unit_test(every_live_phase_can_be_canceled), cmocka_unit_test(success_comes_only_from_collecting),
		cmocka_unit_test(names_go_there_and_back), cmocka_unit_test(statuses_are_those_of_the_outside),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
