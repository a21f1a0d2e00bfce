/* The workspace of a worker: made of layers (or a copy where overlay is refused), kept between the worker's runs, saved as a tar of its own
 * layers when a run ends, and restored from that when the directories are gone or the machine was started anew.
 *
 *   work_dir/   setup/ upper/ | plain/ base_tree     what is kept       setup.done   the setup layer is whole
 *               work/ merged/ scratch/               of one run         boot         the boot the layers were written in
 *   agents/<worker>/workspace/   layer.tar base.json */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TAR_TIMEOUT_MS 600000
#define BASE_MAX ((size_t)64 << 10)
#define BOOT_MAX ((size_t)64)

static const char *const worker_layers[] = { "upper", "plain", "base_tree", "setup", "setup.done", "work", NULL };

static char *saved_path(const struct runner *r, const char *name)
{
	return mem_printf("%s/agents/%s/workspace/%s", js_str_or(r->spec, "task_dir", ""), js_str_or(r->spec, "worker", "main"), name);
}

static bool has(const struct runner *r, const char *name)
{
	AUTO_FREE char *path = file_join(r->work_dir, name);
	return file_exists(path);
}

static enum err_code drop(const struct runner *r, const char *const *names, struct error *e)
{
	enum err_code rc = ERR_OK;
	for (; !rc && *names; names++) {
		AUTO_FREE char *path = file_join(r->work_dir, *names);
		rc = file_remove_tree(path, e);
	}
	return rc;
}

static enum err_code make_dirs(struct runner *r, struct error *e)
{
	struct { char **at; const char *name; } dirs[] = { { &r->setup_upper, "setup" }, { &r->upper, "upper" }, { &r->overlay_work, "work" },
		{ &r->merged, "merged" }, { &r->scratch, "scratch" } };
	AUTO_FREE char *boot = file_join(r->work_dir, "boot");
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		free(*dirs[i].at);
		*dirs[i].at = file_join(r->work_dir, dirs[i].name);
		enum err_code rc = file_mkdirs(*dirs[i].at, 0755, e);
		if (rc)
			return rc;
	}
	return file_replace(boot, clock_boot_id(), strlen(clock_boot_id()), 0600, FILE_NOSYNC, e);
}

static void ready_event(struct runner *r)
{
	struct js *data = js_object();
	const struct js *sandbox = js_get(r->spec, "sandbox");
	js_set_str(data, "layers", r->plain ? "plain" : "overlay");
	js_set_str(data, "confinement", sandbox_confinement_name(cgroup_kind(r->cgroup)));
	js_set_str(data, "why", cgroup_why(r->cgroup));
	if (r->plain)
		js_set_str(data, "layers_why", js_str(sandbox, "why"));
	js_set_str(data, "from", r->workspace_from);
	runner_event(r, "workspace.ready", "runner", data);
}

void workspace_fail(struct runner *r, const char *reason, const struct error *e)
{
	runner_verdict(r, PHASE_FAILED, reason, "%s%s%s", e->text, e->hint[0] ? "; " : "", e->hint);
	steps_finish(r);
}

static void workspace_ready(struct runner *r)
{
	struct error e = ERROR_INIT;
	if (make_dirs(r, &e)) {
		workspace_fail(r, "workspace_failed", &e);
		return;
	}
	r->has_workspace = true;
	ready_event(r);
	setup_or_agent(r);
}

/* A step that only had to end well. */
static bool ended_well(struct runner *r, int status, const struct error *start_error, const char *what)
{
	AUTO_FREE char *last = NULL;
	step_tail_line(r, &last);
	if (start_error)
		runner_verdict(r, PHASE_FAILED, "workspace_failed", "%s: %s", what, start_error->text);
	else if (status != 0)
		runner_verdict(r, PHASE_FAILED, "workspace_failed", "%s ended with status %d: %s", what, status, last);
	if (r->verdict.set)
		steps_finish(r);
	return !r->verdict.set;
}

static void on_copy_exit(struct runner *r, int status, const struct error *start_error)
{
	if (ended_well(r, status, start_error, "the copy of the checkout"))
		workspace_ready(r);
}

static enum err_code copy_begin(struct runner *r, struct error *e)
{
	AUTO_FREE char *from = mem_printf("%s/.", r->checkout);
	const char *argv[] = { "cp", "-a", "--reflink=auto", from, r->plain, NULL };
	int err[2];
	struct proc_spec spec = PROC_SPEC_INIT;
	struct proc proc = PROC_INIT;
	enum err_code rc = file_mkdirs(r->plain, 0755, e);
	if (rc)
		return rc;
	if (pipe2(err, O_CLOEXEC) < 0)
		return error_errno(e, "make a pipe");
	step_begin(r, "copy", runner_limit(r, "fetch_timeout"), "fetch_timeout");
	r->step.on_exit = on_copy_exit;
	spec.argv = argv;
	spec.stdout_fd = spec.stderr_fd = err[1];
	spec.die_with_parent = true;
	rc = proc_start(&spec, &proc, e);
	close(err[1]);
	if (rc) {
		close(err[0]);
		return rc;
	}
	step_run(r, &proc, -1, err[0]);
	return ERR_OK;
}

/* In a stage, where what the agent made unreadable can be read and whiteouts can be made: tar with our own list of names. */
static int run_tar(const struct runner *r, const char *const *argv)
{
	struct proc_spec spec = PROC_SPEC_INIT;
	AUTO_STRBUF struct strbuf said = STRBUF_LIMIT(RUNNER_TAIL_MAX);
	struct error e = ERROR_INIT;
	int status = 1;
	spec.argv = argv;
	spec.cwd = r->work_dir;
	if (proc_run(&spec, NULL, 0, TAR_TIMEOUT_MS, NULL, &said, &status, &e))
		log_warn("tar: %s", e.text);
	else if (status)
		log_warn("tar: %s", strbuf_str(&said));
	return status;
}

static int restore_main(void *arg)
{
	struct runner *r = arg;
	AUTO_FREE char *tar = saved_path(r, "layer.tar");
	const char *argv[] = { "tar", "-xf", tar, "--xattrs", "--xattrs-include=user.*", "--no-same-owner", "-p", NULL };
	return run_tar(r, argv);
}

static int save_main(void *arg)
{
	static const char *const names[] = { "setup", "upper", "plain", "base_tree", "setup.done" };
	struct runner *r = arg;
	AUTO_FREE char *tar = saved_path(r, "layer.tar.new");
	const char *argv[16] = { "tar", "-cf", tar, "--xattrs", "--xattrs-include=user.*", "--warning=no-file-ignored", NULL };
	size_t n = 6;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (has(r, names[i]))
			argv[n++] = names[i];
	return run_tar(r, argv);
}

static void on_restore_exit(struct runner *r, int status, const struct error *start_error)
{
	if (ended_well(r, status, start_error, "the restoring of the workspace"))
		workspace_ready(r);
}

static bool begin_stage(struct runner *r, const char *name, int (*fn)(void *), void (*on_exit)(struct runner *, int, const struct error *), struct error *e)
{
	struct sandbox box = SANDBOX_INIT_VALUE;
	step_begin(r, name, TAR_TIMEOUT_MS, "collect_timeout");
	r->step.on_exit = on_exit;
	if (sandbox_stage_call(NULL, r->uid, r->gid, fn, r, &box, e))
		return false;
	step_run_box(r, &box, -1, -1);
	return true;
}

static bool same_boot(const struct runner *r)
{
	AUTO_FREE char *path = file_join(r->work_dir, "boot");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(BOOT_MAX);
	return file_read(path, BOOT_MAX, &text, NULL) == ERR_OK && str_eq(strbuf_str(&text), clock_boot_id());
}

/* What was saved is of this snapshot and of this kind of layers. */
static bool saved_fits(const struct runner *r)
{
	AUTO_FREE char *path = saved_path(r, "base.json");
	AUTO_JS struct js *base = js_load(path, BASE_MAX, NULL);
	return base && str_eq(js_str(base, "commit"), js_str(r->source, "commit")) && str_eq(js_str(base, "layers"), r->plain ? "plain" : "overlay");
}

/* An agent that resumes its session, and every later turn, finds the workspace as it was left; other attempts start clean, on the setup that was made. */
static enum err_code begin(struct runner *r, struct error *e)
{
	static const char *const run_only[] = { "merged", "scratch", NULL };
	static const char *const agents[] = { "upper", "plain", "base_tree", NULL };
	bool resumes = js_str(r->spec, "agent_session") || js_i64(r->spec, "turn", 1) > 1, hot = same_boot(r);
	enum err_code rc = drop(r, run_only, e);
	if (!rc && !hot)
		rc = drop(r, worker_layers, e);
	if (!rc && !resumes)
		rc = drop(r, r->plain || !has(r, "setup.done") ? worker_layers : agents, e);
	if (rc)
		return rc;
	bool kept = resumes && has(r, r->plain ? "plain" : "upper");
	r->workspace_from = kept ? "kept" : resumes && saved_fits(r) ? "saved" : "clean";
	if (str_eq(r->workspace_from, "saved"))
		return begin_stage(r, "restore", restore_main, on_restore_exit, e) ? ERR_OK : e->code;
	if (r->plain && !kept)
		return copy_begin(r, e);
	workspace_ready(r);
	return ERR_OK;
}

void workspace_begin(struct runner *r)
{
	struct error e = ERROR_INIT;
	runner_move(r, PHASE_PREPARING);
	r->checkout = mem_strdup(js_str(r->source, "checkout"));
	r->objects = file_join(js_str_or(r->source, "store", ""), "objects");
	if (!str_eq(js_str(js_get(r->spec, "sandbox"), "layers"), "overlay"))
		r->plain = file_join(r->work_dir, "plain");
	if (box_open_walls(r, &e) || begin(r, &e))
		workspace_fail(r, "workspace_failed", &e);
}

static void write_base(struct runner *r)
{
	AUTO_JS struct js *o = js_object();
	AUTO_FREE char *path = saved_path(r, "base.json");
	struct error e = ERROR_INIT;
	char now[RFC3339_SIZE];
	clock_rfc3339(clock_wall_ms(), now);
	js_set_str(o, "commit", js_str(r->source, "commit"));
	js_set_str(o, "tree", js_str(r->source, "tree"));
	js_set_str(o, "store", js_str(r->source, "store"));
	js_set_str(o, "layers", r->plain ? "plain" : "overlay");
	js_set_int(o, "run", r->epoch);
	js_set_str(o, "saved_at", now);
	AUTO_FREE char *text = js_pretty(o);
	if (file_replace(path, text, strlen(text), 0600, FILE_SYNC, &e))
		log_warn("%s", e.text);
}

static void on_save_exit(struct runner *r, int status, const struct error *start_error)
{
	AUTO_FREE char *new = saved_path(r, "layer.tar.new");
	AUTO_FREE char *tar = saved_path(r, "layer.tar");
	r->over = true;
	if (start_error || status != 0) {
		log_warn("the workspace was not saved: %s", start_error ? start_error->text : "tar failed");
		unlink(new);
		return;
	}
	AUTO_CLOSE int fd = open(new, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0 || rename(new, tar) < 0)
		log_warn("the workspace was not saved: rename");
	else
		write_base(r);
}

void workspace_save(struct runner *r)
{
	struct error e = ERROR_INIT;
	if (r->agent_ran && r->has_workspace && begin_stage(r, "save", save_main, on_save_exit, &e))
		return;
	if (e.code)
		log_warn("the workspace was not saved: %s", e.text);
	else if (!r->agent_ran && (!r->workspace_from || str_eq(r->workspace_from, "clean")) && drop(r, worker_layers, &e))
		log_warn("clean up: %s", e.text); /* no agent has written anything into it */
	r->over = true;
}
