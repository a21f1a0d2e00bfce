/* External tasks in the database: what is done inside one transaction. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/external_inside.h"
#include <stdlib.h>
#include <string.h>

#define WORKER "main"

bool external_is(const struct task_row *t)
{
	return js_type(js_get(t->spec, "external")) == JS_OBJECT;
}

static struct js *make_spec(const struct external_birth *b)
{
	struct js *spec = js_object(), *external = js_object();
	js_set_str(external, "via", b->file ? "file" : "channel");
	js_set_str(external, "file", b->file);
	js_set_str(spec, "prompt", b->title ? b->title : b->name);
	js_set_str(spec, "agent_name", "external");
	js_set_str(spec, "environment_name", "none");
	js_set(spec, "source", js_copy(b->source));
	js_set(spec, "external", external);
	return spec;
}

static struct js *phase_data(enum phase from, enum phase to)
{
	struct js *data = js_object();
	js_set_str(data, "from", phase_name(from));
	js_set_str(data, "to", phase_name(to));
	return data;
}

/* The first line did not come through event_add, so it is put where the streams find it. */
static enum err_code insert_row(struct db_conn *c, const struct task_row *row, struct outbox *out, struct error *e)
{
	struct task_birth birth;
	task_birth_make(&birth, row);
	enum err_code rc = task_insert(c, &birth, e);
	if (!rc)
		outbox_add_birth(out, &birth);
	if (!rc)
		rc = db_exec(c, e, "UPDATE tasks SET started_at=created_at, beat_at=?2 WHERE id=?1", "si", row->id, clock_wall_ms());
	if (!rc)
		rc = event_add(c, row->id, "run.phase", WORKER, 0, row->created_by, row->created_at, phase_data(PHASE_QUEUED, row->phase), out, e);
	task_birth_release(&birth);
	return rc;
}

enum err_code external_insert(struct db_conn *c, const struct external_birth *b, char ret_id[ID_SIZE], struct outbox *out, struct error *e)
{
	AUTO_TASK struct task_row row = { .phase = b->pending ? PHASE_CLAIMED : PHASE_RUNNING };
	clock_new_id(row.id);
	row.name = mem_strdup(b->name);
	row.project = mem_strdup(b->project);
	row.repo = mem_strdup(b->repo);
	row.created_by = mem_strdup(b->who);
	row.session_id = mem_strdup(b->session_id);
	row.spec = make_spec(b);
	row.labels = js_object();
	row.created_at = b->start_ms ? b->start_ms : clock_wall_ms();
	enum err_code rc = insert_row(c, &row, out, e);
	if (!rc && b->progress)
		rc = external_progress(c, row.id, b->progress, b->who, out, e);
	if (!rc)
		memcpy(ret_id, row.id, ID_SIZE);
	return rc;
}

enum err_code external_begin(struct db_conn *c, const char *id, const char *who, struct outbox *out, struct error *e)
{
	struct move m = { .to = PHASE_PREPARING, .actor = who };
	enum err_code rc = task_move(c, id, &m, out, e);
	m.to = PHASE_RUNNING;
	if (!rc)
		rc = task_move(c, id, &m, out, e);
	return rc ? rc : event_add(c, id, "run.phase", WORKER, 0, who, clock_wall_ms(), phase_data(PHASE_CLAIMED, PHASE_RUNNING), out, e);
}

enum err_code external_progress(struct db_conn *c, const char *id, const char *text, const char *who, struct outbox *out, struct error *e)
{
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_load(c, id, &t, e);
	if (rc || str_eq(t.progress ? t.progress : "", text))
		return rc;
	rc = db_exec(c, e, "UPDATE tasks SET progress=?2 WHERE id=?1", "ss", id, text);
	struct js *data = js_object();
	js_set_str(data, "text", text);
	if (rc) {
		js_free(data);
		return rc;
	}
	return event_add(c, id, "task.progress", WORKER, 0, who, clock_wall_ms(), data, out, e);
}

enum err_code external_check_result(const struct js *result, const char *where, struct error *e)
{
	static const char *const members[] = { "filesChanged", "testsRun", "testsPassed", NULL };
	int64_t n = 0;
	const struct js *files = js_get(result, "filesChanged");
	if (js_type(result) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "%s: expected an object, got %s", where, js_type_name(js_type(result)));
	enum err_code rc = js_check_members(result, where, members, e);
	for (size_t i = 1; !rc && i < ARRAY_SIZE(members) - 1; i++)
		rc = js_want_i64(result, where, members[i], 0, INT32_MAX, &n, e);
	if (!rc && files && js_type(files) != JS_ARRAY)
		rc = error_set(e, ERR_INVALID, "%s.filesChanged: expected an array, got %s", where, js_type_name(js_type(files)));
	if (!rc && js_len(files) > EXTERNAL_CHANGED_MAX)
		rc = error_set(e, ERR_LIMIT, "%s.filesChanged: %zu entries, at most %d are allowed", where, js_len(files), EXTERNAL_CHANGED_MAX);
	for (size_t i = 0; !rc && i < js_len(files); i++)
		if (!js_text(js_at(files, i)))
			rc = error_set(e, ERR_INVALID, "%s.filesChanged[%zu]: expected a string, got %s", where, i, js_type_name(js_type(js_at(files, i))));
	return rc;
}

/* Nothing of it was seen by us: changed files and tests are the agent's claims. */
static struct js *make_result(const struct external_end *end)
{
	struct js *o = js_object(), *files = js_array(), *claims = js_object();
	const struct js *changed = js_get(end->result, "filesChanged");
	for (size_t i = 0; i < js_len(changed); i++) {
		struct js *file = js_object();
		js_set_str(file, "path", js_text(js_at(changed, i)));
		js_set_str(file, "status", "claimed");
		js_push(files, file);
	}
	js_set_int(claims, "tests_run", js_i64(end->result, "testsRun", 0));
	js_set_int(claims, "tests_passed", js_i64(end->result, "testsPassed", 0));
	js_set_str(o, "outcome", end->to == PHASE_SUCCEEDED ? "success" : "failed");
	js_set_str(o, "summary", end->summary ? end->summary : "");
	js_set(o, "files", files);
	js_set(o, "claims", claims);
	return o;
}

static enum err_code store_result(struct db_conn *c, const char *id, const struct external_end *end, const char *who, struct outbox *out, struct error *e)
{
	struct js *data = js_object();
	js_set(data, "result", make_result(end));
	AUTO_FREE char *text = js_dump(js_get(data, "result"));
	enum err_code rc = db_exec(c, e, "UPDATE tasks SET result=?2 WHERE id=?1", "ss", id, text);
	if (rc) {
		js_free(data);
		return rc;
	}
	return event_add(c, id, "run.result", WORKER, 0, who, end->at ? end->at : clock_wall_ms(), data, out, e);
}

/* Who was asked to end and then fails or falls silent has done as it was asked; who completes all the same has completed. */
enum err_code external_finish(struct db_conn *c, const char *id, const struct external_end *end, const char *who, struct outbox *out, struct error *e)
{
	AUTO_TASK struct task_row t = { 0 };
	struct move m = { .to = end->to, .reason = end->reason, .error = end->error, .actor = who, .at = end->at };
	enum err_code rc = task_load(c, id, &t, e);
	if (!rc && t.cancel_asked && end->to != PHASE_SUCCEEDED) {
		m.to = PHASE_CANCELED;
		m.reason = "canceled";
	}
	if (!rc && (end->result || end->summary))
		rc = store_result(c, id, end, who, out, e);
	if (!rc && end->to == PHASE_SUCCEEDED && t.phase == PHASE_CLAIMED)
		rc = external_begin(c, id, who, out, e);
	if (!rc && end->to == PHASE_SUCCEEDED) {
		struct move collecting = { .to = PHASE_COLLECTING, .actor = who, .at = end->at };
		rc = task_move(c, id, &collecting, out, e);
	}
	return rc ? rc : task_move(c, id, &m, out, e);
}
