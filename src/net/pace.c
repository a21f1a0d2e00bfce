/* Clients that take their time.  MHD lets a connection go that was silent for HTTP_IDLE_TIMEOUT_S; one that says a byte now and then would
 * keep its place for ever.  So each request's head must be there within a time (which an idle connection has, too), and its body must come
 * with a least speed; both are stricter while most places are taken, so that others find one.
 *
 *   HEAD --head is there--> BODY --body is there--> ANSWER (no limit here: streams) --next request--> HEAD
 *
 * A thread of its own looks at all of them now and then and shuts the sockets of those that are late; MHD then sees the end and closes. */
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "net/http.h"
#include <stdlib.h>
#include <sys/socket.h>

#define LOOK_MS 1000		     /* at most so often; a shorter limit is looked at more often */
#define LOOKS_PER_LIMIT 4
#define STACK_BYTES ((size_t)64 << 10)

struct pace_client {
	struct pace_client *prev, *next; /* with the lock */
	int fd;
	_Atomic enum pace_phase phase;
	_Atomic int64_t since_ms; /* monotonic: when the head began to be waited for; when the body's speed was last found good */
	_Atomic uint64_t bytes;	  /* of the body */
	uint64_t looked_at;	  /* bytes at since_ms; the looking thread's own */
	pid_t holder;		  /* share.c's */
};

struct pace {
	pthread_mutex_t lock; /* guards the list and stop; MHD closes a socket only after its client has left the list */
	pthread_cond_t stopped;
	struct pace_client *clients;
	size_t n, places;
	int64_t limit_ms, crowded_ms;
	bool stop;
	pthread_t thread;
};

static bool body_is_late(struct pace_client *c, int64_t now_ms, int64_t limit_ms)
{
	uint64_t bytes = atomic_load_explicit(&c->bytes, memory_order_relaxed);
	if (now_ms - atomic_load_explicit(&c->since_ms, memory_order_relaxed) < limit_ms)
		return false;
	if (bytes - c->looked_at < (uint64_t)(HTTP_BODY_RATE_MIN * limit_ms / 1000))
		return true;
	c->looked_at = bytes;
	atomic_store_explicit(&c->since_ms, now_ms, memory_order_relaxed);
	return false;
}

static bool is_late(struct pace_client *c, int64_t now_ms, int64_t limit_ms)
{
	switch (atomic_load_explicit(&c->phase, memory_order_acquire)) {
	case PACE_HEAD: return now_ms - atomic_load_explicit(&c->since_ms, memory_order_relaxed) >= limit_ms;
	case PACE_BODY: return body_is_late(c, now_ms, limit_ms);
	case PACE_ANSWER: break;
	}
	return false;
}

static void look(struct pace *p)
{
	int64_t now = clock_mono_ms(), limit = p->n > p->places / 4 * 3 ? p->crowded_ms : p->limit_ms;
	for (struct pace_client *c = p->clients; c; c = c->next)
		if (is_late(c, now, limit))
			shutdown(c->fd, SHUT_RDWR);
}

static void *pace_main(void *arg)
{
	struct pace *p = arg;
	int64_t every = p->crowded_ms / LOOKS_PER_LIMIT < LOOK_MS ? p->crowded_ms / LOOKS_PER_LIMIT + 1 : LOOK_MS;
	pthread_mutex_lock(&p->lock);
	while (!p->stop) {
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += (every % 1000) * 1000000;
		until.tv_sec += every / 1000 + until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&p->stopped, &p->lock, &until);
		look(p);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

struct pace *pace_start(size_t places, int64_t limit_ms, int64_t crowded_ms)
{
	struct pace *p = NEW(struct pace);
	pthread_condattr_t attr;
	p->places = places;
	p->limit_ms = limit_ms;
	p->crowded_ms = crowded_ms < limit_ms ? crowded_ms : limit_ms;
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->stopped, &attr);
	pthread_condattr_destroy(&attr);
	if (!thread_start(&p->thread, STACK_BYTES, pace_main, p))
		return p;
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->stopped);
	free(p);
	return NULL;
}

void pace_stop(struct pace *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	pthread_cond_signal(&p->stopped);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
}

void pace_free(struct pace *p)
{
	if (!p)
		return;
	CHECK(!p->clients);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->stopped);
	free(p);
}

struct pace_client *pace_join(struct pace *p, int fd)
{
	struct pace_client *c = NEW(struct pace_client);
	c->fd = fd;
	atomic_store(&c->since_ms, clock_mono_ms());
	pthread_mutex_lock(&p->lock);
	c->next = p->clients;
	if (c->next)
		c->next->prev = c;
	p->clients = c;
	p->n++;
	pthread_mutex_unlock(&p->lock);
	return c;
}

void pace_leave(struct pace *p, struct pace_client *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&p->lock);
	if (c->prev)
		c->prev->next = c->next;
	else
		p->clients = c->next;
	if (c->next)
		c->next->prev = c->prev;
	p->n--;
	pthread_mutex_unlock(&p->lock);
	free(c);
}

void pace_set(struct pace_client *c, enum pace_phase phase)
{
	if (!c)
		return;
	if (phase != PACE_ANSWER)
		atomic_store_explicit(&c->since_ms, clock_mono_ms(), memory_order_relaxed);
	atomic_store_explicit(&c->phase, phase, memory_order_release);
}

void pace_progress(struct pace_client *c, size_t n)
{
	if (c)
		atomic_fetch_add_explicit(&c->bytes, n, memory_order_relaxed);
}

pid_t *pace_holder(struct pace_client *c)
{
	return &c->holder;
}
