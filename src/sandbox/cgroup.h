/* Inside the room only: how the stage enters a run's cgroup, and how the hierarchies are found. */
#pragma once
#include "sandbox/sandbox.h"

MUST_USE enum err_code cgroup_join(const struct cgroup *g, struct error *e); /* the calling process; NULL is fine */
bool cgroup_limits_pids(const struct cgroup *g);
