/* A hash of ids over two queues: linear in nothing, so that twenty thousand tasks at once cost no more each than one. */
#include "core/behind.h"
#include "base/mem.h"
#include "base/str.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#define BUCKETS 4096

struct entry {
	TAILQ_ENTRY(entry) order;
	LIST_ENTRY(entry) same_bucket;
	char id[ID_SIZE];
	unsigned flags;
};
TAILQ_HEAD(order, entry);
LIST_HEAD(bucket, entry);

struct behind {
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t wake;
	struct order ended, others, failed; /* failed ones are in no bucket */
	struct bucket buckets[BUCKETS];
	struct entry *taken;
	bool stop;
};

struct behind *behind_new(void)
{
	struct behind *b = NEW(struct behind);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->wake, NULL);
	TAILQ_INIT(&b->ended);
	TAILQ_INIT(&b->others);
	TAILQ_INIT(&b->failed);
	for (size_t i = 0; i < BUCKETS; i++)
		LIST_INIT(&b->buckets[i]);
	return b;
}

static void free_all(struct order *o)
{
	for (struct entry *n; (n = TAILQ_FIRST(o));) {
		TAILQ_REMOVE(o, n, order);
		free(n);
	}
}

void behind_free(struct behind *b)
{
	if (!b)
		return;
	free_all(&b->ended);
	free_all(&b->others);
	free_all(&b->failed);
	free(b->taken);
	free(b);
}

static struct bucket *bucket_of(struct behind *b, const char *id)
{
	unsigned h = 5381;
	for (; *id; id++)
		h = h * 33 + (unsigned char)*id;
	return &b->buckets[h % BUCKETS];
}

static struct entry *find(struct behind *b, const char *id)
{
	struct entry *n = NULL;
	LIST_FOREACH(n, bucket_of(b, id), same_bucket)
		if (str_eq(n->id, id))
			break;
	return n;
}

static struct order *order_of(struct behind *b, const struct entry *n)
{
	return n->flags & BEHIND_ENDED ? &b->ended : &b->others;
}

/* With the lock.  Who is in keeps its place, unless it has ended meanwhile: one that is added all the time comes to its turn too. */
static void add(struct behind *b, const char *id, unsigned flags)
{
	struct entry *n = find(b, id);
	bool moves = n && flags & ~n->flags & BEHIND_ENDED;
	bool is_new = !n;
	if (moves)
		TAILQ_REMOVE(order_of(b, n), n, order);
	if (is_new) {
		n = NEW(struct entry);
		snprintf(n->id, sizeof(n->id), "%s", id);
		LIST_INSERT_HEAD(bucket_of(b, id), n, same_bucket);
	}
	n->flags |= flags;
	if (moves || is_new)
		TAILQ_INSERT_TAIL(order_of(b, n), n, order);
	pthread_cond_signal(&b->wake);
}

void behind_add(struct behind *b, const char *task_id, unsigned flags)
{
	pthread_mutex_lock(&b->lock);
	add(b, task_id, flags);
	pthread_mutex_unlock(&b->lock);
}

static struct entry *first(struct behind *b)
{
	struct entry *n = TAILQ_FIRST(&b->ended);
	return n ? n : TAILQ_FIRST(&b->others);
}

bool behind_take(struct behind *b, char ret_task_id[ID_SIZE], unsigned *ret_flags)
{
	pthread_mutex_lock(&b->lock);
	while (!first(b) && !b->stop)
		pthread_cond_wait(&b->wake, &b->lock);
	struct entry *n = first(b);
	if (n) {
		TAILQ_REMOVE(order_of(b, n), n, order);
		LIST_REMOVE(n, same_bucket);
		snprintf(ret_task_id, ID_SIZE, "%s", n->id);
		*ret_flags = n->flags;
	}
	b->taken = n;
	pthread_mutex_unlock(&b->lock);
	return n != NULL;
}

void behind_done(struct behind *b, bool written)
{
	pthread_mutex_lock(&b->lock);
	if (written)
		free(b->taken);
	else
		TAILQ_INSERT_TAIL(&b->failed, b->taken, order);
	b->taken = NULL;
	pthread_mutex_unlock(&b->lock);
}

void behind_again(struct behind *b)
{
	pthread_mutex_lock(&b->lock);
	for (struct entry *n; (n = TAILQ_FIRST(&b->failed));) {
		TAILQ_REMOVE(&b->failed, n, order);
		add(b, n->id, n->flags | BEHIND_WHOLE);
		free(n);
	}
	pthread_mutex_unlock(&b->lock);
}

bool behind_has(struct behind *b, const char *task_id, unsigned flags)
{
	pthread_mutex_lock(&b->lock);
	const struct entry *queued = find(b, task_id);
	bool has = (queued && (queued->flags & flags) == flags) || (b->taken && str_eq(b->taken->id, task_id));
	pthread_mutex_unlock(&b->lock);
	return has;
}

void behind_stop(struct behind *b)
{
	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_signal(&b->wake);
	pthread_mutex_unlock(&b->lock);
}
