/* What this machine allows, found by trying; see sandbox.h.  Nothing stays: the scratch directories go with the answer. */
#include "sandbox/sandbox.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "sandbox/bwrap.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PROBE_WAIT_MS 60000 /* a trial that a busy machine is late with is no wall that is missing */

struct scratch {
	char *root, *lower, *upper, *work, *merged;
};

static enum err_code scratch_make(const char *parent, uid_t uid, gid_t gid, struct scratch *ret, struct error *e)
{
	static const char *const names[] = { "lower", "upper", "work", "merged" };
	char **paths[] = { &ret->lower, &ret->upper, &ret->work, &ret->merged };
	enum err_code rc = file_tmpdir(parent, "probe-", &ret->root, e);

	for (size_t i = 0; rc == ERR_OK && i < ARRAY_SIZE(names); i++) {
		*paths[i] = file_join(ret->root, names[i]);
		rc = file_mkdirs(*paths[i], 0755, e);
	}
	if (rc == ERR_OK && geteuid() == 0)
		rc = file_chown_tree(ret->root, uid, gid, e);
	return rc;
}

static void scratch_remove(struct scratch *s)
{
	if (s->root)
		(void)!file_remove_tree(s->root, NULL);
	free(s->root);
	free(s->lower);
	free(s->upper);
	free(s->work);
	free(s->merged);
}

static int nothing(void *arg UNUSED)
{
	return 0;
}

/* Replaces the stage's child by bwrap with what every sandbox needs of it. */
static int bwrap_exec(void *arg)
{
	char *path = arg;
	char *const argv[] = { "bwrap", "--unshare-all", "--unshare-user", "--uid", PLAN_UID_INSIDE, "--gid", PLAN_UID_INSIDE, "--disable-userns", "--as-pid-1",
		"--die-with-parent", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "/bin/true", NULL };
	char *const environment[] = { NULL };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; fd <= 2; fd++)
		(void)dup2(null, fd);
	execve(path, argv, environment);
	return 127;
}

/* Runs fn in a stage and says whether it ended with 0. */
static bool stage_says_yes(const struct sandbox_layers *layers, uid_t uid, gid_t gid, int (*fn)(void *), void *arg, struct error *e)
{
	struct sandbox s = SANDBOX_INIT_VALUE;
	int status = -1;

	if (sandbox_stage_call(layers, uid, gid, fn, arg, &s, e) != ERR_OK)
		return false;
	struct pollfd p = { .fd = s.pidfd, .events = POLLIN };
	if (poll(&p, 1, PROBE_WAIT_MS) <= 0)
		sandbox_kill(&s);
	if (sandbox_finish(&s, &status, e) != ERR_OK)
		return false;
	if (status != 0)
		error_set(e, ERR_UNSUPPORTED, "the trial ended with status %d", status);
	return status == 0;
}

static bool probe_overlay(const char *scratch, uid_t uid, gid_t gid, struct error *e)
{
	AUTO(scratch_remove) struct scratch s = { .root = NULL };

	if (scratch_make(scratch, uid, gid, &s, e) != ERR_OK)
		return false;
	const struct sandbox_layers l = { .mode = LAYERS_OVERLAY, .lower = { s.lower }, .lower_count = 1, .upper = s.upper, .work = s.work, .merged = s.merged };
	return stage_says_yes(&l, uid, gid, nothing, NULL, e);
}

static bool probe_bwrap(uid_t uid, gid_t gid, struct error *e)
{
	AUTO_FREE char *path = NULL;

	return bwrap_find(&path, e) == ERR_OK && stage_says_yes(NULL, uid, gid, bwrap_exec, path, e);
}

static bool probe_seccomp(void)
{
	uint32_t action = SECCOMP_RET_ERRNO;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

static enum sandbox_confinement probe_confinement(uid_t uid)
{
	static const struct sandbox_limits limits = { .memory_bytes = (int64_t)64 << 20, .pids = 64 };
	AUTO_FREE char *id = mem_printf("probe-%d", (int)getpid());
	struct cgroup *g = NULL;

	if (cgroup_open(id, &limits, uid, &g, NULL) != ERR_OK)
		return CONFINED_BY_RLIMITS;
	enum sandbox_confinement kind = cgroup_kind(g);
	cgroup_close(g);
	return kind;
}

static void why_add(struct sandbox_probe *p, const char *what, const struct error *e, const char *mend)
{
	size_t at = strlen(p->why);

	(void)snprintf(p->why + at, sizeof p->why - at, "%s%s%s%s; %s", at ? ". " : "", what, e ? ": " : "", e ? e->text : "", e && e->hint[0] ? e->hint : mend);
}

void sandbox_probe(const char *scratch, uid_t uid, gid_t gid, struct sandbox_probe *ret)
{
	struct error e = ERROR_INIT;

	*ret = (struct sandbox_probe){ .seccomp = probe_seccomp() };
	ret->userns = stage_says_yes(NULL, uid, gid, nothing, NULL, &e);
	if (!ret->userns)
		why_add(ret, "no user namespaces", &e, "allow unprivileged user namespaces (on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0)");
	error_clear(&e);
	ret->overlay = ret->userns && probe_overlay(scratch, uid, gid, &e);
	if (ret->userns && !ret->overlay)
		why_add(ret, "no overlay, so workspaces are copied", &e, "use a local file system with user xattrs for the data directory");
	error_clear(&e);
	ret->bwrap = ret->userns && probe_bwrap(uid, gid, &e);
	if (ret->userns && !ret->bwrap)
		why_add(ret, "bubblewrap cannot make a sandbox", &e, "install bubblewrap 0.8 or newer");
	if (!ret->seccomp)
		why_add(ret, "no seccomp filters", NULL, "use a kernel with CONFIG_SECCOMP_FILTER");
	ret->confinement = probe_confinement(uid);
	if (ret->confinement == CONFINED_BY_RLIMITS)
		why_add(ret, "no cgroup with memory and pids controllers", NULL, "run as a systemd service with Delegate=yes, or: systemd-run --user --scope -p Delegate=yes");
}
