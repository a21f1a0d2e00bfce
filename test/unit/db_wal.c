/* The log grows by more than a commit at a time, by zeros behind what was written: nothing is lost by it, and nothing needs the room. */
#include "base/mem.h"
#include "db_site.h"
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define COMMITS 40
#define GROWS_BYTES (512 << 10)
#define FULL_BYTES (256 << 10) /* of any file, on a disk that is full */
#define FIT_COMMITS 10	       /* into less than that */
#define COPY_MAX ((size_t)16 << 20)

static const struct db_migration migrations[] = {
	{ 1, "first", "CREATE TABLE t (x INTEGER PRIMARY KEY, text TEXT);" },
};

static int setup(void **state)
{
	return db_site_setup(state, migrations);
}

static enum err_code op_row(struct db_conn *c, void *arg, struct error *e)
{
	return db_exec(c, e, "INSERT INTO t (x, text) VALUES (?1, 'a row of the test')", "i", *(int64_t *)arg + 1);
}

static bool write_row(struct db_site *f)
{
	struct error e = ERROR_INIT;
	bool written = db_write(f->db, op_row, &f->rows, &e) == ERR_OK;
	f->rows += written;
	return written;
}

static enum err_code op_count(struct db_conn *c, void *arg, struct error *e)
{
	return db_number(c, e, arg, "SELECT (SELECT count(*) FROM t) * (SELECT integrity_check = 'ok' FROM pragma_integrity_check)", "");
}

static void check_rows(struct db *db, int64_t wanted)
{
	struct error e = ERROR_INIT;
	int64_t n = 0;
	assert_int_equal(db_read(db, op_count, &n, &e), ERR_OK);
	assert_int_equal(n, wanted);
}

static int64_t log_bytes(const struct db_site *f)
{
	struct stat st;
	assert_int_equal(stat(f->log, &st), 0);
	return st.st_size;
}

static void many_commits_find_room_in_the_log(void **state)
{
	struct db_site *f = *state;
	int grown = 0;
	for (int64_t before = 0, now; f->rows < COMMITS; before = now) {
		assert_true(write_row(f));
		now = log_bytes(f);
		grown += now != before;
	}
	assert_in_range(grown, 1, 2);
	check_rows(f->db, COMMITS);
}

static void copy(const char *dir, const char *name, const char *to)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(COPY_MAX);
	AUTO_FREE char *from = file_join(dir, name), *into = file_join(to, name);
	assert_int_equal(file_read(from, COPY_MAX, &text, NULL), ERR_OK);
	assert_int_equal(file_replace(into, text.data, text.len, 0600, FILE_NOSYNC, NULL), ERR_OK);
}

/* What a program leaves that is killed. */
static void all_rows_are_found_in_a_log_that_ends_in_zeros(void **state)
{
	struct db_site *f = *state;
	struct error e = ERROR_INIT;
	struct db *again = NULL;
	AUTO_FREE char *dir = file_join(f->dir, "left"), *path = file_join(dir, "x.db");
	while (f->rows < COMMITS)
		assert_true(write_row(f));
	assert_true(log_bytes(f) >= GROWS_BYTES);
	assert_int_equal(file_mkdirs(dir, 0700, &e), ERR_OK);
	copy(f->dir, "x.db", dir);
	copy(f->dir, "x.db-wal", dir);
	if (db_open(path, migrations, 1, &again, &e))
		fail_msg("%s", e.text);
	check_rows(again, COMMITS);
	f->rows = COMMITS;
	assert_int_equal(db_write(again, op_row, &f->rows, &e), ERR_OK);
	check_rows(again, COMMITS + 1);
	db_close(again);
}

static void limit_files(rlim_t bytes)
{
	struct rlimit files;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &files), 0);
	files.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &files), 0);
}

static void a_disk_without_room_to_grow_takes_each_commit_that_fits(void **state)
{
	struct db_site *f = *state;
	db_site_reopen(f, migrations); /* the log is short again */
	signal(SIGXFSZ, SIG_IGN);
	limit_files(FULL_BYTES);
	while (f->rows < COMMITS * COMMITS && write_row(f))
		;
	int64_t fit = f->rows;
	bool again = write_row(f);
	limit_files(RLIM_INFINITY);
	assert_in_range(fit, FIT_COMMITS, COMMITS * COMMITS - 1);
	assert_false(again);
	check_rows(f->db, fit);
	assert_true(write_row(f));
	db_site_reopen(f, migrations);
	check_rows(f->db, fit + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(many_commits_find_room_in_the_log, setup, db_site_teardown),
		cmocka_unit_test_setup_teardown(all_rows_are_found_in_a_log_that_ends_in_zeros, setup, db_site_teardown),
		cmocka_unit_test_setup_teardown(a_disk_without_room_to_grow_takes_each_commit_that_fits, setup, db_site_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
