/* signalbox-init: PID 1 of a sandbox.  Starts the agent in a session of its own, reaps, forwards the model port, passes signals from
 * the runner, and ends with the agent's status, which ends everything in the namespace.  Static and small; see protocol.h. */
#include "sandbox/init/forward.h"
#include "sandbox/init/protocol.h"

#include "sandbox/init/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#define OWN_POLLFDS 2
#define REPORT_TEXT_MAX 512
#define SIGNALS_MAX 64
#define LANDLOCK_ABI_WITH_SCOPES 6
#define LANDLOCK_SCOPES 3u /* abstract unix sockets, signals: of processes outside the sandbox */

struct options {
	uint16_t port; /* 0: no forwarding */
	bool scoped;
	char **agent;
};

struct init {
	struct options options;
	char **environment;
	struct forward *forward;
	int agent;
	int signals;
	int control;
	struct pollfd fds[OWN_POLLFDS + FORWARD_POLLFDS_MAX];
};

static const struct { int error; const char *text; } error_texts[] = {
	{ ENOENT, "No such file or directory" }, { EACCES, "Permission denied" }, { ENOEXEC, "Exec format error" }, { ENOTDIR, "Not a directory" },
	{ E2BIG, "Argument list too long" }, { ENOMEM, "Cannot allocate memory" }, { EAGAIN, "Resource temporarily unavailable" },
	{ EISDIR, "Is a directory" }, { EPERM, "Operation not permitted" }, { ELOOP, "Too many levels of symbolic links" },
	{ EADDRINUSE, "Address already in use" },
};

static bool text_is(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

static const char *error_text(int error)
{
	for (size_t i = 0; i < sizeof error_texts / sizeof error_texts[0]; i++)
		if (error_texts[i].error == error)
			return error_texts[i].text;
	return "the kernel refused";
}

/* Inside a JSON string; cut at the room there is. */
static size_t text_add(char *out, size_t at, const char *s)
{
	for (; *s && at < REPORT_TEXT_MAX - 8; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			out[at++] = '\\';
		out[at++] = c < ' ' || c > '~' ? '?' : (char)c;
	}
	return at;
}

static size_t text_add_raw(char *out, size_t at, const char *s)
{
	while (*s)
		out[at++] = *s++;
	return at;
}

static void report(const char *step, const char *object, int error)
{
	char line[REPORT_TEXT_MAX + 64];
	size_t n = text_add_raw(line, 0, "{\"step\":\"");

	n = text_add_raw(line, n, step);
	n = text_add_raw(line, n, "\",\"error\":\"");
	n = text_add(line, n, object);
	n = text_add(line, n, ": ");
	n = text_add(line, n, error_text(error));
	n = text_add_raw(line, n, "\"}\n");
	(void)sys3(SYS_write, INIT_REPORT, line, n); /* who does not listen does not ask */
}

static bool port_parse(const char *s, uint16_t *ret)
{
	unsigned value = 0;

	for (; *s >= '0' && *s <= '9' && value <= UINT16_MAX; s++)
		value = value * 10 + (unsigned)(*s - '0');
	if (*s || value > UINT16_MAX)
		return false;
	*ret = (uint16_t)value;
	return true;
}

static bool options_parse(char **argv, struct options *ret)
{
	for (argv++; *argv; argv++) {
		if (text_is(*argv, "--")) {
			ret->agent = argv + 1;
			return argv[1] != NULL;
		}
		if (text_is(*argv, "--scoped"))
			ret->scoped = true;
		else if (!text_is(*argv, "--port") || !argv[1] || !port_parse(*++argv, &ret->port))
			return false;
	}
	return false;
}

/* With the host's network, abstract sockets of the host are in reach; where the kernel can, they are scoped away.  Kernels that
 * cannot are told about in the documentation of the `host` network. */
static void scope_away_the_host(void)
{
	struct { uint64_t fs, net, scoped; } rules = { 0, 0, LANDLOCK_SCOPES };
	long abi = sys3(SYS_landlock_create_ruleset, NULL, 0, 1);

	if (abi < LANDLOCK_ABI_WITH_SCOPES)
		return;
	long fd = sys3(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
	if (fd < 0)
		return;
	(void)sys2(SYS_landlock_restrict_self, fd, 0);
	(void)sys1(SYS_close, fd);
}

static void agent_streams_close(void)
{
	(void)sys1(SYS_close, INIT_AGENT_STDIN);
	(void)sys1(SYS_close, INIT_AGENT_STDOUT);
	(void)sys1(SYS_close, INIT_AGENT_STDERR);
}

static void agent_exec(const struct init *i)
{
	char **argv = i->options.agent;

	(void)sys0(SYS_setsid);
	for (int fd = 0; fd <= 2; fd++)
		(void)sys3(SYS_dup3, INIT_AGENT_STDIN + fd, fd, 0);
	agent_streams_close();
	(void)sys1(SYS_close, INIT_CONTROL);
	/* The report pipe must survive until exec; everything else goes now. */
	(void)sys3(SYS_fcntl, INIT_REPORT, F_SETFD, FD_CLOEXEC);
	(void)sys3(SYS_close_range, INIT_FD_END, ~0u, 0);
	sys_block(0);
	long rc = sys3(SYS_execve, argv[0], argv, i->environment);
	report("exec", argv[0], (int)-rc);
	sys_exit(INIT_EXIT_NOEXEC);
}

static void agent_start(struct init *i)
{
	long pid = sys5(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		agent_exec(i);
	if (pid < 0) {
		report("fork", i->options.agent[0], (int)-pid);
		sys_exit(INIT_EXIT_USAGE);
	}
	i->agent = (int)pid;
	agent_streams_close();
	(void)sys1(SYS_close, INIT_REPORT);
}

static void reap(const struct init *i)
{
	struct signalfd_siginfo info[8];
	int status = 0;
	long pid;

	while (sys3(SYS_read, i->signals, info, sizeof info) > 0)
		;
	while ((pid = sys4(SYS_wait4, -1, &status, WNOHANG, NULL)) > 0)
		if (pid == i->agent)
			sys_exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static void control_read(struct init *i)
{
	unsigned char bytes[64];
	long n = sys3(SYS_read, i->control, bytes, sizeof bytes);

	if (n == 0 || (n < 0 && n != -EAGAIN && n != -EINTR))
		i->control = -1; /* whoever held it is gone; the death of the runner is the stage's business */
	for (long k = 0; k < n; k++) {
		if (bytes[k] < 1 || bytes[k] > SIGNALS_MAX)
			continue;
		if (sys2(SYS_kill, -i->agent, bytes[k]) < 0)
			(void)sys2(SYS_kill, i->agent, bytes[k]); /* before its setsid there is no such group */
	}
}

static _Noreturn void loop(struct init *i)
{
	for (;;) {
		int timeout_ms = -1;
		int n = OWN_POLLFDS;

		i->fds[0] = (struct pollfd){ .fd = i->signals, .events = POLLIN };
		i->fds[1] = (struct pollfd){ .fd = i->control, .events = POLLIN };
		if (i->forward)
			n += forward_fill(i->forward, i->fds + OWN_POLLFDS, &timeout_ms);
		long rc = sys_poll(i->fds, (unsigned)n, timeout_ms);
		if (rc < 0 && rc != -EINTR)
			sys_exit(INIT_EXIT_USAGE);
		if (i->fds[0].revents)
			reap(i);
		if (i->fds[1].revents)
			control_read(i);
		if (i->forward)
			forward_step(i->forward, i->fds + OWN_POLLFDS, n - OWN_POLLFDS);
	}
}

static void forward_start(struct init *i)
{
	int error = 0;

	i->forward = forward_open(i->options.port, INIT_SOCKET_PATH, &error);
	if (i->forward)
		return;
	report("listen", "the gateway's port on 127.0.0.1", error);
	sys_exit(INIT_EXIT_USAGE);
}

int init_main(char **argv, char **environment)
{
	const uint64_t child_ends = (uint64_t)1 << (SIGCHLD - 1);
	struct init *i = sys_pages(sizeof *i);

	if (!i || !argv[0] || !options_parse(argv, &i->options))
		return INIT_EXIT_USAGE;
	(void)sys5(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0); /* the agent has the same uid: it must not look into PID 1 or stop it */
	if (sys3(SYS_write, INIT_REPORT, &(char){ INIT_STARTED }, 1) != 1)
		return INIT_EXIT_USAGE;
	i->environment = environment;
	i->control = INIT_CONTROL;
	(void)sys3(SYS_fcntl, i->control, F_SETFD, FD_CLOEXEC);
	(void)sys3(SYS_fcntl, i->control, F_SETFL, O_NONBLOCK);
	sys_block(child_ends);
	i->signals = (int)sys_signalfd(child_ends);
	if (i->options.scoped)
		scope_away_the_host();
	if (i->options.port)
		forward_start(i);
	agent_start(i);
	loop(i);
}
