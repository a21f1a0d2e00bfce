/* JSON: strict reading, honest members, writing that reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/cleanup.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdlib.h>
#include <string.h>

static struct js *parse(const char *text)
{
	return js_parse(text, strlen(text), NULL);
}

static void what_is_read_is_written_again(void **state)
{
	static const char *const texts[] = {
		"{\"b\":1,\"a\":[true,false,null,-9223372036854775808,\"x\\n\\\"\\\\\\u0001\"],\"c\":{}}",
		"[]", "\"\xf0\x9f\x9a\xa6\"", "0.1", "1.0", "1e+300", "0.30000000000000004", "null", "[[],{}]", "-0.0", NULL,
	};

	(void)state;
	for (int i = 0; texts[i]; i++) {
		AUTO_JS struct js *v = parse(texts[i]);
		assert_non_null(v);
		AUTO_FREE char *text = js_dump(v);
		assert_string_equal(text, texts[i]);
		AUTO_FREE char *pretty = js_pretty(v);
		AUTO_JS struct js *again = parse(pretty);
		assert_true(js_equal(v, again));
	}
}

/* Texts are looked at by eights. */
static void a_character_that_is_spelled_is_found_in_every_place(void **state)
{
	static const char *const special[] = { "\"", "\\", "\x01", "\x1f", "\x7f", "\xc2\x9b", "\xc3\xa9", " ", "~", "!" };
	static const char *const spelled[] = { "\\\"", "\\\\", "\\u0001", "\\u001f", "\\u007f", "\\u009b", "\xc3\xa9", " ", "~", "!" };
	(void)state;
	for (int len = 0; len < 20; len++)
		for (int at = 0; at <= len; at++)
			for (size_t i = 0; i < ARRAY_SIZE(special); i++) {
				AUTO_FREE char *before = mem_alloc(21), *after = mem_alloc(21);
				memset(before, 'a', (size_t)at);
				memset(after, 'z', (size_t)(len - at));
				AUTO_FREE char *text = mem_printf("%s%s%s", before, special[i], after);
				AUTO_FREE char *wanted = mem_printf("\"%s%s%s\"", before, spelled[i], after);
				AUTO_JS struct js *v = js_string(text);
				AUTO_FREE char *dumped = js_dump(v);
				assert_string_equal(dumped, wanted);
			}
}

static void integers_of_all_sizes_are_written(void **state)
{
	static const struct { int64_t v; const char *text; } cases[] = {
		{ 0, "0" }, { 9, "9" }, { 10, "10" }, { -1, "-1" }, { 1234567890123, "1234567890123" }, { INT64_MAX, "9223372036854775807" }, { INT64_MIN, "-9223372036854775808" },
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_JS struct js *v = js_int(cases[i].v);
		AUTO_FREE char *dumped = js_dump(v);
		assert_string_equal(dumped, cases[i].text);
	}
}

static void what_would_act_on_a_terminal_is_spelled_and_reads_back(void **state)
{
	static const struct { const char *raw, *written; } texts[] = {
		{ "\xc2\x9b" "31m", "\"\\u009b31m\"" },	       /* C1: what ESC [ is, in one character */
		{ "a\xe2\x80\xae" "b", "\"a\\u202eb\"" },	       /* bidi override */
		{ "\xe2\x80\xa8\xe2\x81\xa6", "\"\\u2028\\u2066\"" },
		{ "\xd8\x9c", "\"\\u061c\"" },
		{ "\xf3\xa0\x81\x81", "\"\\udb40\\udc41\"" },    /* tag */
		{ "\xc2\xa9\xe2\x82\xac\xd8\xa8\xf3\xa0\x84\x80", "\"\xc2\xa9\xe2\x82\xac\xd8\xa8\xf3\xa0\x84\x80\"" },
		{ "\x1b\x7f\xc2\x80", "\"\\u001b\\u007f\\u0080\"" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		AUTO_JS struct js *v = js_string(texts[i].raw);
		AUTO_FREE char *text = js_dump(v);
		AUTO_JS struct js *again = parse(text);
		assert_string_equal(text, texts[i].written);
		assert_true(js_equal(v, again));
	}
}

static void pretty_text_is_indented(void **state)
{
	AUTO_JS struct js *v = parse("{\"a\":[1,{}],\"b\":[]}");
	AUTO_FREE char *text = js_pretty(v);

	(void)state;
	assert_string_equal(text, "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
}

static void bad_json_is_refused(void **state)
{
	static const char *const bad[] = { "", " ", "{", "{\"a\":1,}", "[1 2]", "nul", "1 2", "{a:1}", "'a'", "\"\xff\"", "\"\\u0000\"",
					   "{\"\\u0000\":1}", "01", "+1", "1e999", "99999999999999999999", "\"\\ud800\"", "[1]]", "\"a\nb\"", NULL };

	(void)state;
	for (int i = 0; bad[i]; i++)
		assert_null(parse(bad[i]));
	assert_null(js_parse("1\0", 2, NULL));
}

static void a_parse_error_says_where_and_is_safe_to_print(void **state)
{
	struct error e = ERROR_INIT;

	(void)state;
	assert_null(js_parse("{\n \"a\": \x1b]0 }", 13, &e));
	assert_int_equal(e.code, ERR_INVALID);
	assert_non_null(strstr(e.text, "line 2 column"));
	assert_null(strchr(e.text, 0x1b));
}

static void nesting_is_limited_before_anything_is_built(void **state)
{
	char text[200] = "";
	struct error e = ERROR_INIT;

	(void)state;
	memset(text, '[', JS_DEPTH_MAX);
	memset(text + JS_DEPTH_MAX, ']', JS_DEPTH_MAX);
	AUTO_JS struct js *deep = js_parse(text, strlen(text), &e);
	assert_non_null(deep);
	assert_null(js_parse("[", 1, NULL));
	memset(text, '[', sizeof(text));
	assert_null(js_parse(text, sizeof(text), &e));
	assert_non_null(strstr(e.text, "64 levels"));
	text[0] = '"';
	text[1] = '\\';
	text[2] = '"';
	text[199] = '"';
	AUTO_JS struct js *brackets_in_a_string_do_not_count = js_parse(text, sizeof(text), &e);
	assert_non_null(brackets_in_a_string_do_not_count);
}

static void the_last_of_repeated_members_wins(void **state)
{
	AUTO_JS struct js *v = parse("{\"a\":1,\"b\":2,\"a\":3}");

	(void)state;
	assert_int_equal(js_i64(v, "a", 0), 3);
	assert_int_equal(js_len(v), 2);
}

static void a_missing_or_wrong_member_gives_the_default(void **state)
{
	AUTO_JS struct js *v = parse("{\"s\":\"x\",\"i\":5,\"r\":1.5,\"w\":1e3,\"t\":true,\"n\":null,\"o\":{\"a\":[10,{\"k\":\"deep\"}]}}");

	(void)state;
	assert_string_equal(js_str(v, "s"), "x");
	assert_null(js_str(v, "i"));
	assert_null(js_str(NULL, "i"));
	assert_string_equal(js_str_or(v, "n", "d"), "d");
	assert_int_equal(js_i64(v, "i", 0), 5);
	assert_int_equal(js_i64(v, "w", 0), 1000);
	assert_int_equal(js_i64(v, "r", -1), -1);
	assert_int_equal(js_i64(v, "s", -1), -1);
	assert_true(js_f64(v, "r", 0) == 1.5);
	assert_true(js_f64(v, "i", 0) == 5.0);
	assert_true(js_flag(v, "t", false));
	assert_true(js_flag(v, "s", true));
	assert_int_equal(js_num(js_path(v, "o.a.0"), 0), 10);
	assert_string_equal(js_text(js_path(v, "o.a.1.k")), "deep");
	assert_null(js_path(v, "o.a.2"));
	assert_null(js_path(v, "o.a.x"));
	assert_null(js_path(v, "o..a"));
	assert_null(js_path(NULL, "a"));
	assert_null(js_get(js_get(v, "s"), "x"));
	assert_int_equal(js_type(NULL), JS_NULL);
	assert_int_equal(js_len(NULL), 0);
}

static void bad_bytes_become_replacement_characters(void **state)
{
	AUTO_JS struct js *v = js_string_n("a\xff\xe2\x82z\0y\xc3\xa4", 9);

	(void)state;
	assert_string_equal(js_text(v), "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbdy\xc3\xa4");
	AUTO_FREE char *text = js_dump(v);
	AUTO_JS struct js *back = parse(text);
	assert_true(js_equal(v, back));
	AUTO_JS struct js *o = js_object();
	js_set(o, "k\xff", js_null());
	assert_non_null(js_get(o, "k\xef\xbf\xbd"));
}

static void values_without_a_json_form_become_null(void **state)
{
	AUTO_JS struct js *nan = js_real(strtod("nan", NULL));
	AUTO_JS struct js *none = js_string(NULL);

	(void)state;
	assert_int_equal(js_type(nan), JS_NULL);
	assert_int_equal(js_type(none), JS_NULL);
}

static void objects_are_built_merged_and_copied(void **state)
{
	AUTO_JS struct js *a = js_object();
	AUTO_JS struct js *b = parse("{\"x\":2,\"y\":[1]}");

	(void)state;
	js_set_int(a, "x", 1);
	js_set_str(a, "left_out", NULL);
	js_set_str(a, "s", "t");
	js_set_bool(a, "f", false);
	js_merge(a, b);
	js_del(a, "s");
	js_del(a, "s");
	AUTO_JS struct js *copy = js_copy(a);
	js_push_str(js_get(copy, "y"), "two");
	AUTO_FREE char *before = js_dump(a);
	AUTO_FREE char *after = js_dump(copy);
	assert_string_equal(before, "{\"x\":2,\"f\":false,\"y\":[1]}");
	assert_string_equal(after, "{\"x\":2,\"f\":false,\"y\":[1,\"two\"]}");
	assert_false(js_equal(a, copy));
	js_merge(a, NULL);
	js_free(NULL);
	assert_null(js_ref(NULL));
	assert_null(js_copy(NULL));
}

static void members_are_visited_in_their_order(void **state)
{
	AUTO_JS struct js *v = parse("{\"c\":1,\"a\":2,\"b\":3}");
	char seen[8] = "";

	(void)state;
	for (struct js_iter it = js_iter(v); it.key; js_next(&it))
		strcat(seen, it.key);
	assert_string_equal(seen, "cab");
	assert_null(js_iter(NULL).key);
}

static void an_unknown_member_is_named_with_its_path(void **state)
{
	static const char *const allowed[] = { "memory", "cpus", NULL };
	AUTO_JS struct js *v = parse("{\"memroy\":1}");
	AUTO_JS struct js *array = parse("[]");
	struct error e = ERROR_INIT;

	(void)state;
	assert_int_equal(js_check_members(v, "limits", allowed, &e), ERR_INVALID);
	assert_string_equal(e.text, "limits.memroy: unknown member, expected one of memory, cpus");
	assert_int_equal(js_check_members(array, "limits", allowed, &e), ERR_INVALID);
	assert_int_equal(js_check_members(NULL, "limits", allowed, &e), ERR_OK);
}

static void typed_members_are_checked_and_absent_ones_leave_the_value(void **state)
{
	AUTO_JS struct js *v = parse("{\"s\":\"x\",\"i\":5,\"b\":true,\"n\":null}");
	struct error e = ERROR_INIT;
	const char *s = "default";
	int64_t n = 7;
	bool b = false;

	(void)state;
	assert_int_equal(js_want_str(v, "", "absent", &s, &e), ERR_OK);
	assert_int_equal(js_want_str(v, "", "n", &s, &e), ERR_OK);
	assert_string_equal(s, "default");
	assert_int_equal(js_want_str(v, NULL, "s", &s, &e), ERR_OK);
	assert_string_equal(s, "x");
	assert_int_equal(js_want_str(v, "spec", "i", &s, &e), ERR_INVALID);
	assert_string_equal(e.text, "spec.i: expected a string, got an integer");
	assert_int_equal(js_want_i64(v, "spec", "i", 0, 4, &n, &e), ERR_INVALID);
	assert_string_equal(e.text, "spec.i: 5 is more than 4");
	assert_int_equal(js_want_i64(v, "spec", "s", 0, 4, &n, &e), ERR_INVALID);
	assert_int_equal(n, 7);
	assert_int_equal(js_want_i64(v, "spec", "i", 5, 5, &n, &e), ERR_OK);
	assert_int_equal(n, 5);
	assert_int_equal(js_want_bool(v, "spec", "b", &b, &e), ERR_OK);
	assert_true(b);
	assert_int_equal(js_want_bool(v, "spec", "i", &b, &e), ERR_INVALID);
}

static void a_file_is_loaded_and_its_name_is_in_the_error(void **state)
{
	AUTO_FREE char *dir = NULL;
	struct error e = ERROR_INIT;

	(void)state;
	assert_int_equal(file_tmpdir(NULL, "base-js", &dir, &e), ERR_OK);
	AUTO_FREE char *path = file_join(dir, "x.json");
	assert_int_equal(file_replace(path, "{\"a\":1}", 7, 0600, FILE_NOSYNC, &e), ERR_OK);
	AUTO_JS struct js *v = js_load(path, 100, &e);
	assert_int_equal(js_i64(v, "a", 0), 1);
	assert_null(js_load(path, 6, &e));
	assert_int_equal(e.code, ERR_LIMIT);
	assert_int_equal(file_replace(path, "{", 1, 0600, FILE_NOSYNC, &e), ERR_OK);
	assert_null(js_load(path, 100, &e));
	assert_non_null(strstr(e.text, path));
	assert_int_equal(file_remove_tree(dir, &e), ERR_OK);
}

static void put_all(struct js_put *p, const struct js *list)
{
	js_put_str(p, "text", "say \"hi\"\n");
	js_put_str(p, "nothing", NULL);
	js_put_str(p, "broken", "a\xff" "b");
	js_put_str(p, "odd", "\xe2\x80\xae\xc2\x9b\xc3\xa9");
	js_put_int(p, "least", INT64_MIN);
	js_put(p, "list", list);
	js_put(p, "none", NULL);
	struct js_put inner = js_put_object(p, "inner");
	js_put_int(&inner, "n", 1);
	struct js_put empty = js_put_object(&inner, "empty");
	js_put_end(&empty);
	js_put_end(&inner);
	js_put_map(p, "map", NULL);
	js_put_end(p);
}

static void a_document_is_the_same_as_a_tree_and_as_text(void **state)
{
	(void)state;
	AUTO_JS struct js *list = parse("[1,{\"a\":null}]"), *tree = js_object();
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	put_all(&(struct js_put){ .tree = tree }, list);
	put_all(&(struct js_put){ .text = &text }, list);
	AUTO_FREE char *dumped = js_dump(tree);
	assert_string_equal(strbuf_str(&text), dumped);
	assert_string_equal(dumped, "{\"text\":\"say \\\"hi\\\"\\n\",\"nothing\":null,\"broken\":\"a\xef\xbf\xbd" "b\",\"odd\":\"\\u202e\\u009b\xc3\xa9\","
		"\"least\":-9223372036854775808,\"list\":[1,{\"a\":null}],\"none\":null,\"inner\":{\"n\":1,\"empty\":{}},\"map\":{}}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_read_is_written_again),
		cmocka_unit_test(a_character_that_is_spelled_is_found_in_every_place),
		cmocka_unit_test(integers_of_all_sizes_are_written),
		cmocka_unit_test(what_would_act_on_a_terminal_is_spelled_and_reads_back),
		cmocka_unit_test(pretty_text_is_indented),
		cmocka_unit_test(bad_json_is_refused),
		cmocka_unit_test(a_parse_error_says_where_and_is_safe_to_print),
		cmocka_unit_test(nesting_is_limited_before_anything_is_built),
		cmocka_unit_test(the_last_of_repeated_members_wins),
		cmocka_unit_test(a_missing_or_wrong_member_gives_the_default),
		cmocka_unit_test(bad_bytes_become_replacement_characters),
		cmocka_unit_test(values_without_a_json_form_become_null),
		cmocka_unit_test(objects_are_built_merged_and_copied),
		cmocka_unit_test(members_are_visited_in_their_order),
		cmocka_unit_test(an_unknown_member_is_named_with_its_path),
		cmocka_unit_test(typed_members_are_checked_and_absent_ones_leave_the_value),
		cmocka_unit_test(a_file_is_loaded_and_its_name_is_in_the_error),
		cmocka_unit_test(a_document_is_the_same_as_a_tree_and_as_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
