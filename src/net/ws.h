/* WebSocket (RFC 6455): what a GET route becomes when its handler calls http_upgrade_ws.
 *
 *   MHD thread: handler --> http_upgrade_ws --> 101 --> the socket is handed to the WebSocket thread
 *   WebSocket thread (one for all connections of a server, one epoll loop), non-blocking, level-triggered
 *
 * All ops of a connection are called on that one thread, never two at once; they may block as briefly as a handler may.  Only
 * ws_wake may be called from elsewhere.  Who sends much asks ws_has_room first: a queue that is full is not added to, `ready` comes
 * when there is room again, and a peer that takes nothing for stall_ms is closed with 1013 "lagged".
 * Text is checked to be UTF-8 (1007), messages have a limit (1009), binary ones are refused (1003). */
#pragma once
#include "net/server.h"

#define WS_MESSAGE_MAX ((size_t)256 << 10) /* of one message that comes in */
#define WS_QUEUE_MAX ((size_t)256 << 10)   /* bytes waiting for one peer before ws_has_room says no */
#define WS_PING_MS 15000		   /* between our pings */
#define WS_PONG_MS 20000		   /* without a byte after a ping: the peer is gone */
#define WS_STALL_MS 20000		   /* without a byte taken of what waits: the peer lags */
#define WS_CLOSE_MS 5000		   /* for the peer's part of the close */

enum ws_code { WS_NORMAL = 1000, WS_GOING_AWAY = 1001, WS_UNSUPPORTED_DATA = 1003, WS_POLICY = 1008, WS_TRY_LATER = 1013 };

struct ws;
struct ws_ops {
	void (*open)(void *state, struct ws *w);			/* once, first */
	void (*text)(void *state, const char *text, size_t len);	/* a whole message; NUL-terminated beyond len */
	void (*ready)(void *state);					/* after ws_wake, and when there is room again */
	void (*closed)(void *state);					/* once, last (also when open never came): frees state */
};
struct ws_config {
	const char *protocol; /* the subprotocol, the only one that is taken; a constant */
	size_t message_max, queue_max;			 /* 0: the limits above */
	int64_t ping_ms, pong_ms, stall_ms, close_ms;
};

/* Answers the request: 101, or 4xx when it is not a WebSocket handshake for that subprotocol (then `closed` is called at once). */
void http_upgrade_ws(struct http_request *r, const struct ws_config *cfg, const struct ws_ops *ops, void *state_taken);

/* From the ops only. */
bool ws_has_room(struct ws *w); /* false: `ready` comes when there is */
void ws_send(struct ws *w, const char *text, size_t len); /* queued always: replies are bounded by reading no more while the queue is full */
void ws_close(struct ws *w, enum ws_code code, const char *reason);
/* Any thread, until `closed` has returned; cheap; `ready` follows. */
void ws_wake(struct ws *w);
