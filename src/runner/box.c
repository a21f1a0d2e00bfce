/* A program in the walls: the workspace's layers, the plan, the environment; and the setup script, which is the first such program. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOX_ENV_MAX 256
#define SETUP_INSIDE "/run/signalbox/setup.sh"
#define SETUP_SCRIPT_MAX ((size_t)1 << 20)

struct env {
	char *v[BOX_ENV_MAX + 1];
	int n;
};

static void env_release(struct env *env)
{
	for (int i = 0; i < env->n; i++)
		free(env->v[i]);
}

static void env_add(struct env *env, const char *key, const char *value)
{
	if (env->n < BOX_ENV_MAX && value)
		env->v[env->n++] = mem_printf("%s=%s", key, value);
}

/* Later entries win inside: what the adapter needs is not overridden by accident. */
static void make_env(const struct runner *r, char **extra, struct env *env)
{
	static const char *const fixed[][2] = { { "PATH", "/usr/local/bin:/usr/bin:/bin" }, { "HOME", SANDBOX_HOME }, { "USER", "agent" },
		{ "LOGNAME", "agent" }, { "SHELL", "/bin/bash" }, { "LANG", "C.UTF-8" }, { "TMPDIR", "/tmp" }, { "TERM", "dumb" } };
	AUTO_FREE char *url = mem_printf("signalbox:task/%s", r->task_id);
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		env_add(env, fixed[i][0], fixed[i][1]);
	for (struct js_iter it = js_iter(js_path(r->spec, "environment.env")); it.key; js_next(&it))
		env_add(env, it.key, js_text(it.value));
	for (struct js_iter it = js_iter(js_path(r->spec, "agent.env")); it.key; js_next(&it))
		env_add(env, it.key, js_text(it.value));
	env_add(env, "TASK_ID", r->task_id);
	env_add(env, "SESSION_ID", js_str(r->spec, "session_id"));
	env_add(env, "SIGNALBOX_URL", url);
	for (; extra && *extra && env->n < BOX_ENV_MAX; extra++)
		env->v[env->n++] = mem_strdup(*extra);
}

static void add_bind(struct sandbox_plan *p, const char *from, const char *to)
{
	if (from && p->bind_count < SANDBOX_BINDS_MAX)
		p->binds[p->bind_count++] = (struct sandbox_bind){ .from = from, .to = to };
}

static void make_plan(struct runner *r, const char *const *argv, const struct env *env, bool share_net, struct sandbox_plan *p)
{
	const struct js *sandbox = js_get(r->spec, "sandbox"), *gateway = js_get(r->spec, "gateway");
	*p = (struct sandbox_plan){ .id = r->run_id, .uid = r->uid, .gid = r->gid, .layers = r->layers, .home = r->home, .share_net = share_net,
		.env = (const char *const *)env->v, .argv = argv, .init_path = js_str(sandbox, "init"), .cgroup = r->cgroup };
	p->limits = (struct sandbox_limits){ .memory_bytes = runner_limit(r, "memory"), .pids = runner_limit(r, "pids"), .cpu_percent = runner_limit(r, "cpu_percent"),
		.file_bytes = runner_limit(r, "file_size"), .tmp_bytes = runner_limit(r, "tmp") };
	if (r->objects)
		add_bind(p, r->objects, SANDBOX_OBJECTS);
	for (int i = 0; i < r->launch.bindc; i++)
		add_bind(p, r->launch.binds[i].from, r->launch.binds[i].to);
	if (!share_net && r->agent) { /* only the agent's phase has the door to the model */
		p->gateway_dir = js_str(gateway, "dir");
		p->gateway_port = (int)js_i64(gateway, "port", 0);
	}
	if (r->setup_script && str_eq(r->step.name, "setup"))
		add_bind(p, r->setup_script, SETUP_INSIDE);
}

static enum err_code open_pipes(int out[2], int err[2], struct error *e)
{
	if (pipe2(out, O_CLOEXEC) < 0)
		return error_errno(e, "make a pipe");
	if (pipe2(err, O_CLOEXEC) < 0) {
		close(out[0]);
		close(out[1]);
		return error_errno(e, "make a pipe");
	}
	return ERR_OK;
}

enum err_code box_begin(struct runner *r, const char *name, const char *const *argv, char **extra_env, const char *stdin_path, bool share_net,
	int64_t timeout_ms, const char *timeout_reason, struct error *e)
{
	int out[2], err[2];
	AUTO_CLOSE int in = stdin_path ? open(stdin_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	AUTO(env_release) struct env env = { 0 };
	struct sandbox_plan plan;
	struct sandbox box = SANDBOX_INIT_VALUE;
	step_begin(r, name, timeout_ms, timeout_reason);
	if (stdin_path && in < 0)
		return error_errno(e, "open '%s'", stdin_path);
	enum err_code rc = open_pipes(out, err, e);
	if (rc)
		return rc;
	make_env(r, extra_env, &env);
	make_plan(r, argv, &env, share_net, &plan);
	plan.stdin_fd = in >= 0 ? in : PROC_NULL;
	plan.stdout_fd = out[1];
	plan.stderr_fd = err[1];
	rc = sandbox_start(&plan, &box, e);
	close(out[1]);
	close(err[1]);
	if (rc) {
		close(out[0]);
		close(err[0]);
		return error_wrap(e, "start the %s in its sandbox", name);
	}
	step_run_box(r, &box, out[0], err[0]);
	return ERR_OK;
}

void box_layers(struct runner *r, bool setup)
{
	struct sandbox_layers *l = &r->layers;
	*l = (struct sandbox_layers){ .merged = r->merged, .work = r->overlay_work };
	if (r->plain) {
		l->mode = LAYERS_PLAIN;
		l->upper = r->plain;
		return;
	}
	l->mode = LAYERS_OVERLAY;
	l->upper = setup ? r->setup_upper : r->upper;
	if (!setup && r->has_setup_layer)
		l->lower[l->lower_count++] = r->setup_upper;
	l->lower[l->lower_count++] = r->checkout;
}

/* From here on nothing runs as root: what follows touches what an agent wrote.  Before that, what only root can: the cgroup, and making
 * programs below root's own directories visible to the sandbox's identity. */
static enum err_code drop_root(struct runner *r, struct error *e)
{
	if (!r->was_root)
		return ERR_OK;
	if (setgroups(0, NULL) < 0 || setresgid(r->gid, r->gid, r->gid) < 0 || setresuid(r->uid, r->uid, r->uid) < 0)
		return error_errno(e, "become uid %u", (unsigned)r->uid);
	return ERR_OK;
}

static bool is_reachable(const char *path)
{
	AUTO_FREE char *at = mem_strdup(path);
	struct stat st;
	while (strlen(at) > 1) {
		if (stat(at, &st) == 0 && !(st.st_mode & S_IXOTH))
			return false;
		char *up = file_dirname(at);
		free(at);
		at = up;
	}
	return true;
}

/* A program below /root/... is shown to the sandbox's uid through a bind in a mount namespace of our own; the spec then names that place. */
static enum err_code expose(struct runner *r, struct js *owner, const char *member, bool whole_package, const char *name, struct error *e)
{
	const char *path = js_str(owner, member);
	const char *tools = js_str(js_get(r->spec, "sandbox"), "tools");
	if (!r->was_root || !path || !tools || is_reachable(path))
		return ERR_OK;
	AUTO_FREE char *at = file_join(tools, name);
	AUTO_FREE char *bin = file_dirname(path);
	AUTO_FREE char *package = file_dirname(bin);
	enum err_code rc = sandbox_expose(whole_package ? package : path, at, e);
	if (rc)
		return error_wrap(e, "show '%s' to uid %u", path, (unsigned)r->uid);
	AUTO_FREE char *inside = whole_package ? mem_printf("%s%s", at, path + strlen(package)) : mem_strdup(at);
	js_set_str(owner, member, inside);
	return ERR_OK;
}

static enum err_code open_walls(struct runner *r, struct error *e)
{
	struct sandbox_limits limits = { .memory_bytes = runner_limit(r, "memory"), .pids = runner_limit(r, "pids"), .cpu_percent = runner_limit(r, "cpu_percent") };
	enum err_code rc = cgroup_open(r->run_id, &limits, r->uid, &r->cgroup, e);
	if (!rc)
		rc = expose(r, js_get(r->spec, "sandbox"), "init", false, "signalbox-init", e);
	if (!rc)
		rc = expose(r, js_get(r->spec, "agent"), "program", true, "agent", e);
	return rc ? rc : drop_root(r, e);
}

static enum err_code make_dirs(struct runner *r, struct error *e)
{
	struct { char **at; const char *name; } dirs[] = { { &r->setup_upper, "setup" }, { &r->upper, "upper" }, { &r->overlay_work, "work" },
		{ &r->merged, "merged" }, { &r->scratch, "scratch" } };
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		*dirs[i].at = file_join(r->work_dir, dirs[i].name);
		enum err_code rc = file_mkdirs(*dirs[i].at, 0755, e);
		if (rc)
			return rc;
	}
	r->checkout = mem_strdup(js_str(r->source, "checkout"));
	r->objects = file_join(js_str_or(r->source, "store", ""), "objects");
	return ERR_OK;
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
	runner_event(r, "workspace.ready", "runner", data);
}

static void fail(struct runner *r, const char *reason, const struct error *e)
{
	runner_verdict(r, PHASE_FAILED, reason, "%s%s%s", e->text, e->hint[0] ? "; " : "", e->hint);
	steps_finish(r);
}

static void on_setup_output(struct runner *r, const char *data, size_t n)
{
	if (r->out_bytes < runner_limit(r, "output") && r->out_file >= 0 && file_write_all(r->out_file, data, n, NULL))
		log_warn("setup.log: not written");
	r->out_bytes += (int64_t)n;
}

static void setup_finished_event(struct runner *r, int status)
{
	struct js *data = js_object();
	js_set_str(data, "id", "setup");
	js_set_str(data, "step", "setup");
	js_set_int(data, "exit_code", status);
	js_set_str(data, "status", status == 0 ? "completed" : "failed");
	js_set_int(data, "ms", clock_mono_ms() - r->step.started_ms);
	AUTO_STRBUF struct strbuf tail = STRBUF_INIT;
	str_add_printable(&tail, strbuf_str(&r->tail), r->tail.len);
	js_set_str(data, "output", strbuf_str(&tail));
	runner_event(r, "command.finished", "runner", data);
}

static void on_setup_exit(struct runner *r, int status, const struct error *start_error)
{
	if (r->out_file >= 0)
		close(r->out_file);
	r->out_file = -1;
	r->out_bytes = 0;
	if (start_error) {
		fail(r, "setup_failed", start_error);
		return;
	}
	setup_finished_event(r, status);
	if (status != 0) {
		AUTO_STRBUF struct strbuf tail = STRBUF_INIT;
		str_add_printable(&tail, strbuf_str(&r->tail), r->tail.len);
		runner_verdict(r, PHASE_FAILED, "setup_failed", "the setup ended with status %d: %s", status, strbuf_str(&tail));
	}
	if (r->verdict.set) {
		steps_finish(r);
		return;
	}
	r->has_setup_layer = true;
	if (r->plain)
		collect_plain_base(r);
	else
		agent_begin(r);
}

/* The environment's setup, else what the repository brings. A path inside the snapshot is opened without following links. */
static enum err_code find_setup(struct runner *r, struct error *e)
{
	static const char *const names[] = { ".signalbox/setup.sh", "setup.sh" };
	const char *given = js_str(js_get(r->spec, "environment"), "setup");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(SETUP_SCRIPT_MAX);
	if (!str_empty(given))
		strbuf_adds(&text, given);
	AUTO_CLOSE int dir = open(r->checkout, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; !given && i < ARRAY_SIZE(names); i++) {
		AUTO_CLOSE int fd = -1;
		if (dir < 0 || file_open_beneath(dir, names[i], O_RDONLY, &fd, NULL))
			continue;
		enum err_code rc = file_read_fd(fd, SETUP_SCRIPT_MAX, &text, e);
		if (rc)
			return error_wrap(e, "read the repository's %s", names[i]);
		break;
	}
	if (!text.len)
		return ERR_OK;
	r->setup_script = file_join(r->work_dir, "setup.sh");
	return file_replace(r->setup_script, text.data, text.len, 0755, FILE_NOSYNC, e);
}

static enum err_code setup_begin(struct runner *r, struct error *e)
{
	static const char *const argv[] = { "/bin/bash", SETUP_INSIDE, NULL };
	bool host = str_eq(js_str(js_get(r->spec, "environment"), "setup_network"), "host");
	AUTO_FREE char *log = file_join(r->run_dir, "setup.log");
	struct js *data = js_object();
	js_set_str(data, "id", "setup");
	js_set_str(data, "step", "setup");
	js_set_str(data, "command", "setup.sh");
	js_set_str(data, "network", host ? "host" : "none");
	runner_move(r, PHASE_SETUP);
	runner_event(r, "command.started", "runner", data);
	r->out_file = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (r->out_file < 0)
		return error_errno(e, "open '%s'", log);
	box_layers(r, true);
	enum err_code rc = box_begin(r, "setup", argv, NULL, NULL, host, runner_limit(r, "setup_timeout"), "setup_timeout", e);
	r->step.on_output = r->step.on_error_output = on_setup_output;
	r->step.on_exit = on_setup_exit;
	return rc;
}

static void after_layers(struct runner *r)
{
	struct error e = ERROR_INIT;
	r->has_workspace = true;
	ready_event(r);
	if (find_setup(r, &e) || (r->setup_script && setup_begin(r, &e)))
		fail(r, "setup_failed", &e);
	else if (!r->setup_script)
		agent_begin(r);
}

static void on_copy_exit(struct runner *r, int status, const struct error *start_error)
{
	if (start_error)
		runner_verdict(r, PHASE_FAILED, "workspace_failed", "%s", start_error->text);
	else if (status != 0) {
		AUTO_FREE char *last = NULL;
		step_tail_line(r, &last);
		runner_verdict(r, PHASE_FAILED, "workspace_failed", "the copy of the checkout ended with status %d: %s", status, last);
	}
	if (r->verdict.set)
		steps_finish(r);
	else
		after_layers(r);
}

/* Where overlay is refused the workspace is a copy. */
static enum err_code copy_begin(struct runner *r, struct error *e)
{
	AUTO_FREE char *from = mem_printf("%s/.", r->checkout);
	r->plain = file_join(r->work_dir, "plain");
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

void workspace_begin(struct runner *r)
{
	struct error e = ERROR_INIT;
	bool overlay = str_eq(js_str(js_get(r->spec, "sandbox"), "layers"), "overlay");
	runner_move(r, PHASE_PREPARING);
	enum err_code rc = open_walls(r, &e);
	if (!rc)
		rc = make_dirs(r, &e);
	if (!rc && !overlay)
		rc = copy_begin(r, &e);
	if (rc)
		fail(r, "workspace_failed", &e);
	else if (overlay)
		after_layers(r);
}
