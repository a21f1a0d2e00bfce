/* Rows.  The front door of the database: one writer at a time with group commit, a small pool of readers, migrations.
 *
 *   handler threads --db_write(op)--> queue --> writer: BEGIN; op; op; op; COMMIT (durable) --> each caller woken
 *
 * A write op runs on the writer thread (or, when nobody else writes, on its caller's) inside a transaction of its own (a savepoint
 * in the group's): if it fails, only its changes are undone; db_write returns when the group's commit is on disk.  Read ops run on
 * the caller's thread over a consistent snapshot.
 * Ops must be short and must not block on anything else.  A struct db_conn is valid only during the op. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DB_READERS_MAX 8
#define DB_GROUP_MAX 512	/* ops per commit */
#define DB_QUEUE_MAX 8192	/* waiting ops; beyond: ERR_BUSY */

struct db;
struct db_conn;
struct db_stmt;

struct db_migration {
	int version;	   /* 1, 2, ... without gaps */
	const char *name;
	const char *sql;   /* several statements */
};

/* Opens or creates; migrates (an older file is first copied to PATH.backup-vN); a newer one is ERR_UNSUPPORTED and stays untouched. */
MUST_USE enum err_code db_open(const char *path, const struct db_migration *migrations, size_t n, struct db **ret, struct error *e);
void db_close(struct db *db); /* finishes what is queued */

typedef enum err_code db_op(struct db_conn *c, void *arg, struct error *e);
MUST_USE enum err_code db_write(struct db *db, db_op *op, void *arg, struct error *e);
MUST_USE enum err_code db_write_again(struct db *db, db_op *op, void *arg, struct error *e); /* cheaper in a crowd; the op may be run once more after its changes were undone */
/* The same without a thread that waits: `then` is called once, when the group's commit is on disk or the op has failed (`e` is NULL where it has
 * not): by the writer, or by the caller before this returns.  It must be short, and must not write.  An error returned here means that it is never
 * called.  The op may be run once more after its changes were undone. */
typedef void db_then(void *then_arg, const struct error *e);
MUST_USE enum err_code db_write_later(struct db *db, db_op *op, void *arg, db_then *then, void *then_arg, struct error *e);
MUST_USE enum err_code db_read(struct db *db, db_op *op, void *arg, struct error *e);
/* What goes along with the calling thread's next write, in its very transaction (so that both are durable, or neither): `before` runs first and
 * may refuse it, `after` runs when it has succeeded and may still undo it.  It rides once; NULL takes back one that has not ridden. */
struct db_rider { db_op *before, *after; void *arg; bool again; /* they may be run again, see db_write_again */ };
void db_ride(struct db *db, const struct db_rider *rider); /* borrowed until it has ridden or was taken back */
/* `hook(ctx)` is called by the writer after each durable commit, before its callers go on; never by two threads at once. */
void db_on_commit(struct db *db, void (*hook)(void *ctx), void *ctx);
bool db_others_wait(struct db *db); /* for an op that can leave the rest of its work to another */
struct db_stats { uint64_t commits, ops, queued_now, failed; };
/* Changes with every group that is committed, before its callers hear of it; any thread. */
uint64_t db_generation(struct db *db);
void db_stats(struct db *db, struct db_stats *ret);

/* Statements: cached per connection by their text (use constant strings); reset when the op ends or db_done is called. */
MUST_USE enum err_code db_prepare(struct db_conn *c, const char *sql, struct db_stmt **ret, struct error *e);
void db_bind_int(struct db_stmt *s, int index_from_1, int64_t v);
void db_bind_text(struct db_stmt *s, int index_from_1, const char *v); /* NULL binds NULL; borrowed until db_done */
void db_bind_blob(struct db_stmt *s, int index_from_1, const void *v, size_t n);
void db_bind_null(struct db_stmt *s, int index_from_1);
/* *ret_row true when a row is there. A constraint violation is ERR_CONFLICT. */
MUST_USE enum err_code db_step(struct db_stmt *s, bool *ret_row, struct error *e);
int64_t db_int(struct db_stmt *s, int column_from_0);
const char *db_text(struct db_stmt *s, int column_from_0); /* NULL for NULL; valid until the next step */
const void *db_blob(struct db_stmt *s, int column_from_0, size_t *ret_len);
bool db_is_null(struct db_stmt *s, int column_from_0);
void db_done(struct db_stmt *s);
int64_t db_changes(struct db_conn *c); /* rows changed by the last statement */
int64_t db_inserted(struct db_conn *c); /* the number of the row inserted last, of a table that numbers them */
/* prepare + bind by a format + step to the end: 'i' int64_t, 's' const char *, 'n' NULL. For statements without rows. */
MUST_USE enum err_code db_exec(struct db_conn *c, struct error *e, const char *sql, const char *fmt, ...);
/* The same for a query of which only the first column of the first row is wanted: *ret 0 when there is no row, or NULL in it. */
MUST_USE enum err_code db_number(struct db_conn *c, struct error *e, int64_t *ret, const char *sql, const char *fmt, ...);
/* ... and for one of which only counts whether it has a row. */
MUST_USE enum err_code db_has(struct db_conn *c, struct error *e, bool *ret, const char *sql, const char *fmt, ...);
