/* Writing a Responses event stream: items and their events, in the order a client expects them. */
#pragma once
#include "base/js.h"
#include "base/strbuf.h"
#include <stdint.h>

#define SSE_DELTA_BYTES 96 /* text is said in pieces of about this size */

/* One response in the making. */
struct sse {
	struct strbuf out;	/* bytes not yet taken */
	struct js *response;	/* id, model, output ... as it will be in response.completed */
	int64_t sequence;
};

void sse_init(struct sse *s, const char *model);
void sse_release(struct sse *s);
void sse_created(struct sse *s);
void sse_message(struct sse *s, const char *text);
void sse_refusal(struct sse *s, const char *text);
void sse_reasoning(struct sse *s, const char *text);
void sse_call(struct sse *s, struct js *item_taken);
void sse_completed(struct sse *s, struct js *usage_taken);
