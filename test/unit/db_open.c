/* Opening a database: made, migrated, backed up, refused. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "db/db.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX ((size_t)16 << 20)

static const struct db_migration migrations[] = {
	{ 1, "first", "CREATE TABLE a (x INTEGER PRIMARY KEY); INSERT INTO a VALUES (1);" },
	{ 2, "second", "ALTER TABLE a ADD COLUMN y TEXT NOT NULL DEFAULT 'old'; CREATE TABLE b (x REFERENCES a);" },
	{ 3, "third", "INSERT INTO a VALUES (2, 'new');" },
};

static const struct db_migration broken[] = {
	{ 1, "first", "CREATE TABLE a (x INTEGER PRIMARY KEY);" },
	{ 2, "broken", "CREATE TABLE c (x); INSERT INTO nowhere VALUES (1);" },
};

struct fixture {
	char *dir, *path;
};

static int setup(void **state)
{
	struct fixture *f = NEW(struct fixture);
	struct error e = ERROR_INIT;
	assert_int_equal(file_tmpdir("/tmp", "sbdb", &f->dir, &e), ERR_OK);
	f->path = file_join(f->dir, "x.db");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	assert_int_equal(file_remove_tree(f->dir, &e), ERR_OK);
	free(f->dir);
	free(f->path);
	free(f);
	return 0;
}

static struct db *open_ok(const char *path, const struct db_migration *m, size_t n)
{
	struct error e = ERROR_INIT;
	struct db *db = NULL;
	if (db_open(path, m, n, &db, &e))
		fail_msg("%s", e.text);
	return db;
}

struct ask { const char *sql; int64_t n; };

static enum err_code op_ask(struct db_conn *c, void *arg, struct error *e)
{
	struct ask *a = arg;
	struct db_stmt *s = NULL;
	bool row = false;
	enum err_code rc = db_prepare(c, a->sql, &s, e);
	if (!rc)
		rc = db_step(s, &row, e);
	if (!rc)
		a->n = row ? db_int(s, 0) : -1;
	return rc;
}

static int64_t ask(struct db *db, const char *sql)
{
	struct error e = ERROR_INIT;
	struct ask a = { sql, -2 };
	if (db_read(db, op_ask, &a, &e))
		fail_msg("%s: %s", sql, e.text);
	return a.n;
}

static void a_new_file_is_migrated_and_private(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	struct db *db = open_ok(f->path, migrations, 3);
	assert_int_equal(ask(db, "PRAGMA user_version"), 3);
	assert_int_equal(ask(db, "SELECT count(*) FROM migrations"), 3);
	assert_int_equal(ask(db, "SELECT count(*) FROM a WHERE y = 'new'"), 1);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	db_close(db);
	AUTO_FREE char *backup = mem_printf("%s.backup-v0", f->path);
	assert_false(file_exists(backup));
}

static void opening_again_migrates_nothing(void **state)
{
	struct fixture *f = *state;
	db_close(open_ok(f->path, migrations, 3));
	struct db *db = open_ok(f->path, migrations, 3);
	assert_int_equal(ask(db, "SELECT count(*) FROM a"), 2);
	assert_int_equal(ask(db, "SELECT count(*) FROM migrations"), 3);
	db_close(db);
}

static void an_older_file_is_backed_up_before_it_is_migrated(void **state)
{
	struct fixture *f = *state;
	db_close(open_ok(f->path, migrations, 1));
	struct db *db = open_ok(f->path, migrations, 3);
	assert_int_equal(ask(db, "PRAGMA user_version"), 3);
	assert_int_equal(ask(db, "SELECT count(*) FROM a WHERE y = 'old'"), 1);
	db_close(db);
	AUTO_FREE char *backup = mem_printf("%s.backup-v1", f->path);
	db = open_ok(backup, migrations, 1);
	assert_int_equal(ask(db, "PRAGMA user_version"), 1);
	assert_int_equal(ask(db, "SELECT count(*) FROM a"), 1);
	db_close(db);
}

static void a_newer_file_is_refused_and_stays_untouched(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct db *db = NULL;
	AUTO_STRBUF struct strbuf before = STRBUF_INIT, after = STRBUF_INIT;
	db_close(open_ok(f->path, migrations, 3));
	assert_int_equal(file_read(f->path, FILE_MAX, &before, &e), ERR_OK);
	assert_int_equal(db_open(f->path, migrations, 2, &db, &e), ERR_UNSUPPORTED);
	assert_null(db);
	assert_non_null(strstr(e.text, f->path));
	assert_non_null(strstr(e.text, "version 3"));
	assert_true(e.hint[0]);
	assert_int_equal(file_read(f->path, FILE_MAX, &after, &e), ERR_OK);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
	db_close(open_ok(f->path, migrations, 3));
}

static void a_migration_that_fails_leaves_the_old_version(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct db *db = NULL;
	db_close(open_ok(f->path, migrations, 1));
	assert_int_not_equal(db_open(f->path, broken, 2, &db, &e), ERR_OK);
	assert_non_null(strstr(e.text, "migration 2 (broken)"));
	db = open_ok(f->path, migrations, 1);
	assert_int_equal(ask(db, "PRAGMA user_version"), 1);
	assert_int_equal(ask(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'c'"), 0);
	db_close(db);
	db_close(open_ok(f->path, migrations, 3)); /* and the next try finds the backup's name taken, which is fine */
}

static void what_is_no_database_of_ours_is_refused_and_stays(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct db *db = NULL;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT, after = STRBUF_INIT;
	for (int i = 0; i < 1000; i++)
		strbuf_adds(&text, "not a database\n");
	assert_int_equal(file_replace(f->path, text.data, text.len, 0600, FILE_NOSYNC, &e), ERR_OK);
	assert_int_equal(db_open(f->path, migrations, 3, &db, &e), ERR_INVALID);
	assert_non_null(strstr(e.text, f->path));
	assert_int_equal(file_read(f->path, FILE_MAX, &after, &e), ERR_OK);
	assert_string_equal(text.data, after.data);
}

static void a_database_of_another_program_is_refused_and_stays(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct db *db = NULL;
	sqlite3 *foreign = NULL;
	AUTO_STRBUF struct strbuf before = STRBUF_INIT, after = STRBUF_INIT;
	assert_int_equal(sqlite3_open(f->path, &foreign), SQLITE_OK);
	assert_int_equal(sqlite3_exec(foreign, "CREATE TABLE bookmarks (url)", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(foreign);
	assert_int_equal(file_read(f->path, FILE_MAX, &before, &e), ERR_OK);
	assert_int_equal(db_open(f->path, migrations, 3, &db, &e), ERR_INVALID);
	assert_non_null(strstr(e.text, "another program"));
	assert_int_equal(file_read(f->path, FILE_MAX, &after, &e), ERR_OK);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
}

static void a_place_that_cannot_be_written_is_an_error_with_its_name(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct db *db = NULL;
	AUTO_FREE char *path = mem_printf("%s/absent/x.db", f->dir);
	assert_int_not_equal(db_open(path, migrations, 3, &db, &e), ERR_OK);
	assert_non_null(strstr(e.text, path));
	error_clear(&e);
	assert_int_not_equal(db_open(f->dir, migrations, 3, &db, &e), ERR_OK);
	assert_non_null(strstr(e.text, f->dir));
}

#define IN_A_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_A_DIRECTORY(a_new_file_is_migrated_and_private),
		IN_A_DIRECTORY(opening_again_migrates_nothing),
		IN_A_DIRECTORY(an_older_file_is_backed_up_before_it_is_migrated),
		IN_A_DIRECTORY(a_newer_file_is_refused_and_stays_untouched),
		IN_A_DIRECTORY(a_migration_that_fails_leaves_the_old_version),
		IN_A_DIRECTORY(what_is_no_database_of_ours_is_refused_and_stays),
		IN_A_DIRECTORY(a_database_of_another_program_is_refused_and_stays),
		IN_A_DIRECTORY(a_place_that_cannot_be_written_is_an_error_with_its_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
