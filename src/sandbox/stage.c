/* See stage.h.  What kills: the runner's end of the death socket closes with the runner, however it dies; the stage sees it and
 * exits; the kernel then kills and reaps every process of the PID namespace before the stage itself is reported dead.
 *
 *   runner  --death--> stage (PID 1) <--words, report-- bwrap, signalbox-init
 *           <--error--
 *           --control----------------------------------> signalbox-init */
#include "sandbox/stage.h"

#include "base/cleanup.h"
#include "base/js.h"
#include "base/mem.h"
#include "sandbox/bwrap.h"
#include "sandbox/cgroup.h"
#include "sandbox/identity.h"
#include "sandbox/init/protocol.h"
#include "sandbox/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define GO 'g'
#define KEEP_MAX 24
#define KERNEL_SIGACTION_BYTES 64 /* handler, flags, restorer, mask: all of them zero */

/* Both ends of what runner and stage share, before the clone. */
struct links {
	int death[2], control[2], error[2]; /* [0]: the runner's */
};

/* The child's side. */
struct inside {
	int death, error;
	int report; /* read end; -1 once the agent is known to run, or not to */
	int words;
	int signals;
	pid_t main;
	struct strbuf reported;
};

void stage_report(int fd, const char *step, const struct error *e)
{
	AUTO_JS struct js *o = js_object();

	js_set_str(o, "step", step);
	js_set_str(o, "error", e->text);
	js_set_str(o, "code", err_name(e->code));
	if (e->hint[0])
		js_set_str(o, "hint", e->hint);
	AUTO_FREE char *line = js_dump(o);
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	strbuf_adds(&text, line);
	strbuf_addc(&text, '\n');
	(void)!write(fd, text.data, text.len); /* the runner may be gone; then nobody asks */
}

static void fail(const struct inside *in, const char *step, const struct error *e)
{
	stage_report(in->error, step, e);
	_exit(STAGE_EXIT_FAILED);
}

/* The runner's handlers and blocked signals are not ours. By the system call: libc keeps two signals for itself, and its posix_spawn
 * makes children that ignore them. */
static int signals_open(void)
{
	static const char by_default[KERNEL_SIGACTION_BYTES];
	sigset_t set;

	for (int s = 1; s < NSIG; s++)
		(void)syscall(SYS_rt_sigaction, s, by_default, NULL, (size_t)_NSIG / 8);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_SETMASK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int fd_raise(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, STAGE_FD_FLOOR);
}

static int int_compare(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

/* Locks, sockets and pipes of the runner must not live on in here. */
static void fds_close_except(int *keep, size_t n)
{
	unsigned from = 0;

	qsort(keep, n, sizeof *keep, int_compare);
	for (size_t i = 0; i < n; i++) {
		if (keep[i] < 0)
			continue;
		if ((unsigned)keep[i] > from)
			(void)close_range(from, (unsigned)keep[i] - 1, 0);
		from = (unsigned)keep[i] + 1;
	}
	(void)close_range(from, ~0u, 0);
}

static int exit_of(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void error_close(struct inside *in)
{
	if (in->error >= 0)
		close(in->error);
	in->error = -1;
}

/* What init has said so far; at its end the agent runs, or the reason why not is passed on. */
static void report_read(struct inside *in)
{
	char buf[512];
	ssize_t n;

	while ((n = read(in->report, buf, sizeof buf)) > 0)
		if (in->reported.len < STAGE_REPORT_MAX)
			strbuf_add(&in->reported, buf, (size_t)n);
	if (n < 0)
		return;
	close(in->report);
	in->report = -1;
	if (in->reported.len == 0)
		return; /* init never ran: bwrap's end will say why */
	if (in->reported.len > 1)
		(void)!write(in->error, in->reported.data + 1, in->reported.len - 1);
	error_close(in);
}

static void words_report(const struct inside *in, int status)
{
	struct error e = ERROR_INIT;
	char text[STAGE_TEXT_MAX + 1];
	ssize_t n = pread(in->words, text, STAGE_TEXT_MAX, 0);

	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (n > 0)
		error_set(&e, ERR_FAILED, "%s", text);
	else
		error_set(&e, ERR_FAILED, "bwrap ended with status %d before the agent was started", exit_of(status));
	stage_report(in->error, "bwrap", &e);
}

static void main_ended(struct inside *in, int status)
{
	if (in->report >= 0)
		report_read(in);
	if (in->words >= 0 && in->reported.len == 0) {
		words_report(in, status);
		_exit(STAGE_EXIT_FAILED);
	}
	_exit(exit_of(status));
}

static void children_reap(struct inside *in)
{
	struct signalfd_siginfo info[8];
	int status;
	pid_t pid;

	while (read(in->signals, info, sizeof info) > 0)
		;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == in->main)
			main_ended(in, status);
}

static void watch(struct inside *in)
{
	for (;;) {
		struct pollfd p[] = {
			{ .fd = in->death, .events = POLLIN },
			{ .fd = in->signals, .events = POLLIN },
			{ .fd = in->report, .events = POLLIN },
		};

		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			_exit(STAGE_EXIT_FAILED);
		if (p[0].revents)
			_exit(STAGE_EXIT_ABANDONED);
		if (p[2].revents)
			report_read(in);
		if (p[1].revents)
			children_reap(in);
	}
}

/* The stage's own things and the agent's three go above the floor, everything else is closed. */
static void bwrap_descriptors(const struct stage *s, const struct links *l, struct inside *in, struct bwrap_fds *ret, int *report_write)
{
	const struct sandbox_plan *p = s->plan;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int report[2] = { -1, -1 };

	if (pipe2(report, O_CLOEXEC) == 0)
		in->report = fd_raise(report[0]);
	*report_write = fd_raise(report[1]);
	in->death = fd_raise(l->death[1]);
	in->error = fd_raise(l->error[1]);
	in->signals = fd_raise(in->signals);
	ret->null = fd_raise(null);
	ret->agent_in = fd_raise(p->stdin_fd >= 0 ? p->stdin_fd : null);
	ret->agent_out = fd_raise(p->stdout_fd >= 0 ? p->stdout_fd : null);
	ret->agent_err = fd_raise(p->stderr_fd >= 0 ? p->stderr_fd : null);
	ret->control = fd_raise(l->control[1]);
	ret->report = *report_write;
	int keep[] = { in->report, in->death, in->error, in->signals, ret->null, ret->agent_in, ret->agent_out, ret->agent_err, ret->control, ret->report };
	fds_close_except(keep, ARRAY_SIZE(keep));
	(void)fcntl(in->report, F_SETFL, O_NONBLOCK);
}

static void bwrap_descriptors_close(const struct bwrap_fds *f)
{
	/* The agent's ends must not live on in the stage: a closed stdout is to be seen as closed. */
	close(f->null);
	close(f->agent_in);
	close(f->agent_out);
	close(f->agent_err);
	close(f->control);
	close(f->report);
}

static void start_bwrap(const struct stage *s, struct inside *in, struct bwrap_fds *fds)
{
	struct error e = ERROR_INIT;

	if (fds->agent_in < 0 || fds->agent_out < 0 || fds->agent_err < 0 || fds->report < 0 || fds->control < 0) {
		error_set(&e, ERR_LIMIT, "the runner's descriptors cannot be passed on");
		fail(in, "bwrap", &e);
	}
	if (bwrap_memfd("words", "", 0, &fds->words, &e) != ERR_OK || bwrap_spawn(s->bwrap, s->plan, s->ops, fds, &in->main, &e) != ERR_OK)
		fail(in, "bwrap", &e);
	in->words = fds->words;
	bwrap_descriptors_close(fds);
}

static void start_call(const struct stage *s, struct inside *in)
{
	struct error e = ERROR_INIT;

	in->main = fork();
	if (in->main < 0) {
		error_errno(&e, "fork");
		fail(in, "call", &e);
	}
	if (in->main == 0) {
		sigset_t none;

		close(in->death);
		close(in->error);
		close(in->signals);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		_exit(s->call(s->arg));
	}
	close(in->error);
	in->error = -1;
	int keep[] = { in->death, in->signals };
	fds_close_except(keep, ARRAY_SIZE(keep));
}

static void take_identity(const struct identity *id, const struct inside *in)
{
	struct error e = ERROR_INIT;

	if (identity_take(id, &e) != ERR_OK)
		fail(in, "identity", &e);
}

static void mount_layers(const struct stage *s, const struct inside *in)
{
	struct error e = ERROR_INIT;
	bool bound_by_bwrap = s->plan && s->layers->mode == LAYERS_PLAIN;

	if (!bound_by_bwrap && overlay_mount(s->layers, in->death, &e) != ERR_OK)
		fail(in, "workspace", &e);
	(void)!chdir("/");
}

static void child_main(const struct stage *s, const struct identity *id, const struct links *l)
{
	struct inside in = { .death = l->death[1], .error = l->error[1], .report = -1, .words = -1, .reported = STRBUF_INIT };
	struct bwrap_fds fds = { .words = -1 };
	int report_write = -1;
	char go = 0;

	close(l->death[0]);
	close(l->error[0]);
	if (l->control[0] >= 0)
		close(l->control[0]);
	if (read(in.death, &go, 1) != 1 || go != GO)
		_exit(STAGE_EXIT_ABANDONED);
	in.signals = signals_open();
	take_identity(id, &in); /* first the cgroup, whose descriptors are closed below */
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* after the ids, which clear it: for when this process is stopped and cannot see the socket close */
	if (s->plan)
		bwrap_descriptors(s, l, &in, &fds, &report_write);
	if (s->layers)
		mount_layers(s, &in);
	if (s->plan)
		start_bwrap(s, &in, &fds);
	else
		start_call(s, &in);
	watch(&in);
}

static void links_close(struct links *l)
{
	for (int i = 0; i < 2; i++) {
		cleanup_close(&l->death[i]);
		cleanup_close(&l->control[i]);
		cleanup_close(&l->error[i]);
	}
}

static enum err_code links_open(bool control, struct links *l, struct error *e)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l->death) < 0 || pipe2(l->error, O_CLOEXEC) < 0)
		return error_errno(e, "open a sandbox's pipes");
	if (control && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l->control) < 0)
		return error_errno(e, "open a sandbox's control socket");
	return ERR_OK;
}

static enum err_code clone_failed(struct error *e)
{
	int cause = errno;
	enum err_code rc = error_errno(e, "make the sandbox's namespaces");

	error_hint(e, "%s", identity_refused_hint(cause));
	return rc;
}

/* exit_signal 0: no SIGCHLD for the runner, and nobody's waitpid(-1) takes the status away from sandbox_finish. */
static pid_t clone_once(const struct identity *id, int cgroup_fd, int *ret_pidfd)
{
	struct clone_args a = {
		.flags = CLONE_PIDFD | identity_clone_flags(id),
		.pidfd = (uint64_t)(uintptr_t)ret_pidfd,
	};

	if (cgroup_fd >= 0) {
		a.flags |= CLONE_INTO_CGROUP;
		a.cgroup = (unsigned)cgroup_fd;
	}
	return (pid_t)syscall(SYS_clone3, &a, sizeof a);
}

/* A runner that has dropped root may not clone into a cgroup that root made; then the stage moves itself. */
static pid_t clone_stage(struct identity *id, int *ret_pidfd)
{
	int cgroup_fd = cgroup_clone_fd(id->cgroup);

	id->in_cgroup = cgroup_fd >= 0;
	pid_t pid = clone_once(id, cgroup_fd, ret_pidfd);
	if (pid < 0 && id->in_cgroup) {
		id->in_cgroup = false;
		pid = clone_once(id, -1, ret_pidfd);
	}
	return pid;
}

enum err_code stage_start(const struct stage *s, struct sandbox *ret, struct error *e)
{
	AUTO(links_close) struct links l = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
	enum err_code rc = links_open(s->plan != NULL, &l, e);
	struct identity id = identity_of(s->uid, s->gid);
	int pidfd = -1;

	if (rc != ERR_OK)
		return rc;
	id.cgroup = s->plan ? s->plan->cgroup : NULL;
	id.limits = s->plan ? &s->plan->limits : NULL;
	pid_t pid = clone_stage(&id, &pidfd);
	if (pid == 0)
		child_main(s, &id, &l);
	if (pid < 0)
		return clone_failed(e);
	(void)send(l.death[0], &(char){ GO }, 1, MSG_NOSIGNAL); /* if it is dead already, its pidfd says so */
	ret->pid = pid;
	ret->pidfd = pidfd;
	ret->death_fd = TAKE_FD(l.death[0]);
	ret->control_fd = TAKE_FD(l.control[0]);
	ret->error_fd = TAKE_FD(l.error[0]);
	return ERR_OK;
}
