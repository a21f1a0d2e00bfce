/* The one table of error codes, and the few ways to fill and extend a struct error. */
#include "base/err.h"
#include "base/check.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int http, exit;
} codes[ERR_CODE_COUNT] = {
	[ERR_OK] = { "ok", 200, 0 },
	[ERR_USAGE] = { "usage", 400, 2 },
	[ERR_INVALID] = { "invalid", 400, 2 },
	[ERR_DENIED] = { "denied", 403, 4 },
	[ERR_NOT_FOUND] = { "not_found", 404, 5 },
	[ERR_UNPROCESSABLE] = { "unprocessable", 422, 2 },
	[ERR_TOO_LARGE] = { "too_large", 413, 1 },
	[ERR_UNAUTHENTICATED] = { "unauthenticated", 401, 4 },
	[ERR_CONFLICT] = { "conflict", 409, 6 },
	[ERR_GONE] = { "gone", 410, 1 },
	[ERR_FULL] = { "full", 507, 1 },
	[ERR_LIMIT] = { "limit", 429, 1 },
	[ERR_TIMEOUT] = { "timeout", 504, 8 },
	[ERR_CANCELED] = { "canceled", 409, 1 },
	[ERR_UNREACHABLE] = { "unreachable", 502, 7 },
	[ERR_UNSUPPORTED] = { "unsupported", 501, 1 },
	[ERR_BUSY] = { "busy", 503, 1 },
	[ERR_STALE] = { "stale", 409, 1 },
	[ERR_FAILED] = { "failed", 500, 1 },
	[ERR_IO] = { "io", 500, 1 },
	[ERR_INTERNAL] = { "internal", 500, 1 },
};

static const struct {
	int number;
	enum err_code code;
} errnos[] = {
	{ ENOENT, ERR_NOT_FOUND },	 { ENOTDIR, ERR_NOT_FOUND },	  { ESRCH, ERR_NOT_FOUND },
	{ EACCES, ERR_DENIED },		 { EPERM, ERR_DENIED },		  { ELOOP, ERR_DENIED },
	{ EEXIST, ERR_CONFLICT },	 { ENOTEMPTY, ERR_CONFLICT },	  { ENAMETOOLONG, ERR_INVALID },
	{ ENOSPC, ERR_FULL },		 { EDQUOT, ERR_FULL },		  { ENOMEM, ERR_LIMIT },
	{ EMFILE, ERR_LIMIT },		 { ENFILE, ERR_LIMIT },		  { EFBIG, ERR_LIMIT },
	{ E2BIG, ERR_LIMIT },		 { EAGAIN, ERR_BUSY },		  { EBUSY, ERR_BUSY },
	{ ETXTBSY, ERR_BUSY },		 { EADDRINUSE, ERR_BUSY },	  { ETIMEDOUT, ERR_TIMEOUT },
	{ ECANCELED, ERR_CANCELED },	 { ECONNREFUSED, ERR_UNREACHABLE }, { ECONNRESET, ERR_UNREACHABLE },
	{ EHOSTUNREACH, ERR_UNREACHABLE }, { ENETUNREACH, ERR_UNREACHABLE }, { ENOSYS, ERR_UNSUPPORTED },
	{ EOPNOTSUPP, ERR_UNSUPPORTED },
};

static enum err_code code_of_errno(int number)
{
	for (size_t i = 0; i < sizeof(errnos) / sizeof(errnos[0]); i++)
		if (errnos[i].number == number)
			return errnos[i].code;
	return ERR_IO;
}

/* Words are made in a scratch copy, because an argument may point into the struct that is being filled. */
struct words {
	char text[ERROR_TEXT_MAX];
	size_t len;
};

/* Cuts at `room` bytes at most, and never inside a UTF-8 sequence. */
static size_t cut_at_character(const char *s, size_t len, size_t room)
{
	if (len <= room)
		return len;
	while (room > 0 && ((unsigned char)s[room] & 0xc0) == 0x80)
		room--;
	return room;
}

static void words_add(struct words *w, const char *s)
{
	size_t n = cut_at_character(s, strlen(s), sizeof(w->text) - 1 - w->len);

	memcpy(w->text + w->len, s, n);
	w->len += n;
	w->text[w->len] = 0;
}

static __attribute__((format(printf, 2, 0))) void words_format(struct words *w, const char *fmt, va_list ap)
{
	char whole[ERROR_TEXT_MAX + 4]; /* longer than the text, so that the cut sees where a character begins */

	w->len = 0;
	w->text[0] = 0;
	int n = vsnprintf(whole, sizeof(whole), fmt, ap);
	if (n >= 0)
		words_add(w, whole);
}

static void store(struct error *e, enum err_code code, const struct words *w)
{
	e->code = code;
	memcpy(e->text, w->text, w->len + 1);
}

enum err_code error_set(struct error *e, enum err_code code, const char *fmt, ...)
{
	struct words w;
	va_list ap;

	CHECK(code > ERR_OK && code < ERR_CODE_COUNT);
	if (!e)
		return code;
	va_start(ap, fmt);
	words_format(&w, fmt, ap);
	va_end(ap);
	store(e, code, &w);
	e->hint[0] = 0;
	return code;
}

enum err_code error_errno(struct error *e, const char *fmt, ...)
{
	int number = errno;
	enum err_code code = code_of_errno(number);
	struct words w;
	va_list ap;

	if (!e)
		return code;
	va_start(ap, fmt);
	words_format(&w, fmt, ap);
	va_end(ap);
	words_add(&w, ": ");
	words_add(&w, strerror(number)); /* thread-safe since glibc 2.32 */
	store(e, code, &w);
	e->hint[0] = 0;
	return code;
}

enum err_code error_wrap(struct error *e, const char *fmt, ...)
{
	struct words w;
	va_list ap;

	if (!e)
		return ERR_INTERNAL;
	va_start(ap, fmt);
	words_format(&w, fmt, ap);
	va_end(ap);
	words_add(&w, ": ");
	words_add(&w, e->text);
	/* Wrapping a success would turn a failure into one: better our own mistake than a silent one. */
	store(e, e->code == ERR_OK ? ERR_INTERNAL : e->code, &w);
	return e->code;
}

void error_hint(struct error *e, const char *fmt, ...)
{
	struct words w;
	va_list ap;

	if (!e || e->hint[0])
		return;
	va_start(ap, fmt);
	words_format(&w, fmt, ap);
	va_end(ap);
	size_t n = cut_at_character(w.text, w.len, sizeof(e->hint) - 1);
	memcpy(e->hint, w.text, n);
	e->hint[n] = 0;
}

void error_clear(struct error *e)
{
	if (!e)
		return;
	e->code = ERR_OK;
	e->text[0] = e->hint[0] = 0;
}

static bool known(enum err_code code)
{
	return (unsigned)code < ERR_CODE_COUNT;
}

const char *err_name(enum err_code code)
{
	return codes[known(code) ? code : ERR_INTERNAL].name;
}

enum err_code err_from_name(const char *name)
{
	for (unsigned i = 0; name && i < ERR_CODE_COUNT; i++)
		if (strcmp(codes[i].name, name) == 0)
			return (enum err_code)i;
	return ERR_INTERNAL;
}

int err_http_status(enum err_code code)
{
	return codes[known(code) ? code : ERR_INTERNAL].http;
}

int err_exit_status(enum err_code code)
{
	return codes[known(code) ? code : ERR_INTERNAL].exit;
}
