/* A lost database is rebuilt from the task directories: the newest run's spec says what was asked, events.jsonl what happened.  What cannot be
 * proven is said: a task whose log does not end was running when the record was lost, and ends so; its log begins a new generation. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/yaml.h"
#include "core/inside.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT_LOG_MAX ((size_t)1 << 30)
#define IMPORT_SPEC_MAX ((size_t)16 << 20)
#define IMPORT_RUNS_MAX 1000

struct import {
	const char *id;
	struct task_row task;
	struct strbuf log;
	struct js *spec;
	const char *first_line; /* of the log, in it */
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
	if (str_eq(type, "run.phase") || str_eq(type, "task.retried"))
		i->task.phase = PHASE_RUNNING;
	if (str_eq(type, "run.ended") && !phase_from_name(js_str(data, "outcome"), &i->task.phase))
		i->task.phase = PHASE_FAILED;
	if (str_eq(type, "task.done")) {
		i->task.completed_at = at;
		free(i->task.reason);
		free(i->task.error);
		i->task.reason = mem_strdup(js_str(data, "reason"));
		i->task.error = mem_strdup(js_str(data, "error"));
	}
	int64_t n = 0;
	return event_put(conn, i->id, i->task.last_seq, at, type, line, &n, e);
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
		enum phase p = n == i->task.run_n && phase_is_terminal(i->task.phase) ? i->task.phase : PHASE_LOST;
		rc = db_exec(conn, e,
			"INSERT INTO runs(id,task,worker,n,turn,attempt,project,repo,phase,token_hash,created_at,ended_at,released,reason) VALUES(?1,?2,'main',?3,1,?3,?4,?5,?6,'',?7,?7,1,'imported')",
			"ssisssi", run, i->id, n, i->task.project, i->task.repo, phase_name(p), i->task.created_at);
	}
	return rc;
}

static enum err_code insert_task(struct db_conn *conn, struct import *i, struct error *e)
{
	struct task_row *t = &i->task;
	AUTO_FREE char *result = t->result ? js_dump(t->result) : NULL;
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
		rc = db_exec(conn, e, "UPDATE tasks SET last_seq=?2, run_n=?3, completed_at=?4, reason=?5, error=?6, result=?7, started_at=?8, generation=2 WHERE id=?1",
			"siiisssi", t->id, t->last_seq, t->run_n, t->completed_at, t->reason, t->error, result, t->created_at);
	if (!rc)
		rc = event_add(conn, t->id, "task.imported", NULL, 0, SERVER_ACTOR, clock_wall_ms(), NULL, &i->out, e);
	if (rc || phase_is_terminal(t->phase))
		return rc;
	struct move m = { .to = PHASE_LOST, .reason = "record_lost", .error = "the database was lost while the task was under way", .actor = SERVER_ACTOR };
	return task_move(conn, t->id, &m, &i->out, e);
}

static enum err_code import_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct import *i = arg;
	enum err_code rc = import_log(conn, i, e);
	if (!rc && i->task.last_seq == 0)
		rc = error_set(e, ERR_INVALID, "events.jsonl has no whole line");
	if (!rc)
		rc = insert_runs(conn, i, e);
	return rc ? rc : insert_task(conn, i, e);
}

static enum err_code load(struct core *c, struct import *i, const char *dir, struct error *e)
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
	t->phase = PHASE_RUNNING;
	(void)c;
	return ERR_OK;
}

enum err_code import_task(struct core *c, const char *id, struct error *e)
{
	struct import i = { .id = id, .log = STRBUF_LIMIT(IMPORT_LOG_MAX) };
	AUTO_FREE char *dir = core_task_dir(c, id);
	enum err_code rc = load(c, &i, dir, e);
	if (!rc)
		rc = db_write(c->db, import_op, &i, e);
	if (!rc)
		core_publish(c, &i.out);
	outbox_release(&i.out);
	strbuf_release(&i.log);
	js_free(i.spec);
	task_row_release(&i.task);
	return rc;
}
