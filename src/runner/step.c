/* The child that is under way: its output, its deadlines, its end. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

void step_begin(struct runner *r, const char *name, int64_t timeout_ms, const char *timeout_reason)
{
	struct step *s = &r->step;
	*s = (struct step){ .name = name, .proc = PROC_INIT, .box = SANDBOX_INIT_VALUE, .out_fd = -1, .err_fd = -1, .in_fd = -1, .started_ms = clock_mono_ms(),
		.deadline_reason = timeout_reason };
	s->deadline_ms = timeout_ms > 0 ? s->started_ms + timeout_ms : 0;
	strbuf_reset(&r->tail);
	r->tail.max = RUNNER_TAIL_MAX * 2;
}

static void keep_fds(struct step *s, int out_fd, int err_fd)
{
	s->out_fd = out_fd;
	s->err_fd = err_fd;
	if (out_fd >= 0)
		fcntl(out_fd, F_SETFL, O_NONBLOCK);
	if (err_fd >= 0)
		fcntl(err_fd, F_SETFL, O_NONBLOCK);
	s->active = true;
}

void step_run(struct runner *r, struct proc *proc_taken, int out_fd_taken, int err_fd_taken)
{
	r->step.proc = *proc_taken;
	*proc_taken = (struct proc)PROC_INIT;
	keep_fds(&r->step, out_fd_taken, err_fd_taken);
}

void step_run_box(struct runner *r, struct sandbox *box_taken, int out_fd_taken, int err_fd_taken)
{
	r->step.box = *box_taken;
	*box_taken = (struct sandbox)SANDBOX_INIT_VALUE;
	r->step.is_box = true;
	keep_fds(&r->step, out_fd_taken, err_fd_taken);
}

static void keep_tail(struct runner *r, const char *data, size_t n)
{
	size_t kept = n < RUNNER_TAIL_MAX ? n : RUNNER_TAIL_MAX;
	if (r->tail.len + kept > RUNNER_TAIL_MAX)
		strbuf_cut(&r->tail, r->tail.len + kept - RUNNER_TAIL_MAX < r->tail.len ? r->tail.len + kept - RUNNER_TAIL_MAX : r->tail.len);
	strbuf_add(&r->tail, data + (n - kept), kept);
}

/* One read: a flood must not keep the loop from its other duties. False at EOF or when nothing is there. */
static bool read_some(struct runner *r, int *fd, void (*take)(struct runner *, const char *, size_t))
{
	char buf[RUNNER_STEP_PIPE_READ];
	if (*fd < 0)
		return false;
	ssize_t n = read(*fd, buf, sizeof(buf));
	if (n > 0) {
		keep_tail(r, buf, (size_t)n);
		if (take)
			take(r, buf, (size_t)n);
		return true;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	close(*fd);
	*fd = -1;
	return false;
}

void step_read(struct runner *r)
{
	struct step *s = &r->step;
	read_some(r, &s->out_fd, s->on_output);
	read_some(r, &s->err_fd, s->on_error_output);
}

void step_ended(struct runner *r)
{
	struct step *s = &r->step;
	struct error e = ERROR_INIT;
	int status = 0;
	while (read_some(r, &s->out_fd, s->on_output) || read_some(r, &s->err_fd, s->on_error_output))
		;
	if (s->out_fd >= 0)
		close(s->out_fd);
	if (s->err_fd >= 0)
		close(s->err_fd);
	s->out_fd = s->err_fd = -1;
	inlet_close(r);
	enum err_code rc = s->is_box ? sandbox_finish(&s->box, &status, &e) : proc_wait(&s->proc, -1, &status, &e);
	if (!s->is_box)
		proc_release(&s->proc);
	s->active = false;
	s->on_exit(r, status, rc ? &e : NULL);
}

void step_end(struct runner *r)
{
	struct step *s = &r->step;
	if (!s->active)
		return;
	if (s->is_box)
		sandbox_kill(&s->box);
	else
		proc_signal(&s->proc, SIGKILL);
	s->interrupted = true;
	s->kill_at_ms = 0;
}

void step_interrupt(struct runner *r)
{
	struct step *s = &r->step;
	if (!s->active || s->interrupted)
		return;
	s->interrupted = true;
	s->kill_at_ms = clock_mono_ms() + RUNNER_CANCEL_GRACE_MS;
	if (s->is_box)
		sandbox_signal(&s->box, SIGINT);
	else
		proc_signal(&s->proc, SIGTERM);
}

/* An agent that says nothing after it was given a decision is as good as dead: what drives it may live while it does not.  As after any other death the
 * next attempt is told. */
static void time_is_up(struct runner *r, int64_t now_ms)
{
	const struct step *s = &r->step;
	bool silent = str_eq(s->deadline_reason, "stall_timeout");
	double limit_s = (double)(silent ? runner_limit(r, "stall_timeout") : now_ms - s->started_ms) / 1000;
	if (silent && js_len(r->unheard))
		runner_verdict(r, PHASE_FAILED, "agent_exited", "the %s has not said a word for %.1f s since it was given a decision", s->name, limit_s);
	else
		runner_verdict(r, PHASE_TIMED_OUT, s->deadline_reason, silent ? "the %s was silent for longer than its limit of %.1f s" : "the %s took longer than its limit of %.1f s",
			s->name, limit_s);
}

void step_check_time(struct runner *r, int64_t now_ms)
{
	struct step *s = &r->step;
	if (!s->active)
		return;
	bool paused = r->waiting_since_ms && str_eq(s->name, "agent"); /* people's time is not the agent's */
	if (s->kill_at_ms && now_ms >= s->kill_at_ms) {
		step_end(r);
	} else if (s->deadline_ms && now_ms >= s->deadline_ms && !paused) {
		s->deadline_ms = 0;
		time_is_up(r, now_ms);
		step_end(r);
	}
}

void step_tail_line(struct runner *r, char **ret_text)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	size_t end = r->tail.len;
	while (end && (r->tail.data[end - 1] == '\n' || r->tail.data[end - 1] == ' '))
		end--;
	size_t start = end;
	while (start && r->tail.data[start - 1] != '\n')
		start--;
	str_add_printable(&text, strbuf_str(&r->tail) + start, end - start);
	*ret_text = strbuf_detach(&text);
}
