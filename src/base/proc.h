/* Children.  Only this module (and the sandbox's stage) starts processes: CLOEXEC everywhere, a session of its own when asked,
 * no shell, a pidfd, and which step failed is reported in words.  posix_spawn/vfork semantics: cheap from a big parent, and safe
 * from any thread (but PDEATHSIG follows the thread, so only single-threaded programs may ask for it). */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PROC_FDS_MAX 16

/* Who a process was: pids are reused, (pid, start time, boot) is not. */
struct proc_id {
	pid_t pid;
	uint64_t start_ticks; /* field 22 of /proc/PID/stat */
	char boot[40];	      /* /proc/sys/kernel/random/boot_id */
};

struct proc_spec {
	const char *const *argv;      /* argv[0] is looked up in PATH unless it has a slash */
	const char *const *env;	      /* NULL: inherit ours; else the whole environment */
	const char *cwd;	      /* NULL: ours */
	int stdin_fd, stdout_fd, stderr_fd; /* 0/1/2 keep ours; PROC_NULL gives /dev/null */
	struct { int from, to; } fds[PROC_FDS_MAX]; /* further descriptors to pass, `to` > 2 */
	int fd_count;
	bool new_session;
	bool die_with_parent;	      /* PDEATHSIG=KILL with a race check; single-threaded callers only */
	bool set_ids;		      /* become uid/gid with no supplementary groups */
	uid_t uid;
	gid_t gid;
};
#define PROC_NULL (-1)
#define PROC_SPEC_INIT { .stdin_fd = PROC_NULL, .stdout_fd = 1, .stderr_fd = 2 }

struct proc {
	pid_t pid;
	int pidfd; /* -1 when not running; close with proc_release */
};
#define PROC_INIT { .pid = 0, .pidfd = -1 }

MUST_USE enum err_code proc_start(const struct proc_spec *spec, struct proc *ret, struct error *e);
void proc_release(struct proc *p); /* closes the pidfd; does not kill */
void proc_signal(const struct proc *p, int sig);
/* Waits; wait status in the form: exit code 0..255, or 128+signal. timeout_ms < 0 waits for ever; ERR_TIMEOUT when it is up. */
MUST_USE enum err_code proc_wait(struct proc *p, int64_t timeout_ms, int *ret_status, struct error *e);

/* Runs to the end with captured output; over `max` or past timeout_ms the child is killed and the error says so.
 * A non-zero exit is not an error here: look at *ret_status. `in` may be NULL; ret_out/ret_err may be NULL (/dev/null). */
MUST_USE enum err_code proc_run(const struct proc_spec *spec, const void *in, size_t in_len, int64_t timeout_ms,
	struct strbuf *ret_out, struct strbuf *ret_err, int *ret_status, struct error *e);

MUST_USE enum err_code proc_identify(pid_t pid, struct proc_id *ret, struct error *e);
bool proc_is_alive(const struct proc_id *id);		/* same pid, same start, same boot, not a zombie */
int proc_open(const struct proc_id *id);		/* a pidfd of exactly that process, or -1 */
char *proc_self_path(void);				/* of this executable; the caller frees */
/* A helper executable beside this one (build tree or libexec/signalbox); NULL when there is none. The caller frees. */
char *proc_helper_path(const char *name);
