/* The front door: a queue of write ops, the writer that commits them in groups, and the pool of readers.
 *
 * Group commit without waiting: while one group's commit is being synced, the next ops queue up; the writer thread then takes all
 * of them.  Nobody sleeps to make a group bigger.  An op that finds nobody writing and nobody waiting is not handed over: its
 * caller is the writer for that one op, which spares a lone client two changes of thread (a fifth of its time). */
#include "base/check.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "db/backend.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#define WRITER_STACK_BYTES ((size_t)1 << 20)
#define READER_WAIT_S 30 /* for one of DB_READERS_MAX connections; then ERR_BUSY */

/* What a write and the rider on it are together. */
struct ridden {
	const struct db_rider *rider;
	db_op *op;
	void *arg;
};

/* One caller's op, on the caller's stack: the writer must not look at it after it has posted `done`.  Of a caller who does not wait, on the
 * heap: it is freed by whoever calls `then`. */
struct db_job {
	db_op *op;
	void *arg;
	struct error *e; /* of a caller who does not wait: NULL until there is something to tell, then on the heap */
	enum err_code rc;
	bool again; /* it may be run twice */
	db_then *then;
	void *then_arg;
	struct ridden ridden;
	sem_t done; /* where there is no `then` */
	struct db_job *next;
};

struct db {
	const struct db_backend *backend;
	char *path;
	int version;

	pthread_mutex_t queue_lock; /* guards from here to `stats` */
	pthread_cond_t queue_filled;
	struct db_job *head, **tail;
	size_t queued;
	atomic_bool crowded; /* the last group had several: those about to write are let come along, which makes groups larger */
	bool busy;	  /* somebody, `turn`, has the writer's connection */
	pthread_t turn;
	bool closing;
	void (*hook)(void *ctx);
	void *hook_ctx;
	struct db_stats stats;
	atomic_uint_fast64_t generation;

	pthread_mutex_t read_lock; /* guards the readers */
	pthread_cond_t read_freed;
	struct db_conn *idle;
	unsigned readers;	/* open connections, idle or not */

	pthread_key_t rider; /* of each thread: what goes along with its next write */

	struct db_conn *writer_conn; /* whose turn it is */
	struct keeper *keeper;
	pthread_t writer;
};

struct group {
	struct db_job *jobs[DB_GROUP_MAX];
	size_t n;
	bool careful; /* without savepoints one of them failed */
};

static void job_tell(struct db_job *job, const struct error *why)
{
	if (job->then && !job->e)
		job->e = NEW(struct error);
	if (job->e)
		*job->e = *why;
}

static void job_fail(struct db_job *job, const struct error *why)
{
	if (job->rc)
		return; /* its own failure says more */
	job->rc = why->code;
	job_tell(job, why);
}

static enum err_code job_op(struct db_conn *c, struct db_job *job)
{
	if (job->e || !job->then)
		return job->op(c, job->arg, job->e);
	struct error e = ERROR_INIT;
	enum err_code rc = job->op(c, job->arg, &e);
	e.code = rc;
	if (rc)
		job_tell(job, &e);
	return rc;
}

/* A savepoint costs a copy of every page that an op touches.  An op that is alone needs none, nor do ops that can all be run again when one of
 * them fails, which is rare. */
static bool group_is_bare(const struct group *g, size_t first)
{
	bool bare = !g->careful;
	for (size_t i = first; bare && g->n - first > 1 && i < g->n; i++)
		bare = g->jobs[i]->again;
	return bare;
}

static bool job_run_bare(struct db_conn *c, struct db_job *job)
{
	job->rc = job_op(c, job);
	db_statements_end(c);
	return job->rc == ERR_OK;
}

/* The others' turn comes once more; the failed one's too, and then alone it fails. */
static void group_take_back(struct group *g, size_t first, size_t end)
{
	g->careful = true;
	for (size_t i = first; i < end; i++) {
		g->jobs[i]->rc = ERR_OK;
		if (g->jobs[i]->e)
			error_clear(g->jobs[i]->e);
	}
}

/* Runs one op in a savepoint.  False: the whole transaction is gone, `e` says why. */
static bool job_run(struct db_conn *c, struct db_job *job, struct error *e)
{
	if (c->backend->tx(c, DB_TX_SAVE, e))
		return false;
	job->rc = job_op(c, job);
	db_statements_end(c);
	if (!c->backend->tx(c, job->rc ? DB_TX_UNDO : DB_TX_KEEP, e))
		return true;
	if (job->rc && job->e)
		*e = *job->e; /* the op's own error is the cause: its neighbours are told it, not its consequence */
	return false;
}

/* Runs jobs[first...] in one transaction and commits.  Returns the first job that was not part of it: normally the end; when
 * an op's failure took the transaction with it, the jobs behind that op. */
static size_t group_commit(struct db_conn *c, struct group *g, size_t first)
{
	struct error e = ERROR_INIT;
	size_t end = first;
	bool bare = group_is_bare(g, first);
	enum err_code rc = c->backend->tx(c, DB_TX_BEGIN_WRITE, &e);
	bool whole = !rc;
	while (whole && end < g->n) {
		struct db_job *job = g->jobs[end++];
		whole = bare ? job_run_bare(c, job) : job_run(c, job, &e);
	}
	if (whole)
		whole = !c->backend->tx(c, DB_TX_COMMIT, &e);
	if (whole)
		return end;
	c->backend->tx(c, DB_TX_ROLLBACK, NULL);
	if (bare && g->n - first > 1 && !rc && g->jobs[end - 1]->rc) {
		group_take_back(g, first, end);
		return first;
	}
	if (rc)
		end = g->n;
	if (!e.code)
		error_set(&e, ERR_IO, "the transaction was lost");
	for (size_t i = first; i < end; i++)
		job_fail(g->jobs[i], &e);
	return end;
}

static void group_finish(struct db *db, const struct group *g)
{
	size_t failed = 0;
	atomic_fetch_add(&db->generation, 1);
	for (size_t i = 0; i < g->n; i++)
		failed += g->jobs[i]->rc != ERR_OK;
	pthread_mutex_lock(&db->queue_lock);
	db->stats.ops += g->n - failed;
	db->stats.failed += failed;
	db->stats.commits += failed < g->n;
	void (*hook)(void *ctx) = failed < g->n ? db->hook : NULL;
	void *ctx = db->hook_ctx;
	pthread_mutex_unlock(&db->queue_lock);
	if (hook)
		hook(ctx);
}

static void group_run(struct db *db, struct group *g)
{
	for (size_t i = 0; i < g->n;)
		i = group_commit(db->writer_conn, g, i);
	group_finish(db, g);
	int64_t left;
	struct error e;
	if (keeper_is_asked(db->keeper, db->writer_conn->log_pages) && db->backend->checkpoint(db->writer_conn, &left, &e))
		log_warn("%s", e.text); /* what was committed is safe in the log */
}

static void turn_begin(struct db *db)
{
	db->busy = true;
	db->turn = pthread_self();
}

static void turn_end(struct db *db)
{
	pthread_mutex_lock(&db->queue_lock);
	db->busy = false;
	if (db->head || db->closing)
		pthread_cond_signal(&db->queue_filled);
	pthread_mutex_unlock(&db->queue_lock);
}

/* With the queue's lock. */
static void group_fill(struct db *db, struct group *g)
{
	while (db->head && g->n < DB_GROUP_MAX) {
		g->jobs[g->n++] = db->head;
		db->head = db->head->next;
		db->queued--;
	}
	if (!db->head)
		db->tail = &db->head;
	db->crowded = g->n > 1;
}

/* Blocks until there is work; false when there is none left and the database is being closed. */
static bool group_take(struct db *db, struct group *g)
{
	g->n = 0;
	if (db->crowded)
		sched_yield();
	pthread_mutex_lock(&db->queue_lock);
	while (db->busy || (!db->head && !db->closing))
		pthread_cond_wait(&db->queue_filled, &db->queue_lock);
	if (db->head)
		turn_begin(db);
	group_fill(db, g);
	pthread_mutex_unlock(&db->queue_lock);
	return g->n > 0;
}

static void job_finish(struct db_job *job)
{
	if (!job->then) {
		sem_post(&job->done);
		return;
	}
	job->then(job->then_arg, job->rc ? job->e : NULL);
	free(job->e);
	free(job);
}

static void *writer_main(void *arg)
{
	struct db *db = arg;
	struct group g;
	while (group_take(db, &g)) {
		group_run(db, &g);
		turn_end(db);
		for (size_t i = 0; i < g.n; i++)
			job_finish(g.jobs[i]);
	}
	return NULL;
}

/* Queues the job, or (*ret_own) gives its caller the turn. */
static enum err_code job_queue(struct db *db, struct db_job *job, bool *ret_own, struct error *e)
{
	enum err_code rc = ERR_OK;
	pthread_mutex_lock(&db->queue_lock);
	CHECK(!db->busy || !pthread_equal(pthread_self(), db->turn)); /* an op or hook that writes would wait for itself */
	/* In a crowd a caller who does not wait has better things to do than to write for the others. */
	*ret_own = !db->busy && !db->head && !db->closing && !(job->then && db->crowded);
	if (*ret_own) {
		turn_begin(db);
	} else if (db->closing) {
		rc = error_set(e, ERR_CANCELED, "the database '%s' is being closed", db->path);
	} else if (db->queued >= DB_QUEUE_MAX) {
		rc = error_set(e, ERR_BUSY, "%d writes are waiting for the database '%s'", DB_QUEUE_MAX, db->path);
		error_hint(e, "try again in a moment");
	} else {
		*db->tail = job;
		db->tail = &job->next;
		if (db->queued++ == 0 && !db->busy)
			pthread_cond_signal(&db->queue_filled);
	}
	pthread_mutex_unlock(&db->queue_lock);
	return rc;
}

/* The caller is the writer this once, for those too who queued up meanwhile. */
static void job_run_own(struct db *db, struct db_job *job)
{
	struct group g = { .n = 1 };
	g.jobs[0] = job;
	if (db->crowded)
		sched_yield();
	pthread_mutex_lock(&db->queue_lock);
	group_fill(db, &g);
	pthread_mutex_unlock(&db->queue_lock);
	group_run(db, &g);
	turn_end(db);
	for (size_t i = 1; i < g.n; i++)
		job_finish(g.jobs[i]);
}

static void job_await(struct db_job *job)
{
	while (sem_wait(&job->done) && errno == EINTR)
		;
}

static enum err_code ridden_op(struct db_conn *c, void *arg, struct error *e)
{
	const struct ridden *r = arg;
	enum err_code rc = r->rider->before(c, r->rider->arg, e);
	if (!rc)
		rc = r->op(c, r->arg, e);
	return rc ? rc : r->rider->after(c, r->rider->arg, e);
}

void db_ride(struct db *db, const struct db_rider *rider)
{
	pthread_setspecific(db->rider, rider);
}

/* Takes the thread's rider along, if there is one. */
static void job_load(struct db *db, struct db_job *job, db_op *op, void *arg, bool again, struct error *e)
{
	const struct db_rider *rider = pthread_getspecific(db->rider);
	*job = (struct db_job){ .op = op, .arg = arg, .again = again && (!rider || rider->again), .e = e };
	if (!rider)
		return;
	job->ridden = (struct ridden){ rider, op, arg };
	job->op = ridden_op;
	job->arg = &job->ridden;
	db_ride(db, NULL);
}

static enum err_code write_job(struct db *db, db_op *op, void *arg, bool again, struct error *e)
{
	struct db_job job;
	bool own = false;
	job_load(db, &job, op, arg, again, e);
	sem_init(&job.done, 0, 0);
	enum err_code rc = job_queue(db, &job, &own, e);
	if (own)
		job_run_own(db, &job);
	else if (!rc)
		job_await(&job);
	sem_destroy(&job.done);
	return rc ? rc : job.rc;
}

enum err_code db_write_later(struct db *db, db_op *op, void *arg, db_then *then, void *then_arg, struct error *e)
{
	struct db_job *job = NEW(struct db_job);
	bool own = false;
	job_load(db, job, op, arg, true, NULL);
	job->then = then;
	job->then_arg = then_arg;
	enum err_code rc = job_queue(db, job, &own, e);
	if (rc) {
		free(job);
		return rc;
	}
	if (own) {
		job_run_own(db, job);
		job_finish(job);
	}
	return ERR_OK;
}

enum err_code db_write(struct db *db, db_op *op, void *arg, struct error *e)
{
	return write_job(db, op, arg, false, e);
}

enum err_code db_write_again(struct db *db, db_op *op, void *arg, struct error *e)
{
	return write_job(db, op, arg, true, e);
}

/* An idle reader, or leave to open one more (NULL with ERR_OK), or ERR_BUSY when all stay in use for too long. */
static enum err_code reader_claim(struct db *db, struct db_conn **ret, struct error *e)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += READER_WAIT_S;
	int rc = 0;
	pthread_mutex_lock(&db->read_lock);
	while (!db->idle && db->readers >= DB_READERS_MAX && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&db->read_freed, &db->read_lock, &until);
	*ret = db->idle;
	bool may_open = !db->idle && db->readers < DB_READERS_MAX;
	if (db->idle)
		db->idle = db->idle->next;
	else if (may_open)
		db->readers++;
	pthread_mutex_unlock(&db->read_lock);
	if (*ret || may_open)
		return ERR_OK;
	return error_set(e, ERR_BUSY, "all %d readers of the database '%s' were in use for %d s", DB_READERS_MAX, db->path, READER_WAIT_S);
}

static void reader_release(struct db *db, struct db_conn *c)
{
	pthread_mutex_lock(&db->read_lock);
	if (c) {
		c->next = db->idle;
		db->idle = c;
	} else {
		db->readers--;
	}
	pthread_cond_signal(&db->read_freed);
	pthread_mutex_unlock(&db->read_lock);
}

static enum err_code read_run(struct db_conn *c, db_op *op, void *arg, struct error *e)
{
	enum err_code rc = c->backend->tx(c, DB_TX_BEGIN_READ, e);
	if (rc)
		return rc;
	rc = op(c, arg, e);
	db_statements_end(c);
	c->backend->tx(c, DB_TX_ROLLBACK, NULL); /* nothing was written; this ends the snapshot */
	return rc;
}

enum err_code db_read(struct db *db, db_op *op, void *arg, struct error *e)
{
	struct db_conn *c = NULL;
	enum err_code rc = reader_claim(db, &c, e);
	if (rc)
		return rc;
	if (!c)
		rc = db->backend->open(db->path, DB_ROLE_READER, db->version, &c, e);
	if (!rc)
		rc = read_run(c, op, arg, e);
	reader_release(db, c);
	return rc;
}

void db_on_commit(struct db *db, void (*hook)(void *ctx), void *ctx)
{
	pthread_mutex_lock(&db->queue_lock);
	db->hook = hook;
	db->hook_ctx = ctx;
	pthread_mutex_unlock(&db->queue_lock);
}

uint64_t db_generation(struct db *db)
{
	return atomic_load(&db->generation);
}

bool db_others_wait(struct db *db)
{
	pthread_mutex_lock(&db->queue_lock);
	bool wait = db->queued > 0;
	pthread_mutex_unlock(&db->queue_lock);
	return wait;
}

void db_stats(struct db *db, struct db_stats *ret)
{
	pthread_mutex_lock(&db->queue_lock);
	*ret = db->stats;
	ret->queued_now = db->queued;
	pthread_mutex_unlock(&db->queue_lock);
}

static struct db *db_new(const char *path, struct db_conn *writer_conn)
{
	struct db *db = NEW(struct db);
	db->backend = writer_conn->backend;
	db->version = writer_conn->version;
	db->path = mem_strdup(path);
	db->writer_conn = writer_conn;
	db->tail = &db->head;
	pthread_mutex_init(&db->queue_lock, NULL);
	pthread_cond_init(&db->queue_filled, NULL);
	pthread_mutex_init(&db->read_lock, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&db->read_freed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	CHECK(pthread_key_create(&db->rider, NULL) == 0);
	return db;
}

static void db_free(struct db *db)
{
	while (db->idle) {
		struct db_conn *next = db->idle->next;
		db_conn_close(db->idle);
		db->idle = next;
	}
	keeper_stop(db->keeper);
	db_conn_close(db->writer_conn); /* last, so that it is the one that checkpoints */
	pthread_mutex_destroy(&db->queue_lock);
	pthread_cond_destroy(&db->queue_filled);
	pthread_mutex_destroy(&db->read_lock);
	pthread_cond_destroy(&db->read_freed);
	pthread_key_delete(db->rider);
	free(db->path);
	free(db);
}

/* Signals are the main thread's business. */
int db_thread_start(pthread_t *ret, size_t stack_bytes, void *(*run)(void *arg), void *arg)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int rc = thread_start(ret, stack_bytes, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

static enum err_code writer_start(struct db *db, struct error *e)
{
	int rc = db_thread_start(&db->writer, WRITER_STACK_BYTES, writer_main, db);
	if (!rc)
		return ERR_OK;
	errno = rc;
	return error_errno(e, "start the writer of the database '%s'", db->path);
}

enum err_code db_open(const char *path, const struct db_migration *migrations, size_t n, struct db **ret, struct error *e)
{
	struct db_conn *c = NULL;
	enum err_code rc = db_sqlite.open(path, DB_ROLE_WRITER, (int)n, &c, e);
	if (rc)
		return rc;
	rc = db_migrate(c, path, migrations, n, e);
	if (rc) {
		db_conn_close(c);
		return error_wrap(e, "migrate '%s'", path);
	}
	struct db *db = db_new(path, c);
	rc = keeper_start(db->backend, path, db->version, &db->keeper, e);
	if (!rc)
		rc = writer_start(db, e);
	if (rc)
		db_free(db);
	else
		*ret = db;
	return rc;
}

void db_close(struct db *db)
{
	if (!db)
		return;
	pthread_mutex_lock(&db->queue_lock);
	db->closing = true;
	pthread_cond_signal(&db->queue_filled);
	pthread_mutex_unlock(&db->queue_lock);
	pthread_join(db->writer, NULL);
	db_free(db);
}
