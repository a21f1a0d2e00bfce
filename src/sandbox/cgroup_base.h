/* Which directory of the v2 hierarchy may hold our cgroups: one whose children can have controllers. */
#pragma once
#include "sandbox/cgroup_find.h"

#define CGROUP_LEAF "signalbox-server" /* where a delegated cgroup's own processes go, since inner nodes may hold none */

struct cgroup_base {
	char *dir; /* NULL: none */
	bool memory, pids, cpu;
};

/* Never fails: without anything, dir is NULL or the controllers are false. The caller frees dir. */
void cgroup_base_find(const struct cgroup_place *v2, struct cgroup_base *ret);
void cgroup_base_enable(const char *dir, struct cgroup_base *ret); /* asks for the controllers in dir's subtree */
bool cgroup_text_write(const char *dir, const char *name, const char *text);
bool cgroup_text_read(const char *dir, const char *name, char *ret, unsigned long size); /* cut at size; false: absent */
