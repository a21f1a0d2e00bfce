/* Errors: one sentence, wrapped on the way up, never cut inside a character. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/err.h"
#include "base/str.h"
#include <errno.h>
#include <string.h>

static void a_wrapped_error_reads_as_one_sentence(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	errno = ENOENT;
	assert_int_equal(error_errno(&e, "open '%s'", "x.db"), ERR_NOT_FOUND);
	assert_int_equal(error_wrap(&e, "start task %d", 7), ERR_NOT_FOUND);
	assert_string_equal(e.text, "start task 7: open 'x.db': No such file or directory");
}

static void an_error_may_be_made_of_its_own_text(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	error_set(&e, ERR_INVALID, "inner");
	error_set(&e, ERR_FAILED, "outer (%s)", e.text);
	assert_string_equal(e.text, "outer (inner)");
	assert_int_equal(e.code, ERR_FAILED);
}

static void a_long_text_is_cut_between_characters(void **state)
{
	struct error e = ERROR_INIT;
	char text[ERROR_TEXT_MAX * 2 + 1] = "";

	(void)state;
	for (int shift = 0; shift < 4; shift++) {
		memset(text, 'a', 4);
		for (size_t i = (size_t)shift; i + 4 < sizeof(text); i += 4)
			memcpy(text + i, "\xf0\x9f\x9a\xa6", 5);
		error_set(&e, ERR_INVALID, "%s", text);
		assert_true(strlen(e.text) > ERROR_TEXT_MAX - 6);
		assert_true(str_is_utf8(e.text, strlen(e.text)));
		error_wrap(&e, "p%s", "refix");
		assert_true(str_is_utf8(e.text, strlen(e.text)));
		error_clear(&e);
		error_hint(&e, "%s", text);
		assert_true(str_is_utf8(e.hint, strlen(e.hint)));
	}
}

static void the_first_hint_stays(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	error_set(&e, ERR_USAGE, "x");
	error_hint(&e, "near");
	error_hint(&e, "far");
	assert_string_equal(e.hint, "near");
	error_set(&e, ERR_USAGE, "another error has no hint yet");
	assert_string_equal(e.hint, "");
}

static void nobody_need_want_the_words(void **state)
{
	(void)state;
	errno = EACCES;
	assert_int_equal(error_errno(NULL, "x"), ERR_DENIED);
	assert_int_equal(error_set(NULL, ERR_LIMIT, "x"), ERR_LIMIT);
	assert_int_not_equal(error_wrap(NULL, "x"), ERR_OK);
	error_hint(NULL, "x");
	error_clear(NULL);
}

static void wrapping_a_success_is_our_own_mistake_and_never_success(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	assert_int_equal(error_wrap(&e, "x"), ERR_INTERNAL);
}

static void errno_chooses_the_code(void **state)
{
	static const struct { int number; enum err_code code; } cases[] = {
		{ ENOENT, ERR_NOT_FOUND }, { EPERM, ERR_DENIED }, { ENOSPC, ERR_FULL }, { EEXIST, ERR_CONFLICT },
		{ ECONNREFUSED, ERR_UNREACHABLE }, { ENOSYS, ERR_UNSUPPORTED }, { EIO, ERR_IO }, { 0, ERR_IO },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		errno = cases[i].number;
		assert_int_equal(error_errno(NULL, "x"), cases[i].code);
	}
}

static void every_code_has_a_name_of_its_own_that_leads_back(void **state)
{
	(void)state;
	for (int i = 0; i < ERR_CODE_COUNT; i++)
		assert_int_equal(err_from_name(err_name((enum err_code)i)), i);
	assert_int_equal(err_from_name("no such"), ERR_INTERNAL);
	assert_int_equal(err_from_name(NULL), ERR_INTERNAL);
	assert_string_equal(err_name((enum err_code)999), "internal");
}

static void statuses_are_those_of_the_interface(void **state)
{
	static const struct { enum err_code code; int http, exit; } cases[] = {
		{ ERR_OK, 200, 0 }, { ERR_USAGE, 400, 2 }, { ERR_DENIED, 403, 4 }, { ERR_NOT_FOUND, 404, 5 },
		{ ERR_CONFLICT, 409, 6 }, { ERR_UNREACHABLE, 502, 7 }, { ERR_TIMEOUT, 504, 8 }, { ERR_GONE, 410, 1 },
		{ ERR_LIMIT, 429, 1 }, { ERR_BUSY, 503, 1 }, { ERR_INTERNAL, 500, 1 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(err_http_status(cases[i].code), cases[i].http);
		assert_int_equal(err_exit_status(cases[i].code), cases[i].exit);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wrapped_error_reads_as_one_sentence),
		cmocka_unit_test(an_error_may_be_made_of_its_own_text),
		cmocka_unit_test(a_long_text_is_cut_between_characters),
		cmocka_unit_test(the_first_hint_stays),
		cmocka_unit_test(nobody_need_want_the_words),
		cmocka_unit_test(wrapping_a_success_is_our_own_mistake_and_never_success),
		cmocka_unit_test(errno_chooses_the_code),
		cmocka_unit_test(every_code_has_a_name_of_its_own_that_leads_back),
		cmocka_unit_test(statuses_are_those_of_the_interface),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
