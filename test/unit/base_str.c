/* Strings from outside: what is accepted, what is refused, and that encodings read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/cleanup.h"
#include "base/str.h"
#include <string.h>

static void only_whole_numbers_in_range_are_numbers(void **state)
{
	static const char *const bad[] = { "", "-", "+1", " 1", "1 ", "1x", "0x10", "9223372036854775808", "-9223372036854775809", "1e3", NULL };
	int64_t n = 42;

	(void)state;
	for (int i = 0; bad[i]; i++)
		assert_int_equal(str_to_i64(bad[i], "n", INT64_MIN, INT64_MAX, &n, NULL), ERR_INVALID);
	assert_int_equal(str_to_i64(NULL, "n", 0, 1, &n, NULL), ERR_INVALID);
	assert_int_equal(n, 42);
	assert_int_equal(str_to_i64("-9223372036854775808", "n", INT64_MIN, INT64_MAX, &n, NULL), ERR_OK);
	assert_true(n == INT64_MIN);
	assert_int_equal(str_to_i64("007", "n", 0, 7, &n, NULL), ERR_OK);
	assert_int_equal(n, 7);
}

static void a_refused_number_is_named(void **state)
{
	struct error e = ERROR_INIT;
	int64_t n;

	(void)state;
	assert_int_equal(str_to_i64("70000", "port", 1, 65535, &n, &e), ERR_INVALID);
	assert_string_equal(e.text, "port: 70000 is more than 65535");
	assert_int_equal(str_to_i64("ab\x1b[2J", "port", 1, 65535, &n, &e), ERR_INVALID);
	assert_string_equal(e.text, "port: 'ab\\x1b[2J' is not a whole number");
}

static void durations_have_units_and_bare_numbers_are_seconds(void **state)
{
	static const struct { const char *text; int64_t ms; } cases[] = {
		{ "90", 90000 }, { "90s", 90000 }, { "500ms", 500 }, { "5m", 300000 }, { "1h", 3600000 }, { "2d", 172800000 }, { "0", 0 },
	};
	static const char *const bad[] = { "s", "5 m", "5w", "1.5h", "5mm", "9223372036854775807d", "-1", NULL };
	int64_t ms;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(str_to_duration_ms(cases[i].text, "t", 0, INT64_MAX, &ms, NULL), ERR_OK);
		assert_int_equal(ms, cases[i].ms);
	}
	for (int i = 0; bad[i]; i++)
		assert_int_equal(str_to_duration_ms(bad[i], "t", 0, INT64_MAX, &ms, NULL), ERR_INVALID);
}

static void sizes_have_units(void **state)
{
	static const struct { const char *text; int64_t n; } cases[] = {
		{ "4096", 4096 }, { "64K", 65536 }, { "512M", 536870912 }, { "2G", 2147483648 }, { "1t", 1099511627776 },
	};
	static const char *const bad[] = { "K", "1KB", "1.5G", "9999999999T", NULL };
	int64_t n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(str_to_size(cases[i].text, "s", 0, INT64_MAX, &n, NULL), ERR_OK);
		assert_int_equal(n, cases[i].n);
	}
	for (int i = 0; bad[i]; i++)
		assert_int_equal(str_to_size(bad[i], "s", 0, INT64_MAX, &n, NULL), ERR_INVALID);
}

static void names_are_short_and_harmless(void **state)
{
	char longest[66];

	(void)state;
	assert_true(str_is_name("T-001"));
	assert_true(str_is_name("a"));
	assert_true(str_is_name("v1.2_x"));
	assert_false(str_is_name(""));
	assert_false(str_is_name(NULL));
	assert_false(str_is_name(".."));
	assert_false(str_is_name("-x"));
	assert_false(str_is_name("a/b"));
	assert_false(str_is_name("a b"));
	assert_false(str_is_name("\xc3\xa4"));
	memset(longest, 'a', sizeof(longest));
	longest[64] = 0;
	assert_true(str_is_name(longest));
	longest[64] = 'a';
	longest[65] = 0;
	assert_false(str_is_name(longest));
}

static void utf8_is_strict(void **state)
{
	static const char *const good[] = { "", "abc", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", NULL };
	static const char *const bad[] = { "\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf",
					   "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc2", "\xe2\x82", "\xf0\x9f\x9a", "\xc2\x41", NULL };

	(void)state;
	for (int i = 0; good[i]; i++)
		assert_true(str_is_utf8(good[i], strlen(good[i])));
	for (int i = 0; bad[i]; i++)
		assert_false(str_is_utf8(bad[i], strlen(bad[i])));
	assert_true(str_is_utf8("\0", 1));
}

static void secrets_compare_by_content_and_length(void **state)
{
	(void)state;
	assert_true(str_const_time_eq("abc", "abc"));
	assert_true(str_const_time_eq("", ""));
	assert_false(str_const_time_eq("abc", "abd"));
	assert_false(str_const_time_eq("abc", "ab"));
	assert_false(str_const_time_eq("ab", "abab"));
	assert_false(str_const_time_eq("", "a"));
	assert_false(str_const_time_eq("a", ""));
	assert_false(str_const_time_eq(NULL, NULL));
}

static void base64_is_that_of_the_rfc(void **state)
{
	static const char *const cases[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" },
						{ "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_STRBUF struct strbuf b = STRBUF_INIT;
		str_add_base64(&b, cases[i][0], strlen(cases[i][0]));
		assert_string_equal(strbuf_str(&b), cases[i][1]);
	}
}

static void base64url_reads_back_and_each_value_has_one_text(void **state)
{
	static const char *const bad[] = { "A", "AB", "AAB", "A=", "AA==", "+A", "A A", "AAAAA", NULL };
	unsigned char bytes[256];

	(void)state;
	for (int i = 0; i < 256; i++)
		bytes[i] = (unsigned char)(255 - i);
	for (size_t n = 0; n <= 256; n++) {
		AUTO_STRBUF struct strbuf text = STRBUF_INIT, back = STRBUF_INIT;
		str_add_base64url(&text, bytes, n);
		assert_true(str_from_base64url(strbuf_str(&text), text.len, &back));
		assert_int_equal(back.len, n);
		assert_memory_equal(strbuf_str(&back), bytes, n);
		strbuf_release(&text);
		strbuf_release(&back);
	}
	for (int i = 0; bad[i]; i++) {
		AUTO_STRBUF struct strbuf back = STRBUF_INIT;
		strbuf_adds(&back, "kept");
		assert_false(str_from_base64url(bad[i], strlen(bad[i]), &back));
		assert_string_equal(strbuf_str(&back), "kept");
	}
}

static void terminal_tricks_become_visible(void **state)
{
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;
	static const char in[] = "a\tb\n\x1b]0;x\x07 \xc2\x9b \xe2\x80\xae \xff \xc3\xa4\0.";

	(void)state;
	str_add_printable(&b, in, sizeof(in) - 1);
	assert_string_equal(strbuf_str(&b), "a\tb\n\\x1b]0;x\\x07 \\u009b \\u202e \\xff \xc3\xa4\\x00.");
}

static void percent_encoding_reads_back(void **state)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT, back = STRBUF_INIT;

	(void)state;
	str_add_urlenc(&text, "a b/\xc3\xa4+%~.-_");
	assert_string_equal(strbuf_str(&text), "a%20b%2F%C3%A4%2B%25~.-_");
	assert_true(str_add_urldec(&back, strbuf_str(&text), text.len, true));
	assert_string_equal(strbuf_str(&back), "a b/\xc3\xa4+%~.-_");
}

static void bad_percent_encoding_is_refused_and_adds_nothing(void **state)
{
	static const char *const bad[] = { "a%", "a%2", "a%zz", "a%00b", "a%2gx", NULL };
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;

	(void)state;
	strbuf_adds(&b, "kept");
	for (int i = 0; bad[i]; i++)
		assert_false(str_add_urldec(&b, bad[i], strlen(bad[i]), false));
	assert_string_equal(strbuf_str(&b), "kept");
	assert_true(str_add_urldec(&b, "+%2F", 4, false));
	assert_string_equal(strbuf_str(&b), "kept+/");
}

static void people_read_sizes_and_durations(void **state)
{
	static const struct { int64_t n; const char *text; } sizes[] = {
		{ 0, "0 B" }, { 1023, "1023 B" }, { 1024, "1 kB" }, { 1258291, "1.1 MB" }, { 536870912, "512 MB" }, { -1, "0 B" }, { INT64_MAX, "8191 PB" },
	}, durations[] = {
		{ 0, "0 ms" }, { 999, "999 ms" }, { 4200, "4.2 s" }, { 184000, "3 m 04 s" }, { 7500000, "2 h 05 m" }, { 273600000, "3 d 04 h" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		AUTO_STRBUF struct strbuf b = STRBUF_INIT;
		str_add_size(&b, sizes[i].n);
		assert_string_equal(strbuf_str(&b), sizes[i].text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(durations); i++) {
		AUTO_STRBUF struct strbuf b = STRBUF_INIT;
		str_add_duration(&b, durations[i].n);
		assert_string_equal(strbuf_str(&b), durations[i].text);
	}
}

static void missing_strings_are_tolerated(void **state)
{
	(void)state;
	assert_true(str_eq(NULL, NULL));
	assert_false(str_eq(NULL, ""));
	assert_true(str_empty(NULL));
	assert_false(str_starts(NULL, ""));
	assert_true(str_starts("abc", "ab"));
	assert_true(str_ends("abc", "bc"));
	assert_false(str_ends("c", "bc"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_whole_numbers_in_range_are_numbers),
		cmocka_unit_test(a_refused_number_is_named),
		cmocka_unit_test(durations_have_units_and_bare_numbers_are_seconds),
		cmocka_unit_test(sizes_have_units),
		cmocka_unit_test(names_are_short_and_harmless),
		cmocka_unit_test(utf8_is_strict),
		cmocka_unit_test(secrets_compare_by_content_and_length),
		cmocka_unit_test(base64_is_that_of_the_rfc),
		cmocka_unit_test(base64url_reads_back_and_each_value_has_one_text),
		cmocka_unit_test(terminal_tricks_become_visible),
		cmocka_unit_test(percent_encoding_reads_back),
		cmocka_unit_test(bad_percent_encoding_is_refused_and_adds_nothing),
		cmocka_unit_test(people_read_sizes_and_durations),
		cmocka_unit_test(missing_strings_are_tolerated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
