/* What the API shows of a task and of a run. */
#include "core/task_db.h"
#include "base/cleanup.h"
#include "core/external.h"
#include <stdint.h>

#define TEXT_FIRST_BYTES ((size_t)1015) /* most tasks fit */

static void put_time(struct js_put *p, const char *key, int64_t ms)
{
	char text[RFC3339_SIZE];
	if (ms > 0)
		clock_rfc3339(ms, text);
	js_put_str(p, key, ms > 0 ? text : NULL);
}

/* What a run said it was doing is so no longer when it has ended; the last word of others' agents is all that there is of them. */
static const char *progress_of(const struct task_row *t)
{
	bool at_work = !phase_is_terminal(t->phase) && t->phase != PHASE_QUEUED;
	return at_work || external_is(t) ? t->progress : NULL;
}

static void put_task(struct js_put *p, const struct task_row *t, const char *directory)
{
	js_put_str(p, "id", t->id);
	js_put_str(p, "name", t->name);
	js_put_str(p, "project", t->project);
	js_put_str(p, "created_by", t->created_by);
	js_put_str(p, "session_id", t->session_id);
	js_put_str(p, "status", phase_status(t->phase));
	js_put_str(p, "phase", phase_name(t->phase));
	js_put_str(p, "reason", t->reason);
	js_put_str(p, "error", t->error);
	js_put_str(p, "progress", progress_of(t));
	js_put(p, "prompt", js_get(t->spec, "prompt"));
	js_put(p, "agent", js_get(t->spec, "agent_name"));
	js_put(p, "model", js_get(t->spec, "model"));
	js_put(p, "environment", js_get(t->spec, "environment_name"));
	js_put_int(p, "priority", t->priority);
	js_put_map(p, "labels", t->labels);
	js_put(p, "source", js_get(t->spec, "source"));
	js_put_str(p, "repo", t->repo);
	put_time(p, "created_at", t->created_at);
	put_time(p, "started_at", t->started_at);
	put_time(p, "completed_at", t->completed_at);
	put_time(p, "last_heartbeat", t->beat_at);
	js_put_int(p, "last_seq", t->last_seq);
	js_put_int(p, "run_n", t->run_n);
	js_put(p, "result", t->result);
	js_put_str(p, "directory", directory);
}

struct js *task_to_js(const struct task_row *t, const char *directory)
{
	struct js_put p = { .tree = js_object() };
	put_task(&p, t, directory);
	return p.tree;
}

char *task_to_text(const struct task_row *t, const char *directory)
{
	struct strbuf text = STRBUF_LIMIT(SIZE_MAX / 2);
	struct js_put p = { .text = &text };
	strbuf_reserve(&text, TEXT_FIRST_BYTES);
	put_task(&p, t, directory);
	js_put_end(&p);
	return strbuf_detach(&text);
}

struct js *run_to_js(const struct run_row *r)
{
	struct js_put p = { .tree = js_object() };
	js_put_str(&p, "id", r->id);
	js_put_str(&p, "task", r->task);
	js_put_str(&p, "worker", r->worker);
	js_put_int(&p, "n", r->n);
	js_put_int(&p, "turn", r->turn);
	js_put_int(&p, "attempt", r->attempt);
	js_put_str(&p, "phase", phase_name(r->phase));
	js_put_str(&p, "reason", r->reason);
	js_put_str(&p, "error", r->error);
	js_set(p.tree, "pid", r->pid ? js_int(r->pid) : js_null());
	put_time(&p, "started_at", r->created_at);
	put_time(&p, "ended_at", r->ended_at);
	put_time(&p, "last_heartbeat", r->beat_at);
	js_put(&p, "heartbeat", r->beat);
	js_put(&p, "result", r->result);
	return p.tree;
}
