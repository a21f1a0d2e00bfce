/* JSON as text: reals in their shortest exact form, straight into a strbuf; and documents that are only written, without a tree (js_put). */
#include "base/js.h"
#include "base/check.h"
#include "base/str.h"
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DUMP_FIRST_BYTES ((size_t)1015) /* most texts fit; more than that malloc does not keep at hand */

static void add_escaped(struct strbuf *to, unsigned char c)
{
	static const char names[] = "\b\t\n\f\r\"\\", letters[] = "btnfr\"\\";
	const char *at = c ? strchr(names, c) : NULL;

	if (at)
		strbuf_addf(to, "\\%c", letters[at - names]);
	else
		strbuf_addf(to, "\\u%04x", c);
}

/* JSON goes to terminals too: a character that would act there is spelled. Gives its bytes, 0 when it is an ordinary one. */
static size_t add_deceptive(struct strbuf *to, const char *s, size_t n)
{
	uint32_t c = 0;
	size_t len = str_deceptive(s, n, &c);

	if (len && c >= 0x10000)
		strbuf_addf(to, "\\u%04" PRIx32 "\\u%04" PRIx32, 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
	else if (len)
		strbuf_addf(to, "\\u%04" PRIx32, c);
	return len;
}

/* How many of the first bytes are ASCII that stands for itself, counted by eights: most texts are nothing else. */
static size_t plain_eights(const char *s, size_t n)
{
	const uint64_t ones = 0x0101010101010101u, tops = ones << 7;
	size_t i = 0;

	for (; i + 8 <= n; i += 8) {
		uint64_t v;
		memcpy(&v, s + i, sizeof(v));
		uint64_t quote = v ^ (ones * '"'), slash = v ^ (ones * '\\'), del = v ^ (ones * 0x7f);
		/* below 0x20, or one of the three, or not ASCII: what borrows from a byte has its top bit set after it */
		if ((v | (v - ones * 0x20) | (quote - ones) | (slash - ones) | (del - ones)) & tops)
			break;
	}
	return i;
}

/* What cannot stand for itself, and the first bytes of what may not. */
static bool is_odd(unsigned char c)
{
	static const bool odd[256] = { ['"'] = true, ['\\'] = true, [0x7f] = true, [0xc2] = true, [0xd8] = true, [0xe2] = true, [0xf3] = true };

	return c < 0x20 || odd[c];
}

static size_t plain_length(const char *s, size_t n)
{
	size_t i = plain_eights(s, n);

	while (i < n && !is_odd((unsigned char)s[i]))
		i++;
	return i;
}

static void add_odd_string(struct strbuf *to, const char *s, size_t n)
{
	size_t plain = 0;

	strbuf_addc(to, '"');
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		uint32_t unused;
		bool spelled = c < 0x80 && is_odd(c);
		if (!spelled && !(is_odd(c) && str_deceptive(s + i, n - i, &unused)))
			continue;
		strbuf_add(to, s + plain, i - plain);
		if (spelled)
			add_escaped(to, c);
		else
			i += add_deceptive(to, s + i, n - i) - 1;
		plain = i + 1;
	}
	strbuf_add(to, s + plain, n - plain);
	strbuf_addc(to, '"');
}

static void add_string(struct strbuf *to, const char *s, size_t n)
{
	char *at = plain_length(s, n) == n ? strbuf_reserve(to, n + 2) : NULL;

	if (!at) {
		add_odd_string(to, s, n);
		return;
	}
	at[0] = '"';
	memcpy(at + 1, s, n);
	at[n + 1] = '"';
	to->len += n + 2;
	to->data[to->len] = 0;
}

/* The fewest digits that read back as the same double, and a sign in it that this is a real. */
static void add_real(struct strbuf *to, double v)
{
	char text[40];

	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	char *comma = strchr(text, ',');
	if (comma)
		*comma = '.'; /* an embedding program may have set a locale */
	strbuf_adds(to, text);
	if (!strpbrk(text, ".e"))
		strbuf_adds(to, ".0");
}

static void add_int(struct strbuf *to, int64_t v)
{
	char text[24], *at = text + sizeof(text);
	uint64_t left = v < 0 ? -(uint64_t)v : (uint64_t)v;

	do
		*--at = (char)('0' + left % 10);
	while (left /= 10);
	if (v < 0)
		*--at = '-';
	strbuf_add(to, at, (size_t)(text + sizeof(text) - at));
}

/* indent < 0: everything on one line. */
static void add_break(struct strbuf *to, int indent)
{
	if (indent >= 0)
		strbuf_addf(to, "\n%*s", indent * 2, "");
}

static void add_value(struct strbuf *to, const struct js *v, int indent);

static void add_array(struct strbuf *to, const struct js *v, int indent)
{
	int inner = indent < 0 ? -1 : indent + 1;
	size_t n = js_len(v);

	strbuf_addc(to, '[');
	for (size_t i = 0; i < n; i++) {
		if (i)
			strbuf_addc(to, ',');
		add_break(to, inner);
		add_value(to, js_at(v, i), inner);
	}
	if (n)
		add_break(to, indent);
	strbuf_addc(to, ']');
}

static void add_object(struct strbuf *to, const struct js *v, int indent)
{
	int inner = indent < 0 ? -1 : indent + 1;
	bool first = true;

	strbuf_addc(to, '{');
	for (struct js_iter it = js_iter(v); it.key; js_next(&it)) {
		if (!first)
			strbuf_addc(to, ',');
		first = false;
		add_break(to, inner);
		add_string(to, it.key, strlen(it.key));
		strbuf_addc(to, ':');
		if (indent >= 0)
			strbuf_addc(to, ' ');
		add_value(to, it.value, inner);
	}
	if (!first)
		add_break(to, indent);
	strbuf_addc(to, '}');
}

static void add_value(struct strbuf *to, const struct js *v, int indent)
{
	switch (js_type(v)) {
	case JS_NULL: strbuf_adds(to, "null"); break;
	case JS_BOOL: strbuf_adds(to, js_true(v) ? "true" : "false"); break;
	case JS_INT: add_int(to, js_num(v, 0)); break;
	case JS_REAL: add_real(to, js_real_num(v)); break;
	case JS_STRING: add_string(to, js_text(v), js_text_len(v)); break;
	case JS_ARRAY: add_array(to, v, indent); break;
	case JS_OBJECT: add_object(to, v, indent); break;
	}
}

/* Returned whole by contract, so the only ceiling is memory. */
static char *dump(const struct js *v, int indent)
{
	struct strbuf text = STRBUF_LIMIT(SIZE_MAX / 2);

	strbuf_reserve(&text, DUMP_FIRST_BYTES);
	add_value(&text, v, indent);
	return strbuf_detach(&text);
}

char *js_dump(const struct js *v)
{
	return dump(v, -1);
}

void js_dump_to(const struct js *v, struct strbuf *to)
{
	add_value(to, v, -1);
}

char *js_pretty(const struct js *v)
{
	return dump(v, 0);
}

/* --- documents without a tree */

/* Keys are ours, and stand for themselves. */
static void add_key(struct js_put *p, const char *key)
{
	size_t n = strlen(key);
	char *at = strbuf_reserve(p->text, n + 4);

	if (at) {
		at[0] = p->begun ? ',' : '{';
		at[1] = '"';
		memcpy(at + 2, key, n);
		memcpy(at + 2 + n, "\":", 2);
		p->text->len += n + 4;
	}
	p->begun = true;
}

void js_put(struct js_put *p, const char *key, const struct js *v)
{
	if (p->tree) {
		js_set(p->tree, key, v ? js_ref(v) : js_null());
		return;
	}
	add_key(p, key);
	add_value(p->text, v, -1);
}

void js_put_str(struct js_put *p, const char *key, const char *s)
{
	size_t n = s ? strlen(s) : 0;

	if (!p->tree && s && str_is_utf8(s, n)) {
		add_key(p, key);
		add_string(p->text, s, n);
		return;
	}
	struct js *v = js_string(s);
	js_put(p, key, v);
	js_free(v);
}

void js_put_int(struct js_put *p, const char *key, int64_t v)
{
	if (p->tree) {
		js_set_int(p->tree, key, v);
		return;
	}
	add_key(p, key);
	add_int(p->text, v);
}

struct js_put js_put_object(struct js_put *p, const char *key)
{
	if (!p->tree) {
		add_key(p, key);
		return (struct js_put){ .text = p->text };
	}
	js_set(p->tree, key, js_object());
	return (struct js_put){ .tree = js_get(p->tree, key) };
}

void js_put_map(struct js_put *p, const char *key, const struct js *v)
{
	if (v) {
		js_put(p, key, v);
		return;
	}
	struct js_put none = js_put_object(p, key);
	js_put_end(&none);
}

void js_put_end(struct js_put *p)
{
	if (!p->tree)
		strbuf_adds(p->text, p->begun ? "}" : "{}");
}
