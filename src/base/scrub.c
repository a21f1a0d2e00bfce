/* Cutting secrets out of texts and values. */
#include "base/scrub.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEVELS 3 /* as it is, as JSON writes it, as JSON writes that */

struct scrub_form {
	char *text;
	size_t len;
};

void scrub_release(struct scrub *s)
{
	for (size_t i = 0; i < s->count; i++) {
		explicit_bzero(s->forms[i].text, s->forms[i].len);
		free(s->forms[i].text);
	}
	free(s->forms);
	*s = (struct scrub)SCRUB_INIT;
}

static bool has_form(const struct scrub *s, const char *text)
{
	for (size_t i = 0; i < s->count; i++)
		if (str_eq(s->forms[i].text, text))
			return true;
	return false;
}

static void add_form(struct scrub *s, const char *text)
{
	size_t len = strlen(text), at = 0;
	if (has_form(s, text))
		return;
	s->forms = mem_grow(s->forms, (s->count + 1) * sizeof(*s->forms));
	while (at < s->count && s->forms[at].len >= len)
		at++;
	memmove(s->forms + at + 1, s->forms + at, (s->count - at) * sizeof(*s->forms));
	s->forms[at] = (struct scrub_form){ mem_strdup(text), len };
	s->count++;
	s->bytes += len;
}

/* As it stands between the quotes. */
static char *escaped(const char *text)
{
	AUTO_JS struct js *v = js_string(text);
	AUTO_FREE char *quoted = js_dump(v);
	return mem_strndup(quoted + 1, strlen(quoted) - 2);
}

static enum err_code add_lines(struct scrub *s, const char *secret, struct error *e)
{
	enum err_code rc = ERR_OK;
	for (const char *at = strchr(secret, '\n') ? secret : ""; *at && !rc;) {
		size_t n = strcspn(at, "\r\n");
		AUTO_FREE char *line = mem_strndup(at, n);
		if (n >= SCRUB_LINE_MIN)
			rc = scrub_add(s, line, e);
		at += n + strspn(at + n, "\r\n");
	}
	return rc;
}

enum err_code scrub_add(struct scrub *s, const char *secret, struct error *e)
{
	AUTO_FREE char *once = escaped(secret ? secret : "");
	AUTO_FREE char *twice = escaped(once);
	const char *forms[LEVELS] = { secret, once, twice };
	if (str_empty(secret) || has_form(s, secret))
		return ERR_OK;
	if (s->texts == SCRUB_TEXTS_MAX || s->bytes + LEVELS * strlen(twice) > SCRUB_BYTES_MAX)
		return error_set(e, ERR_LIMIT, "too many secrets to hide: at most %d of %zu bytes", SCRUB_TEXTS_MAX, SCRUB_BYTES_MAX);
	for (size_t i = 0; i < LEVELS; i++)
		add_form(s, forms[i]);
	s->texts++;
	return add_lines(s, secret, e);
}

enum err_code scrub_add_all(struct scrub *s, const struct js *texts, struct error *e)
{
	enum err_code rc = ERR_OK;
	for (size_t i = 0; i < js_len(texts) && !rc; i++)
		if (js_text(js_at(texts, i)))
			rc = scrub_add(s, js_text(js_at(texts, i)), e);
	return rc;
}

void scrub_copy(struct scrub *s, const struct scrub *from)
{
	for (size_t i = 0; i < from->count; i++)
		add_form(s, from->forms[i].text);
	s->texts = from->texts;
}

static bool cut_form(struct strbuf *text, const struct scrub_form *f)
{
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(SIZE_MAX / 2);
	const char *at = strbuf_str(text), *end = at + text->len, *found;
	if (!memmem(at, text->len, f->text, f->len))
		return false;
	while ((found = memmem(at, (size_t)(end - at), f->text, f->len))) {
		strbuf_add(&out, at, (size_t)(found - at));
		strbuf_adds(&out, SCRUB_STARS);
		at = found + f->len;
	}
	strbuf_add(&out, at, (size_t)(end - at));
	out.max = text->max;
	out.over = text->over;
	struct strbuf old = *text;
	*text = out;
	out = old;
	return true;
}

bool scrub_text(const struct scrub *s, struct strbuf *text)
{
	bool found = false;
	for (size_t i = 0; i < s->count; i++)
		found = cut_form(text, &s->forms[i]) || found;
	return found;
}

void scrub_cut_end(const struct scrub *s, struct strbuf *text)
{
	size_t most = 0;
	for (size_t i = 0; i < s->count; i++) {
		const struct scrub_form *f = &s->forms[i];
		size_t k = f->len - 1 < text->len ? f->len - 1 : text->len;
		while (k > most && memcmp(text->data + text->len - k, f->text, k) != 0)
			k--;
		most = k > most ? k : most;
	}
	if (!most)
		return;
	text->len -= most;
	text->data[text->len] = 0;
	strbuf_adds(text, SCRUB_STARS);
}

static bool text_has(const struct scrub *s, const char *text, size_t len)
{
	for (size_t i = 0; i < s->count; i++)
		if (memmem(text, len, s->forms[i].text, s->forms[i].len))
			return true;
	return false;
}

static bool number_is(const struct scrub *s, const struct js *v)
{
	char text[sizeof("-9223372036854775808")];
	if (js_type(v) != JS_INT || snprintf(text, sizeof(text), "%" PRId64, js_num(v, 0)) < SCRUB_NUMBER_MIN)
		return false;
	return has_form(s, text);
}

static bool value_has(const struct scrub *s, const struct js *v)
{
	enum js_type t = js_type(v);
	for (size_t i = 0; t == JS_ARRAY && i < js_len(v); i++)
		if (value_has(s, js_at(v, i)))
			return true;
	for (struct js_iter it = js_iter(t == JS_OBJECT ? v : NULL); it.key; js_next(&it))
		if (text_has(s, it.key, strlen(it.key)) || value_has(s, it.value))
			return true;
	return t == JS_STRING ? text_has(s, js_text(v), js_text_len(v)) : number_is(s, v);
}

static char *clean_text(const struct scrub *s, const char *text, size_t len, size_t *ret_len)
{
	AUTO_STRBUF struct strbuf b = STRBUF_LIMIT(SIZE_MAX / 2);
	strbuf_add(&b, text, len);
	scrub_text(s, &b);
	*ret_len = b.len;
	return strbuf_detach(&b);
}

static struct js *clean(const struct scrub *s, const struct js *v)
{
	size_t len;
	if (!value_has(s, v))
		return js_ref(v);
	if (js_type(v) == JS_STRING) {
		AUTO_FREE char *text = clean_text(s, js_text(v), js_text_len(v), &len);
		return js_string_n(text, len);
	}
	if (js_type(v) == JS_INT)
		return js_string(SCRUB_STARS);
	struct js *out = js_type(v) == JS_ARRAY ? js_array() : js_object();
	for (size_t i = 0; js_type(v) == JS_ARRAY && i < js_len(v); i++)
		js_push(out, clean(s, js_at(v, i)));
	for (struct js_iter it = js_iter(js_type(v) == JS_OBJECT ? v : NULL); it.key; js_next(&it)) {
		AUTO_FREE char *key = clean_text(s, it.key, strlen(it.key), &len);
		js_set(out, key, clean(s, it.value));
	}
	return out;
}

struct js *scrub_js(const struct scrub *s, const struct js *v)
{
	return s->count ? clean(s, v) : js_ref(v);
}
