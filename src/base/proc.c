/* Starting, waiting for and identifying other processes.  The child shares our memory until it executes (as vfork does), so
 * between clone and exec it makes bare system calls only (the library's versions keep books in that memory, and so do the
 * sanitizers'), and leaves word of a failed step where we can read it. */
#include "base/proc.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define CHILD_STACK ((size_t)64 << 10)
#define READ_CHUNK ((size_t)16 << 10)
#define STAT_MAX ((size_t)4 << 10)
#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"

#if defined(__has_feature)
#define UNDER_TSAN __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif
#if UNDER_TSAN
/* ThreadSanitizer takes clone for a fork and then refuses new threads in the parent; glibc's own name it leaves alone. */
extern __typeof__(clone) __clone;
#define clone __clone
#endif

enum step { STEP_NONE, STEP_SESSION, STEP_NULL, STEP_PASS, STEP_CLOEXEC, STEP_CWD, STEP_IDS, STEP_PARENT, STEP_EXEC };

static const char *const step_words[] = {
	[STEP_NONE] = "",
	[STEP_SESSION] = "make a session",
	[STEP_NULL] = "open /dev/null",
	[STEP_PASS] = "pass on a file descriptor",
	[STEP_CLOEXEC] = "close other file descriptors",
	[STEP_CWD] = "change the directory",
	[STEP_IDS] = "change the user",
	[STEP_PARENT] = "tie it to its parent",
	[STEP_EXEC] = "execute",
};

struct move {
	int from, to;
};

/* Everything the child needs, worked out before it exists; `failed` and `number` are its answer. */
struct child {
	const struct proc_spec *spec;
	const char *path;
	char *const *env;
	struct move moves[PROC_FDS_MAX + 3];
	int move_count, above; /* `above`: the first descriptor that is no move's target */
	pid_t parent;
	volatile enum step failed;
	volatile int number;
};

/* Handlers must not run in the child while it shares our memory, and what we ignore is not the program's business. */
static void child_reset_signals(void)
{
	static const uint64_t dfl[4]; /* the kernel's struct sigaction: SIG_DFL, no flags, no restorer, no mask */
	static const uint64_t none;

	for (int sig = 1; sig < NSIG; sig++)
		syscall(SYS_rt_sigaction, sig, dfl, NULL, sizeof(none));
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
}

/* First everything up out of the way, then down to its place: targets and sources may overlap in any order. */
static enum step child_move_fds(struct child *c)
{
	int null = -1;

	for (int i = 0; i < c->move_count; i++) {
		struct move *m = &c->moves[i];
		if (m->from == PROC_NULL && null < 0) {
			null = (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC);
			if (null < 0)
				return STEP_NULL;
		}
		m->from = (int)syscall(SYS_fcntl, m->from == PROC_NULL ? null : m->from, F_DUPFD_CLOEXEC, c->above);
		if (m->from < 0)
			return STEP_PASS;
	}
	if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return STEP_CLOEXEC;
	for (int i = 0; i < c->move_count; i++)
		if (syscall(SYS_dup3, c->moves[i].from, c->moves[i].to, 0) < 0)
			return STEP_PASS;
	return STEP_NONE;
}

/* Above all here: the library's versions would make all our threads change as well. */
static bool child_set_ids(const struct proc_spec *s)
{
	return syscall(SYS_setgroups, 0, NULL) == 0 && syscall(SYS_setresgid, s->gid, s->gid, s->gid) == 0 &&
	       syscall(SYS_setresuid, s->uid, s->uid, s->uid) == 0;
}

/* The parent may have died before the request was made; then nobody will send the signal. */
static bool child_tie_to_parent(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return false;
	if (getppid() == parent)
		return true;
	errno = ESRCH;
	return false;
}

/* Returns only when something failed. */
static enum step child_become(struct child *c)
{
	const struct proc_spec *s = c->spec;

	if (s->new_session && setsid() < 0)
		return STEP_SESSION;
	enum step failed = child_move_fds(c);
	if (failed != STEP_NONE)
		return failed;
	if (s->cwd && chdir(s->cwd) < 0)
		return STEP_CWD;
	if (s->set_ids && !child_set_ids(s))
		return STEP_IDS;
	if (s->die_with_parent && !child_tie_to_parent(c->parent)) /* after the ids: changing them clears it */
		return STEP_PARENT;
	child_reset_signals();
	execve(c->path, (char *const *)s->argv, c->env);
	return STEP_EXEC;
}

static int child_main(void *arg)
{
	struct child *c = arg;
	enum step failed = child_become(c);

	c->number = errno;
	c->failed = failed;
	syscall(SYS_exit_group, 127);
	return 127;
}

static void add_move(struct child *c, int from, int to)
{
	c->moves[c->move_count++] = (struct move){ from, to };
	if (to >= c->above)
		c->above = to + 1;
}

static void plan_fds(struct child *c)
{
	const struct proc_spec *s = c->spec;

	CHECK(s->fd_count >= 0 && s->fd_count <= PROC_FDS_MAX);
	c->above = 3;
	add_move(c, s->stdin_fd, 0);
	add_move(c, s->stdout_fd, 1);
	add_move(c, s->stderr_fd, 2);
	for (int i = 0; i < s->fd_count; i++) {
		CHECK(s->fds[i].from >= 0 && s->fds[i].to > 2);
		add_move(c, s->fds[i].from, s->fds[i].to);
	}
}

/* Only absolute directories of PATH count: an empty or relative one would mean "whatever lies here". */
static char *find_program(const char *name)
{
	const char *path = getenv("PATH");

	if (strchr(name, '/'))
		return mem_strdup(name);
	for (path = str_empty(path) ? DEFAULT_PATH : path; *path;) {
		size_t n = strcspn(path, ":");
		AUTO_FREE char *dir = mem_strndup(path, n);
		AUTO_FREE char *full = file_join(dir, name);
		if (dir[0] == '/' && file_is_executable(full))
			return TAKE_PTR(full);
		path += n + (path[n] == ':');
	}
	return NULL;
}

/* 0 or an errno.  All signals wait meanwhile: a handler of ours must not run in the child. */
static int clone_child(struct child *c, struct proc *ret)
{
	sigset_t all, old;
	void *stack = mmap(NULL, CHILD_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	if (stack == MAP_FAILED)
		return errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	c->parent = getpid();
	int pidfd = -1;
	pid_t pid = clone(child_main, (char *)stack + CHILD_STACK, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, c, &pidfd);
	int number = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	munmap(stack, CHILD_STACK);
	if (pid < 0)
		return number;
	ret->pid = pid;
	ret->pidfd = pidfd;
	return 0;
}

static enum err_code step_failed(const struct child *c, struct error *e)
{
	const char *name = c->spec->argv[0];

	errno = c->number;
	if (c->failed == STEP_CWD)
		return error_errno(e, "start '%s': %s to '%s'", name, step_words[c->failed], c->spec->cwd);
	if (c->failed == STEP_EXEC)
		return error_errno(e, "start '%s': %s '%s'", name, step_words[c->failed], c->path);
	return error_errno(e, "start '%s': %s", name, step_words[c->failed]);
}

static void reap(struct proc *p)
{
	siginfo_t info;

	while (waitid(P_PID, (id_t)p->pid, &info, WEXITED) < 0 && errno == EINTR)
		;
	proc_release(p);
}

enum err_code proc_start(const struct proc_spec *spec, struct proc *ret, struct error *e)
{
	AUTO_FREE char *path = find_program(spec->argv[0]);
	struct child child = { .spec = spec, .path = path, .env = spec->env ? (char *const *)spec->env : environ };
	struct proc p = PROC_INIT;

	if (!path)
		return error_set(e, ERR_NOT_FOUND, "start '%s': not found in PATH", spec->argv[0]);
	plan_fds(&child);
	int number = clone_child(&child, &p);
	if (number) {
		errno = number;
		return error_errno(e, "start '%s': make a process", spec->argv[0]);
	}
	if (child.failed != STEP_NONE) {
		reap(&p);
		return step_failed(&child, e);
	}
	*ret = p;
	return ERR_OK;
}

void proc_release(struct proc *p)
{
	if (p->pidfd >= 0)
		close(TAKE_FD(p->pidfd));
}

void proc_signal(const struct proc *p, int sig)
{
	if (p->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, p->pidfd, sig, NULL, 0);
}

/* Rounds of poll, since it takes an int and may be interrupted. >0 ready, 0 time is up, <0 error.  A poll that waited its
 * whole time counts as the end even when a test's clock stands still. */
static int poll_until(struct pollfd *fds, nfds_t n, int64_t deadline)
{
	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - clock_mono_ms();
		int wait = deadline < 0 ? -1 : left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
		int r = poll(fds, n, wait);
		if (r < 0 && errno == EINTR)
			continue;
		if (r == 0 && wait == INT_MAX)
			continue;
		return r;
	}
}

static int64_t deadline_after(int64_t timeout_ms)
{
	int64_t at;

	return timeout_ms < 0 || __builtin_add_overflow(clock_mono_ms(), timeout_ms, &at) ? -1 : at;
}

enum err_code proc_wait(struct proc *p, int64_t timeout_ms, int *ret_status, struct error *e)
{
	struct pollfd fd = { .fd = p->pidfd, .events = POLLIN };
	siginfo_t info = { .si_pid = 0 };

	if (p->pidfd < 0)
		return error_set(e, ERR_INTERNAL, "process %d is not ours to wait for", (int)p->pid);
	int r = poll_until(&fd, 1, deadline_after(timeout_ms));
	if (r == 0)
		return error_set(e, ERR_TIMEOUT, "process %d has not ended within %lld ms", (int)p->pid, (long long)timeout_ms);
	if (r < 0 || waitid(P_PIDFD, (id_t)p->pidfd, &info, WEXITED) < 0)
		return error_errno(e, "wait for process %d", (int)p->pid);
	*ret_status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
	proc_release(p);
	return ERR_OK;
}

/* One run with captured output. */
struct capture {
	struct strbuf *to;
	int fd; /* our end; -1 when not captured or at its end */
};

struct running {
	struct proc proc;
	struct capture streams[2];
	bool own_session;
};

static void running_release(struct running *r)
{
	for (int i = 0; i < 2; i++)
		if (r->streams[i].fd >= 0)
			close(r->streams[i].fd);
	proc_release(&r->proc);
}

/* The whole session where it has one: the leader is not reaped yet, so the number is still its own. */
static void kill_all(struct running *r)
{
	if (r->own_session)
		kill(-r->proc.pid, SIGKILL);
	proc_signal(&r->proc, SIGKILL);
	reap(&r->proc);
}

/* A file in memory rather than a pipe: nothing to feed while the program runs, no SIGPIPE when it does not read. */
static enum err_code input_file(const void *in, size_t n, int *ret_fd, struct error *e)
{
	AUTO_CLOSE int fd = memfd_create("stdin", MFD_CLOEXEC);

	if (fd < 0)
		return error_errno(e, "make its input");
	enum err_code r = file_write_all(fd, in, n, e);
	if (r != ERR_OK)
		return r;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return error_errno(e, "make its input");
	*ret_fd = TAKE_FD(fd);
	return ERR_OK;
}

/* Our end does not block, the program's does. */
static enum err_code output_pipe(struct capture *c, struct strbuf *to, int *ret_theirs, struct error *e)
{
	int ends[2];

	*ret_theirs = -1;
	if (!to)
		return ERR_OK;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_errno(e, "make a pipe");
	c->to = to;
	c->fd = ends[0];
	*ret_theirs = ends[1];
	return fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ? error_errno(e, "make a pipe") : ERR_OK;
}

static enum err_code run_start(struct running *run, const struct proc_spec *spec, const void *in, size_t in_len,
			       struct strbuf *out, struct strbuf *err, struct error *e)
{
	AUTO_CLOSE int in_fd = -1, out_fd = -1, err_fd = -1;
	struct proc_spec s = *spec;
	enum err_code r = ERR_OK;

	if (in)
		r = input_file(in, in_len, &in_fd, e);
	if (r == ERR_OK)
		r = output_pipe(&run->streams[0], out, &out_fd, e);
	if (r == ERR_OK)
		r = output_pipe(&run->streams[1], err, &err_fd, e);
	if (r != ERR_OK) {
		error_wrap(e, "start '%s'", spec->argv[0]);
		return r;
	}
	if (in)
		s.stdin_fd = in_fd;
	s.stdout_fd = out_fd;
	s.stderr_fd = err_fd;
	return proc_start(&s, &run->proc, e);
}

/* Takes what is there now.  ERR_LIMIT when the buffer is full. */
static enum err_code drain(struct capture *c, const char *name, struct error *e)
{
	char chunk[READ_CHUNK];

	while (c->fd >= 0) {
		ssize_t n = read(c->fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return ERR_OK;
		if (n < 0)
			return error_errno(e, "read what '%s' writes", name);
		if (n == 0)
			close(TAKE_FD(c->fd));
		strbuf_add(c->to, chunk, (size_t)n);
		if (c->to->over)
			return error_set(e, ERR_LIMIT, "'%s' wrote more than %zu bytes", name,
					 c->to->max ? c->to->max : STRBUF_DEFAULT_MAX);
	}
	return ERR_OK;
}

/* Until the process ends.  What it left running may hold the pipes open for ever, so their end is not waited for. */
static enum err_code run_pump(struct running *run, const char *name, int64_t timeout_ms, struct error *e)
{
	int64_t deadline = deadline_after(timeout_ms);
	bool ended = false;

	while (!ended) {
		struct pollfd fds[3] = { { .fd = run->proc.pidfd, .events = POLLIN } };
		for (int i = 0; i < 2; i++)
			fds[i + 1] = (struct pollfd){ .fd = run->streams[i].fd, .events = POLLIN };
		int r = poll_until(fds, 3, deadline);
		if (r == 0)
			return error_set(e, ERR_TIMEOUT, "'%s' has not ended within %lld ms", name, (long long)timeout_ms);
		if (r < 0)
			return error_errno(e, "wait for '%s'", name);
		ended = fds[0].revents != 0;
		for (int i = 0; i < 2; i++) {
			enum err_code code = drain(&run->streams[i], name, e);
			if (code != ERR_OK)
				return code;
		}
	}
	return ERR_OK;
}

enum err_code proc_run(const struct proc_spec *spec, const void *in, size_t in_len, int64_t timeout_ms,
		       struct strbuf *ret_out, struct strbuf *ret_err, int *ret_status, struct error *e)
{
	AUTO(running_release) struct running run = {
		.proc = PROC_INIT, .streams = { { .fd = -1 }, { .fd = -1 } }, .own_session = spec->new_session
	};

	enum err_code r = run_start(&run, spec, in, in_len, ret_out, ret_err, e);
	if (r != ERR_OK)
		return r;
	r = run_pump(&run, spec->argv[0], timeout_ms, e);
	if (r != ERR_OK) {
		kill_all(&run);
		return r;
	}
	return proc_wait(&run.proc, -1, ret_status, e);
}

struct proc_stat {
	char state;
	uint64_t start_ticks;
};

/* The name in parentheses may hold anything, so counting begins after the last one; the state is field 3, the start 22. */
static bool parse_stat(const char *text, struct proc_stat *ret)
{
	const char *s = strrchr(text, ')');

	for (int field = 2; s && field < 22; field++) {
		s = strchr(s, ' ');
		s += s != NULL;
		if (s && field == 2)
			ret->state = *s;
	}
	if (!s)
		return false;
	ret->start_ticks = strtoull(s, NULL, 10);
	return true;
}

static enum err_code read_stat(pid_t pid, struct proc_stat *ret, struct error *e)
{
	AUTO_FREE char *path = mem_printf("/proc/%d/stat", (int)pid);
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	enum err_code r = file_read(path, STAT_MAX, &text, e);

	if (r != ERR_OK)
		return error_set(e, ERR_NOT_FOUND, "there is no process %d", (int)pid);
	if (!parse_stat(strbuf_str(&text), ret))
		return error_set(e, ERR_INTERNAL, "'%s' is not understood", path);
	return ERR_OK;
}

enum err_code proc_identify(pid_t pid, struct proc_id *ret, struct error *e)
{
	struct proc_stat stat;
	enum err_code r = read_stat(pid, &stat, e);

	if (r != ERR_OK)
		return r;
	*ret = (struct proc_id){ .pid = pid, .start_ticks = stat.start_ticks };
	snprintf(ret->boot, sizeof(ret->boot), "%s", clock_boot_id());
	return ERR_OK;
}

bool proc_is_alive(const struct proc_id *id)
{
	struct proc_stat stat;

	if (id->pid <= 0 || !str_eq(id->boot, clock_boot_id()) || read_stat(id->pid, &stat, NULL) != ERR_OK)
		return false;
	return stat.start_ticks == id->start_ticks && stat.state != 'Z' && stat.state != 'X';
}

/* Opened first and looked at afterwards: once we hold it, the number cannot come to mean another process unnoticed. */
int proc_open(const struct proc_id *id)
{
	AUTO_CLOSE int fd = id->pid > 0 ? (int)syscall(SYS_pidfd_open, id->pid, 0) : -1; /* CLOEXEC by itself */

	return fd >= 0 && proc_is_alive(id) ? TAKE_FD(fd) : -1;
}

char *proc_self_path(void)
{
	AUTO_FREE char *path = mem_alloc(PATH_MAX + 1);
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);

	if (n < 0)
		return mem_strdup("");
	/* After an upgrade the new file stands at the same place. */
	if (str_ends(path, " (deleted)"))
		path[strlen(path) - strlen(" (deleted)")] = 0;
	return TAKE_PTR(path);
}

char *proc_helper_path(const char *name)
{
	static const char *const places[] = { ".", "../libexec/signalbox" };
	AUTO_FREE char *self = proc_self_path();
	AUTO_FREE char *dir = file_dirname(self);

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		AUTO_FREE char *path = mem_printf("%s/%s/%s", dir, places[i], name);
		char *real = NULL;
		if (file_is_executable(path) && file_realpath(path, &real, NULL) == ERR_OK)
			return real;
	}
	return NULL;
}
