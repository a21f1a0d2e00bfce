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
#define CHECK_TIMEOUT_MS ((int64_t)5 * 60 * 1000)
#define LOCK_TRIES_MAX 16

char *cache_key(const char *text)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int n = 0;
	struct strbuf hex = STRBUF_INIT;

	EVP_Digest(text, strlen(text), digest, &n, EVP_sha256(), NULL);
	str_add_hex(&hex, digest, n);
	return strbuf_detach(&hex);
}

char *cache_mirror_name(const char *url, const char *credential, int64_t depth)
{
	AUTO_FREE char *of = credential ? mem_printf("\ncredential %s", credential) : mem_strdup("");

	return depth ? mem_printf("%s%s\ndepth %lld", url, of, (long long)depth) : mem_printf("%s%s", url, of);
}

enum err_code cache_prepare(const char *cache, uid_t uid, gid_t gid, struct error *e)
{
	struct stat st;

	TRY(file_mkdirs(cache, 0700, e));
	/* Root's own is given away, whoever of several made it: another may stand between its making and its giving. */
	if (identity_is_root() && uid != 0 && lstat(cache, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == 0 && chown(cache, uid, gid) < 0)
		return error_errno(e, "give the cache '%s' to uid %u", cache, (unsigned)uid);
	TRY(identity_lower(uid, gid, e));
	if (faccessat(AT_FDCWD, cache, R_OK | W_OK | X_OK, AT_EACCESS) == 0)
		return ERR_OK;
	error_errno(e, "use the cache '%s' as uid %u", cache, (unsigned)geteuid());
	error_hint(e, "the directory must belong to that user, and every directory above it must be traversable");
	return e ? e->code : ERR_IO;
}

/* Whoever makes room takes a directory away, its lock's file included: then the name is another file's by now. */
static bool is_still_there(int fd, const char *path)
{
	struct stat ours, named;

	return fstat(fd, &ours) == 0 && stat(path, &named) == 0 && ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

enum err_code cache_lock(const char *path, struct report *report, int *ret_fd, struct error *e)
{
	const struct timespec pause = { .tv_nsec = LOCK_POLL_MS * 1000000L };
	int64_t deadline_ms = clock_mono_ms() + CACHE_LOCK_WAIT_MS;
	enum err_code code;

	for (;;) {
		AUTO_CLOSE int fd = -1;

		code = file_lock(path, false, &fd, e);
		if (code == ERR_OK && !is_still_there(fd, path))
			continue;
		if (code == ERR_OK)
			*ret_fd = TAKE_FD(fd);
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

/* What a crash left: every ref leads to all that it needs, or the store is made anew. */
static bool is_whole(const char *repo)
{
	const struct git g = { .git_dir = repo, .timeout_ms = CHECK_TIMEOUT_MS };
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	int status = 1;

	return git_try(&g, (const char *const[]){ "fsck", "--connectivity-only", "--no-dangling", "--no-progress", NULL }, NULL, 0, NULL, &err, &status, NULL) == ERR_OK &&
		status == 0;
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

	if (file_exists(busy)) {
		remove_leftovers(s->repo);
		if (!is_whole(s->repo))
			TRY(file_remove_tree(s->repo, e));
	}
	TRY(write_label(s->dir, label, name, e));
	s->is_new = !file_exists(s->repo);
	return init_repo(s->repo, e);
}

enum err_code cache_store_empty(const struct cache_store *s, struct error *e)
{
	TRY(file_remove_tree(s->repo, e));
	return init_repo(s->repo, e);
}

static enum err_code lock_store(struct cache_store *s, const char *lock, struct report *report, struct error *e)
{
	for (int i = 0; i < LOCK_TRIES_MAX; i++) {
		TRY(file_mkdirs(s->dir, 0700, e));
		enum err_code code = cache_lock(lock, report, &s->lock_fd, e);

		if (code != ERR_OK && code != ERR_NOT_FOUND)
			return code;
		if (code == ERR_OK) {
			futimens(s->lock_fd, NULL); /* last use, for whoever makes room */
			return ERR_OK;
		}
		error_clear(e);
	}
	return error_set(e, ERR_BUSY, "'%s' is removed again and again while it is opened", s->dir);
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
	code = lock_store(&s, lock, report, e);
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
