/* What the server's files share; included in this room alone.
 *
 *   server.c   daemons and their lifetime          request.c  a request from its head to its handler, and its accessors
 *   head.c     heads that are not what they seem    pace.c     clients that take their time    share.c  clients of one sandbox
 *   route.c    which route a path means            reply.c    the one answer        stream.c, stream_loop.c  answers that take long, and crowds of them
 *   later.c    answers that wait for something
 *   intake.c   bodies that are not held in memory  haul.c  long ones of them, by a thread of their own
 *   ws.c       requests that become WebSockets     ws_loop.c  the thread that serves those */
#pragma once
#include "base/strbuf.h"
#include "net/server.h"
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#define HTTP_SEGMENTS_MAX 12 /* of a route's pattern */
#define HTTP_PARAMS_MAX 4    /* of a route's pattern */
#define HTTP_STREAM_LOOPS 4 /* threads that serve streams with many readers; more than processors, as some read the database */
#define HTTP_STREAM_BLOCK ((size_t)512) /* of a stream to an HTTP/1.0 client; others are read straight into the connection's memory */

enum segment_kind { SEGMENT_LITERAL, SEGMENT_ONE, SEGMENT_REST };

struct segment {
	enum segment_kind kind;
	const char *text; /* into the pattern */
	size_t len;
};

struct pattern {
	const struct http_route *route;
	struct segment segments[HTTP_SEGMENTS_MAX];
	size_t n;
	bool rest; /* the last one takes all that is left */
};

struct param {
	const char *name; /* into the pattern */
	size_t name_len;
	char *value; /* decoded; owned */
};

struct query {
	char *name, *value; /* decoded; owned */
};

struct pace;
struct pace_client;
struct share;
struct haul;
struct hauls;
struct stream_loops;

struct reply_header {
	struct reply_header *next;
	char *name, *value;
};

struct listener {
	struct http_server *server;
	struct MHD_Daemon *daemon;
	bool is_unix;
	int fd; /* our own copy of the caller's; MHD closes it */
};

struct http_server {
	struct http_config cfg;
	char *server_name;
	struct pattern *patterns;
	size_t n_patterns;
	struct listener listeners[2]; /* unix, TCP; daemon NULL where there is none */
	atomic_bool quiet, stopping;
	atomic_size_t bodies_bytes;  /* in memory now, against HTTP_BODIES_MAX */
	atomic_size_t replies_bytes; /* the same for HTTP_REPLIES_MAX */
	atomic_uint_fast64_t requests, connections_now, streams_now, bytes_in, bytes_out;
	pthread_mutex_t streams_lock; /* guards the next three */
	struct http_stream *streams;
	struct ws_loop *ws; /* NULL until the first WebSocket */
	struct stream_loops *loops; /* NULL until the first stream that they serve */
	pthread_mutex_t laters_lock; /* guards the next two, and is held to wait for `changed` */
	size_t laters;		     /* answers that have not been woken yet */
	size_t laters_staying;	     /* threads that wait along with one */
	pthread_cond_t laters_changed; /* told only for these, and while the server is being stopped */
	struct pace *pace;
	struct share *share; /* NULL: no limit */
	struct hauls *hauls;
};

struct http_request {
	struct http_server *server;
	struct listener *listener;
	struct MHD_Connection *connection;
	struct pace_client *client;
	const char *method, *path; /* path as it came, not decoded */
	const struct http_route *route;
	struct param params[HTTP_PARAMS_MAX];
	size_t n_params;
	struct query *query;
	size_t n_query;
	char *principal, *project;
	unsigned rights; /* of the owner of the routes */
	struct strbuf body;
	uint64_t declared;   /* of the body; UINT64_MAX: chunked */
	size_t body_seen;    /* bytes that came, kept or not */
	size_t body_charged; /* of them counted in bodies_bytes */
	bool http10; /* its streams are not chunked */
	const struct http_intake *intake; /* takes the body, when it is not held here */
	void *intake_state;
	size_t intake_bytes; /* that it has taken */
	struct haul *haul; /* who takes the rest of the body, and answers */
	bool taken; /* the connection is served by a loop; when MHD sees one of these again, its connection is over */
	struct js *body_js;
	struct reply_header *headers;
	struct error *refusal; /* decided before the handler: what it will be answered */
	int refusal_status;
	bool unsafe;	     /* its end is uncertain: answered at once, then the connection is closed */
	int error_status; /* overrides an error's own status; 0 none */
	bool replied;
	const struct http_later_ops *later; /* the answer waits, or did */
	void *later_state;
	bool later_due, later_stays; /* it was not given yet; its thread waits along */
	bool later_turned;	     /* MHD has had its turn after the handler's */
	atomic_int later_phase;	     /* enum later_phase */
	struct http_stream *stream; /* begun by the handler, to be queued when it has returned */
	struct ws *ws; /* the WebSocket that it becomes when the 101 has left */
};

/* route.c */
enum match { MATCH_NONE, MATCH_METHOD, MATCH_BAD, MATCH_OK }; /* no such path; not with this method; badly encoded; found */
void routes_compile(struct http_server *s);
/* Fills route and params; on MATCH_METHOD ret_allow has the methods that would do. */
enum match route_find(struct http_request *r, struct strbuf *ret_allow);
size_t route_body_max(const struct http_route *route);

/* pace.c; a client is NULL where there is none to be watched */
enum pace_phase { PACE_HEAD, PACE_BODY, PACE_ANSWER };
struct pace *pace_start(size_t places, int64_t limit_ms, int64_t crowded_ms); /* NULL: no thread is to be had */
void pace_stop(struct pace *p); /* joins the thread; clients may still leave */
void pace_free(struct pace *p);
struct pace_client *pace_join(struct pace *p, int fd); /* waits for a head */
void pace_leave(struct pace *p, struct pace_client *c); /* before the socket is closed */
void pace_set(struct pace_client *c, enum pace_phase phase);
void pace_progress(struct pace_client *c, size_t n); /* bytes of the body have come */
pid_t *pace_holder(struct pace_client *c); /* kept for share.c */

/* share.c; NULL is fine, and no limit */
struct share *share_new(unsigned max);
void share_free(struct share *s);
bool share_take(struct share *s, int fd, pid_t *ret_who); /* false: this client has its share already */
void share_give_back(struct share *s, pid_t who);

/* head.c */
void head_check(struct http_request *r, const char *version); /* refuses what could be read in two ways, or is too long */

/* request.c */
struct error *request_refuse(struct http_request *r, int status); /* the first refusal stands */
/* MHD's callbacks */
void reply_headers_free(struct reply_header *h);
enum MHD_Result request_on_access(void *listener, struct MHD_Connection *c, const char *url, const char *method, const char *version,
	const char *data, size_t *len, void **state);
void request_on_completed(void *listener, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode why);
void request_free(struct http_request *r);

bool request_take(struct http_request *r, const char *data, size_t n); /* a piece of a body; false: the connection is to be cut */
void request_whole(struct http_request *r); /* the body is there: the handler, and an answer in any case */

/* haul.c */
struct hauls *hauls_new(void);
void hauls_stop(struct hauls *all); /* cuts them, and waits until each connection is MHD's again */
void hauls_free(struct hauls *all);
/* Behind a piece of the body, which was all that MHD had read.  When r->haul is set, r belongs to another thread; the caller does not look. */
void haul_begin(struct http_request *r);
void haul_answer(struct http_request *r, int status, const char *content_type, const char *data, size_t len);

/* intake.c */
void intake_begin(struct http_request *r, uint64_t declared);
void intake_take(struct http_request *r, const char *data, size_t n);
bool intake_is_over(const struct http_request *r);
void intake_end(struct http_request *r);

/* reply.c */
void reply_begin(struct http_request *r); /* a second answer is a programmer's error */
/* The head of an answer that MHD does not write, but for its framing and the empty line; its connection ends with it. */
void reply_head_write(struct http_request *r, int status, const char *content_type, struct strbuf *out);
void reply_queue(struct http_request *r, int status, const char *content_type, struct MHD_Response *taken);

/* later.c */
enum later_phase { LATER_ASKED, LATER_SLEEPS, LATER_WOKEN, LATER_LEFT };
bool later_waits(struct http_request *r); /* after its handler, and when MHD calls again; false: it was woken, and is answered now */
void later_answer(struct http_request *r);
bool later_keeps(struct http_request *r); /* the connection has ended; true: the wake is still to come, and frees the request */
void laters_await(struct http_server *s); /* with s->stopping set: until all are woken, and from now on none is suspended */

/* stream_loop.c; NULL is fine */
void stream_loops_stop(struct stream_loops *all); /* with s->stopping set: cuts their streams, joins the threads */
void stream_loops_free(struct stream_loops *all);

/* stream.c */
void stream_queue(struct http_request *r);
void streams_cut(struct http_server *s); /* wakes all; with s->stopping set they end */
