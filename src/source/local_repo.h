/* A user's directory, looked at as its owner and never written: where its git things are, and a scratch git directory beside
 * which holds a copy of its index, its exclude rules, and whatever new objects a snapshot needs. */
#pragma once
#include "base/strbuf.h"
#include "source/git.h"
#include "source/identity.h"
#include <stdbool.h>

#define LOCAL_EXCLUDE_MAX ((size_t)1 << 20) /* bytes of one file of exclude rules */
#define LOCAL_SHALLOW_MAX ((size_t)16 << 20)

struct local_repo {
	struct identity owner;
	bool is_ours;	 /* the owner is the cache's user too */
	char *top;	 /* the work tree; the directory itself where there is no git */
	char *prefix;	 /* "sub/dir/" when the directory asked for is below top; "" otherwise */
	bool has_git;
	bool ignores_modes; /* core.fileMode=false there */
	char *objects, *index, *shallow, *exclude, *config; /* paths; NULL without git */
	char *head, *head_tree; /* NULL: no commit yet */
	char *branch;	 /* NULL: detached, or no git */
	char *excludes_file; /* core.excludesFile of the repository, or NULL */
	char *scratch;	 /* the scratch git directory */
	char *scratch_index;
};

/* Finds all but the scratch. */
MUST_USE enum err_code local_repo_find(const char *dir, struct local_repo *ret, struct error *e);
/* Makes the scratch directory in `parent` (NULL: the system's temporary directory). `more_objects` may be NULL. */
MUST_USE enum err_code local_repo_make_scratch(struct local_repo *r, const char *parent, const char *more_objects, struct strbuf *ret_exclude, struct error *e);
void local_repo_release(struct local_repo *r); /* removes the scratch */
/* git in the user's tree with the scratch as its git directory. */
struct git local_repo_git(const struct local_repo *r);
/* With its time: an entry as young as its index is in doubt for git. Absent `from`: nothing is copied. */
MUST_USE enum err_code local_repo_copy_index(const char *from, const char *to, struct error *e);
