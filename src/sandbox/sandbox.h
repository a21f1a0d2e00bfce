/* The walls: layers (overlay), namespaces and bubblewrap, cgroup limits, seccomp.  A sandbox is first a plan (data, printable), then
 * carried out.  Used by the runner only, from its only thread.
 *
 *   runner --clone3(NEWUSER|NEWPID|NEWNS)--> stage (init of that namespace; mounts the overlay; dies on EOF of the death pipe)
 *      --> bwrap (nested user namespace, all others) --> signalbox-init (PID 1 inside, static) --> agent
 *
 * Host identity: never uid 0.  When the runner is root, the stage becomes plan->uid/gid before it does anything (and the user
 * namespace is owned by that uid); otherwise uid/gid are the runner's own. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SANDBOX_BINDS_MAX 32
#define SANDBOX_LOWERS_MAX 8

#define SANDBOX_WORKSPACE "/workspace"
#define SANDBOX_HOME "/home/agent"
#define SANDBOX_OBJECTS "/run/signalbox/objects"   /* the mirror's objects, read-only */
#define SANDBOX_GATEWAY_DIR "/run/signalbox/gateway" /* holds model.sock */
#define SANDBOX_INIT "/run/signalbox/init"

/* How the workspace is put together. OVERLAY: lower[0] is the top-most read-only layer. PLAIN: `upper` is an ordinary directory that is used as it is. */
enum layers_mode { LAYERS_OVERLAY, LAYERS_PLAIN };
struct sandbox_layers {
	enum layers_mode mode;
	const char *lower[SANDBOX_LOWERS_MAX];
	int lower_count;
	const char *upper;	/* the run's own changes */
	const char *work;	/* overlay's work directory, on upper's file system; may serve several uppers. The layer is not synced: after a power
				 * cut it is refused (ERR_STALE) */
	const char *merged;	/* an empty directory to mount on (inside the stage's mount namespace only) */
};

struct sandbox_bind {
	const char *from, *to;
	bool writable;
};

struct sandbox_limits { /* 0: not limited */
	int64_t memory_bytes, pids, cpu_percent, file_bytes, tmp_bytes, open_files;
};

enum sandbox_confinement { CONFINED_BY_CGROUP2, CONFINED_BY_HYBRID, CONFINED_BY_RLIMITS };
const char *sandbox_confinement_name(enum sandbox_confinement c); /* "cgroup2" "hybrid" "rlimits" */

/* A cgroup for one run, opened before privileges are dropped; used by every sandbox of the run. */
struct cgroup;
MUST_USE enum err_code cgroup_open(const char *run_id, const struct sandbox_limits *limits, uid_t uid, struct cgroup **ret, struct error *e);
enum sandbox_confinement cgroup_kind(const struct cgroup *g); /* NULL gives CONFINED_BY_RLIMITS */
const char *cgroup_why(const struct cgroup *g);		      /* one sentence for people */
void cgroup_kill(struct cgroup *g);			      /* every process in it; NULL is fine */
struct cgroup_usage { int64_t memory_peak, cpu_us, pids_now; bool oom_killed; };
void cgroup_usage(struct cgroup *g, struct cgroup_usage *ret);
void cgroup_close(struct cgroup *g); /* kills, waits until empty (bounded), removes the directories, frees; NULL is fine */
/* For whoever cleans up after a dead runner: kill and remove by run id; absent is fine. */
void cgroup_remove_by_id(const char *run_id);
/* The run ids that have a cgroup of this uid's, of whichever server; one id may come several times (a hierarchy each). */
void cgroup_list(uid_t uid, void (*fn)(void *ctx, const char *run_id), void *ctx);

struct sandbox_plan {
	const char *id;			/* run id: for the hostname and messages */
	uid_t uid;			/* host identity to become when root (else ignored) */
	gid_t gid;
	struct sandbox_layers layers;
	struct sandbox_bind binds[SANDBOX_BINDS_MAX]; /* beside the fixed ones (/usr, /etc list, /proc, /dev, /tmp, init) */
	int bind_count;
	const char *home;		/* host directory bound writable at SANDBOX_HOME */
	const char *gateway_dir;	/* host directory bound read-only at SANDBOX_GATEWAY_DIR, or NULL */
	int gateway_port;		/* init forwards 127.0.0.1:port inside to SANDBOX_GATEWAY_DIR/model.sock; 0: none */
	bool share_net;			/* the host's network (setup phase only) */
	const char *const *env;		/* the whole environment of the agent, NULL-ended "K=V" */
	const char *const *argv;	/* the agent, absolute path inside */
	const char *init_path;		/* host path of signalbox-init */
	struct sandbox_limits limits;	/* what rlimits and tmpfs sizes can hold */
	struct cgroup *cgroup;		/* or NULL */
	int stdin_fd, stdout_fd, stderr_fd; /* given to the agent; PROC_NULL: /dev/null */
};
void sandbox_plan_print(const struct sandbox_plan *p, struct strbuf *out); /* one operation a line, for the record and for tests */

struct sandbox {
	pid_t pid;	/* the stage's init on the host */
	int pidfd;	/* readable when the whole PID namespace is gone */
	int death_fd;	/* closing it ends everything */
	int control_fd; /* one byte = a signal number for the agent's process group */
	int error_fd;	/* one JSON line on a failure before the agent ran: {"step","error"}; EOF at exec of the agent. Wait on it, but leave the reading
			 * to sandbox_finish, which explains with it */
};
#define SANDBOX_INIT_VALUE { .pid = 0, .pidfd = -1, .death_fd = -1, .control_fd = -1, .error_fd = -1 }

MUST_USE enum err_code sandbox_start(const struct sandbox_plan *plan, struct sandbox *ret, struct error *e);
void sandbox_signal(struct sandbox *s, int sig); /* to the agent, by signalbox-init */
void sandbox_kill(struct sandbox *s);		 /* SIGKILL to the stage's init: nothing survives; returns at once */
/* After pidfd is readable: reaps. exit code, or 128+signal. An error when the agent could not be started: which step and why. Closes all fds. */
MUST_USE enum err_code sandbox_finish(struct sandbox *s, int *ret_status, struct error *e);

/* Runs fn(arg) in a stage of its own (same namespaces and identity, layers mounted at layers->merged, no bwrap) and gives its pidfd; exit status is fn's
 * return value.  Used to collect the diff: what it executes is git with our own git dir, and it sees only what plan->uid may see.
 * inherited fds stay open (so end other sandboxes by sandbox_kill, not by closing death_fd, while a call is under way). */
MUST_USE enum err_code sandbox_stage_call(const struct sandbox_layers *layers, uid_t uid, gid_t gid, int (*fn)(void *arg), void *arg, struct sandbox *ret, struct error *e);

/* Root only: makes a file or directory that lies below a directory the sandbox's uid cannot pass (/root/...) reachable at `at`, by a bind mount in a
 * mount namespace of this process's own (made private; nothing is seen outside, nothing stays after the process).  `at` is created when absent. */
MUST_USE enum err_code sandbox_expose(const char *host_path, const char *at, struct error *e);

/* What this machine allows, found by trying (tens of ms): for the choice of the layers' mode and for doctor. `scratch` is a directory on the file system that will hold the layers. */
struct sandbox_probe { bool userns, overlay, bwrap, seccomp; enum sandbox_confinement confinement; char why[512]; /* what is missing and how to mend it; "" when all is there */ };
void sandbox_probe(const char *scratch, uid_t uid, gid_t gid, struct sandbox_probe *ret);
