/* The agent's plan as it is now, kept up to date by the events that tell it. */
#include "core/todos.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "core/core.h"
#include "core/inside.h"
#include <string.h>

struct todos_look {
	const char *project, *ref, *repo;
	struct js *out;
};

/* {worker: {items, at}} */
static enum err_code load(struct db_conn *c, const char *task, struct js **ret, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, "SELECT todos FROM tasks WHERE id=?1", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, task);
	rc = db_step(s, &row, e);
	const char *text = !rc && row ? db_text(s, 0) : NULL;
	*ret = text ? js_parse(text, strlen(text), NULL) : NULL;
	db_done(s);
	if (!rc && !*ret)
		*ret = js_object();
	return rc;
}

static void apply_update(struct js *items, const struct js *data)
{
	for (size_t i = 0; i < js_len(items); i++) {
		struct js *step = js_at(items, i);
		if (!str_eq(js_str(step, "id"), js_str_or(data, "id", "")))
			continue;
		js_set_str(step, "status", js_str_or(data, "status", "pending"));
		if (js_str(data, "text"))
			js_set_str(step, "text", js_str(data, "text"));
	}
}

void todos_apply(struct js *all, const char *worker, const char *type, const struct js *data, int64_t at)
{
	struct js *mine = js_get(all, worker) ? js_copy(js_get(all, worker)) : js_object();
	js_set_int(mine, "at", at);
	if (str_eq(type, "todo.snapshot") && js_type(js_get(data, "items")) == JS_ARRAY)
		js_set(mine, "items", js_copy(js_get(data, "items")));
	else if (str_eq(type, "todo.update"))
		apply_update(js_get(mine, "items"), data);
	js_set(all, worker, mine);
}

enum err_code todos_take(struct db_conn *c, const char *task, const char *worker, const char *type, const struct js *data, int64_t at, struct error *e)
{
	AUTO_JS struct js *all = NULL;
	enum err_code rc = load(c, task, &all, e);
	if (rc)
		return rc;
	todos_apply(all, worker, type, data, at);
	AUTO_FREE char *text = js_dump(all);
	return db_exec(c, e, "UPDATE tasks SET todos=?2 WHERE id=?1", "ss", task, text);
}

static enum err_code todos_op(struct db_conn *c, void *arg, struct error *e)
{
	struct todos_look *l = arg;
	char id[ID_SIZE], when[RFC3339_SIZE];
	AUTO_JS struct js *all = NULL;
	struct js *list = js_array();
	int64_t at = 0;
	enum err_code rc = task_find(c, l->project, l->ref, l->repo, id, e);
	if (!rc)
		rc = load(c, id, &all, e);
	for (struct js_iter it = js_iter(all); it.key; js_next(&it)) {
		const struct js *items = js_get(it.value, "items");
		at = js_i64(it.value, "at", 0) > at ? js_i64(it.value, "at", 0) : at;
		for (size_t i = 0; i < js_len(items); i++) {
			struct js *step = js_copy(js_at(items, i));
			js_set_str(step, "worker", it.key);
			js_push(list, step);
		}
	}
	clock_rfc3339(at, when);
	l->out = js_object();
	js_set(l->out, "data", list);
	js_set(l->out, "updated_at", at ? js_string(when) : js_null());
	return rc;
}

enum err_code core_todos(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret, struct error *e)
{
	struct todos_look l = { .project = by.project, .ref = ref, .repo = repo };
	enum err_code rc = db_read(c->db, todos_op, &l, e);
	if (rc)
		js_free(l.out);
	else
		*ret = l.out;
	return rc;
}
