/* Event streams' tails in memory: a ring per watched task and the list of those who watch.
 *
 * Three kinds of locks, taken in this order: a topic's `subs_lock` (who is woken), the hub's `lock` (which topics there are), a topic's
 * `ring_lock` (its lines).  A crowd is woken under its own lock only: meanwhile others publish and read. */
#include "core/hub.h"
#include "core/caller.h"
#include "core/core.h"
#include "core/ring.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HUB_BUCKETS 1024
#define HUB_STEP_US 500
#define HUB_WAVE_MS 30	/* a wave is waited for so long */
#define HUB_WAVE_LEFT 16 /* one in so many may still have to read when the next wave begins */

struct topic {
	struct topic *next;
	char *task;
	pthread_mutex_t subs_lock; /* guards the list and wakes; who holds it alone keeps the topic by `users` */
	struct hub_sub *subs;
	/* with the hub's lock: */
	size_t users;	/* subscribers, and the waker while it is here */
	size_t readers; /* of them those who want lines */
	bool due;	/* its crowd is to be woken */
	pthread_mutex_t ring_lock; /* guards the rest */
	struct ring ring;
	char *live[HUB_LIVE_RING];
	uint64_t live_head; /* number of live lines ever */
};

struct hub_sub {
	struct hub *hub;
	struct topic *topic;
	struct hub_sub *prev, *next;
	void (*wake)(void *arg);
	void *arg;
	bool reads;
	char project[PROJECT_SIZE]; /* of HUB_ALL: whose lines; "": nobody's */
	atomic_bool woken; /* and has not read since */
	uint64_t live_seen;
};

struct hub {
	pthread_mutex_t lock; /* guards what has no other lock */
	struct topic *buckets[HUB_BUCKETS];
	uint64_t subscribers;
	atomic_uint everything; /* subscribers of HUB_ALL; read without the lock, too */
	atomic_int_fast64_t all_head; /* the greatest number published to HUB_ALL, read by anybody or not */
	atomic_int_fast64_t bytes; /* of lines in rings */
	pthread_cond_t crowd_due;
	pthread_t waker; /* started with the first crowd */
	bool has_waker, any_due, stop;
	atomic_int unserved; /* of those that the last wave woke, who have not read since */
};

static unsigned bucket_of(const char *task)
{
	unsigned h = 5381;
	for (; *task; task++)
		h = h * 33 + (unsigned char)*task;
	return h % HUB_BUCKETS;
}

static struct topic *topic_find(struct hub *h, const char *task)
{
	for (struct topic *t = h->buckets[bucket_of(task)]; t; t = t->next)
		if (str_eq(t->task, task))
			return t;
	return NULL;
}

static struct topic *topic_new(struct hub *h, const char *task)
{
	struct topic *t = NEW(struct topic);
	t->task = mem_strdup(task);
	t->ring.all = str_eq(task, HUB_ALL);
	pthread_mutex_init(&t->subs_lock, NULL);
	pthread_mutex_init(&t->ring_lock, NULL);
	t->next = h->buckets[bucket_of(task)];
	h->buckets[bucket_of(task)] = t;
	return t;
}

/* With the hub's lock. */
static void topic_leave(struct hub *h, struct topic *t)
{
	if (--t->users)
		return;
	struct topic **at = &h->buckets[bucket_of(t->task)];
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	atomic_fetch_sub(&h->bytes, (int_fast64_t)t->ring.bytes);
	ring_release(&t->ring);
	for (int i = 0; i < HUB_LIVE_RING; i++)
		free(t->live[i]);
	pthread_mutex_destroy(&t->subs_lock);
	pthread_mutex_destroy(&t->ring_lock);
	free(t->task);
	free(t);
}

struct hub *hub_new(void)
{
	struct hub *h = NEW(struct hub);
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->crowd_due, NULL);
	return h;
}

void hub_free(struct hub *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&h->lock);
	h->stop = true;
	pthread_cond_signal(&h->crowd_due);
	pthread_mutex_unlock(&h->lock);
	if (h->has_waker)
		pthread_join(h->waker, NULL);
	for (unsigned i = 0; i < HUB_BUCKETS; i++)
		while (h->buckets[i]) {
			h->buckets[i]->users = 1;
			topic_leave(h, h->buckets[i]);
		}
	pthread_cond_destroy(&h->crowd_due);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

/* The first who reads: what the ring had before, if anything, has holes since. */
static void reader_begin(struct hub *h, struct topic *t)
{
	pthread_mutex_lock(&t->ring_lock);
	if (!t->readers++) {
		atomic_fetch_sub(&h->bytes, (int_fast64_t)t->ring.bytes);
		ring_release(&t->ring);
		t->ring.head = t->ring.all ? atomic_load(&h->all_head) : 0;
	}
	pthread_mutex_unlock(&t->ring_lock);
}

static struct hub_sub *subscribe(struct hub *h, const char *task, bool reads, const char *project, void (*wake)(void *arg), void *arg)
{
	struct hub_sub *s = NEW(struct hub_sub);
	*s = (struct hub_sub){ .hub = h, .wake = wake, .arg = arg, .reads = reads };
	snprintf(s->project, sizeof(s->project), "%s", project);
	pthread_mutex_lock(&h->lock);
	struct topic *t = topic_find(h, task);
	if (!t)
		t = topic_new(h, task);
	s->topic = t;
	t->users++;
	if (reads)
		reader_begin(h, t);
	s->live_seen = t->live_head;
	h->subscribers++;
	atomic_fetch_add(&h->everything, t->ring.all);
	pthread_mutex_unlock(&h->lock);
	pthread_mutex_lock(&t->subs_lock);
	s->next = t->subs;
	if (s->next)
		s->next->prev = s;
	t->subs = s;
	pthread_mutex_unlock(&t->subs_lock);
	return s;
}

struct hub_sub *hub_subscribe(struct hub *h, const char *task, void (*wake)(void *arg), void *arg)
{
	return subscribe(h, task, true, "", wake, arg);
}

struct hub_sub *hub_subscribe_all(struct hub *h, const char *project, void (*wake)(void *arg), void *arg)
{
	return subscribe(h, HUB_ALL, true, project, wake, arg);
}

struct hub_sub *hub_watch(struct hub *h, const char *task, void (*wake)(void *arg), void *arg)
{
	return subscribe(h, task, false, "", wake, arg);
}

void hub_unsubscribe(struct hub_sub *s)
{
	if (!s)
		return;
	struct hub *h = s->hub;
	struct topic *t = s->topic;
	pthread_mutex_lock(&t->subs_lock);
	if (s->prev)
		s->prev->next = s->next;
	else
		t->subs = s->next;
	if (s->next)
		s->next->prev = s->prev;
	pthread_mutex_unlock(&t->subs_lock);
	pthread_mutex_lock(&h->lock);
	atomic_fetch_sub(&h->everything, t->ring.all);
	t->readers -= s->reads;
	h->subscribers--;
	topic_leave(h, t);
	pthread_mutex_unlock(&h->lock);
	free(s);
}

/* --- waking */

/* How many had read since they were woken before: who reads nothing any more is not waited for again. */
static int wake_all(struct topic *t)
{
	int n = 0;
	pthread_mutex_lock(&t->subs_lock);
	for (struct hub_sub *s = t->subs; s; s = s->next) {
		n += s->reads && !atomic_exchange(&s->woken, true);
		s->wake(s->arg);
	}
	pthread_mutex_unlock(&t->subs_lock);
	return n;
}

static void served(struct hub_sub *s)
{
	if (atomic_load_explicit(&s->woken, memory_order_relaxed) && atomic_exchange(&s->woken, false))
		atomic_fetch_sub(&s->hub->unserved, 1);
}

/* With the hub's lock. */
static struct topic *topic_due(struct hub *h)
{
	for (unsigned i = 0; i < HUB_BUCKETS; i++)
		for (struct topic *t = h->buckets[i]; t; t = t->next)
			if (t->due)
				return t;
	return NULL;
}

/* With the hub's lock, which is let go while they are woken. How many were. */
static int wake_crowds(struct hub *h)
{
	int n = 0;
	h->any_due = false;
	atomic_store(&h->unserved, 0);
	for (struct topic *t; (t = topic_due(h));) {
		t->due = false;
		t->users++;
		pthread_mutex_unlock(&h->lock);
		int woken = wake_all(t);
		atomic_fetch_add(&h->unserved, woken);
		n += woken;
		pthread_mutex_lock(&h->lock);
		topic_leave(h, t);
	}
	return n;
}

/* The next wave begins when most of this one have read: when they take long, they get more at once, and none is served twice before another. */
static void wave_rest(struct hub *h, int size)
{
	const struct timespec pace = { .tv_nsec = HUB_PACE_MS * 1000000L }, step = { .tv_nsec = HUB_STEP_US * 1000L };
	nanosleep(&pace, NULL);
	for (int us = 0; us < HUB_WAVE_MS * 1000 && atomic_load(&h->unserved) > size / HUB_WAVE_LEFT; us += HUB_STEP_US)
		nanosleep(&step, NULL);
}

static void *waker_main(void *arg)
{
	struct hub *h = arg;
	pthread_mutex_lock(&h->lock);
	while (!h->stop) {
		if (!h->any_due) {
			pthread_cond_wait(&h->crowd_due, &h->lock);
			continue;
		}
		int size = wake_crowds(h);
		pthread_mutex_unlock(&h->lock);
		wave_rest(h, size);
		pthread_mutex_lock(&h->lock);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

/* With the hub's lock.  A few readers are woken at once (by the caller, when it has let the lock go: NULL is nobody); a thousand would keep whoever
 * publishes, and each line would cost a thousand calls. */
static struct topic *wake_readers(struct hub *h, struct topic *t)
{
	if (t->users > HUB_CROWD && !h->has_waker)
		h->has_waker = pthread_create(&h->waker, NULL, waker_main, h) == 0;
	if (t->users <= HUB_CROWD || !h->has_waker) {
		t->users++;
		return t;
	}
	t->due = true;
	if (!h->any_due) {
		h->any_due = true;
		pthread_cond_signal(&h->crowd_due);
	}
	return NULL;
}

/* Gives back the topic that wake_readers gave. */
static void wake_now(struct hub *h, struct topic *t)
{
	if (!t)
		return;
	wake_all(t);
	pthread_mutex_lock(&h->lock);
	topic_leave(h, t);
	pthread_mutex_unlock(&h->lock);
}

/* --- publishing */

static void line_put(struct hub *h, struct topic *t, int64_t seq, const struct hub_mark *mark, const char *line)
{
	int64_t left = HUB_BYTES_MAX - atomic_load(&h->bytes);
	pthread_mutex_lock(&t->ring_lock);
	if (t->readers)
		atomic_fetch_add(&h->bytes, ring_put(&t->ring, seq, mark, line, left > 0 ? t->ring.bytes + (size_t)left : 0));
	pthread_mutex_unlock(&t->ring_lock);
}

static void publish(struct hub *h, const char *task, int64_t seq, const struct hub_mark *mark, const char *line)
{
	pthread_mutex_lock(&h->lock);
	struct topic *t = topic_find(h, task);
	if (t) {
		line_put(h, t, seq, mark, line);
		t = wake_readers(h, t);
	}
	pthread_mutex_unlock(&h->lock);
	wake_now(h, t);
}

void hub_publish(struct hub *h, const char *task, int64_t seq, const char *line)
{
	static const struct hub_mark none = { "", "" };
	publish(h, task, seq, &none, line);
}

void hub_seed_all(struct hub *h, int64_t n)
{
	int_fast64_t now = atomic_load(&h->all_head);
	while (now < n && !atomic_compare_exchange_weak(&h->all_head, &now, n))
		;
}

void hub_publish_all(struct hub *h, int64_t n, const struct hub_mark *mark, const char *line)
{
	hub_seed_all(h, n);
	if (atomic_load(&h->everything))
		publish(h, HUB_ALL, n, mark, line);
}

/* As in the rings: behind the line's NUL stands whose it is. */
static void live_put(struct topic *t, const char *project, const char *line)
{
	pthread_mutex_lock(&t->ring_lock);
	char **slot = &t->live[t->live_head % HUB_LIVE_RING];
	free(*slot);
	size_t n = strlen(line) + 1, m = strlen(project) + 1;
	*slot = mem_alloc(n + m);
	memcpy(*slot, line, n);
	memcpy(*slot + n, project, m);
	t->live_head++;
	pthread_mutex_unlock(&t->ring_lock);
}

static void publish_live(struct hub *h, const char *project, const char *task, const char *line)
{
	pthread_mutex_lock(&h->lock);
	struct topic *t = topic_find(h, task);
	if (t && t->readers) {
		live_put(t, project, line);
		t = wake_readers(h, t);
	} else {
		t = NULL;
	}
	pthread_mutex_unlock(&h->lock);
	wake_now(h, t);
}

void hub_publish_live(struct hub *h, const char *project, const char *task, const char *line)
{
	publish_live(h, project, task, line);
	if (atomic_load(&h->everything))
		publish_live(h, project, HUB_ALL, line);
}

void hub_touch(struct hub *h, const char *task)
{
	pthread_mutex_lock(&h->lock);
	struct topic *t = topic_find(h, task);
	if (t)
		t = wake_readers(h, t);
	pthread_mutex_unlock(&h->lock);
	wake_now(h, t);
}

static struct topic *topic_of_turn(struct hub *h, unsigned bucket, size_t turn)
{
	struct topic *t = h->buckets[bucket];
	while (t && turn--)
		t = t->next;
	return t;
}

/* One by one, since the lock is let go between: one that is missed has just come or gone, and the next tick is near. */
void hub_tick(struct hub *h)
{
	for (unsigned i = 0; i < HUB_BUCKETS; i++)
		for (size_t turn = 0;; turn++) {
			pthread_mutex_lock(&h->lock);
			struct topic *t = topic_of_turn(h, i, turn), *now = NULL;
			if (t) {
				pthread_mutex_lock(&t->ring_lock);
				if (t->ring.cap)
					atomic_fetch_add(&h->bytes, ring_settle(&t->ring));
				pthread_mutex_unlock(&t->ring_lock);
				now = wake_readers(h, t);
			}
			pthread_mutex_unlock(&h->lock);
			wake_now(h, now);
			if (!t)
				break;
		}
}

/* --- reading */

int64_t hub_read(struct hub_sub *s, int64_t after, int max, void (*fn)(void *ctx, int64_t seq, const char *line), void *ctx, bool *ret_gap)
{
	struct topic *t = s->topic;
	served(s);
	pthread_mutex_lock(&t->ring_lock);
	*ret_gap = ring_has_gap(&t->ring, after);
	if (!*ret_gap)
		after = ring_read(&t->ring, s->project, after, max, fn, ctx);
	pthread_mutex_unlock(&t->ring_lock);
	return after;
}

int64_t hub_copy(struct hub_sub *s, int64_t after, const struct hub_out *out, size_t *ret_bytes, bool *ret_last, bool *ret_gap)
{
	struct topic *t = s->topic;
	*ret_bytes = 0;
	served(s);
	pthread_mutex_lock(&t->ring_lock);
	*ret_gap = ring_has_gap(&t->ring, after);
	if (!*ret_gap)
		after = ring_copy(&t->ring, s->project, after, out, ret_bytes, ret_last);
	pthread_mutex_unlock(&t->ring_lock);
	return after;
}

void hub_read_live(struct hub_sub *s, void (*fn)(void *ctx, const char *line), void *ctx)
{
	struct topic *t = s->topic;
	pthread_mutex_lock(&t->ring_lock);
	if (t->live_head > s->live_seen + HUB_LIVE_RING)
		s->live_seen = t->live_head - HUB_LIVE_RING;
	for (; s->live_seen < t->live_head; s->live_seen++) {
		const char *line = t->live[s->live_seen % HUB_LIVE_RING];
		if (!t->ring.all || project_has(s->project, line + strlen(line) + 1))
			fn(ctx, line);
	}
	pthread_mutex_unlock(&t->ring_lock);
}

int64_t hub_head(struct hub_sub *s)
{
	struct topic *t = s->topic;
	pthread_mutex_lock(&t->ring_lock);
	int64_t head = t->ring.head;
	pthread_mutex_unlock(&t->ring_lock);
	return head;
}

uint64_t hub_subscribers(struct hub *h)
{
	pthread_mutex_lock(&h->lock);
	uint64_t n = h->subscribers;
	pthread_mutex_unlock(&h->lock);
	return n;
}
