/* PATCH: what may change of a task that is there: its name, its labels, its priority. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include "core/task_check.h"
#include <stdlib.h>

struct patch {
	struct core *core;
	const char *project, *ref, *repo, *who;
	const struct js *body;
	char id[ID_SIZE];
	struct outbox out;
};

static bool is_null(const struct js *body, const char *member)
{
	return js_get(body, member) && js_type(js_get(body, member)) == JS_NULL;
}

/* {"a": "1", "b": null}: a is set, b goes, the others stay. */
static enum err_code merge_labels(const struct task_row *t, const struct js *body, struct js **ret, struct error *e)
{
	AUTO_JS struct js *labels = t->labels ? js_copy(t->labels) : js_object();
	if (js_type(js_get(body, "labels")) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "labels: expected an object, got %s", js_type_name(js_type(js_get(body, "labels"))));
	for (struct js_iter it = js_iter(js_get(body, "labels")); it.key; js_next(&it)) {
		if (js_type(it.value) == JS_NULL)
			js_del(labels, it.key);
		else
			js_set(labels, it.key, js_ref(it.value));
	}
	enum err_code rc = task_check_labels(labels, e);
	if (!rc)
		*ret = js_ref(labels);
	return rc;
}

/* The name of a task on a directory is also the name of its heartbeat file, which others poll. */
static enum err_code check_rename(const struct task_row *t, const char *name, struct error *e)
{
	if (js_str(js_get(t->spec, "source"), "dir") && !str_eq(name, t->name)) {
		error_set(e, ERR_CONFLICT, "task %s works on a local directory, where its heartbeat file bears its name", t->id);
		error_hint(e, "use labels to tell it from others");
		return ERR_CONFLICT;
	}
	return name ? task_check_name(name, e) : ERR_OK;
}

static enum err_code set_name(struct db_conn *c, const struct patch *p, const struct task_row *t, struct js *data, struct error *e)
{
	const char *name = NULL;
	if (!js_get(p->body, "name"))
		return ERR_OK;
	enum err_code rc = js_want_str(p->body, "", "name", &name, e);
	if (!rc)
		rc = check_rename(t, name, e);
	if (rc || str_eq(name, t->name))
		return rc;
	rc = db_exec(c, e, "UPDATE tasks SET name=?2 WHERE id=?1", "ss", t->id, name);
	if (rc == ERR_CONFLICT) {
		error_set(e, ERR_CONFLICT, "the name '%s' is taken in this repository", name);
		error_hint(e, "choose another name");
	}
	js_set(data, "name", js_string(name));
	return rc;
}

static enum err_code set_labels(struct db_conn *c, const struct patch *p, const struct task_row *t, struct js *data, struct error *e)
{
	AUTO_JS struct js *labels = NULL;
	if (!js_get(p->body, "labels"))
		return ERR_OK;
	enum err_code rc = merge_labels(t, p->body, &labels, e);
	if (rc || js_equal(labels, t->labels))
		return rc;
	AUTO_FREE char *text = js_dump(labels);
	js_set(data, "labels", js_ref(labels));
	return db_exec(c, e, "UPDATE tasks SET labels=?2 WHERE id=?1", "ss", t->id, text);
}

static enum err_code set_priority(struct db_conn *c, const struct patch *p, const struct task_row *t, struct js *data, struct error *e)
{
	int64_t priority = t->priority;
	enum err_code rc = is_null(p->body, "priority") ? error_set(e, ERR_INVALID, "priority: expected an integer, got null")
		: js_want_i64(p->body, "", "priority", -PRIORITY_LIMIT, PRIORITY_LIMIT, &priority, e);
	if (rc || priority == t->priority)
		return rc;
	js_set_int(data, "priority", priority);
	rc = db_exec(c, e, "UPDATE tasks SET priority=?2 WHERE id=?1", "si", t->id, priority);
	return rc ? rc : db_exec(c, e, "UPDATE queue SET priority=?2 WHERE task=?1", "si", t->id, priority);
}

static enum err_code patch_op(struct db_conn *c, void *arg, struct error *e)
{
	struct patch *p = arg;
	AUTO_TASK struct task_row t = { 0 };
	AUTO_JS struct js *data = js_object();
	enum err_code rc = task_find(c, p->project, p->ref, p->repo, p->id, e);
	if (!rc)
		rc = task_load(c, p->id, &t, e);
	if (!rc)
		rc = set_name(c, p, &t, data, e);
	if (!rc)
		rc = set_labels(c, p, &t, data, e);
	if (!rc)
		rc = set_priority(c, p, &t, data, e);
	if (rc || !js_len(data))
		return rc;
	return event_add(c, p->id, "task.changed", NULL, 0, p->who, clock_wall_ms(), js_ref(data), &p->out, e);
}

enum err_code core_patch(struct core *c, struct caller by, const char *ref, const char *repo, const struct js *body, struct js **ret_task, struct error *e)
{
	static const char *const members[] = { "name", "labels", "priority", NULL };
	struct patch p = { .core = c, .project = by.project, .ref = ref, .repo = repo, .who = by.who, .body = body };
	enum err_code rc = js_check_members(body, "", members, e);
	if (!rc)
		rc = db_write(c->db, patch_op, &p, e);
	if (!rc) {
		core_publish(c, &p.out);
		sched_ask(c);
		rc = core_task(c, by, p.id, NULL, ret_task, e);
	}
	outbox_release(&p.out);
	return rc;
}
