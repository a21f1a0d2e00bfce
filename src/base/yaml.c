/* YAML in and out, the only file that knows libyaml.  Reading follows the parser's events; the nesting is bounded before it
 * reaches our stack.  A repeated key is refused: unlike JSON from an agent, a person wrote it and meant something. */
#include "base/yaml.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define KEY_SHOWN_MAX 100

struct reader {
	yaml_parser_t parser;
	struct error *e;
	int depth;
};

static enum err_code refuse(const struct reader *r, const yaml_event_t *at, const char *what)
{
	return error_set(r->e, ERR_INVALID, "YAML line %zu column %zu: %s", at->start_mark.line + 1,
			 at->start_mark.column + 1, what);
}

static enum err_code parser_failed(const struct reader *r)
{
	const yaml_parser_t *p = &r->parser;
	const char *problem = p->problem ? p->problem : "not understood";

	if (p->error == YAML_READER_ERROR)
		return error_set(r->e, ERR_INVALID, "YAML byte %zu: %s", p->problem_offset, problem);
	return error_set(r->e, ERR_INVALID, "YAML line %zu column %zu: %s%s%s", p->problem_mark.line + 1,
			 p->problem_mark.column + 1, problem, p->context ? " " : "", p->context ? p->context : "");
}

static const char *forbidden_part(const yaml_event_t *ev)
{
	static const char anchor[] = "anchors are not accepted here", tag[] = "tags are not accepted here";

	switch (ev->type) {
	case YAML_ALIAS_EVENT: return "aliases are not accepted here";
	case YAML_SCALAR_EVENT: return ev->data.scalar.anchor ? anchor : ev->data.scalar.tag ? tag : NULL;
	case YAML_SEQUENCE_START_EVENT:
		return ev->data.sequence_start.anchor ? anchor : ev->data.sequence_start.tag ? tag : NULL;
	case YAML_MAPPING_START_EVENT:
		return ev->data.mapping_start.anchor ? anchor : ev->data.mapping_start.tag ? tag : NULL;
	case YAML_NO_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_STREAM_END_EVENT:
	case YAML_DOCUMENT_START_EVENT:
	case YAML_DOCUMENT_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT: break;
	}
	return NULL;
}

/* The caller deletes the event in any case. */
static enum err_code next_event(struct reader *r, yaml_event_t *ev)
{
	memset(ev, 0, sizeof(*ev));
	if (!yaml_parser_parse(&r->parser, ev))
		return parser_failed(r);
	const char *forbidden = forbidden_part(ev);
	return forbidden ? refuse(r, ev, forbidden) : ERR_OK;
}

#define AUTO_EVENT __attribute__((cleanup(yaml_event_delete)))

static bool is_one_of(const char *s, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(s, *list) == 0)
			return true;
	return false;
}

static const char *skip_digits(const char *s)
{
	return s + strspn(s, "0123456789");
}

static bool is_integer(const char *s)
{
	s += *s == '-' || *s == '+';
	return *s && !*skip_digits(s);
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static bool is_real(const char *s)
{
	s += *s == '-' || *s == '+';
	const char *whole = skip_digits(s), *end = whole;

	if (*whole == '.')
		end = skip_digits(whole + 1);
	if (whole == s && end - whole < 2)
		return false;
	if (*end != 'e' && *end != 'E')
		return !*end;
	end++;
	end += *end == '-' || *end == '+';
	return *end && !*skip_digits(end);
}

/* A plain scalar by the core schema.  NULL: it is a string; so is a number too large to hold. */
static struct js *resolve(const char *s)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
	static const char *const trues[] = { "true", "True", "TRUE", NULL };
	static const char *const falses[] = { "false", "False", "FALSE", NULL };

	if (is_one_of(s, nulls))
		return js_null();
	if (is_one_of(s, trues))
		return js_bool(true);
	if (is_one_of(s, falses))
		return js_bool(false);
	if (is_integer(s)) {
		errno = 0;
		long long v = strtoll(s, NULL, 10);
		return errno ? NULL : js_int(v);
	}
	if (is_real(s)) {
		double v = strtod(s, NULL);
		return isfinite(v) ? js_real(v) : NULL;
	}
	return NULL;
}

static struct js *scalar_value(const yaml_event_t *ev)
{
	const char *s = (const char *)ev->data.scalar.value;
	size_t n = ev->data.scalar.length;
	struct js *v = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !memchr(s, 0, n) ? resolve(s) : NULL;

	return v ? v : js_string_n(s, n);
}

static enum err_code read_value(struct reader *r, const yaml_event_t *ev, struct js **ret);

static enum err_code read_sequence(struct reader *r, struct js *array)
{
	for (;;) {
		AUTO_EVENT yaml_event_t ev;
		struct js *item = NULL;
		enum err_code code = next_event(r, &ev);
		if (code != ERR_OK || ev.type == YAML_SEQUENCE_END_EVENT)
			return code;
		code = read_value(r, &ev, &item);
		if (code != ERR_OK)
			return code;
		js_push(array, item);
	}
}

static enum err_code check_key(struct reader *r, const struct js *object, const yaml_event_t *ev)
{
	AUTO_STRBUF struct strbuf what = STRBUF_INIT;

	if (ev->type != YAML_SCALAR_EVENT)
		return refuse(r, ev, "a key must be a plain word or a string");
	const char *key = (const char *)ev->data.scalar.value;
	size_t n = ev->data.scalar.length;
	if (memchr(key, 0, n))
		return refuse(r, ev, "a key must not contain NUL");
	if (!js_get(object, key))
		return ERR_OK;
	strbuf_addc(&what, '\'');
	str_add_printable(&what, key, strnlen(key, KEY_SHOWN_MAX));
	strbuf_adds(&what, "' is given twice");
	return refuse(r, ev, strbuf_str(&what));
}

static enum err_code read_mapping(struct reader *r, struct js *object)
{
	for (;;) {
		AUTO_EVENT yaml_event_t key;
		AUTO_EVENT yaml_event_t ev = { .type = YAML_NO_EVENT };
		struct js *value = NULL;
		enum err_code code = next_event(r, &key);
		if (code != ERR_OK || key.type == YAML_MAPPING_END_EVENT)
			return code;
		code = check_key(r, object, &key);
		if (code == ERR_OK)
			code = next_event(r, &ev);
		if (code == ERR_OK)
			code = read_value(r, &ev, &value);
		if (code != ERR_OK)
			return code;
		js_set(object, (const char *)key.data.scalar.value, value);
	}
}

static enum err_code read_value(struct reader *r, const yaml_event_t *ev, struct js **ret)
{
	if (ev->type == YAML_SCALAR_EVENT) {
		*ret = scalar_value(ev);
		return ERR_OK;
	}
	if (++r->depth > JS_DEPTH_MAX)
		return refuse(r, ev, "nested too deep");
	bool mapping = ev->type == YAML_MAPPING_START_EVENT;
	AUTO_JS struct js *v = mapping ? js_object() : js_array();
	enum err_code code = mapping ? read_mapping(r, v) : read_sequence(r, v);
	r->depth--;
	if (code == ERR_OK)
		*ret = TAKE_PTR(v);
	return code;
}

/* At a document's start: its value, then its end. */
static enum err_code read_document(struct reader *r, struct js **ret)
{
	AUTO_EVENT yaml_event_t first;
	AUTO_EVENT yaml_event_t end = { .type = YAML_NO_EVENT };
	enum err_code code = next_event(r, &first);

	if (code == ERR_OK)
		code = read_value(r, &first, ret);
	return code == ERR_OK ? next_event(r, &end) : code;
}

static enum err_code read_stream(struct reader *r, struct js **ret)
{
	for (;;) {
		AUTO_EVENT yaml_event_t ev;
		enum err_code code = next_event(r, &ev);
		if (code != ERR_OK || ev.type == YAML_STREAM_END_EVENT)
			return code;
		if (ev.type != YAML_DOCUMENT_START_EVENT)
			continue;
		if (*ret)
			return refuse(r, &ev, "a second document; one is expected");
		code = read_document(r, ret);
		if (code != ERR_OK)
			return code;
	}
}

struct js *yaml_parse(const char *text, size_t len, struct error *e)
{
	struct reader r = { .e = e };
	AUTO_JS struct js *v = NULL;

	if (len > YAML_INPUT_MAX) {
		error_set(e, ERR_LIMIT, "YAML of more than %zu bytes", YAML_INPUT_MAX);
		return NULL;
	}
	CHECK(yaml_parser_initialize(&r.parser));
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING); /* never guess UTF-16 */
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	enum err_code code = read_stream(&r, &v);
	yaml_parser_delete(&r.parser);
	if (code != ERR_OK)
		return NULL;
	return js_type(v) == JS_NULL ? js_object() : TAKE_PTR(v);
}

struct js *yaml_load(const char *path, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	if (file_read(path, YAML_INPUT_MAX, &text, e) != ERR_OK)
		return NULL;
	struct js *v = yaml_parse(strbuf_str(&text), text.len, e);
	if (!v)
		error_wrap(e, "'%s'", path);
	return v;
}

/* libyaml fails an emit only when memory is out or events come in a wrong order. */
static void emit(yaml_emitter_t *to, yaml_event_t *ev, int made)
{
	CHECK(made);
	CHECK(yaml_emitter_emit(to, ev));
}

static void emit_scalar(yaml_emitter_t *to, const char *s, size_t n, yaml_scalar_style_t style)
{
	yaml_event_t ev;

	CHECK(n <= INT32_MAX);
	emit(to, &ev, yaml_scalar_event_initialize(&ev, NULL, NULL, (const yaml_char_t *)s, (int)n, 1, 1, style));
}

/* Line ends other than \n, and a byte order mark, would be normalised away when read: only escapes keep them. */
static bool needs_escapes(const char *s)
{
	return strpbrk(s, "\r\x7f") || strstr(s, "\xc2\x85") || strstr(s, "\xe2\x80\xa8") || strstr(s, "\xe2\x80\xa9") ||
	       strstr(s, "\xef\xbb\xbf");
}

static void emit_string(yaml_emitter_t *to, const char *s, size_t n, bool is_key)
{
	AUTO_JS struct js *meaning = resolve(s);
	yaml_scalar_style_t style = YAML_PLAIN_SCALAR_STYLE;

	if (needs_escapes(s))
		style = YAML_DOUBLE_QUOTED_SCALAR_STYLE;
	else if (strchr(s, '\n'))
		style = is_key ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_LITERAL_SCALAR_STYLE;
	else if (meaning || is_integer(s) || is_real(s))
		style = YAML_SINGLE_QUOTED_SCALAR_STYLE;
	emit_scalar(to, s, n, style);
}

static void emit_value(yaml_emitter_t *to, const struct js *v);

static void emit_array(yaml_emitter_t *to, const struct js *v)
{
	yaml_event_t ev;

	emit(to, &ev, yaml_sequence_start_event_initialize(&ev, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE));
	for (size_t i = 0; i < js_len(v); i++)
		emit_value(to, js_at(v, i));
	emit(to, &ev, yaml_sequence_end_event_initialize(&ev));
}

static void emit_object(yaml_emitter_t *to, const struct js *v)
{
	yaml_event_t ev;

	emit(to, &ev, yaml_mapping_start_event_initialize(&ev, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
	for (struct js_iter it = js_iter(v); it.key; js_next(&it)) {
		emit_string(to, it.key, strlen(it.key), true);
		emit_value(to, it.value);
	}
	emit(to, &ev, yaml_mapping_end_event_initialize(&ev));
}

static void emit_value(yaml_emitter_t *to, const struct js *v)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	switch (js_type(v)) {
	case JS_NULL:
	case JS_BOOL:
	case JS_INT:
	case JS_REAL:
		js_dump_to(v, &text);
		emit_scalar(to, strbuf_str(&text), text.len, YAML_PLAIN_SCALAR_STYLE);
		break;
	case JS_STRING: emit_string(to, js_text(v), js_text_len(v), false); break;
	case JS_ARRAY: emit_array(to, v); break;
	case JS_OBJECT: emit_object(to, v); break;
	}
}

/* What does not fit is dropped and marked in the buffer, as everywhere; so this never fails. */
static int write_out(void *data, unsigned char *text, size_t n)
{
	strbuf_add(data, text, n);
	return 1;
}

void yaml_dump(const struct js *v, struct strbuf *out)
{
	yaml_emitter_t to;
	yaml_event_t ev;

	CHECK(yaml_emitter_initialize(&to));
	yaml_emitter_set_output(&to, write_out, out);
	yaml_emitter_set_encoding(&to, YAML_UTF8_ENCODING);
	yaml_emitter_set_unicode(&to, 1);
	yaml_emitter_set_indent(&to, 2);
	yaml_emitter_set_width(&to, -1);
	emit(&to, &ev, yaml_stream_start_event_initialize(&ev, YAML_UTF8_ENCODING));
	emit(&to, &ev, yaml_document_start_event_initialize(&ev, NULL, NULL, NULL, 1));
	emit_value(&to, v);
	emit(&to, &ev, yaml_document_end_event_initialize(&ev, 1));
	emit(&to, &ev, yaml_stream_end_event_initialize(&ev));
	yaml_emitter_delete(&to);
}
