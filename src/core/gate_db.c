/* Gates as rows. */
#include "agent/decision.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/gate.h"
#include "core/inside.h"
#include "core/talk.h"
#include <stdio.h>
#include <string.h>

#define DECIDED_MAX 50 /* told to a next attempt; the newest */
#define OPEN_PER_TASK_MAX 256

void gate_row_release(struct gate_row *g)
{
	char *owned[] = { g->task, g->run, g->request, g->kind, g->state, g->actor, g->name, g->boot, g->project };
	for (size_t i = 0; i < ARRAY_SIZE(owned); i++)
		free(owned[i]);
	js_free(g->data);
	js_free(g->decision);
	*g = (struct gate_row){ 0 };
}

enum err_code gate_load(struct db_conn *c, const char *id, struct gate_row *ret, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c,
		"SELECT g.id, g.task, g.run, g.request, g.kind, g.state, g.actor, t.name, g.boot, g.data, g.decision, g.turn, g.created_at, g.settled_at,"
		" g.delivered_at, g.deadline_at, g.deadline_mono, t.project FROM gates g JOIN tasks t ON t.id=g.task WHERE g.id=?1", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, id);
	rc = db_step(s, &row, e);
	if (!rc && !row)
		rc = error_set(e, ERR_NOT_FOUND, "no gate '%.80s'", id);
	if (!rc) {
		*ret = (struct gate_row){ .task = mem_strdup(db_text(s, 1)), .run = mem_strdup(db_text(s, 2)), .request = mem_strdup(db_text(s, 3)),
			.kind = mem_strdup(db_text(s, 4)), .state = mem_strdup(db_text(s, 5)), .actor = mem_strdup(db_text(s, 6)), .name = mem_strdup(db_text(s, 7)),
			.boot = mem_strdup(db_text(s, 8)), .data = column_js(s, 9), .decision = column_js(s, 10), .turn = db_int(s, 11), .created_at = db_int(s, 12),
			.settled_at = db_int(s, 13), .delivered_at = db_int(s, 14), .deadline_at = db_int(s, 15), .deadline_mono = db_int(s, 16), .project = mem_strdup(db_text(s, 17)) };
		snprintf(ret->id, sizeof(ret->id), "%s", db_text(s, 0));
	}
	db_done(s);
	return rc;
}

enum err_code gate_find(struct db_conn *c, const char *project, const char *id, struct gate_row *ret, struct error *e)
{
	enum err_code rc = gate_load(c, id, ret, e);
	if (rc || project_has(project, ret->project))
		return rc;
	gate_row_release(ret);
	return error_set(e, ERR_NOT_FOUND, "no gate '%.80s'", id);
}

enum err_code gate_count(struct db_conn *c, const struct run_row *r, int64_t *ret_blocked, int64_t *ret_undelivered, struct error *e)
{
	enum err_code rc = db_number(c, e, ret_blocked, "SELECT COUNT(*) FROM gates WHERE run=?1 AND request IS NOT NULL AND state='blocked'", "s", r->id);
	/* An abort, and a time that was up, have ended the turn: nobody has to be started to hear that. */
	return rc ? rc : db_number(c, e, ret_undelivered, "SELECT COUNT(*) FROM gates g JOIN runs r ON r.id=?1 WHERE g.task=r.task AND g.turn=r.turn AND g.request IS NOT NULL"
		" AND g.state IN ('approved','rejected','answered','expired') AND g.delivered_at IS NULL AND g.decision IS NOT NULL"
		" AND json_extract(g.decision,'$.decision')<>'abort' AND COALESCE(json_extract(g.decision,'$.then'),'')<>'fail'", "s", r->id);
}

enum err_code task_has_live_run(struct db_conn *c, const struct task_row *t, bool *ret, struct error *e)
{
	AUTO_RUN struct run_row r = { 0 };
	AUTO_FREE char *id = mem_printf("%s.main.%lld", t->id, (long long)t->run_n);
	*ret = false;
	if (!t->run_n)
		return ERR_OK;
	enum err_code rc = run_load(c, id, &r, e);
	*ret = !rc && !phase_is_terminal(r.phase);
	return rc == ERR_NOT_FOUND ? ERR_OK : rc;
}

enum err_code command_add(struct db_conn *c, const char *run, const char *kind, const struct js *data, const char *actor, struct error *e)
{
	AUTO_FREE char *text = data ? js_dump(data) : mem_strdup("{}");
	return db_exec(c, e, "INSERT INTO commands(run,n,kind,data,created_at,actor) SELECT ?1, COALESCE(MAX(n),0)+1, ?2, ?3, ?4, ?5 FROM commands WHERE run=?1",
		"sssis", run, kind, text, clock_wall_ms(), actor);
}

/* The deadline on this boot's clock: as the runner knows it (it says so for us alone), which no jump of the wall clock moves. */
static int64_t deadline_mono(const struct js *data, int64_t deadline)
{
	const struct js *known = js_get(data, "deadline_clock");
	if (str_eq(js_str(known, "boot"), clock_boot_id()))
		return js_i64(known, "mono", 0);
	return clock_mono_ms() + (deadline - clock_wall_ms());
}

enum err_code gate_open(struct db_conn *c, const struct run_row *r, const struct js *data, int64_t at, struct outbox *out, struct error *e)
{
	const char *id = js_str_or(data, "gate", ""), *kind = js_str_or(data, "kind", ""), *until = js_str(data, "deadline_at");
	bool there = false;
	int64_t open = 0, deadline = until ? clock_parse_rfc3339(until) : -1;
	if (!clock_is_id(id) || !kind[0])
		return error_set(e, ERR_INVALID, "gate.blocked: '%.40s' is not a gate of kind '%.40s'", id, kind);
	enum err_code rc = db_number(c, e, &open, "SELECT COUNT(*) FROM gates WHERE task=?1 AND state='blocked'", "s", r->task);
	if (!rc)
		rc = db_has(c, e, &there, "SELECT 1 FROM gates WHERE id=?1", "s", id);
	if (!rc && open >= OPEN_PER_TASK_MAX)
		rc = error_set(e, ERR_INVALID, "gate.blocked: %d gates of the task are open already", OPEN_PER_TASK_MAX);
	if (rc || there)
		return rc;
	AUTO_JS struct js *asked = js_copy(data);
	js_del(asked, "deadline_clock");
	AUTO_FREE char *text = js_dump(asked);
	rc = db_exec(c, e, "INSERT INTO gates(id,task,run,request,kind,state,data,created_at,turn) VALUES(?1,?2,?3,?4,?5,'blocked',?6,?7,?8)", "ssssssii",
		id, r->task, r->id, js_str(data, "request"), kind, text, at, r->turn);
	if (!rc && deadline > 0)
		rc = db_exec(c, e, "UPDATE gates SET deadline_at=?2, deadline_mono=?3, boot=?4 WHERE id=?1", "siis", id, deadline, deadline_mono(data, deadline),
			clock_boot_id());
	return rc ? rc : event_add(c, r->task, "gate.blocked", r->worker, r->n, "runner", at, js_ref(asked), out, e);
}

static void hide(struct js *answers, const char *question)
{
	struct js *stars = js_array();
	js_push_str(stars, "***");
	js_set(answers, question, stars);
}

struct js *gate_decision_shown(const struct js *data, const struct js *decision)
{
	const struct js *questions = js_get(data, "questions");
	struct js *shown = js_copy(decision), *answers = js_get(shown, "answers");
	for (size_t i = 0; answers && i < js_len(questions); i++)
		if (js_flag(js_at(questions, i), "secret", false) && js_str(js_at(questions, i), "id"))
			hide(answers, js_str(js_at(questions, i), "id"));
	return shown;
}

static enum err_code settled_event(struct db_conn *c, const struct gate_row *g, const struct js *decision, const char *state, struct outbox *out, struct error *e)
{
	AUTO_RUN struct run_row r = { 0 };
	enum err_code rc = g->run ? run_load(c, g->run, &r, e) : ERR_OK;
	if (rc)
		return rc;
	AUTO_FREE char *type = mem_printf("gate.%s", state);
	struct js *data = js_object();
	js_set_str(data, "gate", g->id);
	js_set_str(data, "kind", g->kind);
	js_set(data, "decision", gate_decision_shown(g->data, decision));
	int64_t at = clock_parse_rfc3339(js_str_or(decision, "at", ""));
	return event_add(c, g->task, type, r.worker, r.n, js_str_or(decision, "actor", SERVER_ACTOR), at > 0 ? at : clock_wall_ms(), data, out, e);
}

enum err_code task_has_open_gate(struct db_conn *c, const char *task, bool *ret, struct error *e)
{
	return db_has(c, e, ret, "SELECT 1 FROM gates WHERE task=?1 AND state='blocked' LIMIT 1", "s", task);
}

/* A gate was closed by its file, and what closed it was killed before its commit: the end of a task that waits is made up for; what an agent has taken
 * back leaves its task another attempt. */
static enum err_code closed(struct db_conn *c, const struct task_row *t, const struct js *decision, struct outbox *out, struct error *e)
{
	const char *who = js_str_or(decision, "actor", SERVER_ACTOR);
	struct move end = { .to = PHASE_CANCELED, .reason = "canceled", .actor = who }, again = { .to = PHASE_QUEUED, .actor = who };
	bool open = false;
	enum err_code rc = task_has_open_gate(c, t->id, &open, e);
	return rc || open ? rc : task_move(c, t->id, str_eq(who, "agent") ? &again : &end, out, e);
}

/* Its run lives: it gets the decision.  Else the task goes on when nothing is open any more. */
static enum err_code pass_on(struct db_conn *c, const struct gate_row *g, const struct js *decision, struct outbox *out, struct error *e)
{
	AUTO_TASK struct task_row t = { 0 };
	bool live = false, canceled = str_eq(js_str(decision, "decision"), "cancel");
	enum err_code rc = task_load(c, g->task, &t, e);
	if (!rc)
		rc = task_has_live_run(c, &t, &live, e);
	if (rc || (live && canceled))
		return rc;
	if (!live && t.phase != PHASE_WAITING_HUMAN)
		return ERR_OK;
	if (!live)
		return canceled ? closed(c, &t, decision, out, e) : talk_go_on(c, &t, g, decision, out, e);
	AUTO_JS struct js *data = js_object();
	js_set_str(data, "gate", g->id);
	js_set(data, "decision", js_ref(decision));
	AUTO_FREE char *run = mem_printf("%s.main.%lld", t.id, (long long)t.run_n);
	return command_add(c, run, "decision", data, js_str_or(decision, "actor", SERVER_ACTOR), e);
}

enum err_code gate_settle_row(struct db_conn *c, const struct gate_row *g, const struct js *decision, struct outbox *out, struct error *e)
{
	const char *state = decision_state(js_str_or(decision, "decision", ""));
	if (!state)
		return error_set(e, ERR_INVALID, "gate %s: '%.40s' is not a decision", g->id, js_str_or(decision, "decision", ""));
	AUTO_FREE char *text = js_dump(decision);
	int64_t at = js_str(decision, "at") ? clock_parse_rfc3339(js_str(decision, "at")) : -1; /* one time for one decision, in its file and in its row */
	enum err_code rc = db_exec(c, e, "UPDATE gates SET state=?2, decision=?3, settled_at=?4, actor=?5 WHERE id=?1 AND state='blocked'", "sssis", g->id, state,
		text, at >= 0 ? at : clock_wall_ms(), js_str_or(decision, "actor", SERVER_ACTOR));
	return rc ? rc : settled_event(c, g, decision, state, out, e);
}

enum err_code gate_settle(struct db_conn *c, const char *id, const struct js *decision, struct outbox *out, struct error *e)
{
	AUTO_GATE struct gate_row g = { 0 };
	enum err_code rc = gate_load(c, id, &g, e);
	if (rc || !str_eq(g.state, "blocked"))
		return rc;
	rc = gate_settle_row(c, &g, decision, out, e);
	return rc ? rc : pass_on(c, &g, decision, out, e);
}

enum err_code gate_delivered(struct db_conn *c, const char *id, int64_t at, struct error *e)
{
	return db_exec(c, e, "UPDATE gates SET delivered_at=?2 WHERE id=?1 AND delivered_at IS NULL", "si", id, at);
}

enum err_code gate_decided(struct db_conn *c, const char *task, int64_t turn, struct js **ret, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	AUTO_JS struct js *list = js_array();
	enum err_code rc = db_prepare(c, "SELECT id, kind, data, decision FROM (SELECT * FROM gates WHERE task=?1 AND (turn=?2 OR delivered_at IS NULL) AND request IS NOT NULL"
		" AND decision IS NOT NULL AND state<>'canceled' AND COALESCE(json_extract(decision,'$.then'),'')<>'fail'"
		" AND (delivered_at IS NULL OR json_extract(decision,'$.decision')<>'abort') ORDER BY id DESC LIMIT ?3) ORDER BY id", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, task);
	db_bind_int(s, 2, turn);
	db_bind_int(s, 3, DECIDED_MAX);
	while (!(rc = db_step(s, &row, e)) && row) {
		struct js *o = js_object();
		js_set_str(o, "gate", db_text(s, 0));
		js_set_str(o, "kind", db_text(s, 1));
		js_set(o, "data", column_js(s, 2));
		js_set(o, "decision", column_js(s, 3));
		js_push(list, o);
	}
	db_done(s);
	if (!rc)
		*ret = js_ref(list);
	return rc;
}

void gate_list_release(struct gate_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		gate_row_release(&l->rows[i]);
	free(l->rows);
	*l = (struct gate_list){ 0 };
}

enum err_code gate_list_open(struct db_conn *c, const char *task, struct gate_list *ret, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	char ids[OPEN_PER_TASK_MAX][ID_SIZE];
	size_t n = 0;
	enum err_code rc = db_prepare(c, "SELECT id FROM gates WHERE task=?1 AND state='blocked' ORDER BY id", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, task);
	while (n < OPEN_PER_TASK_MAX && !(rc = db_step(s, &row, e)) && row)
		snprintf(ids[n++], ID_SIZE, "%s", db_text(s, 0));
	db_done(s);
	ret->rows = mem_alloc((n + 1) * sizeof(*ret->rows));
	for (size_t i = 0; i < n && !rc; i++) {
		ret->rows[i] = (struct gate_row){ 0 };
		rc = gate_load(c, ids[i], &ret->rows[i], e);
		ret->n = i + 1;
	}
	return rc;
}

enum err_code gate_cancel_open(struct db_conn *c, const char *task, const char *actor, struct outbox *out, struct error *e)
{
	AUTO(gate_list_release) struct gate_list open = { 0 };
	AUTO_JS struct js *word = js_object();
	js_set_str(word, "decision", "cancel");
	enum err_code rc = gate_list_open(c, task, &open, e);
	for (size_t i = 0; i < open.n && !rc; i++) {
		AUTO_JS struct js *decision = decision_make(open.rows[i].id, word, actor);
		AUTO_JS struct js *winner = gate_link(out->core, &open.rows[i], decision);
		rc = gate_settle_row(c, &open.rows[i], winner, out, e);
	}
	return rc;
}
