/* From a claimed run to a living runner: the task directory, the frozen spec, the process.
 * The run's lock is taken here and inherited by the runner: as long as it is held something of the run lives, and when it is free and
 * the runner never wrote its identity, it never started (and may be started again under the same number). */
#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "core/inside.h"
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKEN_BYTES 32
#define GATEWAY_PORT 8787 /* inside the sandbox, where nobody else listens */
#define SESSION_MAX ((size_t)64 << 10)
#define RUNNER_LOCK_FD 3
#define RUNNER_SECRETS_FD 4

char *launch_run_dir(struct core *c, const char *task, const char *worker, int64_t n)
{
	return mem_printf("%s/tasks/%s/agents/%s/runs/%lld", c->data, task, worker, (long long)n);
}

char *launch_work_dir(struct core *c, const char *task, const char *worker)
{
	return mem_printf("%s/work/%s.%s", c->data, task, worker);
}

static enum err_code own_dir(struct core *c, const char *path, mode_t mode, struct error *e)
{
	enum err_code rc = file_mkdirs(path, mode, e);
	if (!rc && c->root && chown(path, c->uid, c->gid) < 0)
		rc = error_errno(e, "give '%s' to uid %u", path, (unsigned)c->uid);
	return rc;
}

struct paths {
	char *task, *worker, *run, *home, *work, *cache;
};

static void paths_release(struct paths *p)
{
	free(p->task);
	free(p->worker);
	free(p->run);
	free(p->home);
	free(p->work);
	free(p->cache);
}

static enum err_code make_dirs(struct core *c, const struct run_row *r, struct paths *p, struct error *e)
{
	static const char *const ours[] = { "gates", "inbox", "shared/evidence", "shared/reports", "artifacts", NULL };
	static const char *const runs[] = { "runtime", "artifacts", NULL };
	enum err_code rc = ERR_OK;
	p->task = core_task_dir(c, r->task);
	p->worker = mem_printf("%s/agents/%s", p->task, r->worker);
	p->run = launch_run_dir(c, r->task, r->worker, r->n);
	p->home = file_join(p->worker, "home");
	p->work = launch_work_dir(c, r->task, r->worker);
	p->cache = mem_printf("%s/cache/%s", c->data, r->project);
	for (const char *const *d = ours; !rc && *d; d++) {
		AUTO_FREE char *path = file_join(p->task, *d);
		rc = file_mkdirs(path, 0711, e);
	}
	if (!rc)
		rc = own_dir(c, p->worker, 0711, e);
	if (!rc)
		rc = own_dir(c, p->home, 0700, e);
	if (!rc)
		rc = own_dir(c, p->run, 0711, e);
	for (const char *const *d = runs; !rc && *d; d++) {
		AUTO_FREE char *path = file_join(p->run, *d);
		rc = own_dir(c, path, 0711, e);
	}
	AUTO_FREE char *saved = file_join(p->worker, "workspace");
	if (!rc)
		rc = own_dir(c, saved, 0700, e);
	if (!rc)
		rc = own_dir(c, p->work, 0700, e);
	if (!rc)
		rc = own_dir(c, p->cache, 0700, e);
	return rc;
}

/* state.json, runtime and artifacts of the worker are the newest run's. */
static void link_newest(const struct paths *p, int64_t n)
{
	static const char *const names[] = { "state.json", "runtime", "artifacts", NULL };
	for (const char *const *name = names; *name; name++) {
		AUTO_FREE char *target = mem_printf("runs/%lld/%s", (long long)n, *name);
		AUTO_FREE char *at = file_join(p->worker, *name);
		AUTO_FREE char *tmp = mem_printf("%s.new", at);
		unlink(tmp);
		if (symlink(target, tmp) == 0 && rename(tmp, at) < 0)
			unlink(tmp);
	}
}

static struct js *spec_server(struct core *c)
{
	struct js *o = js_object();
	js_set_str(o, "socket", c->runner_socket);
	js_set_int(o, "protocol", RUNNER_PROTOCOL);
	return o;
}

static struct js *spec_sandbox(struct core *c)
{
	struct js *o = js_object();
	AUTO_FREE char *tools = file_join(c->data, "tools");
	js_set_int(o, "uid", (int64_t)c->uid);
	js_set_int(o, "gid", (int64_t)c->gid);
	js_set_str(o, "init", c->init_path);
	js_set_str(o, "tools", tools);
	js_set_str(o, "layers", c->probe.overlay ? "overlay" : "plain");
	js_set_str(o, "why", c->probe.why);
	return o;
}

static struct js *spec_gateway(struct core *c)
{
	struct js *o = js_object();
	AUTO_FREE char *dir = gateway_ctl_dir(c);
	js_set_str(o, "dir", dir);
	js_set_int(o, "port", GATEWAY_PORT);
	return o;
}

/* For a task on a local directory: its heartbeat file for scripts that stand there. */
static struct js *spec_mirror(const struct task_row *t)
{
	const char *dir = js_str(js_get(t->spec, "source"), "dir");
	if (!dir)
		return js_null();
	struct js *o = js_object();
	AUTO_FREE char *tasks = mem_printf("%s/.codex/tasks", dir);
	AUTO_FREE char *name = mem_printf("%s.json", t->name ? t->name : t->id);
	js_set_str(o, "dir", tasks);
	js_set_str(o, "name", name);
	return o;
}

/* A later attempt is told how the one before it ended, and which session of the agent's it may resume. */
static void add_previous(struct js *spec, const struct run_row *before, const struct paths *p)
{
	if (!before->id)
		return;
	struct js *o = js_object();
	AUTO_FREE char *path = file_join(p->worker, "session.json");
	AUTO_JS struct js *session = js_load(path, SESSION_MAX, NULL);
	js_set_str(o, "run", before->id);
	js_set_str(o, "reason", before->reason);
	js_set_str(o, "error", before->error);
	js_set_str(o, "progress", js_str(before->beat, "progress"));
	js_set(spec, "previous", o);
	if (session && str_eq(js_str(session, "adapter"), js_str(js_get(spec, "agent"), "adapter")))
		js_set_str(spec, "agent_session", js_str(session, "session"));
}

static struct js *make_spec(struct core *c, const struct task_row *t, const struct run_row *r, const struct run_row *before, const struct paths *p)
{
	struct js *s = js_copy(t->spec);
	js_set_int(s, "protocol", RUNNER_PROTOCOL);
	js_set_str(s, "task", t->id);
	js_set_str(s, "name", t->name);
	js_set_str(s, "project", t->project);
	js_set_str(s, "repo", t->repo);
	js_set_str(s, "session_id", t->session_id);
	js_set_str(s, "worker", r->worker);
	js_set_str(s, "run", r->id);
	js_set_int(s, "n", r->n);
	js_set_int(s, "turn", r->turn);
	js_set_int(s, "attempt", r->attempt);
	js_set_int(s, "started_at", t->started_at ? t->started_at : t->created_at);
	js_set_int(s, "task_left_ms", js_i64(js_get(t->spec, "limits"), "task_timeout", 0) - task_age_ms(t));
	add_previous(s, before, p);
	js_set_str(s, "task_dir", p->task);
	js_set_str(s, "run_dir", p->run);
	js_set_str(s, "home", p->home);
	js_set_str(s, "work_dir", p->work);
	js_set_str(s, "cache", p->cache);
	js_set_str(s, "fetch_program", c->exe);
	js_set(s, "server", spec_server(c));
	js_set(s, "sandbox", spec_sandbox(c));
	js_set(s, "gateway", spec_gateway(c));
	js_set(s, "mirror", spec_mirror(t));
	return s;
}

static enum err_code write_spec(struct core *c, const struct paths *p, struct js *spec, struct error *e)
{
	AUTO_FREE char *path = file_join(p->run, "spec.json");
	AUTO_FREE char *text = js_pretty(spec);
	enum err_code rc = file_replace(path, text, strlen(text), 0600, FILE_SYNC, e);
	if (!rc && c->root && chown(path, c->uid, c->gid) < 0)
		rc = error_errno(e, "give '%s' to uid %u", path, (unsigned)c->uid);
	return rc;
}

struct token_update {
	const char *run_id;
	char hash[crypto_hash_sha256_BYTES * 2 + 1];
	struct proc_id id;
};

static enum err_code token_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct token_update *u = arg;
	return db_exec(conn, e, "UPDATE runs SET token_hash=?2 WHERE id=?1", "ss", u->run_id, u->hash);
}

static enum err_code pid_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct token_update *u = arg;
	return db_exec(conn, e, "UPDATE runs SET pid=?2, start_ticks=?3, boot=?4 WHERE id=?1", "siis", u->run_id, (int64_t)u->id.pid,
		(int64_t)u->id.start_ticks, u->id.boot);
}

/* A new token for the run: the runner gets it through a pipe, the database its hash. */
static enum err_code make_token(struct core *c, struct token_update *u, char **ret_token, struct error *e)
{
	unsigned char secret[TOKEN_BYTES], hash[crypto_hash_sha256_BYTES];
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	clock_random(secret, sizeof(secret));
	str_add_base64url(&text, secret, sizeof(secret));
	crypto_hash_sha256(hash, (const unsigned char *)text.data, text.len);
	sodium_bin2hex(u->hash, sizeof(u->hash), hash, sizeof(hash));
	enum err_code rc = db_write(c->db, token_op, u, e);
	if (!rc)
		*ret_token = strbuf_detach(&text);
	return rc;
}

/* What must not be in the spec's file goes through a pipe whose content fits its buffer. */
static enum err_code secrets_pipe(struct core *c, const char *run_id, const struct js *spec, const char *token, int *ret_fd, struct error *e)
{
	AUTO_FREE char *gateway = NULL;
	enum err_code rc = gateway_ctl_token(c, run_id, spec, &gateway, e);
	if (rc)
		return rc;
	AUTO_JS struct js *o = js_object();
	js_set_str(o, "token", token);
	js_set_str(o, "gateway_token", gateway);
	AUTO_FREE char *text = js_dump(o);
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_errno(e, "make a pipe");
	rc = file_write_all(fds[1], text, strlen(text), e);
	close(fds[1]);
	if (rc)
		close(fds[0]);
	else
		*ret_fd = fds[0];
	return rc;
}

/* What git over ssh and proxies need, and nothing else of ours. */
static char **runner_env(void)
{
	static const char *const kept[] = { "PATH", "HOME", "USER", "LANG", "TZ", "SSH_AUTH_SOCK", "SIGNALBOX_LOG", "http_proxy", "https_proxy",
		"no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "FAKETIME", "LD_PRELOAD" };
	char **env = mem_alloc((ARRAY_SIZE(kept) + 1) * sizeof(char *));
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (getenv(kept[i]))
			env[n++] = mem_printf("%s=%s", kept[i], getenv(kept[i]));
	return env;
}

static enum err_code spawn(struct core *c, const struct paths *p, int lock_fd, int secrets_fd, struct proc *ret, struct error *e)
{
	AUTO_FREE char *log_path = file_join(p->run, "runtime/runner.log");
	AUTO_CLOSE int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (log < 0)
		return error_errno(e, "open '%s'", log_path);
	const char *argv[] = { c->runner_path, p->run, NULL };
	char **env = runner_env();
	struct proc_spec spec = PROC_SPEC_INIT;
	spec.argv = argv;
	spec.env = (const char *const *)env;
	spec.cwd = "/";
	spec.stdout_fd = spec.stderr_fd = log;
	spec.new_session = true;
	spec.fds[0].from = lock_fd;
	spec.fds[0].to = RUNNER_LOCK_FD;
	spec.fds[1].from = secrets_fd;
	spec.fds[1].to = RUNNER_SECRETS_FD;
	spec.fd_count = 2;
	enum err_code rc = proc_start(&spec, ret, e);
	for (char **v = env; *v; v++)
		free(*v);
	free(env);
	return rc;
}

/* Server and runner write the heartbeat file under this lock, each as whoever it is. */
static enum err_code make_state_lock(struct core *c, const struct paths *p, struct error *e)
{
	AUTO_FREE char *path = file_join(p->worker, "state.lock");
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || (c->root && fchown(fd, c->uid, c->gid) < 0))
		return error_errno(e, "make '%s'", path);
	return ERR_OK;
}

struct pair {
	const char *run_id;
	struct task_row task;
	struct run_row run, before; /* before: the worker's run before this one, if any */
};

static enum err_code prepare(struct core *c, const struct pair *pair, struct paths *p, struct js **ret_spec, struct error *e)
{
	const struct run_row *r = &pair->run;
	enum err_code rc = make_dirs(c, r, p, e);
	if (rc)
		return rc;
	*ret_spec = make_spec(c, &pair->task, r, &pair->before, p);
	rc = write_spec(c, p, *ret_spec, e);
	if (rc)
		return rc;
	link_newest(p, r->n);
	rc = make_state_lock(c, p, e);
	if (rc)
		return rc;
	AUTO_FREE char *notes = file_join(p->task, "shared/human-notes.md");
	AUTO_CLOSE int fd = open(notes, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	return fd < 0 ? error_errno(e, "make '%s'", notes) : ERR_OK;
}

static enum err_code load_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct pair *p = arg;
	enum err_code rc = run_load(conn, p->run_id, &p->run, e);
	if (!rc)
		rc = task_load(conn, p->run.task, &p->task, e);
	if (rc || p->run.n < 2)
		return rc;
	AUTO_FREE char *before = mem_printf("%s.%s.%lld", p->run.task, p->run.worker, (long long)p->run.n - 1);
	return run_load(conn, before, &p->before, e);
}

static enum err_code start(struct core *c, struct pair *pair, struct paths *p, struct error *e)
{
	AUTO_JS struct js *spec = NULL;
	AUTO_FREE char *token = NULL;
	AUTO_CLOSE int lock = -1;
	AUTO_CLOSE int secrets = -1;
	struct token_update u = { .run_id = pair->run_id };
	struct proc proc = PROC_INIT;
	enum err_code rc = prepare(c, pair, p, &spec, e);
	AUTO_FREE char *lock_path = p->run ? file_join(p->run, "lock") : NULL;
	if (!rc)
		rc = file_lock(lock_path, false, &lock, e);
	if (!rc)
		rc = make_token(c, &u, &token, e);
	if (!rc)
		rc = secrets_pipe(c, pair->run_id, spec, token, &secrets, e);
	if (!rc)
		rc = spawn(c, p, lock, secrets, &proc, e);
	if (rc)
		return rc;
	if (proc_identify(proc.pid, &u.id, NULL) == ERR_OK && db_write(c->db, pid_op, &u, e))
		log_warn("run %s: its pid is not on record: %s", pair->run_id, e->text);
	reaper_watch(c, pair->run_id, proc.pid, TAKE_FD(proc.pidfd));
	atomic_fetch_add(&c->started, 1);
	return ERR_OK;
}

enum err_code launch_run(struct core *c, const char *run_id, struct error *e)
{
	struct pair pair = { .run_id = run_id };
	struct paths p = { 0 };
	enum err_code rc = db_read(c->db, load_op, &pair, e);
	if (!rc)
		rc = start(c, &pair, &p, e);
	paths_release(&p);
	task_row_release(&pair.task);
	run_row_release(&pair.run);
	run_row_release(&pair.before);
	return rc;
}

struct release {
	const char *run_id;
	struct task_row task;
	struct run_row run;
};

static enum err_code release_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct release *l = arg;
	enum err_code rc = db_exec(conn, e, "UPDATE runs SET released=1 WHERE id=?1", "s", l->run_id);
	if (!rc)
		rc = run_load(conn, l->run_id, &l->run, e);
	return rc ? rc : task_load(conn, l->run.task, &l->task, e);
}

/* An ended task's workspace lives on in what was saved of it; what was not saved stays for the retention to decide. */
static void remove_workspace(struct core *c, const struct run_row *r)
{
	struct error e = ERROR_INIT;
	AUTO_FREE char *work = launch_work_dir(c, r->task, r->worker);
	AUTO_FREE char *saved = mem_printf("%s/tasks/%s/agents/%s/workspace/base.json", c->data, r->task, r->worker);
	if (file_exists(saved) && file_remove_tree(work, &e))
		log_warn("run %s: clean up: %s", r->id, e.text);
}

void launch_clean_up(struct core *c, const char *run_id)
{
	struct error e = ERROR_INIT;
	struct release l = { .run_id = run_id };
	if (db_write(c->db, release_op, &l, &e))
		log_error("release run %s: %s", run_id, e.text);
	else if (phase_is_terminal(l.task.phase))
		remove_workspace(c, &l.run);
	task_row_release(&l.task);
	run_row_release(&l.run);
}
