/* Talking to the other end of a fetch, and saying in plain words what went wrong there. */
#include "source/transport.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "source/git.h"
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PEER_STDERR_MAX ((off_t)64 << 10) /* bytes that the other end may say */
#define PEER_EXIT_WAIT_MS ((int64_t)2000)
#define ARGS_MAX 24
#define SSH_OPTIONS_MAX 40
#define CONFIG_MAX 48 /* lines */

/* Objects are checked as they come in. What old but honest repositories are full of is let through; what is a trick
 * (.git in a tree, .. names, symbolic links as .gitmodules, hostile submodule names, paths and URLs) is refused. */
#define CHECKED_OBJECTS \
	GIT_STREAMED, \
	"transfer.fsckObjects=true", \
	"fetch.fsck.badDate=ignore", "fetch.fsck.badDateOverflow=ignore", "fetch.fsck.badEmail=ignore", "fetch.fsck.badName=ignore", \
	"fetch.fsck.badTimezone=ignore", "fetch.fsck.badTagName=ignore", "fetch.fsck.missingEmail=ignore", \
	"fetch.fsck.missingNameBeforeEmail=ignore", "fetch.fsck.missingSpaceBeforeDate=ignore", "fetch.fsck.missingSpaceBeforeEmail=ignore", \
	"fetch.fsck.missingTaggerEntry=ignore", "fetch.fsck.multipleAuthors=ignore", "fetch.fsck.nulInCommit=ignore", \
	"fetch.fsck.zeroPaddedDate=ignore", "fetch.fsck.zeroPaddedFilemode=ignore", "fetch.fsck.badFilemode=ignore", \
	"fetch.fsck.extraHeaderEntry=ignore", "fetch.fsck.gitmodulesParse=ignore", "fetch.fsck.gitmodulesBlob=ignore", \
	"fetch.fsck.gitmodulesLarge=ignore", "fetch.fsck.gitmodulesMissing=ignore"

/* Version 2 of the protocol ends a conversation by closing the pipe, which git itself keeps open while git-remote-fd runs: both
 * ends would wait for ever. */
static const char *const pipe_config[] = { CHECKED_OBJECTS, "uploadpack.allowAnySHA1InWant=true", "protocol.version=0", NULL };
static const char *const http_config[] = { CHECKED_OBJECTS, "protocol.version=2", NULL };

static const struct {
	const char *says; /* within git's or ssh's words */
	enum err_code code;
	const char *means, *hint;
} failures[] = {
	{ "Could not resolve host", ERR_UNREACHABLE, "the host name is not known", "check the spelling, the network and any proxy setting" },
	{ "Host key verification failed", ERR_DENIED, "the host's ssh key is not known", "store it with the key (signalbox secret set ssh:HOST --known-hosts FILE), or connect once by hand with ssh" },
	{ "Permission denied (", ERR_DENIED, "the host refused our ssh key", "store a key that may read it (signalbox secret set ssh:HOST), or load one (ssh-add)" },
	{ "Connection refused", ERR_UNREACHABLE, "nothing listens there", "check the host and the port" },
	{ "Connection timed out", ERR_UNREACHABLE, "the host does not answer", "check the network and any proxy setting" },
	{ "No route to host", ERR_UNREACHABLE, "there is no route to the host", "check the network" },
	{ "Network is unreachable", ERR_UNREACHABLE, "the network is unreachable", "check the network" },
	{ "Failed to connect", ERR_UNREACHABLE, "the host cannot be reached", "check the host, the port and any proxy setting" },
	{ "could not read Username", ERR_DENIED, "it wants a login", "store a token or a key for it: signalbox secret set git:HOST (for ssh URLs ssh:HOST)" },
	{ "terminal prompts disabled", ERR_DENIED, "it wants a login", "store a token or a key for it: signalbox secret set git:HOST (for ssh URLs ssh:HOST)" },
	{ "Authentication failed", ERR_DENIED, "it refused the login", "store a token or a key for it: signalbox secret set git:HOST (for ssh URLs ssh:HOST)" },
	{ "error: 301", ERR_DENIED, "it leads elsewhere, and redirects are not followed", "give the URL that it leads to; often it is the same with .git at its end" },
	{ "error: 302", ERR_DENIED, "it leads elsewhere, and redirects are not followed", "give the URL that it leads to; often it is the same with .git at its end" },
	{ "error: 303", ERR_DENIED, "it leads elsewhere, and redirects are not followed", "give the URL that it leads to; often it is the same with .git at its end" },
	{ "error: 307", ERR_DENIED, "it leads elsewhere, and redirects are not followed", "give the URL that it leads to; often it is the same with .git at its end" },
	{ "error: 308", ERR_DENIED, "it leads elsewhere, and redirects are not followed", "give the URL that it leads to; often it is the same with .git at its end" },
	{ "error: 401", ERR_DENIED, "it wants a login", "store a token or a key for it: signalbox secret set git:HOST (for ssh URLs ssh:HOST)" },
	{ "error: 403", ERR_DENIED, "it refuses access", "check the URL and your rights" },
	{ "error: 404", ERR_NOT_FOUND, "there is no repository there", "check the URL; private repositories look the same to a stranger" },
	{ "' not found", ERR_NOT_FOUND, "there is no repository there", "check the URL; private repositories look the same to a stranger" },
	{ "Repository not found", ERR_NOT_FOUND, "there is no repository there", "check the URL and your rights" },
	{ "does not appear to be a git repository", ERR_NOT_FOUND, "it is not a git repository", "check the path" },
	{ "not valid: is this a git repository", ERR_NOT_FOUND, "it is not a git repository", "check the URL" },
	{ "dubious ownership", ERR_DENIED, "it belongs to somebody else there", "let its owner serve it" },
	{ "certificate", ERR_UNREACHABLE, "its TLS certificate is not accepted", "install the authority's certificate on this machine" },
	{ "unable to access", ERR_UNREACHABLE, "it cannot be reached", "check the URL, the network and any proxy setting" },
	{ "fsck error", ERR_INVALID, "it holds an object that git's own checks refuse", "run 'git fsck' in it" },
};

/* Where the person's own ssh configuration decides, a name need not be one that the name system knows. */
enum err_code transport_resolve(const struct transport *t, struct pin *ret, struct error *e)
{
	bool own_way = t->url->kind == URL_SSH && !t->credential && js_flag(t->rules, "ssh_config", false);

	*ret = (struct pin){ .n = 0 };
	return t->url->kind == URL_FILE || own_way ? policy_check_url(t->rules, t->url, e) : policy_resolve(t->rules, t->url, ret, e);
}

enum err_code transport_find_owner(const char *path, struct identity *ret, struct error *e)
{
	const struct identity root = { .set = true };
	struct identity before;
	struct stat st;
	int r;

	TRY(identity_enter(&root, &before, e));
	r = stat(path, &st);
	if (r < 0) {
		error_errno(e, "open '%s'", path);
		error_hint(e, "check the path; it must exist on the machine where the code is fetched");
	}
	identity_return(&before);
	if (r < 0)
		return e ? e->code : ERR_IO;
	*ret = (struct identity){ .set = true, .uid = st.st_uid, .gid = st.st_gid };
	return ERR_OK;
}

/* ---- the other end ---- */

struct peer {
	struct proc proc;
	struct ssh_agent *agent; /* with a stored key; else NULL */
	int from, to;	/* our ends: what it says, what it hears */
	int messages;	/* its stderr: a sealed memory file, so that it cannot grow */
	char *address;	/* "fd::N,M" for git */
};
#define PEER_INIT { .proc = PROC_INIT, .from = -1, .to = -1, .messages = -1 }

static void peer_release(struct peer *p)
{
	int status;

	if (p->from >= 0)
		close(p->from);
	if (p->to >= 0)
		close(p->to);
	if (p->messages >= 0)
		close(p->messages);
	if (p->proc.pidfd >= 0) {
		if (proc_wait(&p->proc, PEER_EXIT_WAIT_MS, &status, NULL) != ERR_OK) {
			proc_signal(&p->proc, SIGKILL);
			if (proc_wait(&p->proc, PEER_EXIT_WAIT_MS, &status, NULL) != ERR_OK)
				proc_release(&p->proc);
		}
	}
	ssh_agent_stop(p->agent);
	free(p->address);
}

/* For the shell at the far end of ssh, which is the only one. */
static char *quote_for_shell(const char *s)
{
	struct strbuf b = STRBUF_INIT;

	strbuf_addc(&b, '\'');
	for (; *s; s++) {
		if (*s == '\'' || *s == '!')
			strbuf_addf(&b, "'\\%c'", *s);
		else
			strbuf_addc(&b, *s);
	}
	strbuf_addc(&b, '\'');
	return strbuf_detach(&b);
}

static enum err_code start_upload_pack(const struct transport *t, const int fds[3], struct proc *ret, struct error *e)
{
	const struct git g = { .cwd = "/", .as = &t->owner, .config = pipe_config };

	return git_peer_start(&g, (const char *const[]){ "git", "upload-pack", "--", t->url->path, NULL }, fds[0], fds[1], fds[2], ret, e);
}

/* What ssh is told: nothing of a user's but, where the rules say so, the keys. */
struct ssh_words {
	const char *v[SSH_OPTIONS_MAX];
	size_t n;
	char *made[6]; /* those that were put together */
	size_t made_n;
};

static void ssh_words_release(struct ssh_words *w)
{
	for (size_t i = 0; i < w->made_n; i++)
		free(w->made[i]);
}

static void add_word(struct ssh_words *w, const char *word)
{
	w->v[w->n++] = word;
}

static void add_made(struct ssh_words *w, char *taken)
{
	w->made[w->made_n++] = taken;
	add_word(w, taken);
}

/* The address that was judged; the host's key is still looked up by its name. */
static void add_pin(struct ssh_words *w, const struct source_url *u, const struct pin *pin)
{
	if (pin->n == 0)
		return;
	add_made(w, mem_printf("-oHostName=%s", pin->addresses[0]));
	add_made(w, u->port && !str_eq(u->port, "22") ? mem_printf("-oHostKeyAlias=[%s]:%s", u->host, u->port) : mem_printf("-oHostKeyAlias=%s", u->host));
	add_word(w, "-oCheckHostIP=no");
	add_word(w, "-oCanonicalizeHostname=no");
}

static void add_keys(struct ssh_words *w, const struct js *rules, const struct ssh_agent *agent)
{
	if (!agent) {
		if (!js_flag(rules, "ssh_config", false))
			add_word(w, "-Fnone");
		if (!js_flag(rules, "user_keys", true)) {
			add_word(w, "-oIdentityAgent=none");
			add_word(w, "-oIdentityFile=none");
		}
		return;
	}
	add_word(w, "-Fnone");
	add_word(w, "-oIdentityFile=none");
	add_made(w, mem_printf("-oIdentityAgent=%s", ssh_agent_socket(agent)));
	add_word(w, "-oPreferredAuthentications=publickey");
	add_word(w, "-oUpdateHostKeys=no");
	if (ssh_agent_known_hosts(agent)) {
		add_made(w, mem_printf("-oUserKnownHostsFile=%s", ssh_agent_known_hosts(agent)));
		add_word(w, "-oGlobalKnownHostsFile=/dev/null");
	} else {
		add_word(w, "-oUserKnownHostsFile=none");
	}
}

static enum err_code start_ssh(const struct transport *t, const struct ssh_agent *agent, const int fds[3], struct proc *ret, struct error *e)
{
	static const char *const always[] = { "ssh", "-oBatchMode=yes", "-oConnectTimeout=20", "-oServerAliveInterval=15", "-oStrictHostKeyChecking=yes",
		"-oForwardAgent=no", "-oClearAllForwardings=yes", "-oPermitLocalCommand=no", "-T" };
	AUTO_FREE char *path = quote_for_shell(t->url->path[0] == '/' && t->url->path[1] == '~' ? t->url->path + 1 : t->url->path);
	AUTO_FREE char *command = mem_printf("git-upload-pack %s", path);
	AUTO_FREE char *where = mem_printf("%s%s%s", t->url->user ? t->url->user : "", t->url->user ? "@" : "", t->url->host);
	AUTO(ssh_words_release) struct ssh_words w = { .n = 0 };
	const struct git g = { .cwd = "/", .as = &t->caller, .home = getenv("HOME") };

	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		add_word(&w, always[i]);
	add_keys(&w, t->rules, agent);
	add_pin(&w, t->url, t->pin);
	if (t->url->port) {
		add_word(&w, "-p");
		add_word(&w, t->url->port);
	}
	add_word(&w, "--");
	add_word(&w, where);
	add_word(&w, command);
	return git_peer_start(&g, w.v, fds[0], fds[1], fds[2], ret, e);
}

static enum err_code open_messages(int *ret_fd, struct error *e)
{
	AUTO_CLOSE int fd = memfd_create("messages", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, PEER_STDERR_MAX) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		return error_errno(e, "make a memory file");
	*ret_fd = TAKE_FD(fd);
	return ERR_OK;
}

static enum err_code ssh_peer_start(const struct transport *t, const int fds[3], struct peer *ret, struct error *e)
{
	if (credential_fits(t->credential, URL_SSH))
		TRY(ssh_agent_start(t->credential, &t->caller, &ret->agent, e));
	return start_ssh(t, ret->agent, fds, &ret->proc, e);
}

static enum err_code peer_start(const struct transport *t, struct peer *ret, struct error *e)
{
	AUTO_CLOSE int peer_in = -1;
	AUTO_CLOSE int peer_out = -1;
	int a[2], b[2];

	if (pipe2(a, O_CLOEXEC) < 0)
		return error_errno(e, "make a pipe");
	peer_in = a[0];
	ret->to = a[1];
	if (pipe2(b, O_CLOEXEC) < 0)
		return error_errno(e, "make a pipe");
	peer_out = b[1];
	ret->from = b[0];
	TRY(open_messages(&ret->messages, e));
	ret->address = mem_printf("fd::%d,%d", ret->from, ret->to);
	const int fds[3] = { peer_in, peer_out, ret->messages };
	return t->url->kind == URL_SSH ? ssh_peer_start(t, fds, ret, e) : start_upload_pack(t, fds, &ret->proc, e);
}

static void peer_add_messages(const struct peer *p, struct strbuf *out)
{
	char *text = mem_alloc((size_t)PEER_STDERR_MAX + 1);
	ssize_t n = p->messages >= 0 ? pread(p->messages, text, (size_t)PEER_STDERR_MAX, 0) : 0;

	if (n > 0)
		strbuf_adds(out, text);
	free(text);
}

/* ---- our end ---- */

static enum err_code explain(const struct transport *t, const char *verb, int status, const char *text, struct error *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(failures); i++)
		if (strstr(text, failures[i].says)) {
			struct error words = ERROR_INIT;

			git_failed("git", status, text, &words);
			error_set(e, failures[i].code, "%s '%s': %s (%s)", verb, t->url->text, failures[i].means, words.text);
			error_hint(e, "%s", failures[i].hint);
			return failures[i].code;
		}
	git_failed("git", status, text, e);
	return error_wrap(e, "%s '%s'", verb, t->url->text);
}

struct road {
	struct peer peer;
	struct git git;
	const char *address;
	struct askpass askpass;
	const char *config[CONFIG_MAX];
	char *made[2]; /* lines of config that were put together */
};
#define ROAD_INIT { .peer = PEER_INIT, .askpass = ASKPASS_INIT }

static void road_release(struct road *r)
{
	peer_release(&r->peer);
	askpass_close(&r->askpass);
	free(r->made[0]);
	free(r->made[1]);
}

/* "http.curloptResolve=HOST:PORT:ADDRESS,ADDRESS": libcurl asks nobody else. */
static char *make_pin_line(const struct source_url *u, const struct pin *pin)
{
	struct strbuf b = STRBUF_INIT;

	strbuf_addf(&b, "http.curloptResolve=%s:%s:", u->host, u->port ? u->port : u->kind == URL_HTTP ? "80" : "443");
	for (size_t i = 0; i < pin->n; i++)
		strbuf_addf(&b, strchr(pin->addresses[i], ':') ? "%s[%s]" : "%s%s", i ? "," : "", pin->addresses[i]);
	return strbuf_detach(&b);
}

static enum err_code use_password(const struct transport *t, struct road *r, struct error *e)
{
	if (t->url->kind == URL_HTTP && !t->pin->is_loopback) {
		error_set(e, ERR_DENIED, "'%s': a stored password is not sent without encryption", t->url->text);
		error_hint(e, "use the https URL");
		return ERR_DENIED;
	}
	TRY(askpass_open(t->credential, t->url, &r->askpass, e));
	r->git.environment = (const char *const *)r->askpass.variables;
	r->git.fds[0] = r->askpass.fd;
	r->git.fds[1] = r->askpass.program_fd;
	r->git.fd_count = 2;
	return ERR_OK;
}

static enum err_code road_http(const struct transport *t, struct road *r, struct error *e)
{
	size_t n = 0;

	while (http_config[n]) {
		r->config[n] = http_config[n];
		n++;
	}
	if (t->pin->n && !strchr(t->url->host, ':'))
		r->config[n++] = r->made[0] = make_pin_line(t->url, t->pin);
	if (credential_fits(t->credential, t->url->kind)) {
		r->config[n++] = r->made[1] = mem_printf("credential.username=%s", t->credential->user);
		TRY(use_password(t, r, e));
	}
	r->git.config = r->config;
	r->git.protocols = t->url->kind == URL_HTTP ? "http" : "https";
	r->address = t->url->text;
	return ERR_OK;
}

static enum err_code road_open(const struct transport *t, struct road *ret, struct error *e)
{
	ret->git = (struct git){ .cwd = "/", .config = pipe_config };
	if (t->url->kind == URL_HTTP || t->url->kind == URL_HTTPS)
		return road_http(t, ret, e);
	TRY(peer_start(t, &ret->peer, e));
	ret->git.protocols = "fd";
	ret->git.fds[0] = ret->peer.from;
	ret->git.fds[1] = ret->peer.to;
	ret->git.fd_count = 2;
	ret->address = ret->peer.address;
	return ERR_OK;
}

/* Once git has the pipes they must be nobody else's, or neither end sees the other one leave. */
static void road_let_go(struct road *r)
{
	if (r->peer.from >= 0)
		close(TAKE_FD(r->peer.from));
	if (r->peer.to >= 0)
		close(TAKE_FD(r->peer.to));
}

/* The other end's own words come first: git only says that it was left alone. */
static enum err_code explain_road(const struct transport *t, struct road *r, const char *verb, int status, const struct strbuf *git_says, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(GIT_STDERR_MAX + (size_t)PEER_STDERR_MAX);

	road_let_go(r);
	peer_add_messages(&r->peer, &text);
	strbuf_addc(&text, '\n');
	strbuf_add(&text, strbuf_str(git_says), git_says->len);
	return explain(t, verb, status, strbuf_str(&text), e);
}

enum err_code transport_list(const struct transport *t, const char *extra, struct strbuf *ret, struct error *e)
{
	AUTO(road_release) struct road road = ROAD_INIT;
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	int status = 0;

	TRY(road_open(t, &road, e));
	road.git.timeout_ms = TRANSPORT_LIST_TIMEOUT_MS;
	ret->max = TRANSPORT_LIST_MAX;
	TRY(git_try(&road.git, (const char *const[]){ "ls-remote", "--symref", "--", road.address, "HEAD", "refs/heads/*", "refs/tags/*", extra, NULL },
		NULL, 0, ret, &err, &status, e));
	if (status == 0)
		return ERR_OK;
	return explain_road(t, &road, "read", status, &err, e);
}

static void take_progress(void *ctx, const char *line)
{
	const struct transport *t = ctx;

	report_git_line(t->report, t->step, line);
}

enum err_code transport_fetch(const struct transport *t, const char *store, const char *const *options, const char *const *refspecs, struct error *e)
{
	AUTO(road_release) struct road road = ROAD_INIT;
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	struct transport copy = *t;
	const struct git_sink sink = { .progress = take_progress, .ctx = &copy };
	const char *args[ARGS_MAX] = { "fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-auto-gc" };
	size_t n = 5;
	int status = 0;

	TRY(road_open(t, &road, e));
	for (; options && *options && n < ARGS_MAX / 2; options++)
		args[n++] = *options;
	args[n++] = "--";
	args[n++] = road.address;
	for (; *refspecs && n < ARGS_MAX - 1; refspecs++)
		args[n++] = *refspecs;
	road.git.git_dir = store;
	road.git.timeout_ms = TRANSPORT_FETCH_TIMEOUT_MS;
	TRY(git_stream(&road.git, args, &sink, &err, &status, e));
	if (status == 0)
		return ERR_OK;
	return explain_road(t, &road, "fetch", status, &err, e);
}
