/* After a runner's end: what of its workspace may go, and the task's next run. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "core/inside.h"
#include <fcntl.h>

#define BASE_MAX ((size_t)64 << 10) /* bytes of base.json */

struct release {
	const char *run_id;
	struct task_row task;
	struct run_row run;
};

static enum err_code release_op(struct db_conn *conn, void *arg, struct error *e)
{
	const struct release *l = arg;
	return db_exec(conn, e, "UPDATE runs SET released=1 WHERE id=?1", "s", l->run_id);
}

static enum err_code releasable_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct release *l = arg;
	enum err_code rc = run_load(conn, l->run_id, &l->run, e);
	return rc ? rc : task_load(conn, l->run.task, &l->task, e);
}

/* base.json says of which run the saved workspace is. It stands where the sandboxes' identity may write: nothing is followed. */
static int64_t saved_run(struct core *c, const char *task, const char *worker)
{
	AUTO_FREE char *dir = core_task_dir(c, task);
	AUTO_FREE char *rel = mem_printf("agents/%s/workspace/base.json", worker);
	AUTO_CLOSE int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	AUTO_CLOSE int fd = -1;
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(BASE_MAX);
	if (at < 0 || file_open_beneath(at, rel, O_RDONLY | O_NONBLOCK, &fd, NULL) || file_read_fd(fd, BASE_MAX, &text, NULL))
		return 0;
	AUTO_JS struct js *base = js_parse(strbuf_str(&text), text.len, NULL);
	return js_i64(base, "run", 0);
}

bool launch_workspace_is_spare(struct core *c, const char *task, const char *worker, int64_t newest)
{
	AUTO_FREE char *work = launch_work_dir(c, task, worker);
	AUTO_FREE char *upper = file_join(work, "upper");
	AUTO_FREE char *plain = file_join(work, "plain");
	return saved_run(c, task, worker) == newest || !(file_exists(upper) || file_exists(plain));
}

/* An ended task's workspace lives on in what was saved of it; what was not saved stays for the retention to decide. */
static void remove_workspace(struct core *c, const struct run_row *r)
{
	struct error e = ERROR_INIT;
	AUTO_FREE char *work = launch_work_dir(c, r->task, r->worker);
	if (launch_workspace_is_spare(c, r->task, r->worker, r->n) && file_remove_tree(work, &e))
		log_warn("run %s: clean up: %s", r->id, e.text);
}

void launch_clean_up(struct core *c, const char *run_id)
{
	struct error e = ERROR_INIT;
	struct release l = { .run_id = run_id };
	enum err_code rc = db_read(c->db, releasable_op, &l, &e);
	usage_end(c, run_id);
	/* While the run is not released nobody else begins in its workspace. */
	if (!rc)
		taskdir_end_run(c, &l.task, &l.run);
	if (!rc && phase_is_terminal(l.task.phase))
		remove_workspace(c, &l.run);
	if (!rc)
		rc = db_write(c->db, release_op, &l, &e);
	if (rc == ERR_NOT_FOUND)
		log_info("run %s: its task was deleted", run_id);
	else if (rc)
		log_error("release run %s: %s", run_id, e.text);
	task_row_release(&l.task);
	run_row_release(&l.run);
}
