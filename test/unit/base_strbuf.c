/* The growing buffer: its ceiling holds, it is always terminated, and what is kept has no holes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/mem.h"
#include "base/strbuf.h"
#include <stdlib.h>
#include <string.h>

static void an_empty_buffer_reads_as_an_empty_string(void **state)
{
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;

	(void)state;
	assert_string_equal(strbuf_str(&b), "");
	strbuf_reset(&b);
	strbuf_cut(&b, 0);
	char *s = strbuf_detach(&b);
	assert_string_equal(s, "");
	free(s);
}

static void what_is_added_is_there_and_terminated(void **state)
{
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;

	(void)state;
	for (int i = 0; i < 1000; i++)
		strbuf_addf(&b, "%03d", i);
	strbuf_add(&b, "\0x", 2);
	assert_int_equal(b.len, 3002);
	assert_memory_equal(b.data + 2997, "999\0x", 6);
	strbuf_cut(&b, 2997);
	assert_memory_equal(b.data, "999\0x", 6);
}

static void the_ceiling_drops_the_excess_and_is_remembered(void **state)
{
	AUTO_STRBUF struct strbuf b = STRBUF_LIMIT(5);

	(void)state;
	strbuf_adds(&b, "abc");
	assert_false(b.over);
	strbuf_addf(&b, "%s", "defgh");
	assert_true(b.over);
	assert_string_equal(strbuf_str(&b), "abcde");
	strbuf_reset(&b);
	assert_false(b.over);
	strbuf_adds(&b, "12345");
	assert_false(b.over);
	assert_null(strbuf_reserve(&b, 1));
	assert_true(b.over);
}

static void nothing_is_added_after_the_first_overflow(void **state)
{
	AUTO_STRBUF struct strbuf b = STRBUF_LIMIT(5);

	(void)state;
	strbuf_adds(&b, "abc");
	assert_null(strbuf_reserve(&b, 10));
	strbuf_addc(&b, 'z');
	strbuf_addf(&b, "%d", 1);
	assert_string_equal(strbuf_str(&b), "abc");
}

static void formatted_text_of_any_length_fits(void **state)
{
	(void)state;
	for (int n = 0; n < 300; n++) {
		AUTO_STRBUF struct strbuf b = STRBUF_LIMIT(200);
		strbuf_adds(&b, "x");
		strbuf_addf(&b, "%*s", n, "");
		assert_int_equal(b.len, n < 199 ? n + 1 : 200);
		assert_int_equal(strlen(b.data), b.len);
		assert_int_equal(b.over, n > 199);
	}
}

static void reserved_room_is_the_callers(void **state)
{
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;

	(void)state;
	strbuf_adds(&b, "ab");
	char *p = strbuf_reserve(&b, 100);
	memset(p, 'c', 100);
	b.len += 100;
	assert_int_equal(strlen(strbuf_str(&b)), 102);
}

static void a_detached_string_leaves_a_usable_buffer(void **state)
{
	AUTO_STRBUF struct strbuf b = STRBUF_LIMIT(3);

	(void)state;
	strbuf_adds(&b, "abcd");
	char *s = strbuf_detach(&b);
	assert_string_equal(s, "abc");
	free(s);
	strbuf_adds(&b, "xy");
	assert_string_equal(strbuf_str(&b), "xy");
}

static void memory_is_zeroed_and_never_null(void **state)
{
	(void)state;
	char *p = mem_alloc(0);
	assert_non_null(p);
	free(p);
	p = mem_alloc(9);
	assert_memory_equal(p, "\0\0\0\0\0\0\0\0", 9);
	p = mem_grow(p, 100);
	free(p);
	assert_null(mem_strdup(NULL));
	p = mem_strndup("abcdef", 3);
	assert_string_equal(p, "abc");
	free(p);
	p = mem_printf("%s/%d", "a", 1);
	assert_string_equal(p, "a/1");
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_buffer_reads_as_an_empty_string),
		cmocka_unit_test(what_is_added_is_there_and_terminated),
		cmocka_unit_test(the_ceiling_drops_the_excess_and_is_remembered),
		cmocka_unit_test(nothing_is_added_after_the_first_overflow),
		cmocka_unit_test(formatted_text_of_any_length_fits),
		cmocka_unit_test(reserved_room_is_the_callers),
		cmocka_unit_test(a_detached_string_leaves_a_usable_buffer),
		cmocka_unit_test(memory_is_zeroed_and_never_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
