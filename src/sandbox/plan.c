/* Plan -> operations; see plan.h.  The order is what bwrap does, from top to bottom; `remount-ro /` comes last so that the agent
 * can write in its workspace, home, /tmp and /dev/shm only. */
#include "sandbox/plan.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "sandbox/etc.h"

#include <limits.h>
#include <string.h>
#include <sys/stat.h>

static const struct op opening[] = {
	{ .option = "unshare-user" },
	{ .option = "uid", .a = (char[]){ PLAN_UID_INSIDE } },
	{ .option = "gid", .a = (char[]){ PLAN_UID_INSIDE } },
	{ .option = "disable-userns" },
	{ .option = "die-with-parent" },
	{ .option = "new-session" },
	{ .option = "as-pid-1" },
	{ .option = "cap-drop", .a = (char[]){ "ALL" } },
	{ .option = "clearenv" },
};

/* Made first: bwrap gives parents that it makes by itself to nobody but the agent. */
static const char *const open_dirs[] = { "/etc", "/home", "/run", "/run/signalbox", "/var" };

/* Of the host's root: links are made again (merged /usr), directories are bound. */
static const char *const system_roots[] = { "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32" };

static struct op *op_add(struct op_list *l, const char *option, const char *a, const char *b)
{
	if (l->count == PLAN_OPS_MAX) {
		l->over = true;
		return &l->ops[PLAN_OPS_MAX - 1];
	}
	struct op *op = &l->ops[l->count++];
	*op = (struct op){ .option = option, .a = mem_strdup(a), .b = mem_strdup(b) };
	return op;
}

void op_list_release(struct op_list *l)
{
	for (int i = 0; i < l->count; i++) {
		free(l->ops[i].a);
		free(l->ops[i].b);
		free(l->ops[i].data);
	}
	l->count = 0;
}

const char *plan_workspace(const struct sandbox_plan *p)
{
	if (p->layers.mode == LAYERS_PLAIN)
		return p->layers.upper;
	return p->layers.merged;
}

static void add_opening(const struct sandbox_plan *p, struct op_list *l)
{
	char hostname[PLAN_HOSTNAME_MAX + 1] = { 0 };

	op_add(l, "unshare-all", NULL, NULL);
	if (p->share_net)
		op_add(l, "share-net", NULL, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(opening); i++)
		op_add(l, opening[i].option, opening[i].a, opening[i].b);
	strncpy(hostname, p->id, PLAN_HOSTNAME_MAX);
	op_add(l, "hostname", hostname, NULL);
}

static void add_environment(const struct sandbox_plan *p, struct op_list *l)
{
	for (const char *const *v = p->env; v && *v; v++) {
		const char *eq = strchr(*v, '=');
		AUTO_FREE char *name = mem_strndup(*v, (size_t)(eq - *v));

		op_add(l, "setenv", name, eq + 1)->private = true;
	}
}

static enum err_code add_system(struct op_list *l, struct error *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(open_dirs); i++)
		op_add(l, "dir", open_dirs[i], NULL)->perms = "0755";
	op_add(l, "ro-bind", "/usr", "/usr");
	for (size_t i = 0; i < ARRAY_SIZE(system_roots); i++) {
		struct stat st;
		char target[PATH_MAX + 1];

		if (lstat(system_roots[i], &st) < 0)
			continue;
		if (!S_ISLNK(st.st_mode)) {
			op_add(l, "ro-bind", system_roots[i], system_roots[i]);
			continue;
		}
		ssize_t n = readlink(system_roots[i], target, PATH_MAX);
		if (n < 0)
			return error_errno(e, "read link '%s'", system_roots[i]);
		target[n] = '\0';
		op_add(l, "symlink", target, system_roots[i]);
	}
	return ERR_OK;
}

static void add_shared(struct op_list *l, const char *const *paths)
{
	for (; *paths; paths++)
		if (file_exists(*paths))
			op_add(l, "ro-bind", *paths, *paths);
}

static enum err_code add_etc(const struct sandbox_plan *p, struct op_list *l, struct error *e)
{
	for (const struct etc_file *f = etc_files; f->path; f++) {
		AUTO_STRBUF struct strbuf text = STRBUF_INIT;

		if (p->share_net ? f->offline_only : f->net_only)
			continue;
		enum err_code rc = etc_text(f, p->id, &text, e);
		if (rc == ERR_NOT_FOUND && f->host_path) {
			error_clear(e);
			continue;
		}
		if (rc != ERR_OK)
			return error_wrap(e, "prepare %s of the sandbox", f->path);
		struct op *op = op_add(l, "file", "DATA", f->path);
		op->perms = "0444";
		free(op->data); /* of the last place, when all are taken */
		op->data = strbuf_detach(&text);
	}
	add_shared(l, etc_shared);
	if (p->share_net)
		add_shared(l, etc_shared_net);
	return ERR_OK;
}

static void add_devices(const struct sandbox_plan *p, struct op_list *l)
{
	int64_t tmp_bytes = p->limits.tmp_bytes > 0 ? p->limits.tmp_bytes : PLAN_TMP_BYTES_DEFAULT;
	struct op *op;

	op_add(l, "proc", "/proc", NULL);
	op_add(l, "dev", "/dev", NULL);
	op = op_add(l, "tmpfs", "/dev/shm", NULL);
	op->perms = "1777";
	op->size_bytes = tmp_bytes < PLAN_SHM_BYTES_MAX ? tmp_bytes : PLAN_SHM_BYTES_MAX;
	op_add(l, "remount-ro", "/dev", NULL);
	op = op_add(l, "tmpfs", "/tmp", NULL);
	op->perms = "1777";
	op->size_bytes = tmp_bytes;
	op_add(l, "symlink", "/tmp", "/var/tmp");
}

static void add_binds(const struct sandbox_plan *p, struct op_list *l)
{
	op_add(l, "bind", plan_workspace(p), SANDBOX_WORKSPACE);
	if (p->home)
		op_add(l, "bind", p->home, SANDBOX_HOME);
	else
		op_add(l, "dir", SANDBOX_HOME, NULL);
	if (p->gateway_dir)
		op_add(l, "ro-bind", p->gateway_dir, SANDBOX_GATEWAY_DIR);
	op_add(l, "ro-bind", p->init_path, SANDBOX_INIT);
	for (int i = 0; i < p->bind_count; i++)
		op_add(l, p->binds[i].writable ? "bind" : "ro-bind", p->binds[i].from, p->binds[i].to);
}

enum err_code plan_build(const struct sandbox_plan *p, struct op_list *l, struct error *e)
{
	l->count = 0;
	l->over = false;
	add_opening(p, l);
	add_environment(p, l);
	enum err_code rc = add_system(l, e);
	if (rc == ERR_OK)
		rc = add_etc(p, l, e);
	if (rc != ERR_OK)
		return rc;
	add_devices(p, l);
	add_binds(p, l);
	op_add(l, "chdir", SANDBOX_WORKSPACE, NULL);
	op_add(l, "remount-ro", "/", NULL);
	if (l->over)
		return error_set(e, ERR_LIMIT, "sandbox of run %s: more than %d operations (environment and binds)", p->id, PLAN_OPS_MAX);
	return ERR_OK;
}

static enum err_code check_path(const char *path, const char *what, struct error *e)
{
	if (!path || path[0] != '/')
		return error_set(e, ERR_INVALID, "sandbox: %s must be an absolute path, not '%s'", what, path ? path : "");
	return ERR_OK;
}

static enum err_code check_layers(const struct sandbox_layers *l, struct error *e)
{
	enum err_code rc = check_path(l->upper, "the workspace's upper directory", e);

	if (rc != ERR_OK || l->mode == LAYERS_PLAIN)
		return rc;
	if (l->lower_count < 1 || l->lower_count > SANDBOX_LOWERS_MAX)
		return error_set(e, ERR_INVALID, "sandbox: %d layers, expected 1 to %d", l->lower_count, SANDBOX_LOWERS_MAX);
	for (int i = 0; rc == ERR_OK && i < l->lower_count; i++)
		rc = check_path(l->lower[i], "a read-only layer", e);
	if (rc == ERR_OK)
		rc = check_path(l->work, "the overlay's work directory", e);
	return rc == ERR_OK ? check_path(l->merged, "the mount point", e) : rc;
}

static enum err_code check_environment(const struct sandbox_plan *p, struct error *e)
{
	for (const char *const *v = p->env; v && *v; v++) {
		const char *eq = strchr(*v, '=');

		if (!eq || eq == *v)
			return error_set(e, ERR_INVALID, "sandbox: an environment entry is not NAME=VALUE");
	}
	return ERR_OK;
}

/* bwrap would walk through what an agent may have written, links included, to make the target. */
static enum err_code check_bind_target(const char *to, struct error *e)
{
	static const char *const agents_own[] = { SANDBOX_WORKSPACE, SANDBOX_HOME };

	for (size_t i = 0; i < ARRAY_SIZE(agents_own); i++)
		if (str_starts(to, agents_own[i]) && strchr("/", to[strlen(agents_own[i])]))
			return error_set(e, ERR_INVALID, "sandbox: nothing can be bound at '%s', which the agent can write", to);
	if (strstr(to, "/../") || str_ends(to, "/.."))
		return error_set(e, ERR_INVALID, "sandbox: the bind target '%s' has a '..' in it", to);
	return ERR_OK;
}

static enum err_code check_binds(const struct sandbox_plan *p, struct error *e)
{
	enum err_code rc = ERR_OK;

	if (p->bind_count < 0 || p->bind_count > SANDBOX_BINDS_MAX)
		return error_set(e, ERR_LIMIT, "sandbox: %d binds, at most %d", p->bind_count, SANDBOX_BINDS_MAX);
	for (int i = 0; rc == ERR_OK && i < p->bind_count; i++) {
		rc = check_path(p->binds[i].from, "the source of a bind", e);
		if (rc == ERR_OK)
			rc = check_path(p->binds[i].to, "the target of a bind", e);
		if (rc == ERR_OK)
			rc = check_bind_target(p->binds[i].to, e);
	}
	return rc;
}

static enum err_code check_network(const struct sandbox_plan *p, struct error *e)
{
	if (p->gateway_port < 0 || p->gateway_port > UINT16_MAX)
		return error_set(e, ERR_INVALID, "sandbox: gateway port %d is not a port", p->gateway_port);
	if (p->gateway_port && !p->gateway_dir)
		return error_set(e, ERR_INVALID, "sandbox: a gateway port needs the gateway's directory");
	/* init would listen on the host's loopback, where any user could connect */
	if (p->gateway_port && p->share_net)
		return error_set(e, ERR_INVALID, "sandbox: the host's network and the gateway's port exclude each other");
	return ERR_OK;
}

enum err_code plan_check(const struct sandbox_plan *p, struct error *e)
{
	enum err_code rc;

	if (!p->id || !file_name_is_inside(p->id) || strchr(p->id, '/'))
		return error_set(e, ERR_INVALID, "sandbox: the run id '%s' is not a name", p->id ? p->id : "");
	if (geteuid() == 0 && (p->uid == 0 || p->gid == 0))
		return error_set(e, ERR_DENIED, "sandbox: an agent must never run as the host's uid or gid 0");
	if (!p->argv || !p->argv[0] || p->argv[0][0] != '/')
		return error_set(e, ERR_INVALID, "sandbox: the agent's program must be an absolute path inside");
	if ((rc = check_path(p->init_path, "signalbox-init", e)) != ERR_OK || (rc = check_layers(&p->layers, e)) != ERR_OK)
		return rc;
	if ((p->home && (rc = check_path(p->home, "the home directory", e)) != ERR_OK) || (rc = check_environment(p, e)) != ERR_OK)
		return rc;
	return (rc = check_binds(p, e)) != ERR_OK ? rc : check_network(p, e);
}

static void print_layers(const struct sandbox_layers *l, struct strbuf *out)
{
	if (l->mode == LAYERS_PLAIN) {
		strbuf_addf(out, "workspace plain %s\n", l->upper);
		return;
	}
	strbuf_adds(out, "workspace overlay");
	for (int i = 0; i < l->lower_count && i < SANDBOX_LOWERS_MAX; i++)
		strbuf_addf(out, " lower=%s", l->lower[i]);
	strbuf_addf(out, " upper=%s work=%s at=%s\n", l->upper, l->work, l->merged);
}

static void print_limits(const struct sandbox_plan *p, struct strbuf *out)
{
	const struct { const char *name; int64_t value; } limits[] = {
		{ "memory_bytes", p->limits.memory_bytes }, { "pids", p->limits.pids },	      { "cpu_percent", p->limits.cpu_percent },
		{ "file_bytes", p->limits.file_bytes },	    { "tmp_bytes", p->limits.tmp_bytes }, { "open_files", p->limits.open_files },
	};

	strbuf_addf(out, "confined by %s\n", sandbox_confinement_name(cgroup_kind(p->cgroup)));
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		if (limits[i].value > 0)
			strbuf_addf(out, "limit %s %lld\n", limits[i].name, (long long)limits[i].value);
}

static void print_op(const struct op *op, struct strbuf *out)
{
	if (op->perms)
		strbuf_addf(out, "perms %s ", op->perms);
	if (op->size_bytes)
		strbuf_addf(out, "size %lld ", (long long)op->size_bytes);
	strbuf_adds(out, op->option);
	if (op->a && !op->data)
		strbuf_addf(out, " %s", op->a);
	if (op->b && !op->private)
		strbuf_addf(out, " %s", op->b);
	strbuf_addc(out, '\n');
}

void sandbox_plan_print(const struct sandbox_plan *p, struct strbuf *out)
{
	AUTO_FREE struct op_list *l = mem_alloc(sizeof *l);
	struct error e = ERROR_INIT;

	if (plan_check(p, &e) != ERR_OK || plan_build(p, l, &e) != ERR_OK)
		strbuf_addf(out, "refused %s\n", e.text);
	else
		print_layers(&p->layers, out);
	print_limits(p, out);
	for (int i = 0; i < l->count; i++)
		print_op(&l->ops[i], out);
	strbuf_adds(out, "seccomp\n");
	if (p->gateway_port)
		strbuf_addf(out, "forward 127.0.0.1:%d %s/model.sock\n", p->gateway_port, SANDBOX_GATEWAY_DIR);
	strbuf_addf(out, "exec %s\n", p->argv && p->argv[0] ? p->argv[0] : "?");
	op_list_release(l);
}
