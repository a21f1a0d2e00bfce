/* The server's heart: opening and closing, and what it says of itself. */
#include "core/core.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "core/cache.h"
#include "core/external.h"
#include "core/feed.h"
#include "core/inside.h"
#include "core/shown.h"
#include "core/migrations.h"
#include "core/paths.h"
#include "core/share.h"
#include "core/uploads.h"
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define STOP_POLL_MS 20
#define DISK_LOW_BYTES ((uint64_t)256 << 20)
#define LOCK_WAIT_MS 2000 /* a killed server's child holds it until its exec */
#define LOCK_STEP_MS 10

static enum err_code make_data_dir(struct core *c, struct error *e)
{
	static const char *const dirs[] = { "tasks", "work", "cache", "tools", NULL };
	enum err_code rc = file_mkdirs(c->data, 0711, e);
	for (const char *const *d = dirs; !rc && *d; d++) {
		AUTO_FREE char *path = file_join(c->data, *d);
		rc = file_mkdirs(path, 0711, e);
	}
	AUTO_FREE char *lock = file_join(c->data, "server.lock");
	int64_t until = clock_mono_ms() + LOCK_WAIT_MS;
	if (!rc)
		while ((rc = file_lock(lock, false, &c->lock_fd, e)) == ERR_BUSY && clock_mono_ms() < until)
			poll(NULL, 0, LOCK_STEP_MS);
	if (rc == ERR_BUSY) {
		error_set(e, ERR_CONFLICT, "another server uses the data directory '%s'", c->data);
		error_hint(e, "use that one, or give this one a directory of its own: --data DIR");
		return ERR_CONFLICT;
	}
	return rc;
}

static enum err_code find_helpers(struct core *c, struct error *e)
{
	c->exe = proc_self_path();
	c->runner_path = proc_helper_path("signalbox-runner");
	c->init_path = proc_helper_path("signalbox-init");
	if (c->runner_path && c->init_path)
		return ERR_OK;
	error_set(e, ERR_UNSUPPORTED, "the helper '%s' was not found beside '%s'", c->runner_path ? "signalbox-init" : "signalbox-runner", c->exe);
	error_hint(e, "build it with make, or install the whole of Signalbox");
	return ERR_UNSUPPORTED;
}

/* As root the sandboxes' uid must be able to come here. */
static enum err_code check_traversable(struct core *c, struct error *e)
{
	AUTO_FREE char *at = mem_strdup(c->data);
	while (c->root && strlen(at) > 1) {
		struct stat st;
		if (stat(at, &st) == 0 && !(st.st_mode & S_IXOTH) && st.st_uid != c->uid) {
			error_set(e, ERR_UNSUPPORTED, "sandboxes run as uid %u, which cannot enter '%s'", (unsigned)c->uid, at);
			error_hint(e, "chmod o+x '%s', or choose another data directory: --data DIR", at);
			return ERR_UNSUPPORTED;
		}
		char *up = file_dirname(at);
		free(at);
		at = up;
	}
	return ERR_OK;
}

/* What the configuration wants of what the probe found. */
static enum err_code choose_layers(struct core *c, struct error *e)
{
	const char *wanted = conf_layers(c->config);
	if (str_eq(wanted, "overlay") && !c->probe.overlay) {
		error_set(e, ERR_UNSUPPORTED, "sandbox.layers is overlay, which is refused here: %s", c->probe.why);
		error_hint(e, "set sandbox.layers to auto: workspaces are then copied");
		return ERR_UNSUPPORTED;
	}
	c->probe.overlay = c->probe.overlay && !str_eq(wanted, "plain");
	return ERR_OK;
}

static enum err_code open_parts(struct core *c, const struct core_options *o, struct error *e)
{
	AUTO_FREE char *db_path = file_join(c->data, "signalbox.db");
	AUTO_FREE char *work = file_join(c->data, "work");
	struct conf *config = NULL;
	enum err_code rc = conf_load(o->config_path, &config, e);
	if (rc)
		return rc;
	c->config = config;
	c->uid = c->root ? (uid_t)conf_sandbox_uid(c->config) : geteuid();
	c->gid = c->root ? (gid_t)conf_sandbox_gid(c->config) : getegid();
	rc = make_data_dir(c, e);
	if (!rc)
		rc = check_traversable(c, e);
	if (!rc)
		rc = paths_make_runtime(c->runtime, e);
	if (!rc)
		rc = find_helpers(c, e);
	/* The probe starts processes by clone, which is safe only while we have one thread: before the database and the listeners. */
	if (!rc)
		sandbox_probe(work, c->uid, c->gid, &c->probe);
	if (!rc)
		rc = choose_layers(c, e);
	if (!rc)
		rc = seal_open_key(c->data, c->seal_key, e);
	if (!rc)
		rc = db_open(db_path, migrations, migration_count, &c->db, e);
	if (!rc)
		rc = tokens_load(c, e);
	return rc;
}

enum err_code core_open(const struct core_options *o, struct core **ret, struct error *e)
{
	struct core *c = NEW(struct core);
	pthread_condattr_t attr;
	c->lock_fd = -1;
	c->root = geteuid() == 0;
	c->data = o->data_dir ? mem_strdup(o->data_dir) : paths_data_dir();
	c->runtime = o->runtime_dir ? mem_strdup(o->runtime_dir) : paths_runtime_dir();
	c->socket = paths_socket(c->runtime);
	c->runner_socket = file_join(c->runtime, "runner.sock");
	pthread_mutex_init(&c->sched_lock, NULL);
	pthread_mutex_init(&c->launching, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->sched_wake, &attr);
	pthread_cond_init(&c->snapshot_left, &attr);
	pthread_cond_init(&c->empty_made, &attr);
	pthread_condattr_destroy(&attr);
	c->hub = hub_new();
	shares_start(c);
	c->shown = shown_new();
	c->tokens = tokens_new();
	cache_open(c);
	c->config_option = mem_strdup(o->config_path);
	pthread_mutex_init(&c->reloading, NULL);
	enum err_code rc = sodium_init() < 0 ? error_set(e, ERR_INTERNAL, "libsodium does not start") : ERR_OK;
	if (!rc)
		rc = open_parts(c, o, e);
	if (!rc)
		rc = uploads_start(c, e);
	if (rc)
		core_close(c);
	else
		*ret = c;
	return rc;
}

enum err_code core_start(struct core *c, struct error *e)
{
	enum err_code rc = feed_start(c, e);
	if (!rc)
		rc = taskdir_start(c, e);
	if (!rc)
		rc = external_start(c, e);
	if (!rc)
		rc = gateway_ctl_start(c, e);
	if (!rc)
		rc = reaper_start(c, e);
	if (!rc)
		rc = reaper_adopt_all(c, e);
	if (!rc)
		rc = reconcile_start(c, e);
	return rc ? rc : sched_start(c, e);
}

void core_drain(struct core *c)
{
	pthread_mutex_lock(&c->sched_lock);
	c->draining = true;
	pthread_mutex_unlock(&c->sched_lock);
}

int core_stop_runs(struct core *c, int64_t grace_ms)
{
	int64_t until = clock_mono_ms() + grace_ms;
	int left = reaper_signal_all(c, SIGINT); /* a person's wish; TERM comes from machines */
	while (left && clock_mono_ms() < until) {
		poll(NULL, 0, STOP_POLL_MS);
		left = reaper_signal_all(c, 0);
	}
	return left;
}

uint64_t core_pulse(struct core *c)
{
	return atomic_load(&c->pulse);
}

void core_close(struct core *c)
{
	if (!c)
		return;
	sched_stop(c);
	external_stop(c);
	uploads_stop(c);
	reconcile_stop(c);
	cache_close(c);
	reaper_stop(c);
	taskdir_stop(c);
	gateway_ctl_stop(c);
	db_close(c->db);
	hub_free(c->hub);
	shares_stop(c);
	shown_free(c->shown);
	conf_free(c->config);
	for (size_t i = 0; i < c->old_config_count; i++)
		conf_free(c->old_configs[i]);
	free(c->old_configs);
	free(c->config_option);
	tokens_free(c->tokens);
	sodium_memzero(c->token_key, sizeof(c->token_key));
	sodium_memzero(c->seal_key, sizeof(c->seal_key));
	free(c->data);
	free(c->runtime);
	free(c->socket);
	free(c->runner_socket);
	free(c->runner_path);
	free(c->init_path);
	free(c->exe);
	js_free(c->empty_snapshot);
	if (c->lock_fd >= 0)
		close(c->lock_fd);
	pthread_mutex_destroy(&c->sched_lock);
	pthread_mutex_destroy(&c->launching);
	pthread_mutex_destroy(&c->reloading);
	pthread_cond_destroy(&c->sched_wake);
	pthread_cond_destroy(&c->snapshot_left);
	free(c);
}

const char *core_data_dir(const struct core *c)
{
	return c->data;
}

const char *core_socket(const struct core *c)
{
	return c->socket;
}

const char *core_runner_socket(const struct core *c)
{
	return c->runner_socket;
}

const struct js *core_hosts(struct core *c)
{
	return js_get(conf_section(c->config, "server"), "hosts");
}

const char *core_listen(struct core *c)
{
	return js_str(conf_section(c->config, "server"), "listen");
}

struct hub *core_hub(struct core *c)
{
	return c->hub;
}

static void add_check(struct js *list, const char *name, bool ok, const char *text, const char *hint)
{
	struct js *o = js_object();
	js_set_str(o, "name", name);
	js_set_bool(o, "ok", ok);
	js_set_str(o, "text", text);
	js_set_str(o, "hint", hint);
	js_push(list, o);
}

static enum err_code nothing_op(struct db_conn *conn UNUSED, void *arg UNUSED, struct error *e UNUSED)
{
	return ERR_OK;
}

struct js *core_checks(struct core *c)
{
	struct js *list = js_array();
	struct error e = ERROR_INIT;
	struct statvfs disk;
	bool writable = db_write(c->db, nothing_op, NULL, &e) == ERR_OK;
	bool space = statvfs(c->data, &disk) == 0 && (uint64_t)disk.f_bavail * disk.f_frsize > DISK_LOW_BYTES;
	bool walls = c->probe.userns && c->probe.bwrap && c->probe.seccomp;
	bool key = gateway_ctl_has_key(c, conf_default_provider(c->config));
	add_check(list, "database", writable, writable ? "takes commits" : e.text, writable ? NULL : "look at the disk and at the server's log");
	add_check(list, "disk", space, space ? "enough free space" : "less than 256 MB are free", space ? NULL : "free some space in the data directory");
	add_check(list, "walls", walls, walls ? "namespaces, bubblewrap and seccomp work" : c->probe.why, walls ? NULL : "signalbox doctor");
	add_check(list, "layers", true, c->probe.overlay ? "overlay" : "plain copies: overlay is refused here", NULL);
	add_check(list, "limits", true, sandbox_confinement_name(c->probe.confinement), NULL);
	add_check(list, "model", key, key ? "a key for the default provider is there" : "the default model provider has no key",
		key ? NULL : "export OPENAI_API_KEY, or configure model.providers; agents that need no model work without");
	return list;
}

bool core_ready(struct core *c)
{
	AUTO_JS struct js *checks = core_checks(c);
	bool ok = true;
	for (size_t i = 0; i < js_len(checks); i++) {
		const char *name = js_str(js_at(checks, i), "name");
		if (!str_eq(name, "model"))
			ok = ok && js_flag(js_at(checks, i), "ok", false);
	}
	return ok;
}

/* How many wait, and since when the longest does: somebody should look. */
static enum err_code gates_gauge(struct db_conn *conn, struct strbuf *out, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT COUNT(*), COALESCE(MIN(created_at), 0) FROM gates WHERE state='blocked'", &s, e);
	if (rc)
		return rc;
	rc = db_step(s, &row, e);
	int64_t open = row ? db_int(s, 0) : 0, waits_ms = open ? clock_wall_ms() - db_int(s, 1) : 0;
	db_done(s);
	strbuf_addf(out, "# HELP signalbox_gates_open Gates that wait for a human.\n# TYPE signalbox_gates_open gauge\nsignalbox_gates_open %lld\n"
		"# HELP signalbox_gate_oldest_seconds How long the oldest of them waits.\n# TYPE signalbox_gate_oldest_seconds gauge\nsignalbox_gate_oldest_seconds %.1f\n",
		(long long)open, (double)waits_ms / 1000);
	return rc;
}

static enum err_code gauge_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct strbuf *out = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn,
		"SELECT phase, COUNT(*) FROM tasks WHERE " SQL_LIVE("phase") " GROUP BY phase", &s, e);
	if (rc)
		return rc;
	strbuf_adds(out, "# HELP signalbox_tasks Live tasks by phase.\n# TYPE signalbox_tasks gauge\n");
	while (!(rc = db_step(s, &row, e)) && row)
		strbuf_addf(out, "signalbox_tasks{phase=\"%s\"} %lld\n", db_text(s, 0), (long long)db_int(s, 1));
	db_done(s);
	return rc ? rc : gates_gauge(conn, out, e);
}

void core_metrics(struct core *c, struct strbuf *out)
{
	struct db_stats d;
	struct error e = ERROR_INIT;
	db_stats(c->db, &d);
	const struct { const char *name, *type, *help; unsigned long long v; } rows[] = {
		{ "signalbox_tasks_submitted_total", "counter", "Tasks submitted since the server started.", atomic_load(&c->submitted) },
		{ "signalbox_runs_started_total", "counter", "Runners started.", atomic_load(&c->started) },
		{ "signalbox_runs_ended_total", "counter", "Runs that handed in their end.", atomic_load(&c->ended) },
		{ "signalbox_runs_lost_total", "counter", "Runs whose runner was lost.", atomic_load(&c->lost) },
		{ "signalbox_events_ingested_total", "counter", "Event lines taken from runners.", atomic_load(&c->ingested) },
		{ "signalbox_db_commits_total", "counter", "Durable group commits.", d.commits },
		{ "signalbox_db_writes_total", "counter", "Write operations in them.", d.ops },
		{ "signalbox_db_failed_total", "counter", "Write operations that failed.", d.failed },
		{ "signalbox_db_queue", "gauge", "Write operations waiting.", d.queued_now },
		{ "signalbox_stream_subscribers", "gauge", "Event streams and waits open.", hub_subscribers(c->hub) },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		strbuf_addf(out, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", rows[i].name, rows[i].help, rows[i].name, rows[i].type, rows[i].name, rows[i].v);
	reconcile_metrics(c, out);
	gates_metrics(c, out);
	external_metrics(c, out);
	uploads_metrics(c, out);
	cache_metrics(c, out);
	if (db_read(c->db, gauge_op, out, &e))
		log_warn("metrics: %s", e.text);
}

enum err_code core_offer_key(struct core *c, const char *provider, const char *key, struct error *e)
{
	return gateway_ctl_set_key(c, provider, key, e);
}
