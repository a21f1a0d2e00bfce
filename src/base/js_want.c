/* Members as they must be: unknown ones are refused, wrong types are told with their path. */
#include "base/js.h"
#include "base/cleanup.h"
#include "base/str.h"
#include <inttypes.h>
#include <string.h>

#define KEY_SHOWN_MAX 120

/* "where.key", safe to print: a key comes from outside. */
static void add_place(struct strbuf *to, const char *where, const char *key)
{
	if (!str_empty(where))
		strbuf_addf(to, "%s.", where);
	str_add_printable(to, key, strnlen(key, KEY_SHOWN_MAX));
}

static enum err_code wrong_type(const char *where, const char *key, const char *expected, const struct js *v, struct error *e)
{
	AUTO_STRBUF struct strbuf place = STRBUF_INIT;

	add_place(&place, where, key);
	return error_set(e, ERR_INVALID, "%s: expected %s, got %s", strbuf_str(&place), expected, js_type_name(js_type(v)));
}

static bool is_listed(const char *key, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(key, *list) == 0)
			return true;
	return false;
}

enum err_code js_check_members(const struct js *o, const char *where, const char *const *allowed, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	struct js_iter it = js_iter(o);

	if (o && js_type(o) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "%s: expected an object, got %s", str_empty(where) ? "the value" : where,
				 js_type_name(js_type(o)));
	while (it.key && is_listed(it.key, allowed))
		js_next(&it);
	if (!it.key)
		return ERR_OK;
	add_place(&text, where, it.key);
	strbuf_adds(&text, ": unknown member, expected ");
	strbuf_adds(&text, !allowed[0] ? "none" : allowed[1] ? "one of " : "");
	for (size_t i = 0; allowed[i]; i++)
		strbuf_addf(&text, "%s%s", i ? ", " : "", allowed[i]);
	return error_set(e, ERR_INVALID, "%s", strbuf_str(&text));
}

enum err_code js_want_str(const struct js *o, const char *where, const char *key, const char **ret, struct error *e)
{
	const struct js *v = js_get(o, key);

	if (js_type(v) == JS_NULL)
		return ERR_OK;
	if (js_type(v) != JS_STRING)
		return wrong_type(where, key, "a string", v, e);
	*ret = js_text(v);
	return ERR_OK;
}

enum err_code js_want_i64(const struct js *o, const char *where, const char *key, int64_t min, int64_t max, int64_t *ret,
			  struct error *e)
{
	const struct js *v = js_get(o, key);

	if (js_type(v) == JS_NULL)
		return ERR_OK;
	int64_t n = js_num(v, 0);
	if (js_num(v, 1) != n)
		return wrong_type(where, key, "an integer", v, e);
	if (n >= min && n <= max) {
		*ret = n;
		return ERR_OK;
	}
	AUTO_STRBUF struct strbuf place = STRBUF_INIT;
	add_place(&place, where, key);
	return error_set(e, ERR_INVALID, "%s: %" PRId64 " is %s than %" PRId64, strbuf_str(&place), n,
			 n < min ? "less" : "more", n < min ? min : max);
}

enum err_code js_want_bool(const struct js *o, const char *where, const char *key, bool *ret, struct error *e)
{
	const struct js *v = js_get(o, key);

	if (js_type(v) == JS_NULL)
		return ERR_OK;
	if (js_type(v) != JS_BOOL)
		return wrong_type(where, key, "true or false", v, e);
	*ret = js_true(v);
	return ERR_OK;
}
