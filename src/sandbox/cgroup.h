/* Inside the room only: how the stage enters a run's cgroup, and how the hierarchies are found. */
#pragma once
#include "sandbox/sandbox.h"

/* The v2 directory for clone3's CLONE_INTO_CGROUP, which costs nothing, or -1. A later move by cgroup_join waits for an RCU grace
 * period (about 10 ms) in v2 unless there was another one just before. */
int cgroup_clone_fd(struct cgroup *g);
/* The calling process enters; `cloned`: it is in the v2 one already. NULL is fine. */
MUST_USE enum err_code cgroup_join(const struct cgroup *g, bool cloned, struct error *e);
bool cgroup_limits_pids(const struct cgroup *g);
