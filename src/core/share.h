/* A project's share of what all projects use together.  No limit is set unless the configuration does. */
#pragma once
#include "base/err.h"
#include "core/caller.h"

struct core;

void shares_start(struct core *c);
void shares_stop(struct core *c);
void shares_count(struct core *c); /* each tick */
/* One more task of this project is submitted; the count is at most a tick old. */
MUST_USE enum err_code share_take_queued(struct core *c, const char *project, struct error *e);
void share_leave_queue(struct core *c, const char *project); /* one was claimed, or no task came of what was taken */
MUST_USE enum err_code share_check_uploads(struct core *c, struct caller by, int64_t coming, struct error *e); /* coming: that are not on the list yet */
