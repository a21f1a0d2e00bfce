/* Options by a table: every way to write one, and what is said about a wrong one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/opt.h"
#include <string.h>

enum { VERBOSE, QUIET, NAME, LABEL, COUNT, WAIT, MEMORY, N };

static const struct opt table[] = {
	[VERBOSE] = { "verbose", 'v', OPT_FLAG, NULL, "" }, [QUIET] = { "quiet", 'q', OPT_FLAG, NULL, "" },
	[NAME] = { "name", 'n', OPT_STRING, "NAME", "" },   [LABEL] = { "label", 'l', OPT_LIST, "K=V", "" },
	[COUNT] = { "count", 0, OPT_INT, "N", "" },	    [WAIT] = { "wait", 0, OPT_DURATION, "TIME", "" },
	[MEMORY] = { "memory", 0, OPT_SIZE, "SIZE", "" },   [N] = { NULL, 0, OPT_FLAG, NULL, NULL },
};

static struct opt_value values[N];
static char *rest[100];
static int rest_len;
static struct error e;

/* Words are divided by spaces. */
static enum err_code parse(char *line)
{
	char *argv[100], *save = NULL;
	int argc = 0;

	for (char *word = strtok_r(line, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	error_clear(&e);
	return opt_parse(table, argc, argv, values, rest, &rest_len, &e);
}

static void options_stand_anywhere(void **state)
{
	char line[] = "a --name x b -v c --label k=v -l k=w";

	(void)state;
	assert_int_equal(parse(line), ERR_OK);
	assert_int_equal(rest_len, 3);
	assert_string_equal(rest[2], "c");
	assert_string_equal(values[NAME].text, "x");
	assert_true(values[VERBOSE].set && values[VERBOSE].flag);
	assert_false(values[QUIET].set);
	assert_int_equal(values[LABEL].list_len, 2);
	assert_string_equal(values[LABEL].list[1], "k=w");
}

static void values_may_be_attached(void **state)
{
	char line[] = "--name=a=b -vqnshort --count=-5 --wait=5m --memory=2K";

	(void)state;
	assert_int_equal(parse(line), ERR_OK);
	assert_string_equal(values[NAME].text, "short");
	assert_true(values[QUIET].flag);
	assert_int_equal(values[COUNT].number, -5);
	assert_int_equal(values[WAIT].number, 300000);
	assert_int_equal(values[MEMORY].number, 2048);
}

static void a_flag_can_be_taken_back(void **state)
{
	char line[] = "--verbose --no-verbose";

	(void)state;
	assert_int_equal(parse(line), ERR_OK);
	assert_true(values[VERBOSE].set);
	assert_false(values[VERBOSE].flag);
}

static void two_dashes_end_the_options(void **state)
{
	char line[] = "- -v -- -q --name --";

	(void)state;
	assert_int_equal(parse(line), ERR_OK);
	assert_int_equal(rest_len, 4);
	assert_string_equal(rest[0], "-");
	assert_string_equal(rest[3], "--");
	assert_false(values[QUIET].set);
}

static void a_value_may_look_like_an_option(void **state)
{
	char line[] = "--name -v";

	(void)state;
	assert_int_equal(parse(line), ERR_OK);
	assert_string_equal(values[NAME].text, "-v");
	assert_false(values[VERBOSE].set);
}

static void an_unknown_option_is_named_with_the_nearest(void **state)
{
	static const char *const cases[][2] = {
		{ "--memroy=secret", "unknown option '--memroy', did you mean '--memory'?" },
		{ "--zzzzzzzz", "unknown option '--zzzzzzzz'" },
		{ "-vx", "unknown option '-x'" },
		{ "--no-name", "unknown option '--no-name', did you mean '--name'?" },
		{ "--name", "--name needs a value: NAME" },
		{ "-n", "--name needs a value: NAME" },
		{ "--verbose=1", "--verbose takes no value" },
		{ "--count=x", "--count: 'x' is not a whole number" },
		{ "--=", "unknown option '--'" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE char *line = mem_strdup(cases[i][0]);
		assert_int_equal(parse(line), ERR_USAGE);
		assert_int_equal(e.code, ERR_USAGE);
		assert_string_equal(e.text, cases[i][1]);
	}
}

static void a_list_has_an_end(void **state)
{
	char *argv[OPT_LIST_MAX + 1], *left[OPT_LIST_MAX + 1], arg[] = "-lx";

	(void)state;
	for (int i = 0; i <= OPT_LIST_MAX; i++)
		argv[i] = arg;
	assert_int_equal(opt_parse(table, OPT_LIST_MAX, argv, values, left, &rest_len, &e), ERR_OK);
	assert_int_equal(opt_parse(table, OPT_LIST_MAX + 1, argv, values, left, &rest_len, &e), ERR_USAGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_stand_anywhere),
		cmocka_unit_test(values_may_be_attached),
		cmocka_unit_test(a_flag_can_be_taken_back),
		cmocka_unit_test(two_dashes_end_the_options),
		cmocka_unit_test(a_value_may_look_like_an_option),
		cmocka_unit_test(an_unknown_option_is_named_with_the_nearest),
		cmocka_unit_test(a_list_has_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
