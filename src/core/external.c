/* External tasks: the table of those that live, and their silence. */
#include "core/external.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/external_inside.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024
#define OVERDUE_MAX 64	/* ended in one tick; the next takes the rest */
#define FLUSH_MAX 1024	/* beats written in one transaction */
#define FINDINGS_KEPT 64

struct external {
	struct external *next; /* in its bucket */
	char id[ID_SIZE];
	char *project, *name, *session, *file;
	int64_t beat_mono, beat_wall;
	bool dirty;	/* the row does not have the beat yet */
	bool interrupt; /* somebody asked it to end */
	bool ending;	/* its silence was too long; being written */
};

struct externals {
	pthread_mutex_t lock; /* guards the rest */
	struct external *buckets[BUCKETS];
	size_t count;
	struct js *findings;
	uint64_t findings_total;
	struct external_files *files;
	int64_t next_scan;
};

/* --- the table */

static struct external **bucket_of(struct externals *x, const char *id)
{
	unsigned h = 5381;
	for (; *id; id++)
		h = h * 33 + (unsigned char)*id;
	return &x->buckets[h % BUCKETS];
}

/* With the lock held, as the next one. */
static struct external *find(struct externals *x, const char *id)
{
	struct external *t = *bucket_of(x, id);
	while (t && !str_eq(t->id, id))
		t = t->next;
	return t;
}

/* Of several with one name (in different repositories) the session decides. */
static struct external *find_ref(struct externals *x, const char *project, const char *ref, const char *session)
{
	struct external *found = NULL;
	for (size_t i = 0; !found && i < BUCKETS; i++)
		for (struct external *t = x->buckets[i]; t && !found; t = t->next)
			if (project_has(project, t->project) && (str_eq(t->id, ref) || str_eq(t->name, ref)) && (!session || str_eq(t->session, session)))
				found = t;
	return found;
}

static void external_free(struct external *t)
{
	free(t->project);
	free(t->name);
	free(t->session);
	free(t->file);
	free(t);
}

void external_know(struct core *c, const char *project, const char *id, const char *name, const char *session, const char *file, int64_t age_ms)
{
	struct externals *x = c->externals;
	struct external *t = NEW(struct external);
	snprintf(t->id, sizeof(t->id), "%s", id);
	t->project = mem_strdup(project);
	t->name = mem_strdup(name);
	t->session = mem_strdup(session);
	t->file = mem_strdup(file);
	t->beat_mono = clock_mono_ms() - age_ms;
	t->beat_wall = clock_wall_ms() - age_ms;
	pthread_mutex_lock(&x->lock);
	t->next = *bucket_of(x, id);
	*bucket_of(x, id) = t;
	x->count++;
	pthread_mutex_unlock(&x->lock);
}

static void beat(struct external *t, int64_t age_ms)
{
	t->beat_mono = clock_mono_ms() - age_ms;
	t->beat_wall = clock_wall_ms() - age_ms;
	t->dirty = true;
}

void external_beat(struct core *c, const char *id, int64_t age_ms)
{
	struct externals *x = c->externals;
	pthread_mutex_lock(&x->lock);
	struct external *t = find(x, id);
	if (t && !t->ending)
		beat(t, age_ms);
	pthread_mutex_unlock(&x->lock);
}

enum heard external_hear(struct core *c, const char *project, const char *ref, const char *session, char ret_id[ID_SIZE], char **ret_name, bool *ret_interrupt)
{
	struct externals *x = c->externals;
	enum heard heard = HEARD_NOBODY;
	pthread_mutex_lock(&x->lock);
	struct external *t = find_ref(x, project, ref, session);
	if (t && t->file) {
		heard = HEARD_OF_FILE;
	} else if (t && !t->ending) {
		heard = HEARD;
		beat(t, 0);
		memcpy(ret_id, t->id, ID_SIZE);
		*ret_name = mem_strdup(t->name);
		*ret_interrupt = t->interrupt;
	}
	pthread_mutex_unlock(&x->lock);
	return heard;
}

void external_forget(struct core *c, const char *id)
{
	struct externals *x = c->externals;
	pthread_mutex_lock(&x->lock);
	struct external **at = bucket_of(x, id);
	while (*at && !str_eq((*at)->id, id))
		at = &(*at)->next;
	struct external *t = *at;
	if (t) {
		*at = t->next;
		x->count--;
		external_free(t);
	}
	pthread_mutex_unlock(&x->lock);
}

bool external_is_known(struct core *c, const char *id)
{
	bool ignored;
	return core_external_look(c, id, &ignored);
}

size_t external_count(struct core *c)
{
	struct externals *x = c->externals;
	pthread_mutex_lock(&x->lock);
	size_t n = x->count;
	pthread_mutex_unlock(&x->lock);
	return n;
}

bool core_external_look(struct core *c, const char *task_id, bool *ret_interrupt)
{
	struct externals *x = c->externals;
	pthread_mutex_lock(&x->lock);
	const struct external *t = find(x, task_id);
	*ret_interrupt = t && t->interrupt;
	pthread_mutex_unlock(&x->lock);
	return t != NULL;
}

void external_asked_to_end(struct core *c, const char *task_id)
{
	struct externals *x = c->externals;
	pthread_mutex_lock(&x->lock);
	struct external *t = find(x, task_id);
	if (t)
		t->interrupt = true;
	pthread_mutex_unlock(&x->lock);
}

void external_found(struct core *c, const char *file, const char *finding)
{
	struct externals *x = c->externals;
	log_warn("state file %s: %s", file, finding);
	struct js *o = js_object();
	js_set_str(o, "file", file);
	js_set_str(o, "finding", finding);
	pthread_mutex_lock(&x->lock);
	x->findings_total++;
	if (js_len(x->findings) < FINDINGS_KEPT)
		js_push(x->findings, o);
	else
		js_free(o);
	pthread_mutex_unlock(&x->lock);
}

static struct js *external_to_js(const struct external *t)
{
	struct js *o = js_object();
	js_set_str(o, "task", t->id);
	js_set_str(o, "taskId", t->name);
	js_set_str(o, "sessionId", t->session);
	js_set(o, "file", js_string(t->file));
	js_set_int(o, "silent_ms", clock_mono_ms() - t->beat_mono);
	js_set_bool(o, "interrupt", t->interrupt);
	return o;
}

struct js *core_externals(struct core *c, struct caller by)
{
	struct externals *x = c->externals;
	struct js *o = js_object(), *data = js_array();
	bool files = project_has(by.project, PROJECT_DEFAULT);
	if (files)
		external_files_look(x->files);
	pthread_mutex_lock(&x->lock);
	for (size_t i = 0; i < BUCKETS; i++)
		for (const struct external *t = x->buckets[i]; t; t = t->next)
			if (project_has(by.project, t->project))
				js_push(data, external_to_js(t));
	js_set(o, "data", data);
	js_set(o, "findings", files ? js_copy(x->findings) : js_array());
	js_set_int(o, "findings_total", files ? (int64_t)x->findings_total : 0);
	pthread_mutex_unlock(&x->lock);
	return o;
}

void external_metrics(struct core *c, struct strbuf *out)
{
	struct externals *x = c->externals;
	if (!x)
		return;
	pthread_mutex_lock(&x->lock);
	size_t live = x->count;
	uint64_t findings = x->findings_total;
	pthread_mutex_unlock(&x->lock);
	strbuf_addf(out, "# HELP signalbox_external_tasks Live tasks that Signalbox did not start.\n# TYPE signalbox_external_tasks gauge\n"
		"signalbox_external_tasks %zu\n", live);
	strbuf_addf(out, "# HELP signalbox_state_file_findings_total State files of other programs that could not be followed.\n"
		"# TYPE signalbox_state_file_findings_total counter\nsignalbox_state_file_findings_total %llu\n", (unsigned long long)findings);
}

/* --- silence */

struct beats {
	struct { char id[ID_SIZE]; int64_t wall; } list[FLUSH_MAX];
	size_t n;
};

static enum err_code beats_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct beats *b = arg;
	enum err_code rc = ERR_OK;
	for (size_t i = 0; !rc && i < b->n; i++)
		rc = db_exec(conn, e, "UPDATE tasks SET beat_at=?2 WHERE id=?1", "si", b->list[i].id, b->list[i].wall);
	return rc;
}

/* What was heard since the last tick, in one transaction. */
static void flush_beats(struct core *c)
{
	struct externals *x = c->externals;
	struct beats *b = NEW(struct beats);
	struct error e = ERROR_INIT;
	pthread_mutex_lock(&x->lock);
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct external *t = x->buckets[i]; t && b->n < FLUSH_MAX; t = t->next)
			if (t->dirty) {
				t->dirty = false;
				memcpy(b->list[b->n].id, t->id, ID_SIZE);
				b->list[b->n++].wall = t->beat_wall;
			}
	pthread_mutex_unlock(&x->lock);
	if (b->n && db_write(c->db, beats_op, b, &e))
		log_warn("beats of external tasks: %s", e.text);
	for (size_t i = 0; i < b->n; i++)
		taskdir_dirty(c, b->list[i].id);
	free(b);
}

struct overdue {
	const char *id;
	char *text;
	struct outbox out;
};

static enum err_code lost_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct overdue *o = arg;
	struct external_end end = { .to = PHASE_LOST, .reason = "heartbeat_timeout", .error = o->text };
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_load(conn, o->id, &t, e);
	return rc || phase_is_terminal(t.phase) ? rc : external_finish(conn, o->id, &end, SERVER_ACTOR, &o->out, e);
}

static void set_ending(struct core *c, const char *id, bool ending)
{
	struct externals *x = c->externals;
	pthread_mutex_lock(&x->lock);
	struct external *t = find(x, id);
	if (t)
		t->ending = ending;
	pthread_mutex_unlock(&x->lock);
}

static void end_overdue(struct core *c, const char *id, int64_t limit_ms)
{
	struct error e = ERROR_INIT;
	struct overdue o = { .id = id, .text = mem_printf("the agent gave no sign of life for longer than %lld s (limits.heartbeat_timeout)", (long long)(limit_ms / 1000)) };
	enum err_code rc = db_write(c->db, lost_op, &o, &e);
	if (rc && rc != ERR_NOT_FOUND) {
		log_error("external task %s: %s", id, e.text);
		set_ending(c, id, false); /* the next tick tries again */
	} else {
		external_forget(c, id);
		core_publish(c, &o.out);
		atomic_fetch_add(&c->lost, 1);
	}
	outbox_release(&o.out);
	free(o.text);
}

static size_t take_overdue(struct externals *x, int64_t limit_ms, char ret[OVERDUE_MAX][ID_SIZE])
{
	int64_t oldest = clock_mono_ms() - limit_ms;
	size_t n = 0;
	pthread_mutex_lock(&x->lock);
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct external *t = x->buckets[i]; t && n < OVERDUE_MAX; t = t->next)
			if (!t->ending && t->beat_mono < oldest) {
				t->ending = true;
				memcpy(ret[n++], t->id, ID_SIZE);
			}
	pthread_mutex_unlock(&x->lock);
	return n;
}

void external_tick(struct core *c)
{
	struct externals *x = c->externals;
	char overdue[OVERDUE_MAX][ID_SIZE];
	int64_t limit_ms = conf_limit(c->config, "heartbeat_timeout");
	size_t n = take_overdue(x, limit_ms, overdue);
	flush_beats(c);
	for (size_t i = 0; i < n; i++)
		end_overdue(c, overdue[i], limit_ms);
	if (clock_mono_ms() >= x->next_scan) {
		x->next_scan = clock_mono_ms() + EXTERNAL_SCAN_MS;
		external_files_look(x->files);
	}
}

/* --- the beginning and the end */

static enum err_code load_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct core *c = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn,
		"SELECT id, name, session_id, spec, cancel_asked, project FROM tasks WHERE " SQL_LIVE("phase") " AND phase<>'queued' AND run_n=0", &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row) {
		const char *text = db_text(s, 3);
		AUTO_JS struct js *spec = js_parse(text, strlen(text), NULL);
		const struct js *external = js_get(spec, "external");
		if (!external)
			continue;
		external_know(c, db_text(s, 5), db_text(s, 0), db_text(s, 1), db_text(s, 2), js_str(external, "file"), 0); /* a whole new limit */
		if (db_int(s, 4))
			external_asked_to_end(c, db_text(s, 0));
		taskdir_dirty(c, db_text(s, 0));
	}
	db_done(s);
	return rc;
}

enum err_code external_start(struct core *c, struct error *e)
{
	struct externals *x = NEW(struct externals);
	c->externals = x;
	x->findings = js_array();
	pthread_mutex_init(&x->lock, NULL);
	enum err_code rc = db_read(c->db, load_op, c, e);
	return rc ? rc : external_files_start(c, &x->files, e);
}

void external_stop(struct core *c)
{
	struct externals *x = c->externals;
	if (!x)
		return;
	external_files_stop(x->files);
	for (size_t i = 0; i < BUCKETS; i++)
		while (x->buckets[i]) {
			struct external *t = x->buckets[i];
			x->buckets[i] = t->next;
			external_free(t);
		}
	js_free(x->findings);
	pthread_mutex_destroy(&x->lock);
	free(x);
	c->externals = NULL;
}
