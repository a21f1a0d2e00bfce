/* signalbox-runner DIR: supervises the run whose spec is DIR/spec.json.  Descriptor 3 holds the run's lock, 4 gives its tokens. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPEC_MAX ((size_t)8 << 20)
#define SECRETS_MAX ((size_t)64 << 10)
#define HAND_IN_AWAY_MS 3000   /* the server is away at the end: it will read the spool from disk */
#define HAND_IN_MAX_MS 30000
#define RUNNER_PULSE_MIN_MS 500
#define RUNNER_PULSES_PER_STALL 4 /* looks at the processes within one stall limit, so that work is seen before it is called silence */
#define POLL_FDS 8

void runner_verdict(struct runner *r, enum phase phase, const char *reason, const char *fmt, ...)
{
	if (r->verdict.set)
		return;
	va_list ap;
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(ERROR_TEXT_MAX);
	va_start(ap, fmt);
	strbuf_vaddf(&text, fmt, ap);
	va_end(ap);
	r->verdict = (struct verdict){ .set = true, .phase = phase, .reason = reason, .error = phase == PHASE_SUCCEEDED ? NULL : strbuf_detach(&text) };
}

/* An event that cannot be made durable is an end: a run whose record is incomplete is not one to trust. */
void runner_event(struct runner *r, const char *type, const char *actor, struct js *data_taken)
{
	struct error e = ERROR_INIT;
	if (spool_add(r->spool, type, actor, data_taken, &e)) {
		log_error("%s", e.text);
		runner_verdict(r, PHASE_FAILED, "spool_failed", "%s", e.text);
		r->record_broken = true;
	}
	js_free(data_taken);
}

void runner_live(struct runner *r, const char *type, struct js *data_taken)
{
	struct js *line = js_object();
	if (js_len(r->live) >= RUNNER_LIVE_MAX) {
		js_free(r->live);
		r->live = js_array();
	}
	js_set_str(line, "type", type);
	js_set(line, "data", data_taken);
	js_push(r->live, line);
}

void runner_move(struct runner *r, enum phase to)
{
	struct js *data = js_object();
	r->phase = to;
	js_set_str(data, "to", phase_name(to));
	runner_event(r, "run.phase", "runner", data);
	r->next_beat_ms = clock_mono_ms(); /* in this turn of the loop: the next step does not wait for the file */
}

int64_t runner_limit(const struct runner *r, const char *name)
{
	return js_i64(js_get(r->spec, "limits"), name, 0);
}

static enum err_code read_secrets(struct runner *r, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(SECRETS_MAX);
	enum err_code rc = file_read_fd(RUNNER_SECRETS_FD, SECRETS_MAX, &text, e);
	close(RUNNER_SECRETS_FD);
	if (rc)
		return error_wrap(e, "read the tokens from descriptor %d", RUNNER_SECRETS_FD);
	AUTO_JS struct js *o = js_parse(strbuf_str(&text), text.len, e);
	if (!o || !js_str(o, "token"))
		return error_set(e, ERR_INVALID, "descriptor %d gives no token", RUNNER_SECRETS_FD);
	r->token = mem_strdup(js_str(o, "token"));
	r->gateway_token = mem_strdup(js_str_or(o, "gateway_token", ""));
	r->unsealed = js_get(o, "answers") ? js_copy(js_get(o, "answers")) : NULL;
	r->told_before = js_get(o, "hide") ? js_copy(js_get(o, "hide")) : NULL;
	explicit_bzero(text.data, text.len);
	return ERR_OK;
}

/* The directory belongs to the identity that the sandboxes have, which must not tell root what to do: the file has to be our own. */
static enum err_code read_own(const char *dir, const char *name, struct strbuf *ret, struct error *e)
{
	AUTO_CLOSE int at = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	AUTO_CLOSE int fd = at < 0 ? -1 : openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(e, "open '%s/%s'", dir, name);
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & (S_IWGRP | S_IWOTH))
		return error_set(e, ERR_DENIED, "'%s/%s' is not a file of uid %u alone", dir, name, (unsigned)geteuid());
	return file_read_fd(fd, SPEC_MAX, ret, e);
}

static enum err_code read_spec(struct runner *r, const char *dir, struct error *e)
{
	AUTO_FREE char *path = file_join(dir, "spec.json");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(SPEC_MAX);
	enum err_code rc = read_own(dir, "spec.json", &text, e);
	if (rc)
		return rc;
	r->spec = js_parse(strbuf_str(&text), text.len, e);
	if (!r->spec)
		return error_wrap(e, "read '%s'", path);
	r->run_dir = js_str(r->spec, "run_dir");
	r->work_dir = js_str(r->spec, "work_dir");
	r->home = js_str(r->spec, "home");
	r->run_id = js_str(r->spec, "run");
	r->task_id = js_str(r->spec, "task");
	r->epoch = js_i64(r->spec, "n", 0);
	r->uid = (uid_t)js_i64(js_get(r->spec, "sandbox"), "uid", (int64_t)geteuid());
	r->gid = (gid_t)js_i64(js_get(r->spec, "sandbox"), "gid", (int64_t)getegid());
	if (!r->run_dir || !r->work_dir || !r->home || !r->run_id || !r->task_id)
		return error_set(e, ERR_INVALID, "'%s' lacks a member", path);
	return str_eq(r->run_dir, dir) ? ERR_OK : error_set(e, ERR_INVALID, "'%s' is of another run", path);
}

/* Who we are, for a server that comes later: pids are used again, this triple is not. */
static enum err_code write_identity(struct runner *r, struct error *e)
{
	struct proc_id id;
	AUTO_JS struct js *o = js_object();
	enum err_code rc = proc_identify(getpid(), &id, e);
	if (rc)
		return rc;
	js_set_int(o, "pid", id.pid);
	js_set_int(o, "start_ticks", (int64_t)id.start_ticks);
	js_set_str(o, "boot", id.boot);
	AUTO_FREE char *text = js_pretty(o);
	AUTO_FREE char *pid = mem_printf("%d\n", (int)id.pid);
	AUTO_CLOSE int dir = open(r->run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	AUTO_CLOSE int runtime = -1;
	if (dir < 0)
		return error_errno(e, "open '%s'", r->run_dir);
	rc = file_replace_at(dir, "runner.json", text, strlen(text), 0644, FILE_NOSYNC, e);
	if (!rc)
		rc = file_open_beneath(dir, "runtime", O_RDONLY | O_DIRECTORY, &runtime, e);
	return rc ? rc : file_replace_at(runtime, "pid", pid, strlen(pid), 0644, FILE_NOSYNC, e);
}

static int open_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int64_t min64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static enum err_code begin(struct runner *r, const char *dir, struct error *e)
{
	r->was_root = geteuid() == 0;
	r->live = js_array();
	r->out_file = r->err_file = r->requests_file = -1;
	r->inlet.max = RUNNER_SEND_MAX;
	fcntl(RUNNER_LOCK_FD, F_SETFD, FD_CLOEXEC);
	fcntl(RUNNER_GATEWAY_FD, F_SETFD, FD_CLOEXEC);
	prctl(PR_SET_DUMPABLE, 0); /* the tokens are ours alone */
	enum err_code rc = read_spec(r, dir, e);
	if (!rc)
		rc = write_identity(r, e);
	if (!rc)
		rc = read_secrets(r, e);
	if (!rc)
		rc = spool_open(r->run_dir, &r->spool, e);
	if (!rc)
		rc = link_open(r, &r->link, e);
	r->signals = open_signals();
	r->run_deadline_ms = clock_mono_ms() + min64(runner_limit(r, "timeout"), js_i64(r->spec, "task_left_ms", INT64_MAX));
	r->next_beat_ms = clock_mono_ms();
	return rc;
}

/* INT is a person's wish (stop --stop-runs).  TERM is what a machine says that shuts down: nobody has canceled the task, which fares as with any
 * other death of a runner, and what its agent asks stays asked. */
static void on_signal(struct runner *r)
{
	struct signalfd_siginfo info;
	while (read(r->signals, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo == SIGINT)
			runner_verdict(r, PHASE_CANCELED, "canceled", "the runner was asked to end by signal %u", info.ssi_signo);
		else
			runner_verdict(r, PHASE_FAILED, "runner_lost", "the runner was asked to end by signal %u, as when the machine shuts down", info.ssi_signo);
}

static void run_too_long(struct runner *r)
{
	int64_t left = js_i64(r->spec, "task_left_ms", INT64_MAX), limit = runner_limit(r, "timeout");
	if (left < limit)
		runner_verdict(r, PHASE_TIMED_OUT, "task_timeout", "the task, with its retries, took longer than its limit (task_timeout)");
	else
		runner_verdict(r, PHASE_TIMED_OUT, "run_timeout", "the run took longer than its limit of %lld s", (long long)(limit / 1000));
}

static void check_time(struct runner *r, int64_t now)
{
	if (now >= r->next_beat_ms) {
		beat_write(r);
		link_want_beat(r);
		r->last_beat_ms = now;
		r->next_beat_ms = now + min64(RUNNER_BEAT_MS, js_i64(r->spec, "heartbeat_timeout", INT64_MAX) / RUNNER_BEATS_PER_TIMEOUT);
	}
	if (now >= r->next_pulse_ms) {
		int64_t before = r->pulse.busy_at_ms, stall = runner_limit(r, "stall_timeout") / RUNNER_PULSES_PER_STALL;
		pulse_take(r, now);
		if (r->pulse.busy_at_ms != before && agent_is_working(r->agent)) /* a long compilation is silent, and no stall */
			agent_touch(r);
		r->next_pulse_ms = now + (stall < RUNNER_PULSE_MIN_MS ? RUNNER_PULSE_MIN_MS : min64(stall, RUNNER_BEAT_MS));
	}
	if (now >= r->run_deadline_ms && !r->waiting_since_ms)
		run_too_long(r);
	gates_check_time(r, now);
	driven_check(r, now);
	step_check_time(r, now);
	/* A verdict from outside the step ends the step; collecting what there is goes on. */
	bool collecting = str_eq(r->step.name, "collect") || str_eq(r->step.name, "save");
	if (r->verdict.set && r->step.active && !r->step.interrupted && !collecting)
		step_interrupt(r);
}

static int poll_timeout(struct runner *r, int64_t now)
{
	int64_t next = min64(min64(min64(r->next_beat_ms, r->next_pulse_ms), link_next_ms(r)), gates_next_ms(r));
	const struct step *s = &r->step;
	if (s->active && s->deadline_ms && !r->waiting_since_ms)
		next = min64(next, s->deadline_ms);
	if (s->active && s->kill_at_ms)
		next = min64(next, s->kill_at_ms);
	if (!r->verdict.set && !r->waiting_since_ms)
		next = min64(next, r->run_deadline_ms);
	if (r->driven.count)
		next = min64(next, r->driven.next_ms);
	return next <= now ? 0 : (int)min64(next - now, RUNNER_BEAT_MS);
}

static void turn(struct runner *r)
{
	struct pollfd fds[POLL_FDS] = { { .fd = r->signals, .events = POLLIN } };
	struct step *s = &r->step;
	int n = 1, links = link_poll_fds(r, fds + 1);
	n += links;
	int pidfd = !s->active ? -1 : s->is_box ? s->box.pidfd : s->proc.pidfd;
	int out = s->active ? s->out_fd : -1, err = s->active ? s->err_fd : -1;
	fds[n++] = (struct pollfd){ .fd = out, .events = POLLIN };
	fds[n++] = (struct pollfd){ .fd = err, .events = POLLIN };
	fds[n++] = (struct pollfd){ .fd = r->inlet.len ? s->in_fd : -1, .events = POLLOUT };
	fds[n++] = (struct pollfd){ .fd = pidfd, .events = POLLIN };
	if (poll(fds, (nfds_t)n, poll_timeout(r, clock_mono_ms())) < 0 && errno != EINTR)
		log_error("poll: %s", strerror(errno));
	int64_t now = clock_mono_ms();
	if (fds[0].revents)
		on_signal(r);
	if (fds[n - 4].revents || fds[n - 3].revents) /* before commands: what was said already is no echo of them */
		step_read(r);
	link_turn(r, fds + 1, links, now);
	if (fds[n - 2].revents)
		inlet_write(r);
	if (fds[n - 1].revents)
		step_ended(r);
	check_time(r, clock_mono_ms());
}

/* The result is in the spool; give the server a chance to take it now. */
static void hand_over(struct runner *r)
{
	int64_t begun = clock_mono_ms();
	while (!spool_all_acked(r->spool) && !r->stale) {
		int64_t waited = clock_mono_ms() - begun;
		if (waited > HAND_IN_MAX_MS || (waited > HAND_IN_AWAY_MS && link_is_away(r)))
			return;
		turn(r);
	}
}

/* What was of this run only; the layers are the worker's, and the server's to remove when the task is over. */
static void clean_up(struct runner *r)
{
	static const char *const names[] = { "work", "merged", "scratch", "setup.sh" };
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		AUTO_FREE char *path = file_join(r->work_dir, names[i]);
		struct error e = ERROR_INIT;
		if (file_remove_tree(path, &e))
			log_warn("clean up: %s", e.text);
	}
}

static void supervise(struct runner *r)
{
	steps_fetch(r);
	while (!r->over && !r->stale)
		turn(r);
	if (r->stale) { /* somebody else has the run: nothing of ours may go on */
		step_end(r);
		if (r->step.active && r->step.is_box) {
			struct pollfd gone = { .fd = r->step.box.pidfd, .events = POLLIN };
			poll(&gone, 1, RUNNER_CANCEL_GRACE_MS);
		}
	}
	cgroup_close(r->cgroup);
	clean_up(r);
	hand_over(r);
}

static void release(struct runner *r)
{
	link_close(r->link);
	spool_close(r->spool);
	agent_free(r->agent);
	gates_release(r);
	agent_outcome_release(&r->outcome);
	agent_launch_release(&r->launch);
	line_release(&r->lines);
	strbuf_release(&r->tail);
	js_free(r->spec);
	js_free(r->source);
	js_free(r->changes);
	js_free(r->verify);
	js_free(r->live);
	js_free(r->result);
	char *owned[] = { r->token, r->gateway_token, r->verdict.error, r->setup_upper, r->upper, r->overlay_work, r->merged, r->scratch, r->plain, r->objects,
		r->checkout, r->base_tree, r->prompt, r->model_url, r->setup_script, r->interrupted_by };
	for (size_t i = 0; i < ARRAY_SIZE(owned); i++)
		free(owned[i]);
}

int main(int argc, char **argv)
{
	struct runner r = { .signals = -1 };
	struct error e = ERROR_INIT;
	log_open("signalbox-runner", LOG_INFO);
	if (argc != 2) {
		fprintf(stderr, "usage: signalbox-runner RUN-DIRECTORY (started by signalbox serve)\n");
		return 2;
	}
	enum err_code rc = begin(&r, argv[1], &e);
	if (rc)
		log_error("%s", e.text);
	else
		supervise(&r);
	release(&r);
	return rc ? 1 : 0;
}
