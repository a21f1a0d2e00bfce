/* The agent's plan: snapshots replace, updates change what is there, and what does not fit hurts nobody. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include "core/migrations.h"
#include "core/todos.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct site {
	struct core core;
	char id[ID_SIZE];
	char *dir;
};

struct said {
	const char *task, *worker, *type, *data;
};

static enum err_code born_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct site *s = arg;
	struct task_row row = { .phase = PHASE_QUEUED, .project = "default", .repo = "r", .created_by = "me", .session_id = "s", .created_at = 1 };
	AUTO_JS struct js *empty = js_object();
	struct task_birth birth;
	row.spec = row.labels = empty;
	memcpy(row.id, s->id, ID_SIZE);
	task_birth_make(&birth, &row);
	enum err_code rc = task_insert(conn, &birth, e);
	task_birth_release(&birth);
	return rc;
}

static int site_make(void **state)
{
	struct site *s = NEW(struct site);
	assert_int_equal(file_tmpdir("/tmp", "todos-", &s->dir, NULL), ERR_OK);
	AUTO_FREE char *path = file_join(s->dir, "db");
	assert_int_equal(db_open(path, migrations, migration_count, &s->core.db, NULL), ERR_OK);
	clock_new_id(s->id);
	assert_int_equal(db_write(s->core.db, born_op, s, NULL), ERR_OK);
	*state = s;
	return 0;
}

static int site_drop(void **state)
{
	struct site *s = *state;
	db_close(s->core.db);
	assert_int_equal(file_remove_tree(s->dir, NULL), ERR_OK);
	free(s->dir);
	free(s);
	return 0;
}

static enum err_code say_op(struct db_conn *conn, void *arg, struct error *e)
{
	const struct said *w = arg;
	AUTO_JS struct js *data = js_parse(w->data, strlen(w->data), NULL);
	return todos_take(conn, w->task, w->worker, w->type, data, 1000, e);
}

static void say(struct site *s, const char *worker, const char *type, const char *data)
{
	struct said w = { s->id, worker, type, data };
	assert_int_equal(db_write(s->core.db, say_op, &w, NULL), ERR_OK);
}

static void assert_plan(struct site *s, const char *expected)
{
	AUTO_JS struct js *shown = NULL;
	assert_int_equal(core_todos(&s->core, (struct caller){ .project = PROJECT_DEFAULT }, s->id, NULL, &shown, NULL), ERR_OK);
	AUTO_FREE char *text = js_dump(js_get(shown, "data"));
	assert_string_equal(text, expected);
}

#define LOOK(status) "{\"id\":\"1\",\"text\":\"Look\",\"status\":\"" status "\",\"worker\":\"main\"}"
#define MEND(text, status) "{\"id\":\"2\",\"text\":\"" text "\",\"status\":\"" status "\",\"worker\":\"main\"}"
#define SNAPSHOT "{\"items\":[{\"id\":\"1\",\"text\":\"Look\",\"status\":\"pending\"},{\"id\":\"2\",\"text\":\"Mend\",\"status\":\"pending\"}]}"

static void a_task_without_a_plan_has_an_empty_one(void **state)
{
	AUTO_JS struct js *none = NULL;
	struct site *s = *state;
	assert_plan(s, "[]");
	assert_int_equal(core_todos(&s->core, (struct caller){ .project = PROJECT_DEFAULT }, "no-such-task", NULL, &none, NULL), ERR_NOT_FOUND);
	assert_null(none);
}

static void updates_change_one_step_and_its_words_when_they_are_given(void **state)
{
	struct site *s = *state;
	say(s, "main", "todo.snapshot", SNAPSHOT);
	say(s, "main", "todo.update", "{\"id\":\"1\",\"status\":\"completed\"}");
	say(s, "main", "todo.update", "{\"id\":\"2\",\"status\":\"in_progress\",\"text\":\"Mend it\"}");
	assert_plan(s, "[" LOOK("completed") "," MEND("Mend it", "in_progress") "]");
}

static void a_snapshot_replaces_the_plan_of_its_own_worker(void **state)
{
	struct site *s = *state;
	say(s, "main", "todo.snapshot", SNAPSHOT);
	say(s, "helper", "todo.snapshot", "{\"items\":[]}");
	say(s, "main", "todo.snapshot", "{\"items\":[{\"id\":\"1\",\"text\":\"Look\",\"status\":\"pending\"}]}");
	assert_plan(s, "[" LOOK("pending") "]");
}

static void what_does_not_fit_changes_nothing(void **state)
{
	static const struct { const char *type, *data; } odd[] = {
		{ "todo.update", "{\"id\":\"9\",\"status\":\"completed\"}" }, { "todo.update", "{}" }, { "todo.update", "[]" }, { "todo.snapshot", "{\"items\":7}" },
		{ "todo.snapshot", "{}" }, { "todo.strange", SNAPSHOT },
	};
	struct site *s = *state;
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++)
		say(s, "main", odd[i].type, odd[i].data);
	assert_plan(s, "[]");
	say(s, "main", "todo.snapshot", SNAPSHOT);
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++)
		say(s, "main", odd[i].type, odd[i].data);
	assert_plan(s, "[" LOOK("pending") "," MEND("Mend", "pending") "]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_task_without_a_plan_has_an_empty_one, site_make, site_drop),
		cmocka_unit_test_setup_teardown(updates_change_one_step_and_its_words_when_they_are_given, site_make, site_drop),
		cmocka_unit_test_setup_teardown(a_snapshot_replaces_the_plan_of_its_own_worker, site_make, site_drop),
		cmocka_unit_test_setup_teardown(what_does_not_fit_changes_nothing, site_make, site_drop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
