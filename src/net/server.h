/* The HTTP server's front door over libmicrohttpd: listeners, a route table, requests, replies, streams.
 *
 * A handler is one function, called on a pool thread when the whole request (head and body) is there; it may block briefly and
 * must answer exactly once with one http_reply*() or http_stream(), or say http_later().  Long waits hold no thread: a stream whose
 * source has nothing to say returns 0 from its read slot and is suspended until http_stream_wake().
 * Errors are RFC 9457 problem+json with `code` and `hint`.  Limits: HTTP_* below; over them 413/431/429/503 with Retry-After. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HTTP_BODY_MAX ((size_t)16 << 20)	/* default ceiling of a request body held in memory */
#define HTTP_CONNECTIONS_MAX 4096
#define HTTP_IDLE_TIMEOUT_S 60
#define HTTP_HEAD_TIMEOUT_S 60			/* from the connection's begin or the last answer to the end of the next request's head */
#define HTTP_BODY_RATE_MIN 1024			/* bytes a second of a request's body, averaged over HTTP_HEAD_TIMEOUT_S */
#define HTTP_CROWDED_TIMEOUT_S 5		/* both, while more than three quarters of the connections are taken */
#define HTTP_HEADER_MEMORY ((size_t)9 << 10)	/* per connection, heads of request and reply: most of what a watcher costs */
#define HTTP_HEAD_MAX ((size_t)8 << 10)		/* of a request's head; beyond: 431. Some 90 headers fit, whatever their length */
#define HTTP_BODIES_MAX ((size_t)256 << 20)	/* request bodies in memory, all connections together; beyond: 503 */
#define HTTP_REPLIES_MAX ((size_t)256 << 20)	/* large answers in memory, all connections together; beyond, a GET gets 503 */
#define HTTP_REPLY_SMALL ((size_t)64 << 10)	/* answers up to this are not counted */
#define HTTP_DRAIN_MAX ((size_t)64 << 10)	/* of a refused request's body is read for politeness; a longer one: answered at once and closed */
#define HTTP_DISCARD_MAX ((size_t)8 << 20)	/* of a chunked body over its limit is read before the connection is cut without an answer */
#define HTTP_INTAKE_DISCARD_MAX ((size_t)64 << 20) /* of a refused upload is read off before the connection is cut without an answer */
#define HTTP_QUERY_MAX 32			/* parameters of one request */
#define HTTP_THREADS_MAX 64
#define HTTP_SOCKET_PATH_MAX 107		/* the kernel's, of a unix socket's path */

struct http_request;
struct http_stream;
struct http_server;

struct http_route {
	const char *method;	/* "GET" (HEAD comes with it) */
	const char *pattern;	/* "/v1/tasks/{task}/artifacts/{path*}": {x} is one segment, {x*} the rest */
	void (*handle)(struct http_request *r, void *ctx);
	unsigned flags;		/* for the owner of the table (who may call it); see http_route_of() */
	size_t body_max;	/* 0: no body is accepted; SIZE_MAX: HTTP_BODY_MAX */
	const char *summary;	/* for OpenAPI and help */
};

/* A body that is given on piece by piece instead of being held in memory, for the route with this handler. All are called on the
 * request's thread, and may block briefly. */
struct http_intake {
	void (*handle)(struct http_request *r, void *ctx); /* the route's, called when all of the body was taken */
	/* The head is there and authorised. declared: UINT64_MAX when the client does not say; this is where too long a body is refused.
	 * *ret_state left NULL: an ordinary body, under the route's body_max. */
	enum err_code (*begin)(struct http_request *r, void *ctx, uint64_t declared, void **ret_state, struct error *e);
	enum err_code (*take)(void *state, const char *data, size_t n, struct error *e); /* an error is answered in place of the handler's reply */
	void (*free)(void *state); /* once: after the handler, or when the client has gone before the end */
};

struct http_config {
	const struct http_route *routes; /* ends with method NULL; must outlive the server; of several that match, the first wins */
	void *ctx;			 /* given to every handler */
	/* Called before the body is read, for known routes only. Returns ERR_OK or an error, answered with its code's status or the
	 * one given to http_deny_status. May be NULL. */
	enum err_code (*authorize)(struct http_request *r, void *ctx, struct error *e);
	int unix_fd;			 /* listening AF_UNIX socket or -1; owned by the caller */
	int tcp_fd;			 /* listening TCP socket or -1 */
	unsigned threads;		 /* pool size per listener, 1..64 */
	const struct http_intake *intakes; /* of the routes whose bodies may be large; ends with handle NULL; may be NULL */
	bool thread_per_connection;	 /* for the gateway: read slots may block */
	const char *server_name;	 /* for the Server header */
	unsigned sandbox_connections_max; /* of one PID namespace below ours, on the unix socket; 0: no limit */
	int64_t head_timeout_ms;	 /* 0: HTTP_HEAD_TIMEOUT_S; tests have no minute */
};

MUST_USE enum err_code http_server_start(const struct http_config *cfg, struct http_server **ret, struct error *e);
void http_server_quiesce(struct http_server *s);  /* new connections are closed at once; running ones go on */
void http_server_stop(struct http_server *s);	  /* ends streams (their free slot is called), joins threads, frees */
MUST_USE enum err_code http_listen_unix(const char *path, mode_t mode, int *ret_fd, struct error *e); /* replaces a dead socket, ERR_CONFLICT when somebody listens */
MUST_USE enum err_code http_listen_tcp(const char *addr, int *ret_fd, int *ret_port, struct error *e); /* "127.0.0.1:0", "[::1]:8080" */
struct http_stats { uint64_t requests, connections_now, streams_now, bytes_in, bytes_out; };
void http_server_stats(struct http_server *s, struct http_stats *ret);
void http_request_stats(const struct http_request *r, struct http_stats *ret); /* of the server that serves it */

/* The request: everything borrowed until the reply. */
const struct http_route *http_route_of(const struct http_request *r);
const char *http_method(const struct http_request *r);
const char *http_path(const struct http_request *r);
const char *http_param(const struct http_request *r, const char *name);	/* decoded path parameter; NULL when the pattern has none */
const char *http_query(const struct http_request *r, const char *name);	/* NULL when absent */
const char *http_query_nth(const struct http_request *r, const char *name, size_t n); /* of several with that name; NULL behind the last */
const char *http_query_name(const struct http_request *r, size_t i);	/* of all parameters; NULL behind the last */
const char *http_header(const struct http_request *r, const char *name);	/* case-insensitive */
const char *http_body(const struct http_request *r, size_t *ret_len);	/* "" when none */
struct js *http_body_js(struct http_request *r, struct error *e);	/* parsed on first use, borrowed; NULL on error (not an object, not JSON, wrong Content-Type) */
bool http_is_unix(const struct http_request *r);
bool http_peer_uid(const struct http_request *r, uid_t *ret);		/* unix socket only */
void http_set_principal(struct http_request *r, const char *who);	/* copied */
const char *http_principal(const struct http_request *r);		/* NULL until set */
void http_set_project(struct http_request *r, const char *project, unsigned rights); /* for which it acts (copied), and what else it may */
const char *http_project(const struct http_request *r);			/* NULL until set */
unsigned http_rights(const struct http_request *r);			/* 0 until set */
MUST_USE enum err_code http_query_i64(const struct http_request *r, const char *name, int64_t min, int64_t max, int64_t *ret, struct error *e); /* absent leaves *ret */

void http_deny_status(struct http_request *r, int status);		/* from authorize: 401 rather than 403, 429, ... */

/* Replies: exactly one per request. Headers must be set before. */
void http_reply_header(struct http_request *r, const char *name, const char *value);
void http_reply(struct http_request *r, int status, const char *content_type, const void *data, size_t len); /* copies */
void http_reply_js(struct http_request *r, int status, struct js *taken);
void http_reply_json(struct http_request *r, int status, char *text_taken);
/* The document when `rc` is ERR_OK, else the error. */
void http_reply_outcome(struct http_request *r, enum err_code rc, int status, struct js *taken, const struct error *e);
void http_reply_error(struct http_request *r, const struct error *e);	/* status from the error's code */
void http_reply_error_with(struct http_request *r, const struct error *e, const char *key, struct js *taken); /* and one member more; NULL key: none */
void http_reply_error_status(struct http_request *r, int status, const struct error *e);
void http_reply_fd(struct http_request *r, const char *content_type, int fd_taken, uint64_t size); /* sendfile; Content-Length is size */

/* An answer that waits, for a commit, without a thread that does: the handler calls this and returns.  http_later_wake must come exactly once, from
 * any thread, before the handler has returned or after it; then `answer` is called on a thread of the server and replies.  A client that hung up
 * meanwhile gets no `answer`: what must be done is done before the wake.  `free` is called once, at the request's end.  http_server_stop waits for
 * the wakes.  Not with thread_per_connection. */
struct http_later_ops {
	void (*answer)(struct http_request *r, void *state);
	void (*free)(void *state);
};
void http_later(struct http_request *r, const struct http_later_ops *ops, void *state);
void http_later_wake(struct http_request *r);

/* Who holds streams must wake each of them every 15 s or so even without news (to write its keep-alive comment): a client that
 * went away while its connection was suspended is noticed only then.
 * http_server_stop cuts streams rather than ending them, so that no client takes a shutdown for the end of the data; an owner that
 * wants to say goodbye ends its streams itself (-1) before. */
/* A stream: `read` fills buf and returns bytes > 0, 0 when there is nothing now (the connection is suspended until woken; in
 * thread_per_connection mode it must block instead of returning 0), -1 at the end, -2 to cut the connection.  `free` is called once, from any thread, after the last read. */
struct http_stream_ops {
	ssize_t (*read)(void *state, char *buf, size_t max);
	void (*free)(void *state);
};
/* Starts the reply; *ret_stream (may be NULL) stays valid until ops->free is called and is what http_stream_wake takes. Neither
 * read nor free is called before the handler has returned, so the handler may register it after (or under a lock around) this. */
void http_stream(struct http_request *r, int status, const char *content_type, const struct http_stream_ops *ops, void *state, struct http_stream **ret_stream);
/* The same for streams that may have many readers: served by a few threads of their own, which makes them cheap; the connection ends with it. */
void http_stream_crowd(struct http_request *r, int status, const char *content_type, const struct http_stream_ops *ops, void *state, struct http_stream **ret_stream);
void http_stream_wake(struct http_stream *s); /* any thread; cheap; a wake before the suspend is not lost */

/* Streamed bodies. */
void *http_intake_state(const struct http_request *r); /* what begin has made; NULL for an ordinary body */
bool http_is_multipart(const struct http_request *r);
/* multipart/form-data: each piece of each part; `begins` with a part's first piece. filename may be NULL. */
typedef enum err_code http_part_fn(void *ctx, const char *name, const char *filename, bool begins, const char *data, size_t n, struct error *e);
struct http_parts;
MUST_USE enum err_code http_parts_open(struct http_request *r, http_part_fn *fn, void *ctx, struct http_parts **ret, struct error *e);
MUST_USE enum err_code http_parts_feed(struct http_parts *p, const char *data, size_t n, struct error *e);
MUST_USE enum err_code http_parts_finish(struct http_parts *p, struct error *e); /* the last boundary has come */
void http_parts_close(struct http_parts *p); /* NULL is fine */
