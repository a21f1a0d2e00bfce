/* Reads and writes: what is acknowledged is there, what failed is not, and one op's failure is its own. */
#include "base/mem.h"
#include "base/str.h"
#include "db_site.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLERS 32
#define OPS_EACH 100
#define KILLS 8
#define ACKS_BEFORE_KILL 300
#define BLOB_BYTES 20000

static const struct db_migration migrations[] = {
	{ 1, "first", "CREATE TABLE t (x INTEGER PRIMARY KEY, s TEXT, b BLOB); CREATE TABLE child (t INTEGER NOT NULL REFERENCES t (x));" },
};

static int setup(void **state)
{
	return db_site_setup(state, migrations);
}

struct ask { const char *sql; int64_t arg, n; char *text; };

static enum err_code op_ask(struct db_conn *c, void *arg, struct error *e)
{
	struct ask *a = arg;
	struct db_stmt *s = NULL;
	bool row = false;
	enum err_code rc = db_prepare(c, a->sql, &s, e);
	if (rc)
		return rc;
	if (strchr(a->sql, '?'))
		db_bind_int(s, 1, a->arg);
	rc = db_step(s, &row, e);
	if (!rc && row) {
		a->n = db_int(s, 0);
		free(a->text);
		a->text = mem_strdup(db_text(s, 0));
	}
	return rc;
}

static int64_t ask(struct db *db, const char *sql, int64_t arg)
{
	struct error e = ERROR_INIT;
	struct ask a = { sql, arg, -1, NULL };
	if (db_read(db, op_ask, &a, &e))
		fail_msg("%s: %s", sql, e.text);
	free(a.text);
	return a.n;
}

static enum err_code op_insert(struct db_conn *c, void *arg, struct error *e)
{
	return db_exec(c, e, "INSERT INTO t (x, s) VALUES (?, ?)", "is", *(int64_t *)arg, "text");
}

static enum err_code op_insert_and_fail(struct db_conn *c, void *arg, struct error *e)
{
	enum err_code rc = op_insert(c, arg, e);
	return rc ? rc : error_set(e, ERR_STALE, "no");
}

static void what_was_written_is_read(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	int64_t x = INT64_MIN;
	assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_OK);
	assert_int_equal(ask(f->db, "SELECT x FROM t", 0), x);
	db_site_reopen(f, migrations);
	assert_int_equal(ask(f->db, "SELECT x FROM t", 0), x);
}

static void a_failed_op_is_undone_and_keeps_its_own_error(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	int64_t x = 1;
	assert_int_equal(db_write(f->db, op_insert_and_fail, &x, &e), ERR_STALE);
	assert_string_equal(e.text, "no");
	assert_int_equal(ask(f->db, "SELECT count(*) FROM t", 0), 0);
	assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_OK);
}

struct companion {
	int64_t x;
	enum err_code before, after;
	int rides;
};

static enum err_code op_before(struct db_conn *c UNUSED, void *arg, struct error *e)
{
	struct companion *k = arg;
	k->rides++;
	return k->before ? error_set(e, k->before, "before") : ERR_OK;
}

static enum err_code op_after(struct db_conn *c, void *arg, struct error *e)
{
	struct companion *k = arg;
	enum err_code rc = op_insert(c, &k->x, e);
	return rc || !k->after ? rc : error_set(e, k->after, "after");
}

static void a_rider_shares_the_fate_of_the_write_it_goes_with(void **state)
{
	struct db_site *f = *state;
	static const struct { enum err_code before, after; db_op *op; enum err_code rc; int64_t rows; } cases[] = {
		{ ERR_OK, ERR_OK, op_insert, ERR_OK, 2 }, { ERR_GONE, ERR_OK, op_insert, ERR_GONE, 0 },
		{ ERR_OK, ERR_BUSY, op_insert, ERR_BUSY, 0 }, { ERR_OK, ERR_OK, op_insert_and_fail, ERR_STALE, 0 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error e = ERROR_INIT;
		int64_t x = (int64_t)i * 10, rows = ask(f->db, "SELECT COUNT(*) FROM t", 0);
		struct companion k = { .x = x + 1, .before = cases[i].before, .after = cases[i].after };
		const struct db_rider rider = { .before = op_before, .after = op_after, .arg = &k };
		db_ride(f->db, &rider);
		assert_int_equal(db_write(f->db, cases[i].op, &x, &e), cases[i].rc);
		assert_int_equal(ask(f->db, "SELECT COUNT(*) FROM t", 0), rows + cases[i].rows);
		assert_int_equal(k.rides, 1);
		x = (int64_t)i * 10 + 5; /* it rides once */
		assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_OK);
		assert_int_equal(k.rides, 1);
	}
}

static void a_rider_that_was_taken_back_does_not_ride(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	int64_t x = 1;
	struct companion k = { .x = 2 };
	const struct db_rider rider = { .before = op_before, .after = op_after, .arg = &k };
	db_ride(f->db, &rider);
	db_ride(f->db, NULL);
	assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_OK);
	assert_int_equal(k.rides, 0);
}

static void a_violated_constraint_is_a_conflict(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	int64_t x = 1;
	assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_OK);
	assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_CONFLICT);
	assert_non_null(strstr(e.text, "t.x"));
}

static enum err_code op_orphan(struct db_conn *c, void *arg, struct error *e)
{
	(void)arg;
	return db_exec(c, e, "INSERT INTO child (t) VALUES (?)", "i", (int64_t)99);
}

static void foreign_keys_are_enforced(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	assert_int_equal(db_write(f->db, op_orphan, NULL, &e), ERR_CONFLICT);
}

static void a_reader_cannot_write(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	int64_t x = 1;
	assert_int_not_equal(db_read(f->db, op_insert, &x, &e), ERR_OK);
	assert_int_equal(ask(f->db, "SELECT count(*) FROM t", 0), 0);
}

static enum err_code op_values(struct db_conn *c, void *arg, struct error *e)
{
	(void)arg;
	struct db_stmt *s = NULL, *same = NULL;
	bool row = false;
	size_t n = 0;
	assert_int_equal(db_exec(c, e, "INSERT INTO t (x, s, b) VALUES (?, ?, ?)", "isn", (int64_t)1, "a"), ERR_OK);
	assert_int_equal(db_prepare(c, "INSERT INTO t (x, s, b) VALUES (?, ?, ?)", &s, e), ERR_OK);
	db_bind_int(s, 1, 2);
	db_bind_text(s, 2, NULL);
	db_bind_blob(s, 3, "a\0b", 3);
	assert_int_equal(db_step(s, &row, e), ERR_OK);
	assert_false(row);
	db_done(s);
	assert_int_equal(db_exec(c, e, "UPDATE t SET x = x + 10", ""), ERR_OK);
	assert_int_equal(db_changes(c), 2);
	assert_int_equal(db_prepare(c, "SELECT x, s, b FROM t ORDER BY x", &s, e), ERR_OK);
	assert_int_equal(db_prepare(c, "SELECT x, s, b FROM t ORDER BY x", &same, e), ERR_OK); /* while it is in use */
	assert_int_equal(db_step(s, &row, e), ERR_OK);
	assert_int_equal(db_step(same, &row, e), ERR_OK);
	assert_int_equal(db_int(same, 0), 11);
	db_done(same);
	assert_string_equal(db_text(s, 1), "a");
	assert_true(db_is_null(s, 2));
	assert_int_equal(db_step(s, &row, e), ERR_OK);
	assert_true(row);
	assert_null(db_text(s, 1));
	assert_memory_equal(db_blob(s, 2, &n), "a\0b", 3);
	assert_int_equal(n, 3);
	return db_step(s, &row, e); /* and left open: the op's end closes it */
}

static void values_of_all_kinds_go_in_and_out(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	assert_int_equal(db_write(f->db, op_values, NULL, &e), ERR_OK);
	assert_int_equal(ask(f->db, "SELECT count(*) FROM t", 0), 2);
}

static enum err_code op_many_statements(struct db_conn *c, void *arg, struct error *e)
{
	enum err_code rc = ERR_OK;
	for (int i = 0; !rc && i < 300; i++) {
		AUTO_FREE char *sql = mem_printf("SELECT %d", i % 150);
		struct db_stmt *s = NULL;
		bool row = false;
		rc = db_prepare(c, sql, &s, e);
		if (!rc)
			rc = db_step(s, &row, e);
		if (!rc)
			*(int64_t *)arg += db_int(s, 0);
		if (i % 3)
			db_done(s);
	}
	return rc;
}

static void more_statements_than_the_cache_holds_work(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	int64_t sum = 0;
	assert_int_equal(db_read(f->db, op_many_statements, &sum, &e), ERR_OK);
	assert_int_equal(sum, 149 * 150);
}

static void a_bad_statement_is_an_error_that_says_it(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	struct ask two = { .sql = "SELECT 1; SELECT 2" }, none = { .sql = "SELECT * FROM nowhere" };
	assert_int_equal(db_read(f->db, op_ask, &two, &e), ERR_INTERNAL);
	assert_int_equal(db_read(f->db, op_ask, &none, &e), ERR_INTERNAL);
	assert_non_null(strstr(e.text, "nowhere"));
}

/* Many callers at once; every third op fails after it has written. */
struct crowd {
	struct db *db;
	bool again; /* the ops say that they may be run again */
	atomic_int hooks, acknowledged, refused;
};

struct caller { struct crowd *crowd; int64_t first; };

static void *call_in_a_crowd(void *arg)
{
	struct caller *me = arg;
	for (int64_t x = me->first; x < me->first + OPS_EACH; x++) {
		struct error e = ERROR_INIT;
		int64_t id = x;
		enum err_code rc = (me->crowd->again ? db_write_again : db_write)(me->crowd->db, x % 3 ? op_insert : op_insert_and_fail, &id, &e);
		if (rc == ERR_OK && x % 3 && ask(me->crowd->db, "SELECT count(*) FROM t WHERE x = ?", x) == 1)
			me->crowd->acknowledged++;
		if (rc == ERR_STALE && x % 3 == 0 && ask(me->crowd->db, "SELECT count(*) FROM t WHERE x = ?", x) == 0)
			me->crowd->refused++;
	}
	return NULL;
}

static void count_hook(void *ctx)
{
	((struct crowd *)ctx)->hooks++;
}

static void crowd_has_its_fates(struct db_site *f, bool again)
{
	struct crowd crowd = { .db = f->db, .again = again };
	struct caller callers[CALLERS];
	pthread_t threads[CALLERS];
	db_on_commit(f->db, count_hook, &crowd);
	for (int i = 0; i < CALLERS; i++) {
		callers[i] = (struct caller){ &crowd, i * OPS_EACH };
		assert_int_equal(pthread_create(&threads[i], NULL, call_in_a_crowd, &callers[i]), 0);
	}
	for (int i = 0; i < CALLERS; i++)
		pthread_join(threads[i], NULL);
	int refused = (CALLERS * OPS_EACH + 2) / 3;
	struct db_stats stats;
	db_stats(f->db, &stats);
	assert_int_equal(crowd.refused, refused);
	assert_int_equal(crowd.acknowledged, CALLERS * OPS_EACH - refused);
	assert_int_equal(stats.ops, crowd.acknowledged);
	assert_int_equal(stats.failed, refused);
	assert_int_equal(stats.queued_now, 0);
	assert_true(stats.commits <= stats.ops);
	assert_int_equal(crowd.hooks, stats.commits);
	assert_int_equal(ask(f->db, "SELECT count(*) FROM t", 0), crowd.acknowledged);
}

static void in_a_crowd_each_op_has_its_own_fate(void **state)
{
	crowd_has_its_fates(*state, false);
}

static void in_a_crowd_of_ops_that_may_be_run_again_each_has_its_own_fate(void **state)
{
	crowd_has_its_fates(*state, true);
}

static void the_hook_runs_before_the_caller_goes_on(void **state)
{
	struct db_site *f = *state;
	struct crowd crowd = { .db = f->db };
	struct error e = ERROR_INIT;
	db_on_commit(f->db, count_hook, &crowd);
	for (int64_t x = 1; x <= 20; x++) {
		assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_OK);
		assert_int_equal(crowd.hooks, x);
	}
	int64_t x = 1;
	assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_CONFLICT);
	assert_int_equal(crowd.hooks, 20);
}

static enum err_code op_snapshot(struct db_conn *c, void *arg, struct error *e)
{
	struct db_site *f = arg;
	struct error other = ERROR_INIT;
	struct ask a = { .sql = "SELECT count(*) FROM t" };
	int64_t x = 5;
	assert_int_equal(op_ask(c, &a, e), ERR_OK);
	int64_t before = a.n;
	assert_int_equal(db_write(f->db, op_insert, &x, &other), ERR_OK);
	assert_int_equal(op_ask(c, &a, e), ERR_OK);
	assert_int_equal(a.n, before);
	free(a.text);
	return ERR_OK;
}

static void a_read_sees_one_moment(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	assert_int_equal(db_read(f->db, op_snapshot, f, &e), ERR_OK);
	assert_int_equal(ask(f->db, "SELECT count(*) FROM t", 0), 1);
}

static enum err_code op_blob(struct db_conn *c, void *arg, struct error *e)
{
	static const char zeros[BLOB_BYTES];
	struct db_stmt *s = NULL;
	bool row;
	enum err_code rc = db_prepare(c, "INSERT INTO t (x, b) VALUES (?, ?)", &s, e);
	if (rc)
		return rc;
	db_bind_int(s, 1, *(int64_t *)arg);
	db_bind_blob(s, 2, zeros, sizeof(zeros));
	return db_step(s, &row, e);
}

struct filler { struct db *db; int64_t first; atomic_int *failed; bool acknowledged[OPS_EACH]; };

static void *fill(void *arg)
{
	struct filler *me = arg;
	for (int i = 0; i < OPS_EACH; i++) {
		struct error e = ERROR_INIT;
		int64_t x = me->first + i;
		me->acknowledged[i] = db_write(me->db, op_blob, &x, &e) == ERR_OK;
		if (!me->acknowledged[i] && (*me->failed)++ == 0)
			assert_non_null(strstr(e.text, "x.db"));
	}
	return NULL;
}

/* All write more than there is room for; then exactly the acknowledged rows are there, also after reopening, and once there is
 * room again the writer goes on. */
static void check_full(struct db_site *f, int64_t first)
{
	struct filler fillers[8] = { 0 };
	pthread_t threads[8];
	atomic_int failed = 0;
	for (int i = 0; i < 8; i++) {
		fillers[i].db = f->db;
		fillers[i].first = first + i * OPS_EACH;
		fillers[i].failed = &failed;
		assert_int_equal(pthread_create(&threads[i], NULL, fill, &fillers[i]), 0);
	}
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	assert_true(failed > 0);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 8 * OPS_EACH; i++)
			assert_int_equal(ask(f->db, "SELECT count(*) FROM t WHERE x = ?", first + i), fillers[i / OPS_EACH].acknowledged[i % OPS_EACH]);
		if (round == 0)
			db_site_reopen(f, migrations);
	}
}

static void a_full_disk_acknowledges_nothing_falsely_and_the_writer_recovers(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	struct rlimit before, small;
	int64_t x = 1;
	signal(SIGXFSZ, SIG_IGN); /* then write() says EFBIG */
	assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_OK);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	small = before;
	small.rlim_cur = (rlim_t)4 << 20;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	check_full(f, 1000);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	x = 2;
	assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_OK);
	assert_int_equal(ask(f->db, "SELECT count(*) FROM t WHERE x <= 2", 0), 2);
}

static enum err_code op_pages_max(struct db_conn *c, void *arg, struct error *e)
{
	return op_ask(c, arg, e);
}

static void a_full_database_acknowledges_nothing_falsely_and_the_writer_recovers(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	struct ask few = { .sql = "PRAGMA max_page_count = 1000" };
	int64_t x = 1;
	assert_int_equal(db_write(f->db, op_pages_max, &few, &e), ERR_OK);
	free(few.text);
	check_full(f, 1000); /* its reopening takes the limit away */
	assert_int_equal(db_write(f->db, op_insert, &x, &e), ERR_OK);
	assert_int_equal(ask(f->db, "SELECT count(*) FROM t WHERE x = 1", 0), 1);
}

struct mortal { struct db *db; int64_t first; int out; };

static void *write_and_tell(void *arg)
{
	struct mortal *me = arg;
	for (int64_t x = me->first;; x++) {
		struct error e = ERROR_INIT;
		if (db_write(me->db, op_insert, &x, &e) || write(me->out, &x, sizeof(x)) != sizeof(x))
			return NULL;
	}
}

static void live_until_killed(const char *path, int out, int64_t base)
{
	struct error e = ERROR_INIT;
	struct mortal callers[8];
	pthread_t threads[8];
	struct db *db = NULL;
	if (db_open(path, migrations, 1, &db, &e))
		_exit(1);
	for (int i = 0; i < 8; i++) {
		callers[i] = (struct mortal){ db, base + i * 1000000, out };
		pthread_create(&threads[i], NULL, write_and_tell, &callers[i]);
	}
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

static int acknowledged_until_killed(struct db_site *f, int64_t base, int64_t *ret_ids)
{
	int pipes[2], status, n = 0;
	assert_int_equal(pipe(pipes), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(pipes[0]);
		live_until_killed(f->path, pipes[1], base);
	}
	close(pipes[1]);
	while (read(pipes[0], &ret_ids[n], sizeof(*ret_ids)) == sizeof(*ret_ids) && n < 100 * ACKS_BEFORE_KILL)
		if (++n == ACKS_BEFORE_KILL)
			kill(pid, SIGKILL); /* what it told until it died is still in the pipe */
	close(pipes[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	return n;
}

static void what_was_acknowledged_survives_kill_9(void **state)
{
	struct db_site *f = *state;
	AUTO_FREE int64_t *ids = mem_alloc(sizeof(*ids) * (100 * ACKS_BEFORE_KILL + 1));
	for (int64_t round = 0; round < KILLS; round++) {
		db_close(TAKE_PTR(f->db));
		int n = acknowledged_until_killed(f, (round + 1) * 100000000, ids);
		assert_true(n >= ACKS_BEFORE_KILL);
		db_site_reopen(f, migrations);
		for (int i = 0; i < n; i++)
			assert_int_equal(ask(f->db, "SELECT count(*) FROM t WHERE x = ?", ids[i]), 1);
	}
	struct error e = ERROR_INIT;
	struct ask check = { .sql = "PRAGMA integrity_check" };
	assert_int_equal(db_read(f->db, op_ask, &check, &e), ERR_OK);
	assert_string_equal(check.text, "ok");
	free(check.text);
}

#define WITH_DB(test) cmocka_unit_test_setup_teardown(test, setup, db_site_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_DB(what_was_written_is_read),
		WITH_DB(a_failed_op_is_undone_and_keeps_its_own_error),
		WITH_DB(a_rider_shares_the_fate_of_the_write_it_goes_with),
		WITH_DB(a_rider_that_was_taken_back_does_not_ride),
		WITH_DB(a_violated_constraint_is_a_conflict),
		WITH_DB(foreign_keys_are_enforced),
		WITH_DB(a_reader_cannot_write),
		WITH_DB(values_of_all_kinds_go_in_and_out),
		WITH_DB(more_statements_than_the_cache_holds_work),
		WITH_DB(a_bad_statement_is_an_error_that_says_it),
		WITH_DB(in_a_crowd_each_op_has_its_own_fate), WITH_DB(in_a_crowd_of_ops_that_may_be_run_again_each_has_its_own_fate),
		WITH_DB(the_hook_runs_before_the_caller_goes_on),
		WITH_DB(a_read_sees_one_moment),
		WITH_DB(a_full_disk_acknowledges_nothing_falsely_and_the_writer_recovers),
		WITH_DB(a_full_database_acknowledges_nothing_falsely_and_the_writer_recovers),
		WITH_DB(what_was_acknowledged_survives_kill_9),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
