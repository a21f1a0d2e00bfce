/* See identity.h.  As root the uid is changed in the host's user namespace first, and the new user namespace is made by that uid: it
 * owns it, and no process with host uid 0 ever runs anything.  Otherwise the namespaces came with the clone. */
#include "sandbox/identity.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/cleanup.h"
#include "sandbox/cgroup.h"
#include "sandbox/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define AGENT_UMASK 022
#define CHROOT_HINT "in a chroot the kernel makes no user namespaces, whatever is set: use a container, or pivot_root"

struct identity identity_of(uid_t uid, gid_t gid)
{
	bool root = geteuid() == 0;

	return (struct identity){ .from_root = root, .uid = root ? uid : geteuid(), .gid = root ? gid : getegid() };
}

unsigned long long identity_clone_flags(const struct identity *id)
{
	return id->from_root ? CLONE_NEWPID | CLONE_NEWNS : CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWNS;
}

static enum err_code write_text(const char *path, const char *text, struct error *e)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return error_errno(e, "write %s", path);
	return ERR_OK;
}

const char *identity_refused_hint(int cause)
{
	if (cause == EPERM)
		return "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0); "
		       CHROOT_HINT;
	return "allow unprivileged user namespaces: sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns";
}

static enum err_code drop_root(const struct identity *id, struct error *e)
{
	if (setgroups(0, NULL) < 0 || setresgid(id->gid, id->gid, id->gid) < 0 || setresuid(id->uid, id->uid, id->uid) < 0)
		return error_errno(e, "become uid %u", (unsigned)id->uid);
	if (setuid(0) == 0 || geteuid() == 0)
		return error_set(e, ERR_INTERNAL, "become uid %u: still root", (unsigned)id->uid);
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
		int cause = errno;
		enum err_code rc = error_errno(e, "make a user namespace as uid %u", (unsigned)id->uid);
		error_hint(e, "%s", identity_refused_hint(cause));
		return rc;
	}
	return ERR_OK;
}

/* One id each, onto itself: the workspace's files keep their owner, and everybody else's are nobody's. */
static enum err_code write_maps(uid_t uid, gid_t gid, struct error *e)
{
	AUTO_FREE char *uid_map = mem_printf("%u %u 1\n", (unsigned)uid, (unsigned)uid);
	AUTO_FREE char *gid_map = mem_printf("%u %u 1\n", (unsigned)gid, (unsigned)gid);
	enum err_code rc = write_text("/proc/self/setgroups", "deny", e);

	if (rc == ERR_OK)
		rc = write_text("/proc/self/uid_map", uid_map, e);
	return rc == ERR_OK ? write_text("/proc/self/gid_map", gid_map, e) : rc;
}

static enum err_code limit_set(__rlimit_resource_t what, const char *name, int64_t value, struct error *e)
{
	struct rlimit r;

	if (getrlimit(what, &r) < 0)
		return error_errno(e, "read limit %s", name);
	if (r.rlim_max == RLIM_INFINITY || (rlim_t)value < r.rlim_max)
		r.rlim_max = (rlim_t)value;
	r.rlim_cur = r.rlim_max;
	return setrlimit(what, &r) < 0 ? error_errno(e, "set limit %s", name) : ERR_OK;
}

/* RLIMIT_NPROC counts a uid's processes within the user namespace, so it is this sandbox's own; it is only used where no cgroup
 * counts.  RLIMIT_AS is never set: V8 reserves address space by the terabyte. */
static enum err_code limits_set(const struct identity *id, struct error *e)
{
	const struct sandbox_limits *l = id->limits;
	enum err_code rc = limit_set(RLIMIT_CORE, "core", 0, e);

	if (rc == ERR_OK && l && l->file_bytes > 0)
		rc = limit_set(RLIMIT_FSIZE, "file size", l->file_bytes, e);
	if (rc == ERR_OK && l && l->open_files > 0)
		rc = limit_set(RLIMIT_NOFILE, "open files", l->open_files, e);
	if (rc == ERR_OK && l && l->pids > 0 && !cgroup_limits_pids(id->cgroup))
		rc = limit_set(RLIMIT_NPROC, "processes", l->pids, e);
	return rc;
}

static void keyring_new(void)
{
	/* Kernels without keyrings have none to protect. */
	(void)syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
}

/* bwrap looks for its child in /proc by the number it has here; in the outer /proc that is another process or, in a container, none.
 * Where /proc may not be mounted bwrap cannot mount the sandbox's either and says so. */
static enum err_code mounts_take(struct error *e)
{
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		int cause = errno;
		enum err_code rc = error_errno(e, "make the mounts private");
		if (cause == EINVAL) /* / is no mount point */
			error_hint(e, CHROOT_HINT);
		return rc;
	}
	(void)mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	return ERR_OK;
}

enum err_code identity_take(const struct identity *id, struct error *e)
{
	enum err_code rc;

	(void)setsid();
	(void)umask(AGENT_UMASK);
	if ((rc = cgroup_join(id->cgroup, id->in_cgroup, e)) != ERR_OK)
		return rc;
	/* A PID namespace's /proc is mounted by whom the namespace belongs to: here to root, else to our own user namespace. */
	if (id->from_root && (rc = mounts_take(e)) != ERR_OK)
		return rc;
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* else our own files in /proc belong to root */
	if (id->from_root && (rc = drop_root(id, e)) != ERR_OK)
		return rc;
	if ((rc = write_maps(id->uid, id->gid, e)) != ERR_OK)
		return error_wrap(e, "map uid %u", (unsigned)id->uid);
	keyring_new();
	if (!id->from_root && (rc = mounts_take(e)) != ERR_OK)
		return rc;
	(void)write_text("/proc/self/oom_score_adj", STAGE_OOM_SCORE, NULL); /* may already be higher */
	return limits_set(id, e);
}
