/* JSON from outside: what is taken reads back as the same value, however it is written, and its getters hold. */
#include "fuzz.h"

static void look(const struct js *v)
{
	static const char *const allowed[] = { "a", "prompt", NULL };
	const char *text = NULL;
	int64_t n = 0;
	bool flag = false;

	(void)!js_check_members(v, "where", allowed, NULL);
	(void)!js_want_str(v, "", "a", &text, NULL);
	(void)!js_want_i64(v, "", "a", INT64_MIN, INT64_MAX, &n, NULL);
	(void)!js_want_bool(v, "", "a", &flag, NULL);
	js_path(v, "a.0.b");
	js_f64(v, "a", 0);
	CHECK(!text || strlen(text) == js_text_len(js_get(v, "a")));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *v = js_parse((const char *)data, n, &e);

	CHECK(v || (e.code && e.text[0]));
	if (!v)
		return 0;
	AUTO_JS struct js *copy = js_copy(v);
	AUTO_FREE char *pretty = js_pretty(v);
	AUTO_JS struct js *again = js_parse(pretty, strlen(pretty), NULL);
	CHECK(js_equal(copy, v) && again && js_equal(again, v));
	fuzz_is_json(v);
	look(v);
	return 0;
}
