/* HTTP client over libcurl, for the command line and the server's own outgoing calls.  One handle per thread. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include <stdbool.h>
#include <stdint.h>

struct client;

struct client_config {
	const char *socket;	/* unix socket path, or NULL */
	const char *url;	/* "https://host:port" when there is no socket */
	const char *token;	/* bearer token or NULL */
	int64_t connect_timeout_ms;
	int64_t timeout_ms;	/* of one whole call; 0: none (streams) */
};

MUST_USE enum err_code client_open(const struct client_config *cfg, struct client **ret, struct error *e);
void client_close(struct client *c);

/* One call with JSON in (borrowed, may be NULL) and JSON out (*ret_body may be NULL when the reply is empty).  A reply of 400 and above
 * becomes an error: its problem's code, detail and hint; *ret_status is set all the same. ERR_UNREACHABLE when nobody answers. */
MUST_USE enum err_code client_call(struct client *c, const char *method, const char *path, const struct js *body,
	int *ret_status, struct js **ret_body, struct error *e);
/* Extra header for the next call only ("Idempotency-Key: x"). */
void client_header(struct client *c, const char *line);
/* Any body as bytes into out (bounded by its max). */
MUST_USE enum err_code client_get(struct client *c, const char *path, const char *accept, int *ret_status, struct strbuf *out, struct error *e);
/* A body delivered line by line as it comes (JSONL or SSE); the callback returns false to stop (then ERR_OK).  *interrupted (may be NULL) is looked at
 * at least every 100 ms; when it becomes non-zero the call ends with ERR_CANCELED. */
typedef bool client_line_fn(void *ctx, const char *line, size_t len);
MUST_USE enum err_code client_lines(struct client *c, const char *path, const char *accept, client_line_fn *fn, void *ctx,
	const volatile int *interrupted, struct error *e);

/* A file's bytes as the body, from `offset` of the file on: `length` of them, or -1: all that come from a pipe. JSON out as from client_call.
 * The whole may take long; only a silence of CLIENT_SEND_SILENCE_S ends it. progress (may be NULL) is told how many have been sent. */
#define CLIENT_SEND_SILENCE_S 120
struct client_file {
	int fd;
	int64_t offset, length;
	void (*progress)(void *ctx, int64_t sent);
	void *ctx;
};
MUST_USE enum err_code client_send_file(struct client *c, const char *method, const char *path, const struct client_file *file, int *ret_status,
	struct js **ret_body, struct error *e);
