/* Text on a terminal is measured in columns, not bytes: UTF-8 with wide and combining characters.  Everything that came
 * from outside passes through text_add_line or text_add_block before it reaches a terminal. */
#pragma once
#include "base/strbuf.h"
#include <stddef.h>
#include <stdint.h>

size_t text_columns(const char *s, size_t n);
/* The longest prefix that fits, in bytes; never cuts a character. */
size_t text_fit(const char *s, size_t n, size_t columns);
/* Adds s cut to `columns` with "..." at its end when it is longer. */
void text_add_cut(struct strbuf *out, const char *s, size_t columns);
void text_add_spaces(struct strbuf *out, size_t n);
/* Outside text as one line: control characters visible, white space runs (newlines too) become one space. */
void text_add_line(struct strbuf *out, const char *s);
/* Outside text with its lines kept; each line after the first starts with `indent` spaces; trailing blank lines are dropped. */
void text_add_block(struct strbuf *out, const char *s, size_t indent);
/* The same for a terminal of `width` columns: long lines are broken between words. */
void text_add_wrapped(struct strbuf *out, const char *s, size_t indent, size_t width);
/* The last `lines` lines of s. */
const char *text_tail(const char *s, int lines);
/* "0:07", "12:34", "1:02:03". */
void text_add_clock(struct strbuf *out, int64_t ms);
/* "12 s", "3 h", "5 d". */
void text_add_age(struct strbuf *out, int64_t ms);
/* The named things of a list closest to `word`, or NULL when none is near: for "did you mean". */
const char *text_nearest(const char *word, const char *(*name_at)(size_t i, const void *ctx), const void *ctx);
