/* The cache on disk: one store (bare git directory, lock, and a line that says what it is of) for each source.
 * All of it belongs to the effective user; see source.h for the layout. */
#pragma once
#include "base/err.h"
#include "source/report.h"
#include <stdbool.h>
#include <sys/types.h>

#define CACHE_LOCK_WAIT_MS ((int64_t)30 * 60 * 1000) /* for somebody else's fetch of the same thing */

struct cache_store {
	char *dir;  /* CACHE/git/<key> */
	char *repo; /* CACHE/git/<key>/repo.git */
	int lock_fd;
	bool is_new; /* nothing has ever been in it */
};
#define CACHE_STORE_INIT { .lock_fd = -1 }

/* CACHE itself, before root lowers itself: made if absent and given to uid. */
MUST_USE enum err_code cache_prepare(const char *cache, uid_t uid, gid_t gid, struct error *e);
/* Opens (makes) and locks the store of `name`. What a killed git left half-done is removed. */
MUST_USE enum err_code cache_store_open(const char *cache, const char *room, const char *label, const char *name, struct report *report,
	struct cache_store *ret, struct error *e);
/* Between these two the store is written; a crash between them is noticed at the next open. */
MUST_USE enum err_code cache_store_begin(const struct cache_store *s, struct error *e);
/* Removes all that is in it: it was found to be damaged. */
MUST_USE enum err_code cache_store_empty(const struct cache_store *s, struct error *e);
void cache_store_end(const struct cache_store *s);
void cache_store_close(struct cache_store *s);

/* What a mirror is the mirror of. What one credential may read is not another one's: NULL is nobody's. The caller frees. */
char *cache_mirror_name(const char *url, const char *credential, int64_t depth);
char *cache_key(const char *text); /* SHA-256 in hex; the caller frees */
/* flock with a bounded wait, said in the progress when it has to wait. */
MUST_USE enum err_code cache_lock(const char *path, struct report *report, int *ret_fd, struct error *e);
