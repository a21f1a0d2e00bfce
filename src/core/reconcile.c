/* Reconcile: what should be is compared with what is (rows among each other, rows and runners, cgroups, work directories, task directories,
 * mounts), at start and every minute.  Each difference is mended or ended with the reason; what was found is counted and kept for a while. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/cache.h"
#include "core/inside.h"
#include "core/uploads.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RECONCILE_INTERVAL_MS 60000
#define FINDINGS_KEPT 100
#define KINDS_MAX 32
#define SWEEP_MAX 256 /* rows mended in one pass; the next pass takes the rest */
#define SAVED_MAX 65536
#define MOUNTS_MAX ((size_t)4 << 20)
#define GONE_PREFIX "gone-" /* of a work directory that is being removed */

struct finding {
	int64_t at;
	char *kind, *subject, *action;
};

struct saved {
	char task[ID_SIZE];
	int64_t bytes;
};

struct reconcile {
	struct core *core;
	pthread_t thread;
	struct saved *saved; /* of one pass; the thread's own */
	int saved_count;
	int64_t saved_bytes;
	char record[ID_SIZE]; /* the last one whose files were looked at; the thread's own */
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t wake;
	bool stop;
	struct finding findings[FINDINGS_KEPT];
	uint64_t found;
	struct { char *kind; uint64_t n; } counts[KINDS_MAX];
	int64_t last_at, last_ms;
};

void reconcile_found(struct core *c, const char *kind, const char *subject, const char *action)
{
	struct reconcile *r = c->reconcile;
	log_warn("reconcile: %s: %s: %s", kind, subject, action);
	pthread_mutex_lock(&r->lock);
	struct finding *f = &r->findings[r->found++ % FINDINGS_KEPT];
	free(f->kind);
	free(f->subject);
	free(f->action);
	*f = (struct finding){ clock_wall_ms(), mem_strdup(kind), mem_strdup(subject), mem_strdup(action) };
	for (int i = 0; i < KINDS_MAX; i++) {
		if (!r->counts[i].kind)
			r->counts[i].kind = mem_strdup(kind);
		if (str_eq(r->counts[i].kind, kind)) {
			r->counts[i].n++;
			break;
		}
	}
	pthread_mutex_unlock(&r->lock);
}

/* Ids that a query gives, taken out of the transaction before anything is done with them. */
struct ids {
	const char *sql;
	char id[SWEEP_MAX][ID_SIZE + 40];
	int n;
};

static enum err_code ids_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct ids *l = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, l->sql, &s, e);
	if (rc)
		return rc;
	while (l->n < SWEEP_MAX && !(rc = db_step(s, &row, e)) && row)
		snprintf(l->id[l->n++], sizeof(l->id[0]), "%s", db_text(s, 0));
	db_done(s);
	return rc;
}

struct mend {
	const char *id;
	struct outbox out;
};

static enum err_code requeue_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct mend *m = arg;
	return db_exec(conn, e, "INSERT OR IGNORE INTO queue(task,priority,repo,not_before,boot,expires_mono,expires_wall)"
		" SELECT id, priority, repo, 0, '', 0, 9223372036854775807 FROM tasks WHERE id=?1 AND phase='queued'", "s", m->id);
}

static enum err_code unqueue_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct mend *m = arg;
	return db_exec(conn, e, "DELETE FROM queue WHERE task=?1 AND NOT EXISTS (SELECT 1 FROM tasks WHERE id=?1 AND phase='queued')", "s", m->id);
}

#define WITHOUT_RUN "phase IN ('claimed','fetching','preparing','setup','running','collecting') AND run_n>0 AND NOT EXISTS" \
	" (SELECT 1 FROM runs WHERE runs.task=tasks.id AND runs.n=tasks.run_n AND " SQL_LIVE("runs.phase") ")"

/* Looked at again in the transaction that ends it: meanwhile it may have come right. */
static enum err_code end_task_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct mend *m = arg;
	bool still = false;
	enum err_code rc = db_has(conn, e, &still, "SELECT 1 FROM tasks WHERE id=?1 AND " WITHOUT_RUN, "s", m->id);
	if (rc || !still)
		return rc ? rc : error_set(e, ERR_CONFLICT, "it has come right");
	struct move move = { .to = PHASE_FAILED, .reason = "inconsistent", .error = "its run has ended and the task had not", .actor = SERVER_ACTOR };
	return task_move(conn, m->id, &move, &m->out, e);
}

static const struct {
	const char *kind, *sql, *action;
	db_op *mend;
} rows[] = {
	{ "queue_row_missing", "SELECT id FROM tasks WHERE phase='queued' AND id NOT IN (SELECT task FROM queue)", "queued again", requeue_op },
	{ "queue_row_stale", "SELECT task FROM queue WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE id=queue.task AND phase='queued')", "removed", unqueue_op },
	{ "task_without_run",
	  "SELECT id FROM tasks WHERE " WITHOUT_RUN,
	  "ended with the reason 'inconsistent'", end_task_op },
};

static void check_rows(struct core *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct error e = ERROR_INIT;
		struct ids *l = NEW(struct ids);
		l->sql = rows[i].sql;
		if (db_read(c->db, ids_op, l, &e))
			log_warn("reconcile: %s: %s", rows[i].kind, e.text);
		for (int n = 0; n < l->n; n++) {
			struct mend m = { .id = l->id[n], .out.core = c };
			if (db_write(c->db, rows[i].mend, &m, &e) == ERR_OK) {
				core_publish(c, &m.out);
				reconcile_found(c, rows[i].kind, m.id, rows[i].action);
			}
			outbox_release(&m.out);
		}
		free(l);
	}
}

struct lookup {
	const char *id;
	bool known, held, over;
	int64_t completed_at, run_n;
};

static enum err_code run_lookup_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct lookup *l = arg;
	struct db_stmt *s;
	enum err_code rc = db_prepare(conn, "SELECT released FROM runs WHERE id=?1", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, l->id);
	rc = db_step(s, &l->known, e);
	l->held = l->known && db_int(s, 0) == 0;
	db_done(s);
	return rc;
}

/* Other servers have cgroups here too: only what our rows know and have let go is removed. */
static void check_cgroup(void *ctx, const char *run_id)
{
	struct core *c = ctx;
	struct lookup l = { .id = run_id };
	if (db_read(c->db, run_lookup_op, &l, NULL) || !l.known || l.held)
		return;
	cgroup_remove_by_id(run_id);
	reconcile_found(c, "cgroup_left", run_id, "removed");
}

static enum err_code task_lookup_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct lookup *l = arg;
	struct db_stmt *s;
	enum err_code rc = db_prepare(conn, "SELECT phase, completed_at, EXISTS (SELECT 1 FROM runs WHERE task=tasks.id AND released=0), run_n FROM tasks WHERE id=?1", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, l->id);
	rc = db_step(s, &l->known, e);
	if (!rc && l->known) {
		enum phase p = PHASE_QUEUED;
		l->over = phase_from_name(db_text(s, 0), &p) && phase_is_terminal(p);
		l->completed_at = db_int(s, 1);
		l->held = db_int(s, 2) != 0;
		l->run_n = db_int(s, 3);
	}
	db_done(s);
	return rc;
}

/* work/<task>.<worker>: the hot workspace. Gone with its task; gone when the task is over and it was saved, or has been kept long enough. */
static const char *why_left(struct core *c, const char *name)
{
	AUTO_FREE char *task = mem_strndup(name, strcspn(name, "."));
	const char *worker = strchr(name, '.') ? strchr(name, '.') + 1 : "main";
	struct lookup l = { .id = task };
	if (!clock_is_id(task) || db_read(c->db, task_lookup_op, &l, NULL) || (l.known && (l.held || !l.over)))
		return NULL;
	bool old = l.completed_at + conf_limit(c->config, "workspace_age") < clock_wall_ms();
	if (l.known && !old && !launch_workspace_is_spare(c, task, worker, l.run_n))
		return NULL;
	return l.known ? "workspace_left" : "workspace_of_nobody";
}

/* Removes a workspace that nothing needs; what it was, or NULL when it stays. */
static const char *drop_work(struct core *c, const char *name)
{
	AUTO_FREE char *path = mem_printf("%s/work/%s", c->data, name);
	AUTO_FREE char *gone = mem_printf("%s/work/" GONE_PREFIX "%s", c->data, name);
	struct error e = ERROR_INIT;
	pthread_mutex_lock(&c->launching); /* nobody begins in it between the look and the renaming */
	const char *kind = why_left(c, name);
	bool taken = kind && rename(path, gone) == 0;
	pthread_mutex_unlock(&c->launching);
	if (taken && file_remove_tree(gone, &e))
		log_warn("workspace %s: %s", name, e.text);
	return taken ? kind : NULL;
}

void reconcile_workspace(struct core *c, const char *task)
{
	AUTO_FREE char *name = mem_printf("%s.main", task);
	AUTO_FREE char *path = mem_printf("%s/work/%s", c->data, name);
	if (file_exists(path)) /* a task that never ran has none, and need not wait for the lock */
		drop_work(c, name);
}

static void check_work(struct core *c, const char *name)
{
	if (str_starts(name, GONE_PREFIX)) { /* an earlier server had begun to remove it */
		AUTO_FREE char *path = mem_printf("%s/work/%s", c->data, name);
		struct error e = ERROR_INIT;
		if (file_remove_tree(path, &e))
			log_warn("reconcile: %s: %s", name, e.text);
		return;
	}
	const char *kind = drop_work(c, name);
	if (kind)
		reconcile_found(c, kind, name, "removed");
}

static void forget_saved(struct core *c, const char *task, const char *why)
{
	AUTO_FREE char *dir = mem_printf("%s/tasks/%s/agents/main/workspace", c->data, task);
	AUTO_FREE char *base = file_join(dir, "base.json");
	if (unlink(base) == 0 && file_remove_tree(dir, NULL) == ERR_OK)
		reconcile_found(c, "workspace_expired", task, why);
}

static void remember_saved(struct reconcile *r, const char *task, int64_t bytes)
{
	if (r->saved_count == SAVED_MAX)
		return; /* the next pass sees the rest */
	if (!r->saved)
		r->saved = mem_alloc(SAVED_MAX * sizeof(*r->saved));
	struct saved *s = &r->saved[r->saved_count++];
	memcpy(s->task, task, sizeof(s->task)); /* an id: check_task_dir has looked */
	s->bytes = bytes;
	r->saved_bytes += bytes;
}

/* What was saved of an ended task's workspace has its age, and its share of the space. */
static void check_saved(struct core *c, const char *task, const struct lookup *l)
{
	AUTO_FREE char *dir = mem_printf("%s/tasks/%s/agents/main/workspace", c->data, task);
	AUTO_FREE char *base = file_join(dir, "base.json");
	AUTO_FREE char *tar = file_join(dir, "layer.tar");
	struct stat st;
	if (!l->over || l->held || !file_exists(base))
		return;
	if (l->completed_at + conf_limit(c->config, "workspace_age") < clock_wall_ms())
		forget_saved(c, task, "the saved workspace was removed (limits.workspace_age)");
	else if (lstat(tar, &st) == 0)
		remember_saved(c->reconcile, task, st.st_size);
}

static int by_task(const void *a, const void *b)
{
	return strcmp(((const struct saved *)a)->task, ((const struct saved *)b)->task);
}

/* Ids are ordered by time: the oldest task's workspace goes first. */
static void check_saved_bytes(struct core *c)
{
	struct reconcile *r = c->reconcile;
	int64_t limit = conf_limit(c->config, "workspace_bytes");
	if (r->saved_count)
		qsort(r->saved, (size_t)r->saved_count, sizeof(*r->saved), by_task);
	for (int i = 0; i < r->saved_count && r->saved_bytes > limit; i++) {
		r->saved_bytes -= r->saved[i].bytes;
		forget_saved(c, r->saved[i].task, "the saved workspace was removed (limits.workspace_bytes)");
	}
	free(TAKE_PTR(r->saved));
	r->saved_count = 0;
	r->saved_bytes = 0;
}

static void check_task_dir(struct core *c, const char *task)
{
	struct lookup l = { .id = task };
	struct error e = ERROR_INIT;
	if (!clock_is_id(task) || db_read(c->db, task_lookup_op, &l, NULL))
		return;
	AUTO_FREE char *dir = core_task_dir(c, task);
	AUTO_FREE char *mark = file_join(dir, TASK_DELETED);
	if (l.known)
		check_saved(c, task, &l);
	if (l.known && l.over && !taskdir_is_whole(dir, l.completed_at))
		taskdir_dirty_whole(c, task); /* a server was killed before it had written the end */
	if (l.known)
		return;
	if (file_exists(mark) && file_remove_tree(dir, &e))
		reconcile_found(c, "task_directory_deleted", task, e.text);
	else if (!file_is_dir(dir))
		reconcile_found(c, "task_directory_deleted", task, "the rest was removed");
	else if (import_task(c, task, &e))
		reconcile_found(c, "task_directory_unknown", task, e.text);
	else
		reconcile_found(c, "task_directory_unknown", task, "imported");
}

static void each_entry(struct core *c, const char *below, void (*fn)(struct core *, const char *))
{
	AUTO_FREE char *path = file_join(c->data, below);
	DIR *d = opendir(path);
	for (struct dirent *entry; d && (entry = readdir(d));)
		if (entry->d_name[0] != '.')
			fn(c, entry->d_name);
	if (d)
		closedir(d);
}

/* Layers are mounted in the stages' own namespaces: one that shows here is somebody's mistake, and is told. */
static void check_mounts(struct core *c)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(MOUNTS_MAX);
	AUTO_FREE char *mark = mem_printf(" %s/work/", c->data);
	if (file_read("/proc/self/mountinfo", MOUNTS_MAX, &text, NULL) == ERR_OK && strstr(strbuf_str(&text), mark))
		reconcile_found(c, "mount_left", c->data, "a workspace is mounted in the server's own namespace");
}

static void pass(struct core *c)
{
	struct reconcile *r = c->reconcile;
	struct error e = ERROR_INIT;
	int64_t begun = clock_mono_ms();
	check_rows(c);
	if (reaper_adopt_all(c, &e))
		log_warn("reconcile: runners: %s", e.text);
	cgroup_list(c->uid, check_cgroup, c);
	each_entry(c, "tasks", check_task_dir); /* first: an imported task's workspace is somebody's again */
	check_saved_bytes(c);
	reconcile_records(c, r->record);
	each_entry(c, "work", check_work);
	uploads_sweep(c);
	check_mounts(c);
	cache_tick(c);
	pthread_mutex_lock(&r->lock);
	r->last_at = clock_wall_ms();
	r->last_ms = clock_mono_ms() - begun;
	pthread_mutex_unlock(&r->lock);
}

static bool wait_a_minute(struct reconcile *r)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += RECONCILE_INTERVAL_MS / 1000;
	pthread_mutex_lock(&r->lock);
	while (!r->stop)
		if (pthread_cond_timedwait(&r->wake, &r->lock, &until))
			break;
	bool go = !r->stop;
	pthread_mutex_unlock(&r->lock);
	return go;
}

static void *reconcile_main(void *arg)
{
	struct reconcile *r = arg;
	do
		pass(r->core);
	while (wait_a_minute(r));
	return NULL;
}

enum err_code reconcile_start(struct core *c, struct error *e)
{
	struct reconcile *r = NEW(struct reconcile);
	pthread_condattr_t attr;
	c->reconcile = r;
	r->core = c;
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->wake, &attr);
	pthread_condattr_destroy(&attr);
	int rc = pthread_create(&r->thread, NULL, reconcile_main, r);
	return rc ? error_set(e, ERR_IO, "start the reconciler's thread: %s", strerror(rc)) : ERR_OK;
}

void reconcile_stop(struct core *c)
{
	struct reconcile *r = c->reconcile;
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
	if (r->thread)
		pthread_join(r->thread, NULL);
	for (int i = 0; i < FINDINGS_KEPT; i++) {
		free(r->findings[i].kind);
		free(r->findings[i].subject);
		free(r->findings[i].action);
	}
	for (int i = 0; i < KINDS_MAX; i++)
		free(r->counts[i].kind);
	free(r);
	c->reconcile = NULL;
}

static struct js *findings_list(const struct reconcile *r)
{
	struct js *list = js_array();
	uint64_t first = r->found > FINDINGS_KEPT ? r->found - FINDINGS_KEPT : 0;
	for (uint64_t i = r->found; i-- > first;) {
		const struct finding *f = &r->findings[i % FINDINGS_KEPT];
		struct js *o = js_object();
		char at[RFC3339_SIZE];
		clock_rfc3339(f->at, at);
		js_set_str(o, "at", at);
		js_set_str(o, "kind", f->kind);
		js_set_str(o, "subject", f->subject);
		js_set_str(o, "action", f->action);
		js_push(list, o);
	}
	return list;
}

struct js *core_reconcile(struct core *c)
{
	struct reconcile *r = c->reconcile;
	struct js *o = js_object(), *counts = js_object(), *last = js_object();
	char at[RFC3339_SIZE];
	pthread_mutex_lock(&r->lock);
	clock_rfc3339(r->last_at, at);
	js_set(last, "at", r->last_at ? js_string(at) : js_null());
	js_set_int(last, "ms", r->last_ms);
	for (int i = 0; i < KINDS_MAX && r->counts[i].kind; i++)
		js_set_int(counts, r->counts[i].kind, (int64_t)r->counts[i].n);
	js_set(o, "last", last);
	js_set(o, "counts", counts);
	js_set(o, "findings", findings_list(r));
	pthread_mutex_unlock(&r->lock);
	return o;
}

void reconcile_metrics(struct core *c, struct strbuf *out)
{
	struct reconcile *r = c->reconcile;
	strbuf_adds(out, "# HELP signalbox_reconcile_findings_total Differences found between what should be and what is.\n"
		"# TYPE signalbox_reconcile_findings_total counter\n");
	pthread_mutex_lock(&r->lock);
	for (int i = 0; i < KINDS_MAX && r->counts[i].kind; i++)
		strbuf_addf(out, "signalbox_reconcile_findings_total{kind=\"%s\"} %llu\n", r->counts[i].kind, (unsigned long long)r->counts[i].n);
	pthread_mutex_unlock(&r->lock);
}
