/* WebSocket frames.  The library that we used before keeps two buffers of 4 KiB per connection, most of what a watcher cost; here a connection has
 * what it needs of the message that is under way. */
#include "net/ws_frame.h"
#include "base/str.h"
#include <string.h>

#define FIN 0x80
#define RESERVED 0x70
#define OPCODE 0x0f
#define MASKED 0x80
#define LENGTH 0x7f
#define LENGTH_16 126 /* two more bytes are the length */
#define LENGTH_64 127
#define MASK_BYTES 4

static enum ws_opcode opcode_of(const struct ws_parser *p)
{
	return (enum ws_opcode)(p->head[0] & OPCODE);
}

static bool is_control(const struct ws_parser *p)
{
	return opcode_of(p) >= WS_FRAME_CLOSE;
}

/* How long the head is, as far as it is known. */
static size_t head_want(const struct ws_parser *p)
{
	if (p->head_len < 2)
		return 2;
	int length = p->head[1] & LENGTH;
	return 2 + (length == LENGTH_16 ? 2 : length == LENGTH_64 ? 8 : 0) + MASK_BYTES;
}

/* After its first two bytes: what no client may send. */
static bool head_is_breach(const struct ws_parser *p)
{
	enum ws_opcode op = opcode_of(p);
	bool known = op == WS_FRAME_MORE || op == WS_FRAME_TEXT || op == WS_FRAME_BINARY || op == WS_FRAME_CLOSE || op == WS_FRAME_PING || op == WS_FRAME_PONG;
	if (!known || (p->head[0] & RESERVED) || !(p->head[1] & MASKED))
		return true;
	if (is_control(p))
		return !(p->head[0] & FIN) || (p->head[1] & LENGTH) > WS_CONTROL_MAX;
	return (op == WS_FRAME_MORE) != p->in_message;
}

static uint64_t length_of(const struct ws_parser *p, bool *ret_minimal)
{
	int length = p->head[1] & LENGTH, bytes = length == LENGTH_16 ? 2 : length == LENGTH_64 ? 8 : 0;
	uint64_t n = bytes ? 0 : (uint64_t)length;
	for (int i = 0; i < bytes; i++)
		n = n << 8 | p->head[2 + i];
	*ret_minimal = !bytes || (bytes == 2 ? n >= LENGTH_16 : n > UINT16_MAX && n <= INT64_MAX);
	return n;
}

/* The whole head is there. */
static int payload_begin(struct ws_parser *p)
{
	bool minimal;
	p->payload_len = length_of(p, &minimal);
	if (!minimal)
		return WS_BREACH;
	if (!is_control(p)) {
		if (p->payload_len > p->message_max - p->message.len)
			return WS_TOO_LARGE;
		p->binary = p->in_message ? p->binary : opcode_of(p) == WS_FRAME_BINARY;
		p->in_message = true;
	}
	p->in_payload = true;
	p->payload_at = 0;
	return 0;
}

static int head_take(struct ws_parser *p, unsigned char byte)
{
	p->head[p->head_len++] = byte;
	if (p->head_len == 2 && head_is_breach(p))
		return WS_BREACH;
	return p->head_len > 2 && p->head_len == head_want(p) ? payload_begin(p) : 0;
}

static void unmask(const struct ws_parser *p, unsigned char *to, const unsigned char *from, size_t n)
{
	const unsigned char *mask = p->head + head_want(p) - MASK_BYTES;
	for (size_t i = 0; i < n; i++)
		to[i] = from[i] ^ mask[(p->payload_at + i) % MASK_BYTES];
}

/* How much of it was taken. */
static size_t payload_take(struct ws_parser *p, const unsigned char *data, size_t n)
{
	uint64_t left = p->payload_len - p->payload_at;
	n = n < left ? n : (size_t)left;
	if (is_control(p)) {
		unmask(p, p->control + p->payload_at, data, n);
	} else {
		char *to = strbuf_reserve(&p->message, n); /* payload_begin has seen that it fits */
		unmask(p, (unsigned char *)to, data, n);
		p->message.len += n;
		p->message.data[p->message.len] = '\0';
	}
	p->payload_at += n;
	return n;
}

/* Codes that may stand in a frame. */
static bool is_code(int code)
{
	return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) || (code >= 3000 && code <= 4999);
}

static int close_check(const struct ws_parser *p)
{
	size_t n = p->payload_at;
	if (n == 1 || (n >= 2 && !is_code(p->control[0] << 8 | p->control[1])))
		return WS_BREACH;
	return n > 2 && !str_is_utf8((const char *)p->control + 2, n - 2) ? WS_NOT_TEXT : 0;
}

static int control_end(struct ws_parser *p, void (*fn)(void *ctx, enum ws_opcode what, const char *data, size_t n), void *ctx)
{
	int code = opcode_of(p) == WS_FRAME_CLOSE ? close_check(p) : 0;
	if (code)
		return code;
	p->control[p->payload_at] = '\0';
	p->over = opcode_of(p) == WS_FRAME_CLOSE;
	fn(ctx, opcode_of(p), (const char *)p->control, p->payload_at);
	return 0;
}

static int message_end(struct ws_parser *p, void (*fn)(void *ctx, enum ws_opcode what, const char *data, size_t n), void *ctx)
{
	if (!p->binary && !str_is_utf8(strbuf_str(&p->message), p->message.len))
		return WS_NOT_TEXT;
	p->in_message = false;
	fn(ctx, p->binary ? WS_FRAME_BINARY : WS_FRAME_TEXT, strbuf_str(&p->message), p->message.len);
	strbuf_release(&p->message);
	return 0;
}

static int frame_end(struct ws_parser *p, void (*fn)(void *ctx, enum ws_opcode what, const char *data, size_t n), void *ctx)
{
	int code = is_control(p) ? control_end(p, fn, ctx) : p->head[0] & FIN ? message_end(p, fn, ctx) : 0;
	p->in_payload = false;
	p->head_len = 0;
	return code;
}

int ws_parse(struct ws_parser *p, const unsigned char *data, size_t n, void (*fn)(void *ctx, enum ws_opcode what, const char *data, size_t n), void *ctx)
{
	int code = 0;
	while (n && !p->over) {
		size_t taken = 1;
		if (!p->in_payload)
			code = head_take(p, *data);
		else
			taken = payload_take(p, data, n);
		data += taken;
		n -= taken;
		if (!code && p->in_payload && p->payload_at == p->payload_len)
			code = frame_end(p, fn, ctx);
		p->over = p->over || code;
	}
	return code;
}

void ws_parser_release(struct ws_parser *p)
{
	strbuf_release(&p->message);
}

void ws_frame_add(struct strbuf *out, enum ws_opcode what, const void *data, size_t n)
{
	unsigned char head[10] = { (unsigned char)(FIN | what) };
	size_t bytes = n < LENGTH_16 ? 0 : n <= UINT16_MAX ? 2 : 8;
	head[1] = (unsigned char)(bytes == 0 ? n : bytes == 2 ? LENGTH_16 : LENGTH_64);
	for (size_t i = 0; i < bytes; i++)
		head[2 + i] = (unsigned char)((uint64_t)n >> (8 * (bytes - 1 - i)));
	strbuf_add(out, head, 2 + bytes);
	strbuf_add(out, data, n);
}
