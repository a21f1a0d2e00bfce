/* Where this process may make cgroups: looked up in /proc/self/mountinfo and /proc/self/cgroup, given as texts so that tests can say
 * what a machine looks like.  Hierarchies: one v2, and on hybrid machines one v1 per controller. */
#pragma once
#include "base/err.h"
#include <stdbool.h>

enum cgroup_tree { TREE_V2, TREE_MEMORY, TREE_PIDS, TREE_CPU, TREE_CPUACCT, TREE_COUNT };

struct cgroup_place {
	char *mount; /* where the hierarchy is mounted; NULL: it is not */
	char *own;   /* the directory of this process's own cgroup in it */
};

struct cgroup_places {
	struct cgroup_place at[TREE_COUNT];
};

#define CGROUP_TEXT_MAX ((size_t)1 << 20)

void cgroup_places_parse(const char *mountinfo, const char *self_cgroup, struct cgroup_places *ret);
MUST_USE enum err_code cgroup_places_find(struct cgroup_places *ret, struct error *e);
void cgroup_places_release(struct cgroup_places *p);
