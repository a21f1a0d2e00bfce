/* Who is waiting for what: the event streams' tails in memory.
 *
 *   writer (after commit) --hub_publish--> per-task ring of the last lines --wake--> subscribed streams
 *
 * A subscriber first catches up from the database (after it subscribed, so that nothing falls between), then reads by cursor:
 * from the ring when that reaches back far enough, else from the database again (the caller's business).
 * The ring is shared: a reader has a cursor and no lines of its own.  The topic HUB_ALL has the lines of all tasks, numbered as they were
 * committed (core/feed.c).
 * Live-only lines (progress, output) have no seq, are kept for nobody, and are dropped for readers that lag.
 * Thread-safe; no lock is held across I/O of a reader's. */
#pragma once
#include "base/strbuf.h"
#include <stdbool.h>
#include <stdint.h>

#define HUB_RING 512		     /* event lines kept per watched task, ... */
#define HUB_RING_BYTES ((size_t)1 << 20) /* ... and bytes of them; the newest line is kept whatever its length */
#define HUB_BYTES_MAX ((int64_t)64 << 20) /* of lines in all rings; beyond, a ring keeps its newest only */
#define HUB_AHEAD 64		     /* a line that overtook others waits for them this far ahead, and at most two ticks */
#define HUB_LIVE_RING 64	     /* live lines kept per watched task */
#define HUB_TICK_MS 1000	     /* how often sleepers look at their own deadlines */
#define HUB_CROWD 64		     /* subscribers of one task; beyond, they are woken by a thread of the hub's, ... */
#define HUB_PACE_MS 5		     /* ... at most once in this time, and when most of them have read: several lines then go out in one piece */
#define HUB_ALL "*"		     /* the topic of every task's lines */
#define HUB_TAG_SIZE 7

struct hub;
struct hub_sub;

struct hub *hub_new(void);
void hub_free(struct hub *h);

/* Of a line of HUB_ALL: the tag (at most HUB_TAG_SIZE - 1 bytes) makes its cursor, "n-tag"; and whose it is. */
struct hub_mark { const char *tag, *project; };

/* `wake(arg)` is called from any thread when there may be something new or a tick is due; it must be quick and must not call the hub. */
struct hub_sub *hub_subscribe(struct hub *h, const char *task, void (*wake)(void *arg), void *arg);
struct hub_sub *hub_subscribe_all(struct hub *h, const char *project, void (*wake)(void *arg), void *arg); /* HUB_ALL, the lines of one project */
struct hub_sub *hub_watch(struct hub *h, const char *task, void (*wake)(void *arg), void *arg); /* who only wants to be woken: no lines are kept for it */
void hub_unsubscribe(struct hub_sub *s); /* after it returns wake is not called any more */
void hub_publish(struct hub *h, const char *task, int64_t seq, const char *line);
void hub_publish_live(struct hub *h, const char *project, const char *task, const char *line);
/* For the readers of HUB_ALL: the n-th line of all, committed under that number. */
void hub_publish_all(struct hub *h, int64_t n, const struct hub_mark *mark, const char *line);
void hub_seed_all(struct hub *h, int64_t n); /* the number of the last line before the first that is published */
void hub_touch(struct hub *h, const char *task); /* wake the readers: state has changed */
void hub_tick(struct hub *h);			 /* wakes all; called every HUB_TICK_MS */
/* Calls fn for ring lines with seq > after, in order, at most `max`; *ret_gap is true when the ring does not reach back to after+1.
 * Returns the last seq given (or `after`).  A line of another project than the subscriber's (HUB_ALL) is given as NULL: it has its number. */
int64_t hub_read(struct hub_sub *s, int64_t after, int max, void (*fn)(void *ctx, int64_t seq, const char *line), void *ctx, bool *ret_gap);
/* The same as they go out, for SSE or as JSON lines, made once for all subscribers: whole ones that fit into buf; when not even the first does, it is
 * appended to `rest` and *ret_bytes is 0.  *ret_last: the task's last event is among them (kept as it was when there are none). */
enum hub_form { HUB_SSE, HUB_JSONL };
struct hub_out { enum hub_form form; char *buf; size_t max; struct strbuf *rest; };
int64_t hub_copy(struct hub_sub *s, int64_t after, const struct hub_out *out, size_t *ret_bytes, bool *ret_last, bool *ret_gap);
/* One line as it goes out; `cursor` is its id there, and a member of what is sent when `all`. */
void hub_frame(struct strbuf *out, enum hub_form form, const char *cursor, bool all, const char *line);
/* Live lines since the last call of this subscriber (bounded; older ones were dropped). */
void hub_read_live(struct hub_sub *s, void (*fn)(void *ctx, const char *line), void *ctx);
int64_t hub_head(struct hub_sub *s); /* the last number in the ring; 0: nothing came since the first subscriber (HUB_ALL: what was seeded) */
uint64_t hub_subscribers(struct hub *h);
