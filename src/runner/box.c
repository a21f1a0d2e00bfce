/* A program in the walls: the layers it sees, the plan, its environment; and how the runner gives root away before the first one. */
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
		add_bind(p, r->setup_script, BOX_SETUP_INSIDE);
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
	bool talks = r->launch.talks && str_eq(name, "agent");
	int inlet[2] = { -1, -1 };
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
	if (talks && pipe2(inlet, O_CLOEXEC) < 0)
		rc = error_errno(e, "make a pipe");
	in = talks ? inlet[0] : in;
	make_env(r, extra_env, &env);
	make_plan(r, argv, &env, share_net, &plan);
	plan.stdin_fd = in >= 0 ? in : PROC_NULL;
	plan.stdout_fd = out[1];
	plan.stderr_fd = err[1];
	if (!rc)
		rc = sandbox_start(&plan, &box, e);
	close(out[1]);
	close(err[1]);
	if (rc) {
		close(out[0]);
		close(err[0]);
		if (talks)
			close(inlet[1]);
		return error_wrap(e, "start the %s in its sandbox", name);
	}
	step_run_box(r, &box, out[0], err[0]);
	if (talks) {
		r->step.in_fd = inlet[1];
		fcntl(inlet[1], F_SETFL, O_NONBLOCK);
	}
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

enum err_code box_open_walls(struct runner *r, struct error *e)
{
	struct sandbox_limits limits = { .memory_bytes = runner_limit(r, "memory"), .pids = runner_limit(r, "pids"), .cpu_percent = runner_limit(r, "cpu_percent") };
	enum err_code rc = cgroup_open(r->run_id, &limits, r->uid, &r->cgroup, e);
	if (!rc)
		rc = expose(r, js_get(r->spec, "sandbox"), "init", false, "signalbox-init", e);
	if (!rc)
		rc = expose(r, js_get(r->spec, "agent"), "program", true, "agent", e);
	return rc ? rc : drop_root(r, e);
}
