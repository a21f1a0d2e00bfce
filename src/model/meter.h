/* The meter listens to a model's reply as it passes and keeps what the record needs: token usage, finished output items, whether
 * the reply was complete, and the model's own error.  It never holds more than METER_EVENT_MAX of one event, METER_ITEM_MAX of
 * one output item and METER_OUTPUT_MAX of all.  One thread at a time. */
#pragma once
#include "base/js.h"
#include "base/line.h"
#include "base/scrub.h"
#include <stdbool.h>
#include <stdint.h>

#define METER_EVENT_MAX ((size_t)8 << 20)  /* bytes of one SSE event or of one plain JSON reply */
#define METER_ITEM_MAX ((size_t)16 << 10)  /* bytes kept of one item */
#define METER_OUTPUT_MAX ((size_t)512 << 10) /* bytes kept of all items of one reply */
#define METER_ERROR_MAX ((size_t)1024)	   /* bytes kept of an error's text */

struct usage {
	int64_t input_tokens, cached_input_tokens, cache_write_input_tokens, output_tokens, reasoning_output_tokens, total_tokens;
};

struct meter {
	bool sse;
	bool completed;		/* response.completed or message_stop was seen, or the whole plain reply */
	bool has_usage;
	bool overflow;		/* an event was longer than METER_EVENT_MAX and was not looked at */
	struct usage usage;
	struct js *output;	/* array of finished items, cut where too long */
	size_t output_bytes;
	char *error;		/* the model's own words, NULL when none */
	struct line_reader lines;
	struct strbuf event;	/* data of the present SSE event, or the plain reply */
	struct js *block;	/* Messages: the content block in the making, NULL between them */
	struct strbuf block_text; /* its text so far, cut at METER_ITEM_MAX */
	const struct scrub *scrub; /* what is cut out of items and errors before they are kept; NULL: nothing */
};

void meter_init(struct meter *m, bool sse);
void meter_release(struct meter *m);
void meter_feed(struct meter *m, const char *data, size_t n);
void meter_finish(struct meter *m); /* the reply has ended; call once before reading the results */

/* Of the two files of the meter only. */
void meter_take_item(struct meter *m, const struct js *item);
void meter_take_error(struct meter *m, const struct js *error, const char *otherwise);
/* An event, or a whole reply, of the Messages API; false when it is none. */
bool meter_take_messages(struct meter *m, const struct js *event);

struct js *usage_to_js(const struct usage *u);
/* A copy that fits into `max` bytes of JSON; a longer item becomes {type, role, name, call_id, id, head, truncated: full bytes}. */
struct js *item_cut(const struct js *item, size_t max);
