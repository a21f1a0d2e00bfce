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

/* Objects are checked as they come in. What old but honest repositories are full of is let through; what is a trick
 * (.git in a tree, .. names, symbolic links as .gitmodules, hostile submodule names, paths and URLs) is refused. */
#define CHECKED_OBJECTS \
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
	{ "Host key verification failed", ERR_DENIED, "the host's ssh key is not known", "connect once by hand with ssh to accept its key" },
	{ "Permission denied (", ERR_DENIED, "the host refused our ssh key", "load a key that may read it (ssh-add), or use another URL" },
	{ "Connection refused", ERR_UNREACHABLE, "nothing listens there", "check the host and the port" },
	{ "Connection timed out", ERR_UNREACHABLE, "the host does not answer", "check the network and any proxy setting" },
	{ "No route to host", ERR_UNREACHABLE, "there is no route to the host", "check the network" },
	{ "Network is unreachable", ERR_UNREACHABLE, "the network is unreachable", "check the network" },
	{ "Failed to connect", ERR_UNREACHABLE, "the host cannot be reached", "check the host, the port and any proxy setting" },
	{ "could not read Username", ERR_DENIED, "it wants a login", "use an ssh URL with a key, or a local clone" },
	{ "terminal prompts disabled", ERR_DENIED, "it wants a login", "use an ssh URL with a key, or a local clone" },
	{ "Authentication failed", ERR_DENIED, "it refused the login", "use an ssh URL with a key, or a local clone" },
	{ "error: 401", ERR_DENIED, "it wants a login", "use an ssh URL with a key, or a local clone" },
	{ "error: 403", ERR_DENIED, "it refuses access", "check the URL and your rights" },
	{ "error: 404", ERR_NOT_FOUND, "there is no repository there", "check the URL; private repositories look the same to a stranger" },
	{ "' not found", ERR_NOT_FOUND, "there is no repository there", "check the URL; private repositories look the same to a stranger" },
	{ "Repository not found", ERR_NOT_FOUND, "there is no repository there", "check the URL and your rights" },
	{ "does not appear to be a git repository", ERR_NOT_FOUND, "it is not a git repository", "check the path" },
	{ "not valid: is this a git repository", ERR_NOT_FOUND, "it is not a git repository", "check the URL" },
	{ "certificate", ERR_UNREACHABLE, "its TLS certificate is not accepted", "install the authority's certificate on this machine" },
	{ "unable to access", ERR_UNREACHABLE, "it cannot be reached", "check the URL, the network and any proxy setting" },
	{ "fsck error", ERR_INVALID, "it holds an object that git's own checks refuse", "run 'git fsck' in it" },
};

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

static enum err_code start_upload_pack(const struct transport *t, int in, int out, int err, struct proc *ret, struct error *e)
{
	const struct git g = { .cwd = "/", .as = &t->owner, .config = pipe_config };

	return git_peer_start(&g, (const char *const[]){ "git", "upload-pack", "--", t->url->path, NULL }, in, out, err, ret, e);
}

static enum err_code start_ssh(const struct transport *t, int in, int out, int err, struct proc *ret, struct error *e)
{
	AUTO_FREE char *path = quote_for_shell(t->url->path[0] == '/' && t->url->path[1] == '~' ? t->url->path + 1 : t->url->path);
	AUTO_FREE char *command = mem_printf("git-upload-pack %s", path);
	AUTO_FREE char *where = mem_printf("%s%s%s", t->url->user ? t->url->user : "", t->url->user ? "@" : "", t->url->host);
	const struct git g = { .cwd = "/", .as = &t->caller, .home = getenv("HOME") };
	const char *argv[ARGS_MAX] = { "ssh", "-oBatchMode=yes", "-oConnectTimeout=20", "-oServerAliveInterval=15",
		"-oForwardAgent=no", "-oClearAllForwardings=yes", "-oPermitLocalCommand=no", "-T" };
	size_t n = 8;

	if (t->url->port) {
		argv[n++] = "-p";
		argv[n++] = t->url->port;
	}
	argv[n++] = "--";
	argv[n++] = where;
	argv[n] = command;
	return git_peer_start(&g, argv, in, out, err, ret, e);
}

static enum err_code open_messages(int *ret_fd, struct error *e)
{
	AUTO_CLOSE int fd = memfd_create("messages", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, PEER_STDERR_MAX) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		return error_errno(e, "make a memory file");
	*ret_fd = TAKE_FD(fd);
	return ERR_OK;
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
	return (t->url->kind == URL_SSH ? start_ssh : start_upload_pack)(t, peer_in, peer_out, ret->messages, &ret->proc, e);
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
};

static void road_release(struct road *r)
{
	peer_release(&r->peer);
}

static enum err_code road_open(const struct transport *t, struct road *ret, struct error *e)
{
	ret->git = (struct git){ .cwd = "/", .config = pipe_config };
	if (t->url->kind == URL_HTTP || t->url->kind == URL_HTTPS) {
		ret->git.config = http_config;
		ret->git.protocols = t->url->kind == URL_HTTP ? "http:https" : "https";
		ret->address = t->url->text;
		return ERR_OK;
	}
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

enum err_code transport_list(const struct transport *t, const char *extra, struct strbuf *ret, struct error *e)
{
	AUTO(road_release) struct road road = { .peer = PEER_INIT };
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	int status = 0;

	TRY(road_open(t, &road, e));
	road.git.timeout_ms = TRANSPORT_LIST_TIMEOUT_MS;
	ret->max = TRANSPORT_LIST_MAX;
	TRY(git_try(&road.git, (const char *const[]){ "ls-remote", "--symref", "--", road.address, "HEAD", "refs/heads/*", "refs/tags/*", extra, NULL },
		NULL, 0, ret, &err, &status, e));
	if (status == 0)
		return ERR_OK;
	road_let_go(&road);
	peer_add_messages(&road.peer, &err);
	return explain(t, "read", status, strbuf_str(&err), e);
}

static void take_progress(void *ctx, const char *line)
{
	const struct transport *t = ctx;

	report_git_line(t->report, t->step, line);
}

enum err_code transport_fetch(const struct transport *t, const char *store, const char *const *options, const char *const *refspecs, struct error *e)
{
	AUTO(road_release) struct road road = { .peer = PEER_INIT };
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
	road_let_go(&road);
	peer_add_messages(&road.peer, &err);
	return explain(t, "fetch", status, strbuf_str(&err), e);
}
