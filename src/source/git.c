/* The one place that starts git. */
#include "source/git.h"
#include "base/clock.h"
#include "base/cleanup.h"
#include "base/line.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#define STREAM_CHUNK ((size_t)64 << 10)
#define STREAM_LINE_MAX ((size_t)4096)

/* Read as GIT_CONFIG_COUNT: "command scope", which is protected configuration and wins over a repository's own. */
static const char *const neutral_config[] = {
	"core.hooksPath=/dev/null",
	"core.fsmonitor=false",
	"core.untrackedCache=false",
	"core.splitIndex=false",
	"core.attributesFile=/dev/null",
	"core.excludesFile=/dev/null",
	"core.protectHFS=true",
	"core.protectNTFS=true",
	"core.symlinks=true",
	"core.autocrlf=false",
	"core.checkStat=minimal",
	"core.trustctime=false",
	"core.logAllRefUpdates=false",
	"core.quotePath=true",
	"index.version=2",
	"protocol.allow=never",
	"protocol.ext.allow=never",
	"submodule.recurse=false",
	"fetch.recurseSubmodules=false",
	"fetch.writeCommitGraph=false",
	"gc.auto=0",
	"maintenance.auto=false",
	"credential.helper=",
	"safe.directory=*",
	"commit.gpgSign=false",
	"diff.renames=true",
	"diff.renameLimit=2000",
	"diff.noprefix=false",
	"diff.mnemonicPrefix=false",
	"diff.ignoreSubmodules=all",
	"advice.detachedHead=false",
	"checkout.workers=0",
	"http.followRedirects=false",
	"http.lowSpeedLimit=100",
	"http.lowSpeedTime=60",
	"user.name=Signalbox",
	"user.email=signalbox@localhost",
	"user.useConfigOnly=true",
};

/* What the network road may take from our own environment: where proxies and certificates are. */
static const char *const passed_variables[] = {
	"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK", "TMPDIR",
};

static const char *const fixed_environment[] = {
	"LC_ALL=C",
	"GIT_CONFIG_NOSYSTEM=1",
	"GIT_CONFIG_GLOBAL=/dev/null",
	"GIT_ATTR_NOSYSTEM=1",
	"GIT_TERMINAL_PROMPT=0",
	"GIT_ASKPASS=/bin/false",
	"SSH_ASKPASS=/bin/false",
	"GIT_OPTIONAL_LOCKS=0",
	"GIT_NO_REPLACE_OBJECTS=1",
	"GIT_NO_LAZY_FETCH=1",
	"GIT_PAGER=cat",
	"GIT_EDITOR=/bin/false",
	"GIT_PROGRESS_DELAY=0",
};

struct strings { /* NULL-ended, owned */
	char **v;
	size_t n;
};

static void strings_add(struct strings *s, char *taken)
{
	s->v = mem_grow(s->v, (s->n + 2) * sizeof(*s->v));
	s->v[s->n++] = taken;
	s->v[s->n] = NULL;
}

static void strings_release(struct strings *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
}

static void add_variable(struct strings *env, const char *name, const char *value)
{
	if (value)
		strings_add(env, mem_printf("%s=%s", name, value));
}

static void add_setting(struct strings *env, int *n, const char *setting)
{
	const char *eq = strchr(setting, '=');

	strings_add(env, mem_printf("GIT_CONFIG_KEY_%d=%.*s", *n, (int)(eq - setting), setting));
	strings_add(env, mem_printf("GIT_CONFIG_VALUE_%d=%s", *n, eq + 1));
	(*n)++;
}

static void make_environment(const struct git *g, struct strings *env)
{
	const char *path = getenv("PATH");
	int settings = 0;

	for (const char *const *v = g->environment; v && *v; v++) /* the first of a name is the one that counts */
		strings_add(env, mem_strdup(*v));
	for (size_t i = 0; i < ARRAY_SIZE(fixed_environment); i++)
		strings_add(env, mem_strdup(fixed_environment[i]));
	for (size_t i = 0; i < ARRAY_SIZE(passed_variables); i++)
		add_variable(env, passed_variables[i], getenv(passed_variables[i]));
	add_variable(env, "PATH", str_empty(path) ? "/usr/local/bin:/usr/bin:/bin" : path);
	add_variable(env, "HOME", g->home ? g->home : "/nonexistent");
	add_variable(env, "GIT_ALLOW_PROTOCOL", g->protocols ? g->protocols : "none");
	add_variable(env, "GIT_DIR", g->git_dir);
	add_variable(env, "GIT_WORK_TREE", g->work_tree);
	add_variable(env, "GIT_INDEX_FILE", g->index);
	add_variable(env, "GIT_ALTERNATE_OBJECT_DIRECTORIES", g->alternate);
	for (size_t i = 0; i < ARRAY_SIZE(neutral_config); i++)
		add_setting(env, &settings, neutral_config[i]);
	for (const char *const *c = g->config; c && *c; c++)
		add_setting(env, &settings, *c);
	strings_add(env, mem_printf("GIT_CONFIG_COUNT=%d", settings));
}

/* argv of `git args...`; only the array is the caller's to free. */
static const char **make_argv(const char *const *args)
{
	size_t n = 0;
	const char **argv;

	while (args[n])
		n++;
	argv = mem_alloc((n + 2) * sizeof(*argv));
	argv[0] = "git";
	memcpy(argv + 1, args, n * sizeof(*argv));
	return argv;
}

/* Root's children get ids of their own: whoever is asked for, else our effective ones. */
static void set_child_ids(const struct git *g, struct proc_spec *spec)
{
	if (!identity_is_root())
		return;
	spec->set_ids = true;
	spec->uid = g->as && g->as->set ? g->as->uid : geteuid();
	spec->gid = g->as && g->as->set ? g->as->gid : getegid();
	if (spec->uid == 0 && geteuid() == 0)
		spec->set_ids = false;
}

static void make_spec(const struct git *g, const char *const *argv, const struct strings *env, struct proc_spec *ret)
{
	*ret = (struct proc_spec)PROC_SPEC_INIT;
	ret->argv = argv;
	ret->env = (const char *const *)env->v;
	ret->cwd = g->cwd ? g->cwd : g->work_tree;
	ret->new_session = true;
	ret->die_with_parent = true;
	for (int i = 0; i < g->fd_count; i++)
		ret->fds[i].from = ret->fds[i].to = g->fds[i];
	ret->fd_count = g->fd_count;
	set_child_ids(g, ret);
}

/* Only root may give ids away, so effective root for the moment of the start. */
static enum err_code enter_for(const struct proc_spec *spec, struct identity *ret_before, struct error *e)
{
	const struct identity root = { .set = true, .uid = 0, .gid = 0 };

	*ret_before = (struct identity){ .set = false };
	return spec->set_ids ? identity_enter(&root, ret_before, e) : ERR_OK;
}

static enum err_code start(const struct proc_spec *spec, struct proc *ret, struct error *e)
{
	struct identity before;
	enum err_code code;

	TRY(enter_for(spec, &before, e));
	code = proc_start(spec, ret, e);
	identity_return(&before);
	return code;
}

static int64_t timeout_of(const struct git *g)
{
	return g->timeout_ms ? g->timeout_ms : GIT_TIMEOUT_MS;
}

enum err_code git_try(const struct git *g, const char *const *args, const void *in, size_t in_len,
	struct strbuf *ret_out, struct strbuf *ret_err, int *ret_status, struct error *e)
{
	AUTO(strings_release) struct strings env = { .v = NULL };
	AUTO_FREE const char **argv = make_argv(args);
	struct proc_spec spec;
	struct identity before;
	enum err_code code;

	if (ret_out && ret_out->max == 0)
		ret_out->max = GIT_OUTPUT_MAX;
	make_environment(g, &env);
	make_spec(g, argv, &env, &spec);
	TRY(enter_for(&spec, &before, e));
	code = proc_run(&spec, in, in_len, timeout_of(g), ret_out, ret_err, ret_status, e);
	identity_return(&before);
	return code == ERR_OK ? ERR_OK : error_wrap(e, "git %s", args[0]);
}

/* Where git's own words are: the first "fatal:" or "error:" line, else the last line that is not empty. */
static const char *telling_line(const char *text, size_t *ret_len)
{
	static const char *const marks[] = { "fatal: ", "error: ", "ssh: ", "" };
	const char *best = "", *line = text, *end;
	size_t rank = ARRAY_SIZE(marks);

	*ret_len = 0;
	for (; *line; line = *end ? end + 1 : end) {
		end = line + strcspn(line, "\n");
		for (size_t i = 0; i < rank && end > line; i++) {
			if (!str_starts(line, marks[i]))
				continue;
			rank = *marks[i] ? i : i + 1;
			best = line + strlen(marks[i]);
			*ret_len = (size_t)(end - best);
		}
	}
	return best;
}

enum err_code git_failed(const char *what, int status, const char *stderr_text, struct error *e)
{
	AUTO_STRBUF struct strbuf clean = STRBUF_INIT;
	size_t len;
	const char *line = telling_line(stderr_text, &len);

	str_add_printable(&clean, line, len);
	if (status > 128)
		return error_set(e, ERR_FAILED, "%s was ended by signal %d%s%s", what, status - 128, clean.len ? ": " : "", strbuf_str(&clean));
	if (clean.len == 0)
		return error_set(e, ERR_FAILED, "%s ended with status %d", what, status);
	return error_set(e, ERR_FAILED, "%s: %s", what, strbuf_str(&clean));
}

enum err_code git_run(const struct git *g, const char *const *args, const void *in, size_t in_len, struct strbuf *ret_out, struct error *e)
{
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	AUTO_STRBUF struct strbuf what = STRBUF_INIT;
	int status = 0;

	TRY(git_try(g, args, in, in_len, ret_out, &err, &status, e));
	if (status == 0)
		return ERR_OK;
	strbuf_addf(&what, "git %s", args[0]);
	return git_failed(strbuf_str(&what), status, strbuf_str(&err), e);
}

enum err_code git_line(const struct git *g, const char *const *args, char **ret, struct error *e)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;

	TRY(git_run(g, args, NULL, 0, &out, e));
	while (out.len && out.data[out.len - 1] == '\n')
		out.data[--out.len] = '\0';
	*ret = strbuf_detach(&out);
	return ERR_OK;
}

enum err_code git_peer_start(const struct git *g, const char *const *argv, int stdin_fd, int stdout_fd, int stderr_fd, struct proc *ret, struct error *e)
{
	AUTO(strings_release) struct strings env = { .v = NULL };
	struct proc_spec spec;

	make_environment(g, &env);
	make_spec(g, argv, &env, &spec);
	spec.stdin_fd = stdin_fd;
	spec.stdout_fd = stdout_fd;
	spec.stderr_fd = stderr_fd;
	return start(&spec, ret, e);
}

/* ---- streaming ---- */

struct stream {
	const struct git_sink *sink;
	struct strbuf *err;
	struct line_reader lines;
	struct proc proc;
	int out_fd, err_fd;
	int64_t deadline_ms;
};

static void stream_release(struct stream *s)
{
	line_release(&s->lines);
	if (s->out_fd >= 0)
		close(s->out_fd);
	if (s->err_fd >= 0)
		close(s->err_fd);
	if (s->proc.pidfd >= 0) {
		int status;

		proc_signal(&s->proc, SIGKILL);
		if (proc_wait(&s->proc, -1, &status, NULL) != ERR_OK)
			proc_release(&s->proc);
	}
}

/* "Receiving objects:  45% (9/20)" is progress; all else is kept for the error. */
static void take_line(void *ctx, const char *line, size_t len, size_t full_len)
{
	struct stream *s = ctx;
	bool is_progress = strstr(line, "% (") || str_starts(line, "remote: Enumerating") || str_starts(line, "remote: Total");

	(void)full_len;
	if (s->sink->progress && len)
		s->sink->progress(s->sink->ctx, line);
	if (s->err && !is_progress) {
		strbuf_add(s->err, line, len);
		strbuf_addc(s->err, '\n');
	}
}

static enum err_code read_err(struct stream *s, char *buf, struct error *e)
{
	ssize_t n = read(s->err_fd, buf, STREAM_CHUNK);

	if (n < 0)
		return errno == EINTR ? ERR_OK : error_errno(e, "read git's messages");
	if (n == 0) {
		line_finish(&s->lines, take_line, s);
		close(TAKE_FD(s->err_fd));
		return ERR_OK;
	}
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] == '\r')
			buf[i] = '\n';
	line_feed(&s->lines, buf, (size_t)n, take_line, s);
	return ERR_OK;
}

static enum err_code read_out(struct stream *s, char *buf, struct error *e)
{
	ssize_t n = read(s->out_fd, buf, STREAM_CHUNK);

	if (n < 0)
		return errno == EINTR ? ERR_OK : error_errno(e, "read git's output");
	if (n == 0) {
		close(TAKE_FD(s->out_fd));
		return ERR_OK;
	}
	if (s->sink->out && !s->sink->out(s->sink->ctx, buf, (size_t)n, e))
		return e && e->code != ERR_OK ? e->code : error_set(e, ERR_CANCELED, "stopped");
	return ERR_OK;
}

static int64_t left_ms(const struct stream *s)
{
	int64_t left = s->deadline_ms - clock_mono_ms();

	return left > 0 ? left : 0;
}

static enum err_code stream_pump(struct stream *s, struct error *e)
{
	AUTO_FREE char *buf = mem_alloc(STREAM_CHUNK);

	while (s->out_fd >= 0 || s->err_fd >= 0) {
		struct pollfd p[2] = { { .fd = s->out_fd, .events = POLLIN }, { .fd = s->err_fd, .events = POLLIN } };
		int64_t left = left_ms(s);

		if (left == 0)
			return error_set(e, ERR_TIMEOUT, "git did not end in time");
		if (poll(p, 2, (int)(left < 1000000 ? left : 1000000)) < 0 && errno != EINTR)
			return error_errno(e, "wait for git");
		if (p[0].revents)
			TRY(read_out(s, buf, e));
		if (p[1].revents)
			TRY(read_err(s, buf, e));
	}
	return ERR_OK;
}

static enum err_code stream_start(struct stream *s, const struct git *g, const char *const *args, struct error *e)
{
	AUTO(strings_release) struct strings env = { .v = NULL };
	AUTO_FREE const char **argv = make_argv(args);
	struct proc_spec spec;
	int out[2], err[2];
	enum err_code code;

	if (pipe2(out, O_CLOEXEC) < 0)
		return error_errno(e, "make a pipe");
	s->out_fd = out[0];
	if (pipe2(err, O_CLOEXEC) < 0) {
		close(out[1]);
		return error_errno(e, "make a pipe");
	}
	s->err_fd = err[0];
	make_environment(g, &env);
	make_spec(g, argv, &env, &spec);
	spec.stdout_fd = out[1];
	spec.stderr_fd = err[1];
	code = start(&spec, &s->proc, e);
	close(out[1]);
	close(err[1]);
	return code;
}

enum err_code git_stream(const struct git *g, const char *const *args, const struct git_sink *sink,
	struct strbuf *ret_err, int *ret_status, struct error *e)
{
	AUTO(stream_release) struct stream s = { .sink = sink, .err = ret_err, .proc = PROC_INIT, .out_fd = -1, .err_fd = -1 };

	line_init(&s.lines, STREAM_LINE_MAX);
	s.deadline_ms = clock_mono_ms() + timeout_of(g);
	if (stream_start(&s, g, args, e) != ERR_OK || stream_pump(&s, e) != ERR_OK ||
	    proc_wait(&s.proc, left_ms(&s), ret_status, e) != ERR_OK)
		return error_wrap(e, "git %s", args[0]);
	return ERR_OK;
}

bool git_is_commit_id(const char *s)
{
	return s && strlen(s) == 40 && strspn(s, "0123456789abcdef") == 40;
}
