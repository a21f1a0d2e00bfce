/* What is in a cached tree beside its files' contents: the small .git, and hard links to an older tree's files. */
#pragma once
#include "base/err.h"

#define TREE_DIR_OBJECTS "/run/signalbox/objects" /* where a sandbox has the store's objects (SANDBOX_OBJECTS) */
#define TREE_DIR_REFS_MAX ((size_t)64 << 20)	  /* bytes of packed-refs */

struct tree_dir {
	const char *store;
	const char *head;   /* commit */
	const char *branch; /* NULL: detached */
};

/* HEAD, refs, config, exclude, shallow and alternates below dir/.git, which exists. The indexes are not written here. */
MUST_USE enum err_code tree_dir_write(const struct tree_dir *t, const char *dir, struct error *e);
/* Every file that the index `old_index` names: linked from old_dir into dir. */
MUST_USE enum err_code tree_dir_link(const char *old_dir, const char *old_index, const char *dir, struct error *e);
