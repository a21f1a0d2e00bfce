/* A database in a directory of its own, for one test. */
#pragma once
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "db/db.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

struct db_site {
	char *dir, *path, *log;
	struct db *db;
	int64_t rows; /* that a test has written */
};

static void db_site_reopen(struct db_site *s, const struct db_migration *first)
{
	struct error e = ERROR_INIT;
	db_close(TAKE_PTR(s->db));
	if (db_open(s->path, first, 1, &s->db, &e))
		fail_msg("%s", e.text);
}

static void db_site_make(struct db_site *s, const struct db_migration *first)
{
	struct error e = ERROR_INIT;
	assert_int_equal(file_tmpdir("/tmp", "sbdb", &s->dir, &e), ERR_OK);
	s->path = file_join(s->dir, "x.db");
	s->log = file_join(s->dir, "x.db-wal");
	db_site_reopen(s, first);
}

static void db_site_remove(struct db_site *s)
{
	struct error e = ERROR_INIT;
	db_close(s->db);
	assert_int_equal(file_remove_tree(s->dir, &e), ERR_OK);
	free(s->dir);
	free(s->path);
	free(s->log);
}

/* A test's whole state, where it is a database and nothing more. */
static inline int db_site_setup(void **state, const struct db_migration *first)
{
	*state = NEW(struct db_site);
	db_site_make(*state, first);
	return 0;
}

static inline int db_site_teardown(void **state)
{
	db_site_remove(*state);
	free(*state);
	return 0;
}
