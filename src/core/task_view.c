/* What the API shows of a task and of a run. */
#include "core/task_db.h"
#include "base/cleanup.h"

static void set_time(struct js *o, const char *key, int64_t ms)
{
	char text[RFC3339_SIZE];
	if (ms > 0)
		clock_rfc3339(ms, text);
	js_set(o, key, ms > 0 ? js_string(text) : js_null());
}

static void copy_member(struct js *to, const char *key, const struct js *from, const char *member)
{
	struct js *v = js_get(from, member);
	js_set(to, key, v ? js_ref(v) : js_null());
}

struct js *task_to_js(const struct task_row *t, const char *directory)
{
	struct js *o = js_object();
	js_set_str(o, "id", t->id);
	js_set(o, "name", js_string(t->name));
	js_set_str(o, "project", t->project);
	js_set_str(o, "created_by", t->created_by);
	js_set_str(o, "session_id", t->session_id);
	js_set_str(o, "status", phase_status(t->phase));
	js_set_str(o, "phase", phase_name(t->phase));
	js_set(o, "reason", js_string(t->reason));
	js_set(o, "error", js_string(t->error));
	js_set(o, "progress", js_string(t->progress));
	copy_member(o, "prompt", t->spec, "prompt");
	copy_member(o, "agent", t->spec, "agent_name");
	copy_member(o, "model", t->spec, "model");
	copy_member(o, "environment", t->spec, "environment_name");
	js_set_int(o, "priority", t->priority);
	js_set(o, "labels", t->labels ? js_ref(t->labels) : js_object());
	copy_member(o, "source", t->spec, "source");
	js_set_str(o, "repo", t->repo);
	set_time(o, "created_at", t->created_at);
	set_time(o, "started_at", t->started_at);
	set_time(o, "completed_at", t->completed_at);
	set_time(o, "last_heartbeat", t->beat_at);
	js_set_int(o, "last_seq", t->last_seq);
	js_set_int(o, "run_n", t->run_n);
	js_set(o, "result", t->result ? js_ref(t->result) : js_null());
	js_set_str(o, "directory", directory);
	return o;
}

struct js *run_to_js(const struct run_row *r)
{
	struct js *o = js_object();
	js_set_str(o, "id", r->id);
	js_set_str(o, "task", r->task);
	js_set_str(o, "worker", r->worker);
	js_set_int(o, "n", r->n);
	js_set_int(o, "turn", r->turn);
	js_set_int(o, "attempt", r->attempt);
	js_set_str(o, "phase", phase_name(r->phase));
	js_set(o, "reason", js_string(r->reason));
	js_set(o, "error", js_string(r->error));
	js_set(o, "pid", r->pid ? js_int(r->pid) : js_null());
	set_time(o, "started_at", r->created_at);
	set_time(o, "ended_at", r->ended_at);
	set_time(o, "last_heartbeat", r->beat_at);
	js_set(o, "heartbeat", r->beat ? js_ref(r->beat) : js_null());
	js_set(o, "result", r->result ? js_ref(r->result) : js_null());
	return o;
}
