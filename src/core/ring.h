/* The last lines of one log, shared by all who follow it: each reader has a cursor and no lines of its own.  Not thread-safe: the hub locks. */
#pragma once
#include "core/hub.h"

struct ring_line;

struct ring {
	bool all;		/* of HUB_ALL: the lines go out with their cursor in them */
	struct ring_line *lines; /* by seq modulo cap: first .. head, and what came too early */
	int64_t cap, head;	/* head 0: nothing yet */
	int64_t count;
	size_t bytes;		/* of the lines that count */
	int64_t ahead;		/* the last of those that came too early; not greater than head: none */
	bool ahead_old;		/* they were there at the last tick */
};

void ring_release(struct ring *r); /* empty again, and usable */
/* Returns by how many bytes it has grown (or shrunk); `bytes_max` beside the limit of its own. */
int64_t ring_put(struct ring *r, int64_t seq, const struct hub_mark *mark, const char *line, size_t bytes_max);
int64_t ring_settle(struct ring *r); /* the same, once a tick: what did not come till now is not waited for any longer */
/* For a reader of all: the lines of `project`.  Of the others ring_read gives the number alone (line NULL), and ring_copy nothing. */
bool ring_has_gap(const struct ring *r, int64_t after); /* it does not reach back to after+1 */
int64_t ring_read(struct ring *r, const char *project, int64_t after, int max, void (*fn)(void *ctx, int64_t seq, const char *line), void *ctx);
int64_t ring_copy(struct ring *r, const char *project, int64_t after, const struct hub_out *out, size_t *ret_bytes, bool *ret_last);
