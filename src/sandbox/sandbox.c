/* The room's front door: starts, signals, ends and explains sandboxes; see sandbox.h. */
#include "sandbox/sandbox.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "sandbox/bwrap.h"
#include "sandbox/stage.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void op_list_free(struct op_list **l)
{
	op_list_release(*l);
	free(*l);
}

enum err_code sandbox_start(const struct sandbox_plan *plan, struct sandbox *ret, struct error *e)
{
	AUTO(op_list_free) struct op_list *ops = mem_alloc(sizeof *ops);
	AUTO_FREE char *bwrap = NULL;
	enum err_code rc = plan_check(plan, e);

	if (rc == ERR_OK)
		rc = plan_build(plan, ops, e);
	if (rc == ERR_OK)
		rc = bwrap_find(&bwrap, e);
	if (rc == ERR_OK) {
		const struct stage s = { .layers = &plan->layers, .uid = plan->uid, .gid = plan->gid, .plan = plan, .ops = ops, .bwrap = bwrap };
		rc = stage_start(&s, ret, e);
	}
	return rc == ERR_OK ? rc : error_wrap(e, "start the sandbox of run %s", plan->id ? plan->id : "?");
}

enum err_code sandbox_stage_call(const struct sandbox_layers *layers, uid_t uid, gid_t gid, int (*fn)(void *arg), void *arg, struct sandbox *ret, struct error *e)
{
	const struct stage s = { .layers = layers, .uid = uid, .gid = gid, .call = fn, .arg = arg };

	if (geteuid() == 0 && (uid == 0 || gid == 0))
		return error_set(e, ERR_DENIED, "sandbox: a stage must never run as the host's uid or gid 0");
	return stage_start(&s, ret, e);
}

void sandbox_signal(struct sandbox *s, int sig)
{
	unsigned char byte = (unsigned char)sig;

	if (s->control_fd >= 0 && sig > 0 && sig < NSIG)
		(void)send(s->control_fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT); /* a dead sandbox needs no signal */
}

static void fd_close(int *fd)
{
	cleanup_close(fd);
	*fd = -1;
}

void sandbox_kill(struct sandbox *s)
{
	if (s->pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, s->pidfd, SIGKILL, NULL, 0u);
	fd_close(&s->death_fd);
}

static void sandbox_close(struct sandbox *s)
{
	fd_close(&s->pidfd);
	fd_close(&s->death_fd);
	fd_close(&s->control_fd);
	fd_close(&s->error_fd);
	s->pid = 0;
}

/* The stage is dead, so the pipe ends; what is in it is the reason why there was no agent. */
static enum err_code explain(const struct sandbox *s, struct error *e)
{
	AUTO_STRBUF struct strbuf line = STRBUF_LIMIT(STAGE_REPORT_MAX);
	AUTO_JS struct js *o = NULL;

	if (s->error_fd < 0 || file_read_fd(s->error_fd, STAGE_REPORT_MAX, &line, NULL) != ERR_OK || line.len == 0)
		return ERR_OK;
	o = js_parse(line.data, line.len, NULL);
	const char *text = js_str_or(o, "error", "the sandbox gave no reason");
	enum err_code code = js_str(o, "code") ? err_from_name(js_str(o, "code")) : ERR_FAILED;
	error_set(e, code, "start the agent: %s: %s", js_str_or(o, "step", "sandbox"), text);
	if (js_str(o, "hint"))
		error_hint(e, "%s", js_str(o, "hint"));
	return code;
}

enum err_code sandbox_finish(struct sandbox *s, int *ret_status, struct error *e)
{
	siginfo_t info = { 0 };
	enum err_code rc = ERR_OK;
	int waited;

	do
		waited = waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED | __WALL);
	while (waited < 0 && errno == EINTR);
	if (waited < 0)
		rc = error_errno(e, "wait for the sandbox");
	else
		rc = explain(s, e);
	sandbox_close(s);
	if (rc == ERR_OK)
		*ret_status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
	return rc;
}
