/* Gates as files, from the server's side: the rows' decisions and questions in the task's directory, where people and scripts read them without us. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/gate.h"
#include "core/gatefile.h"
#include "core/inside.h"
#include <string.h>

#define RECORDED_MAX 256 /* settled gates of one task that are looked at; the newest */

enum err_code gate_settle_file(struct core *c, const char *task, const char *gate, const struct js *decision, struct js **ret_winner, struct error *e)
{
	AUTO_FREE char *dir = core_task_dir(c, task);
	bool won;
	enum err_code rc = gatefile_dirs(dir, c->root ? c->uid : (uid_t)-1, c->gid, e);
	return rc ? rc : gatefile_settle(dir, gate, decision, ret_winner, &won, e);
}

struct js *gate_link(struct core *c, const struct gate_row *g, const struct js *decision)
{
	struct js *winner = NULL;
	struct error e = ERROR_INIT;
	enum err_code rc = c ? gate_settle_file(c, g->task, g->id, decision, &winner, &e) : ERR_NOT_FOUND;
	if (rc && c)
		log_warn("gate %s: its decision is not in the task's directory yet: %s", g->id, e.text);
	return rc ? js_copy(decision) : winner;
}

static void set_time(struct js *o, const char *key, int64_t ms)
{
	char text[RFC3339_SIZE];
	clock_rfc3339(ms, text);
	js_set_str(o, key, ms ? text : NULL);
}

static struct js *question_of(const struct gate_row *g)
{
	struct js *o = js_object();
	js_set_str(o, "id", g->id);
	js_set_str(o, "task", g->task);
	js_set_str(o, "run", g->run);
	js_set_str(o, "kind", g->kind);
	set_time(o, "created_at", g->created_at);
	set_time(o, "deadline_at", g->deadline_at);
	js_set_str(o, "at_deadline", js_str(g->data, "at_deadline"));
	js_set(o, "data", js_ref(g->data));
	return o;
}

void gate_record_open(struct core *c, const char *task_dir, const struct gate_list *open)
{
	for (size_t i = 0; i < open->n; i++) {
		struct error e = ERROR_INIT;
		AUTO_FREE char *path = mem_printf("%s/gates/%s.yaml", task_dir, open->rows[i].id);
		if (file_exists(path))
			continue;
		AUTO_JS struct js *question = question_of(&open->rows[i]);
		enum err_code rc = gatefile_dirs(task_dir, c->root ? c->uid : (uid_t)-1, c->gid, &e);
		if (!rc)
			rc = gatefile_write(task_dir, question, &e);
		if (rc)
			log_warn("gate %s: %s", open->rows[i].id, e.text);
	}
}

struct settled {
	const char *task, *dir;
	struct js *lacking; /* {gate: decision} */
};

static enum err_code lacking_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct settled *l = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT id, decision FROM gates WHERE task=?1 AND state<>'blocked' AND decision IS NOT NULL ORDER BY id DESC LIMIT ?2", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, l->task);
	db_bind_int(s, 2, RECORDED_MAX);
	while (!(rc = db_step(s, &row, e)) && row) {
		AUTO_FREE char *path = mem_printf("%s/gates/%s.decision", l->dir, db_text(s, 0));
		if (!file_exists(path))
			js_set(l->lacking, db_text(s, 0), js_parse(db_text(s, 1), strlen(db_text(s, 1)), NULL));
	}
	db_done(s);
	return rc;
}

void gate_record_settled(struct core *c, const char *task)
{
	AUTO_FREE char *dir = core_task_dir(c, task);
	AUTO_JS struct js *lacking = js_object();
	struct settled l = { .task = task, .dir = dir, .lacking = lacking };
	struct error e = ERROR_INIT;
	enum err_code rc = db_read(c->db, lacking_op, &l, &e);
	for (struct js_iter it = js_iter(lacking); !rc && it.key; js_next(&it)) {
		struct js *winner = NULL;
		rc = gate_settle_file(c, task, it.key, it.value, &winner, &e);
		js_free(winner);
	}
	if (rc)
		log_warn("gates of task %s: %s", task, e.text);
}
