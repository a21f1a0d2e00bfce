/* From a request to a queued task: every member is checked, names are resolved, a local directory is snapshot, one transaction. */
#include "agent/agent.h"
#include "agent/policy.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/feed.h"
#include "core/fetch_child.h"
#include "core/inside.h"
#include "core/proof.h"
#include "core/retry.h"
#include "core/share.h"
#include "core/uploads.h"
#include "core/task_check.h"
#include "source/source.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROMPT_MAX ((size_t)1 << 20)
#define SETUP_MAX ((size_t)1 << 20)   /* what the runner takes */
#define VERIFY_MAX ((size_t)16 << 10) /* it stands in events and in the result */
#define ENV_MAX 64
#define SNAPSHOT_TIMEOUT_MS ((int64_t)600000)
#define SNAPSHOT_QUEUE_S 30
#define SNAPSHOT_WAITERS_MAX 16 /* each holds a thread of the API */

static const char *const members[] = { "name", "source", "prompt", "agent", "model", "mode", "environment", "env", "setup", "setup_network",
	"verify", "priority", "labels", "timeout_ms", "stall_timeout_ms", "setup_timeout_ms", "limits", "retries", "retry", "approvals", "require", NULL };

static enum err_code check_name_and_prompt(const struct js *body, struct error *e)
{
	const char *name = NULL, *prompt = NULL;
	enum err_code rc = js_want_str(body, "", "name", &name, e);
	if (!rc && name)
		rc = task_check_name(name, e);
	if (!rc)
		rc = js_want_str(body, "", "prompt", &prompt, e);
	if (!rc && str_empty(prompt)) {
		rc = error_set(e, ERR_INVALID, "prompt: missing or empty");
		error_hint(e, "say what the agent shall do: signalbox run \"fix the failing test\"");
	}
	if (!rc && strlen(prompt) > PROMPT_MAX)
		rc = error_set(e, ERR_TOO_LARGE, "prompt: %zu bytes, at most %zu are allowed", strlen(prompt), PROMPT_MAX);
	return rc;
}

static void list_names(struct strbuf *out, struct js *names_taken)
{
	for (size_t i = 0; i < js_len(names_taken); i++)
		strbuf_addf(out, "%s%s", out->len ? ", " : "", js_text(js_at(names_taken, i)));
	js_free(names_taken);
}

/* agent: a configured name, or the name of an adapter. */
static enum err_code resolve_agent(struct core *c, const char *project, const struct js *body, struct js *spec, struct error *e)
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
	name = name ? name : "codex";
	const struct js *configured = conf_agent(c->config, project, name);
	const char *adapter = js_str_or(configured, "adapter", name);
	AUTO_JS struct js *agent = js_object(); /* its own members; what is in them is the configuration's */
	js_merge(agent, configured);
	if (!agent_backend_find(adapter)) {
		AUTO_STRBUF struct strbuf known = STRBUF_INIT;
		agent_backend_names(&known);
		list_names(&known, conf_names(c->config, project, "agents"));
		error_set(e, ERR_INVALID, "unknown agent '%.80s'", name);
		error_hint(e, "known agents: %s", strbuf_str(&known));
		return ERR_INVALID;
	}
	model = model ? model : js_str(agent, "model");
	model = model ? model : conf_default_model(c->config);
	js_del(agent, "projects");
	js_set_str(agent, "adapter", adapter);
	AUTO_JS struct js *chosen = model ? js_string(model) : NULL; /* the text may be the very one that is replaced */
	if (chosen)
		js_set(agent, "model", js_ref(chosen));
	js_set_str(agent, "mode", mode ? mode : "code");
	rc = agent_check(agent, conf_codex_path(c->config), e); /* fills in the program's path */
	if (rc)
		return rc;
	js_set_str(spec, "agent_name", name);
	if (chosen)
		js_set(spec, "model", js_ref(chosen));
	js_set(spec, "agent", js_ref(agent));
	return ERR_OK;
}

static enum err_code check_length(const char *member, const char *text, size_t max, struct error *e)
{
	if (!text || strlen(text) <= max)
		return ERR_OK;
	return error_set(e, ERR_TOO_LARGE, "%s: %zu bytes, at most %zu are allowed", member, strlen(text), max);
}

/* Setup scripts with the host's network reach what listens on this machine: for the owner to give. */
static enum err_code check_network(const char *project, const char *network, const struct js *known, struct error *e)
{
	if (!str_eq(network, "none") && !str_eq(network, "host"))
		return error_set(e, ERR_INVALID, "setup_network '%.40s': expected none or host", network);
	if (str_eq(network, "none") || str_eq(project, PROJECT_DEFAULT) || str_eq(js_str(known, "setup_network"), "host"))
		return ERR_OK;
	error_set(e, ERR_DENIED, "setup_network: the project '%s' may not use the host's network for its setup", project);
	error_hint(e, "ask the server's owner for an environment that does (environments.NAME: setup_network: host, projects: [%s])", project);
	return ERR_DENIED;
}

static enum err_code resolve_environment(struct core *c, const char *project, const struct js *body, struct js *spec, struct error *e)
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
		rc = task_check_strings(js_get(body, "env"), "env", ENV_MAX, e);
	if (!rc)
		rc = check_length("setup", setup, SETUP_MAX, e);
	if (!rc)
		rc = check_length("verify", verify, VERIFY_MAX, e);
	if (rc)
		return rc;
	name = name ? name : "default";
	const struct js *known = conf_environment(c->config, project, name);
	if (!known && !str_eq(name, "default")) {
		AUTO_STRBUF struct strbuf names = STRBUF_INIT;
		strbuf_adds(&names, "default");
		list_names(&names, conf_names(c->config, project, "environments"));
		error_set(e, ERR_INVALID, "unknown environment '%.80s'", name);
		error_hint(e, "known environments: %s", strbuf_str(&names));
		return ERR_INVALID;
	}
	network = network ? network : js_str_or(known, "setup_network", "none");
	rc = check_network(project, network, known, e);
	if (rc)
		return rc;
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

/* What is asked: the environment's rules, with the request's own words over them. And what the agent must be able to do. */
static enum err_code resolve_approvals(struct core *c, const char *project, const struct js *body, struct js *spec, struct error *e)
{
	const struct js *known = js_get(conf_environment(c->config, project, js_str_or(spec, "environment_name", "default")), "approvals");
	const struct js *given = js_get(body, "approvals"), *required = js_get(body, "require");
	AUTO_JS struct js *approvals = known ? js_copy(known) : js_object();
	struct policy *policy = NULL;
	if (given && js_type(given) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "approvals: expected an object, got %s", js_type_name(js_type(given)));
	if (required && js_type(required) != JS_ARRAY)
		return error_set(e, ERR_INVALID, "require: expected an array, got %s", js_type_name(js_type(required)));
	js_merge(approvals, given);
	enum err_code rc = policy_new(approvals, &policy, e);
	policy_free(policy);
	if (!rc && required)
		rc = agent_check_required(js_str_or(js_get(spec, "agent"), "adapter", ""), required, e);
	if (!rc && js_len(approvals))
		js_set(spec, "approvals", js_ref(approvals));
	if (!rc && js_len(required))
		js_set(spec, "require", js_copy(required));
	return rc;
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

static enum err_code resolve_limits(struct core *c, const char *project, const struct js *body, struct js *spec, struct error *e)
{
	const struct conf *config = c->config;
	const struct js *sets[] = { js_get(conf_environment(config, project, js_str(spec, "environment_name")), "limits"), js_get(body, "limits") };
	if (!sets[0] && !sets[1] && !js_get(body, "timeout_ms") && !js_get(body, "stall_timeout_ms") && !js_get(body, "setup_timeout_ms")) {
		js_set(spec, "limits", js_ref(conf_task_limits(config))); /* shared: nobody changes a task's specification */
		return ERR_OK;
	}
	AUTO_JS struct js *out = js_copy(conf_task_limits(config));
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		enum err_code rc = sets[i] ? js_check_members(sets[i], "limits", conf_task_limit_names, e) : ERR_OK;
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
		rc = error_set(e, ERR_LIMIT, "%d snapshots are being made already (limits.snapshots)", c->snapshots_now);
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

static enum err_code run_snapshot(struct core *c, const char *project, const char *dir, struct js **ret, struct error *e)
{
	AUTO_JS struct js *job = js_object();
	js_set_str(job, "kind", "snapshot");
	js_set_str(job, "dir", dir);
	enum err_code rc = fetch_child_run(c, project, job, -1, SNAPSHOT_TIMEOUT_MS, ret, e);
	return rc ? error_wrap(e, "snapshot of '%s'", dir) : ERR_OK;
}

static enum err_code run_unpack(struct core *c, struct caller by, struct js *source, struct js **ret, struct error *e)
{
	const char *upload = js_str(source, "upload");
	AUTO_JS struct js *known = NULL, *job = js_object(), *limits = js_object();
	AUTO_CLOSE int fd = -1;
	enum err_code rc = upload_open(c, by, upload, &fd, &known, e);
	if (rc)
		return rc;
	js_set_int(limits, "files", conf_limit(c->config, "archive_files"));
	js_set_int(limits, "bytes", conf_limit(c->config, "archive_bytes"));
	js_set_int(limits, "file_bytes", conf_limit(c->config, "archive_file"));
	js_set_int(limits, "ratio", conf_limit(c->config, "archive_ratio"));
	js_set_bool(limits, "keep_top", js_flag(source, "keep_top", false));
	js_set_str(job, "kind", "archive");
	js_set(job, "limits", js_ref(limits));
	rc = fetch_child_unpack(c, by.project, job, fd, SNAPSHOT_TIMEOUT_MS, ret, e);
	js_set_str(source, "name", js_str(known, "name"));
	return rc ? error_wrap(e, "archive '%s'", js_str_or(known, "name", upload)) : ERR_OK;
}

/* The snapshot of nothing is always the same: made once while we live, by the first who needs it; the others wait for him. NULL: make it, and
 * call empty_snapshot_done.  Nobody changes it. */
static struct js *empty_snapshot(struct core *c)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += SNAPSHOT_QUEUE_S;
	pthread_mutex_lock(&c->sched_lock);
	while (!c->empty_snapshot && c->empty_making)
		if (pthread_cond_timedwait(&c->empty_made, &c->sched_lock, &until))
			break;
	struct js *made = js_ref(c->empty_snapshot);
	c->empty_making = c->empty_making || !made;
	pthread_mutex_unlock(&c->sched_lock);
	return made;
}

/* made NULL: it failed, and the next one tries. */
static void empty_snapshot_done(struct core *c, const struct js *made)
{
	pthread_mutex_lock(&c->sched_lock);
	if (made && !c->empty_snapshot)
		c->empty_snapshot = js_ref(made);
	c->empty_making = false;
	pthread_cond_broadcast(&c->empty_made);
	pthread_mutex_unlock(&c->sched_lock);
}

static enum err_code make_snapshot(struct core *c, struct caller by, struct js *source, struct js **ret, struct error *e)
{
	AUTO_FREE char *empty = mem_printf("%s/cache/empty", c->data);
	const char *dir = js_str(source, "dir");
	bool is_archive = js_str(source, "upload") != NULL;
	enum err_code rc = dir || is_archive ? ERR_OK : file_mkdirs(empty, 0755, e);
	if (!rc)
		rc = snapshot_enter(c, e);
	if (rc)
		return rc;
	rc = is_archive ? run_unpack(c, by, source, ret, e) : run_snapshot(c, by.project, dir ? dir : empty, ret, e);
	snapshot_leave(c);
	return rc;
}

/* Local sources and archives are fixed now, at submit: what the person sees is what the agent gets. */
static enum err_code take_snapshot(struct core *c, struct caller by, struct js *source, struct error *e)
{
	static const char *const kept[] = { "store", "commit", "tree", "head", "branch", "prefix", "top", "warnings", NULL };
	/* Remembered is that of the default project: what others need is in caches of theirs. */
	bool is_empty = !js_str(source, "dir") && !js_str(source, "upload") && str_eq(by.project, PROJECT_DEFAULT);
	AUTO_JS struct js *result = is_empty ? empty_snapshot(c) : NULL;
	bool makes = !result;
	enum err_code rc = makes ? make_snapshot(c, by, source, &result, e) : ERR_OK;
	if (makes && is_empty)
		empty_snapshot_done(c, result);
	for (const char *const *k = kept; !rc && *k; k++)
		if (js_get(result, *k))
			js_set(source, *k, js_ref(js_get(result, *k)));
	return rc;
}

/* Asked before anything is looked at: whether a file is there is nobody's business either. */
static enum err_code check_local(struct caller by, const struct js *source, struct error *e)
{
	if (by.local || !source_is_local(source))
		return ERR_OK;
	error_set(e, ERR_DENIED, "%s of the project '%s' may not name directories of the server's machine", by.who, by.project);
	error_hint(e, "give a repository's URL, or send the files as an archive: signalbox run --archive FILE (POST /v1/uploads)");
	return ERR_DENIED;
}

static enum err_code resolve_source(struct core *c, struct caller by, const struct js *body, struct js *spec, char **ret_repo, struct error *e)
{
	const struct js *given = js_get(body, "source");
	AUTO_JS struct js *source = given ? js_copy(given) : js_object();
	if (!given)
		js_set_str(source, "kind", "none");
	enum err_code rc = check_local(by, source, e);
	if (!rc)
		rc = source_check(source, e);
	if (!rc)
		rc = source_repo_key(source, ret_repo, e);
	if (!rc && js_str(source, "dir") && js_str(source, "ref"))
		source_make_repository(source);
	if (!rc)
		rc = str_eq(js_str(source, "kind"), "git") ? proof_take(c, by.project, source, e) : take_snapshot(c, by, source, e);
	if (!rc)
		js_set(spec, "source", js_ref(source));
	return rc;
}

struct submission {
	struct core *core;
	struct task_row row;
	struct task_birth birth;
	struct error *failure; /* of the write, or NULL */
	bool has_place;	       /* in its project's share of the queue, which goes back unless a task comes of it */
	void (*then)(void *arg);
	void *then_arg;
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
	struct submission *s = arg;
	return task_insert(conn, &s->birth, e);
}

static enum err_code resolve(struct core *c, struct caller by, const struct js *body, struct submission *s, struct error *e)
{
	enum err_code rc = check_queue(c, e);
	if (!rc)
		rc = js_check_members(body, "", members, e);
	if (!rc)
		rc = check_name_and_prompt(body, e);
	if (!rc)
		rc = task_check_labels(js_get(body, "labels"), e);
	if (!rc)
		rc = js_want_i64(body, "", "priority", -PRIORITY_LIMIT, PRIORITY_LIMIT, &s->row.priority, e);
	if (!rc)
		rc = resolve_agent(c, by.project, body, s->row.spec, e);
	if (!rc)
		rc = resolve_environment(c, by.project, body, s->row.spec, e);
	if (!rc)
		rc = resolve_approvals(c, by.project, body, s->row.spec, e);
	if (!rc)
		rc = resolve_limits(c, by.project, body, s->row.spec, e);
	struct js *retry = NULL;
	if (!rc)
		rc = retry_parse(body, &retry, e);
	if (!rc)
		js_set(s->row.spec, "retry", retry);
	if (!rc)
		rc = resolve_source(c, by, body, s->row.spec, &s->row.repo, e);
	if (!rc)
		rc = share_take_queued(c, by.project, e);
	s->has_place = !rc;
	return rc;
}

enum err_code core_submit_begin(struct core *c, struct caller by, const struct js *body, struct submission **ret, struct error *e)
{
	struct submission *s = NEW(struct submission);
	char session[ID_SIZE];
	clock_new_id(session);
	s->core = c;
	s->row = (struct task_row){ .phase = PHASE_QUEUED, .name = mem_strdup(js_str(body, "name")), .project = mem_strdup(by.project),
		.created_by = mem_strdup(by.who), .session_id = mem_strdup(session), .created_at = clock_wall_ms(), .last_seq = 1, .spec = js_object() };
	clock_new_id(s->row.id);
	js_set_str(s->row.spec, "prompt", js_str(body, "prompt"));
	s->row.labels = js_get(body, "labels") ? js_ref(js_get(body, "labels")) : js_object();
	enum err_code rc = resolve(c, by, body, s, e);
	if (rc) {
		core_submission_free(s);
		return rc;
	}
	task_birth_make(&s->birth, &s->row);
	*ret = s;
	return ERR_OK;
}

/* After the commit, also when nobody hears the answer any more. */
static void submitted(struct submission *s)
{
	struct core *c = s->core;
	s->has_place = false; /* it is the task's now */
	atomic_fetch_add(&c->submitted, 1);
	atomic_fetch_add(&c->queued_about, 1);
	feed_publish(c, s->birth.n, s->row.project, s->row.id, s->birth.line);
	/* A queued task has no directory yet; only a local source has a heartbeat file to write now. */
	if (js_str(js_get(s->row.spec, "source"), "dir"))
		taskdir_dirty(c, s->row.id);
	sched_ask_queued(c);
}

static void written(void *arg, const struct error *e)
{
	struct submission *s = arg;
	if (!e) {
		submitted(s);
	} else {
		s->failure = NEW(struct error);
		*s->failure = *e;
	}
	s->then(s->then_arg); /* it may be gone after this */
}

void core_submit_commit(struct submission *s, void (*then)(void *arg), void *arg)
{
	s->then = then;
	s->then_arg = arg;
	struct error e = ERROR_INIT;
	if (db_write_later(s->core->db, submit_op, s, written, s, &e))
		written(s, &e);
}

enum err_code core_submit_end(struct submission *s, char **ret_task, struct error *e)
{
	if (s->failure) {
		*e = *s->failure;
		return e->code;
	}
	AUTO_FREE char *dir = core_task_dir(s->core, s->row.id);
	*ret_task = task_to_text(&s->row, dir);
	return ERR_OK;
}

void core_submission_free(struct submission *s)
{
	if (!s)
		return;
	if (s->has_place)
		share_leave_queue(s->core, s->row.project);
	task_birth_release(&s->birth);
	task_row_release(&s->row);
	free(s->failure);
	free(s);
}

enum err_code core_submit(struct core *c, struct caller by, const struct js *body, char **ret_task, struct error *e)
{
	struct submission *s = NULL;
	enum err_code rc = core_submit_begin(c, by, body, &s, e);
	if (rc)
		return rc;
	rc = db_write_again(c->db, submit_op, s, e);
	if (!rc) {
		submitted(s);
		rc = core_submit_end(s, ret_task, e);
	}
	core_submission_free(s);
	return rc;
}
