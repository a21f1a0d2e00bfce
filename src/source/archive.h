/* An archive as a commit in a store of ours: the two processes that turn the one into the other. */
#pragma once
#include "base/js.h"
#include "source/cache.h"
#include "source/report.h"

#define ARCHIVE_TIMEOUT_MS ((int64_t)9 * 60 * 1000) /* of the unpacking; less than a submit waits for it */

struct archive_job {
	int fd;		      /* of the file, at its start */
	struct js *limits;    /* for signalbox-unpack; borrowed */
	uid_t uid;	      /* whom root's children become */
	gid_t gid;
	struct report *report;
};

/* Runs signalbox-unpack and `git fast-import`; *ret_done is what the first said, *ret_tree the tree in the store. */
MUST_USE enum err_code archive_import(const struct archive_job *job, const struct cache_store *store, struct js **ret_done, char **ret_tree, struct error *e);
/* From now on this process and its children have no network. */
MUST_USE enum err_code archive_leave_network(struct error *e);
