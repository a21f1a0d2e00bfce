/* Does an ended task's record say that it has ended?  Others poll it, and a server of an older release, or a crash between two of its files, may have left one
 * that says RUNNING for ever.  A few are read in each pass, one after the other through all tasks, so that it costs the same however many there are. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/yaml.h"
#include "core/inside.h"
#include "core/statefile.h"
#include <stdio.h>
#include <stdlib.h>

#define RECORDS_MAX 64 /* tasks looked at in one pass */
#define RECORD_SETTLED_MS ((int64_t)60000) /* ended longer ago than this: what is being written now is not judged */
#define RECORD_STATE_MAX ((size_t)1 << 20)

struct ended {
	char id[ID_SIZE];
	enum phase phase;
	int64_t run_n;
};

struct page {
	char *cursor;
	struct ended tasks[RECORDS_MAX];
	int n;
};

/* The page is of tasks, whatever their phase: a query for ended ones alone could walk through all others to find them. */
static enum err_code page_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct page *p = arg;
	struct db_stmt *s;
	bool row = false;
	int seen = 0;
	enum err_code rc = db_prepare(conn, "SELECT id, phase, run_n, completed_at FROM tasks WHERE id>?1 ORDER BY id LIMIT ?2", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, p->cursor);
	db_bind_int(s, 2, RECORDS_MAX);
	while (!(rc = db_step(s, &row, e)) && row) {
		struct ended *t = &p->tasks[p->n];
		seen++;
		snprintf(p->cursor, ID_SIZE, "%s", db_text(s, 0));
		*t = (struct ended){ .run_n = db_int(s, 2) };
		snprintf(t->id, sizeof(t->id), "%s", p->cursor);
		if (phase_from_name(db_text(s, 1), &t->phase) && phase_is_terminal(t->phase) && db_int(s, 3) + RECORD_SETTLED_MS < clock_wall_ms())
			p->n++;
	}
	db_done(s);
	if (seen < RECORDS_MAX)
		p->cursor[0] = 0; /* the next pass begins anew */
	return rc;
}

static bool differs(const struct js *said, const char *status)
{
	return js_str(said, "status") && !str_eq(js_str(said, "status"), status);
}

static bool record_is_old(struct core *c, const struct ended *t)
{
	AUTO_FREE char *dir = core_task_dir(c, t->id);
	AUTO_FREE char *path = file_join(dir, "task.yaml");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(RECORD_STATE_MAX);
	AUTO_JS struct js *yaml = yaml_load(path, NULL);
	AUTO_CLOSE int run = -1;
	if (differs(yaml, phase_status(t->phase)))
		return true;
	if (!t->run_n || launch_open_run_dir(c, t->id, "main", t->run_n, &run, NULL) || file_read_at(run, "state.json", RECORD_STATE_MAX, &text, NULL))
		return false;
	AUTO_JS struct js *state = js_parse(strbuf_str(&text), text.len, NULL);
	return differs(state, statefile_status(phase_status(t->phase)));
}

void reconcile_records(struct core *c, char cursor[ID_SIZE])
{
	struct page *p = NEW(struct page);
	struct error e = ERROR_INIT;
	p->cursor = cursor;
	if (db_read(c->db, page_op, p, &e))
		log_warn("reconcile: records: %s", e.text);
	for (int i = 0; i < p->n; i++)
		if (record_is_old(c, &p->tasks[i])) {
			taskdir_dirty_whole(c, p->tasks[i].id);
			reconcile_found(c, "record_outdated", p->tasks[i].id, "written again");
		}
	free(p);
}
