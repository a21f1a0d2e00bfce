/* Strings from outside: strict numbers, durations, sizes, names, UTF-8, encodings.  Nothing here keeps state. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool str_eq(const char *a, const char *b); /* NULL equals only NULL */
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
bool str_empty(const char *s); /* NULL or "" */

/* Whole-string decimal within [min,max]; `what` names the value in the error. */
MUST_USE enum err_code str_to_i64(const char *s, const char *what, int64_t min, int64_t max, int64_t *ret, struct error *e);
/* "90", "90s", "500ms", "5m", "1h", "2d" -> milliseconds (a bare number is seconds). */
MUST_USE enum err_code str_to_duration_ms(const char *s, const char *what, int64_t min_ms, int64_t max_ms, int64_t *ret_ms, struct error *e);
/* "4096", "64K", "512M", "2G" -> bytes. */
MUST_USE enum err_code str_to_size(const char *s, const char *what, int64_t min, int64_t max, int64_t *ret, struct error *e);

bool str_is_name(const char *s); /* [A-Za-z0-9][A-Za-z0-9._-]{0,63}: a task's or an environment's name */
bool str_is_utf8(const char *s, size_t n);	/* strict: no surrogates, no over-long forms, at most U+10FFFF */
bool str_const_time_eq(const char *a, const char *b);

void str_add_base64(struct strbuf *out, const void *data, size_t n);
void str_add_base64url(struct strbuf *out, const void *data, size_t n); /* no padding */
bool str_from_base64url(const char *s, size_t n, struct strbuf *out);
void str_add_hex(struct strbuf *out, const void *data, size_t n);
/* Text for a terminal: control bytes (ESC, OSC, C1, bidi overrides) become visible escapes; keeps \n and \t. */
void str_add_printable(struct strbuf *out, const char *s, size_t n);
/* Bytes of the first character when it is one of those (C1, bidi control, tag) that UTF-8 spells in several bytes; else 0. */
size_t str_deceptive(const char *s, size_t n, uint32_t *ret_c);
/* Percent-encoding of everything but unreserved characters; decoding refuses %00 and bad escapes. */
void str_add_urlenc(struct strbuf *out, const char *s);
bool str_add_urldec(struct strbuf *out, const char *s, size_t n, bool plus_is_space);
/* "1.2 MB", "3 m 04 s": for people. */
void str_add_size(struct strbuf *out, int64_t bytes);
void str_add_duration(struct strbuf *out, int64_t ms);
