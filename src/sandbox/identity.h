/* What the stage becomes before it does anything: the cgroup's member, an ordinary uid, owner of its own user and mount namespaces. */
#pragma once
#include "sandbox/sandbox.h"

struct identity {
	bool from_root;
	uid_t uid; /* on the host */
	gid_t gid;
	struct cgroup *cgroup;
	bool in_cgroup; /* cloned into the v2 one */
	const struct sandbox_limits *limits; /* NULL: none */
};

/* Before the clone, since a new user namespace hides who we are: uid and gid count only when we are root, else they are our own. */
struct identity identity_of(uid_t uid, gid_t gid);
unsigned long long identity_clone_flags(const struct identity *id); /* what can be had without losing root's right to choose the uid */
const char *identity_refused_hint(int cause); /* the kernel made no user namespace, with this errno: what helps */
MUST_USE enum err_code identity_take(const struct identity *id, struct error *e);
