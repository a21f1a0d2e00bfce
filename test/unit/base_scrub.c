/* Secrets are cut out in each form they may take, the longest first, and what holds them keeps its shape. */
#include "base/scrub.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define SECRET "open-\"sesame\"\\4711"

static char *scrubbed(const struct scrub *s, const char *text)
{
	struct strbuf b = STRBUF_INIT;
	strbuf_adds(&b, text);
	scrub_text(s, &b);
	return strbuf_detach(&b);
}

static void assert_scrubbed(const struct scrub *s, const char *text, const char *expected)
{
	AUTO_FREE char *got = scrubbed(s, text);
	assert_string_equal(got, expected);
}

static void a_secret_goes_plain_and_as_json_writes_it_once_and_twice(void **state)
{
	AUTO(scrub_release) struct scrub s = SCRUB_INIT;
	AUTO_FREE char *level = mem_strdup(SECRET);
	(void)state;
	assert_int_equal(scrub_add(&s, SECRET, NULL), ERR_OK);
	for (int i = 0; i < 3; i++) {
		AUTO_FREE char *text = mem_printf("a %s b %s%s", level, level, level);
		assert_scrubbed(&s, text, "a *** b ******");
		AUTO_JS struct js *v = js_string(level);
		AUTO_FREE char *quoted = js_dump(v);
		free(level);
		level = mem_strndup(quoted + 1, strlen(quoted) - 2);
	}
	assert_scrubbed(&s, "open-", "open-");
	assert_scrubbed(&s, "", "");
}

static void of_two_secrets_the_longer_goes_first(void **state)
{
	AUTO(scrub_release) struct scrub s = SCRUB_INIT;
	(void)state;
	assert_int_equal(scrub_add(&s, "abc", NULL), ERR_OK);
	assert_int_equal(scrub_add(&s, "abcdef", NULL), ERR_OK);
	assert_scrubbed(&s, "abcdef abcd", "*** ***d");
}

static void the_same_again_and_nothing_change_nothing(void **state)
{
	AUTO(scrub_release) struct scrub s = SCRUB_INIT;
	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(scrub_add(&s, "abc", NULL), ERR_OK);
	assert_int_equal(scrub_add(&s, "", NULL), ERR_OK);
	assert_int_equal(scrub_add(&s, NULL, NULL), ERR_OK);
	assert_int_equal(s.texts, 1);
	assert_int_equal(s.count, 1);
}

static void of_a_secret_of_many_lines_each_long_line_goes_by_itself(void **state)
{
	AUTO(scrub_release) struct scrub s = SCRUB_INIT;
	(void)state;
	assert_int_equal(scrub_add(&s, "-- BEGIN --\r\nshort\nbG9uZyBsaW5l\n", NULL), ERR_OK);
	assert_scrubbed(&s, "a bG9uZyBsaW5l b short", "a *** b short");
	assert_scrubbed(&s, "-- BEGIN --", "***");
	assert_scrubbed(&s, "x-- BEGIN --\\r\\nshort\\nbG9uZyBsaW5l\\ny", "x***y");
}

static void there_is_an_end_of_secrets(void **state)
{
	AUTO(scrub_release) struct scrub s = SCRUB_INIT;
	struct error e = ERROR_INIT;
	(void)state;
	for (int i = 0; i < SCRUB_TEXTS_MAX; i++) {
		AUTO_FREE char *text = mem_printf("secret-%d", i);
		assert_int_equal(scrub_add(&s, text, NULL), ERR_OK);
	}
	assert_int_equal(scrub_add(&s, "one more", &e), ERR_LIMIT);
	assert_int_equal(scrub_add(&s, "secret-7", &e), ERR_OK);
}

static void behind_a_nul_byte_is_looked_too(void **state)
{
	AUTO(scrub_release) struct scrub s = SCRUB_INIT;
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;
	(void)state;
	assert_int_equal(scrub_add(&s, "abc", NULL), ERR_OK);
	strbuf_add(&b, "x\0abc", 5);
	assert_true(scrub_text(&s, &b));
	assert_int_equal(b.len, 5);
	assert_memory_equal(b.data, "x\0***", 5);
}

static void the_half_of_a_secret_at_a_cut_end_goes(void **state)
{
	static const struct { const char *text, *expected; } cases[] = { { "x open-\"ses", "x ***" }, { "x open-\\\"ses", "x ***" }, { "xo", "x***" }, { "x", "x" }, { "", "" } };
	AUTO(scrub_release) struct scrub s = SCRUB_INIT;
	(void)state;
	assert_int_equal(scrub_add(&s, SECRET, NULL), ERR_OK);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_STRBUF struct strbuf b = STRBUF_INIT;
		strbuf_adds(&b, cases[i].text);
		scrub_cut_end(&s, &b);
		assert_string_equal(strbuf_str(&b), cases[i].expected);
	}
}

static void a_value_stays_a_value_whatever_the_secret_is(void **state)
{
	static const char *const secrets[] = { "\"", "a", ":", "{", "\\", "key", "4711" };
	static const char text[] = "{\"key\":[\"a\\\"b\",{\"pin\":4711,\"n\":47110,\"ok\":true,\"none\":null}],\"path\":\"c:\\\\x\"}";
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++) {
		AUTO(scrub_release) struct scrub s = SCRUB_INIT;
		AUTO_JS struct js *v = js_parse(text, strlen(text), NULL);
		assert_int_equal(scrub_add(&s, secrets[i], NULL), ERR_OK);
		AUTO_JS struct js *clean = scrub_js(&s, v);
		AUTO_FREE char *dump = js_dump(clean);
		AUTO_JS struct js *again = js_parse(dump, strlen(dump), NULL);
		assert_non_null(again);
		assert_int_equal(js_len(again), 2);
		assert_false(i == 6 && strstr(dump, "4711,"));
		assert_false(i == 5 && strstr(dump, "key"));
	}
}

static void a_value_without_secrets_is_given_back_itself(void **state)
{
	AUTO(scrub_release) struct scrub s = SCRUB_INIT;
	AUTO_JS struct js *v = js_parse("{\"a\":[1,\"b\"]}", 13, NULL);
	AUTO_JS struct js *none = scrub_js(&s, v);
	(void)state;
	assert_int_equal(scrub_add(&s, "zzz", NULL), ERR_OK);
	AUTO_JS struct js *same = scrub_js(&s, v);
	assert_ptr_equal(none, v);
	assert_ptr_equal(same, v);
}

static void in_json_within_json_the_secret_goes_and_the_rest_still_parses(void **state)
{
	AUTO(scrub_release) struct scrub s = SCRUB_INIT;
	AUTO_JS struct js *inner = js_object();
	AUTO_JS struct js *outer = js_object();
	(void)state;
	assert_int_equal(scrub_add(&s, SECRET, NULL), ERR_OK);
	js_set_str(inner, "password", SECRET);
	AUTO_FREE char *text = js_dump(inner);
	js_set_str(outer, "arguments", text);
	AUTO_JS struct js *clean = scrub_js(&s, outer);
	assert_string_equal(js_str(clean, "arguments"), "{\"password\":\"***\"}");
	assert_non_null(strstr(js_str(outer, "arguments"), "sesame")); /* the original is as it was */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_secret_goes_plain_and_as_json_writes_it_once_and_twice),
		cmocka_unit_test(of_two_secrets_the_longer_goes_first),
		cmocka_unit_test(the_same_again_and_nothing_change_nothing),
		cmocka_unit_test(of_a_secret_of_many_lines_each_long_line_goes_by_itself),
		cmocka_unit_test(there_is_an_end_of_secrets),
		cmocka_unit_test(behind_a_nul_byte_is_looked_too),
		cmocka_unit_test(the_half_of_a_secret_at_a_cut_end_goes),
		cmocka_unit_test(a_value_stays_a_value_whatever_the_secret_is),
		cmocka_unit_test(a_value_without_secrets_is_given_back_itself),
		cmocka_unit_test(in_json_within_json_the_secret_goes_and_the_rest_still_parses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
