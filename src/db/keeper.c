/* Who copies the log into the database: a thread with a connection of its own, so that nobody's commit waits for it.
 *
 *   commits --the log has DB_CHECKPOINT_PAGES--> the thread copies, round by round, while others write on
 *           <--only a little is left------------ the writer copies that little itself; the next commit begins the log anew
 *
 * Without that last step a log that is written all the time would never end.  Beyond DB_LOG_PAGES_MAX the writer waits until the thread is done,
 * and copies what is left: who writes faster than the disk takes it must wait at last. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/backend.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define KEEPER_STACK_BYTES ((size_t)256 << 10)
#define ROUNDS_MAX 4	/* each has less to copy than the one before */
#define LITTLE_PAGES (DB_CHECKPOINT_PAGES / 16) /* what the writer may copy itself */
#define AGAIN_PAGES (DB_CHECKPOINT_PAGES / 4) /* a log that could not be begun anew (an old snapshot is being read) is looked at again when it has grown by so many */

struct keeper {
	const struct db_backend *backend;
	char *path;
	int version;
	struct db_conn *conn; /* the thread's; opened when it is needed first */
	pthread_t thread;
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t changed;
	bool due, busy, finish, stop;
	int64_t seen, next; /* pages: after the last commit; when the thread is asked next */
};

bool keeper_is_asked(struct keeper *k, int64_t pages)
{
	pthread_mutex_lock(&k->lock);
	if (pages < k->seen)
		k->next = DB_CHECKPOINT_PAGES; /* it was begun anew */
	k->seen = pages;
	while (k->busy && pages >= DB_LOG_PAGES_MAX) {
		k->due = false; /* this copy, and then ours */
		pthread_cond_wait(&k->changed, &k->lock);
	}
	bool now = k->finish || (pages >= DB_LOG_PAGES_MAX && pages >= k->next);
	k->finish = false;
	if (pages >= k->next) {
		k->next = pages + AGAIN_PAGES;
		k->due = !now;
		pthread_cond_broadcast(&k->changed);
	}
	pthread_mutex_unlock(&k->lock);
	return now;
}

/* False: not now. */
static bool copy(struct keeper *k)
{
	struct error e = ERROR_INIT;
	int64_t left = LITTLE_PAGES + 1;
	enum err_code rc = k->conn ? ERR_OK : k->backend->open(k->path, DB_ROLE_READER, k->version, &k->conn, &e);
	for (int round = 0; !rc && round < ROUNDS_MAX && left > LITTLE_PAGES; round++)
		rc = k->backend->checkpoint(k->conn, &left, &e);
	if (rc)
		log_warn("the log of the database is not copied into it now: %s", e.text);
	return !rc;
}

static bool wait_until_due(struct keeper *k)
{
	pthread_mutex_lock(&k->lock);
	k->busy = false;
	pthread_cond_broadcast(&k->changed);
	while (!k->due && !k->stop)
		pthread_cond_wait(&k->changed, &k->lock);
	k->due = false;
	k->busy = !k->stop;
	pthread_mutex_unlock(&k->lock);
	return k->busy;
}

static void *keeper_main(void *arg)
{
	struct keeper *k = arg;
	while (wait_until_due(k))
		if (copy(k)) {
			pthread_mutex_lock(&k->lock);
			k->finish = true;
			pthread_mutex_unlock(&k->lock);
		}
	return NULL;
}

static void keeper_free(struct keeper *k)
{
	db_conn_close(k->conn);
	pthread_mutex_destroy(&k->lock);
	pthread_cond_destroy(&k->changed);
	free(k->path);
	free(k);
}

enum err_code keeper_start(const struct db_backend *backend, const char *path, int version, struct keeper **ret, struct error *e)
{
	struct keeper *k = NEW(struct keeper);
	k->backend = backend;
	k->path = mem_strdup(path);
	k->version = version;
	k->next = DB_CHECKPOINT_PAGES;
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->changed, NULL);
	int rc = db_thread_start(&k->thread, KEEPER_STACK_BYTES, keeper_main, k);
	if (!rc) {
		*ret = k;
		return ERR_OK;
	}
	keeper_free(k);
	errno = rc;
	return error_errno(e, "start the log's thread of the database '%s'", path);
}

void keeper_stop(struct keeper *k)
{
	if (!k)
		return;
	pthread_mutex_lock(&k->lock);
	k->stop = true;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
	pthread_join(k->thread, NULL);
	keeper_free(k);
}
