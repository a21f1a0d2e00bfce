/* Stores, keys and locks of the cache. */
#include "source/cache.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/git.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define LOCK_POLL_MS 20
#define WALK_FDS 16

char *cache_key(const char *text)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int n = 0;
	struct strbuf hex = STRBUF_INIT;

	EVP_Digest(text, strlen(text), digest, &n, EVP_sha256(), NULL);
	str_add_hex(&hex, digest, n);
	return strbuf_detach(&hex);
}

enum err_code cache_prepare(const char *cache, uid_t uid, gid_t gid, struct error *e)
{
	bool existed = file_exists(cache);

	TRY(file_mkdirs(cache, 0700, e));
	if (!existed && identity_is_root() && uid != 0 && chown(cache, uid, gid) < 0)
		return error_errno(e, "give the cache '%s' to uid %u", cache, (unsigned)uid);
	TRY(identity_lower(uid, gid, e));
	if (faccessat(AT_FDCWD, cache, R_OK | W_OK | X_OK, AT_EACCESS) == 0)
		return ERR_OK;
	error_errno(e, "use the cache '%s' as uid %u", cache, (unsigned)geteuid());
	error_hint(e, "the directory must belong to that user, and every directory above it must be traversable");
	return e ? e->code : ERR_IO;
}

enum err_code cache_lock(const char *path, struct report *report, int *ret_fd, struct error *e)
{
	const struct timespec pause = { .tv_nsec = LOCK_POLL_MS * 1000000L };
	int64_t deadline_ms = clock_mono_ms() + CACHE_LOCK_WAIT_MS;
	enum err_code code;

	for (;;) {
		code = file_lock(path, false, ret_fd, e);
		if (code != ERR_BUSY || clock_mono_ms() > deadline_ms)
			return code;
		error_clear(e);
		report_progress(report, "wait", 0, "somebody else is fetching the same source");
		nanosleep(&pause, NULL);
	}
}

/* ---- what a killed git leaves behind ---- */

static int remove_leftover(const char *path, const struct stat *st, int type, struct FTW *where)
{
	const char *name = path + where->base;

	(void)st;
	if (type == FTW_F && (str_ends(name, ".lock") || str_starts(name, "tmp_")))
		unlink(path);
	return 0;
}

static void remove_leftovers(const char *repo)
{
	nftw(repo, remove_leftover, WALK_FDS, FTW_PHYS);
}

static enum err_code init_repo(const char *repo, struct error *e)
{
	AUTO_FREE char *head = file_join(repo, "HEAD");
	AUTO_FREE char *objects = file_join(repo, "objects");
	const struct git g = { .cwd = "/" };

	if (file_exists(head) && file_is_dir(objects))
		return ERR_OK;
	return git_run(&g, (const char *const[]){ "-c", "core.sharedRepository=umask", "init", "-q", "--bare", "--template=", "--", repo, NULL }, NULL, 0, NULL, e);
}

static enum err_code write_label(const char *dir, const char *label, const char *name, struct error *e)
{
	AUTO_FREE char *path = file_join(dir, label);
	AUTO_FREE char *line = mem_printf("%s\n", name);

	return file_exists(path) ? ERR_OK : file_replace(path, line, strlen(line), 0600, FILE_NOSYNC, e);
}

static enum err_code open_repo(struct cache_store *s, const char *label, const char *name, struct error *e)
{
	AUTO_FREE char *busy = file_join(s->dir, "busy");

	if (file_exists(busy))
		remove_leftovers(s->repo);
	TRY(write_label(s->dir, label, name, e));
	return init_repo(s->repo, e);
}

enum err_code cache_store_open(const char *cache, const char *room, const char *label, const char *name, struct report *report,
	struct cache_store *ret, struct error *e)
{
	struct cache_store s = CACHE_STORE_INIT;
	AUTO_FREE char *key = cache_key(name);
	AUTO_FREE char *above = file_join(cache, room);
	AUTO_FREE char *lock = NULL;
	enum err_code code;

	s.dir = file_join(above, key);
	s.repo = file_join(s.dir, "repo.git");
	lock = file_join(s.dir, "lock");
	code = file_mkdirs(s.dir, 0700, e);
	if (code == ERR_OK)
		code = cache_lock(lock, report, &s.lock_fd, e);
	if (code == ERR_OK)
		code = open_repo(&s, label, name, e);
	if (code == ERR_OK)
		*ret = s;
	else
		cache_store_close(&s);
	return code;
}

enum err_code cache_store_begin(const struct cache_store *s, struct error *e)
{
	AUTO_FREE char *busy = file_join(s->dir, "busy");

	return file_replace(busy, "", 0, 0600, FILE_NOSYNC, e);
}

void cache_store_end(const struct cache_store *s)
{
	AUTO_FREE char *busy = file_join(s->dir, "busy");

	unlink(busy);
}

void cache_store_close(struct cache_store *s)
{
	free(s->dir);
	free(s->repo);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	*s = (struct cache_store)CACHE_STORE_INIT;
}
