/* After the agent: the diff against the snapshot, made in a stage that sees the merged workspace; then the environment's own check. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include "source/diff.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COLLECT_TIMEOUT_MS 600000
#define SUMMARY_MAX ((size_t)256 << 20)
#define ANSWER_NAME "answer.json"

#define RUNS_BEFORE_MAX 64 /* looked through for the newest that handed in a diff */

struct paths {
	char *patch, *own, *before;
};

static void paths_release(struct paths *p)
{
	free(p->patch);
	free(p->own);
	free(p->before);
}

/* The diff that the workspace began with; NULL: it began clean. A run that was lost has none, then the one before it is what is known. */
static char *patch_before(const struct runner *r)
{
	if (str_eq(r->workspace_from, "clean"))
		return NULL;
	for (int64_t n = r->epoch - 1; n > 0 && n >= r->epoch - RUNS_BEFORE_MAX; n--) {
		char *path = mem_printf("%s/agents/%s/runs/%lld/task.patch", js_str_or(r->spec, "task_dir", ""), js_str_or(r->spec, "worker", "main"), (long long)n);
		if (file_exists(path))
			return path;
		free(path);
	}
	return NULL;
}

static void make_job(struct runner *r, struct diff_job *job, struct paths *p)
{
	*p = (struct paths){ .patch = file_join(r->run_dir, "task.patch"), .own = file_join(r->run_dir, "diff.patch"), .before = patch_before(r) };
	*job = (struct diff_job){ .store = js_str(r->source, "store"), .commit = js_str(r->source, "commit"), .checkout = r->checkout,
		.upper = r->plain ? NULL : r->upper, .worktree = r->plain ? r->plain : r->merged, .base_tree = r->base_tree, .scratch = r->scratch,
		.patch_path = p->patch, .own_path = p->own, .before = p->before, .max_bytes = runner_limit(r, "patch") };
}

/* In the stage's process: the answer goes through a file of ours, {"summary"} or {"tree"} or {"error"}. */
static int answer(struct runner *r, struct js *o, enum err_code rc, const struct error *e)
{
	AUTO_FREE char *path = file_join(r->work_dir, ANSWER_NAME);
	if (rc)
		js_set_str(o, "error", e->text);
	AUTO_FREE char *text = js_dump(o);
	js_free(o);
	return file_replace(path, text, strlen(text), 0600, FILE_NOSYNC, NULL) || rc ? 1 : 0;
}

static int collect_main(void *arg)
{
	struct runner *r = arg;
	struct diff_job job;
	struct error e = ERROR_INIT;
	struct js *summary = NULL, *o = js_object();
	AUTO(paths_release) struct paths paths;
	make_job(r, &job, &paths);
	enum err_code rc = diff_collect(&job, &summary, &e);
	if (!rc)
		js_set(o, "summary", summary);
	return answer(r, o, rc, &e);
}

static int base_main(void *arg)
{
	struct runner *r = arg;
	struct diff_job job;
	struct error e = ERROR_INIT;
	char *tree = NULL;
	struct js *o = js_object();
	AUTO(paths_release) struct paths paths;
	make_job(r, &job, &paths);
	enum err_code rc = diff_snapshot_tree(&job, &tree, &e);
	js_set_str(o, "tree", tree);
	free(tree);
	return answer(r, o, rc, &e);
}

static struct js *read_answer(struct runner *r, const struct error *start_error, struct error *e)
{
	AUTO_FREE char *path = file_join(r->work_dir, ANSWER_NAME);
	if (start_error) {
		*e = *start_error;
		return NULL;
	}
	struct js *o = js_load(path, SUMMARY_MAX, e);
	unlink(path);
	if (js_str(o, "error")) {
		error_set(e, ERR_FAILED, "%s", js_str(o, "error"));
		js_free(o);
		return NULL;
	}
	return o;
}

static void begin_stage(struct runner *r, int (*fn)(void *), void (*on_exit)(struct runner *, int, const struct error *), struct error *e)
{
	struct sandbox box = SANDBOX_INIT_VALUE;
	step_begin(r, "collect", COLLECT_TIMEOUT_MS, "collect_timeout");
	r->step.on_exit = on_exit;
	if (sandbox_stage_call(&r->layers, r->uid, r->gid, fn, r, &box, e) == ERR_OK)
		step_run_box(r, &box, -1, -1);
}

static void on_base_exit(struct runner *r, int status UNUSED, const struct error *start_error)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *o = read_answer(r, start_error, &e);
	if (!o) {
		runner_verdict(r, PHASE_FAILED, "workspace_failed", "%s", e.text);
		steps_finish(r);
		return;
	}
	r->base_tree = mem_strdup(js_str(o, "tree"));
	AUTO_FREE char *path = file_join(r->work_dir, "base_tree"); /* a later run of this worker needs it too */
	if (file_replace(path, r->base_tree ? r->base_tree : "", r->base_tree ? strlen(r->base_tree) : 0, 0600, FILE_NOSYNC, &e))
		runner_verdict(r, PHASE_FAILED, "workspace_failed", "%s", e.text);
	if (r->verdict.set) {
		steps_finish(r);
		return;
	}
	agent_begin(r);
}

void collect_plain_base(struct runner *r)
{
	struct error e = ERROR_INIT;
	box_layers(r, false);
	begin_stage(r, base_main, on_base_exit, &e);
	if (!r->step.active)
		on_base_exit(r, 1, &e);
}

static void artifact_event(struct runner *r, const char *path, int64_t bytes)
{
	struct js *data = js_object();
	js_set_str(data, "path", path);
	js_set_int(data, "bytes", bytes);
	runner_event(r, "artifact.written", "runner", data);
}

static void on_collect_exit(struct runner *r, int status UNUSED, const struct error *start_error)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *o = read_answer(r, start_error, &e);
	r->changes = o && js_get(o, "summary") ? js_copy(js_get(o, "summary")) : js_object();
	if (!o)
		runner_verdict(r, PHASE_FAILED, "diff_failed", "collect the diff: %s", e.text);
	else
		artifact_event(r, "diff.patch", js_i64(r->changes, "bytes", 0));
	bool verify = !r->verdict.set && r->outcome.status == AGENT_SUCCESS && !str_empty(js_str(js_get(r->spec, "environment"), "verify"));
	if (verify)
		verify_begin(r);
	else
		result_hand_in(r);
}

void collect_begin(struct runner *r)
{
	struct error e = ERROR_INIT;
	runner_move(r, PHASE_COLLECTING);
	box_layers(r, false);
	begin_stage(r, collect_main, on_collect_exit, &e);
	if (!r->step.active)
		on_collect_exit(r, 1, &e);
}

static void on_verify_output(struct runner *r, const char *data, size_t n)
{
	if (r->out_bytes < runner_limit(r, "output") && r->out_file >= 0 && file_write_all(r->out_file, data, n, NULL)) {
		close(r->out_file);
		r->out_file = -1;
	}
	r->out_bytes += (int64_t)n;
}

static void on_verify_exit(struct runner *r, int status, const struct error *start_error)
{
	const char *command = js_str(js_get(r->spec, "environment"), "verify");
	int64_t ms = clock_mono_ms() - r->step.started_ms;
	AUTO_STRBUF struct strbuf tail = STRBUF_INIT;
	if (r->out_file >= 0)
		close(r->out_file);
	r->out_file = -1;
	str_add_printable(&tail, strbuf_str(&r->tail), r->tail.len);
	r->verify = js_object();
	js_set_str(r->verify, "command", command);
	js_set_int(r->verify, "exit_code", status);
	js_set_int(r->verify, "ms", ms);
	struct js *data = js_copy(r->verify);
	js_set_str(data, "id", "verify");
	js_set_str(data, "step", "verify");
	js_set_str(data, "status", status == 0 ? "completed" : "failed");
	js_set_str(data, "output", strbuf_str(&tail));
	runner_event(r, "command.finished", "runner", data);
	if (start_error)
		runner_verdict(r, PHASE_FAILED, "verify_failed", "%s", start_error->text);
	else if (status != 0)
		runner_verdict(r, PHASE_FAILED, "verify_failed", "the check `%s` ended with status %d", command, status);
	result_hand_in(r);
}

void verify_begin(struct runner *r)
{
	const char *command = js_str(js_get(r->spec, "environment"), "verify");
	const char *argv[] = { "/bin/bash", "-c", command, NULL };
	AUTO_FREE char *log = file_join(r->run_dir, "verify.log");
	struct error e = ERROR_INIT;
	struct js *data = js_object();
	js_set_str(data, "id", "verify");
	js_set_str(data, "step", "verify");
	js_set_str(data, "command", command);
	runner_event(r, "command.started", "runner", data);
	r->out_file = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
	r->out_bytes = 0;
	agent_launch_release(&r->launch); /* the check gets nothing of the agent's: no token, no program */
	agent_free(TAKE_PTR(r->agent));
	enum err_code rc = box_begin(r, "verify", argv, NULL, NULL, false, runner_limit(r, "verify_timeout"), "verify_timeout", &e);
	if (rc) {
		on_verify_exit(r, 1, &e);
		return;
	}
	r->step.on_output = r->step.on_error_output = on_verify_output;
	r->step.on_exit = on_verify_exit;
}
