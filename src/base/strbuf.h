/* A growing byte buffer with a ceiling.  Always NUL-terminated; may hold NULs.  Going over the ceiling marks the buffer
 * `over` and drops the excess: the owner checks once, at the end.  Not thread-safe; the caller owns the struct. */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#define STRBUF_DEFAULT_MAX ((size_t)64 << 20)

struct strbuf {
	char *data; /* never NULL after the first add; use strbuf_str() to be safe */
	size_t len, cap;
	size_t max; /* 0 means STRBUF_DEFAULT_MAX */
	bool over;
};

#define STRBUF_INIT { .data = NULL }
#define STRBUF_LIMIT(n) { .max = (n) }
#define AUTO_STRBUF __attribute__((cleanup(strbuf_release)))

void strbuf_release(struct strbuf *b);
void strbuf_reset(struct strbuf *b);				/* len = 0, over = false, keeps the memory */
void strbuf_add(struct strbuf *b, const void *data, size_t n);
void strbuf_adds(struct strbuf *b, const char *s);
void strbuf_addc(struct strbuf *b, char c);
void strbuf_addf(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strbuf_vaddf(struct strbuf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
void strbuf_cut(struct strbuf *b, size_t from_start);		/* removes the first n bytes */
char *strbuf_reserve(struct strbuf *b, size_t n);		/* room for n more bytes; NULL when over the ceiling; then set len (and the NUL) yourself */
const char *strbuf_str(const struct strbuf *b);			/* "" when empty */
char *strbuf_detach(struct strbuf *b);				/* the caller frees; never NULL */
