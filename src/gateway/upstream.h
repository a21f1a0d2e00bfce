/* Requests to providers: one thread drives them all with libcurl, so that connections and loaded certificates are shared; each
 * transfer has a bounded buffer between that thread and the one that reads it.
 *
 *	reader thread           transfer (lock: state, bytes)         upstream thread (curl multi)
 *	transfer_read  <------- buffer, at most UPSTREAM_BUFFER  <--- write callback; a full buffer pauses the transfer
 *	transfer_free  -------> canceled                         ---> takes it off the multi handle
 *
 * Redirects are not followed, certificates are checked, there is no limit on the whole time, one on connecting and one on silence. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define UPSTREAM_BUFFER ((size_t)64 << 10) /* bytes waiting for a slow agent */
#define UPSTREAM_HEADERS_MAX 16		   /* headers of a reply that are kept */
#define UPSTREAM_HEADER_BYTES_MAX ((size_t)1024)

struct upstream;
struct transfer;

struct transfer_request {
	const char *url;
	const char *host;		/* for messages */
	const char *key;		/* NULL: none */
	const char *key_header;		/* "x-api-key"; NULL: Authorization: Bearer */
	const char *const *headers;	/* "Name: value", NULL-ended */
	char *body_taken;
	size_t body_len;
	int64_t connect_ms, idle_ms;
};

struct transfer_header {
	const char *name; /* of the list of those that are kept */
	char *value;
};

MUST_USE enum err_code upstream_start(struct upstream **ret, struct error *e);
void upstream_stop(struct upstream *u); /* cancels what runs; readers get -2; joins. Transfers must be freed before upstream_free */
void upstream_free(struct upstream *u);

MUST_USE enum err_code transfer_start(struct upstream *u, struct transfer_request *rq, struct transfer **ret, struct error *e);
/* Waits for the reply's head: its status, 0 when the time is up, -1 when the transfer failed (transfer_error). */
int transfer_status(struct transfer *t, int64_t timeout_ms);
const struct transfer_header *transfer_headers(const struct transfer *t, size_t *ret_count); /* after transfer_status */
const char *transfer_header(const struct transfer *t, const char *name);
/* Bytes > 0; 0 when the time is up; -1 at the reply's proper end; -2 when it broke off (transfer_error). */
ssize_t transfer_read(struct transfer *t, char *buf, size_t max, int64_t timeout_ms);
const char *transfer_error(const struct transfer *t); /* one sentence that names the host; after -1 / -2 */
bool transfer_timed_out(const struct transfer *t);
void transfer_free(struct transfer *t); /* cancels when it still runs; NULL is fine */
