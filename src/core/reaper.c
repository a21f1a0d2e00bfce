/* Notices the end of local runners by their pidfds, within milliseconds and whoever their parent is, and adopts what an earlier server left. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "core/inside.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REAP_EVENTS 64
#define IDENTITY_MAX ((size_t)4096)
#define IDENTITY_WAIT_MS 2000 /* for a runner that was just started when the server died */

struct watched {
	struct watched *next;
	char *run_id;
	pid_t pid;
	int pidfd;
	int64_t heard_ms; /* monotonic: when it last spoke, or when we began to listen */
	bool killed;	  /* by us, for its silence */
};

struct reaper {
	struct core *core;
	int epoll, stop;
	pthread_t thread;
	pthread_mutex_t lock; /* guards list */
	struct watched *list;
};

/* The runner is gone. What it had written but not sent is on disk; if the result is not there, it was lost. */
static void runner_ended(struct core *c, const char *run_id, bool silent)
{
	struct error e = ERROR_INIT;
	bool ended = false;
	if (ingest_spool(c, run_id, &ended, &e))
		log_error("run %s: read its spool: %s", run_id, e.text);
	cgroup_remove_by_id(run_id); /* before the end is said: then nothing of it lives */
	const char *reason = silent ? "heartbeat_timeout" : "runner_lost";
	const char *text = silent ? "the runner gave no sign of life within limits.heartbeat_timeout and was killed"
				  : "the runner ended without a result (it was killed, or the machine ran out of memory)";
	if (!ended && ingest_lost(c, run_id, reason, text, &e))
		log_error("run %s: %s", run_id, e.text);
	launch_clean_up(c, run_id);
	sched_ask(c);
}

static void forget(struct reaper *r, struct watched *w)
{
	pthread_mutex_lock(&r->lock);
	struct watched **at = &r->list;
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	pthread_mutex_unlock(&r->lock);
	epoll_ctl(r->epoll, EPOLL_CTL_DEL, w->pidfd, NULL);
	close(w->pidfd);
	free(w->run_id);
	free(w);
}

static void *reaper_main(void *arg)
{
	struct reaper *r = arg;
	struct epoll_event events[REAP_EVENTS];
	for (;;) {
		int n = epoll_wait(r->epoll, events, REAP_EVENTS, -1);
		for (int i = 0; i < n; i++) {
			struct watched *w = events[i].data.ptr;
			if (!w)
				return NULL;
			siginfo_t info;
			waitid(P_PIDFD, (id_t)w->pidfd, &info, WEXITED | WNOHANG); /* an adopted one is not our child: nothing to reap */
			runner_ended(r->core, w->run_id, w->killed);
			forget(r, w);
		}
	}
}

enum err_code reaper_start(struct core *c, struct error *e)
{
	struct reaper *r = NEW(struct reaper);
	c->reaper = r;
	r->core = c;
	pthread_mutex_init(&r->lock, NULL);
	r->epoll = epoll_create1(EPOLL_CLOEXEC);
	r->stop = eventfd(0, EFD_CLOEXEC);
	struct epoll_event ev = { .events = EPOLLIN, .data = { .ptr = NULL } };
	if (r->epoll < 0 || r->stop < 0 || epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->stop, &ev) < 0)
		return error_errno(e, "start the reaper");
	int rc = pthread_create(&r->thread, NULL, reaper_main, r);
	return rc ? error_set(e, ERR_IO, "start the reaper's thread: %s", strerror(rc)) : ERR_OK;
}

void reaper_stop(struct core *c)
{
	struct reaper *r = c->reaper;
	if (!r)
		return;
	uint64_t one = 1;
	if (r->thread && write(r->stop, &one, sizeof(one)) == sizeof(one))
		pthread_join(r->thread, NULL);
	while (r->list)
		forget(r, r->list);
	close(r->epoll);
	close(r->stop);
	free(r);
	c->reaper = NULL;
}

void reaper_watch(struct core *c, const char *run_id, pid_t pid, int pidfd_taken)
{
	struct reaper *r = c->reaper;
	struct watched *w = NEW(struct watched);
	w->run_id = mem_strdup(run_id);
	w->pid = pid;
	w->pidfd = pidfd_taken;
	w->heard_ms = clock_mono_ms();
	pthread_mutex_lock(&r->lock);
	w->next = r->list;
	r->list = w;
	pthread_mutex_unlock(&r->lock);
	struct epoll_event ev = { .events = EPOLLIN, .data = { .ptr = w } };
	if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, w->pidfd, &ev) < 0)
		log_error("run %s: cannot watch its runner: %s", run_id, strerror(errno));
}

void reaper_beat(struct core *c, const char *run_id)
{
	struct reaper *r = c->reaper;
	pthread_mutex_lock(&r->lock);
	for (struct watched *w = r->list; w; w = w->next)
		if (str_eq(w->run_id, run_id))
			w->heard_ms = clock_mono_ms();
	pthread_mutex_unlock(&r->lock);
}

int reaper_signal_all(struct core *c, int sig)
{
	struct reaper *r = c->reaper;
	int n = 0;
	pthread_mutex_lock(&r->lock);
	for (struct watched *w = r->list; w; w = w->next, n++)
		if (sig)
			syscall(SYS_pidfd_send_signal, w->pidfd, sig, NULL, 0);
	pthread_mutex_unlock(&r->lock);
	return n;
}

void reaper_tick(struct core *c)
{
	struct reaper *r = c->reaper;
	int64_t oldest = clock_mono_ms() - conf_limit(c->config, "heartbeat_timeout");
	pthread_mutex_lock(&r->lock);
	for (struct watched *w = r->list; w; w = w->next)
		if (w->heard_ms < oldest && !w->killed) {
			log_warn("run %s: its runner (pid %d) is silent: killed", w->run_id, (int)w->pid);
			w->killed = syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0) == 0;
		}
	pthread_mutex_unlock(&r->lock);
}

struct live_run {
	char *id, *dir;
};

struct live_list {
	struct core *core;
	struct live_run *runs;
	size_t count;
};

static enum err_code live_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct live_list *l = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn,
		"SELECT id, task, worker, n FROM runs WHERE released=0", &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row) {
		l->runs = mem_grow(l->runs, (l->count + 1) * sizeof(*l->runs));
		l->runs[l->count].id = mem_strdup(db_text(s, 0));
		l->runs[l->count++].dir = launch_run_dir(l->core, db_text(s, 1), db_text(s, 2), db_int(s, 3));
	}
	db_done(s);
	return rc;
}

static bool read_identity(const char *dir, struct proc_id *ret)
{
	AUTO_FREE char *path = file_join(dir, "runner.json");
	AUTO_JS struct js *o = js_load(path, IDENTITY_MAX, NULL);
	if (!o || !js_str(o, "boot"))
		return false;
	*ret = (struct proc_id){ .pid = (pid_t)js_i64(o, "pid", 0), .start_ticks = (uint64_t)js_i64(o, "start_ticks", 0) };
	snprintf(ret->boot, sizeof(ret->boot), "%s", js_str(o, "boot"));
	return true;
}

static bool lock_is_free(const char *dir)
{
	AUTO_FREE char *path = file_join(dir, "lock");
	AUTO_CLOSE int fd = -1;
	return !file_is_dir(dir) || file_lock(path, false, &fd, NULL) == ERR_OK;
}

/* A runner that holds the lock and has not written its identity yet has just been started: it will in a moment. */
static bool find_identity(const char *dir, struct proc_id *ret)
{
	int64_t until = clock_mono_ms() + IDENTITY_WAIT_MS;
	while (!read_identity(dir, ret)) {
		if (lock_is_free(dir) || clock_mono_ms() > until)
			return read_identity(dir, ret);
		poll(NULL, 0, 5);
	}
	return true;
}

static bool is_watched(struct core *c, const char *run_id)
{
	struct reaper *r = c->reaper;
	bool found = false;
	pthread_mutex_lock(&r->lock);
	for (struct watched *w = r->list; w && !found; w = w->next)
		found = str_eq(w->run_id, run_id);
	pthread_mutex_unlock(&r->lock);
	return found;
}

static void adopt(struct core *c, const struct live_run *run)
{
	struct proc_id id;
	struct error e = ERROR_INIT;
	if (!find_identity(run->dir, &id)) {
		log_info("run %s: it had not been started; starting it now", run->id);
		if (launch_run(c, run->id, &e) && ingest_lost(c, run->id, "launch_failed", e.text, &e))
			log_error("run %s: %s", run->id, e.text);
		return;
	}
	int pidfd = proc_open(&id);
	if (pidfd >= 0) {
		log_info("run %s: adopted its runner, pid %d", run->id, (int)id.pid);
		reaper_watch(c, run->id, id.pid, pidfd);
		return;
	}
	log_info("run %s: its runner ended while the server was away", run->id);
	runner_ended(c, run->id, false);
}

enum err_code reaper_adopt_all(struct core *c, struct error *e)
{
	struct live_list l = { .core = c };
	enum err_code rc = db_read(c->db, live_op, &l, e);
	for (size_t i = 0; i < l.count; i++) {
		if (!rc && !is_watched(c, l.runs[i].id))
			adopt(c, &l.runs[i]);
		free(l.runs[i].id);
		free(l.runs[i].dir);
	}
	free(l.runs);
	return rc;
}
