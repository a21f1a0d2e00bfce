/* From a request to a queued task: every member is checked, names are resolved, a local directory is snapshot, one transaction. */
#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "core/inside.h"
#include "core/retry.h"
#include "source/source.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROMPT_MAX ((size_t)1 << 20)
#define SETUP_MAX ((size_t)1 << 20)   /* what the runner takes */
#define VERIFY_MAX ((size_t)16 << 10) /* it stands in events and in the result */
#define LABELS_MAX 32
#define LABEL_TEXT_MAX 256
#define ENV_MAX 64
#define PRIORITY_LIMIT 1000
#define SNAPSHOT_TIMEOUT_MS ((int64_t)600000)
#define SNAPSHOT_QUEUE_S 30
#define SNAPSHOT_WAITERS_MAX 16 /* each holds a thread of the API */
#define SNAPSHOT_OUTPUT_MAX ((size_t)8 << 20)

static const char *const members[] = { "name", "source", "prompt", "agent", "model", "mode", "environment", "env", "setup", "setup_network",
	"verify", "priority", "labels", "timeout_ms", "stall_timeout_ms", "setup_timeout_ms", "limits", "retries", "retry", NULL };

static enum err_code check_string_map(const struct js *map, const char *where, size_t max, struct error *e)
{
	if (map && js_type(map) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "%s: expected an object, got %s", where, js_type_name(js_type(map)));
	if (js_len(map) > max)
		return error_set(e, ERR_LIMIT, "%s: %zu entries, at most %zu are allowed", where, js_len(map), max);
	for (struct js_iter it = js_iter(map); it.key; js_next(&it)) {
		if (!js_text(it.value))
			return error_set(e, ERR_INVALID, "%s.%s: expected a string, got %s", where, it.key, js_type_name(js_type(it.value)));
		if (str_empty(it.key) || strchr(it.key, '='))
			return error_set(e, ERR_INVALID, "%s: '%s' is not a usable name", where, it.key);
	}
	return ERR_OK;
}

static enum err_code check_labels(const struct js *labels, struct error *e)
{
	enum err_code rc = check_string_map(labels, "labels", LABELS_MAX, e);
	for (struct js_iter it = js_iter(labels); !rc && it.key; js_next(&it))
		if (strlen(it.key) > LABEL_TEXT_MAX || js_text_len(it.value) > LABEL_TEXT_MAX)
			rc = error_set(e, ERR_LIMIT, "labels.%.40s: longer than %d bytes", it.key, LABEL_TEXT_MAX);
	return rc;
}

static enum err_code check_name_and_prompt(const struct js *body, struct error *e)
{
	const char *name = NULL, *prompt = NULL;
	enum err_code rc = js_want_str(body, "", "name", &name, e);
	if (!rc && name && !str_is_name(name))
		rc = error_set(e, ERR_INVALID, "name '%.80s': expected a letter or digit, then up to 63 of letters, digits, '.', '_' and '-'", name);
	if (!rc && name && clock_is_id(name))
		rc = error_set(e, ERR_INVALID, "name '%s' looks like a generated id", name);
	if (!rc)
		rc = js_want_str(body, "", "prompt", &prompt, e);
	if (!rc && str_empty(prompt)) {
		rc = error_set(e, ERR_INVALID, "prompt: missing or empty");
		error_hint(e, "say what the agent shall do: signalbox run \"fix the failing test\"");
	}
	if (!rc && strlen(prompt) > PROMPT_MAX)
		rc = error_set(e, ERR_LIMIT, "prompt: %zu bytes, at most %zu are allowed", strlen(prompt), PROMPT_MAX);
	return rc;
}

static void list_names(struct strbuf *out, struct js *names_taken)
{
	for (size_t i = 0; i < js_len(names_taken); i++)
		strbuf_addf(out, "%s%s", out->len ? ", " : "", js_text(js_at(names_taken, i)));
	js_free(names_taken);
}

/* agent: a configured name, or the name of an adapter. */
static enum err_code resolve_agent(struct core *c, const struct js *body, struct js *spec, struct error *e)
{
	const char *name = NULL, *model = NULL, *mode = NULL;
	enum err_code rc = js_want_str(body, "", "agent", &name, e);
	if (!rc)
		rc = js_want_str(body, "", "model", &model, e);
	if (!rc)
		rc = js_want_str(body, "", "mode", &mode, e);
	if (rc)
		return rc;
	if (mode && !str_eq(mode, "code") && !str_eq(mode, "ask") && !str_eq(mode, "plan"))
		return error_set(e, ERR_INVALID, "mode '%.40s': expected code, ask or plan", mode);
	name = name ? name : "codex-exec";
	const struct js *configured = conf_agent(c->config, name);
	const char *adapter = js_str_or(configured, "adapter", name);
	AUTO_JS struct js *agent = configured ? js_copy(configured) : js_object();
	if (!agent_backend_find(adapter)) {
		AUTO_STRBUF struct strbuf known = STRBUF_INIT;
		agent_backend_names(&known);
		list_names(&known, conf_names(c->config, "agents"));
		error_set(e, ERR_INVALID, "unknown agent '%.80s'", name);
		error_hint(e, "known agents: %s", strbuf_str(&known));
		return ERR_INVALID;
	}
	model = model ? model : js_str(agent, "model");
	model = model ? model : conf_default_model(c->config);
	js_set_str(agent, "adapter", adapter);
	AUTO_FREE char *chosen = mem_strdup(model); /* it may be the very text that is replaced */
	js_set_str(agent, "model", chosen);
	js_set_str(agent, "mode", mode ? mode : "code");
	rc = agent_check(agent, conf_codex_path(c->config), e); /* fills in the program's path */
	if (rc)
		return rc;
	js_set_str(spec, "agent_name", name);
	js_set_str(spec, "model", chosen);
	js_set(spec, "agent", js_ref(agent));
	return ERR_OK;
}

static enum err_code check_length(const char *member, const char *text, size_t max, struct error *e)
{
	if (!text || strlen(text) <= max)
		return ERR_OK;
	return error_set(e, ERR_LIMIT, "%s: %zu bytes, at most %zu are allowed", member, strlen(text), max);
}

static enum err_code resolve_environment(struct core *c, const struct js *body, struct js *spec, struct error *e)
{
	const char *name = NULL, *setup = NULL, *network = NULL, *verify = NULL;
	enum err_code rc = js_want_str(body, "", "environment", &name, e);
	if (!rc)
		rc = js_want_str(body, "", "setup", &setup, e);
	if (!rc)
		rc = js_want_str(body, "", "setup_network", &network, e);
	if (!rc)
		rc = js_want_str(body, "", "verify", &verify, e);
	if (!rc)
		rc = check_string_map(js_get(body, "env"), "env", ENV_MAX, e);
	if (!rc)
		rc = check_length("setup", setup, SETUP_MAX, e);
	if (!rc)
		rc = check_length("verify", verify, VERIFY_MAX, e);
	if (rc)
		return rc;
	name = name ? name : "default";
	const struct js *known = conf_environment(c->config, name);
	if (!known && !str_eq(name, "default")) {
		AUTO_STRBUF struct strbuf names = STRBUF_INIT;
		strbuf_adds(&names, "default");
		list_names(&names, conf_names(c->config, "environments"));
		error_set(e, ERR_INVALID, "unknown environment '%.80s'", name);
		error_hint(e, "known environments: %s", strbuf_str(&names));
		return ERR_INVALID;
	}
	network = network ? network : js_str_or(known, "setup_network", "none");
	if (!str_eq(network, "none") && !str_eq(network, "host"))
		return error_set(e, ERR_INVALID, "setup_network '%.40s': expected none or host", network);
	struct js *env = js_get(known, "env") ? js_copy(js_get(known, "env")) : js_object();
	js_merge(env, js_get(body, "env"));
	struct js *out = js_object();
	js_set_str(out, "name", name);
	js_set_str(out, "setup", setup ? setup : js_str(known, "setup"));
	js_set_str(out, "setup_network", network);
	js_set_str(out, "verify", verify ? verify : js_str(known, "verify"));
	js_set(out, "env", env);
	js_set_str(spec, "environment_name", name);
	js_set(spec, "environment", out);
	return ERR_OK;
}

static enum err_code set_time_limit(const struct js *body, const char *member, const char *limit, struct js *limits, struct error *e)
{
	int64_t min = 0, max = 0, v = -1;
	bool duration;
	conf_limit_range(limit, &min, &max, &duration);
	enum err_code rc = js_want_i64(body, "", member, min, max, &v, e);
	if (!rc && v >= 0)
		js_set_int(limits, limit, v);
	return rc;
}

static enum err_code resolve_limits(struct core *c, const struct js *body, struct js *spec, struct error *e)
{
	static const char *const per_task[] = { "memory", "pids", "cpu_percent", "file_size", "tmp", "output", "patch", "timeout", "setup_timeout",
		"fetch_timeout", "stall_timeout", "verify_timeout", "queue_timeout", "task_timeout", NULL };
	AUTO_JS struct js *out = js_object();
	for (const char *const *name = per_task; *name; name++)
		js_set_int(out, *name, conf_limit(c->config, *name));
	const struct js *sets[] = { js_get(conf_environment(c->config, js_str(spec, "environment_name")), "limits"), js_get(body, "limits") };
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		enum err_code rc = sets[i] ? js_check_members(sets[i], "limits", per_task, e) : ERR_OK;
		for (struct js_iter it = js_iter(sets[i]); !rc && it.key; js_next(&it)) {
			int64_t v = 0;
			rc = conf_parse_limit(it.key, it.value, &v, e);
			if (!rc)
				js_set_int(out, it.key, v);
			else
				error_wrap(e, "limits");
		}
		if (rc)
			return rc;
	}
	enum err_code rc = set_time_limit(body, "timeout_ms", "timeout", out, e);
	if (!rc)
		rc = set_time_limit(body, "stall_timeout_ms", "stall_timeout", out, e);
	if (!rc)
		rc = set_time_limit(body, "setup_timeout_ms", "setup_timeout", out, e);
	if (!rc)
		js_set(spec, "limits", js_ref(out));
	return rc;
}

/* A place among the snapshots that are being made: waited for, but only by so many and so long. */
static enum err_code snapshot_enter(struct core *c, struct error *e)
{
	enum err_code rc = ERR_OK;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += SNAPSHOT_QUEUE_S;
	pthread_mutex_lock(&c->sched_lock);
	bool waits = c->snapshots_waiting < SNAPSHOT_WAITERS_MAX;
	c->snapshots_waiting++;
	while (waits && c->snapshots_now >= conf_limit(c->config, "snapshots"))
		waits = pthread_cond_timedwait(&c->snapshot_left, &c->sched_lock, &until) == 0;
	c->snapshots_waiting--;
	if (c->snapshots_now >= conf_limit(c->config, "snapshots"))
		rc = error_set(e, ERR_LIMIT, "%d snapshots of local directories are being made already (limits.snapshots)", c->snapshots_now);
	else
		c->snapshots_now++;
	pthread_mutex_unlock(&c->sched_lock);
	if (rc)
		error_hint(e, "try again in a moment");
	return rc;
}

static void snapshot_leave(struct core *c)
{
	pthread_mutex_lock(&c->sched_lock);
	c->snapshots_now--;
	pthread_cond_signal(&c->snapshot_left);
	pthread_mutex_unlock(&c->sched_lock);
}

/* The last line of `signalbox fetch` decides. */
static enum err_code snapshot_answer(const struct strbuf *out, int status, struct js **ret, struct error *e)
{
	const char *end = strbuf_str(out) + out->len;
	while (end > strbuf_str(out) && end[-1] == '\n')
		end--;
	const char *line = end;
	while (line > strbuf_str(out) && line[-1] != '\n')
		line--;
	AUTO_JS struct js *last = js_parse(line, (size_t)(end - line), NULL);
	const struct js *failed = js_get(last, "error");
	if (failed) {
		enum err_code code = err_from_name(js_str_or(failed, "code", "failed"));
		error_set(e, code, "%s", js_str_or(failed, "text", "the snapshot failed"));
		if (js_str(failed, "hint"))
			error_hint(e, "%s", js_str(failed, "hint"));
		return code;
	}
	if (!js_get(last, "result"))
		return error_set(e, ERR_FAILED, "the snapshot ended with status %d and no result", status);
	*ret = js_ref(js_get(last, "result"));
	return ERR_OK;
}

static enum err_code run_snapshot(struct core *c, const char *dir, struct js **ret, struct error *e)
{
	AUTO_FREE char *cache = mem_printf("%s/cache/default", c->data);
	AUTO_JS struct js *job = js_object();
	js_set_str(job, "kind", "snapshot");
	js_set_str(job, "dir", dir);
	js_set_str(job, "cache", cache);
	js_set_int(job, "uid", (int64_t)c->uid);
	js_set_int(job, "gid", (int64_t)c->gid);
	AUTO_FREE char *text = js_dump(job);
	const char *argv[] = { c->exe, "fetch", NULL };
	struct proc_spec spec = PROC_SPEC_INIT;
	spec.argv = argv;
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(SNAPSHOT_OUTPUT_MAX);
	int status = 0;
	enum err_code rc = proc_run(&spec, text, strlen(text), SNAPSHOT_TIMEOUT_MS, &out, NULL, &status, e);
	if (!rc)
		rc = snapshot_answer(&out, status, ret, e);
	return rc ? error_wrap(e, "snapshot of '%s'", dir) : ERR_OK;
}

/* The snapshot of nothing is always the same: made once while we live. NULL until then; a copy is the caller's. */
static struct js *empty_snapshot(struct core *c, const struct js *made)
{
	pthread_mutex_lock(&c->sched_lock);
	if (made && !c->empty_snapshot)
		c->empty_snapshot = js_copy(made);
	struct js *copy = c->empty_snapshot ? js_copy(c->empty_snapshot) : NULL;
	pthread_mutex_unlock(&c->sched_lock);
	return copy;
}

static enum err_code make_snapshot(struct core *c, const char *dir, struct js **ret, struct error *e)
{
	AUTO_FREE char *empty = mem_printf("%s/cache/empty", c->data);
	enum err_code rc = dir ? ERR_OK : file_mkdirs(empty, 0755, e);
	if (!rc)
		rc = snapshot_enter(c, e);
	if (rc)
		return rc;
	rc = run_snapshot(c, dir ? dir : empty, ret, e);
	snapshot_leave(c);
	if (!rc && !dir)
		js_free(empty_snapshot(c, *ret));
	return rc;
}

/* Local sources are fixed now, at submit: what the person sees is what the agent gets. */
static enum err_code take_snapshot(struct core *c, struct js *source, struct error *e)
{
	static const char *const kept[] = { "store", "commit", "tree", "head", "branch", "prefix", "warnings", NULL };
	const char *dir = js_str(source, "dir");
	AUTO_JS struct js *result = dir ? NULL : empty_snapshot(c, NULL);
	enum err_code rc = result ? ERR_OK : make_snapshot(c, dir, &result, e);
	for (const char *const *k = kept; !rc && *k; k++)
		if (js_get(result, *k))
			js_set(source, *k, js_ref(js_get(result, *k)));
	return rc;
}

static enum err_code resolve_source(struct core *c, const struct js *body, struct js *spec, char **ret_repo, struct error *e)
{
	const struct js *given = js_get(body, "source");
	AUTO_JS struct js *source = given ? js_copy(given) : js_object();
	if (!given)
		js_set_str(source, "kind", "none");
	enum err_code rc = source_check(source, e);
	if (!rc)
		rc = source_repo_key(source, ret_repo, e);
	if (!rc && !str_eq(js_str(source, "kind"), "git"))
		rc = take_snapshot(c, source, e);
	if (!rc)
		js_set(spec, "source", js_ref(source));
	return rc;
}

struct submit {
	struct task_row row;
	struct task_birth birth;
};

/* The count is at most a tick old: the limit is a ceiling for memory and disk, not a turnstile. */
static enum err_code check_queue(struct core *c, struct error *e)
{
	int64_t limit = conf_limit(c->config, "queued");
	if ((int64_t)atomic_load(&c->queued_about) < limit)
		return ERR_OK;
	error_set(e, ERR_LIMIT, "%lld tasks wait in the queue already (limits.queued)", (long long)limit);
	error_hint(e, "try again when some have ended");
	return ERR_LIMIT;
}

static enum err_code submit_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct submit *s = arg;
	return task_insert(conn, &s->birth, e);
}

static struct js *created_data(const struct task_row *t)
{
	struct js *data = js_object();
	js_set(data, "name", js_string(t->name));
	js_set(data, "source", js_ref(js_get(t->spec, "source")));
	js_set_str(data, "agent", js_str(t->spec, "agent_name"));
	js_set_int(data, "priority", t->priority);
	return data;
}

static enum err_code resolve(struct core *c, const struct js *body, struct submit *s, struct error *e)
{
	enum err_code rc = check_queue(c, e);
	if (!rc)
		rc = js_check_members(body, "", members, e);
	if (!rc)
		rc = check_name_and_prompt(body, e);
	if (!rc)
		rc = check_labels(js_get(body, "labels"), e);
	if (!rc)
		rc = js_want_i64(body, "", "priority", -PRIORITY_LIMIT, PRIORITY_LIMIT, &s->row.priority, e);
	if (!rc)
		rc = resolve_agent(c, body, s->row.spec, e);
	if (!rc)
		rc = resolve_environment(c, body, s->row.spec, e);
	if (!rc)
		rc = resolve_limits(c, body, s->row.spec, e);
	struct js *retry = NULL;
	if (!rc)
		rc = retry_parse(body, &retry, e);
	if (!rc)
		js_set(s->row.spec, "retry", retry);
	if (!rc)
		rc = resolve_source(c, body, s->row.spec, &s->row.repo, e);
	return rc;
}

enum err_code core_submit(struct core *c, const char *who, const struct js *body, struct js **ret_task, struct error *e)
{
	struct submit s = { .row = { .phase = PHASE_QUEUED } };
	char session[ID_SIZE];
	clock_new_id(s.row.id);
	clock_new_id(session);
	s.row.spec = js_object();
	js_set_str(s.row.spec, "prompt", js_str(body, "prompt"));
	s.row.name = mem_strdup(js_str(body, "name"));
	s.row.project = mem_strdup("default");
	s.row.created_by = mem_strdup(who);
	s.row.session_id = mem_strdup(session);
	s.row.created_at = clock_wall_ms();
	s.row.labels = js_get(body, "labels") ? js_copy(js_get(body, "labels")) : js_object();
	enum err_code rc = resolve(c, body, &s, e);
	if (!rc) {
		task_birth_make(&s.birth, &s.row, created_data(&s.row));
		rc = db_write(c->db, submit_op, &s, e);
	}
	if (!rc) {
		atomic_fetch_add(&c->submitted, 1);
		atomic_fetch_add(&c->queued_about, 1);
		hub_announce(c->hub, s.birth.line);
		/* A queued task has no directory yet; only a local source has a heartbeat file to write now. */
		if (js_str(js_get(s.row.spec, "source"), "dir"))
			taskdir_dirty(c, s.row.id);
		AUTO_FREE char *dir = core_task_dir(c, s.row.id);
		s.row.last_seq = 1;
		*ret_task = task_to_js(&s.row, dir);
		sched_ask_queued(c);
	}
	task_birth_release(&s.birth);
	task_row_release(&s.row);
	return rc;
}
