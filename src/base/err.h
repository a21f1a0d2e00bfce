/* One way to fail.  A fallible function returns an enum err_code (ERR_OK is 0) and, when it is not ERR_OK, has filled the
 * caller's struct error with one sentence a person can act on.  Errors are made where the fact is known, wrapped on the way
 * up ("start task 7: open 'x.db': No such file"), and reported once, by whoever answers for the operation.
 * One table (err.c) gives each code its name, its HTTP status and the command line's exit status. */
#pragma once
#include <stdarg.h>

#define MUST_USE __attribute__((warn_unused_result))
#define ERROR_TEXT_MAX 1024
#define ERROR_HINT_MAX 512

enum err_code {
	ERR_OK = 0,
	ERR_USAGE,	 /* the command line was wrong */
	ERR_INVALID,	 /* a value from outside is not acceptable */
	ERR_DENIED,	 /* the principal may not do this */
	ERR_NOT_FOUND,	 /* the named thing does not exist */
	ERR_UNPROCESSABLE, /* well-formed, but it does not fit what it is for */
	ERR_CONFLICT,	 /* the name is taken, the thing is already settled */
	ERR_GONE,	 /* a cursor or a thing that existed once */
	ERR_FULL,	 /* the disk is full; with room again it may work */
	ERR_LIMIT,	 /* a named limit was reached; smaller or later may work */
	ERR_TIMEOUT,	 /* our own wait is up */
	ERR_CANCELED,	 /* somebody asked for it to stop */
	ERR_UNREACHABLE, /* the peer (server, host, model) cannot be reached */
	ERR_UNSUPPORTED, /* this machine or build cannot do it */
	ERR_BUSY,	 /* somebody else holds it; later may work */
	ERR_STALE,	 /* an older epoch speaks; it must stop */
	ERR_FAILED,	 /* a program we ran failed */
	ERR_IO,		 /* the operating system refused */
	ERR_INTERNAL,	 /* our own mistake */
	ERR_TOO_LARGE,	 /* more than what a limit allows of one thing; later will not work either */
	ERR_UNAUTHENTICATED, /* nobody known: no token, or none that opens */
	ERR_CODE_COUNT
};

struct error {
	enum err_code code;
	char text[ERROR_TEXT_MAX]; /* one sentence, no final full stop, names the object */
	char hint[ERROR_HINT_MAX]; /* the next step; may be "" */
};

#define ERROR_INIT { .code = ERR_OK }

/* Each returns the code it stored, so that `return error_set(e, ...)` is one line.  `e` may be NULL (nobody wants the words).
 * Over-long text is cut at a UTF-8 boundary. */
enum err_code error_set(struct error *e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
enum err_code error_errno(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* appends ": strerror(errno)"; ENOENT, EACCES, ENOSPC... choose the code */
enum err_code error_wrap(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));  /* "prefix: old text" */
void error_hint(struct error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));		/* sets the hint unless there is one */
void error_clear(struct error *e);

const char *err_name(enum err_code code);     /* "not_found"; stable, used as `code` in problem+json */
enum err_code err_from_name(const char *name); /* ERR_INTERNAL when unknown */
int err_http_status(enum err_code code);
int err_exit_status(enum err_code code); /* interface.md's exit codes */
