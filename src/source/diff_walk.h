/* Which paths an agent touched: read from its overlay layer, or, where there is none, every path of its workspace.
 * Nothing is interpreted here beyond names, types and overlay's marks; `.git` is skipped at every depth. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include "base/strbuf.h"
#include "source/index_file.h"
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#define DIFF_PATHS_MAX ((size_t)2000000)	 /* names looked at */
#define DIFF_NAMES_MAX ((size_t)512 << 20)	 /* their bytes */
#define DIFF_NAME_MAX ((size_t)4096)		 /* bytes of one path; git itself goes no further */
#define DIFF_FILE_MAX ((int64_t)512 << 20)	 /* bytes of one changed file; larger ones are skipped and said so */
#define DIFF_FILES_MAX ((int64_t)8 << 30)	 /* bytes of all changed files */
#define DIFF_SKIPPED_MAX 1000			 /* entries in the list of what was skipped */

struct name_list { /* owned strings; sorted and without doubles after name_list_sort */
	char **v;
	size_t n, cap, bytes;
};
void name_list_add(struct name_list *l, const char *name);
void name_list_sort(struct name_list *l);
bool name_list_has(const struct name_list *l, const char *name); /* sorted lists only */
void name_list_release(struct name_list *l);

struct base_list { /* the snapshot's files, sorted; names point into the index */
	struct index_file index;
	struct base_entry { const char *name; uint32_t mode; } *v;
	size_t n;
};
MUST_USE enum err_code base_list_load(struct base_list *b, const char *index_path, struct error *e);
void base_list_release(struct base_list *b);
const struct base_entry *base_list_find(const struct base_list *b, const char *name);
/* Adds every base path at or below `name` that is not in `present` to `out`; submodules are left alone. */
void base_list_add_missing(const struct base_list *b, const char *name, const struct name_list *present, struct name_list *out);

struct diff_walk {
	const char *upper;    /* NULL: the whole worktree */
	const char *worktree;
	const struct base_list *base;
	struct name_list present; /* regular files and links, sorted when done */
	const struct timespec *changed_since; /* of files whose inode changed since then... */
	struct name_list changed; /* ...the names; the one time that an agent cannot set */
	struct name_list gone;	  /* at or below these nothing of the base is left but what is present */
	struct js *skipped;	  /* [{"path","reason"}]; borrowed */
	int64_t bytes;
};
MUST_USE enum err_code diff_walk_run(struct diff_walk *w, struct error *e);
void diff_walk_release(struct diff_walk *w);
void diff_skip(struct js *skipped, const char *path, const char *reason);
/* "name" as text, and "name_base64" too where it is not UTF-8. */
void diff_set_path(struct js *o, const char *name, const char *path);
