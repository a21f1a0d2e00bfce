/* A secret is cut out of a stream wherever its pieces fall, and nothing else is touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/cleanup.h"
#include "base/mask.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdlib.h>
#include <string.h>

static char *masked(const char *secret, const char *text, size_t first, size_t second)
{
	struct strbuf out = STRBUF_INIT;
	struct mask m;
	size_t n = strlen(text);

	mask_init(&m, secret);
	mask_feed(&m, text, first, &out);
	mask_feed(&m, text + first, second - first, &out);
	mask_feed(&m, text + second, n - second, &out);
	mask_end(&m, &out);
	mask_release(&m);
	return strbuf_detach(&out);
}

static void a_secret_is_cut_out_wherever_it_is_split(void **state)
{
	static const struct { const char *secret, *text, *expected; } cases[] = {
		{ "sk-secret-1", "a sk-secret-1 b sk-secret-1", "a *********** b ***********" },
		{ "sk-secret-1", "sk-sk-sk-secret-1sk-secret-", "sk-sk-***********sk-secret-" },
		{ "aaaaaaab", "aaaaaaaaaaabaaaaaaa", "aaaa********aaaaaaa" },
		{ "abababac", "ababababacabababa", "ab********abababa" },
		{ "aaaaaaaa", "aaaaaaaaaaaaaaaaaaa", "****************aaa" },
		{ "sk-secret-1", "", "" },
		{ "sk-secret-1", "nothing of it: sk-secret-2", "nothing of it: sk-secret-2" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t n = strlen(cases[i].text);
		for (size_t first = 0; first <= n; first++)
			for (size_t second = first; second <= n; second++) {
				AUTO_FREE char *got = masked(cases[i].secret, cases[i].text, first, second);
				assert_string_equal(got, cases[i].expected);
			}
	}
}

static void without_a_secret_or_with_a_tiny_one_all_passes_at_once(void **state)
{
	(void)state;
	AUTO_FREE char *none = masked(NULL, "text", 1, 2);
	AUTO_FREE char *tiny = masked("ext", "text", 1, 2);
	assert_string_equal(none, "text");
	assert_string_equal(tiny, "text");
}

static void only_what_may_be_a_beginning_is_held_back(void **state)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct mask m;

	(void)state;
	mask_init(&m, "sk-secret-1");
	mask_feed(&m, "data: x\n\n", 9, &out);
	assert_string_equal(strbuf_str(&out), "data: x\n\n");
	mask_feed(&m, "and sk-sec", 10, &out);
	assert_string_equal(strbuf_str(&out), "data: x\n\nand ");
	mask_feed(&m, "ond", 3, &out);
	assert_string_equal(strbuf_str(&out), "data: x\n\nand sk-second");
	mask_release(&m);
}

static void bytes_that_are_no_text_pass(void **state)
{
	static const char data[] = "\0s\0k\xff-\0sk-secret-1\0";
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct mask m;

	(void)state;
	mask_init(&m, "sk-secret-1");
	mask_feed(&m, data, sizeof(data), &out);
	mask_end(&m, &out);
	mask_release(&m);
	assert_int_equal(out.len, sizeof(data));
	assert_memory_equal(out.data, "\0s\0k\xff-\0***********\0", sizeof(data));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_secret_is_cut_out_wherever_it_is_split),
		cmocka_unit_test(without_a_secret_or_with_a_tiny_one_all_passes_at_once),
		cmocka_unit_test(only_what_may_be_a_beginning_is_held_back),
		cmocka_unit_test(bytes_that_are_no_text_pass),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
