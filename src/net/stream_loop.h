/* Between stream.c (what a stream is) and stream_loop.c (the threads that serve crowds of them). */
#pragma once
#include "net/http.h"

struct stream_loop;

struct http_stream {
	struct http_server *server;
	struct MHD_Connection *connection;
	const struct http_stream_ops *ops;
	void *state;
	int status;
	char *content_type;
	struct http_stream *prev, *next; /* in the server's list */
	/* Served by MHD: */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* waited for where each connection has a thread of its own */
	bool woken, suspended;
	/* Served by a loop (NULL: by MHD), whose thread alone touches these: */
	struct stream_loop *loop;
	int fd;
	bool in_loop, chunked, gone, closing; /* closing: nothing is read any more, only sent */
	struct strbuf rest;	     /* what the socket did not take */
	size_t rest_sent;
	int64_t stuck_since_ms; /* 0: it takes what it gets */
	struct http_stream *loop_prev, *loop_next;
	/* With the loop's lock: */
	bool attached, queued, dead;
	struct http_stream *queue_next;
};

void stream_release(struct http_stream *s); /* its state was freed */

/* A loop for one stream more, from before its owner can wake it; NULL: the server is being stopped, or has no threads left. */
struct stream_loop *stream_loop_choose(struct http_server *server);
/* After the handler: from here on the loop has the connection. False: the loop has ended. */
bool stream_loop_attach(struct http_stream *s, struct http_request *r, struct strbuf *head_taken);
void stream_loop_wake(struct http_stream *s);
