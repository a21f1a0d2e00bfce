/* Writes without a thread that waits: each caller is told once, when its row is there or why it is not; and long work that lets others write. */
#include "base/mem.h"
#include "base/str.h"
#include "db_site.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>

#define CALLERS 8
#define OPS_EACH 200
#define BLOB_BYTES 20000

static const struct db_migration migrations[] = {
	{ 1, "first", "CREATE TABLE t (x INTEGER PRIMARY KEY, b BLOB);" },
};

struct fixture {
	struct db_site site;
	pthread_mutex_t lock; /* guards what is told */
	pthread_cond_t told;
	int heard;
};

static int setup(void **state)
{
	struct fixture *f = NEW(struct fixture);
	db_site_make(&f->site, migrations);
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->told, NULL);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	db_site_remove(&f->site);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->told);
	free(f);
	return 0;
}

static enum err_code op_count(struct db_conn *c, void *arg, struct error *e)
{
	int64_t *x = arg;
	return db_number(c, e, x, "SELECT count(*) FROM t WHERE ?1 < 0 OR x = ?1", "i", *x);
}

/* How often the row is there; of all rows when x is negative. */
static int64_t count(struct db *db, int64_t x)
{
	struct error e = ERROR_INIT;
	if (db_read(db, op_count, &x, &e))
		fail_msg("%s", e.text);
	return x;
}

struct wish {
	struct fixture *f;
	int64_t x;
	bool refuses, blob;
	int calls;
	enum err_code rc;
	bool names_file;
	int64_t there; /* the row, as another connection sees it when we are told */
};

static enum err_code op_wish(struct db_conn *c, void *arg, struct error *e)
{
	struct wish *w = arg;
	static const char zeros[BLOB_BYTES];
	struct db_stmt *s = NULL;
	bool row;
	enum err_code rc = db_prepare(c, "INSERT INTO t (x, b) VALUES (?, ?)", &s, e);
	if (rc)
		return rc;
	db_bind_int(s, 1, w->x);
	db_bind_blob(s, 2, zeros, w->blob ? sizeof(zeros) : 1);
	rc = db_step(s, &row, e);
	return rc || !w->refuses ? rc : error_set(e, ERR_STALE, "no");
}

static void hear(void *arg, const struct error *e)
{
	struct wish *w = arg;
	w->rc = e ? e->code : ERR_OK;
	w->names_file = e && strstr(e->text, "x.db");
	w->there = count(w->f->site.db, w->x);
	pthread_mutex_lock(&w->f->lock);
	w->calls++;
	w->f->heard++;
	pthread_cond_broadcast(&w->f->told);
	pthread_mutex_unlock(&w->f->lock);
}

static void await(struct fixture *f, int heard)
{
	pthread_mutex_lock(&f->lock);
	while (f->heard < heard)
		pthread_cond_wait(&f->told, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

static void wish(struct fixture *f, struct wish *w, int64_t x)
{
	struct error e = ERROR_INIT;
	w->f = f;
	w->x = x;
	if (db_write_later(f->site.db, op_wish, w, hear, w, &e))
		fail_msg("%s", e.text);
}

static void who_does_not_wait_is_told_when_the_row_is_there(void **state)
{
	struct fixture *f = *state;
	struct wish w = { 0 };
	wish(f, &w, 7);
	await(f, 1);
	assert_int_equal(w.rc, ERR_OK);
	assert_int_equal(w.there, 1);
	db_site_reopen(&f->site, migrations);
	assert_int_equal(count(f->site.db, 7), 1);
}

struct caller { struct fixture *f; int64_t first; bool blob; struct wish wishes[OPS_EACH]; };

static void *call_in_a_crowd(void *arg)
{
	struct caller *me = arg;
	for (int i = 0; i < OPS_EACH; i++) {
		me->wishes[i].refuses = !me->blob && i % 3 == 0;
		me->wishes[i].blob = me->blob;
		wish(me->f, &me->wishes[i], me->first + i);
	}
	return NULL;
}

static struct caller *crowd(struct fixture *f, bool blob)
{
	struct caller *callers = mem_alloc(CALLERS * sizeof(*callers));
	pthread_t threads[CALLERS];
	for (int i = 0; i < CALLERS; i++) {
		callers[i].f = f;
		callers[i].first = i * OPS_EACH;
		callers[i].blob = blob;
		assert_int_equal(pthread_create(&threads[i], NULL, call_in_a_crowd, &callers[i]), 0);
	}
	for (int i = 0; i < CALLERS; i++)
		pthread_join(threads[i], NULL);
	await(f, CALLERS * OPS_EACH);
	return callers;
}

static void in_a_crowd_each_is_told_once_and_has_its_own_fate(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE struct caller *callers = crowd(f, false);
	int64_t kept = 0;
	for (int i = 0; i < CALLERS * OPS_EACH; i++) {
		const struct wish *w = &callers[i / OPS_EACH].wishes[i % OPS_EACH];
		assert_int_equal(w->calls, 1);
		assert_int_equal(w->rc, w->refuses ? ERR_STALE : ERR_OK);
		assert_int_equal(w->there, !w->refuses);
		kept += !w->refuses;
	}
	assert_int_equal(count(f->site.db, -1), kept);
}

static void what_finds_no_room_is_told_so_and_is_not_there(void **state)
{
	struct fixture *f = *state;
	struct rlimit before, small;
	int refused = 0;
	signal(SIGXFSZ, SIG_IGN); /* then write() says EFBIG */
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = (rlim_t)4 << 20;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	AUTO_FREE struct caller *callers = crowd(f, true);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	db_site_reopen(&f->site, migrations);
	for (int i = 0; i < CALLERS * OPS_EACH; i++) {
		const struct wish *w = &callers[i / OPS_EACH].wishes[i % OPS_EACH];
		assert_int_equal(w->calls, 1);
		assert_int_equal(count(f->site.db, w->x), w->rc == ERR_OK);
		assert_int_equal(w->names_file, w->rc != ERR_OK);
		refused += w->rc != ERR_OK;
	}
	assert_true(refused > 0);
}

static void closing_finishes_what_was_taken(void **state)
{
	struct fixture *f = *state;
	struct wish wishes[OPS_EACH] = { 0 };
	for (int i = 0; i < OPS_EACH; i++) {
		struct error e = ERROR_INIT;
		wishes[i] = (struct wish){ .f = f, .x = i };
		assert_int_equal(db_write_later(f->site.db, op_wish, &wishes[i], hear, &wishes[i], &e), ERR_OK);
	}
	db_site_reopen(&f->site, migrations);
	assert_int_equal(f->heard, OPS_EACH);
	assert_int_equal(count(f->site.db, -1), OPS_EACH);
}

struct companion { int64_t x; int rides; };

static enum err_code op_before(struct db_conn *c UNUSED, void *arg, struct error *e UNUSED)
{
	((struct companion *)arg)->rides++;
	return ERR_OK;
}

static enum err_code op_after(struct db_conn *c, void *arg, struct error *e)
{
	return db_exec(c, e, "INSERT INTO t (x) VALUES (?)", "i", ((struct companion *)arg)->x);
}

static void a_rider_goes_along(void **state)
{
	struct fixture *f = *state;
	for (int refuses = 0; refuses < 2; refuses++) {
		struct companion k = { .x = 100 + refuses };
		struct wish w = { .refuses = refuses };
		const struct db_rider rider = { .before = op_before, .after = op_after, .arg = &k };
		db_ride(f->site.db, &rider);
		wish(f, &w, refuses);
		await(f, refuses + 1);
		assert_int_equal(k.rides, 1);
		assert_int_equal(count(f->site.db, k.x), !refuses);
		assert_int_equal(count(f->site.db, w.x), !refuses);
	}
}

static enum err_code op_until_others_wait(struct db_conn *c UNUSED, void *arg, struct error *e UNUSED)
{
	struct fixture *f = arg;
	pthread_mutex_lock(&f->lock);
	f->heard = 1; /* it runs */
	pthread_cond_broadcast(&f->told);
	pthread_mutex_unlock(&f->lock);
	while (!db_others_wait(f->site.db))
		;
	return ERR_OK;
}

static void *write_beside(void *arg)
{
	struct fixture *f = arg;
	struct error e = ERROR_INIT;
	await(f, 1);
	struct wish w = { .f = f, .x = 1 };
	return (void *)(intptr_t)db_write(f->site.db, op_wish, &w, &e);
}

static void a_long_op_hears_that_others_wait(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	pthread_t beside;
	void *rc = NULL;
	assert_false(db_others_wait(f->site.db));
	assert_int_equal(pthread_create(&beside, NULL, write_beside, f), 0);
	assert_int_equal(db_write(f->site.db, op_until_others_wait, f, &e), ERR_OK);
	pthread_join(beside, &rc);
	assert_null(rc);
	assert_int_equal(count(f->site.db, 1), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(who_does_not_wait_is_told_when_the_row_is_there, setup, teardown),
		cmocka_unit_test_setup_teardown(in_a_crowd_each_is_told_once_and_has_its_own_fate, setup, teardown),
		cmocka_unit_test_setup_teardown(what_finds_no_room_is_told_so_and_is_not_there, setup, teardown),
		cmocka_unit_test_setup_teardown(closing_finishes_what_was_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(a_rider_goes_along, setup, teardown),
		cmocka_unit_test_setup_teardown(a_long_op_hears_that_others_wait, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
