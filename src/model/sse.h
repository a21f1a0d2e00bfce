/* Writing a reply's event stream: what is said and its events, in the order a client of that API expects them. */
#pragma once
#include "base/js.h"
#include "base/strbuf.h"
#include <stdint.h>

#define SSE_DELTA_BYTES 96 /* text is said in pieces of about this size */

struct sse;

/* One API's way to say things. `item` is a function_call, custom_tool_call or local_shell_call. */
struct sse_wire {
	void (*created)(struct sse *s, const char *model, const struct js *usage);
	void (*message)(struct sse *s, const char *text);
	void (*refusal)(struct sse *s, const char *text);
	void (*reasoning)(struct sse *s, const char *text);
	void (*call)(struct sse *s, struct js *item_taken);
	void (*completed)(struct sse *s, struct js *usage_taken);
};
extern const struct sse_wire sse_wire_responses, sse_wire_messages;

/* One response in the making. */
struct sse {
	const struct sse_wire *wire;
	struct strbuf out;	/* bytes not yet taken */
	struct js *response;	/* the whole reply, as who asked without streaming gets it */
	int64_t sequence;
};

void sse_init(struct sse *s, const struct sse_wire *wire);
void sse_release(struct sse *s);
size_t sse_piece(const char *text, size_t len); /* bytes of the next delta; whole characters */
void sse_created(struct sse *s, const char *model, const struct js *usage); /* usage: what is known of it by then, in the form of Responses */
void sse_message(struct sse *s, const char *text);
void sse_refusal(struct sse *s, const char *text);
void sse_reasoning(struct sse *s, const char *text);
void sse_call(struct sse *s, struct js *item_taken);
void sse_completed(struct sse *s, struct js *usage_taken);
