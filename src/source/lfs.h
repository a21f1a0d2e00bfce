/* Files that git-lfs keeps beside a repository: the pointers in a commit are found, what they point to is fetched over https from the
 * repository's own server (its /info/lfs) or from where that server says, under the same rules as every URL, proven by its hash, and kept
 * beside the mirror.  Nothing of the repository's own configuration (.lfsconfig, filters, transfer programs) is used. */
#pragma once
#include "source/mirror.h"

#define LFS_FILES_MAX 10000
#define LFS_BYTES_MAX ((int64_t)32 << 30) /* of one commit's */

struct lfs_list {
	struct lfs_file {
		char *path; /* below the top */
		char *oid;  /* sha256 */
		int64_t size;
		char *kept; /* the file itself, beside the mirror */
	} *v;
	size_t n;
};

MUST_USE enum err_code lfs_fetch(struct fetch *f, const struct mirror_want *of, const struct mirror_found *found, struct lfs_list *ret, struct error *e);
void lfs_list_release(struct lfs_list *l);
const struct lfs_file *lfs_find(const struct lfs_list *l, const char *path); /* sorted by path */
