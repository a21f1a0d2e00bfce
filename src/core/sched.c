/* The scheduler: one thread that claims queued tasks in order of priority and age, within the caps, and starts their runners.  The queue
 * is rows, so it survives everything; a claim is a compare-and-set in one transaction. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/external.h"
#include "core/feed.h"
#include "core/inside.h"
#include "core/share.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#define LIVE_MAX 4096
#define CLAIM_DISK_MIN_BYTES ((uint64_t)4 << 20)
#define EXPIRE_MAX 64 /* in one tick; the next takes the rest */

struct claim {
	struct core *core;
	char run_id[ID_SIZE + 32], project[PROJECT_SIZE];
	bool found, full;
	struct run_token token;
	int64_t next_ms; /* monotonic: when the next pause is over; 0: nobody pauses */
	struct outbox out;
};

/* How many places are taken, by repository or by project. */
struct live {
	struct { char *name; int64_t n; } *of;
	size_t count;
	int64_t total;
};

static void live_release(struct live *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->of[i].name);
	free(l->of);
}

/* A place is held until the runner is gone, not only until it has told its end: the caps are about what this machine carries. */
static enum err_code live_load(struct db_conn *c, const char *sql, struct live *l, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, sql, &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row && l->count < LIVE_MAX) {
		l->of = mem_grow(l->of, (l->count + 1) * sizeof(*l->of));
		l->of[l->count].name = mem_strdup(db_text(s, 0));
		l->of[l->count].n = db_int(s, 1);
		l->total += l->of[l->count++].n;
	}
	db_done(s);
	return rc;
}

static int64_t live_in(const struct live *l, const char *name)
{
	for (size_t i = 0; i < l->count; i++)
		if (str_eq(l->of[i].name, name))
			return l->of[i].n;
	return 0;
}

/* The places by project count only where one has a limit of its own. */
struct places {
	struct live repos, projects;
	const struct conf *config;
	bool shares;
};

static void places_release(struct places *p)
{
	live_release(&p->repos);
	live_release(&p->projects);
}

static enum err_code places_load(struct db_conn *c, struct places *p, struct error *e)
{
	enum err_code rc = live_load(c, "SELECT repo, COUNT(*) FROM runs WHERE released=0 GROUP BY repo", &p->repos, e);
	p->shares = conf_has_project_limit(p->config, "running");
	return rc || !p->shares ? rc : live_load(c, "SELECT project, COUNT(*) FROM runs WHERE released=0 GROUP BY project", &p->projects, e);
}

static bool has_place(const struct places *p, const char *repo, const char *project)
{
	return live_in(&p->repos, repo) < conf_limit(p->config, "running_per_repository") &&
	       (!project || live_in(&p->projects, project) < conf_project_limit(p->config, project, "running"));
}

#define PICK(project) "SELECT task, repo, " project " FROM queue WHERE (not_before<=?1 OR boot<>?2)" \
	" AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.task=queue.task AND released=0) ORDER BY priority DESC, task"

/* The first in order whose repository and project have room, whose pause is over, and whose earlier runner is gone: two runners never share a workspace. */
static enum err_code pick(struct db_conn *c, const struct places *places, char **ret_task, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, places->shares ? PICK("(SELECT project FROM tasks WHERE id=queue.task)") : PICK("NULL"), &s, e);
	if (rc)
		return rc;
	db_bind_int(s, 1, clock_mono_ms());
	db_bind_text(s, 2, clock_boot_id());
	while (!*ret_task && !(rc = db_step(s, &row, e)) && row)
		if (has_place(places, db_text(s, 1), places->shares ? db_text(s, 2) : NULL))
			*ret_task = mem_strdup(db_text(s, 0));
	db_done(s);
	return rc;
}

static enum err_code insert_run(struct db_conn *conn, const struct task_row *t, struct claim *k, struct error *e)
{
	int64_t n = t->run_n + 1, now = clock_wall_ms(), attempt = t->house_failures + t->agent_failures + 1;
	snprintf(k->run_id, sizeof(k->run_id), "%s.main.%lld", t->id, (long long)n);
	enum err_code rc = db_exec(conn, e,
		"INSERT INTO runs(id,task,worker,n,turn,attempt,project,repo,phase,token_hash,created_at) VALUES(?1,?2,'main',?3,?9,?7,?4,?5,'claimed',?8,?6)",
		"ssissiisi", k->run_id, t->id, n, t->project, t->repo, now, attempt, k->token.hash, t->turn);
	if (!rc)
		rc = db_exec(conn, e, "UPDATE tasks SET run_n=?2, cancel_asked=0 WHERE id=?1 AND run_n=?3", "sii", t->id, n, t->run_n);
	struct js *data = js_object();
	js_set_str(data, "run", k->run_id);
	if (rc) {
		js_free(data);
		return rc;
	}
	return event_add(conn, t->id, "task.claimed", "main", n, SERVER_ACTOR, now, data, &k->out, e);
}

static enum err_code claim_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct claim *k = arg;
	const struct conf *config = k->core->config;
	AUTO(places_release) struct places places = { .config = config };
	AUTO_FREE char *task = NULL;
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = places_load(conn, &places, e);
	k->full = places.repos.total >= conf_limit(config, "running");
	if (rc || k->full)
		return rc;
	rc = pick(conn, &places, &task, e);
	if (rc || !task)
		return rc ? rc : db_number(conn, e, &k->next_ms, "SELECT MIN(not_before) FROM queue WHERE not_before>?1 AND boot=?2", "is", clock_mono_ms(), clock_boot_id());
	rc = task_load(conn, task, &t, e);
	struct move m = { .to = PHASE_CLAIMED, .actor = SERVER_ACTOR };
	if (!rc)
		rc = task_move(conn, task, &m, &k->out, e);
	if (!rc)
		rc = insert_run(conn, &t, k, e);
	k->found = !rc;
	snprintf(k->project, sizeof(k->project), "%s", t.project ? t.project : "");
	return rc;
}

/* Claims and starts one; false when there is nothing to claim now, or when starting fails (the next tick tries again, slowly, so that what
 * is wrong here does not eat the whole queue).  With the launching lock. */
static bool claim_and_launch(struct core *c, int64_t *ret_next_ms)
{
	struct claim k = { .core = c };
	struct error e = ERROR_INIT;
	run_token_make(&k.token);
	enum err_code rc = db_write(c->db, claim_op, &k, &e);
	if (rc)
		log_error("claim: %s", e.text);
	else
		core_publish(c, &k.out);
	outbox_release(&k.out);
	pthread_mutex_lock(&c->sched_lock);
	c->sched_full = k.full; /* a place that was freed since has been asked for, so we look again */
	pthread_mutex_unlock(&c->sched_lock);
	*ret_next_ms = k.next_ms;
	if (rc || !k.found) {
		run_token_release(&k.token);
		return false;
	}
	share_leave_queue(c, k.project);
	rc = launch_run(c, k.run_id, &k.token, &e);
	run_token_release(&k.token);
	if (rc) {
		log_error("start run %s: %s", k.run_id, e.text);
		struct error ignored = ERROR_INIT;
		if (ingest_lost(c, k.run_id, "launch_failed", e.text, &ignored))
			log_error("end run %s: %s", k.run_id, ignored.text);
		launch_clean_up(c, k.run_id);
	}
	return !rc;
}

static bool claim_one(struct core *c, int64_t *ret_next_ms)
{
	pthread_mutex_lock(&c->launching);
	bool again = claim_and_launch(c, ret_next_ms);
	pthread_mutex_unlock(&c->launching);
	return again;
}

/* Until somebody asks, the next tick, or the end of the next pause. False: stop. */
static bool wait_for_work(struct core *c, int64_t next_ms)
{
	int64_t now = clock_mono_ms(), at = now + SCHED_TICK_MS;
	at = next_ms && next_ms < at ? next_ms + 1 : at;
	struct timespec until = { .tv_sec = at / 1000, .tv_nsec = at % 1000 * 1000000 };
	pthread_mutex_lock(&c->sched_lock);
	while (!c->sched_asked && !c->sched_stop)
		if (pthread_cond_timedwait(&c->sched_wake, &c->sched_lock, &until))
			break;
	c->sched_asked = false;
	bool go = !c->sched_stop;
	pthread_mutex_unlock(&c->sched_lock);
	return go;
}

static enum err_code expire_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct outbox *out = arg;
	struct db_stmt *s;
	char ids[EXPIRE_MAX][ID_SIZE];
	int n = 0;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT task FROM queue WHERE (boot=?1 AND expires_mono<?2) OR (boot<>?1 AND expires_wall<?3) LIMIT 64", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, clock_boot_id());
	db_bind_int(s, 2, clock_mono_ms());
	db_bind_int(s, 3, clock_wall_ms());
	while (n < EXPIRE_MAX && !(rc = db_step(s, &row, e)) && row)
		snprintf(ids[n++], ID_SIZE, "%s", db_text(s, 0));
	db_done(s);
	for (int i = 0; i < n && !rc; i++) {
		struct move m = { .to = PHASE_TIMED_OUT, .reason = "queue_timeout", .error = "it waited in the queue for longer than its limit (queue_timeout)",
			.actor = SERVER_ACTOR };
		rc = task_move(conn, ids[i], &m, out, e);
	}
	return rc;
}

struct queue_look { int64_t tasks, expired; };

static enum err_code look_at_queue_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct queue_look *l = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT COUNT(*), COUNT(CASE WHEN (boot=?1 AND expires_mono<?2) OR (boot<>?1 AND expires_wall<?3) THEN 1 END) FROM queue", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, clock_boot_id());
	db_bind_int(s, 2, clock_mono_ms());
	db_bind_int(s, 3, clock_wall_ms());
	rc = db_step(s, &row, e);
	if (!rc && row)
		*l = (struct queue_look){ db_int(s, 0), db_int(s, 1) };
	db_done(s);
	return rc;
}

/* Tasks that have waited in the queue for too long. A reader looks for them: a long queue must not keep the writer busy each second. */
static void expire_queued(struct core *c)
{
	struct outbox out = { 0 };
	struct error e = ERROR_INIT;
	struct queue_look look = { 0 };
	if (db_read(c->db, look_at_queue_op, &look, &e)) {
		log_warn("queue: %s", e.text);
		return;
	}
	atomic_store(&c->queued_about, (unsigned long long)look.tasks);
	shares_count(c);
	if (!look.expired)
		return;
	if (db_write(c->db, expire_op, &out, &e))
		log_warn("queue: %s", e.text);
	else
		core_publish(c, &out);
	outbox_release(&out);
}

static bool is_draining(struct core *c)
{
	pthread_mutex_lock(&c->sched_lock);
	bool draining = c->draining || c->sched_stop;
	pthread_mutex_unlock(&c->sched_lock);
	return draining;
}

static void tick_when_due(struct core *c, int64_t *next_tick)
{
	if (clock_mono_ms() < *next_tick)
		return;
	*next_tick = clock_mono_ms() + SCHED_TICK_MS;
	atomic_fetch_add(&c->pulse, 1);
	hub_tick(c->hub);
	reaper_tick(c);
	external_tick(c);
	expire_queued(c);
	taskdir_tick(c);
	feed_tick(c);
	search_tick(c);
	idem_tick(c);
	gateway_ctl_tick(c);
	gates_tick(c);
}

/* A run that begins on a full disk ends at once, and with it the task: better it waits in the queue. */
static bool has_room(const struct core *c)
{
	struct statvfs disk;
	return statvfs(c->data, &disk) < 0 || (uint64_t)disk.f_bavail * disk.f_frsize >= CLAIM_DISK_MIN_BYTES;
}

/* ... and the log says so, once each time. */
static bool may_claim(struct core *c)
{
	bool short_of_room = !has_room(c);
	if (short_of_room && !c->sched_short_of_room)
		log_warn("queue: nothing is started, less than %llu MiB are free in '%s'", (unsigned long long)(CLAIM_DISK_MIN_BYTES >> 20), c->data);
	c->sched_short_of_room = short_of_room;
	return !short_of_room && !is_draining(c);
}

static enum err_code why_limits(struct db_conn *conn, const struct core *c, const struct task_row *t, struct strbuf *out, struct error *e)
{
	int64_t all = 0, same = 0, own = 0, running = conf_limit(c->config, "running"), per_repo = conf_limit(c->config, "running_per_repository");
	int64_t share = conf_project_limit(c->config, t->project, "running");
	enum err_code rc = db_number(conn, e, &all, "SELECT COUNT(*) FROM runs WHERE released=0", "");
	if (!rc && share != INT64_MAX)
		rc = db_number(conn, e, &own, "SELECT COUNT(*) FROM runs WHERE released=0 AND project=?1", "s", t->project);
	if (!rc && own >= share) {
		strbuf_addf(out, "a place of its project: %lld tasks are at work (projects.%s.running %lld)", (long long)own, t->project, (long long)share);
		return ERR_OK;
	}
	if (!rc)
		rc = db_number(conn, e, &same, "SELECT COUNT(*) FROM runs WHERE released=0 AND repo=?1", "s", t->repo);
	if (!rc && !str_eq(t->project, PROJECT_DEFAULT)) { /* how much others have at work, and in which repositories, is theirs to know */
		strbuf_adds(out, all >= running || same >= per_repo ? "a place: the server has as much at work as it may" : "");
		return ERR_OK;
	}
	if (!rc && all >= running)
		strbuf_addf(out, "a place: %lld tasks are at work (limits.running %lld)", (long long)all, (long long)running);
	else if (!rc && same >= per_repo)
		strbuf_addf(out, "a place in its repository: %lld tasks are at work there (limits.running_per_repository %lld)", (long long)same, (long long)per_repo);
	return rc;
}

enum err_code sched_why_queued(struct db_conn *conn, struct core *c, const struct task_row *t, struct strbuf *out, struct error *e)
{
	int64_t not_before = 0;
	bool held = false;
	enum err_code rc = db_number(conn, e, &not_before, "SELECT not_before FROM queue WHERE task=?1 AND boot=?2", "ss", t->id, clock_boot_id());
	if (!rc)
		rc = db_has(conn, e, &held, "SELECT 1 FROM runs WHERE task=?1 AND released=0", "s", t->id);
	if (rc)
		return rc;
	if (is_draining(c))
		strbuf_adds(out, "the server, which is draining");
	else if (!has_room(c))
		strbuf_addf(out, "disk space: less than %llu MiB are free in '%s'", (unsigned long long)(CLAIM_DISK_MIN_BYTES >> 20), c->data);
	else if (held)
		strbuf_adds(out, "the end of its last run's processes");
	else if (not_before > clock_mono_ms())
		strbuf_addf(out, "its next attempt, in %lld s", (long long)(not_before - clock_mono_ms() + 999) / 1000);
	else
		return why_limits(conn, c, t, out, e);
	return ERR_OK;
}

/* A long queue of short tasks must not keep the ticks waiting. */
static void *sched_main(void *arg)
{
	struct core *c = arg;
	int64_t next_tick = 0, next_ms = 0;
	while (wait_for_work(c, next_ms)) {
		next_ms = 0;
		while (may_claim(c) && claim_one(c, &next_ms))
			tick_when_due(c, &next_tick);
		tick_when_due(c, &next_tick);
	}
	return NULL;
}

enum err_code sched_start(struct core *c, struct error *e)
{
	int rc = pthread_create(&c->sched_thread, NULL, sched_main, c);
	if (rc)
		return error_set(e, ERR_IO, "start the scheduler's thread: %s", strerror(rc));
	c->sched_running = true;
	sched_ask(c);
	return ERR_OK;
}

void sched_stop(struct core *c)
{
	pthread_mutex_lock(&c->sched_lock);
	c->sched_stop = true;
	pthread_cond_signal(&c->sched_wake);
	pthread_mutex_unlock(&c->sched_lock);
	if (c->sched_running)
		pthread_join(c->sched_thread, NULL);
	c->sched_running = false;
}

void sched_ask(struct core *c)
{
	pthread_mutex_lock(&c->sched_lock);
	c->sched_asked = true;
	pthread_cond_signal(&c->sched_wake);
	pthread_mutex_unlock(&c->sched_lock);
}

void sched_ask_queued(struct core *c)
{
	pthread_mutex_lock(&c->sched_lock);
	if (!c->sched_full && !c->sched_asked) {
		c->sched_asked = true;
		pthread_cond_signal(&c->sched_wake);
	}
	pthread_mutex_unlock(&c->sched_lock);
}
