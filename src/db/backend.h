/* What a database must be able to do for db.c: the front door has the queue, the group commit, the readers' pool, the
 * statement cache and the migrations; a backend only opens, runs and commits.  Included inside this room alone.
 *
 * A connection is used by one thread at a time (db.c sees to that), but not always by the same one. */
#pragma once
#include "db/db.h"
#include <pthread.h>

#define DB_STATEMENTS_MAX 96	   /* cached statements per connection */
#define DB_STATEMENT_BUCKETS 64	   /* of the cache's hash table; a power of two */
#define DB_LOCK_WAIT_MS 5000	   /* for a lock that another process (a shell, a backup) holds */
#ifndef DB_CHECKPOINT_PAGES /* a test sets less, to see more in its time */
#define DB_CHECKPOINT_PAGES 4000   /* of the log, before they are copied into the file: 16 MB */
#define DB_WRITER_CACHE_KIB 4096   /* an op that changes more has it written before its commit */
#endif
#define DB_LOG_PAGES_MAX (8 * DB_CHECKPOINT_PAGES) /* then who writes must wait for that: 128 MB */

enum db_role { DB_ROLE_WRITER, DB_ROLE_READER };

enum db_tx {
	DB_TX_BEGIN_WRITE, /* takes the write lock at once */
	DB_TX_BEGIN_READ,  /* one consistent snapshot until DB_TX_ROLLBACK or DB_TX_COMMIT */
	DB_TX_SAVE,	   /* opens the one savepoint of a write transaction */
	DB_TX_KEEP,	   /* closes it, keeping its changes */
	DB_TX_UNDO,	   /* closes it, undoing its changes */
	DB_TX_COMMIT,
	DB_TX_ROLLBACK,
	DB_TX_COUNT
};

enum db_type { DB_NULL, DB_INT, DB_TEXT, DB_BLOB };

struct db_value {
	enum db_type type;
	int64_t i;
	const char *p; /* text and blob; borrowed */
	size_t n;
};

/* The backend's connection and statement begin with these; the fields are the front door's, except where said. */
struct db_conn {
	const struct db_backend *backend;
	int version;	 /* the backend's: of the schema in the file, 0 when it is new */
	int64_t changes; /* the backend's: rows changed by the last finished statement */
	int64_t inserted; /* the backend's: number of the row that was inserted last */
	int64_t log_pages; /* the backend's: of the log after the last commit */
	struct db_stmt *buckets[DB_STATEMENT_BUCKETS];
	size_t cached;
	uint64_t clock;		/* counts uses, for the cache's choice of what to drop */
	struct db_stmt *active; /* prepared in this op and not yet done */
	struct db_conn *next;	/* in the pool of idle readers */
};

struct db_stmt {
	struct db_conn *conn;
	char *sql;
	uint32_t hash;
	uint64_t used;
	bool busy, cached;
	struct db_stmt *bucket_next, *active_prev, *active_next;
};

struct db_backend {
	const char *name;

	/* Opens PATH (a writer creates it, 0600) with everything the role needs.  A file whose schema is newer than
	 * version_max is ERR_UNSUPPORTED, a foreign one ERR_INVALID, and both stay untouched.  Sets ret->version. */
	enum err_code (*open)(const char *path, enum db_role role, int version_max, struct db_conn **ret, struct error *e);

	/* Rolls back what is open and frees.  Its statements were freed before. */
	void (*close)(struct db_conn *c);

	/* Runs several statements without values, inside the open write transaction, then stamps the schema's version. */
	enum err_code (*script)(struct db_conn *c, const char *sql, int version, struct error *e);

	/* Writes a complete, synced copy of the database to a new file. */
	enum err_code (*backup)(struct db_conn *c, const char *to, struct error *e);

	/* Copies what it can of the log into the file while others read and write; *ret_left: pages that it could not.  Outside of transactions. */
	enum err_code (*checkpoint)(struct db_conn *c, int64_t *ret_left, struct error *e);

	/* Moves a transaction.  An error from SAVE, KEEP, UNDO or COMMIT means that nothing of the transaction will be
	 * kept; the caller then says ROLLBACK, which must be harmless when there is nothing open. */
	enum err_code (*tx)(struct db_conn *c, enum db_tx move, struct error *e);

	/* One statement; a second one in the text is ERR_INTERNAL.  Fills the backend's part only. */
	enum err_code (*prepare)(struct db_conn *c, const char *sql, struct db_stmt **ret, struct error *e);

	/* Text and blob are borrowed until reset.  An index that the statement does not have is a programmer's error. */
	void (*bind)(struct db_stmt *s, int index_from_1, const struct db_value *v);

	/* One row, or the end (*ret_row false, conn->changes set).  A violated constraint is ERR_CONFLICT. */
	enum err_code (*step)(struct db_stmt *s, bool *ret_row, struct error *e);

	/* The column as the wanted type, or DB_NULL; pointers are valid until the next step. */
	void (*column)(struct db_stmt *s, int column_from_0, enum db_type want, struct db_value *ret);

	/* Ends the execution and forgets the bound values; with `last` frees the statement. */
	void (*reset)(struct db_stmt *s, bool last);
};

extern const struct db_backend db_sqlite;

/* migrate.c: brings c's schema to the newest version in one transaction, after a backup of an older one. */
MUST_USE enum err_code db_migrate(struct db_conn *c, const char *path, const struct db_migration *migrations, size_t n, struct error *e);

int db_thread_start(pthread_t *ret, size_t stack_bytes, void *(*run)(void *arg), void *arg); /* no signal reaches it; 0, or an errno */

/* keeper.c: who calls checkpoint. */
struct keeper;
MUST_USE enum err_code keeper_start(const struct db_backend *backend, const char *path, int version, struct keeper **ret, struct error *e);
void keeper_stop(struct keeper *k); /* NULL is fine */
bool keeper_is_asked(struct keeper *k, int64_t pages); /* after each commit, whose log has so many; true: the writer shall copy now */

/* stmt.c: what ends an op, and what ends a connection. */
void db_statements_end(struct db_conn *c);
void db_conn_close(struct db_conn *c); /* NULL is fine */
