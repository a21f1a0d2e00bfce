/* What a channel watches: single tasks, or all of them, each from its cursor on.  First the log from the database, then the hub's rings;
 * whoever falls out of a ring catches up from the database again, so nothing is lost and nothing comes twice.  Only as much is taken as
 * the peer has room for.
 *
 *   a task:   hello {task, head, oldest, generation}, events, sync, then events and live lines, end {status}
 *   all ("*"): hello {task: "*", heads: {id: seq}}, what came after the cursors, sync, then events and live lines of all tasks; no end
 */
#pragma once
#include "api/api.h"
#include "net/ws.h"

#define WATCHES_MAX 256		/* single tasks of one connection */
#define WATCH_CURSORS_MAX 16384 /* tasks that a watch of all keeps a cursor for */

struct watches;

/* The texts of `by` are the caller's, and outlive it. */
struct watches *watches_new(struct core *c, struct caller by, struct ws *w);
void watches_free(struct watches *l); /* NULL is fine */
/* `tasks`: ["T-1", id, ...] or ["*"]; `after`: absent, one number for all, or {name or id: number}. All or nothing. */
MUST_USE enum err_code watches_add(struct watches *l, const struct js *tasks, const struct js *after, struct js *reply, struct error *e);
MUST_USE enum err_code watches_remove(struct watches *l, const struct js *tasks, struct js *reply, struct error *e);
void watches_fill(struct watches *l);
