/* Room in the cache: what is in it, what needs it, and what goes when it is too large.
 * Nothing goes that a task still needs: one that is not over, or whose saved workspace can be gone on with; nor what was used a moment ago.
 *
 * Every function may be called from any thread. */
#pragma once
#include "base/js.h"
#include "base/strbuf.h"

#define CACHE_GRACE_MS ((int64_t)10 * 60 * 1000) /* between a use and the row that tells of it, at most */

struct core;

void cache_open(struct core *c);
void cache_close(struct core *c);
void cache_tick(struct core *c); /* reconcile's pass: measures, and makes room over cache.max_bytes */
void cache_metrics(struct core *c, struct strbuf *out);

/* Everything that nothing needs and nobody has used within older_than_ms. {removed: [...], kept: [...], removed_bytes, kept_bytes, limit_bytes, dry_run};
 * each thing {kind, what, path, bytes, used_at, why}. */
MUST_USE enum err_code core_prune(struct core *c, bool dry_run, int64_t older_than_ms, struct js **ret, struct error *e);
