/* The log of all tasks in one order: that of their commits.  A row per event says which task's which; a cursor is "N-TAG", the row's number and the
 * end of the task's id, so that one of another database is told from ours.  It holds over restarts; the FEED_KEPT newest rows are kept. */
#pragma once
#include "core/core.h"

#define FEED_KEPT ((int64_t)1000000)
#define FEED_CURSOR_SIZE 32
#define FEED_LINE_MAX 1000 /* lines of one page */

struct feed_place { int64_t head, oldest; char head_cursor[FEED_CURSOR_SIZE]; }; /* the last and the first line kept; 0: none */

/* "" and "0": before the oldest; "end": after the last.  ERR_GONE: it is not (any more) a place in this log. */
MUST_USE enum err_code core_feed_cursor(struct core *c, struct caller by, const char *text, int64_t *ret_after, struct error *e);
/* The caller's lines after that one, at most `limit` and (after the first) `bytes_max` bytes of them; *ret_after moves along, past lines of removed tasks too. */
MUST_USE enum err_code core_feed(struct core *c, struct caller by, int64_t *ret_after, int64_t limit, size_t bytes_max,
	void (*fn)(void *ctx, int64_t n, const char *cursor, const char *line), void *ctx, struct feed_place *ret, struct error *e);

/* Of this room. */
MUST_USE enum err_code feed_add(struct db_conn *conn, const char *task, int64_t seq, int64_t *ret_n, struct error *e);
void feed_publish(struct core *c, int64_t n, const char *project, const char *task, const char *line); /* after the commit */
MUST_USE enum err_code feed_start(struct core *c, struct error *e);
void feed_tick(struct core *c); /* forgets the oldest */
