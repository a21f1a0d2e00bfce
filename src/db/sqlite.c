/* The SQLite backend: WAL, a sync at each commit, one connection per role.
 * Opening changes nothing in a file until it is known to be ours and not newer than we are. */
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "db/backend.h"
#include "db/wal_file.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define APPLICATION_ID 0x53474258 /* "SGBX" in the file's header: a foreign file is not migrated */
#define READER_CACHE_KIB 256
#define LOG_KEPT_BYTES (64 << 20)		/* the log file is cut to this after a checkpoint */
#define BACKUP_STEP_PAGES 1024
#define BACKUP_TRIES_MAX 100			/* of a step that finds the file locked, 50 ms each */
#define BACKUP_RETRY_MS 50

struct sqlite_conn {
	struct db_conn base;
	sqlite3 *db;
	char *path;
	sqlite3_stmt *tx[DB_TX_COUNT];
};

struct sqlite_stmt {
	struct db_stmt base;
	sqlite3_stmt *stmt;
	int bind_rc; /* of the first bind that failed: told at the step */
};

static const char *const tx_sql[DB_TX_COUNT] = {
	[DB_TX_BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[DB_TX_BEGIN_READ] = "BEGIN",
	[DB_TX_SAVE] = "SAVEPOINT op",
	[DB_TX_KEEP] = "RELEASE op",
	[DB_TX_UNDO] = "ROLLBACK TO op",
	[DB_TX_COMMIT] = "COMMIT",
	[DB_TX_ROLLBACK] = "ROLLBACK",
};

static const struct { int sqlite; enum err_code code; const char *hint; } codes[] = {
	{ SQLITE_CONSTRAINT, ERR_CONFLICT, NULL },
	{ SQLITE_BUSY, ERR_BUSY, "another program holds the database; close it or try again" },
	{ SQLITE_LOCKED, ERR_BUSY, NULL },
	{ SQLITE_FULL, ERR_FULL, "free some space on the disk that holds the data directory" },
	{ SQLITE_IOERR, ERR_IO, "look at the disk and at `dmesg`" },
	{ SQLITE_CANTOPEN, ERR_IO, "look at the directory's owner and permissions" },
	{ SQLITE_READONLY, ERR_IO, "look at the file's owner and permissions" },
	{ SQLITE_PERM, ERR_IO, "look at the file's owner and permissions" },
	{ SQLITE_NOTADB, ERR_INVALID, "move the file away, or give another data directory" },
	{ SQLITE_CORRUPT, ERR_IO, "restore the newest backup" },
	{ SQLITE_TOOBIG, ERR_LIMIT, NULL },
	{ SQLITE_NOMEM, ERR_LIMIT, NULL },
	{ SQLITE_INTERRUPT, ERR_CANCELED, NULL },
};

static struct sqlite_conn *conn_of(struct db_conn *c)
{
	return (struct sqlite_conn *)c;
}

static struct sqlite_stmt *stmt_of(struct db_stmt *s)
{
	return (struct sqlite_stmt *)s;
}

static enum err_code fail(struct sqlite_conn *c, int rc, const char *what, struct error *e)
{
	const char *words = c->db && sqlite3_errcode(c->db) == rc ? sqlite3_errmsg(c->db) : sqlite3_errstr(rc);
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		if (codes[i].sqlite != (rc & 0xff))
			continue;
		error_set(e, codes[i].code, "%s in '%s': %s", what, c->path, words);
		if (codes[i].hint)
			error_hint(e, "%s", codes[i].hint);
		return codes[i].code;
	}
	return error_set(e, ERR_INTERNAL, "%s in '%s': %s", what, c->path, words);
}

static enum err_code run(struct sqlite_conn *c, const char *sql, const char *what, struct error *e)
{
	int rc = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? ERR_OK : fail(c, rc, what, e);
}

static enum err_code ask_int(struct sqlite_conn *c, const char *sql, int64_t *ret, struct error *e)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(c->db, sql, -1, &s, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(s);
	if (rc == SQLITE_ROW)
		*ret = sqlite3_column_int64(s, 0);
	enum err_code code = rc == SQLITE_ROW ? ERR_OK : fail(c, rc, "open the database", e);
	sqlite3_finalize(s);
	return code;
}

static void sqlite_setup(void)
{
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* its counters are one lock for all threads */
}

static void setup_once(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, sqlite_setup);
}

/* The file is made by us, not by SQLite, so that nobody else can read it from its first moment on. */
static enum err_code file_create(const char *path, struct error *e)
{
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno == EEXIST ? ERR_OK : error_errno(e, "create the database '%s'", path);
	AUTO_FREE char *dir = file_dirname(path);
	return file_sync_dir(dir, e);
}

static enum err_code file_is_ours(struct sqlite_conn *c, int version_max, struct error *e)
{
	int64_t version = 0, id = 0, tables = 0;
	enum err_code rc = ask_int(c, "PRAGMA user_version", &version, e);
	if (!rc)
		rc = ask_int(c, "PRAGMA application_id", &id, e);
	if (!rc)
		rc = ask_int(c, "SELECT count(*) FROM sqlite_schema", &tables, e);
	if (rc)
		return rc;
	if (tables > 0 && id != APPLICATION_ID) {
		error_set(e, ERR_INVALID, "'%s' is a database of another program", c->path);
		error_hint(e, "move the file away, or give another data directory");
		return ERR_INVALID;
	}
	if (version < 0 || version > version_max) {
		error_set(e, ERR_UNSUPPORTED, "the database '%s' has schema version %lld, newer than this program's %d", c->path, (long long)version, version_max);
		error_hint(e, "start the newer program that wrote it, or go back to a backup of an older version ('%s.backup-v*')", c->path);
		return ERR_UNSUPPORTED;
	}
	c->base.version = (int)version;
	return ERR_OK;
}

static enum err_code pragma_int(struct sqlite_conn *c, const char *name, int64_t v, struct error *e)
{
	char *sql = sqlite3_mprintf("PRAGMA %s = %lld", name, (long long)v); /* a pragma takes no bound values */
	CHECK(sql);
	enum err_code rc = run(c, sql, "set up the database", e);
	sqlite3_free(sql);
	return rc;
}

static int on_commit(void *arg, sqlite3 *db UNUSED, const char *name UNUSED, int log_pages)
{
	((struct sqlite_conn *)arg)->base.log_pages = log_pages;
	return SQLITE_OK;
}

static enum err_code writer_setup(struct sqlite_conn *c, struct error *e)
{
	sqlite3_wal_hook(c->db, on_commit, c); /* in place of SQLite's own, which copies the log in the middle of a commit */
	enum err_code rc = run(c, "PRAGMA journal_mode = WAL", "switch to write-ahead logging", e);
	if (!rc)
		rc = run(c, "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY", "set up the database", e);
	if (!rc)
		rc = pragma_int(c, "cache_size", -DB_WRITER_CACHE_KIB, e);
	if (!rc)
		rc = pragma_int(c, "journal_size_limit", LOG_KEPT_BYTES, e);
	return rc;
}

static enum err_code reader_setup(struct sqlite_conn *c, struct error *e)
{
	enum err_code rc = run(c, "PRAGMA query_only = ON; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0", "set up a reader", e);
	return rc ? rc : pragma_int(c, "cache_size", -READER_CACHE_KIB, e);
}

static enum err_code prepare_moves(struct sqlite_conn *c, struct error *e)
{
	for (int i = 0; i < DB_TX_COUNT; i++) {
		int rc = sqlite3_prepare_v3(c->db, tx_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &c->tx[i], NULL);
		if (rc != SQLITE_OK)
			return fail(c, rc, tx_sql[i], e);
	}
	return ERR_OK;
}

static enum err_code connect_file(struct sqlite_conn *c, enum db_role role, int version_max, struct error *e)
{
	const char *vfs = role == DB_ROLE_WRITER ? wal_file_vfs() : NULL;
	int rc = sqlite3_open_v2(c->path, &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE, vfs);
	if (rc != SQLITE_OK)
		return fail(c, rc, "open the database", e);
	sqlite3_busy_timeout(c->db, DB_LOCK_WAIT_MS);
	sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL); /* until we know that the file is ours to change */
	sqlite3_db_config(c->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	enum err_code code = file_is_ours(c, version_max, e);
	if (!code)
		code = role == DB_ROLE_WRITER ? writer_setup(c, e) : reader_setup(c, e);
	if (!code)
		code = prepare_moves(c, e);
	if (!code)
		sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	return code;
}

static void sqlite_close(struct db_conn *base)
{
	struct sqlite_conn *c = conn_of(base);
	for (int i = 0; i < DB_TX_COUNT; i++)
		sqlite3_finalize(c->tx[i]);
	sqlite3_close(c->db);
	free(c->path);
	free(c);
}

static enum err_code sqlite_open(const char *path, enum db_role role, int version_max, struct db_conn **ret, struct error *e)
{
	setup_once();
	enum err_code rc = role == DB_ROLE_WRITER ? file_create(path, e) : ERR_OK;
	if (rc)
		return rc;
	struct sqlite_conn *c = NEW(struct sqlite_conn);
	c->base.backend = &db_sqlite;
	c->path = mem_strdup(path);
	rc = connect_file(c, role, version_max, e);
	if (rc)
		sqlite_close(&c->base);
	else
		*ret = &c->base;
	return rc;
}

static enum err_code sqlite_script(struct db_conn *base, const char *sql, int version, struct error *e)
{
	struct sqlite_conn *c = conn_of(base);
	enum err_code rc = run(c, sql, "run the script", e);
	if (!rc)
		rc = pragma_int(c, "application_id", APPLICATION_ID, e);
	return rc ? rc : pragma_int(c, "user_version", version, e);
}

static int backup_copy(sqlite3_backup *b)
{
	int tries = 0, rc;
	do {
		rc = sqlite3_backup_step(b, BACKUP_STEP_PAGES);
		if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
			sqlite3_sleep(BACKUP_RETRY_MS);
	} while (rc == SQLITE_OK || ((rc == SQLITE_BUSY || rc == SQLITE_LOCKED) && ++tries < BACKUP_TRIES_MAX));
	return rc;
}

static enum err_code sqlite_backup(struct db_conn *base, const char *to, struct error *e)
{
	struct sqlite_conn *c = conn_of(base);
	AUTO_FREE char *path = mem_strdup(to);
	struct sqlite_conn copy = { .path = path };
	enum err_code code = file_create(to, e);
	if (code)
		return code;
	int rc = sqlite3_open_v2(to, &copy.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
	sqlite3_backup *b = rc == SQLITE_OK ? sqlite3_backup_init(copy.db, "main", c->db, "main") : NULL;
	if (b) {
		rc = backup_copy(b);
		int end = sqlite3_backup_finish(b); /* commits, and syncs with the default of synchronous=FULL */
		rc = rc == SQLITE_DONE ? end : rc;
	} else if (rc == SQLITE_OK) {
		rc = sqlite3_errcode(copy.db);
	}
	code = rc == SQLITE_OK ? ERR_OK : fail(&copy, rc, "copy the database", e);
	sqlite3_close(copy.db);
	return code;
}

static enum err_code sqlite_checkpoint(struct db_conn *base, int64_t *ret_left, struct error *e)
{
	struct sqlite_conn *c = conn_of(base);
	int pages = 0, copied = 0;
	int rc = sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &copied);
	if (rc != SQLITE_OK && rc != SQLITE_BUSY) /* somebody else is at it */
		return fail(c, rc, "copy the log into the database", e);
	*ret_left = pages - copied;
	return ERR_OK;
}

static enum err_code move(struct sqlite_conn *c, enum db_tx what, struct error *e)
{
	int rc = sqlite3_step(c->tx[what]);
	int end = sqlite3_reset(c->tx[what]);
	return rc == SQLITE_DONE ? ERR_OK : fail(c, end != SQLITE_OK ? end : rc, tx_sql[what], e);
}

/* Some failures (disk full, I/O) make SQLite roll the whole transaction back by itself; then there is no savepoint to go
 * back to, and the caller must know. */
static enum err_code sqlite_tx(struct db_conn *base, enum db_tx what, struct error *e)
{
	struct sqlite_conn *c = conn_of(base);
	bool open = !sqlite3_get_autocommit(c->db);
	bool begins = what == DB_TX_BEGIN_WRITE || what == DB_TX_BEGIN_READ;
	if (!begins && !open && what != DB_TX_ROLLBACK)
		return error_set(e, ERR_IO, "%s in '%s': the transaction was rolled back", tx_sql[what], c->path);
	enum err_code rc = begins || open ? move(c, what, e) : ERR_OK;
	if (!rc && what == DB_TX_ROLLBACK)
		wal_file_forget(c->db);
	if (!rc && what == DB_TX_UNDO)
		rc = move(c, DB_TX_KEEP, e);
	return rc;
}

static enum err_code sqlite_prepare(struct db_conn *base, const char *sql, struct db_stmt **ret, struct error *e)
{
	struct sqlite_conn *c = conn_of(base);
	sqlite3_stmt *stmt = NULL;
	const char *tail = "";
	int rc = sqlite3_prepare_v3(c->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, &tail);
	if (rc != SQLITE_OK)
		return fail(c, rc, sql, e);
	if (!stmt || tail[strspn(tail, " \t\r\n;")]) {
		sqlite3_finalize(stmt);
		return error_set(e, ERR_INTERNAL, "'%s' is not exactly one statement", sql);
	}
	struct sqlite_stmt *s = NEW(struct sqlite_stmt);
	s->stmt = stmt;
	*ret = &s->base;
	return ERR_OK;
}

static void sqlite_bind(struct db_stmt *base, int index, const struct db_value *v)
{
	struct sqlite_stmt *s = stmt_of(base);
	int rc = SQLITE_OK;
	switch (v->type) {
	case DB_NULL:
		rc = sqlite3_bind_null(s->stmt, index);
		break;
	case DB_INT:
		rc = sqlite3_bind_int64(s->stmt, index, v->i);
		break;
	case DB_TEXT:
		rc = sqlite3_bind_text64(s->stmt, index, v->p, v->n, SQLITE_STATIC, SQLITE_UTF8);
		break;
	case DB_BLOB:
		rc = sqlite3_bind_blob64(s->stmt, index, v->p, v->n, SQLITE_STATIC);
		break;
	}
	CHECK(rc != SQLITE_RANGE && rc != SQLITE_MISUSE);
	if (s->bind_rc == SQLITE_OK)
		s->bind_rc = rc;
}

static enum err_code sqlite_step(struct db_stmt *base, bool *ret_row, struct error *e)
{
	struct sqlite_stmt *s = stmt_of(base);
	struct sqlite_conn *c = conn_of(base->conn);
	int rc = s->bind_rc == SQLITE_OK ? sqlite3_step(s->stmt) : s->bind_rc;
	*ret_row = rc == SQLITE_ROW;
	if (rc == SQLITE_ROW)
		return ERR_OK;
	if (rc != SQLITE_DONE)
		return fail(c, rc, "statement", e);
	c->base.changes = sqlite3_stmt_readonly(s->stmt) ? 0 : sqlite3_changes64(c->db);
	c->base.inserted = sqlite3_last_insert_rowid(c->db);
	return ERR_OK;
}

static void sqlite_column(struct db_stmt *base, int col, enum db_type want, struct db_value *ret)
{
	sqlite3_stmt *stmt = stmt_of(base)->stmt;
	CHECK(col >= 0 && col < sqlite3_column_count(stmt));
	if (sqlite3_column_type(stmt, col) == SQLITE_NULL)
		return;
	ret->type = want == DB_NULL ? DB_INT : want;
	if (want == DB_INT)
		ret->i = sqlite3_column_int64(stmt, col);
	else if (want == DB_TEXT)
		ret->p = (const char *)sqlite3_column_text(stmt, col);
	else if (want == DB_BLOB)
		ret->p = sqlite3_column_blob(stmt, col);
	if (want == DB_TEXT || want == DB_BLOB)
		ret->n = (size_t)sqlite3_column_bytes(stmt, col);
}

static void sqlite_reset(struct db_stmt *base, bool last)
{
	struct sqlite_stmt *s = stmt_of(base);
	if (last) {
		sqlite3_finalize(s->stmt);
		free(s);
		return;
	}
	sqlite3_reset(s->stmt);
	sqlite3_clear_bindings(s->stmt);
	s->bind_rc = SQLITE_OK;
}

const struct db_backend db_sqlite = {
	.name = "sqlite",
	.open = sqlite_open,
	.close = sqlite_close,
	.script = sqlite_script,
	.backup = sqlite_backup,
	.checkpoint = sqlite_checkpoint,
	.tx = sqlite_tx,
	.prepare = sqlite_prepare,
	.bind = sqlite_bind,
	.step = sqlite_step,
	.column = sqlite_column,
	.reset = sqlite_reset,
};
