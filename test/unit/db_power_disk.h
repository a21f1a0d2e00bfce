/* A disk that can lose its power: SQLite's view of files, beneath the program's own, which keeps of each file below one directory what a cut would
 * leave: what was synced, and each write since, of which any may be there, in any order, whole or torn at sectors.  The same for names: a file
 * that was made or deleted is so for good when its directory has been synced.  The shared memory beside a log is never kept.
 *
 *   program --write--> real file        (so that it runs as always)
 *                 \--> struct disk      --disk_cut--> struct cut (a copy) --cut_restore--> files in another directory
 *
 * The real sync is not done: it would only cost time. */
#pragma once
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define SECTOR_BYTES 512
#define DISK_FILES_MAX 64
#define DISK_STATES_MAX 16 /* of one name, between two syncs of the directory */
#define SYNC_NS 200000	   /* a disk takes its time; meanwhile the next writes queue up */
#define CUT_DROPS_ALL 0	   /* variants of a cut that are not left to chance */
#define CUT_KEEPS_ALL 1

enum disk_point { AT_LOG_WRITE, AT_LOG_SYNC, AT_LOG_SYNCED, AT_DB_WRITE, AT_DB_SYNC, AT_DB_SYNCED, AT_OTHER, AT_COUNT };

/* A write, or (without data) a new size. */
struct disk_write {
	uint64_t nr;
	int64_t at;
	size_t n;
	char *data;
};

struct disk_file {
	bool log, main;
	char *data; /* as synced */
	size_t n;
	struct disk_write *writes; /* since */
	size_t n_writes, writes_max;
};

struct disk_name {
	char *name;
	int states[DISK_STATES_MAX]; /* files or -1: the first is durable, the last is what the program sees */
	int n_states;
};

struct disk {
	pthread_mutex_t lock; /* guards the rest */
	char *dir;
	size_t dir_len;
	struct disk_file files[DISK_FILES_MAX];
	int n_files;
	struct disk_name names[DISK_FILES_MAX];
	int n_names;
	uint64_t writes, seen[AT_COUNT], log_begun; /* how often it came to that */
	void (*point)(void *ctx, enum disk_point p, uint64_t nr); /* with the lock: while it lasts, the disk stands still */
	void *ctx;
};

struct disk_handle {
	sqlite3_file base;
	int file;
	bool syncs_dir; /* with its first sync, as SQLite does for a log or journal that it may have made */
	sqlite3_file *own;
};

struct disk_vfs {
	sqlite3_vfs vfs, *real;
	struct disk *_Atomic disk;
};

static struct disk_vfs *disk_vfs(void)
{
	static struct disk_vfs v;
	return &v;
}

static struct disk *disk_now(void)
{
	return atomic_load(&disk_vfs()->disk);
}

static inline uint64_t random_of(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static bool chance(uint64_t *state, unsigned percent)
{
	return random_of(state) % 100 < percent;
}

/* What is between two syncs. */

static void image_grow(char **data, size_t *n, size_t to)
{
	if (to <= *n)
		return;
	*data = mem_grow(*data, to);
	memset(*data + *n, 0, to - *n);
	*n = to;
}

static void write_apply(struct disk_file *f, const struct disk_write *w)
{
	if (!w->data) {
		image_grow(&f->data, &f->n, (size_t)w->at);
		f->n = (size_t)w->at;
		return;
	}
	image_grow(&f->data, &f->n, (size_t)w->at + w->n);
	memcpy(f->data + w->at, w->data, w->n);
}

static void write_note(struct disk *d, struct disk_file *f, const void *data, size_t n, int64_t at)
{
	if (f->n_writes == f->writes_max) {
		f->writes_max = f->writes_max ? 2 * f->writes_max : 64;
		f->writes = mem_grow(f->writes, f->writes_max * sizeof(*f->writes));
	}
	struct disk_write *w = &f->writes[f->n_writes++];
	*w = (struct disk_write){ .nr = ++d->writes, .at = at, .n = n };
	if (data)
		w->data = memcpy(mem_alloc(n), data, n);
}

static void writes_settle(struct disk_file *f, uint64_t until)
{
	size_t n = 0;
	while (n < f->n_writes && f->writes[n].nr <= until) {
		write_apply(f, &f->writes[n]);
		free(f->writes[n++].data);
	}
	f->n_writes -= n;
	memmove(f->writes, f->writes + n, f->n_writes * sizeof(*f->writes));
}

static void file_release(struct disk_file *f)
{
	for (size_t i = 0; i < f->n_writes; i++)
		free(f->writes[i].data);
	free(f->writes);
	free(f->data);
	*f = (struct disk_file){ 0 };
}

/* Names. */

static const char *disk_name_of(const struct disk *d, const char *path)
{
	return d && path && !strncmp(path, d->dir, d->dir_len) && path[d->dir_len] == '/' ? path + d->dir_len + 1 : NULL;
}

static struct disk_name *name_get(struct disk *d, const char *name)
{
	for (int i = 0; i < d->n_names; i++)
		if (!strcmp(d->names[i].name, name))
			return &d->names[i];
	CHECK(d->n_names < DISK_FILES_MAX);
	struct disk_name *n = &d->names[d->n_names++];
	*n = (struct disk_name){ .name = mem_strdup(name), .states = { -1 }, .n_states = 1 };
	return n;
}

static int *name_now(struct disk_name *n)
{
	return &n->states[n->n_states - 1];
}

static void name_becomes(struct disk_name *n, int file)
{
	CHECK(n->n_states < DISK_STATES_MAX);
	n->states[n->n_states++] = file;
}

static void names_settle(struct disk *d)
{
	for (int i = 0; i < d->n_names; i++) {
		d->names[i].states[0] = *name_now(&d->names[i]);
		d->names[i].n_states = 1;
	}
}

/* What a program does to files. */

static void point(struct disk *d, enum disk_point p)
{
	d->point(d->ctx, p, ++d->seen[p]);
}

static enum disk_point kind_of(const struct disk_file *f, enum disk_point log, enum disk_point main)
{
	return f->log ? log : f->main ? main : AT_OTHER;
}

static struct disk_handle *handle_of(sqlite3_file *f)
{
	return (struct disk_handle *)f;
}

static sqlite3_file *own_of(sqlite3_file *f)
{
	return handle_of(f)->own;
}

static int disk_change(sqlite3_file *file, const void *data, int n, sqlite3_int64 at)
{
	struct disk *d = disk_now();
	sqlite3_file *own = own_of(file);
	pthread_mutex_lock(&d->lock);
	struct disk_file *f = &d->files[handle_of(file)->file];
	int rc = data ? own->pMethods->xWrite(own, data, n, at) : own->pMethods->xTruncate(own, at);
	if (rc == SQLITE_OK) {
		write_note(d, f, data, (size_t)n, at);
		d->log_begun += f->log && data && at == 0;
		point(d, kind_of(f, AT_LOG_WRITE, AT_DB_WRITE));
	}
	pthread_mutex_unlock(&d->lock);
	return rc;
}

static int disk_write(sqlite3_file *f, const void *data, int n, sqlite3_int64 at)
{
	return disk_change(f, data, n, at);
}

static int disk_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	return disk_change(f, NULL, 0, size);
}

/* What is written while it goes on may wait for the next one. */
static int disk_sync(sqlite3_file *file, int flags)
{
	(void)flags;
	struct disk *d = disk_now();
	struct disk_handle *h = handle_of(file);
	pthread_mutex_lock(&d->lock);
	struct disk_file *f = &d->files[h->file];
	uint64_t until = d->writes;
	point(d, kind_of(f, AT_LOG_SYNC, AT_DB_SYNC));
	pthread_mutex_unlock(&d->lock);
	nanosleep(&(struct timespec){ .tv_nsec = SYNC_NS }, NULL);
	pthread_mutex_lock(&d->lock);
	writes_settle(f, until);
	if (h->syncs_dir)
		names_settle(d);
	h->syncs_dir = false;
	point(d, kind_of(f, AT_LOG_SYNCED, AT_DB_SYNCED));
	pthread_mutex_unlock(&d->lock);
	return SQLITE_OK;
}

static int disk_read(sqlite3_file *f, void *data, int n, sqlite3_int64 at)
{
	return own_of(f)->pMethods->xRead(own_of(f), data, n, at);
}

static int disk_size(sqlite3_file *f, sqlite3_int64 *ret)
{
	return own_of(f)->pMethods->xFileSize(own_of(f), ret);
}

static int disk_close(sqlite3_file *f)
{
	return own_of(f)->pMethods->xClose(own_of(f));
}

static int disk_lock(sqlite3_file *f, int level)
{
	return own_of(f)->pMethods->xLock(own_of(f), level);
}

static int disk_unlock(sqlite3_file *f, int level)
{
	return own_of(f)->pMethods->xUnlock(own_of(f), level);
}

static int disk_is_reserved(sqlite3_file *f, int *ret)
{
	return own_of(f)->pMethods->xCheckReservedLock(own_of(f), ret);
}

static int disk_control(sqlite3_file *f, int op, void *arg)
{
	return own_of(f)->pMethods->xFileControl(own_of(f), op, arg);
}

static int disk_sector(sqlite3_file *f)
{
	return own_of(f)->pMethods->xSectorSize(own_of(f));
}

static int disk_device(sqlite3_file *f)
{
	return own_of(f)->pMethods->xDeviceCharacteristics(own_of(f));
}

static int disk_shm_map(sqlite3_file *f, int page, int bytes, int extend, void volatile **ret)
{
	return own_of(f)->pMethods->xShmMap(own_of(f), page, bytes, extend, ret);
}

static int disk_shm_lock(sqlite3_file *f, int offset, int n, int flags)
{
	return own_of(f)->pMethods->xShmLock(own_of(f), offset, n, flags);
}

static void disk_shm_barrier(sqlite3_file *f)
{
	own_of(f)->pMethods->xShmBarrier(own_of(f));
}

static int disk_shm_unmap(sqlite3_file *f, int gone)
{
	return own_of(f)->pMethods->xShmUnmap(own_of(f), gone);
}

static const sqlite3_io_methods disk_methods = {
	.iVersion = 2, /* without mapping, which would write past us */
	.xClose = disk_close,
	.xRead = disk_read,
	.xWrite = disk_write,
	.xTruncate = disk_truncate,
	.xSync = disk_sync,
	.xFileSize = disk_size,
	.xLock = disk_lock,
	.xUnlock = disk_unlock,
	.xCheckReservedLock = disk_is_reserved,
	.xFileControl = disk_control,
	.xSectorSize = disk_sector,
	.xDeviceCharacteristics = disk_device,
	.xShmMap = disk_shm_map,
	.xShmLock = disk_shm_lock,
	.xShmBarrier = disk_shm_barrier,
	.xShmUnmap = disk_shm_unmap,
};

static void file_load(struct disk_file *f, const char *path)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	CHECK(file_read(path, STRBUF_DEFAULT_MAX, &text, NULL) == ERR_OK);
	image_grow(&f->data, &f->n, text.len);
	if (text.len)
		memcpy(f->data, text.data, text.len);
}

/* The file behind a name; one that was there before is durable: the program makes the database itself, and syncs its directory. */
static int file_behind(struct disk *d, const char *path, const char *name, bool was_there, int flags)
{
	struct disk_name *n = name_get(d, name);
	if (*name_now(n) >= 0)
		return *name_now(n);
	CHECK(d->n_files < DISK_FILES_MAX);
	d->files[d->n_files] = (struct disk_file){ .log = flags & SQLITE_OPEN_WAL, .main = flags & SQLITE_OPEN_MAIN_DB };
	if (was_there) {
		file_load(&d->files[d->n_files], path);
		*name_now(n) = d->n_files;
	} else {
		name_becomes(n, d->n_files);
	}
	return d->n_files++;
}

static int disk_open(sqlite3_vfs *vfs, const char *path, sqlite3_file *f, int flags, int *ret_flags)
{
	(void)vfs;
	sqlite3_vfs *real = disk_vfs()->real;
	struct disk *d = disk_now();
	const char *name = disk_name_of(d, path);
	if (!name)
		return real->xOpen(real, path, f, flags, ret_flags);
	struct disk_handle *h = handle_of(f);
	*h = (struct disk_handle){ .own = (sqlite3_file *)(h + 1) };
	h->syncs_dir = (flags & SQLITE_OPEN_CREATE) && (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL));
	pthread_mutex_lock(&d->lock);
	bool was_there = file_exists(path);
	int rc = real->xOpen(real, path, h->own, flags, ret_flags);
	h->base.pMethods = h->own->pMethods ? &disk_methods : NULL;
	if (rc == SQLITE_OK)
		h->file = file_behind(d, path, name, was_there, flags);
	if (rc == SQLITE_OK && !was_there)
		point(d, AT_OTHER);
	pthread_mutex_unlock(&d->lock);
	return rc;
}

static int disk_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
	(void)vfs;
	sqlite3_vfs *real = disk_vfs()->real;
	struct disk *d = disk_now();
	const char *name = disk_name_of(d, path);
	if (!name)
		return real->xDelete(real, path, sync_dir);
	pthread_mutex_lock(&d->lock);
	int rc = real->xDelete(real, path, sync_dir);
	struct disk_name *n = name_get(d, name);
	if (rc == SQLITE_OK && *name_now(n) >= 0)
		name_becomes(n, -1);
	if (rc == SQLITE_OK && sync_dir)
		names_settle(d);
	if (rc == SQLITE_OK)
		point(d, AT_OTHER);
	pthread_mutex_unlock(&d->lock);
	return rc;
}

/* For all databases that are opened from now on; those outside of a disk's directory are left alone. */
static void disk_register(void)
{
	struct disk_vfs *v = disk_vfs();
	v->real = sqlite3_vfs_find("unix");
	CHECK(v->real);
	v->vfs = *v->real;
	v->vfs.szOsFile += (int)sizeof(struct disk_handle);
	v->vfs.xOpen = disk_open;
	v->vfs.xDelete = disk_delete;
	CHECK(sqlite3_vfs_register(&v->vfs, 1) == SQLITE_OK);
	CHECK(sqlite3_vfs_find("unix") == &v->vfs && sqlite3_vfs_find(NULL) == &v->vfs);
}

static void disk_start(struct disk *d, const char *dir)
{
	pthread_mutex_init(&d->lock, NULL);
	d->dir = mem_strdup(dir);
	d->dir_len = strlen(dir);
	atomic_store(&disk_vfs()->disk, d);
}

/* What is in the directory now is durable; nothing of it may be open. */
static void disk_forget(struct disk *d)
{
	for (int i = 0; i < d->n_files; i++)
		file_release(&d->files[i]);
	for (int i = 0; i < d->n_names; i++)
		free(d->names[i].name);
	d->n_files = d->n_names = 0;
}

static void disk_release(struct disk *d)
{
	atomic_store(&disk_vfs()->disk, NULL);
	disk_forget(d);
	free(d->dir);
	pthread_mutex_destroy(&d->lock);
}

/* A cut. */

struct cut {
	struct disk_file files[DISK_FILES_MAX]; /* only those that a name may lead to */
	struct disk_name names[DISK_FILES_MAX];
	int n_names;
};

static void file_copy_of(struct disk_file *to, const struct disk_file *from)
{
	if (to->log || to->main || to->data || to->writes)
		return; /* it has two names, or has one again */
	*to = *from;
	to->data = memcpy(mem_alloc(from->n + 1), from->data ? from->data : "", from->n);
	to->writes_max = from->n_writes;
	to->writes = mem_alloc((from->n_writes + 1) * sizeof(*to->writes));
	for (size_t i = 0; i < from->n_writes; i++) {
		const struct disk_write *w = &from->writes[i];
		to->writes[i] = *w;
		to->writes[i].data = w->data ? memcpy(mem_alloc(w->n), w->data, w->n) : NULL;
	}
}

/* With the disk's lock. */
static struct cut *disk_cut(const struct disk *d)
{
	struct cut *c = NEW(struct cut);
	c->n_names = d->n_names;
	for (int i = 0; i < d->n_names; i++) {
		c->names[i] = d->names[i];
		c->names[i].name = mem_strdup(d->names[i].name);
		for (int k = 0; k < d->names[i].n_states; k++)
			if (d->names[i].states[k] >= 0)
				file_copy_of(&c->files[d->names[i].states[k]], &d->files[d->names[i].states[k]]);
	}
	return c;
}

static void cut_free(struct cut *c)
{
	for (int i = 0; i < DISK_FILES_MAX; i++)
		file_release(&c->files[i]);
	for (int i = 0; i < c->n_names; i++)
		free(c->names[i].name);
	free(c);
}

struct luck {
	uint64_t random;
	unsigned keep, tear; /* percent */
};

static void put(int fd, const char *data, size_t n, int64_t at)
{
	CHECK(pwrite(fd, data, n, at) == (ssize_t)n);
}

/* Each sector of it, or all until one, or all from one on. */
static void write_torn(int fd, const struct disk_write *w, struct luck *luck)
{
	unsigned how = (unsigned)(random_of(&luck->random) % 3);
	int64_t end = w->at + (int64_t)w->n, middle = w->at + (int64_t)(random_of(&luck->random) % w->n);
	for (int64_t at = w->at, next; at < end; at = next) {
		next = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
		next = next < end ? next : end;
		bool kept = how == 0 ? chance(&luck->random, 50) : how == 1 ? next <= middle : at >= middle;
		if (kept)
			put(fd, w->data + (at - w->at), (size_t)(next - at), at);
	}
}

static void write_restore(int fd, const struct disk_write *w, struct luck *luck)
{
	if (!chance(&luck->random, luck->keep))
		return;
	if (!w->data)
		CHECK(ftruncate(fd, w->at) == 0);
	else if (chance(&luck->random, luck->tear))
		write_torn(fd, w, luck);
	else
		put(fd, w->data, w->n, w->at);
}

static void order_shuffle(size_t *order, size_t n, struct luck *luck)
{
	for (size_t i = 0; i < n; i++)
		order[i] = i;
	if (chance(&luck->random, 50) || luck->keep == 100)
		return;
	for (size_t i = n; i > 1; i--) {
		size_t k = (size_t)(random_of(&luck->random) % i), at_k = order[k];
		order[k] = order[i - 1];
		order[i - 1] = at_k;
	}
}

static void file_restore(const struct disk_file *f, const char *path, struct luck *luck)
{
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	AUTO_FREE size_t *order = mem_alloc((f->n_writes + 1) * sizeof(*order));
	CHECK(fd >= 0);
	put(fd, f->data, f->n, 0);
	order_shuffle(order, f->n_writes, luck);
	for (size_t i = 0; i < f->n_writes; i++)
		write_restore(fd, &f->writes[order[i]], luck);
}

static void cut_restore(const struct cut *c, const char *dir, int variant, uint64_t seed)
{
	static const struct { unsigned keep, tear; } kinds[] = { { 50, 30 }, { 90, 10 }, { 10, 30 }, { 97, 2 }, { 70, 100 } };
	int kind = variant % (int)ARRAY_SIZE(kinds);
	struct luck luck = { seed, kinds[kind].keep, kinds[kind].tear };
	if (variant <= CUT_KEEPS_ALL)
		luck = (struct luck){ seed, variant == CUT_KEEPS_ALL ? 100 : 0, 0 };
	for (int i = 0; i < c->n_names; i++) {
		const struct disk_name *n = &c->names[i];
		int k = variant == CUT_DROPS_ALL ? 0 : variant == CUT_KEEPS_ALL ? n->n_states - 1 : (int)(random_of(&luck.random) % (uint64_t)n->n_states);
		AUTO_FREE char *path = file_join(dir, n->name);
		if (n->states[k] >= 0)
			file_restore(&c->files[n->states[k]], path, &luck);
	}
}
