/* A bare mirror of a URL, brought up to date, and a commit found in it. */
#pragma once
#include "source/fetch_kinds.h"

struct mirror_want {
	const char *url, *ref;
	const char *commit, *branch; /* what a proof found, when proven */
	bool proven;
	const struct credential *credential; /* NULL: none */
	const char *fingerprint;	     /* of it: the mirror is not another one's */
	const struct identity *owner;	     /* a directory must be of this one; NULL: anybody's */
	int64_t depth;			     /* 0: all history */
};

struct mirror_found {
	char *store_dir, *store; /* store: the bare git directory in it */
	char *commit, *branch;	 /* branch NULL: detached */
	struct identity owner;	 /* of a directory */
};

MUST_USE enum err_code mirror_find(struct fetch *f, const struct mirror_want *w, struct mirror_found *ret, struct error *e);
void mirror_found_release(struct mirror_found *f);
