/* Which user does what.  When `signalbox fetch` is started by root it works as the cache's owner (effective ids) and becomes
 * somebody else only for the moment a child is started or one file is read.  Nothing is remembered here: the kernel knows.
 * For single-threaded programs. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <sys/types.h>

struct identity {
	bool set; /* false: whoever we are */
	uid_t uid;
	gid_t gid;
};

/* Root becomes uid/gid (effective, no supplementary groups); anybody else, or uid 0: nothing to do. */
MUST_USE enum err_code identity_lower(uid_t uid, gid_t gid, struct error *e);
/* Until identity_return, effective ids are those of `who` (root's real id permitting). */
MUST_USE enum err_code identity_enter(const struct identity *who, struct identity *ret_before, struct error *e);
void identity_return(const struct identity *before);
/* Was this process started by root? Then children get ids of their own. */
bool identity_is_root(void);
