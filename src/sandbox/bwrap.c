/* Operations -> bwrap's arguments, handed over in a memfd (--args) so that neither the environment nor the host's paths stand on any
 * command line; small files and the system call filter go the same way. */
#include "sandbox/bwrap.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "sandbox/init/protocol.h"
#include "sandbox/filter.h"
#include "sandbox/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#define BWRAP_PATH_DEFAULT "/usr/local/bin:/usr/bin:/bin"
#define BWRAP_ARGV_FIXED 16

/* Descriptors as bwrap sees them, after those of protocol.h. */
enum { FD_ARGS = INIT_FD_END, FD_SECCOMP, FD_DATA };

struct launch {
	const char *path;
	char **argv;
	int from[FD_DATA + BWRAP_DATA_FDS_MAX]; /* by target number */
	int count;
	int data_count;
};

enum err_code bwrap_find(char **ret_path, struct error *e)
{
	const char *path = getenv("PATH");

	for (const char *p = path && *path ? path : BWRAP_PATH_DEFAULT; *p;) {
		size_t n = strcspn(p, ":");
		AUTO_FREE char *dir = mem_strndup(p, n);
		AUTO_FREE char *file = file_join(dir, "bwrap");

		if (dir[0] == '/' && file_is_executable(file)) {
			*ret_path = TAKE_PTR(file);
			return ERR_OK;
		}
		p += n + (p[n] == ':');
	}
	enum err_code rc = error_set(e, ERR_UNSUPPORTED, "bubblewrap (bwrap) is not installed");
	error_hint(e, "apt-get install bubblewrap");
	return rc;
}

enum err_code bwrap_memfd(const char *name, const void *data, size_t n, int *ret_fd, struct error *e)
{
	AUTO_CLOSE int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0)
		return error_errno(e, "make a memory file");
	enum err_code rc = file_write_all(fd, data, n, e);
	if (rc != ERR_OK)
		return rc;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return error_errno(e, "rewind a memory file");
	int high = fcntl(fd, F_DUPFD_CLOEXEC, STAGE_FD_FLOOR);
	if (high < 0)
		return error_errno(e, "keep a memory file");
	*ret_fd = high;
	return ERR_OK;
}

static void arg_add(struct strbuf *args, const char *s)
{
	strbuf_add(args, s, strlen(s) + 1);
}

static void arg_add_option(struct strbuf *args, const char *option)
{
	strbuf_adds(args, "--");
	arg_add(args, option);
}

static void arg_add_number(struct strbuf *args, const char *option, int64_t n)
{
	arg_add_option(args, option);
	strbuf_addf(args, "%lld", (long long)n);
	strbuf_addc(args, '\0');
}

static enum err_code op_write(const struct op *op, struct strbuf *args, struct launch *l, struct error *e)
{
	if (op->perms) {
		arg_add_option(args, "perms");
		arg_add(args, op->perms);
	}
	if (op->size_bytes)
		arg_add_number(args, "size", op->size_bytes);
	if (op->data) {
		if (l->data_count == BWRAP_DATA_FDS_MAX)
			return error_set(e, ERR_LIMIT, "sandbox: more than %d generated files", BWRAP_DATA_FDS_MAX);
		int target = FD_DATA + l->data_count++;
		enum err_code rc = bwrap_memfd("file", op->data, strlen(op->data), &l->from[target], e);
		if (rc != ERR_OK)
			return rc;
		arg_add_number(args, op->option, target);
	} else {
		arg_add_option(args, op->option);
		if (op->a)
			arg_add(args, op->a);
	}
	if (op->b)
		arg_add(args, op->b);
	return ERR_OK;
}

static enum err_code args_write(const struct op_list *ops, struct launch *l, struct error *e)
{
	AUTO_STRBUF struct strbuf args = STRBUF_LIMIT(PLAN_ARGS_BYTES_MAX);
	enum err_code rc = ERR_OK;

	for (int i = 0; rc == ERR_OK && i < ops->count; i++)
		rc = op_write(&ops->ops[i], &args, l, e);
	arg_add_number(&args, "seccomp", FD_SECCOMP);
	if (rc == ERR_OK && args.over)
		rc = error_set(e, ERR_LIMIT, "sandbox: environment and binds take more than %zu bytes", PLAN_ARGS_BYTES_MAX);
	if (rc == ERR_OK)
		rc = bwrap_memfd("args", args.data, args.len, &l->from[FD_ARGS], e);
	if (rc == ERR_OK)
		rc = bwrap_memfd("seccomp", seccomp_program, seccomp_program_len * sizeof seccomp_program[0], &l->from[FD_SECCOMP], e);
	return rc;
}

/* argv of bwrap: only what the agent may see of itself. The strings are borrowed but for the port's, which the process keeps. */
static char **argv_make(const struct sandbox_plan *p, char *args_number, char *port)
{
	size_t n = 0, at = 0;

	while (p->argv[n])
		n++;
	const char **v = mem_alloc((n + BWRAP_ARGV_FIXED) * sizeof *v);
	v[at++] = "bwrap";
	v[at++] = "--args";
	v[at++] = args_number;
	v[at++] = "--";
	v[at++] = SANDBOX_INIT;
	if (p->gateway_port) {
		v[at++] = "--port";
		v[at++] = port;
	}
	if (p->share_net)
		v[at++] = "--scoped";
	v[at++] = "--";
	memcpy(v + at, p->argv, n * sizeof *v);
	return (char **)v;
}

/* Between vfork and exec: system calls only. */
static void child_exec(const struct launch *l, char **environment)
{
	sigset_t none;

	for (int to = 0; to < l->count; to++)
		if (dup2(l->from[to], to) < 0)
			_exit(STAGE_EXIT_FAILED);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(l->path, l->argv, environment);
	_exit(STAGE_EXIT_FAILED);
}

static enum err_code launch_run(const struct launch *l, pid_t *ret_pid, struct error *e)
{
	char *environment[] = { NULL };
	pid_t pid = vfork(); /* the stage's pages need not be copied a second time */

	if (pid == 0)
		child_exec(l, environment);
	if (pid < 0)
		return error_errno(e, "start %s", l->path);
	*ret_pid = pid;
	return ERR_OK;
}

static void launch_release(struct launch *l)
{
	for (int i = FD_ARGS; i < FD_DATA + l->data_count; i++)
		if (l->from[i] > 0)
			close(l->from[i]);
	free(l->argv);
}

enum err_code bwrap_spawn(const char *bwrap, const struct sandbox_plan *p, const struct op_list *ops, const struct bwrap_fds *fds, pid_t *ret_pid, struct error *e)
{
	AUTO_FREE char *args_number = mem_printf("%d", FD_ARGS);
	AUTO_FREE char *port = mem_printf("%d", p->gateway_port);
	AUTO(launch_release) struct launch l = {
		.path = bwrap,
		.argv = argv_make(p, args_number, port),
		.from = { [0] = fds->null, [1] = fds->null, [2] = fds->words,
			[INIT_AGENT_STDIN] = fds->agent_in, [INIT_AGENT_STDOUT] = fds->agent_out, [INIT_AGENT_STDERR] = fds->agent_err,
			[INIT_CONTROL] = fds->control, [INIT_REPORT] = fds->report },
	};
	enum err_code rc = args_write(ops, &l, e);

	l.count = FD_DATA + l.data_count;
	return rc == ERR_OK ? launch_run(&l, ret_pid, e) : rc;
}
