/* The log is copied into the database beside the writes, and begun anew: it does not grow for ever. */
#include "base/mem.h"
#include "db/backend.h"
#include "db_site.h"
#include <fcntl.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define PAGE_BYTES 4096
#define BLOB_BYTES (1 << 20)
#define BLOBS_MAX (DB_LOG_PAGES_MAX / (BLOB_BYTES / PAGE_BYTES) + 16) /* by then the writer itself has copied the log */
#define BLOBS_UNTIL_ASKED (DB_CHECKPOINT_PAGES / (BLOB_BYTES / PAGE_BYTES) + 2)

static const struct db_migration migrations[] = {
	{ 1, "first", "CREATE TABLE t (x INTEGER PRIMARY KEY, b BLOB);" },
};

static int setup(void **state)
{
	return db_site_setup(state, migrations);
}

static enum err_code op_blob(struct db_conn *c, void *arg, struct error *e)
{
	static const char zeros[BLOB_BYTES];
	struct db_stmt *s = NULL;
	bool row;
	enum err_code rc = db_prepare(c, "INSERT INTO t (x, b) VALUES (?, ?)", &s, e);
	if (rc)
		return rc;
	db_bind_int(s, 1, ++*(int64_t *)arg);
	db_bind_blob(s, 2, zeros, sizeof(zeros));
	return db_step(s, &row, e);
}

static void write_blob(struct db_site *f)
{
	struct error e = ERROR_INIT;
	if (db_write(f->db, op_blob, &f->rows, &e))
		fail_msg("%s", e.text);
}

/* Two numbers in its head that change with each beginning. */
static uint64_t beginning(const struct db_site *f)
{
	uint64_t salts = 0;
	AUTO_CLOSE int fd = open(f->log, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &salts, sizeof(salts), 16), sizeof(salts));
	return salts;
}

static void write_until_it_begins_anew(struct db_site *f)
{
	uint64_t first = beginning(f);
	int blobs = 0;
	while (beginning(f) == first && blobs++ < BLOBS_MAX)
		write_blob(f);
	assert_in_range(blobs, 0, BLOBS_MAX);
}

static enum err_code op_count(struct db_conn *c, void *arg, struct error *e)
{
	return db_number(c, e, arg, "SELECT count(*) FROM t", "");
}

static void check_rows(struct db_site *f)
{
	struct error e = ERROR_INIT;
	int64_t n = 0;
	assert_int_equal(db_read(f->db, op_count, &n, &e), ERR_OK);
	assert_int_equal(n, f->rows);
}

static void a_log_that_is_written_on_and_on_is_begun_anew(void **state)
{
	struct db_site *f = *state;
	write_blob(f);
	for (int i = 0; i < 3; i++)
		write_until_it_begins_anew(f);
	check_rows(f);
	db_site_reopen(f, migrations);
	check_rows(f);
}

static enum err_code op_read_and_write_beside(struct db_conn *c, void *arg, struct error *e)
{
	struct db_site *f = arg;
	int64_t before = 0, after = 0;
	enum err_code rc = op_count(c, &before, e);
	uint64_t first = beginning(f);
	for (int i = 0; i < BLOBS_UNTIL_ASKED; i++)
		write_blob(f);
	assert_int_equal(beginning(f), first);
	if (!rc)
		rc = op_count(c, &after, e);
	assert_int_equal(after, before);
	return rc;
}

static void who_reads_an_old_moment_keeps_the_log_and_stops_nobody(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	write_blob(f);
	assert_int_equal(db_read(f->db, op_read_and_write_beside, f, &e), ERR_OK);
	write_until_it_begins_anew(f);
	check_rows(f);
}

#define LARGE_BYTES (2 * DB_WRITER_CACHE_KIB << 10) /* its first part is in the log before it is committed */

static enum err_code op_large_that_fails(struct db_conn *c, void *arg, struct error *e)
{
	AUTO_FREE char *large = mem_alloc(LARGE_BYTES);
	struct db_stmt *s = NULL;
	bool row;
	(void)arg;
	memset(large, 'l', LARGE_BYTES);
	enum err_code rc = db_prepare(c, "INSERT INTO t (x, b) VALUES (-1, ?)", &s, e);
	if (rc)
		return rc;
	db_bind_blob(s, 1, large, LARGE_BYTES);
	rc = db_step(s, &row, e);
	return rc ? rc : error_set(e, ERR_STALE, "no");
}

/* As a program does it that leaves the log to us. */
static void write_from_elsewhere(struct db_site *f, const char *sql)
{
	sqlite3 *other = NULL;
	assert_int_equal(sqlite3_open_v2(f->path, &other, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(other), SQLITE_OK);
}

static enum err_code op_look(struct db_conn *c, void *arg, struct error *e)
{
	return db_number(c, e, arg, "SELECT (SELECT count(*) FROM t WHERE b = zeroblob(length(b))) + (SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok')", "");
}

static void what_a_failed_write_left_in_the_log_does_not_spoil_what_another_program_writes_there(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	int64_t n = 0;
	write_blob(f);
	db_site_reopen(f, migrations); /* the log is empty: nothing of it is looked at when the write is undone */
	assert_int_equal(db_write(f->db, op_large_that_fails, NULL, &e), ERR_STALE);
	write_from_elsewhere(f, "PRAGMA wal_autocheckpoint = 0; INSERT INTO t (x, b) VALUES (1000, zeroblob(20000000))");
	write_blob(f);
	assert_int_equal(db_read(f->db, op_look, &n, &e), ERR_OK);
	assert_int_equal(n, f->rows + 2);
	db_site_reopen(f, migrations);
	assert_int_equal(db_read(f->db, op_look, &n, &e), ERR_OK);
	assert_int_equal(n, f->rows + 2);
}

/* A disk that takes its time: a copy ends when it is allowed to. */
static struct { sem_t begun, allowed; atomic_bool over; } slow;

static enum err_code slow_open(const char *path, enum db_role role, int version_max, struct db_conn **ret, struct error *e)
{
	(void)path, (void)role, (void)version_max, (void)e;
	*ret = NULL;
	return ERR_OK;
}

static enum err_code slow_checkpoint(struct db_conn *c, int64_t *ret_left, struct error *e)
{
	(void)c, (void)e;
	sem_post(&slow.begun);
	sem_wait(&slow.allowed);
	atomic_store(&slow.over, true);
	*ret_left = 0;
	return ERR_OK;
}

static void *write_too_much(void *keeper)
{
	bool asked = keeper_is_asked(keeper, DB_LOG_PAGES_MAX);
	return atomic_load(&slow.over) && asked ? keeper : NULL;
}

static void who_writes_faster_than_the_disk_takes_it_waits_at_the_limit(void **state)
{
	(void)state;
	static const struct db_backend disk = { .name = "slow", .open = slow_open, .checkpoint = slow_checkpoint };
	struct error e = ERROR_INIT;
	struct keeper *k = NULL;
	pthread_t writer;
	void *waited = NULL;
	sem_init(&slow.begun, 0, 0);
	sem_init(&slow.allowed, 0, 0);
	assert_int_equal(keeper_start(&disk, "/nowhere", 1, &k, &e), ERR_OK);
	assert_false(keeper_is_asked(k, DB_CHECKPOINT_PAGES));
	sem_wait(&slow.begun);
	assert_false(keeper_is_asked(k, DB_LOG_PAGES_MAX - 1)); /* up to there nobody waits */
	assert_int_equal(pthread_create(&writer, NULL, write_too_much, k), 0);
	sem_post(&slow.allowed);
	sem_post(&slow.allowed); /* the thread may have begun once more before the writer came */
	pthread_join(writer, &waited);
	assert_ptr_equal(waited, k); /* until the copy was over; and the writer copies what is left */
	keeper_stop(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_log_that_is_written_on_and_on_is_begun_anew, setup, db_site_teardown),
		cmocka_unit_test_setup_teardown(who_reads_an_old_moment_keeps_the_log_and_stops_nobody, setup, db_site_teardown),
		cmocka_unit_test_setup_teardown(what_a_failed_write_left_in_the_log_does_not_spoil_what_another_program_writes_there, setup, db_site_teardown),
		cmocka_unit_test(who_writes_faster_than_the_disk_takes_it_waits_at_the_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
