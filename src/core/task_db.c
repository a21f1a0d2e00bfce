/* Rows of tasks, runs and events. */
#include "core/task_db.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/gate.h"
#include "core/feed.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AMBIGUOUS_LISTED 8
#define ID_BEGINNING_MIN 4 /* characters that stand for an id */
#define INTO_QUEUE "INTO queue(task,priority,repo,not_before,boot,expires_mono,expires_wall) VALUES(?1,?2,?3,?4,?5,?6,?7)"
#define LINE_FIRST_BYTES ((size_t)767) /* most events fit */

void outbox_release(struct outbox *o)
{
	for (size_t i = 0; i < o->count; i++)
		free(o->lines[i].line);
	free(o->lines);
	*o = (struct outbox){ 0 };
}

void task_row_release(struct task_row *t)
{
	free(t->name);
	free(t->project);
	free(t->repo);
	free(t->created_by);
	free(t->session_id);
	free(t->reason);
	free(t->error);
	free(t->progress);
	free(t->boot);
	free(t->turn_prompt);
	js_free(t->spec);
	js_free(t->labels);
	js_free(t->result);
	*t = (struct task_row){ 0 };
}

void run_row_release(struct run_row *r)
{
	free(r->id);
	free(r->task);
	free(r->worker);
	free(r->project);
	free(r->repo);
	free(r->token_hash);
	free(r->boot);
	free(r->reason);
	free(r->error);
	js_free(r->beat);
	js_free(r->result);
	*r = (struct run_row){ 0 };
}

static char *column_dup(struct db_stmt *s, int column)
{
	return mem_strdup(db_text(s, column));
}

struct js *column_js(struct db_stmt *s, int column)
{
	const char *text = db_text(s, column);
	return text ? js_parse(text, strlen(text), NULL) : NULL;
}

static enum phase column_phase(struct db_stmt *s, int column)
{
	enum phase p = PHASE_FAILED;
	phase_from_name(db_text(s, column), &p);
	return p;
}

enum err_code task_load(struct db_conn *c, const char *id, struct task_row *ret, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c,
		"SELECT id, name, project, repo, created_by, session_id, phase, spec, priority, labels, created_at, started_at,"
		" completed_at, last_seq, run_n, reason, error, progress, result, beat_at, cancel_asked, created_mono, boot, house_failures, agent_failures, turn, turn_prompt, waited_ms, waiting_since FROM tasks WHERE id=?1", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, id);
	rc = db_step(s, &row, e);
	if (!rc && !row)
		rc = error_set(e, ERR_NOT_FOUND, "no task '%s'", id);
	if (!rc) {
		*ret = (struct task_row){ .name = column_dup(s, 1), .project = column_dup(s, 2), .repo = column_dup(s, 3),
			.created_by = column_dup(s, 4), .session_id = column_dup(s, 5), .phase = column_phase(s, 6), .spec = column_js(s, 7),
			.priority = db_int(s, 8), .labels = column_js(s, 9), .created_at = db_int(s, 10), .started_at = db_int(s, 11),
			.completed_at = db_int(s, 12), .last_seq = db_int(s, 13), .run_n = db_int(s, 14), .reason = column_dup(s, 15),
			.error = column_dup(s, 16), .progress = column_dup(s, 17), .result = column_js(s, 18), .beat_at = db_int(s, 19),
			.cancel_asked = db_int(s, 20) != 0, .created_mono = db_int(s, 21), .boot = column_dup(s, 22), .house_failures = db_int(s, 23),
			.agent_failures = db_int(s, 24), .turn = db_int(s, 25), .turn_prompt = column_dup(s, 26), .waited_ms = db_int(s, 27), .waiting_since = db_int(s, 28) };
		snprintf(ret->id, sizeof(ret->id), "%s", db_text(s, 0));
	}
	db_done(s);
	return rc;
}

enum err_code run_load(struct db_conn *c, const char *id, struct run_row *ret, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c,
		"SELECT id, task, worker, project, repo, token_hash, boot, reason, error, phase, n, turn, attempt, pid, start_ticks,"
		" acked, exchanges, beat_at, created_at, ended_at, beat, result FROM runs WHERE id=?1", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, id);
	rc = db_step(s, &row, e);
	if (!rc && !row)
		rc = error_set(e, ERR_NOT_FOUND, "no run '%s'", id);
	if (!rc)
		*ret = (struct run_row){ .id = column_dup(s, 0), .task = column_dup(s, 1), .worker = column_dup(s, 2), .project = column_dup(s, 3),
			.repo = column_dup(s, 4), .token_hash = column_dup(s, 5), .boot = column_dup(s, 6), .reason = column_dup(s, 7),
			.error = column_dup(s, 8), .phase = column_phase(s, 9), .n = db_int(s, 10), .turn = db_int(s, 11), .attempt = db_int(s, 12),
			.pid = db_int(s, 13), .start_ticks = db_int(s, 14), .acked = db_int(s, 15), .exchanges = db_int(s, 16),
			.beat_at = db_int(s, 17), .created_at = db_int(s, 18), .ended_at = db_int(s, 19), .beat = column_js(s, 20),
			.result = column_js(s, 21) };
	db_done(s);
	return rc;
}

enum err_code run_find(struct db_conn *c, const char *project, const char *id, struct run_row *ret, struct error *e)
{
	AUTO_RUN struct run_row r = { 0 };
	enum err_code rc = run_load(c, id, &r, e);
	if (!rc && !project_has(project, r.project))
		rc = error_set(e, ERR_NOT_FOUND, "no run '%s'", id);
	if (rc)
		return rc;
	*ret = r;
	r = (struct run_row){ 0 };
	return ERR_OK;
}

static enum err_code find_by_name(struct db_conn *c, const char *project, const char *name, const char *repo, char ret_id[ID_SIZE], struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	int found = 0;
	AUTO_STRBUF struct strbuf ids = STRBUF_LIMIT(ERROR_HINT_MAX);
	enum err_code rc = db_prepare(c, "SELECT id, repo FROM tasks WHERE name=?1 AND (?2 IS NULL OR repo=?2) AND (project=?3 OR ?3='*') ORDER BY id DESC LIMIT 8", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, name);
	db_bind_text(s, 2, repo);
	db_bind_text(s, 3, project);
	while (!(rc = db_step(s, &row, e)) && row && found < AMBIGUOUS_LISTED) {
		if (found++ == 0)
			snprintf(ret_id, ID_SIZE, "%s", db_text(s, 0));
		strbuf_addf(&ids, "%s%s (%s)", ids.len ? ", " : "", db_text(s, 0), db_text(s, 1));
	}
	db_done(s);
	if (rc)
		return rc;
	if (!found)
		return error_set(e, ERR_NOT_FOUND, "no task '%s'", name);
	if (found > 1) {
		error_set(e, ERR_CONFLICT, "the name '%s' is used in %d repositories", name, found);
		error_hint(e, "use one of the ids: %s", strbuf_str(&ids));
		return ERR_CONFLICT;
	}
	return ERR_OK;
}

/* The beginning of an id stands for it as long as no other task's begins so. ERR_NOT_FOUND when it is no such beginning. */
static enum err_code find_by_beginning(struct db_conn *c, const char *project, const char *ref, char ret_id[ID_SIZE], struct error *e)
{
	AUTO_STRBUF struct strbuf ids = STRBUF_INIT;
	struct db_stmt *s;
	bool row = false;
	int found = 0;
	size_t n = strlen(ref);
	if (n < ID_BEGINNING_MIN || n >= ID_SIZE || !str_is_name(ref))
		return ERR_NOT_FOUND;
	AUTO_FREE char *end = mem_printf("%s~", ref);
	enum err_code rc = db_prepare(c, "SELECT id, COALESCE(name,'') FROM tasks WHERE id>=?1 AND id<?2 AND (project=?3 OR ?3='*') ORDER BY id", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, ref);
	db_bind_text(s, 2, end);
	db_bind_text(s, 3, project);
	while (found < AMBIGUOUS_LISTED && !(rc = db_step(s, &row, e)) && row) {
		snprintf(ret_id, ID_SIZE, "%s", db_text(s, 0));
		strbuf_addf(&ids, found++ ? ", %s%s%s" : "%s%s%s", db_text(s, 0), *db_text(s, 1) ? " " : "", db_text(s, 1));
	}
	db_done(s);
	if (rc || found == 1)
		return rc;
	if (!found)
		return ERR_NOT_FOUND;
	error_set(e, ERR_CONFLICT, "the ids of several tasks begin with '%s'", ref);
	error_hint(e, "write more of it: %s%s", strbuf_str(&ids), found == AMBIGUOUS_LISTED ? ", ..." : "");
	return ERR_CONFLICT;
}

enum err_code task_find(struct db_conn *c, const char *project, const char *ref, const char *repo, char ret_id[ID_SIZE], struct error *e)
{
	if (clock_is_id(ref)) {
		bool there = false;
		enum err_code rc = db_has(c, e, &there, "SELECT 1 FROM tasks WHERE id=?1 AND (project=?2 OR ?2='*')", "ss", ref, project);
		if (rc)
			return rc;
		if (there) {
			snprintf(ret_id, ID_SIZE, "%s", ref);
			return ERR_OK;
		}
	}
	enum err_code rc = find_by_name(c, project, ref, repo, ret_id, e);
	if (rc == ERR_NOT_FOUND) {
		struct error other = ERROR_INIT;
		enum err_code found = find_by_beginning(c, project, ref, ret_id, &other);
		if (found == ERR_OK)
			return ERR_OK;
		if (found != ERR_NOT_FOUND) {
			if (e)
				*e = other;
			return found;
		}
	}
	if (rc == ERR_CONFLICT || rc == ERR_NOT_FOUND)
		error_hint(e, "`signalbox ls` lists the tasks");
	return rc;
}

/* The queue's times are monotonic and hold for this boot: after another one a pause is over, and the wall clock decides what is too old. */
static enum err_code queue_insert(struct db_conn *c, const struct task_row *t, bool is_born, int64_t pause_ms, struct error *e)
{
	int64_t now = clock_mono_ms(), limit = js_i64(js_get(t->spec, "limits"), "queue_timeout", INT64_MAX / 4);
	/* Of a task that is born there is no row to replace; and FAIL as in task_insert. */
	return db_exec(c, e, is_born ? "INSERT OR FAIL " INTO_QUEUE : "INSERT OR REPLACE " INTO_QUEUE, "sisisii",
		t->id, t->priority, t->repo, now + pause_ms, clock_boot_id(), now + pause_ms + limit, clock_wall_ms() + pause_ms + limit);
}

/* The task's own clock: the wall's when it was made, then the monotonic one as long as that boot lasts.  Ages and waiting are told by the same, so that
 * no jump of the wall clock is in either. */
static int64_t task_clock_ms(const struct task_row *t)
{
	return str_eq(t->boot, clock_boot_id()) ? t->created_at + clock_mono_ms() - t->created_mono : clock_wall_ms();
}

int64_t task_age_ms(const struct task_row *t)
{
	int64_t now = task_clock_ms(t);
	int64_t waiting = t->phase == PHASE_WAITING_HUMAN && t->waiting_since ? now - t->waiting_since : 0;
	return now - t->created_at - t->waited_ms - (waiting > 0 ? waiting : 0);
}

struct event {
	const char *task, *type, *worker, *actor;
	int64_t seq, run_n, at;
};

/* All but its data, which is put last. */
static void put_event(struct js_put *p, const struct event *v)
{
	char when[RFC3339_SIZE];
	clock_rfc3339(v->at, when);
	js_put_int(p, "seq", v->seq);
	js_put_str(p, "at", when);
	js_put_str(p, "type", v->type);
	js_put_str(p, "task", v->task);
	js_put_str(p, "worker", v->worker);
	if (v->run_n)
		js_put_int(p, "run", v->run_n);
	else
		js_put(p, "run", NULL);
	js_put_str(p, "actor", v->actor);
}

static char *event_line(const struct event *v, const struct js *data)
{
	struct strbuf line = STRBUF_LIMIT(SIZE_MAX / 2);
	struct js_put p = { .text = &line };
	strbuf_reserve(&line, LINE_FIRST_BYTES);
	put_event(&p, v);
	js_put_map(&p, "data", data);
	js_put_end(&p);
	return strbuf_detach(&line);
}

static char *birth_line(const struct task_row *t)
{
	struct strbuf line = STRBUF_LIMIT(SIZE_MAX / 2);
	struct js_put p = { .text = &line };
	strbuf_reserve(&line, LINE_FIRST_BYTES);
	put_event(&p, &(struct event){ .task = t->id, .seq = 1, .type = "task.created", .actor = t->created_by, .at = t->created_at });
	struct js_put data = js_put_object(&p, "data");
	js_put_str(&data, "name", t->name);
	js_put(&data, "source", js_get(t->spec, "source"));
	js_put(&data, "agent", js_get(t->spec, "agent_name"));
	js_put_int(&data, "priority", t->priority);
	js_put_end(&data);
	js_put_end(&p);
	return strbuf_detach(&line);
}

enum err_code event_put(struct db_conn *c, const char *task, int64_t seq, int64_t at, const char *type, const char *line, int64_t *ret_n, struct error *e)
{
	enum err_code rc = db_exec(c, e, "INSERT INTO events(task,seq,at,type,line) VALUES(?1,?2,?3,?4,?5)", "siiss", task, seq, at, type, line);
	return rc ? rc : feed_add(c, task, seq, ret_n, e);
}

void task_birth_make(struct task_birth *b, const struct task_row *t)
{
	*b = (struct task_birth){ .row = t, .spec = js_dump(t->spec), .labels = js_dump(t->labels), .line = birth_line(t) };
}

void task_birth_release(struct task_birth *b)
{
	free(b->spec);
	free(b->labels);
	free(b->line);
}

enum err_code task_insert(struct db_conn *c, struct task_birth *b, struct error *e)
{
	const struct task_row *t = b->row;
	/* FAIL: the op is undone as a whole anyway, and a statement that undoes itself copies the pages that it touches. */
	enum err_code rc = db_exec(c, e,
		"INSERT OR FAIL INTO tasks(id,name,project,repo,created_by,session_id,phase,spec,priority,labels,created_at,created_mono,boot,last_seq,run_n)"
		" VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,1,0)", "ssssssssisiis", t->id, t->name, t->project, t->repo, t->created_by,
		t->session_id, phase_name(t->phase), b->spec, t->priority, b->labels, t->created_at, clock_mono_ms(), clock_boot_id());
	if (rc == ERR_CONFLICT) {
		error_set(e, ERR_CONFLICT, "the name '%s' is taken in this repository", t->name ? t->name : t->id);
		error_hint(e, "choose another name, or `signalbox rm %s` the old task", t->name ? t->name : t->id);
	}
	for (struct js_iter it = js_iter(t->labels); !rc && it.key; js_next(&it))
		rc = db_exec(c, e, "INSERT INTO task_labels(key,value,task) VALUES(?1,?2,?3)", "sss", it.key, js_text(it.value), t->id);
	if (!rc && t->phase == PHASE_QUEUED)
		rc = queue_insert(c, t, true, 0, e);
	return rc ? rc : event_put(c, t->id, 1, t->created_at, "task.created", b->line, &b->n, e);
}

static enum err_code next_seq(struct db_conn *c, const char *task, int64_t *ret, char ret_project[PROJECT_SIZE], struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, "UPDATE tasks SET last_seq=last_seq+1 WHERE id=?1 RETURNING last_seq, project", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, task);
	rc = db_step(s, &row, e);
	if (!rc && !row)
		rc = error_set(e, ERR_NOT_FOUND, "no task '%s'", task);
	if (!rc) {
		*ret = db_int(s, 0);
		snprintf(ret_project, PROJECT_SIZE, "%s", db_text(s, 1));
	}
	db_done(s);
	return rc;
}

static void outbox_put(struct outbox *o, const char *project, const char *task, int64_t seq, int64_t n, char *line_taken)
{
	if (o->count == o->cap) {
		o->cap = o->cap ? o->cap * 2 : 8;
		o->lines = mem_grow(o->lines, o->cap * sizeof(*o->lines));
	}
	struct outbox_line *l = &o->lines[o->count++];
	snprintf(l->task, sizeof(l->task), "%s", task);
	snprintf(l->project, sizeof(l->project), "%s", project);
	l->seq = seq;
	l->n = n;
	l->line = line_taken;
}

void outbox_add_birth(struct outbox *o, const struct task_birth *b)
{
	outbox_put(o, b->row->project, b->row->id, 1, b->n, mem_strdup(b->line));
}

enum err_code event_add(struct db_conn *c, const char *task, const char *type, const char *worker, int64_t run_n,
	const char *actor, int64_t at, struct js *data_taken, struct outbox *out, struct error *e)
{
	char project[PROJECT_SIZE];
	int64_t seq = 0, n = 0;
	enum err_code rc = next_seq(c, task, &seq, project, e);
	if (rc) {
		js_free(data_taken);
		return rc;
	}
	char *line = event_line(&(struct event){ task, type, worker, actor, seq, run_n, at }, data_taken);
	js_free(data_taken);
	rc = event_put(c, task, seq, at, type, line, &n, e);
	if (rc)
		free(line);
	else
		outbox_put(out, project, task, seq, n, line);
	return rc;
}

static struct js *move_data(enum phase from, const struct move *m)
{
	struct js *d = js_object();
	js_set_str(d, "from", phase_name(from));
	js_set_str(d, "to", phase_name(m->to));
	js_set_str(d, "reason", m->reason);
	js_set_str(d, "error", m->error);
	return d;
}

static enum err_code task_done_event(struct db_conn *c, const char *id, const struct move *m, int64_t now, struct outbox *out, struct error *e)
{
	struct js *d = js_object();
	js_set_str(d, "status", phase_status(m->to));
	js_set_str(d, "reason", m->reason);
	js_set_str(d, "error", m->error);
	return event_add(c, id, phase_is_terminal(m->to) ? "task.done" : "task.waiting", NULL, 0, m->actor, now, d, out, e);
}

/* People's time does not count against the task's. */
static enum err_code count_waiting(struct db_conn *c, const struct task_row *t, bool begins, struct error *e)
{
	int64_t now = task_clock_ms(t);
	if (begins)
		return db_exec(c, e, "UPDATE tasks SET waiting_since=COALESCE(waiting_since, ?2) WHERE id=?1", "si", t->id, now);
	int64_t waited = t->waiting_since && now > t->waiting_since ? now - t->waiting_since : 0;
	return db_exec(c, e, "UPDATE tasks SET waited_ms=waited_ms+?2, waiting_since=NULL WHERE id=?1", "si", t->id, waited);
}

static enum err_code set_phase(struct db_conn *c, const struct task_row *t, const struct move *m, int64_t now, struct error *e)
{
	bool ends = phase_is_terminal(m->to);
	enum err_code rc = db_exec(c, e,
		"UPDATE tasks SET phase=?2, reason=?3, error=?4, completed_at=CASE WHEN ?5 THEN ?6 ELSE NULL END,"
		" started_at=CASE WHEN ?7 AND started_at IS NULL THEN ?6 ELSE started_at END WHERE id=?1 AND phase=?8", "ssssiiis",
		t->id, phase_name(m->to), m->reason, m->error, (int64_t)ends, now, (int64_t)(m->to == PHASE_CLAIMED), phase_name(t->phase));
	if (!rc && (m->to == PHASE_WAITING_HUMAN || t->phase == PHASE_WAITING_HUMAN))
		rc = count_waiting(c, t, m->to == PHASE_WAITING_HUMAN, e);
	if (!rc && m->to == PHASE_QUEUED)
		return queue_insert(c, t, false, m->pause_ms, e);
	return rc ? rc : db_exec(c, e, "DELETE FROM queue WHERE task=?1", "s", t->id);
}

enum err_code task_move(struct db_conn *c, const char *id, const struct move *m, struct outbox *out, struct error *e)
{
	AUTO_TASK struct task_row t = { 0 };
	int64_t now = m->at ? m->at : clock_wall_ms();
	enum err_code rc = task_load(c, id, &t, e);
	if (!rc && t.phase == PHASE_WAITING_HUMAN && m->to == PHASE_WAITING_HUMAN)
		return ERR_OK; /* its run has died, or asks once more: it goes on waiting */
	if (!rc)
		rc = m->reopen ? state_reopen_check(t.phase, e) : state_move_check(t.phase, m->to, e);
	/* Nobody waits for the answer any more. While the run is being collected it is not said yet: a run that was killed keeps its gates. */
	if (!rc && (phase_is_terminal(m->to) || m->to == PHASE_QUEUED))
		rc = gate_cancel_open(c, t.id, m->actor, out, e);
	if (!rc && (phase_is_terminal(m->to) || m->to == PHASE_WAITING_HUMAN))
		rc = task_done_event(c, id, m, now, out, e);
	if (!rc)
		rc = set_phase(c, &t, m, now, e);
	return rc ? error_wrap(e, "task %s", id) : ERR_OK;
}

static enum err_code run_ended_event(struct db_conn *c, const struct run_row *r, const struct move *m, int64_t now, struct outbox *out, struct error *e)
{
	struct js *d = js_object();
	js_set_str(d, "outcome", phase_name(m->to));
	js_set_str(d, "reason", m->reason);
	js_set_str(d, "error", m->error);
	return event_add(c, r->task, "run.ended", r->worker, r->n, m->actor, now, d, out, e);
}

enum err_code run_move(struct db_conn *c, const char *run_id, const struct move *m, enum phase task_to, struct outbox *out, struct error *e)
{
	AUTO_RUN struct run_row r = { 0 };
	int64_t now = m->at ? m->at : clock_wall_ms();
	bool ends = phase_is_terminal(m->to);
	enum err_code rc = run_load(c, run_id, &r, e);
	if (!rc)
		rc = state_move_check(r.phase, m->to, e);
	if (!rc)
		rc = event_add(c, r.task, "run.phase", r.worker, r.n, m->actor, now, move_data(r.phase, m), out, e);
	if (!rc)
		rc = db_exec(c, e,
			"UPDATE runs SET phase=?2, reason=?3, error=?4, ended_at=CASE WHEN ?5 THEN ?6 ELSE ended_at END WHERE id=?1",
			"ssssii", run_id, phase_name(m->to), m->reason, m->error, (int64_t)ends, now);
	if (!rc && ends)
		rc = run_ended_event(c, &r, m, now, out, e);
	struct move task = *m;
	task.to = task_to;
	return rc ? rc : task_move(c, r.task, &task, out, e);
}
