/* RFC 6455 frames, a server's side: bytes in, messages out, and what is to be sent.  No socket; included in this room alone. */
#pragma once
#include "base/strbuf.h"
#include <stdbool.h>
#include <stdint.h>

enum ws_opcode { WS_FRAME_MORE = 0, WS_FRAME_TEXT = 1, WS_FRAME_BINARY = 2, WS_FRAME_CLOSE = 8, WS_FRAME_PING = 9, WS_FRAME_PONG = 10 };

#define WS_FRAME_HEAD_MAX 14
#define WS_CONTROL_MAX 125
#define WS_BREACH 1002	  /* of the protocol */
#define WS_NOT_TEXT 1007
#define WS_TOO_LARGE 1009

struct ws_parser {
	size_t message_max;
	unsigned char head[WS_FRAME_HEAD_MAX]; /* of the frame that comes */
	size_t head_len, payload_at;
	uint64_t payload_len;
	bool in_payload, in_message, binary; /* the last two: of a message that may come in several frames */
	struct strbuf message;
	unsigned char control[WS_CONTROL_MAX + 1];
	bool over; /* a close came, or a breach: nothing is looked at any more */
};

/* Calls fn for each whole message and control frame; `data` is NUL-terminated beyond n and fn's until it returns.  Text is UTF-8, a close has no code or one that
 * may be sent.  Returns 0, or the code to close with: nothing is parsed after that, nor after a close. */
int ws_parse(struct ws_parser *p, const unsigned char *data, size_t n, void (*fn)(void *ctx, enum ws_opcode what, const char *data, size_t n), void *ctx);
void ws_parser_release(struct ws_parser *p);
void ws_frame_add(struct strbuf *out, enum ws_opcode what, const void *data, size_t n);
