/* A growing byte buffer with a ceiling; what does not fit is dropped and remembered in `over`. */
#include "base/strbuf.h"
#include "base/check.h"
#include "base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t ceiling(const struct strbuf *b)
{
	return b->max ? b->max : STRBUF_DEFAULT_MAX;
}

/* Bytes that may still be added.  Nothing after the first overflow, so that the kept part has no hole in it. */
static size_t room(const struct strbuf *b)
{
	size_t max = ceiling(b);

	return b->over || b->len >= max ? 0 : max - b->len;
}

static void grow_to(struct strbuf *b, size_t need)
{
	size_t cap = b->cap < 32 ? 64 : b->cap * 2;
	if (cap > ceiling(b) + 1)
		cap = ceiling(b) + 1;
	b->cap = cap < need ? need : cap;
	b->data = mem_grow(b->data, b->cap);
	b->data[b->len] = 0;
}

static inline void grow(struct strbuf *b, size_t n)
{
	if (b->len + n + 1 > b->cap)
		grow_to(b, b->len + n + 1);
}

void strbuf_release(struct strbuf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = b->cap = 0;
	b->over = false;
}

void strbuf_reset(struct strbuf *b)
{
	b->len = 0;
	b->over = false;
	if (b->data)
		b->data[0] = 0;
}

void strbuf_add(struct strbuf *b, const void *data, size_t n)
{
	size_t fits = room(b);

	if (n > fits) {
		n = fits;
		b->over = true;
	}
	grow(b, n);
	if (n)
		memcpy(b->data + b->len, data, n);
	b->len += n;
	b->data[b->len] = 0;
}

void strbuf_adds(struct strbuf *b, const char *s)
{
	strbuf_add(b, s, strlen(s));
}

void strbuf_addc(struct strbuf *b, char c)
{
	if (b->len + 1 >= b->cap || !room(b)) {
		strbuf_add(b, &c, 1);
		return;
	}
	b->data[b->len++] = c;
	b->data[b->len] = 0;
}

void strbuf_addf(struct strbuf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	strbuf_vaddf(b, fmt, ap);
	va_end(ap);
}

void strbuf_vaddf(struct strbuf *b, const char *fmt, va_list ap)
{
	va_list again;

	va_copy(again, ap);
	grow(b, 0);
	int n = vsnprintf(b->data + b->len, b->cap - b->len, fmt, ap);
	CHECK(n >= 0);
	size_t want = (size_t)n, fits = room(b);
	if (want > fits) {
		want = fits;
		b->over = true;
	}
	/* The first attempt is right when it fitted both the memory and the ceiling. */
	if ((size_t)n != want || b->len + want >= b->cap) {
		grow(b, want);
		vsnprintf(b->data + b->len, want + 1, fmt, again);
	}
	b->len += want;
	va_end(again);
}

void strbuf_cut(struct strbuf *b, size_t from_start)
{
	CHECK(from_start <= b->len);
	if (!from_start)
		return;
	b->len -= from_start;
	memmove(b->data, b->data + from_start, b->len + 1);
}

char *strbuf_reserve(struct strbuf *b, size_t n)
{
	if (n > room(b)) {
		b->over = true;
		return NULL;
	}
	grow(b, n);
	b->data[b->len + n] = 0;
	return b->data + b->len;
}

const char *strbuf_str(const struct strbuf *b)
{
	return b->data ? b->data : "";
}

char *strbuf_detach(struct strbuf *b)
{
	char *data = b->data ? b->data : mem_strdup("");

	b->data = NULL;
	b->len = b->cap = 0;
	b->over = false;
	return data;
}
