/* Looking at tasks and runs, canceling and deleting them. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/external.h"
#include "core/gate.h"
#include "core/inside.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct look {
	struct core *core;
	const char *project, *ref, *repo;
	char id[ID_SIZE];
	struct js *out;
};

static char *dir_of(struct core *c, const char *task)
{
	return mem_printf("%s/tasks/%s", c->data, task);
}

char *core_task_dir(struct core *c, const char *task_id)
{
	return dir_of(c, task_id);
}

static enum err_code newest_run(struct db_conn *conn, const struct task_row *t, struct js *o, struct error *e)
{
	if (!t->run_n)
		return ERR_OK;
	AUTO_RUN struct run_row r = { 0 };
	AUTO_FREE char *id = mem_printf("%s.main.%lld", t->id, (long long)t->run_n);
	enum err_code rc = run_load(conn, id, &r, e);
	if (!rc)
		js_set(o, "run", run_to_js(&r));
	return rc;
}

/* How many go before it (of a project other than the default one: of its own), and itself: 1 is next; and what it waits for. */
static enum err_code queue_place(struct core *c, struct db_conn *conn, const struct task_row *t, struct js *o, struct error *e)
{
	int64_t n = 0;
	AUTO_STRBUF struct strbuf why = STRBUF_INIT;
	if (t->phase != PHASE_QUEUED)
		return ERR_OK;
	/* How much others have in the queue is theirs to know; the owner's place is the true one. */
	bool all = str_eq(t->project, PROJECT_DEFAULT);
	enum err_code rc = db_number(conn, e, &n, all ? "SELECT COUNT(*) FROM queue WHERE priority>?1 OR (priority=?1 AND task<=?2)"
		: "SELECT COUNT(*) FROM tasks AS t JOIN queue AS q ON q.task=t.id WHERE t.project=?3 AND t.project<>'default' AND (q.priority>?1 OR (q.priority=?1 AND q.task<=?2))",
		all ? "is" : "iss", (int64_t)t->priority, t->id, t->project);
	if (!rc)
		rc = sched_why_queued(conn, c, t, &why, e);
	if (rc)
		return rc;
	js_set_int(o, "queue_position", n);
	if (why.len)
		js_set_str(o, "waits_for", strbuf_str(&why));
	return ERR_OK;
}

enum err_code core_show(struct core *c, struct db_conn *conn, const char *id, unsigned what, struct js **ret, struct error *e)
{
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_load(conn, id, &t, e);
	if (rc)
		return rc;
	AUTO_FREE char *dir = dir_of(c, id);
	struct js *o = task_to_js(&t, dir);
	js_set(o, "run", js_null());
	js_set(o, "queue_position", js_null());
	js_set(o, "waits_for", js_null());
	if (what & SHOW_RUN)
		rc = newest_run(conn, &t, o, e);
	if (!rc && what & SHOW_PLACE)
		rc = queue_place(c, conn, &t, o, e);
	if (rc)
		js_free(o);
	else
		*ret = o;
	return rc;
}

static enum err_code show_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct look *l = arg;
	enum err_code rc = task_find(conn, l->project, l->ref, l->repo, l->id, e);
	return rc ? rc : core_show(l->core, conn, l->id, SHOW_RUN | SHOW_PLACE, &l->out, e);
}

enum err_code core_task(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret, struct error *e)
{
	struct look l = { .core = c, .project = by.project, .ref = ref, .repo = repo };
	enum err_code rc = db_read(c->db, show_op, &l, e);
	if (rc)
		return rc;
	const char *run = js_str(js_get(l.out, "run"), "id");
	if (run && str_eq(js_str(l.out, "phase"), "running"))
		js_set(l.out, "model_request", usage_open_request(c, run));
	*ret = l.out;
	return ERR_OK;
}

static enum err_code resolve_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct look *l = arg;
	return task_find(conn, l->project, l->ref, l->repo, l->id, e);
}

enum err_code core_resolve(struct core *c, struct caller by, const char *ref, const char *repo, char ret_id[27], struct error *e)
{
	struct look l = { .core = c, .project = by.project, .ref = ref, .repo = repo };
	enum err_code rc = db_read(c->db, resolve_op, &l, e);
	if (!rc)
		memcpy(ret_id, l.id, ID_SIZE);
	return rc;
}

static enum err_code runs_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct look *l = arg;
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_find(conn, l->project, l->ref, l->repo, l->id, e);
	if (!rc)
		rc = task_load(conn, l->id, &t, e);
	l->out = js_array();
	for (int64_t n = 1; !rc && n <= t.run_n; n++) {
		AUTO_RUN struct run_row r = { 0 };
		AUTO_FREE char *id = mem_printf("%s.main.%lld", t.id, (long long)n);
		rc = run_load(conn, id, &r, e);
		if (!rc)
			js_push(l->out, run_to_js(&r));
	}
	return rc;
}

enum err_code core_runs(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret_list, struct error *e)
{
	struct look l = { .core = c, .project = by.project, .ref = ref, .repo = repo };
	enum err_code rc = db_read(c->db, runs_op, &l, e);
	if (rc) {
		js_free(l.out);
		return rc;
	}
	*ret_list = js_object();
	js_set(*ret_list, "data", l.out);
	js_set(*ret_list, "next_cursor", js_null()); /* all of them */
	return ERR_OK;
}

static enum err_code run_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct look *l = arg;
	AUTO_RUN struct run_row r = { 0 };
	enum err_code rc = run_find(conn, l->project, l->ref, &r, e);
	if (!rc)
		l->out = run_to_js(&r);
	return rc;
}

enum err_code core_run(struct core *c, struct caller by, const char *run_id, struct js **ret, struct error *e)
{
	struct look l = { .core = c, .project = by.project, .ref = run_id };
	enum err_code rc = db_read(c->db, run_op, &l, e);
	if (!rc)
		*ret = l.out;
	return rc;
}

struct cancel {
	struct look look;
	const char *who;
	struct outbox out;
};

struct is { const char *sql, *id; bool *ret; };

static enum err_code is_op(struct db_conn *conn, void *arg, struct error *e)
{
	const struct is *o = arg;
	return db_has(conn, e, o->ret, o->sql, "s", o->id);
}

enum err_code core_is_over(struct core *c, const char *id, bool *ret, struct error *e)
{
	struct is o = { "SELECT 1 FROM tasks WHERE id=?1 AND completed_at IS NOT NULL", id, ret };
	return db_read(c->db, is_op, &o, e);
}

enum err_code core_is_at_work(struct core *c, const char *id, bool *ret, struct error *e)
{
	struct is o = { "SELECT 1 FROM tasks WHERE id=?1 AND completed_at IS NULL AND phase<>'waiting_human'", id, ret };
	return db_read(c->db, is_op, &o, e);
}

/* A queued or waiting task ends here; a running one is told through its runner's commands, and ends when that has ended. */
static enum err_code cancel_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct cancel *k = arg;
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_find(conn, k->look.project, k->look.ref, k->look.repo, k->look.id, e);
	if (!rc)
		rc = task_load(conn, k->look.id, &t, e);
	bool live = false;
	if (!rc)
		rc = task_has_live_run(conn, &t, &live, e);
	if (rc || phase_is_terminal(t.phase))
		return rc;
	if (t.phase == PHASE_QUEUED || (t.phase == PHASE_WAITING_HUMAN && !live)) {
		struct move m = { .to = PHASE_CANCELED, .reason = "canceled", .actor = k->who };
		return task_move(conn, t.id, &m, &k->out, e);
	}
	if (t.cancel_asked)
		return ERR_OK;
	AUTO_FREE char *run = mem_printf("%s.main.%lld", t.id, (long long)t.run_n);
	rc = db_exec(conn, e, "UPDATE tasks SET cancel_asked=1 WHERE id=?1", "s", t.id);
	if (!rc)
		rc = command_add(conn, run, "cancel", NULL, k->who, e);
	if (!rc)
		rc = event_add(conn, t.id, "task.cancel_asked", NULL, 0, k->who, clock_wall_ms(), NULL, &k->out, e);
	return rc;
}

enum err_code core_cancel(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret_task, struct error *e)
{
	struct cancel k = { .look = { .core = c, .project = by.project, .ref = ref, .repo = repo }, .who = by.who, .out.core = c };
	enum err_code rc = db_write(c->db, cancel_op, &k, e);
	if (!rc) {
		external_asked_to_end(c, k.look.id);
		core_publish(c, &k.out);
		AUTO_FREE char *topic = mem_printf("commands:%s", k.look.id);
		hub_touch(c->hub, topic);
		reconcile_workspace(c, k.look.id);
		rc = core_task(c, by, k.look.id, NULL, ret_task, e);
	}
	outbox_release(&k.out);
	return rc;
}

/* A running turn is asked to end; what has none to end says so. */
static enum err_code interrupt_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct cancel *k = arg;
	AUTO_TASK struct task_row t = { 0 };
	bool live = false;
	enum err_code rc = task_find(conn, k->look.project, k->look.ref, k->look.repo, k->look.id, e);
	if (!rc)
		rc = task_load(conn, k->look.id, &t, e);
	if (!rc)
		rc = task_has_live_run(conn, &t, &live, e);
	if (rc)
		return rc;
	if (!live) {
		error_set(e, ERR_CONFLICT, "task %s is %s: no turn of it is running", k->look.ref, phase_status(t.phase));
		if (phase_is_terminal(t.phase))
			error_hint(e, "`signalbox say` goes on with a task that has ended");
		else
			error_hint(e, "`signalbox cancel` ends a task that is queued or waits");
		return ERR_CONFLICT;
	}
	AUTO_FREE char *run = mem_printf("%s.main.%lld", t.id, (long long)t.run_n);
	rc = command_add(conn, run, "interrupt", NULL, k->who, e);
	return rc ? rc : event_add(conn, t.id, "task.interrupt_asked", NULL, 0, k->who, clock_wall_ms(), NULL, &k->out, e);
}

enum err_code core_interrupt(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret_task, struct error *e)
{
	struct cancel k = { .look = { .core = c, .project = by.project, .ref = ref, .repo = repo }, .who = by.who, .out.core = c };
	enum err_code rc = db_write(c->db, interrupt_op, &k, e);
	if (!rc) {
		AUTO_FREE char *topic = mem_printf("commands:%s", k.look.id);
		core_publish(c, &k.out);
		hub_touch(c->hub, topic);
		rc = core_task(c, by, k.look.id, NULL, ret_task, e);
	}
	outbox_release(&k.out);
	return rc;
}

struct again {
	struct look look;
	const char *who;
	struct outbox out;
};

/* An agent that we did not start we cannot start again. */
static enum err_code check_ours(struct db_conn *conn, const char *id, struct error *e)
{
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_load(conn, id, &t, e);
	if (rc || !external_is(&t))
		return rc;
	error_set(e, ERR_CONFLICT, "task %s is of an agent that Signalbox did not start", id);
	error_hint(e, "start that agent again; it registers anew");
	return ERR_CONFLICT;
}

/* One that waits with its agent alive has nothing to begin again. */
static enum err_code check_no_run(struct db_conn *conn, const char *id, struct error *e)
{
	AUTO_TASK struct task_row t = { 0 };
	bool live = false;
	enum err_code rc = task_load(conn, id, &t, e);
	if (!rc)
		rc = task_has_live_run(conn, &t, &live, e);
	return rc || !live ? rc : error_set(e, ERR_CONFLICT, "task %s is %s, and its agent lives", id, phase_status(t.phase));
}

/* By a person's wish: the same turn once more, whatever the policy had to say. */
static enum err_code retry_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct again *k = arg;
	struct move m = { .to = PHASE_QUEUED, .actor = k->who, .reopen = true };
	enum err_code rc = task_find(conn, k->look.project, k->look.ref, k->look.repo, k->look.id, e);
	if (!rc)
		rc = check_ours(conn, k->look.id, e);
	if (!rc)
		rc = check_no_run(conn, k->look.id, e);
	if (!rc)
		rc = task_move(conn, k->look.id, &m, &k->out, e);
	if (!rc)
		rc = db_exec(conn, e, "UPDATE tasks SET house_failures=0, agent_failures=0, cancel_asked=0 WHERE id=?1", "s", k->look.id);
	if (!rc)
		rc = event_add(conn, k->look.id, "task.retried", NULL, 0, k->who, clock_wall_ms(), NULL, &k->out, e);
	if (rc == ERR_CONFLICT)
		error_hint(e, "`signalbox show %s` tells how it is; cancel it first to begin again", k->look.ref);
	return rc;
}

enum err_code core_retry(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret_task, struct error *e)
{
	struct again k = { .look = { .core = c, .project = by.project, .ref = ref, .repo = repo }, .who = by.who, .out.core = c };
	enum err_code rc = db_write(c->db, retry_op, &k, e);
	if (!rc) {
		core_publish(c, &k.out);
		sched_ask(c);
		rc = core_task(c, by, k.look.id, NULL, ret_task, e);
	}
	outbox_release(&k.out);
	return rc;
}

struct removal {
	const char *ref;
	char id[ID_SIZE];
	int64_t run_n;
};

static enum err_code delete_op(struct db_conn *conn, void *arg, struct error *e)
{
	static const char *const statements[] = { "DELETE FROM events WHERE task=?1", "DELETE FROM commands WHERE run IN (SELECT id FROM runs WHERE task=?1)",
		"DELETE FROM runs WHERE task=?1", "DELETE FROM gates WHERE task=?1", "DELETE FROM messages WHERE task=?1", "DELETE FROM queue WHERE task=?1", "DELETE FROM tasks WHERE id=?1" };
	struct removal *l = arg;
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_load(conn, l->id, &t, e);
	if (!rc && !phase_is_terminal(t.phase)) {
		error_set(e, ERR_CONFLICT, "task %s is %s", l->ref, phase_status(t.phase));
		error_hint(e, "signalbox cancel %s", l->ref);
		return ERR_CONFLICT;
	}
	l->run_n = t.run_n;
	if (!rc)
		rc = search_forget(conn, l->id, e);
	for (size_t i = 0; !rc && i < ARRAY_SIZE(statements); i++)
		rc = db_exec(conn, e, statements[i], "s", l->id);
	return rc;
}

/* What is left when the rows are gone: files.  A failure is the reconciler's to mend: the mark tells it that the task shall not come back. */
static void delete_files(struct core *c, const struct removal *l, const char *dir)
{
	AUTO_FREE char *work = launch_work_dir(c, l->id, "main"); /* what a lost run had not saved goes with its task */
	struct error e = ERROR_INIT;
	for (int64_t n = 1; n <= l->run_n; n++) {
		AUTO_FREE char *run = mem_printf("%s.main.%lld", l->id, (long long)n);
		AUTO_FREE char *exchanges = usage_file(c, run);
		unlink(exchanges);
	}
	if (file_remove_tree(work, &e) || file_remove_tree(dir, &e))
		log_warn("task %s: deleted, but not all of its files: %s", l->id, e.text);
}

enum err_code core_delete(struct core *c, struct caller by, const char *ref, const char *repo, struct error *e)
{
	struct removal l = { .ref = ref };
	enum err_code rc = core_resolve(c, by, ref, repo, l.id, e);
	if (rc)
		return rc;
	AUTO_FREE char *dir = dir_of(c, l.id);
	AUTO_FREE char *mark = file_join(dir, TASK_DELETED);
	taskdir_hold(c, true); /* nobody writes its record anew meanwhile */
	int fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600); /* no directory, no mark: nothing to bring it back from */
	rc = fd < 0 && errno != ENOENT ? error_errno(e, "make '%s'", mark) : db_write(c->db, delete_op, &l, e);
	if (fd >= 0)
		close(fd);
	if (rc)
		unlink(mark);
	taskdir_hold(c, false);
	if (rc)
		return rc;
	hub_touch(c->hub, l.id);
	delete_files(c, &l, dir);
	return ERR_OK;
}
