/* The server's settings, checked whole before they are used. */
#include "core/conf.h"
#include "core/caller.h"
#include "agent/policy.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/yaml.h"
#include "core/paths.h"
#include "core/secrets.h"
#include "source/policy.h"
#include "source/source.h"
#include <stdlib.h>

#define KEY_MAX 4096
#define SANDBOX_ID_MAX (INT32_MAX - 1) /* the next one is the gateway's */
enum unit { UNIT_COUNT, UNIT_BYTES, UNIT_MS };
#define MIB ((int64_t)1 << 20)
#define SECOND ((int64_t)1000)
#define HOUR (3600 * SECOND)
#define PROJECT_QUEUED_DEFAULT 1000 /* of a project that is limited in `running`: each claim passes over all that it has waiting */
#define CACHE_BYTES_DEFAULT (20480 * MIB)

static const struct limit {
	const char *name;
	enum unit unit;
	int64_t def, min, max;
} limits[] = {
	{ "running", UNIT_COUNT, 8, 1, 10000 },
	{ "running_per_repository", UNIT_COUNT, 8, 1, 10000 },
	{ "queued", UNIT_COUNT, 1000000, 1, 10000000 },
	{ "snapshots", UNIT_COUNT, 4, 1, 64 },
	{ "memory", UNIT_BYTES, 4096 * MIB, 16 * MIB, MIB << 20 },
	{ "pids", UNIT_COUNT, 1024, 8, 100000 },
	{ "cpu_percent", UNIT_COUNT, 0, 0, 100000 }, /* 0: not limited */
	{ "file_size", UNIT_BYTES, 4096 * MIB, MIB, MIB << 20 },
	{ "tmp", UNIT_BYTES, 1024 * MIB, MIB, MIB << 20 },
	{ "output", UNIT_BYTES, 64 * MIB, 64 << 10, 16384 * MIB },
	{ "patch", UNIT_BYTES, 256 * MIB, MIB, 4096 * MIB },
	{ "timeout", UNIT_MS, 4 * HOUR, SECOND, 7 * 24 * HOUR },
	{ "setup_timeout", UNIT_MS, HOUR / 2, SECOND, 24 * HOUR },
	{ "fetch_timeout", UNIT_MS, HOUR, SECOND, 24 * HOUR },
	{ "stall_timeout", UNIT_MS, HOUR / 6, SECOND, 24 * HOUR },
	{ "verify_timeout", UNIT_MS, HOUR / 2, SECOND, 24 * HOUR },
	{ "task_timeout", UNIT_MS, 7 * 24 * HOUR, SECOND, 30 * 24 * HOUR }, /* the whole task, retries and pauses included */
	{ "heartbeat_timeout", UNIT_MS, 60 * SECOND, 5 * SECOND, HOUR },
	{ "gateway_linger", UNIT_MS, 60 * SECOND, SECOND, 24 * HOUR }, /* of the model gateway, after the last server and the last runner have gone */
	{ "workspace_bytes", UNIT_BYTES, 16384 * MIB, MIB, MIB << 20 }, /* of all saved workspaces of ended tasks; the oldest go first */
	{ "workspace_age", UNIT_MS, 7 * 24 * HOUR, HOUR, 365 * 24 * HOUR }, /* how long the saved workspace of an ended task is kept */
	{ "upload_bytes", UNIT_BYTES, 2048 * MIB, 1024, MIB << 20 }, /* of one upload */
	{ "uploads", UNIT_COUNT, 256, 1, 100000 }, /* kept at once, half-sent ones included */
	{ "uploads_bytes", UNIT_BYTES, 16384 * MIB, 1024, MIB << 20 },
	{ "uploads_receiving", UNIT_COUNT, 8, 1, 256 },
	{ "uploads_per_minute", UNIT_COUNT, 120, 1, 100000 },
	{ "upload_age", UNIT_MS, 24 * HOUR, SECOND, 365 * 24 * HOUR }, /* since its last use */
	{ "archive_files", UNIT_COUNT, 500000, 1, 5000000 },
	{ "archive_bytes", UNIT_BYTES, 8192 * MIB, 1024, MIB << 20 }, /* of all its files, unpacked */
	{ "archive_file", UNIT_BYTES, 2048 * MIB, 1024, MIB << 20 }, /* of one of them */
	{ "archive_ratio", UNIT_COUNT, 200, 1, 1000000 }, /* how many times its size it may grow, beyond the first 64 MiB */
	{ "queue_timeout", UNIT_MS, 7 * 24 * HOUR, SECOND, 30 * 24 * HOUR },
};

struct conf {
	struct js *root;
	char *path;
	int64_t limits[ARRAY_SIZE(limits)];
	struct js *empty, *task_limits;
	int64_t cache_bytes;
};

static const struct limit *limit_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		if (str_eq(limits[i].name, name))
			return &limits[i];
	return NULL;
}

bool conf_limit_range(const char *name, int64_t *ret_min, int64_t *ret_max, bool *ret_is_duration)
{
	const struct limit *l = limit_find(name);
	if (!l)
		return false;
	*ret_min = l->min;
	*ret_max = l->max;
	*ret_is_duration = l->unit == UNIT_MS;
	return true;
}

enum err_code conf_parse_limit(const char *name, const struct js *value, int64_t *ret, struct error *e)
{
	const struct limit *l = limit_find(name);
	if (!l)
		return error_set(e, ERR_INVALID, "unknown limit '%s'", name);
	if (js_type(value) == JS_INT) {
		int64_t unit = l->unit == UNIT_MS ? SECOND : 1, v = js_num(value, 0);
		if (v < (l->min + unit - 1) / unit || v > l->max / unit) /* before the product, which need not fit */
			return error_set(e, ERR_INVALID, "limit '%s' is %lld, allowed are %lld to %lld", name, (long long)v, (long long)(l->min / unit),
				(long long)(l->max / unit));
		*ret = v * unit;
		return ERR_OK;
	}
	const char *text = js_text(value);
	if (!text)
		return error_set(e, ERR_INVALID, "limit '%s' must be a number or a text such as %s", name, l->unit == UNIT_MS ? "30m" : "512M");
	switch (l->unit) {
	case UNIT_MS:
		return str_to_duration_ms(text, name, l->min, l->max, ret, e);
	case UNIT_BYTES:
		return str_to_size(text, name, l->min, l->max, ret, e);
	case UNIT_COUNT:
		break;
	}
	return str_to_i64(text, name, l->min, l->max, ret, e);
}

/* "limits: 3" is no section; "limits:" is an empty one. */
static enum err_code want_object(const struct js *root, const char *section, struct error *e)
{
	const struct js *v = js_get(root, section);
	if (js_type(v) == JS_NULL || js_type(v) == JS_OBJECT)
		return ERR_OK;
	return error_set(e, ERR_INVALID, "%s: expected an object, got %s", section, js_type_name(js_type(v)));
}

static enum err_code check_limits(struct conf *c, struct error *e)
{
	enum err_code wrong = want_object(c->root, "limits", e);
	if (wrong)
		return wrong;
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		c->limits[i] = limits[i].def;
	for (struct js_iter it = js_iter(js_get(c->root, "limits")); it.key; js_next(&it)) {
		const struct limit *l = limit_find(it.key);
		if (!l)
			return error_set(e, ERR_INVALID, "limits.%s: unknown limit", it.key);
		enum err_code rc = conf_parse_limit(it.key, it.value, &c->limits[l - limits], e);
		if (rc)
			return error_wrap(e, "limits");
	}
	return ERR_OK;
}

static enum err_code check_section(const struct js *root, const char *section, const char *const *members, struct error *e)
{
	enum err_code wrong = want_object(root, section, e);
	if (wrong)
		return wrong;
	for (struct js_iter it = js_iter(js_get(root, section)); it.key; js_next(&it)) {
		AUTO_FREE char *where = mem_printf("%s.%s", section, it.key);
		enum err_code rc = js_check_members(it.value, where, members, e);
		if (rc)
			return rc;
	}
	return ERR_OK;
}

static enum err_code check_projects(const struct conf *c, const char *section, struct error *e)
{
	for (struct js_iter it = js_iter(js_get(c->root, section)); it.key; js_next(&it)) {
		const struct js *list = js_get(it.value, "projects");
		if (list && js_type(list) != JS_ARRAY)
			return error_set(e, ERR_INVALID, "%s.%s.projects: expected a list, got %s", section, it.key, js_type_name(js_type(list)));
		for (size_t i = 0; i < js_len(list); i++) {
			const char *name = js_text(js_at(list, i));
			if (!str_eq(name, PROJECT_ANY) && project_check(name ? name : "", e))
				return error_wrap(e, "%s.%s.projects[%zu]", section, it.key, i);
		}
	}
	return ERR_OK;
}

static enum err_code check_shares(const struct conf *c, struct error *e)
{
	static const char *const members[] = { "running", "queued", "uploads", NULL };
	enum err_code rc = check_section(c->root, "projects", members, e);
	for (struct js_iter it = js_iter(js_get(c->root, "projects")); !rc && it.key; js_next(&it)) {
		AUTO_FREE char *where = mem_printf("projects.%s", it.key);
		int64_t n = 0;
		if (project_check(it.key, e))
			return error_wrap(e, "projects");
		for (const char *const *m = members; !rc && *m; m++)
			rc = js_want_i64(it.value, where, *m, 1, limit_find(*m)->max, &n, e);
	}
	return rc;
}

/* A rule that cannot be read must not wait for the first task to be found. */
static enum err_code check_approvals(const struct conf *c, struct error *e)
{
	for (struct js_iter it = js_iter(js_get(c->root, "environments")); it.key; js_next(&it)) {
		struct policy *policy = NULL;
		enum err_code rc = policy_new(js_get(it.value, "approvals"), &policy, e);
		policy_free(policy);
		if (rc)
			return error_wrap(e, "environments.%s", it.key);
	}
	return ERR_OK;
}

static enum err_code check_layers(const struct conf *c, struct error *e)
{
	const char *layers = conf_layers(c);
	if (str_eq(layers, "auto") || str_eq(layers, "overlay") || str_eq(layers, "plain"))
		return ERR_OK;
	return error_set(e, ERR_INVALID, "sandbox.layers '%.40s': expected auto, overlay or plain", layers);
}

static enum err_code check_ids(const struct conf *c, struct error *e)
{
	const struct js *sandbox = js_get(c->root, "sandbox");
	int64_t id = 0;
	enum err_code rc = js_want_i64(sandbox, "sandbox", "uid", 1, SANDBOX_ID_MAX, &id, e); /* never root's */
	return rc ? rc : js_want_i64(sandbox, "sandbox", "gid", 1, SANDBOX_ID_MAX, &id, e);
}

static enum err_code check_source(const struct conf *c, struct error *e)
{
	static const char *const members[] = { "schemes", "allow_hosts", "deny_hosts", "private", "user_keys", "ssh_config", "submodules", "lfs", "depth", "credentials", NULL };
	const struct js *source = js_get(c->root, "source");
	bool flag = false;
	int64_t depth = 0;
	enum err_code rc = source ? js_check_members(source, "source", members, e) : ERR_OK;
	if (!rc)
		rc = policy_check_rules(source, e);
	if (!rc)
		rc = js_want_bool(source, "source", "submodules", &flag, e);
	if (!rc)
		rc = js_want_bool(source, "source", "lfs", &flag, e);
	if (!rc)
		rc = js_want_i64(source, "source", "depth", 0, SOURCE_DEPTH_MAX, &depth, e);
	return rc ? rc : secret_check_config(js_get(source, "credentials"), e);
}

static enum err_code check_cache(struct conf *c, struct error *e)
{
	static const char *const members[] = { "max_bytes", NULL };
	const struct js *cache = js_get(c->root, "cache"), *max = js_get(cache, "max_bytes");
	enum err_code rc = cache ? js_check_members(cache, "cache", members, e) : ERR_OK;
	c->cache_bytes = CACHE_BYTES_DEFAULT;
	if (rc || !max)
		return rc;
	if (js_type(max) == JS_INT)
		return js_want_i64(cache, "cache", "max_bytes", MIB, MIB << 20, &c->cache_bytes, e);
	return js_text(max) ? str_to_size(js_text(max), "cache.max_bytes", MIB, MIB << 20, &c->cache_bytes, e) :
			      error_set(e, ERR_INVALID, "cache.max_bytes must be a number or a text such as 20G");
}

static enum err_code check_hosts(const struct js *server, struct error *e)
{
	const struct js *hosts = js_get(server, "hosts");
	const char *listen = NULL;
	if (hosts && js_type(hosts) != JS_ARRAY)
		return error_set(e, ERR_INVALID, "server.hosts: expected a list of names, got %s", js_type_name(js_type(hosts)));
	for (size_t i = 0; i < js_len(hosts); i++)
		if (str_empty(js_text(js_at(hosts, i))))
			return error_set(e, ERR_INVALID, "server.hosts: expected names such as signalbox.example.org");
	return js_want_str(server, "server", "listen", &listen, e);
}

static enum err_code check_wires(const struct conf *c, struct error *e)
{
	for (struct js_iter it = js_iter(js_path(c->root, "model.providers")); it.key; js_next(&it)) {
		const char *wire = NULL;
		AUTO_FREE char *where = mem_printf("model.providers.%s", it.key);
		enum err_code rc = js_want_str(it.value, where, "wire", &wire, e);
		if (rc)
			return rc;
		if (wire && !str_eq(wire, "responses") && !str_eq(wire, "messages"))
			return error_set(e, ERR_INVALID, "%s.wire '%.40s': expected responses or messages", where, wire);
	}
	return ERR_OK;
}

static enum err_code check_all(struct conf *c, struct error *e)
{
	static const char *const top[] = { "limits", "model", "agents", "environments", "sandbox", "codex", "server", "source", "cache", "projects", "client", "run", NULL }; /* the last two are the command line's own */
	static const char *const model[] = { "default_provider", "default_model", "providers", NULL };
	static const char *const provider[] = { "base_url", "key", "key_env", "key_file", "wire", NULL };
	static const char *const agent[] = { "adapter", "command", "model", "env", "path", "config", "authenticate", "projects", NULL };
	static const char *const environment[] = { "setup", "setup_network", "verify", "env", "limits", "approvals", "projects", NULL };
	static const char *const sandbox[] = { "uid", "gid", "layers", NULL };
	static const char *const codex[] = { "path", NULL };
	static const char *const server[] = { "listen", "hosts", NULL };
	enum err_code rc = js_check_members(c->root, "", top, e);
	if (!rc && js_get(c->root, "model"))
		rc = js_check_members(js_get(c->root, "model"), "model", model, e);
	if (!rc && js_get(c->root, "sandbox"))
		rc = js_check_members(js_get(c->root, "sandbox"), "sandbox", sandbox, e);
	if (!rc && js_get(c->root, "codex"))
		rc = js_check_members(js_get(c->root, "codex"), "codex", codex, e);
	if (!rc && js_get(c->root, "server"))
		rc = js_check_members(js_get(c->root, "server"), "server", server, e);
	if (!rc)
		rc = check_hosts(js_get(c->root, "server"), e);
	if (!rc)
		rc = check_section(js_get(c->root, "model"), "providers", provider, e);
	if (!rc)
		rc = check_wires(c, e);
	if (!rc)
		rc = check_section(c->root, "agents", agent, e);
	if (!rc)
		rc = check_section(c->root, "environments", environment, e);
	if (!rc)
		rc = check_projects(c, "agents", e);
	if (!rc)
		rc = check_projects(c, "environments", e);
	if (!rc)
		rc = check_shares(c, e);
	if (!rc)
		rc = check_approvals(c, e);
	if (!rc)
		rc = check_layers(c, e);
	if (!rc)
		rc = check_ids(c, e);
	if (!rc)
		rc = check_source(c, e);
	if (!rc)
		rc = check_cache(c, e);
	return rc ? rc : check_limits(c, e);
}

int64_t conf_project_limit(const struct conf *c, const char *project, const char *name)
{
	const struct js *of = js_get(js_get(c->root, "projects"), project);
	bool waits = js_get(of, "running") && str_eq(name, "queued");
	return js_i64(of, name, waits ? PROJECT_QUEUED_DEFAULT : INT64_MAX);
}

bool conf_has_project_limit(const struct conf *c, const char *name)
{
	for (struct js_iter it = js_iter(js_get(c->root, "projects")); it.key; js_next(&it))
		if (conf_project_limit(c, it.key, name) != INT64_MAX)
			return true;
	return false;
}

const char *const conf_task_limit_names[] = { "memory", "pids", "cpu_percent", "file_size", "tmp", "output", "patch", "timeout", "setup_timeout",
	"fetch_timeout", "stall_timeout", "verify_timeout", "queue_timeout", "task_timeout", NULL };

static struct js *make_task_limits(const struct conf *c)
{
	struct js *limits_of_task = js_object();
	for (const char *const *name = conf_task_limit_names; *name; name++)
		js_set_int(limits_of_task, *name, conf_limit(c, *name));
	return limits_of_task;
}

const struct js *conf_task_limits(const struct conf *c)
{
	return c->task_limits;
}

enum err_code conf_load(const char *path, struct conf **ret, struct error *e)
{
	struct conf *c = NEW(struct conf);
	char **files = path ? NULL : paths_config_files();
	const char *use = path ? path : files[0];
	enum err_code rc = ERR_OK;
	c->path = mem_strdup(use ? use : "");
	c->empty = js_object();
	c->root = use ? yaml_load(use, e) : js_object();
	if (!c->root)
		rc = e ? e->code : ERR_INVALID;
	if (!rc)
		rc = check_all(c, e);
	if (!rc)
		c->task_limits = make_task_limits(c);
	if (rc)
		rc = error_wrap(e, "configuration '%s'", c->path);
	paths_free_list(files);
	if (rc)
		conf_free(c);
	else
		*ret = c;
	return rc;
}

void conf_free(struct conf *c)
{
	if (!c)
		return;
	js_free(c->root);
	js_free(c->empty);
	js_free(c->task_limits);
	free(c->path);
	free(c);
}

const char *conf_path(const struct conf *c)
{
	return c->path;
}

const struct js *conf_section(const struct conf *c, const char *name)
{
	return js_get(c->root, name);
}

int64_t conf_limit(const struct conf *c, const char *name)
{
	const struct limit *l = limit_find(name);
	return l ? c->limits[l - limits] : 0;
}

const struct js *conf_providers(const struct conf *c)
{
	const struct js *p = js_path(c->root, "model.providers");
	return p ? p : c->empty;
}

const char *conf_default_provider(const struct conf *c)
{
	const char *name = js_str(js_get(c->root, "model"), "default_provider");
	if (name)
		return name;
	struct js_iter first = js_iter(conf_providers(c));
	return first.key ? first.key : "openai";
}

const char *conf_default_model(const struct conf *c)
{
	return js_str(js_get(c->root, "model"), "default_model");
}

/* What the owner configured may hold what is his: other projects get what names them. */
static bool is_for(const struct js *one, const char *project)
{
	const struct js *list = js_get(one, "projects");
	bool found = str_eq(project, PROJECT_DEFAULT);
	for (size_t i = 0; !found && i < js_len(list); i++)
		found = str_eq(js_text(js_at(list, i)), project) || str_eq(js_text(js_at(list, i)), PROJECT_ANY);
	return found;
}

static const struct js *named(const struct conf *c, const char *section, const char *project, const char *name)
{
	const struct js *one = js_get(js_get(c->root, section), name);
	return one && is_for(one, project) ? one : NULL;
}

const struct js *conf_agent(const struct conf *c, const char *project, const char *name)
{
	return named(c, "agents", project, name);
}

const struct js *conf_environment(const struct conf *c, const char *project, const char *name)
{
	return named(c, "environments", project, name);
}

int64_t conf_sandbox_uid(const struct conf *c)
{
	return js_i64(js_get(c->root, "sandbox"), "uid", CONFIG_SANDBOX_ID);
}

int64_t conf_sandbox_gid(const struct conf *c)
{
	return js_i64(js_get(c->root, "sandbox"), "gid", conf_sandbox_uid(c));
}

const char *conf_layers(const struct conf *c)
{
	return js_str_or(js_get(c->root, "sandbox"), "layers", "auto");
}

const char *conf_codex_path(const struct conf *c)
{
	return js_str(js_get(c->root, "codex"), "path");
}

int64_t conf_cache_bytes(const struct conf *c)
{
	return c->cache_bytes;
}

struct js *conf_names(const struct conf *c, const char *project, const char *section)
{
	struct js *names = js_array();
	for (struct js_iter it = js_iter(js_get(c->root, section)); it.key; js_next(&it))
		if (is_for(it.value, project))
			js_push_str(names, it.key);
	return names;
}

enum err_code conf_provider_key(const struct js *provider, const char *name, char **ret, struct error *e)
{
	const char *key = js_str(provider, "key");
	const char *env = js_str(provider, "key_env");
	const char *file = js_str(provider, "key_file");
	if (!key && env)
		key = getenv(env);
	if (key) {
		*ret = mem_strdup(key);
		return ERR_OK;
	}
	if (file) {
		AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(KEY_MAX);
		enum err_code rc = file_read(file, KEY_MAX, &text, e);
		if (rc)
			return error_wrap(e, "key of model provider '%s'", name);
		while (text.len && (text.data[text.len - 1] == '\n' || text.data[text.len - 1] == ' '))
			text.data[--text.len] = 0;
		if (!text.len)
			return error_set(e, ERR_INVALID, "key of model provider '%s': the file '%s' is empty", name, file);
		*ret = strbuf_detach(&text);
		return ERR_OK;
	}
	return error_set(e, ERR_NOT_FOUND, "model provider '%s' has no key%s%s", name, env ? ": the environment variable is not set: " : "", env ? env : "");
}
