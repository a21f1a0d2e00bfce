/* Submodules, for those who ask for them: each is a repository under the same rules as the one that names it, found before anything is
 * checked out. A URL that leads from another host to this machine's directories is refused whatever the rules say. */
#pragma once
#include "source/mirror.h"

#define SUBMODULES_MAX 128
#define SUBMODULE_DEPTH_MAX 5

struct submodule_list {
	struct submodule {
		char *path; /* below the top */
		char *store, *commit;
	} *v;
	size_t n;
};

/* Of the commit that `of` was found as, and of theirs. A submodule without a URL in .gitmodules is left empty. */
MUST_USE enum err_code submodule_fetch(struct fetch *f, const struct mirror_want *of, const struct mirror_found *found, struct submodule_list *ret, struct error *e);
void submodule_list_release(struct submodule_list *l);
