/* A lost database is rebuilt from the task directories: the newest run's spec says what was asked, events.jsonl what happened.  What cannot be
 * proven is said: a task whose log does not end was running when the record was lost, and ends so; its log begins a new generation.
 *
 * Gates come back from the log (gate.blocked opens, gate.approved and its like settle) and from gates/<id>.decision, which has sealed answers
 * whole.  A task with open gates is not ended: as after any other death of a run the question stands, so it waits (reason record_lost), and
 * the answer begins an attempt that is told it.  Its last run counts as lost and keeps the workspace until its runner is seen to be gone.  A decision
 * that was linked and not yet in the log is found by the next tick.  Gates that an ended task left open are canceled.
 *
 * So do messages and the plan: words that no turn and no running agent has got are the next turn, at once or (while a question stands) after it. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/yaml.h"
#include "core/gate.h"
#include "core/gatefile.h"
#include "core/inside.h"
#include "core/talk.h"
#include "core/task_check.h"
#include "core/todos.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT_LOG_MAX ((size_t)1 << 30)
#define IMPORT_SPEC_MAX ((size_t)16 << 20)
#define IMPORT_RUNS_MAX 1000

struct import {
	const char *id, *dir;
	struct task_row task;
	struct strbuf log;
	struct js *spec;
	const char *first_line; /* of the log, in it */
	int64_t turn, *run_turns; /* the one of the log's last run, of each run */
	enum phase run_phase;	  /* how the last run ended */
	bool waits;		  /* gates are open */
	bool says;		  /* people's messages are not yet told */
	struct js *todos;
	struct outbox out;
};

static int64_t newest_run(const char *task_dir)
{
	int64_t newest = 0;
	for (int64_t n = 1; n <= IMPORT_RUNS_MAX; n++) {
		AUTO_FREE char *path = mem_printf("%s/agents/main/runs/%lld/spec.json", task_dir, (long long)n);
		if (!file_exists(path))
			break;
		newest = n;
	}
	return newest;
}

/* The spec that a submit would have stored: the run's, without what belongs to the run. */
static struct js *task_spec(const struct js *run_spec)
{
	static const char *const members[] = { "prompt", "agent_name", "model", "agent", "environment_name", "environment", "limits", "retry", "source", "approvals", "require", NULL };
	struct js *spec = js_object();
	for (const char *const *m = members; *m; m++)
		if (js_get(run_spec, *m))
			js_set(spec, *m, js_ref(js_get(run_spec, *m)));
	return spec;
}

/* What may change of a task that is there: from task.yaml, and from what the log says after it. */
static void take_changes(struct task_row *t, const struct js *said)
{
	const struct js *labels = js_get(said, "labels"), *name = js_get(said, "name");
	int64_t priority = t->priority;
	if (js_type(labels) == JS_OBJECT && !task_check_labels(labels, NULL)) {
		js_free(t->labels);
		t->labels = js_copy(labels);
	}
	if (name && (js_type(name) == JS_NULL || (js_text(name) && !task_check_name(js_text(name), NULL)))) {
		free(t->name);
		t->name = mem_strdup(js_text(name));
	}
	if (!js_want_i64(said, "", "priority", -PRIORITY_LIMIT, PRIORITY_LIMIT, &priority, NULL))
		t->priority = priority;
}

/* ---- gates */

/* What the log shows of a decision has stars for secrets; its file is whole. */
static char *decision_text(const struct import *i, const char *gate, const struct js *shown)
{
	AUTO_JS struct js *whole = NULL;
	if (gatefile_decision(i->dir, gate, &whole, NULL) || !str_eq(js_str(whole, "gate"), gate))
		return shown ? js_dump(shown) : NULL;
	return js_dump(whole);
}

static enum err_code import_gate_opened(struct db_conn *conn, struct import *i, const struct js *event, int64_t at, struct error *e)
{
	const struct js *data = js_get(event, "data");
	const char *until = js_str(data, "deadline_at"), *gate = js_str_or(data, "gate", "");
	AUTO_FREE char *run = mem_printf("%s.%s.%lld", i->id, js_str_or(event, "worker", "main"), (long long)js_i64(event, "run", i->task.run_n));
	AUTO_FREE char *text = js_dump(data);
	int64_t deadline = until ? clock_parse_rfc3339(until) : -1;
	if (!clock_is_id(gate) || !js_str(data, "kind"))
		return ERR_OK;
	enum err_code rc = db_exec(conn, e, "INSERT OR IGNORE INTO gates(id,task,run,request,kind,state,data,created_at,turn) VALUES(?1,?2,?3,?4,?5,'blocked',?6,?7,?8)",
		"ssssssii", gate, i->id, run, js_str(data, "request"), js_str(data, "kind"), text, at, i->turn);
	if (!rc && deadline > 0) /* of no boot: the wall clock decides */
		rc = db_exec(conn, e, "UPDATE gates SET deadline_at=?3, deadline_mono=0, boot='' WHERE id=?1 AND task=?2", "ssi", gate, i->id, deadline);
	return rc;
}

static enum err_code import_gate(struct db_conn *conn, struct import *i, const struct js *event, const char *state, int64_t at, struct error *e)
{
	static const char *const states[] = { "approved", "rejected", "answered", "expired", "canceled" };
	const struct js *data = js_get(event, "data");
	const char *gate = js_str_or(data, "gate", "");
	if (str_eq(state, "blocked"))
		return import_gate_opened(conn, i, event, at, e);
	if (str_eq(state, "delivered"))
		return db_exec(conn, e, "UPDATE gates SET delivered_at=?3 WHERE id=?1 AND task=?2", "ssi", gate, i->id, at);
	for (size_t n = 0; n < ARRAY_SIZE(states); n++) {
		if (!str_eq(state, states[n]) || !clock_is_id(gate))
			continue;
		AUTO_FREE char *decision = decision_text(i, gate, js_get(data, "decision"));
		return db_exec(conn, e, "UPDATE gates SET state=?3, decision=?4, settled_at=?5, actor=?6 WHERE id=?1 AND task=?2 AND state='blocked'", "ssssis", gate, i->id,
			state, decision, at, js_str_or(event, "actor", SERVER_ACTOR));
	}
	return ERR_OK;
}

/* What an unfinished task has to go on with. */
static enum err_code look_for_rest(struct db_conn *conn, struct import *i, struct error *e)
{
	if (phase_is_terminal(i->task.phase))
		return ERR_OK;
	enum err_code rc = task_has_open_gate(conn, i->id, &i->waits, e);
	return rc ? rc : db_has(conn, e, &i->says, "SELECT 1 FROM messages WHERE task=?1 AND delivered=0 LIMIT 1", "s", i->id);
}

/* ---- messages */

static enum err_code message_put(struct db_conn *conn, const struct import *i, const struct js *said, const char *text, const char *actor, int64_t at,
	bool delivered, struct error *e)
{
	return db_exec(conn, e, "INSERT INTO messages(task,n,text,actor,created_at,delivered,id) VALUES(?1,?2,?3,?4,?5,?6,?7)"
		" ON CONFLICT DO UPDATE SET delivered=MAX(delivered,excluded.delivered)", "sissiis", i->id, js_i64(said, "message", 0), js_str_or(said, "text", text), actor,
		at, (int64_t)delivered, js_str(said, "id"));
}

/* A turn tells the messages that it is made of; in logs of an older release it has their words. */
static enum err_code import_turn(struct db_conn *conn, struct import *i, const struct js *data, const char *actor, int64_t at, struct error *e)
{
	const struct js *messages = js_get(data, "messages");
	const char *text = js_str_or(data, "text", "");
	enum err_code rc = ERR_OK;
	free(i->task.turn_prompt);
	i->task.turn_prompt = mem_strdup(text);
	if (!messages)
		return db_exec(conn, e, "UPDATE messages SET delivered=1 WHERE task=?1 AND instr(?2,text)>0", "ss", i->id, text);
	for (size_t n = 0; n < js_len(messages) && !rc; n++)
		rc = message_put(conn, i, js_at(messages, n), text, actor, at, true, e);
	return rc;
}

static enum err_code import_said(struct db_conn *conn, struct import *i, const struct js *event, const char *type, int64_t at, struct error *e)
{
	const struct js *data = js_get(event, "data");
	const char *actor = js_str_or(event, "actor", "imported");
	if (str_eq(type, "task.turn"))
		return import_turn(conn, i, data, actor, at, e);
	if (str_eq(type, "message.queued") || str_eq(type, "message.sent"))
		return message_put(conn, i, data, "", actor, at, false, e);
	if (str_eq(type, "message.steered"))
		return db_exec(conn, e, "UPDATE messages SET delivered=1 WHERE task=?1 AND n=?2", "si", i->id, js_i64(data, "message", 0));
	return ERR_OK;
}

/* ---- the log */

/* How a task has ended: as its last run did, unless it was ended without one. */
static enum phase end_phase(const struct import *i, const char *status)
{
	if (phase_is_terminal(i->run_phase) && str_eq(phase_status(i->run_phase), status))
		return i->run_phase;
	for (unsigned p = 0; p < PHASE_COUNT; p++)
		if (phase_is_terminal((enum phase)p) && str_eq(phase_status((enum phase)p), status))
			return (enum phase)p;
	return PHASE_FAILED;
}

static void take_turn(struct import *i, const struct js *event, const char *type)
{
	const struct js *data = js_get(event, "data");
	int64_t run = js_i64(event, "run", 0), turn = js_i64(data, "turn", i->turn);
	if (str_eq(type, "task.turn") || str_eq(type, "run.started"))
		i->turn = turn > 0 ? turn : 1;
	if (str_eq(type, "run.started") && run > 0 && run <= i->task.run_n)
		i->run_turns[run] = i->turn;
}

static enum err_code import_line(struct db_conn *conn, struct import *i, const struct js *event, const char *line, struct error *e)
{
	int64_t at = clock_parse_rfc3339(js_str_or(event, "at", ""));
	const struct js *data = js_get(event, "data");
	const char *type = js_str_or(event, "type", "");
	i->task.last_seq = js_i64(event, "seq", 0);
	if (i->task.last_seq == 1) {
		i->task.created_at = at;
		i->task.created_by = mem_strdup(js_str_or(event, "actor", "imported"));
		i->first_line = line; /* comes with the task's own row */
		return ERR_OK;
	}
	if (str_eq(type, "run.result")) {
		js_free(i->task.result);
		i->task.result = js_ref(js_get(data, "result"));
	}
	if (str_starts(type, "todo."))
		todos_apply(i->todos, js_str_or(event, "worker", "main"), type, data, at);
	if (str_eq(type, "task.changed"))
		take_changes(&i->task, data);
	take_turn(i, event, type);
	if (str_eq(type, "run.phase") || str_eq(type, "task.retried") || str_eq(type, "task.turn"))
		i->task.phase = i->run_phase = PHASE_RUNNING;
	if (str_eq(type, "run.ended") && !phase_from_name(js_str(data, "outcome"), &i->run_phase))
		i->run_phase = PHASE_FAILED;
	if (str_eq(type, "task.done")) {
		i->task.phase = end_phase(i, js_str(data, "status"));
		i->task.completed_at = at;
		free(i->task.reason);
		free(i->task.error);
		i->task.reason = mem_strdup(js_str(data, "reason"));
		i->task.error = mem_strdup(js_str(data, "error"));
	}
	int64_t n = 0;
	enum err_code rc = str_starts(type, "gate.") ? import_gate(conn, i, event, type + strlen("gate."), at, e) : import_said(conn, i, event, type, at, e);
	return rc ? rc : event_put(conn, i->id, i->task.last_seq, at, type, line, &n, e);
}

/* Whole lines in order; the first that is torn or out of order ends it. */
static enum err_code import_log(struct db_conn *conn, struct import *i, struct error *e)
{
	char *save = NULL;
	enum err_code rc = ERR_OK;
	for (char *line = strtok_r(i->log.data, "\n", &save); line && !rc; line = strtok_r(NULL, "\n", &save)) {
		AUTO_JS struct js *event = js_parse(line, strlen(line), NULL);
		if (!event || js_i64(event, "seq", -1) != i->task.last_seq + 1)
			break;
		rc = import_line(conn, i, event, line, e);
	}
	return rc;
}

static enum err_code insert_runs(struct db_conn *conn, struct import *i, struct error *e)
{
	enum err_code rc = ERR_OK;
	for (int64_t n = 1; n <= i->task.run_n && !rc; n++) {
		AUTO_FREE char *run = mem_printf("%s.main.%lld", i->id, (long long)n);
		bool last = n == i->task.run_n, held = last && (i->waits || i->says);
		enum phase p = last && phase_is_terminal(i->run_phase) ? i->run_phase : PHASE_LOST;
		rc = db_exec(conn, e,
			"INSERT INTO runs(id,task,worker,n,turn,attempt,project,repo,phase,token_hash,created_at,ended_at,released,reason)"
			" VALUES(?1,?2,'main',?3,?9,?3,?4,?5,?6,'',?7,?7,?8,'imported')",
			"ssisssiii", run, i->id, n, i->task.project, i->task.repo, phase_name(p), i->task.created_at, (int64_t)!held, i->run_turns[n]);
	}
	return rc;
}

static enum err_code insert_task(struct db_conn *conn, struct import *i, struct error *e)
{
	struct task_row *t = &i->task;
	AUTO_FREE char *result = t->result ? js_dump(t->result) : NULL;
	AUTO_FREE char *todos = js_dump(i->todos);
	enum phase was = t->phase;
	t->phase = phase_is_terminal(was) ? was : PHASE_RUNNING;
	struct task_birth birth = { .row = t, .spec = js_dump(t->spec), .labels = js_dump(t->labels), .line = mem_strdup(i->first_line) };
	enum err_code rc = task_insert(conn, &birth, e);
	if (rc == ERR_CONFLICT) { /* its name has been given to another task since */
		free(t->name);
		t->name = NULL;
		rc = task_insert(conn, &birth, e);
	}
	task_birth_release(&birth);
	if (!rc)
		rc = db_exec(conn, e, "UPDATE tasks SET last_seq=?2, run_n=?3, completed_at=?4, reason=?5, error=?6, result=?7, started_at=?8, turn=?9, turn_prompt=?10, todos=?11,"
			" generation=2 WHERE id=?1",
			"siiisssiiss", t->id, t->last_seq, t->run_n, t->completed_at, t->reason, t->error, result, t->created_at, i->turn, t->turn_prompt, todos);
	if (!rc)
		rc = event_add(conn, t->id, "task.imported", NULL, 0, SERVER_ACTOR, clock_wall_ms(), NULL, &i->out, e);
	if (rc || phase_is_terminal(t->phase))
		return rc ? rc : gate_cancel_open(conn, t->id, SERVER_ACTOR, &i->out, e);
	struct move m = { .to = i->waits ? PHASE_WAITING_HUMAN : PHASE_LOST, .reason = "record_lost", .error = i->waits ? "the database was lost; what it asks stands" :
		"the database was lost while the task was under way", .actor = SERVER_ACTOR };
	rc = task_move(conn, t->id, &m, &i->out, e);
	return rc || i->waits || !i->says ? rc : talk_next_turn(conn, t->id, &i->out, e);
}

static enum err_code import_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct import *i = arg;
	enum err_code rc = import_log(conn, i, e);
	if (!rc && i->task.last_seq == 0)
		rc = error_set(e, ERR_INVALID, "events.jsonl has no whole line");
	if (!rc)
		rc = look_for_rest(conn, i, e);
	if (!rc)
		rc = insert_runs(conn, i, e);
	return rc ? rc : insert_task(conn, i, e);
}

static enum err_code load(struct import *i, const char *dir, struct error *e)
{
	struct task_row *t = &i->task;
	AUTO_FREE char *log = file_join(dir, "events.jsonl");
	t->run_n = newest_run(dir);
	AUTO_FREE char *spec = mem_printf("%s/agents/main/runs/%lld/spec.json", dir, (long long)t->run_n);
	AUTO_FREE char *yaml = file_join(dir, "task.yaml");
	i->spec = t->run_n ? js_load(spec, IMPORT_SPEC_MAX, e) : yaml_load(yaml, e); /* one that we did not start has no run of ours */
	if (!i->spec)
		return error_set(e, ERR_NOT_FOUND, "neither a run's spec.json nor a task.yaml to import from");
	if (!t->run_n)
		js_set(i->spec, "agent_name", js_ref(js_get(i->spec, "agent")));
	enum err_code rc = file_read(log, IMPORT_LOG_MAX, &i->log, e);
	if (rc)
		return rc;
	snprintf(t->id, sizeof(t->id), "%s", i->id);
	t->spec = task_spec(i->spec);
	t->name = mem_strdup(js_str(i->spec, "name"));
	t->project = mem_strdup(js_str_or(i->spec, "project", "default"));
	t->repo = mem_strdup(js_str_or(i->spec, "repo", "imported"));
	t->session_id = mem_strdup(js_str_or(i->spec, "session_id", i->id));
	t->labels = js_object();
	AUTO_JS struct js *newest = yaml_load(yaml, NULL); /* a run's spec is older, and has no labels */
	take_changes(t, newest);
	i->todos = js_object();
	t->phase = i->run_phase = PHASE_RUNNING;
	i->turn = 1;
	i->run_turns = mem_alloc((size_t)(t->run_n + 1) * sizeof(*i->run_turns));
	for (int64_t n = 0; n <= t->run_n; n++)
		i->run_turns[n] = 1;
	return ERR_OK;
}

enum err_code import_task(struct core *c, const char *id, struct error *e)
{
	struct import i = { .id = id, .log = STRBUF_LIMIT(IMPORT_LOG_MAX), .out.core = c };
	AUTO_FREE char *dir = core_task_dir(c, id);
	i.dir = dir;
	enum err_code rc = load(&i, dir, e);
	if (!rc)
		rc = db_write(c->db, import_op, &i, e);
	if (!rc)
		core_publish(c, &i.out);
	if (!rc && (i.waits || i.says))
		rc = reaper_adopt_all(c, e); /* its runner, if it still lives, is watched until it has gone */
	free(i.run_turns);
	outbox_release(&i.out);
	strbuf_release(&i.log);
	js_free(i.spec);
	js_free(i.todos);
	task_row_release(&i.task);
	return rc;
}
