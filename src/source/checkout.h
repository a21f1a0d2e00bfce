/* Cached checkouts: CACHE/trees/<commit>-<store>-<view>, where `store` is a hash of the store's path and `view` one of head and
 * branch, since one commit may be looked at in several ways. See source.h for what is in one. */
#pragma once
#include "base/js.h"
#include "source/report.h"

struct submodule_list;
struct lfs_list;

#define CHECKOUT_MTIME 1000000000 /* of every file, in s: old, so that no index entry is ever in doubt */
#define CHECKOUT_INDEX ".git/signalbox-index"
#define CHECKOUT_HASH_SHOWN 12 /* hex digits of a hash in a tree's name */
#define CHECKOUT_RECORD ".git/signalbox-tree"

struct checkout_job {
	const char *store, *commit;
	const char *head;   /* NULL: the commit */
	const char *branch; /* NULL: detached; with no head: "main" */
	const char *cache;
	struct report *report;
	bool with_submodules;
	const struct submodule_list *submodules; /* to make it; not needed to find it */
	bool with_lfs;
	const struct lfs_list *lfs; /* the same */
};

/* Adds checkout, tree, files, bytes, reused to `result`. */
MUST_USE enum err_code checkout_make(const struct checkout_job *job, struct js *result, struct error *e);
/* The same when it is there already; makes nothing, starts nothing. */
bool checkout_find(const struct checkout_job *job, struct js *result);
