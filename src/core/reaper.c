/* Notices the end of local runners by their pidfds, within milliseconds and whoever their parent is, and adopts what an earlier server left. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "core/inside.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
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
	int64_t ticked_ms; /* the scheduler's last look */
};

/* The runner is gone. What it had written but not sent is on disk; if the result is not there, it was lost. */
static void runner_ended(struct core *c, const char *run_id, bool silent)
{
	struct error e = ERROR_INIT;
	bool ended = false;
	enum err_code rc = ingest_spool(c, run_id, &ended, &e);
	if (rc)
		log_error("run %s: read its spool: %s", run_id, e.text);
	if (rc == ERR_BUSY || rc == ERR_IO || rc == ERR_LIMIT || rc == ERR_FULL)
		return; /* the disk or the database fails just now: the run stays held, and the next reconcile reads its spool again */
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
			pthread_mutex_lock(&r->lock);
			bool silent = w->killed;
			pthread_mutex_unlock(&r->lock);
			runner_ended(r->core, w->run_id, silent);
			AUTO_FREE char *task = mem_strndup(w->run_id, strcspn(w->run_id, "."));
			reconcile_workspace(r->core, task); /* it may have been canceled while it waited and this runner was still saving */
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
	if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, w->pidfd, &ev) < 0) {
		log_error("run %s: cannot watch its runner: %s", run_id, strerror(errno));
		forget(r, w); /* the reconciler finds it again */
	}
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
	int64_t now = clock_mono_ms(), oldest = now - conf_limit(c->config, "heartbeat_timeout");
	int64_t late = r->ticked_ms ? now - r->ticked_ms - 2 * SCHED_TICK_MS : 0;
	pthread_mutex_lock(&r->lock);
	r->ticked_ms = now;
	for (struct watched *w = r->list; w; w = w->next) {
		if (late > 0) /* we were stopped ourselves: what was not heard meanwhile is nobody's silence */
			w->heard_ms = w->heard_ms + late + SCHED_TICK_MS < now ? w->heard_ms + late + SCHED_TICK_MS : now;
		if (w->heard_ms < oldest && !w->killed) {
			log_warn("run %s: its runner (pid %d) is silent: killed", w->run_id, (int)w->pid);
			w->killed = syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0) == 0;
		}
	}
	pthread_mutex_unlock(&r->lock);
}

struct live_run {
	char *id, *dir;
	bool over;	   /* its end is on record */
	int64_t claimed_at; /* wall */
	struct proc_id pid; /* as the server that started it wrote it down; pid 0: it did not come to that */
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
		"SELECT id, task, worker, n, phase, pid, start_ticks, boot, created_at FROM runs WHERE released=0", &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row) {
		l->runs = mem_grow(l->runs, (l->count + 1) * sizeof(*l->runs));
		struct live_run *run = &l->runs[l->count++];
		enum phase p = PHASE_FAILED;
		*run = (struct live_run){ .id = mem_strdup(db_text(s, 0)), .dir = launch_run_dir(l->core, db_text(s, 1), db_text(s, 2), db_int(s, 3)) };
		run->claimed_at = db_int(s, 8);
		run->over = phase_from_name(db_text(s, 4), &p) && phase_is_terminal(p);
		run->pid = (struct proc_id){ .pid = (pid_t)db_int(s, 5), .start_ticks = (uint64_t)db_int(s, 6) };
		snprintf(run->pid.boot, sizeof(run->pid.boot), "%s", db_text(s, 7) ? db_text(s, 7) : "");
	}
	db_done(s);
	return rc;
}

/* Only what is ours is believed: the directory is the sandboxes' identity's, and we signal whom it names. */
static bool read_identity(const char *dir, struct proc_id *ret)
{
	AUTO_FREE char *path = file_join(dir, "runner.json");
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(IDENTITY_MAX);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || file_read_fd(fd, IDENTITY_MAX, &text, NULL))
		return false;
	AUTO_JS struct js *o = js_parse(strbuf_str(&text), text.len, NULL);
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

struct held {
	const char *run_id;
	bool held;
};

static enum err_code held_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct held *h = arg;
	return db_has(conn, e, &h->held, "SELECT 1 FROM runs WHERE id=?1 AND released=0", "s", h->run_id);
}

static bool is_held(struct core *c, const char *run_id)
{
	struct held h = { .run_id = run_id };
	return db_read(c->db, held_op, &h, NULL) == ERR_OK && h.held;
}

static void adopt(struct core *c, const struct live_run *run)
{
	struct proc_id id = run->pid;
	struct error e = ERROR_INIT;
	bool known = id.pid > 0 || find_identity(run->dir, &id);
	if (!known && !lock_is_free(run->dir) && clock_wall_ms() - run->claimed_at < conf_limit(c->config, "heartbeat_timeout")) {
		log_warn("run %s: somebody holds its lock and has not said who: looked at again later", run->id);
		return;
	}
	if (!known && run->over) { /* nothing of it ever lived: only its place was still taken */
		launch_clean_up(c, run->id);
		return;
	}
	if (!known) {
		log_info("run %s: it had not been started; starting it now", run->id);
		if (launch_run(c, run->id, NULL, &e)) {
			log_error("start run %s: %s", run->id, e.text);
			if (ingest_lost(c, run->id, "launch_failed", e.text, &e))
				log_error("end run %s: %s", run->id, e.text);
			launch_clean_up(c, run->id);
		}
		return;
	}
	int pidfd = proc_open(&id);
	if (pidfd >= 0) {
		if (!run->over && usage_begin(c, run->id, &e)) /* begun by a release whose gateway made the file */
			log_warn("run %s: %s", run->id, e.text);
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
	pthread_mutex_lock(&c->launching);
	enum err_code rc = db_read(c->db, live_op, &l, e);
	for (size_t i = 0; i < l.count; i++) { /* whoever was watched when the list was made may have been released since */
		if (!rc && !is_watched(c, l.runs[i].id) && is_held(c, l.runs[i].id))
			adopt(c, &l.runs[i]);
		free(l.runs[i].id);
		free(l.runs[i].dir);
	}
	free(l.runs);
	pthread_mutex_unlock(&c->launching);
	return rc;
}
