/* What the cache holds, thing by thing, and how one is taken out of it.  A store (a mirror, or a directory's snapshots) and the trees
 * checked out of it go together: while a tree is there its store has to be, since git inside a sandbox reads its objects.
 * Nothing is dropped that somebody holds the lock of. For the server, which may be root over another user's files: no link is followed. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STOCK_ITEMS_MAX 100000

enum stock_kind { STOCK_TREE, STOCK_STORE, STOCK_LEFTOVER, STOCK_KINDS };

struct stock_item {
	enum stock_kind kind;
	char *path, *what; /* what: the URL or directory of a store, the commit of a tree */
	char *store_mark;  /* the same for a store and its trees */
	int64_t bytes;	   /* on disk; of files that trees share, a part */
	int64_t used_ms;   /* wall; of a store not before its trees */
	bool in_use;	   /* set by the caller */
	const char *why;   /* the caller's word on it */
};

struct stock {
	struct stock_item *v; /* the least recently used first; a tree before its store */
	size_t n;
};

const char *stock_kind_name(enum stock_kind kind);
/* `before`: an earlier list, whose trees need not be measured again; NULL: none. */
MUST_USE enum err_code stock_list(const char *cache, const struct stock *before, struct stock *ret, struct error *e);
void stock_sort(struct stock *s); /* lists that were put together */
void stock_release(struct stock *s);
/* Is it what a source would be fetched into or checked out from? commit NULL: any. */
bool stock_is_of(const struct stock_item *item, const char *store_repo, const char *commit);
/* Out of everybody's way; *ret_gone is then to be removed (file_remove_tree), which may take its time. ERR_BUSY: somebody holds it. */
MUST_USE enum err_code stock_take_out(const struct stock_item *item, char **ret_gone, struct error *e);
