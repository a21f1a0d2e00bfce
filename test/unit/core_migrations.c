/* A database of an older program, with tasks in it, is brought up to date: what is derived from the rows is there for the old ones too. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "core/migrations.h"
#include "core/task_db.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
	char *dir, *path;
};

static int setup(void **state)
{
	struct fixture *f = NEW(struct fixture);
	assert_int_equal(file_tmpdir("/tmp", "sbmig", &f->dir, NULL), ERR_OK);
	f->path = file_join(f->dir, "x.db");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(file_remove_tree(f->dir, NULL), ERR_OK);
	free(f->dir);
	free(f->path);
	free(f);
	return 0;
}

static enum err_code op_old_tasks(struct db_conn *c, void *arg UNUSED, struct error *e)
{
	static const char sql[] = "INSERT INTO tasks(id,project,repo,created_by,session_id,phase,spec,priority,labels,created_at,created_mono,boot,last_seq,run_n)"
		" VALUES(?1,'default','none','user:a',?1,?2,json_object('prompt','an old request'),0,?3,1,1,'b',1,0)";
	enum err_code rc = db_exec(c, e, sql, "sss", "01aaaaaaaaaaaaaaaaaaaaaaaa", "queued", "{\"team\":\"red\",\"n\":\"1\"}");
	return rc ? rc : db_exec(c, e, sql, "sss", "01bbbbbbbbbbbbbbbbbbbbbbbb", "succeeded", "{}");
}

struct count { const char *sql; int64_t n; struct strbuf text; };

/* What EXPLAIN QUERY PLAN says, all lines of it. */
static enum err_code op_plan(struct db_conn *c, void *arg, struct error *e)
{
	struct count *k = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, k->sql, &s, e);
	while (!rc && !(rc = db_step(s, &row, e)) && row)
		strbuf_addf(&k->text, "%s\n", db_text(s, 3));
	return rc;
}

static enum err_code op_count(struct db_conn *c, void *arg, struct error *e)
{
	struct count *k = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, k->sql, &s, e);
	if (!rc)
		rc = db_step(s, &row, e);
	k->n = !rc && row ? db_int(s, 0) : -1;
	return rc;
}

static enum err_code op_opcodes(struct db_conn *c, void *arg, struct error *e)
{
	struct count *k = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, k->sql, &s, e);
	while (!rc && !(rc = db_step(s, &row, e)) && row)
		k->n += strcmp(db_text(s, 1), "OpenEphemeral") == 0;
	return rc;
}

static int64_t count(struct db *db, const char *sql)
{
	struct count k = { .sql = sql };
	struct error e = ERROR_INIT;
	if (db_read(db, op_count, &k, &e))
		fail_msg("%s: %s", sql, e.text);
	return k.n;
}

static enum err_code op_change(struct db_conn *c, void *arg, struct error *e)
{
	return db_exec(c, e, arg, "");
}

static void change(struct db *db, const char *sql)
{
	AUTO_FREE char *text = mem_strdup(sql);
	struct error e = ERROR_INIT;
	if (db_write(db, op_change, text, &e))
		fail_msg("%s: %s", sql, e.text);
}

static struct db *grown_from(struct fixture *f, size_t version)
{
	struct db *db = NULL;
	struct error e = ERROR_INIT;
	assert_int_equal(db_open(f->path, migrations, version, &db, &e), ERR_OK);
	assert_int_equal(db_write(db, op_old_tasks, NULL, &e), ERR_OK);
	db_close(db);
	if (db_open(f->path, migrations, migration_count, &db, &e))
		fail_msg("%s", e.text);
	return db;
}

static struct db *grown(struct fixture *f)
{
	return grown_from(f, 2);
}

static void labels_of_old_tasks_are_found_and_follow_their_rows(void **state)
{
	struct db *db = grown(*state);
	assert_int_equal(count(db, "SELECT COUNT(*) FROM task_labels WHERE key='team' AND value='red' AND task='01aaaaaaaaaaaaaaaaaaaaaaaa'"), 1);
	assert_int_equal(count(db, "SELECT COUNT(*) FROM task_labels"), 2);
	change(db, "UPDATE tasks SET labels='{\"team\":\"blue\"}' WHERE id='01aaaaaaaaaaaaaaaaaaaaaaaa'");
	assert_int_equal(count(db, "SELECT COUNT(*) FROM task_labels WHERE value='blue'"), 1);
	assert_int_equal(count(db, "SELECT COUNT(*) FROM task_labels"), 1);
	change(db, "DELETE FROM tasks WHERE id='01aaaaaaaaaaaaaaaaaaaaaaaa'");
	assert_int_equal(count(db, "SELECT COUNT(*) FROM task_labels"), 0);
	db_close(db);
}

static void old_tasks_wait_for_the_index_of_words_and_a_number_that_is_given_again_does_too(void **state)
{
	struct db *db = grown(*state);
	assert_int_equal(count(db, "SELECT COUNT(*) FROM tasks WHERE rowid>(SELECT n FROM search_mark)"), 2);
	change(db, "UPDATE search_mark SET n=2");
	change(db, "DELETE FROM tasks WHERE id='01bbbbbbbbbbbbbbbbbbbbbbbb'");
	assert_int_equal(count(db, "SELECT n FROM search_mark"), 1);
	db_close(db);
}

/* The opcode of each step that makes a table for the statement's own use. */
static int64_t tables_of_its_own(struct db *db, const char *sql)
{
	AUTO_FREE char *explain = mem_printf("EXPLAIN %s", sql);
	struct count k = { .sql = explain };
	struct error e = ERROR_INIT;
	assert_int_equal(db_read(db, op_opcodes, &k, &e), ERR_OK);
	return k.n;
}

static void an_old_task_is_found_by_its_state_from_every_version(void **state)
{
	struct fixture *f = *state;
	for (size_t version = 1; version < migration_count; version++) {
		struct db *db = grown_from(f, version);
		assert_int_equal(count(db, "SELECT COUNT(*) FROM tasks WHERE " SQL_LIVE("phase")), 1);
		assert_int_equal(count(db, "SELECT COUNT(*) FROM tasks WHERE phase='succeeded' AND " SQL_OVER("phase")), 1);
		change(db, "UPDATE tasks SET phase='lost' WHERE phase='queued'");
		assert_int_equal(count(db, "SELECT COUNT(*) FROM tasks WHERE " SQL_LIVE("phase")), 0);
		assert_int_equal(count(db, "SELECT COUNT(*) FROM tasks WHERE " SQL_OVER("phase")), 2);
		db_close(db);
		assert_int_equal(file_remove_tree(f->dir, NULL), ERR_OK);
		assert_int_equal(file_mkdirs(f->dir, 0700, NULL), ERR_OK);
	}
}

static void a_submit_and_a_change_of_state_make_no_tables_of_their_own(void **state)
{
	struct db *db = grown(*state);
	assert_int_equal(tables_of_its_own(db, "INSERT INTO tasks(id, phase) VALUES(?1, ?2)"), 0);
	assert_int_equal(tables_of_its_own(db, "UPDATE tasks SET phase=?2 WHERE id=?1"), 0);
	assert_int_equal(tables_of_its_own(db, "UPDATE runs SET phase=?2 WHERE id=?1"), 0);
	assert_int_not_equal(tables_of_its_own(db, "SELECT id FROM tasks WHERE phase NOT IN ('a','b','c','d')"), 0);
	db_close(db);
}

static void lists_of_states_and_repositories_are_read_from_indexes(void **state)
{
	struct db *db = grown(*state);
	static const struct { const char *sql, *index; } plans[] = {
		{ "EXPLAIN QUERY PLAN SELECT id, 0 FROM tasks WHERE phase='queued' AND " SQL_LIVE("phase") " AND id<'~' ORDER BY id DESC", "tasks_live" },
		{ "EXPLAIN QUERY PLAN SELECT id, 0 FROM tasks WHERE phase='failed' AND " SQL_OVER("phase") " AND id<'~' ORDER BY id DESC", "tasks_over" },
		{ "EXPLAIN QUERY PLAN SELECT id, 0 FROM tasks WHERE repo='x' AND id<'~' ORDER BY id DESC", "tasks_repo" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(plans); i++) {
		struct count k = { .sql = plans[i].sql };
		struct error e = ERROR_INIT;
		assert_int_equal(db_read(db, op_plan, &k, &e), ERR_OK);
		if (!strstr(strbuf_str(&k.text), plans[i].index) || strstr(strbuf_str(&k.text), "TEMP B-TREE"))
			fail_msg("%s: %s", plans[i].sql, strbuf_str(&k.text));
		strbuf_release(&k.text);
	}
	db_close(db);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(labels_of_old_tasks_are_found_and_follow_their_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(old_tasks_wait_for_the_index_of_words_and_a_number_that_is_given_again_does_too, setup, teardown),
		cmocka_unit_test_setup_teardown(an_old_task_is_found_by_its_state_from_every_version, setup, teardown),
		cmocka_unit_test_setup_teardown(a_submit_and_a_change_of_state_make_no_tables_of_their_own, setup, teardown),
		cmocka_unit_test_setup_teardown(lists_of_states_and_repositories_are_read_from_indexes, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
