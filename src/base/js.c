/* JSON values: a facade over jansson, the only file that knows it.  Writing is our own (js_write.c). */
#include "base/js.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *in(const struct js *v)
{
	return (json_t *)v; /* jansson is not const-correct for reading */
}

static struct js *out(json_t *v)
{
	CHECK(v); /* jansson returns NULL only when memory is out or we broke its rules */
	return (struct js *)v;
}

/* Refuses nesting before anything is allocated.  Brackets are counted outside strings only; malformed text is left to the parser. */
static enum err_code check_depth(const char *text, size_t len, struct error *e)
{
	bool quoted = false;
	int depth = 0;

	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (quoted) {
			i += c == '\\';
			quoted = c != '"';
		} else if (c == '"') {
			quoted = true;
		} else if ((c == '{' || c == '[') && ++depth > JS_DEPTH_MAX) {
			return error_set(e, ERR_INVALID, "JSON is nested more than %d levels deep (byte %zu)", JS_DEPTH_MAX, i);
		} else if (c == '}' || c == ']') {
			depth--;
		}
	}
	return ERR_OK;
}

struct js *js_parse(const char *text, size_t len, struct error *e)
{
	json_error_t why;

	if (check_depth(text, len, e) != ERR_OK)
		return NULL;
	if (memchr(text, 0, len)) { /* jansson would take it for the end and never see the rest */
		error_set(e, ERR_INVALID, "JSON contains a NUL byte");
		return NULL;
	}
	json_t *v = json_loadb(text, len, JSON_DECODE_ANY, &why);
	if (v)
		return out(v);
	AUTO_STRBUF struct strbuf shown = STRBUF_INIT;
	str_add_printable(&shown, why.text, strlen(why.text));
	error_set(e, ERR_INVALID, "JSON line %d column %d: %s", why.line, why.column, strbuf_str(&shown));
	return NULL;
}

struct js *js_load(const char *path, size_t max_bytes, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	if (file_read(path, max_bytes, &text, e) != ERR_OK)
		return NULL;
	struct js *v = js_parse(strbuf_str(&text), text.len, e);
	if (!v)
		error_wrap(e, "'%s'", path);
	return v;
}

struct js *js_ref(const struct js *v)
{
	return (struct js *)json_incref(in(v));
}

void js_free(struct js *v)
{
	json_decref(in(v));
}

void js_cleanup(struct js **v)
{
	js_free(*v);
}

struct js *js_object(void)
{
	return out(json_object());
}

struct js *js_array(void)
{
	return out(json_array());
}

struct js *js_string(const char *s)
{
	return s ? js_string_n(s, strlen(s)) : js_null();
}

/* How many bytes at s are one good character; 0 for a bad byte or a NUL, which our own parser would not read back. */
static size_t good_character(const char *s, size_t n)
{
	if (!*s)
		return 0;
	for (size_t len = 1; len <= 4 && len <= n; len++)
		if (str_is_utf8(s, len))
			return len;
	return 0;
}

static void add_repaired(struct strbuf *to, const char *s, size_t n)
{
	while (n) {
		size_t len = good_character(s, n);
		if (len)
			strbuf_add(to, s, len);
		else
			strbuf_adds(to, "\xef\xbf\xbd");
		len += !len;
		s += len;
		n -= len;
	}
}

struct js *js_string_n(const char *s, size_t n)
{
	if (str_is_utf8(s, n) && !memchr(s, 0, n))
		return out(json_stringn_nocheck(s, n));
	AUTO_STRBUF struct strbuf good = STRBUF_LIMIT(SIZE_MAX / 2);
	add_repaired(&good, s, n);
	return out(json_stringn_nocheck(strbuf_str(&good), good.len));
}

struct js *js_int(int64_t v)
{
	return out(json_integer(v));
}

struct js *js_real(double v)
{
	json_t *real = json_real(v);

	return real ? out(real) : js_null(); /* JSON has no NaN and no infinity */
}

struct js *js_bool(bool v)
{
	return out(json_boolean(v));
}

struct js *js_null(void)
{
	return out(json_null());
}

struct js *js_copy(const struct js *v)
{
	return v ? out(json_deep_copy(in(v))) : NULL;
}

enum js_type js_type(const struct js *v)
{
	if (!v)
		return JS_NULL;
	switch (json_typeof(in(v))) {
	case JSON_OBJECT: return JS_OBJECT;
	case JSON_ARRAY: return JS_ARRAY;
	case JSON_STRING: return JS_STRING;
	case JSON_INTEGER: return JS_INT;
	case JSON_REAL: return JS_REAL;
	case JSON_TRUE:
	case JSON_FALSE: return JS_BOOL;
	case JSON_NULL: return JS_NULL;
	}
	return JS_NULL;
}

const char *js_type_name(enum js_type t)
{
	static const char *const names[] = {
		[JS_NULL] = "null",	[JS_BOOL] = "a boolean", [JS_INT] = "an integer", [JS_REAL] = "a number",
		[JS_STRING] = "a string", [JS_ARRAY] = "an array", [JS_OBJECT] = "an object",
	};

	return (size_t)t < ARRAY_SIZE(names) ? names[t] : "unknown";
}

bool js_equal(const struct js *a, const struct js *b)
{
	return json_equal(a ? in(a) : json_null(), b ? in(b) : json_null());
}

struct js *js_get(const struct js *o, const char *key)
{
	return (struct js *)json_object_get(in(o), key);
}

static struct js *step(const struct js *v, const char *part, size_t n)
{
	size_t i = 0;

	if (js_type(v) != JS_ARRAY)
		return (struct js *)json_object_getn(in(v), part, n);
	if (n == 0 || n > 9)
		return NULL;
	for (size_t k = 0; k < n; k++) {
		if (part[k] < '0' || part[k] > '9')
			return NULL;
		i = i * 10 + (size_t)(part[k] - '0');
	}
	return js_at(v, i);
}

struct js *js_path(const struct js *o, const char *dotted)
{
	struct js *v = (struct js *)in(o);

	while (v) {
		size_t n = strcspn(dotted, ".");
		v = step(v, dotted, n);
		if (!dotted[n])
			break;
		dotted += n + 1;
	}
	return v;
}

const char *js_str(const struct js *o, const char *key)
{
	return js_text(js_get(o, key));
}

const char *js_str_or(const struct js *o, const char *key, const char *def)
{
	const char *s = js_str(o, key);

	return s ? s : def;
}

int64_t js_i64(const struct js *o, const char *key, int64_t def)
{
	return js_num(js_get(o, key), def);
}

double js_f64(const struct js *o, const char *key, double def)
{
	const json_t *v = in(js_get(o, key));

	return json_is_number(v) ? json_number_value(v) : def;
}

bool js_flag(const struct js *o, const char *key, bool def)
{
	const json_t *v = in(js_get(o, key));

	return json_is_boolean(v) ? json_is_true(v) : def;
}

const char *js_text(const struct js *v)
{
	return json_string_value(in(v));
}

size_t js_text_len(const struct js *v)
{
	return json_string_length(in(v));
}

int64_t js_num(const struct js *v, int64_t def)
{
	if (js_type(v) == JS_INT)
		return json_integer_value(in(v));
	if (js_type(v) != JS_REAL)
		return def;
	/* 5.0 and 1e3 are whole numbers in JSON; beyond 2^53 a double no longer says which one. */
	double d = json_real_value(in(v));
	if (d < -9007199254740992.0 || d > 9007199254740992.0 || d != (double)(int64_t)d)
		return def;
	return (int64_t)d;
}

double js_real_num(const struct js *v)
{
	return json_real_value(in(v));
}

bool js_true(const struct js *v)
{
	return json_is_true(in(v));
}

void js_set(struct js *o, const char *key, struct js *taken)
{
	AUTO_STRBUF struct strbuf good = STRBUF_INIT;

	CHECK(js_type(o) == JS_OBJECT && key && taken != o);
	if (!str_is_utf8(key, strlen(key))) {
		add_repaired(&good, key, strlen(key));
		key = strbuf_str(&good);
	}
	CHECK(json_object_set_new_nocheck(in(o), key, taken ? in(taken) : json_null()) == 0);
}

void js_set_str(struct js *o, const char *key, const char *s)
{
	if (s)
		js_set(o, key, js_string(s));
}

void js_set_int(struct js *o, const char *key, int64_t v)
{
	js_set(o, key, js_int(v));
}

void js_set_bool(struct js *o, const char *key, bool v)
{
	js_set(o, key, js_bool(v));
}

void js_del(struct js *o, const char *key)
{
	json_object_del(in(o), key);
}

void js_merge(struct js *o, const struct js *from)
{
	for (struct js_iter it = js_iter(from); it.key; js_next(&it))
		js_set(o, it.key, js_ref(it.value));
}

size_t js_len(const struct js *v)
{
	return js_type(v) == JS_ARRAY ? json_array_size(in(v)) : json_object_size(in(v));
}

struct js *js_at(const struct js *array, size_t i)
{
	return (struct js *)json_array_get(in(array), i);
}

void js_push(struct js *array, struct js *taken)
{
	CHECK(js_type(array) == JS_ARRAY && taken != array);
	CHECK(json_array_append_new(in(array), taken ? in(taken) : json_null()) == 0);
}

void js_push_str(struct js *array, const char *s)
{
	js_push(array, js_string(s));
}

static void fill_iter(struct js_iter *it)
{
	it->key = it->pos ? json_object_iter_key(it->pos) : NULL;
	it->value = it->pos ? (struct js *)json_object_iter_value(it->pos) : NULL;
}

struct js_iter js_iter(const struct js *o)
{
	struct js_iter it = { .object = o, .pos = json_object_iter(in(o)) };

	fill_iter(&it);
	return it;
}

void js_next(struct js_iter *it)
{
	it->pos = json_object_iter_next(in(it->object), it->pos);
	fill_iter(it);
}
