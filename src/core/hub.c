/* Event streams' tails in memory: a ring per watched task and the list of those who watch. */
#include "core/hub.h"
#include "core/core.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HUB_BUCKETS 1024

struct ring_line {
	char *text;
	int64_t seq;
	char *frame; /* for SSE; made when the first one asks */
	size_t frame_len;
	bool last, again; /* the task's end; its new beginning */
};

struct topic {
	struct topic *next;
	char *task;
	struct hub_sub *subs;
	size_t sub_count;
	bool due; /* its crowd is to be woken */
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
	pthread_cond_t crowd_due;
	pthread_t waker; /* started with the first crowd */
	bool has_waker, any_due, stop;
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
	for (int i = 0; i < HUB_RING; i++) {
		free(t->ring[i].text);
		free(t->ring[i].frame);
	}
	for (int i = 0; i < HUB_LIVE_RING; i++)
		free(t->live[i]);
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
		while (h->buckets[i])
			topic_free(h, h->buckets[i]);
	pthread_cond_destroy(&h->crowd_due);
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
	t->sub_count++;
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
	s->topic->sub_count--;
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

static void wake_crowds(struct hub *h)
{
	h->any_due = false;
	for (unsigned i = 0; i < HUB_BUCKETS; i++)
		for (struct topic *t = h->buckets[i]; t; t = t->next)
			if (t->due) {
				t->due = false;
				wake_all(t);
			}
}

static void *waker_main(void *arg)
{
	struct hub *h = arg;
	const struct timespec pause = { .tv_nsec = HUB_PACE_MS * 1000000L };
	pthread_mutex_lock(&h->lock);
	while (!h->stop) {
		if (!h->any_due) {
			pthread_cond_wait(&h->crowd_due, &h->lock);
			continue;
		}
		wake_crowds(h);
		pthread_mutex_unlock(&h->lock);
		nanosleep(&pause, NULL);
		pthread_mutex_lock(&h->lock);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

/* A few readers are woken at once; a thousand would keep whoever publishes, and each line would cost a thousand calls. */
static void wake_readers(struct topic *t)
{
	struct hub *h = t->subs->hub; /* a topic without subscribers is gone */
	if (t->sub_count > HUB_CROWD && !h->has_waker)
		h->has_waker = pthread_create(&h->waker, NULL, waker_main, h) == 0;
	if (t->sub_count <= HUB_CROWD || !h->has_waker) {
		wake_all(t);
		return;
	}
	t->due = true;
	if (!h->any_due) {
		h->any_due = true;
		pthread_cond_signal(&h->crowd_due);
	}
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
	free(TAKE_PTR(slot->frame));
	slot->text = mem_strdup(line);
	slot->last = core_line_is(line, "task.done\"");
	slot->again = core_line_begins_again(line);
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
		wake_readers(t);
	}
}

void hub_publish(struct hub *h, const char *task, int64_t seq, const char *line)
{
	pthread_mutex_lock(&h->lock);
	struct topic *t = topic_find(h, task);
	if (t) {
		ring_put(t, seq, line);
		wake_readers(t);
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
	wake_readers(t);
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
		wake_readers(t);
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

static void frame_make(struct ring_line *slot)
{
	struct strbuf text = STRBUF_INIT;
	strbuf_addf(&text, "id: %lld\ndata: %s\n\n", (long long)slot->seq, slot->text);
	slot->frame_len = text.len;
	slot->frame = strbuf_detach(&text);
}

int64_t hub_read_frames(struct hub_sub *s, int64_t after, int max, struct strbuf *out, bool *ret_last, bool *ret_gap)
{
	struct topic *t = s->topic;
	pthread_mutex_lock(&s->hub->lock);
	*ret_gap = t->head > after && after < t->head - t->count;
	for (int64_t seq = after + 1; !*ret_gap && seq <= t->head && max > 0; seq++, max--) {
		struct ring_line *slot = &t->ring[seq % HUB_RING];
		if (!slot->frame)
			frame_make(slot);
		strbuf_add(out, slot->frame, slot->frame_len);
		*ret_last = (*ret_last && !slot->again) || slot->last;
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
