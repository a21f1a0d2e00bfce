/* Who is waiting for what: the event streams' tails in memory.
 *
 *   writer (after commit) --hub_publish--> per-task ring of the last lines --wake--> subscribed streams
 *
 * A subscriber first catches up from the database (after it subscribed, so that nothing falls between), then reads by cursor:
 * from the ring when that reaches back far enough, else from the database again (the caller's business).
 * Live-only lines (progress, output) have no seq, are kept for nobody, and are dropped for readers that lag.
 * Thread-safe; one lock per hub, never held across I/O. */
#pragma once
#include "base/strbuf.h"
#include <stdbool.h>
#include <stdint.h>

#define HUB_RING 512		  /* event lines kept per watched task */
#define HUB_LIVE_RING 64	  /* live lines kept per watched task */
#define HUB_TICK_MS 1000	  /* how often sleepers look at their own deadlines */
#define HUB_CROWD 64		  /* subscribers of one task; beyond, they are woken by a thread of the hub's, ... */
#define HUB_PACE_MS 3		  /* ... at most once in this time: several lines then go out in one piece */
#define HUB_ALL "*"		  /* the topic of every task's lines; its numbers are the ring's own, not seqs */

struct hub;
struct hub_sub;

struct hub *hub_new(void);
void hub_free(struct hub *h);

/* `wake(arg)` is called from any thread when there may be something new or a tick is due; it must be quick and must not call the hub. */
struct hub_sub *hub_subscribe(struct hub *h, const char *task, void (*wake)(void *arg), void *arg);
void hub_unsubscribe(struct hub_sub *s); /* after it returns wake is not called any more */
void hub_publish(struct hub *h, const char *task, int64_t seq, const char *line);
void hub_publish_live(struct hub *h, const char *task, const char *line);
void hub_announce(struct hub *h, const char *line); /* a line that only readers of HUB_ALL can know of: a new task's first */
void hub_touch(struct hub *h, const char *task); /* wake the readers: state has changed */
void hub_tick(struct hub *h);			 /* wakes all; called every HUB_TICK_MS */
/* Calls fn for ring lines with seq > after, in order, at most `max`; *ret_gap is true when the ring does not reach back to after+1.
 * Returns the last seq given (or `after`). */
int64_t hub_read(struct hub_sub *s, int64_t after, int max, void (*fn)(void *ctx, int64_t seq, const char *line), void *ctx, bool *ret_gap);
/* The same as SSE frames, appended to `out`: made once for all subscribers. *ret_last: the task's last event is among them. */
int64_t hub_read_frames(struct hub_sub *s, int64_t after, int max, struct strbuf *out, bool *ret_last, bool *ret_gap);
/* Live lines since the last call of this subscriber (bounded; older ones were dropped). */
void hub_read_live(struct hub_sub *s, void (*fn)(void *ctx, const char *line), void *ctx);
int64_t hub_head(struct hub_sub *s); /* the last number in the ring; 0: nothing came since the first subscriber */
uint64_t hub_subscribers(struct hub *h);
