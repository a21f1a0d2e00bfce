/* The writer's log file: what SQLite writes to it piece by piece (a frame's head, its page, the next head, ...) is written at once when it is
 * synced, looked at, or too much.  A commit of ten pages is one call instead of twenty, and nothing else changes: the order of the bytes is the
 * same, and with synchronous=FULL a commit ends with a sync, before anybody is told where its frames are.
 *
 * A log that grows by each commit makes each sync wait for the file system's journal too, for the new size and its blocks: twice the time.  So it
 * grows by more at a time, by zeros, which SQLite takes for the end of what was written (their salts are not the log's).
 *
 * Everything that is not the log goes to SQLite's own files untouched. */
#include "base/check.h"
#include "base/mem.h"
#include "db/wal_file.h"
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define GATHER_BYTES_MAX 0x1ffff /* more than that SQLite's files do not take at once, and do not say so */
#define GROW_BYTES (512 << 10)   /* at once */
#define ZERO_BYTES (64 << 10)
#define VFS_NAME "signalbox"

struct wal_file {
	sqlite3_file base; /* what SQLite sees */
	char *data;	   /* gathered, not yet written */
	int n;
	sqlite3_int64 at;   /* where it begins in the file */
	sqlite3_int64 room; /* so far we know that the file has bytes */
	sqlite3_file *own; /* the real one, behind this struct */
};

static sqlite3_vfs *own_vfs(void)
{
	return sqlite3_vfs_find("unix");
}

static struct wal_file *wal_of(sqlite3_file *f)
{
	return (struct wal_file *)f;
}

static int flush(struct wal_file *w)
{
	int n = w->n;
	w->n = 0; /* what could not be written is not tried again: the commit has failed */
	return n ? w->own->pMethods->xWrite(w->own, w->data, n, w->at) : SQLITE_OK;
}

static int wal_write(sqlite3_file *f, const void *data, int n, sqlite3_int64 at)
{
	struct wal_file *w = wal_of(f);
	bool follows = w->n && at == w->at + w->n && w->n + n <= GATHER_BYTES_MAX;
	int rc = follows ? SQLITE_OK : flush(w);
	if (rc != SQLITE_OK || n > GATHER_BYTES_MAX)
		return rc != SQLITE_OK ? rc : w->own->pMethods->xWrite(w->own, data, n, at);
	if (!w->data)
		w->data = mem_alloc(GATHER_BYTES_MAX);
	if (!w->n)
		w->at = at;
	memcpy(w->data + w->n, data, (size_t)n);
	w->n += n;
	return SQLITE_OK;
}

static int wal_read(sqlite3_file *f, void *data, int n, sqlite3_int64 at)
{
	struct wal_file *w = wal_of(f);
	int rc = flush(w);
	return rc != SQLITE_OK ? rc : w->own->pMethods->xRead(w->own, data, n, at);
}

static int wal_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	struct wal_file *w = wal_of(f);
	int rc = flush(w);
	w->room = 0; /* until we have looked */
	return rc != SQLITE_OK ? rc : w->own->pMethods->xTruncate(w->own, size);
}

/* Behind a commit that ends there, while nobody else may write, and behind the last byte.  Best effort: on a full disk the log grows by its commits. */
static void grow(struct wal_file *w, sqlite3_int64 end)
{
	static const char zeros[ZERO_BYTES];
	sqlite3_int64 size = 0;
	if (end < w->room || w->own->pMethods->xFileSize(w->own, &size) != SQLITE_OK)
		return;
	w->room = end + GROW_BYTES;
	for (int rc = SQLITE_OK; rc == SQLITE_OK && size < w->room; size += ZERO_BYTES)
		rc = w->own->pMethods->xWrite(w->own, zeros, ZERO_BYTES, size);
}

static int wal_sync(sqlite3_file *f, int flags)
{
	struct wal_file *w = wal_of(f);
	sqlite3_int64 end = w->n ? w->at + w->n : 0; /* else it is not a commit's */
	int rc = flush(w);
	if (rc == SQLITE_OK && end)
		grow(w, end);
	return rc != SQLITE_OK ? rc : w->own->pMethods->xSync(w->own, flags);
}

static int wal_size(sqlite3_file *f, sqlite3_int64 *ret)
{
	struct wal_file *w = wal_of(f);
	int rc = flush(w);
	return rc != SQLITE_OK ? rc : w->own->pMethods->xFileSize(w->own, ret);
}

/* What was not synced was not promised. */
static int wal_close(sqlite3_file *f)
{
	struct wal_file *w = wal_of(f);
	int rc = flush(w), end = w->own->pMethods->xClose(w->own);
	free(w->data);
	return rc != SQLITE_OK ? rc : end;
}

static int wal_lock(sqlite3_file *f, int level)
{
	return wal_of(f)->own->pMethods->xLock(wal_of(f)->own, level);
}

static int wal_unlock(sqlite3_file *f, int level)
{
	return wal_of(f)->own->pMethods->xUnlock(wal_of(f)->own, level);
}

static int wal_is_reserved(sqlite3_file *f, int *ret)
{
	return wal_of(f)->own->pMethods->xCheckReservedLock(wal_of(f)->own, ret);
}

static int wal_control(sqlite3_file *f, int op, void *arg)
{
	return wal_of(f)->own->pMethods->xFileControl(wal_of(f)->own, op, arg);
}

static int wal_sector(sqlite3_file *f)
{
	return wal_of(f)->own->pMethods->xSectorSize(wal_of(f)->own);
}

static int wal_device(sqlite3_file *f)
{
	return wal_of(f)->own->pMethods->xDeviceCharacteristics(wal_of(f)->own);
}

static const sqlite3_io_methods methods = {
	.iVersion = 1, /* without shared memory and mapping, which only the database itself has */
	.xClose = wal_close,
	.xRead = wal_read,
	.xWrite = wal_write,
	.xTruncate = wal_truncate,
	.xSync = wal_sync,
	.xFileSize = wal_size,
	.xLock = wal_lock,
	.xUnlock = wal_unlock,
	.xCheckReservedLock = wal_is_reserved,
	.xFileControl = wal_control,
	.xSectorSize = wal_sector,
	.xDeviceCharacteristics = wal_device,
};

static int wal_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *ret_flags)
{
	(void)vfs;
	sqlite3_vfs *own = own_vfs();
	if (!(flags & SQLITE_OPEN_WAL))
		return own->xOpen(own, name, f, flags, ret_flags);
	struct wal_file *w = wal_of(f);
	*w = (struct wal_file){ .own = (sqlite3_file *)(w + 1) };
	int rc = own->xOpen(own, name, w->own, flags, ret_flags);
	w->base.pMethods = w->own->pMethods ? &methods : NULL; /* SQLite closes what has methods, opened or not */
	return rc;
}

static void wal_register(void)
{
	static sqlite3_vfs vfs;
	vfs = *own_vfs(); /* whose other functions need no more of it than its table */
	vfs.zName = VFS_NAME;
	vfs.szOsFile += (int)sizeof(struct wal_file);
	vfs.xOpen = wal_open;
	CHECK(sqlite3_vfs_register(&vfs, 0) == SQLITE_OK);
}

const char *wal_file_vfs(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, wal_register);
	return VFS_NAME;
}

void wal_file_forget(struct sqlite3 *db)
{
	sqlite3_file *log = NULL;
	int rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
	if (rc == SQLITE_OK && log && log->pMethods == &methods)
		wal_of(log)->n = 0;
}
