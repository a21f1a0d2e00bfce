/* From a claimed run to a living runner: the task directory, the frozen spec, the process.
 * The run's lock is taken here and inherited by the runner: as long as it is held something of the run lives, and when it is free and
 * the runner never wrote its identity, it never started (and may be started again under the same number). */
#include "agent/agent.h"
#include "agent/decision.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "core/gate.h"
#include "core/gatefile.h"
#include "core/inside.h"
#include "core/proof.h"
#include "source/source.h"
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKEN_BYTES 32
#define SECRET_ANSWERS_MAX ((size_t)32 << 10)
#define HIDDEN_MAX ((size_t)20 << 10) /* with the answers and the tokens it fits the pipe */
#define HIDDEN_TEXT_OVER 1	      /* a comma */
#define GATEWAY_PORT 8787 /* inside the sandbox, where nobody else listens */
#define SESSION_MAX ((size_t)64 << 10)
#define LINK_TARGET_MAX 64
#define RUNNER_LOCK_FD 3
#define RUNNER_SECRETS_FD 4
#define RUNNER_CREDENTIAL_FD 5
#define RUNNER_GATEWAY_FD 6

char *launch_run_dir(struct core *c, const char *task, const char *worker, int64_t n)
{
	return mem_printf("%s/tasks/%s/agents/%s/runs/%lld", c->data, task, worker, (long long)n);
}

char *launch_work_dir(struct core *c, const char *task, const char *worker)
{
	return mem_printf("%s/work/%s.%s", c->data, task, worker);
}

/* Only where everything above `path` is the server's own. */
static enum err_code own_dir(struct core *c, const char *path, mode_t mode, struct error *e)
{
	enum err_code rc = file_mkdirs(path, mode, e);
	if (!rc && c->root && lchown(path, c->uid, c->gid) < 0)
		rc = error_errno(e, "give '%s' to uid %u", path, (unsigned)c->uid);
	return rc;
}

/* Below a directory that the sandboxes' identity owns: what it may have put there (a link to /etc) is not followed, and only what was
 * opened is given away. */
static enum err_code own_dir_at(struct core *c, int dir, const char *name, mode_t mode, int *ret_fd, struct error *e)
{
	AUTO_CLOSE int fd = -1;
	if (mkdirat(dir, name, mode) < 0 && errno != EEXIST)
		return error_errno(e, "make '%s'", name);
	enum err_code rc = file_open_beneath(dir, name, O_RDONLY | O_DIRECTORY, &fd, e);
	if (!rc && c->root && fchown(fd, c->uid, c->gid) < 0)
		rc = error_errno(e, "give '%s' to uid %u", name, (unsigned)c->uid);
	if (!rc && ret_fd)
		*ret_fd = TAKE_FD(fd);
	return rc;
}

enum err_code launch_open_run_dir(struct core *c, const char *task, const char *worker, int64_t n, int *ret_fd, struct error *e)
{
	AUTO_FREE char *path = mem_printf("%s/tasks/%s/agents", c->data, task);
	AUTO_FREE char *rel = mem_printf("%s/runs/%lld", worker, (long long)n);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return error_errno(e, "open '%s'", path);
	return file_open_beneath(fd, rel, O_RDONLY | O_DIRECTORY, ret_fd, e);
}

struct paths {
	char *task, *worker, *run, *home, *work, *cache;
	int worker_fd, run_fd; /* what is made in them goes through these */
	int credential_fd;     /* what the fetch may clone with; -1: nothing */
};
#define PATHS_INIT { .worker_fd = -1, .run_fd = -1, .credential_fd = -1 }

static void paths_release(struct paths *p)
{
	if (p->worker_fd >= 0)
		close(p->worker_fd);
	if (p->run_fd >= 0)
		close(p->run_fd);
	if (p->credential_fd >= 0)
		close(p->credential_fd);
	free(p->task);
	free(p->worker);
	free(p->run);
	free(p->home);
	free(p->work);
	free(p->cache);
}

static enum err_code make_run_dir(struct core *c, int64_t n, struct paths *p, struct error *e)
{
	AUTO_CLOSE int runs = -1;
	AUTO_FREE char *name = mem_printf("%lld", (long long)n);
	enum err_code rc = own_dir_at(c, p->worker_fd, "runs", 0711, &runs, e);
	return rc ? rc : own_dir_at(c, runs, name, 0711, &p->run_fd, e);
}

static enum err_code make_dirs(struct core *c, const struct run_row *r, struct paths *p, struct error *e)
{
	static const char *const runs[] = { "runtime", "artifacts", NULL };
	enum err_code rc = ERR_OK;
	p->task = core_task_dir(c, r->task);
	p->worker = mem_printf("%s/agents/%s", p->task, r->worker);
	p->run = launch_run_dir(c, r->task, r->worker, r->n);
	p->home = file_join(p->worker, "home");
	p->work = launch_work_dir(c, r->task, r->worker);
	p->cache = mem_printf("%s/cache/%s", c->data, r->project);
	rc = own_dir(c, p->worker, 0711, e);
	if (!rc && (p->worker_fd = open(p->worker, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)) < 0)
		rc = error_errno(e, "open '%s'", p->worker);
	if (!rc)
		rc = own_dir_at(c, p->worker_fd, "home", 0700, NULL, e);
	if (!rc)
		rc = make_run_dir(c, r->n, p, e);
	for (const char *const *d = runs; !rc && *d; d++)
		rc = own_dir_at(c, p->run_fd, *d, 0711, NULL, e);
	if (!rc)
		rc = own_dir_at(c, p->worker_fd, "workspace", 0700, NULL, e);
	if (!rc)
		rc = own_dir(c, p->work, 0700, e);
	if (!rc)
		rc = own_dir(c, p->cache, 0700, e);
	return rc;
}

/* state.json, runtime and artifacts of the worker are the newest run's. */
static void link_newest(const struct paths *p, int64_t n)
{
	static const char *const names[] = { "runtime", "artifacts", "state.json", NULL }; /* the last one tells that all are there */
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
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(SESSION_MAX);
	enum err_code rc = file_read_at(p->worker_fd, "session.json", SESSION_MAX, &text, NULL);
	AUTO_JS struct js *session = rc ? NULL : js_parse(strbuf_str(&text), text.len, NULL);
	js_set_str(o, "run", before->id);
	js_set_str(o, "reason", before->reason);
	js_set_str(o, "error", before->error);
	js_set_str(o, "progress", js_str(before->beat, "progress"));
	js_set(spec, "previous", o);
	if (session && str_eq(js_str(session, "adapter"), js_str(js_get(spec, "agent"), "adapter")))
		js_set_str(spec, "agent_session", js_str(session, "session"));
}

/* What was decided in this turn, for an attempt after one that died. */
static void add_decided(struct js *spec, const struct js *decided)
{
	if (js_len(decided))
		js_set(spec, "decided", js_ref(decided));
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
	if (t->turn_prompt)
		js_set_str(s, "prompt", t->turn_prompt); /* this turn's; the task keeps its request */
	js_set_str(s, "worker", r->worker);
	js_set_str(s, "run", r->id);
	js_set_int(s, "n", r->n);
	js_set_int(s, "turn", r->turn);
	js_set_int(s, "attempt", r->attempt);
	js_set_int(s, "started_at", t->started_at ? t->started_at : t->created_at);
	js_set_int(s, "heartbeat_timeout", conf_limit(c->config, "heartbeat_timeout"));
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

/* What is cached need not be fetched: that saves the runner two processes, half of the time until the agent begins. */
static void add_cached(struct core *c, struct js *spec, struct paths *p)
{
	struct js *result = NULL;
	bool hit = source_peek(js_get(spec, "source"), p->cache, &result);
	atomic_fetch_add(hit ? &c->cache_hits : &c->cache_misses, 1);
	if (!hit)
		return;
	js_set(spec, "fetched", result);
	if (p->credential_fd >= 0)
		close(TAKE_FD(p->credential_fd));
}

/* It stays ours: a root runner does what it says before it gives root away, and looks whose it is. */
static enum err_code write_spec(const struct paths *p, struct js *spec, struct error *e)
{
	AUTO_FREE char *text = js_pretty(spec);
	return file_replace_at(p->run_fd, "spec.json", text, strlen(text), 0600, FILE_NOSYNC, e); /* after a power cut the run is lost and the row says it all */
}

struct token_update {
	const char *run_id, *hash;
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

void run_token_make(struct run_token *t)
{
	unsigned char secret[TOKEN_BYTES], hash[crypto_hash_sha256_BYTES];
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	clock_random(secret, sizeof(secret));
	str_add_base64url(&text, secret, sizeof(secret));
	crypto_hash_sha256(hash, (const unsigned char *)text.data, text.len);
	sodium_bin2hex(t->hash, sizeof(t->hash), hash, sizeof(hash));
	t->text = strbuf_detach(&text);
}

void run_token_release(struct run_token *t)
{
	if (t->text)
		sodium_memzero(t->text, strlen(t->text));
	free(TAKE_PTR(t->text));
}

/* For a run whose first token died with the server that made it. */
static enum err_code renew_token(struct core *c, const char *run_id, struct run_token *t, struct error *e)
{
	run_token_make(t);
	struct token_update u = { .run_id = run_id, .hash = t->hash };
	return db_write(c->db, token_op, &u, e);
}

/* As it is spelt in JSON, which may be six times as long. */
static size_t spelt_bytes(const struct js *v)
{
	AUTO_FREE char *text = js_dump(v);
	return strlen(text);
}

/* The secret ones among the decisions, open; together they must fit the pipe. */
static struct js *secret_answers(struct core *c, const struct js *decided)
{
	struct js *o = js_object();
	size_t bytes = 0;
	for (size_t i = 0; i < js_len(decided); i++) {
		const struct js *d = js_at(decided, i);
		struct error e = ERROR_INIT;
		if (!decision_is_secret(js_get(d, "data")))
			continue;
		AUTO_JS struct js *open = js_copy(js_get(d, "decision"));
		if (gate_unseal(c, open, &e) || (bytes += spelt_bytes(open)) > SECRET_ANSWERS_MAX)
			log_warn("gate %s: its answer cannot be given to the next run%s%s", js_str_or(d, "gate", "?"), e.text[0] ? ": " : "", e.text);
		else
			js_set(o, js_str_or(d, "gate", "?"), js_ref(open));
	}
	return o;
}

/* What the agent may have been told in earlier turns: nothing of it is kept. */
static void add_hidden(struct js *o, const struct js *texts)
{
	struct js *list = js_array();
	size_t bytes = 0, i;
	for (i = 0; i < js_len(texts) && (bytes += spelt_bytes(js_at(texts, i)) + HIDDEN_TEXT_OVER) < HIDDEN_MAX; i++)
		js_push(list, js_ref(js_at(texts, i)));
	if (i < js_len(texts))
		log_warn("secret answers: %zu of %zu fit the pipe to the runner", i, js_len(texts));
	js_set(o, "hide", list);
}

/* What must not be in the spec's file goes through a pipe whose content fits its buffer. */
static enum err_code secrets_pipe(struct core *c, const char *run_id, const struct js *spec, const char *token, int *ret_fd, struct error *e)
{
	AUTO_FREE char *gateway = NULL;
	enum err_code rc = gateway_ctl_token(c, run_id, spec, &gateway, e);
	if (!rc)
		rc = usage_begin(c, run_id, e);
	if (rc)
		return rc;
	AUTO_JS struct js *hidden = NULL;
	rc = gate_hide(c, js_str_or(spec, "task", ""), &hidden, e);
	if (rc)
		return rc;
	AUTO_JS struct js *o = js_object();
	js_set_str(o, "token", token);
	js_set_str(o, "gateway_token", gateway);
	js_set(o, "answers", secret_answers(c, js_get(spec, "decided")));
	add_hidden(o, hidden);
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
		"no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LD_PRELOAD",
		"FAKETIME", "FAKETIME_TIMESTAMP_FILE", "FAKETIME_DONT_FAKE_MONOTONIC", "FAKETIME_NO_CACHE" /* the fault lab moves clocks */ };
	char **env = mem_alloc((ARRAY_SIZE(kept) + 1) * sizeof(char *));
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (getenv(kept[i]))
			env[n++] = mem_printf("%s=%s", kept[i], getenv(kept[i]));
	return env;
}

static enum err_code spawn(struct core *c, const struct paths *p, int lock_fd, int secrets_fd, struct proc *ret, struct error *e)
{
	AUTO_CLOSE int log = -1;
	enum err_code rc = file_open_beneath(p->run_fd, "runtime/runner.log", O_WRONLY | O_CREAT | O_APPEND, &log, e);
	if (rc)
		return rc;
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
	spec.fds[2].from = gateway_ctl_users_fd(c);
	spec.fds[2].to = RUNNER_GATEWAY_FD;
	spec.fd_count = 3;
	if (p->credential_fd >= 0) {
		spec.fds[3].from = p->credential_fd;
		spec.fds[3].to = RUNNER_CREDENTIAL_FD;
		spec.fd_count = 4;
	}
	rc = proc_start(&spec, ret, e);
	for (char **v = env; *v; v++)
		free(*v);
	free(env);
	return rc;
}

/* Server and runner write the heartbeat file under this lock, each as whoever it is. */
static enum err_code make_state_lock(struct core *c, const struct paths *p, struct error *e)
{
	AUTO_CLOSE int fd = openat(p->worker_fd, "state.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(e, "make '%s/state.lock'", p->worker);
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1) /* a hard link to somebody's file is not given away */
		return error_set(e, ERR_DENIED, "'%s/state.lock' is not a file of its own", p->worker);
	if (c->root && st.st_uid != c->uid && fchown(fd, c->uid, c->gid) < 0)
		return error_errno(e, "give '%s/state.lock' to uid %u", p->worker, (unsigned)c->uid);
	return ERR_OK;
}

struct pair {
	const char *run_id;
	struct task_row task;
	struct run_row run, before; /* before: the worker's run before this one, if any */
	struct js *decided;	    /* gates of this turn that were settled */
};

static enum err_code prepare(struct core *c, const struct pair *pair, struct paths *p, struct js **ret_spec, struct error *e)
{
	const struct run_row *r = &pair->run;
	enum err_code rc = make_dirs(c, r, p, e);
	if (rc)
		return rc;
	*ret_spec = make_spec(c, &pair->task, r, &pair->before, p);
	add_decided(*ret_spec, pair->decided);
	rc = proof_equip(c, r->project, *ret_spec, &p->credential_fd, e);
	if (rc)
		return rc;
	add_cached(c, *ret_spec, p);
	rc = write_spec(p, *ret_spec, e);
	if (rc)
		return rc;
	return make_state_lock(c, p, e);
}

/* What people find in a task's directory and no runner waits for: made while the runner starts. */
static enum err_code make_record(struct core *c, const struct run_row *r, const struct paths *p, struct error *e)
{
	static const char *const dirs[] = { "shared/evidence", "shared/reports", "artifacts", NULL };
	enum err_code rc = ERR_OK;
	for (const char *const *d = dirs; !rc && *d; d++) {
		AUTO_FREE char *path = file_join(p->task, *d);
		rc = file_mkdirs(path, 0711, e);
	}
	if (!rc)
		rc = gatefile_dirs(p->task, c->root ? c->uid : (uid_t)-1, c->gid, e);
	if (rc)
		return rc;
	AUTO_FREE char *notes = file_join(p->task, "shared/human-notes.md");
	AUTO_CLOSE int fd = open(notes, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	link_newest(p, r->n);
	return fd < 0 ? error_errno(e, "make '%s'", notes) : ERR_OK;
}

/* Again, when the server was killed between the runner's start and this. */
void launch_complete_record(struct core *c, const struct run_row *r)
{
	struct paths p = PATHS_INIT;
	struct error e = ERROR_INIT;
	p.task = core_task_dir(c, r->task);
	p.worker = mem_printf("%s/agents/%s", p.task, r->worker);
	AUTO_FREE char *link = file_join(p.worker, "state.json");
	AUTO_FREE char *wanted = mem_printf("runs/%lld/state.json", (long long)r->n);
	char target[LINK_TARGET_MAX] = "";
	ssize_t n = readlink(link, target, sizeof(target) - 1);
	if ((n < 0 || !str_eq(target, wanted)) && file_is_dir(p.worker) && make_record(c, r, &p, &e))
		log_warn("run %s: its directory is not complete: %s", r->id, e.text);
	paths_release(&p);
}

static enum err_code load_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct pair *p = arg;
	enum err_code rc = run_load(conn, p->run_id, &p->run, e);
	if (!rc)
		rc = task_load(conn, p->run.task, &p->task, e);
	if (!rc)
		rc = gate_decided(conn, p->run.task, p->run.turn, &p->decided, e);
	if (rc || p->run.n < 2)
		return rc;
	AUTO_FREE char *before = mem_printf("%s.%s.%lld", p->run.task, p->run.worker, (long long)p->run.n - 1);
	return run_load(conn, before, &p->before, e);
}

static enum err_code start(struct core *c, struct pair *pair, struct paths *p, const char *token, struct error *e)
{
	AUTO_JS struct js *spec = NULL;
	AUTO_CLOSE int lock = -1;
	AUTO_CLOSE int secrets = -1;
	struct token_update u = { .run_id = pair->run_id };
	struct proc proc = PROC_INIT;
	enum err_code rc = prepare(c, pair, p, &spec, e);
	AUTO_FREE char *lock_path = mem_printf("/proc/self/fd/%d/lock", p->run_fd);
	if (!rc)
		rc = file_lock(lock_path, false, &lock, e);
	if (!rc)
		rc = secrets_pipe(c, pair->run_id, spec, token, &secrets, e);
	if (!rc)
		rc = spawn(c, p, lock, secrets, &proc, e);
	if (rc)
		return rc;
	if (proc_identify(proc.pid, &u.id, NULL) == ERR_OK && db_write(c->db, pid_op, &u, e))
		log_warn("run %s: its pid is not on record: %s", pair->run_id, e->text);
	if (make_record(c, &pair->run, p, e))
		log_warn("run %s: its directory is not complete: %s", pair->run_id, e->text);
	reaper_watch(c, pair->run_id, proc.pid, TAKE_FD(proc.pidfd));
	if (pair->before.id) /* it may have died while a human was waited for: its heartbeat file said RUNNING till now */
		taskdir_end_run(c, &pair->task, &pair->before);
	atomic_fetch_add(&c->started, 1);
	return ERR_OK;
}

enum err_code launch_run(struct core *c, const char *run_id, const struct run_token *token, struct error *e)
{
	struct pair pair = { .run_id = run_id };
	struct paths p = PATHS_INIT;
	struct run_token own = { 0 };
	enum err_code rc = token ? ERR_OK : renew_token(c, run_id, &own, e);
	if (!rc)
		rc = db_read(c->db, load_op, &pair, e);
	if (!rc)
		rc = start(c, &pair, &p, token ? token->text : own.text, e);
	run_token_release(&own);
	paths_release(&p);
	task_row_release(&pair.task);
	run_row_release(&pair.run);
	run_row_release(&pair.before);
	js_free(pair.decided);
	return rc;
}
