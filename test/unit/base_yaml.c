/* YAML: the core schema and no more, refusals with their place, writing that reads back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/yaml.h"
#include <stdlib.h>
#include <string.h>

static void assert_reads_as(const char *yaml, const char *json)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *v = yaml_parse(yaml, strlen(yaml), &e);

	if (!v)
		fail_msg("%s: %s", yaml, e.text);
	AUTO_FREE char *text = js_dump(v);
	assert_string_equal(text, json);
}

static void assert_refused(const char *yaml, const char *why)
{
	struct error e = ERROR_INIT;

	assert_null(yaml_parse(yaml, strlen(yaml), &e));
	if (!strstr(e.text, why))
		fail_msg("'%s' lacks '%s'", e.text, why);
}

static void plain_scalars_follow_the_core_schema(void **state)
{
	(void)state;
	assert_reads_as("[null, ~, Null, '', \"\"]", "[null,null,null,\"\",\"\"]");
	assert_reads_as("[true, True, FALSE, yes, no, on]", "[true,true,false,\"yes\",\"no\",\"on\"]");
	assert_reads_as("[1, -2, +3, 007, 0x10, 1_000, '1']", "[1,-2,3,7,\"0x10\",\"1_000\",\"1\"]");
	assert_reads_as("[1.5, .5, 5., 1e3, -1.5E-3, ., 1.2.3, .inf, 1e9999]", "[1.5,0.5,5.0,1000.0,-0.0015,\".\",\"1.2.3\",\".inf\",\"1e9999\"]");
	assert_reads_as("a:\nb: x y # comment\nc: 99999999999999999999", "{\"a\":null,\"b\":\"x y\",\"c\":\"99999999999999999999\"}");
}

static void blocks_and_nesting_are_read(void **state)
{
	(void)state;
	assert_reads_as("a:\n- b: |\n    one\n    two\n  c: >\n    x\n    y\n- [1, {k: v}]\n", "{\"a\":[{\"b\":\"one\\ntwo\\n\",\"c\":\"x y\\n\"},[1,{\"k\":\"v\"}]]}");
	assert_reads_as("1: a\ntrue: b\n", "{\"1\":\"a\",\"true\":\"b\"}");
}

static void nothing_is_an_empty_object(void **state)
{
	(void)state;
	assert_reads_as("", "{}");
	assert_reads_as("# only a comment\n", "{}");
	assert_reads_as("---\n", "{}");
}

static void what_bites_is_refused(void **state)
{
	(void)state;
	assert_refused("a: &x 1\n", "line 1 column 4: anchors");
	assert_refused("a: 1\nb: &x [1]\n", "line 2 column 4: anchors");
	assert_refused("a: *x\n", "aliases");
	assert_refused("a: !!str 1\n", "tags");
	assert_refused("a: !x {}\n", "tags");
	assert_refused("a: 1\nb: 2\na: 3\n", "line 3 column 1: 'a' is given twice");
	assert_refused("a: 1\n---\nb: 2\n", "second document");
	assert_refused("[a]: 1\n", "key");
	assert_refused("a: [1\n", "line");
	assert_refused("a: 1\n b: 2\n", "line 2");
	assert_refused("a: \xff\n", "YAML byte");
	assert_refused("a: \t- x\n\t- y", "line");
}

static void depth_and_size_are_limited(void **state)
{
	AUTO_FREE char *deep = mem_alloc(201);
	struct error e = ERROR_INIT;

	(void)state;
	memset(deep, '[', 200);
	assert_refused(deep, "nested too deep");
	deep[JS_DEPTH_MAX] = 0;
	assert_refused(deep, "line");
	memset(deep + JS_DEPTH_MAX, ']', JS_DEPTH_MAX);
	deep[2 * JS_DEPTH_MAX] = 0;
	AUTO_JS struct js *v = yaml_parse(deep, strlen(deep), &e);
	assert_non_null(v);
	AUTO_FREE char *big = mem_alloc(YAML_INPUT_MAX + 1);
	memset(big, ' ', YAML_INPUT_MAX + 1);
	assert_null(yaml_parse(big, YAML_INPUT_MAX + 1, &e));
	assert_int_equal(e.code, ERR_LIMIT);
}

static void people_can_read_what_is_written(void **state)
{
	static const char json[] = "{\"name\":\"T-001\",\"n\":5,\"s\":\"5\",\"no\":null,\"t\":\"true\",\"list\":[\"a\",{\"b\":1,\"c\":[]}],\"text\":\"one\\ntwo\\n\",\"o\":{}}";
	AUTO_JS struct js *v = js_parse(json, sizeof(json) - 1, NULL);
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;

	(void)state;
	yaml_dump(v, &b);
	assert_string_equal(strbuf_str(&b), "name: T-001\nn: 5\ns: '5'\nno: null\nt: 'true'\nlist:\n- a\n- b: 1\n  c: []\ntext: |\n  one\n  two\no: {}\n");
}

static void assert_survives(const struct js *v)
{
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;
	struct error e = ERROR_INIT;

	yaml_dump(v, &b);
	AUTO_JS struct js *back = yaml_parse(strbuf_str(&b), b.len, &e);
	if (!js_equal(v, back)) {
		AUTO_FREE char *text = js_dump(v);
		fail_msg("%s became %s (%s)", text, strbuf_str(&b), e.text);
	}
}

/* Every string of up to four pieces out of those that have a meaning somewhere in YAML, as value, item and key. */
static void every_awkward_string_survives(void **state)
{
	static const char *const pieces[] = { "", "a", " ", "\n", "\t", ":", "#", "-", "'", "\"", "\\", "\r", "\xc2\x85", "\xe2\x80\xa8",
					      "\xef\xbb\xbf", "\x1b", "\x7f", "0", ".", "~", "|", "%", "---", "\xf0\x9f\x9a\xa6", "null", "{", "]", ",", "?", "&" };
	enum { N = ARRAY_SIZE(pieces) };

	(void)state;
	for (int i = 0; i < N * N * N; i++) {
		AUTO_FREE char *s = mem_printf("%s%s%s", pieces[i % N], pieces[i / N % N], pieces[i / N / N]);
		AUTO_FREE char *longer = mem_printf("x%s\n%sy", s, s);
		AUTO_JS struct js *o = js_object();
		struct js *list = js_array();
		js_push_str(list, s);
		js_push_str(list, longer);
		js_set_str(o, "value", s);
		js_set_str(o, "text", longer);
		js_set(o, "list", list);
		js_set_str(o, s, "key");
		js_set_str(o, longer, "key");
		assert_survives(o);
	}
}

static void long_keys_and_numbers_survive(void **state)
{
	AUTO_JS struct js *v = js_object();
	char key[3001];

	(void)state;
	memset(key, 'k', sizeof(key) - 1);
	key[sizeof(key) - 1] = 0;
	js_set(v, "real", js_real(0.1));
	js_set(v, "big", js_real(1e300));
	js_set(v, "least", js_int(INT64_MIN));
	js_set(v, "whole", js_real(5));
	js_set_str(v, "number", "1e9999");
	js_set(v, "yes", js_bool(true));
	assert_survives(v);
	AUTO_JS struct js *text = js_string(key);
	assert_survives(text);
	js_set(v, key, js_null());
	assert_survives(v);
}

static void a_file_is_loaded_and_its_name_is_in_the_error(void **state)
{
	AUTO_FREE char *dir = NULL;
	struct error e = ERROR_INIT;

	(void)state;
	assert_int_equal(file_tmpdir(NULL, "base-yaml", &dir, &e), ERR_OK);
	AUTO_FREE char *path = file_join(dir, "x.yaml");
	assert_int_equal(file_replace(path, "a: 1\n", 5, 0600, FILE_NOSYNC, &e), ERR_OK);
	AUTO_JS struct js *v = yaml_load(path, &e);
	assert_int_equal(js_i64(v, "a", 0), 1);
	assert_int_equal(file_replace(path, "[", 1, 0600, FILE_NOSYNC, &e), ERR_OK);
	assert_null(yaml_load(path, &e));
	assert_non_null(strstr(e.text, path));
	assert_int_equal(file_remove_tree(dir, &e), ERR_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_scalars_follow_the_core_schema),
		cmocka_unit_test(blocks_and_nesting_are_read),
		cmocka_unit_test(nothing_is_an_empty_object),
		cmocka_unit_test(what_bites_is_refused),
		cmocka_unit_test(depth_and_size_are_limited),
		cmocka_unit_test(people_can_read_what_is_written),
		cmocka_unit_test(every_awkward_string_survives),
		cmocka_unit_test(long_keys_and_numbers_survive),
		cmocka_unit_test(a_file_is_loaded_and_its_name_is_in_the_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
