/* Event streams' tails in memory: a ring per watched task and the list of those who watch. */
#include "core/hub.h"
#include "base/mem.h"
#include "base/str.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define HUB_BUCKETS 1024

struct ring_line {
	char *text;
	int64_t seq;
};

struct topic {
	struct topic *next;
	char *task;
	struct hub_sub *subs;
	struct ring_line ring[HUB_RING]; /* holds head-count+1 .. head */
	int64_t head;			 /* 0: nothing yet */
	int count;
	char *live[HUB_LIVE_RING];
	uint64_t live_head; /* number of live lines ever */
};

struct hub_sub {
	struct hub *hub;
	struct topic *topic;
	struct hub_sub *prev, *next;
	void (*wake)(void *arg);
	void *arg;
	uint64_t live_seen;
};

struct hub {
	pthread_mutex_t lock; /* guards everything below */
	struct topic *buckets[HUB_BUCKETS];
	uint64_t subscribers;
	atomic_uint everything; /* subscribers of HUB_ALL; read without the lock, too */
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

static void topic_free(struct hub *h, struct topic *t)
{
	struct topic **at = &h->buckets[bucket_of(t->task)];
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	for (int i = 0; i < HUB_RING; i++)
		free(t->ring[i].text);
	for (int i = 0; i < HUB_LIVE_RING; i++)
		free(t->live[i]);
	free(t->task);
	free(t);
}

struct hub *hub_new(void)
{
	struct hub *h = NEW(struct hub);
	pthread_mutex_init(&h->lock, NULL);
	return h;
}

void hub_free(struct hub *h)
{
	if (!h)
		return;
	for (unsigned i = 0; i < HUB_BUCKETS; i++)
		while (h->buckets[i])
			topic_free(h, h->buckets[i]);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

struct hub_sub *hub_subscribe(struct hub *h, const char *task, void (*wake)(void *arg), void *arg)
{
	struct hub_sub *s = NEW(struct hub_sub);
	s->hub = h;
	s->wake = wake;
	s->arg = arg;
	pthread_mutex_lock(&h->lock);
	struct topic *t = topic_find(h, task);
	if (!t) {
		t = NEW(struct topic);
		t->task = mem_strdup(task);
		t->next = h->buckets[bucket_of(task)];
		h->buckets[bucket_of(task)] = t;
	}
	s->topic = t;
	s->live_seen = t->live_head;
	s->next = t->subs;
	if (s->next)
		s->next->prev = s;
	t->subs = s;
	h->subscribers++;
	atomic_fetch_add(&h->everything, str_eq(task, HUB_ALL));
	pthread_mutex_unlock(&h->lock);
	return s;
}

void hub_unsubscribe(struct hub_sub *s)
{
	if (!s)
		return;
	struct hub *h = s->hub;
	pthread_mutex_lock(&h->lock);
	if (s->prev)
		s->prev->next = s->next;
	else
		s->topic->subs = s->next;
	if (s->next)
		s->next->prev = s->prev;
	atomic_fetch_sub(&h->everything, str_eq(s->topic->task, HUB_ALL));
	if (!s->topic->subs)
		topic_free(h, s->topic);
	h->subscribers--;
	pthread_mutex_unlock(&h->lock);
	free(s);
}

static void wake_all(struct topic *t)
{
	for (struct hub_sub *s = t->subs; s; s = s->next)
		s->wake(s->arg);
}

/* Two commits of one task may be published out of order; a line that does not continue the ring starts it anew, and readers
 * fetch what is missing from the database. */
static void ring_put(struct topic *t, int64_t seq, const char *line)
{
	if (seq <= t->head)
		return;
	if (seq != t->head + 1)
		t->count = 0;
	struct ring_line *slot = &t->ring[seq % HUB_RING];
	free(slot->text);
	slot->text = mem_strdup(line);
	slot->seq = seq;
	t->head = seq;
	if (t->count < HUB_RING)
		t->count++;
}

/* With the lock held: the lines of all tasks in the order in which they were published, numbered by the ring itself. */
static void all_put(struct hub *h, const char *line)
{
	struct topic *t = atomic_load(&h->everything) ? topic_find(h, HUB_ALL) : NULL;
	if (t) {
		ring_put(t, t->head + 1, line);
		wake_all(t);
	}
}

void hub_publish(struct hub *h, const char *task, int64_t seq, const char *line)
{
	pthread_mutex_lock(&h->lock);
	struct topic *t = topic_find(h, task);
	if (t) {
		ring_put(t, seq, line);
		wake_all(t);
	}
	all_put(h, line);
	pthread_mutex_unlock(&h->lock);
}

void hub_announce(struct hub *h, const char *line)
{
	if (!atomic_load(&h->everything))
		return;
	pthread_mutex_lock(&h->lock);
	all_put(h, line);
	pthread_mutex_unlock(&h->lock);
}

static void live_put(struct topic *t, const char *line)
{
	char **slot = &t->live[t->live_head % HUB_LIVE_RING];
	free(*slot);
	*slot = mem_strdup(line);
	t->live_head++;
	wake_all(t);
}

void hub_publish_live(struct hub *h, const char *task, const char *line)
{
	pthread_mutex_lock(&h->lock);
	struct topic *t = topic_find(h, task);
	struct topic *all = atomic_load(&h->everything) ? topic_find(h, HUB_ALL) : NULL;
	if (t)
		live_put(t, line);
	if (all)
		live_put(all, line);
	pthread_mutex_unlock(&h->lock);
}

void hub_touch(struct hub *h, const char *task)
{
	pthread_mutex_lock(&h->lock);
	struct topic *t = topic_find(h, task);
	if (t)
		wake_all(t);
	pthread_mutex_unlock(&h->lock);
}

void hub_tick(struct hub *h)
{
	pthread_mutex_lock(&h->lock);
	for (unsigned i = 0; i < HUB_BUCKETS; i++)
		for (struct topic *t = h->buckets[i]; t; t = t->next)
			wake_all(t);
	pthread_mutex_unlock(&h->lock);
}

int64_t hub_read(struct hub_sub *s, int64_t after, int max, void (*fn)(void *ctx, int64_t seq, const char *line), void *ctx, bool *ret_gap)
{
	struct topic *t = s->topic;
	pthread_mutex_lock(&s->hub->lock);
	*ret_gap = t->head > after && after < t->head - t->count;
	for (int64_t seq = after + 1; !*ret_gap && seq <= t->head && max > 0; seq++, max--) {
		fn(ctx, seq, t->ring[seq % HUB_RING].text);
		after = seq;
	}
	pthread_mutex_unlock(&s->hub->lock);
	return after;
}

void hub_read_live(struct hub_sub *s, void (*fn)(void *ctx, const char *line), void *ctx)
{
	struct topic *t = s->topic;
	pthread_mutex_lock(&s->hub->lock);
	if (t->live_head > s->live_seen + HUB_LIVE_RING)
		s->live_seen = t->live_head - HUB_LIVE_RING;
	for (; s->live_seen < t->live_head; s->live_seen++)
		fn(ctx, t->live[s->live_seen % HUB_LIVE_RING]);
	pthread_mutex_unlock(&s->hub->lock);
}

int64_t hub_head(struct hub_sub *s)
{
	pthread_mutex_lock(&s->hub->lock);
	int64_t head = s->topic->head;
	pthread_mutex_unlock(&s->hub->lock);
	return head;
}

uint64_t hub_subscribers(struct hub *h)
{
	pthread_mutex_lock(&h->lock);
	uint64_t n = h->subscribers;
	pthread_mutex_unlock(&h->lock);
	return n;
}
