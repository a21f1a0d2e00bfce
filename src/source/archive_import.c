/* signalbox-unpack on one side of a pipe, `git fast-import` on the other; neither knows of the other. */
#include "source/archive.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/line.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "source/git.h"
#include "source/unpack.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#define HELPER "signalbox-unpack"
#define ANSWER "040000 tree "
#define TREE_ID_LEN ((size_t)40)
#define SAID_MAX ((size_t)64 << 10)
#define HEARD_FDS 3

struct import {
	struct proc unpack, git;
	struct { int fd; struct strbuf text; } heard[HEARD_FDS]; /* the unpacker's report, git's answer, git's complaints */
	int64_t deadline_ms;
};

static void end_proc(struct proc *p)
{
	int status = 0;

	if (p->pidfd < 0)
		return;
	proc_signal(p, SIGKILL);
	(void)!proc_wait(p, -1, &status, NULL);
	proc_release(p);
}

static void import_release(struct import *m)
{
	end_proc(&m->unpack);
	end_proc(&m->git);
	for (size_t i = 0; i < HEARD_FDS; i++) {
		if (m->heard[i].fd >= 0)
			close(m->heard[i].fd);
		strbuf_release(&m->heard[i].text);
	}
}

static enum err_code make_pipe(int fds[2], struct error *e)
{
	return pipe2(fds, O_CLOEXEC) < 0 ? error_errno(e, "make a pipe") : ERR_OK;
}

/* Only root may give ids away, so effective root for the moment of the start. */
static enum err_code start_as(const struct proc_spec *spec, struct proc *ret, struct error *e)
{
	static const struct identity root = { .set = true };
	struct identity before = { .set = false };

	if (spec->set_ids)
		TRY(identity_enter(&root, &before, e));
	enum err_code rc = proc_start(spec, ret, e);
	identity_return(&before);
	return rc;
}

static enum err_code start_unpack(struct import *m, const struct archive_job *job, int out_fd, int report_fd, struct error *e)
{
	static const char *const nothing[] = { NULL };
	AUTO_FREE char *program = proc_helper_path(HELPER);
	AUTO_FREE char *limits = js_dump(job->limits);
	const char *argv[] = { program, limits, NULL };
	struct proc_spec spec = PROC_SPEC_INIT;

	if (!program) {
		error_set(e, ERR_UNSUPPORTED, "the helper '" HELPER "' was not found");
		error_hint(e, "build it with make, or install the whole of Signalbox");
		return ERR_UNSUPPORTED;
	}
	spec.argv = argv;
	spec.env = nothing;
	spec.cwd = "/";
	spec.stdin_fd = job->fd;
	spec.stdout_fd = out_fd;
	spec.fds[0].from = report_fd;
	spec.fds[0].to = UNPACK_REPORT_FD;
	spec.fd_count = 1;
	spec.die_with_parent = true;
	spec.set_ids = identity_is_root() && job->uid != 0;
	spec.uid = job->uid;
	spec.gid = job->gid;
	return start_as(&spec, &m->unpack, e);
}

/* Small blobs in one pack without deltas, large ones streamed: what is wanted is a tree soon, not a small pack. */
static enum err_code start_git(struct import *m, const struct cache_store *store, int in_fd, int answer_fd, int err_fd, struct error *e)
{
	static const char *const config[] = { "core.bigFileThreshold=1m", "core.compression=1", "fastimport.unpackLimit=0", NULL };
	const struct git g = { .git_dir = store->repo, .config = config, .cwd = "/" };

	return git_peer_start(&g, (const char *const[]){ "git", "fast-import", "--quiet", "--force", "--depth=0", NULL }, in_fd, answer_fd, err_fd, &m->git, e);
}

static enum err_code start_both(struct import *m, const struct archive_job *job, const struct cache_store *store, struct error *e)
{
	int stream[2] = { -1, -1 }, said[HEARD_FDS][2];
	enum err_code rc = make_pipe(stream, e);

	for (size_t i = 0; i < HEARD_FDS; i++) {
		said[i][0] = said[i][1] = -1;
		if (!rc)
			rc = make_pipe(said[i], e);
		m->heard[i].fd = said[i][0];
	}
	if (!rc)
		rc = start_git(m, store, stream[0], said[1][1], said[2][1], e);
	if (!rc)
		rc = start_unpack(m, job, stream[1], said[0][1], e);
	for (size_t i = 0; i < HEARD_FDS; i++)
		cleanup_close(&said[i][1]);
	cleanup_close(&stream[0]);
	cleanup_close(&stream[1]);
	return rc;
}

/* What was said beyond the limit is dropped: it is one line that counts. */
static bool hear_one(struct import *m, size_t i)
{
	char text[4096];
	ssize_t n = read(m->heard[i].fd, text, sizeof(text));

	if (n < 0 && errno == EINTR)
		return true;
	if (n > 0) {
		strbuf_add(&m->heard[i].text, text, (size_t)n);
		return true;
	}
	close(TAKE_FD(m->heard[i].fd));
	return false;
}

static enum err_code hear_all(struct import *m, struct error *e)
{
	size_t open_fds = HEARD_FDS;

	while (open_fds) {
		struct pollfd p[HEARD_FDS];
		int64_t left = m->deadline_ms - clock_mono_ms();

		for (size_t i = 0; i < HEARD_FDS; i++)
			p[i] = (struct pollfd){ .fd = m->heard[i].fd, .events = POLLIN };
		if (left <= 0)
			return error_set(e, ERR_TIMEOUT, "unpacking takes longer than %lld s", (long long)(ARCHIVE_TIMEOUT_MS / 1000));
		if (poll(p, HEARD_FDS, (int)left) < 0 && errno != EINTR)
			return error_errno(e, "wait for the unpacker");
		for (size_t i = 0; i < HEARD_FDS; i++)
			if (p[i].fd >= 0 && p[i].revents && !hear_one(m, i))
				open_fds--;
	}
	return ERR_OK;
}

static enum err_code end_both(struct import *m, int *ret_unpack, int *ret_git, struct error *e)
{
	TRY(proc_wait(&m->unpack, ARCHIVE_TIMEOUT_MS, ret_unpack, e));
	proc_release(&m->unpack);
	m->unpack = (struct proc)PROC_INIT;
	TRY(proc_wait(&m->git, ARCHIVE_TIMEOUT_MS, ret_git, e));
	proc_release(&m->git);
	m->git = (struct proc)PROC_INIT;
	return ERR_OK;
}

static enum err_code unpack_died(int status, struct error *e)
{
	if (status == 128 + SIGXCPU || status == 128 + SIGKILL)
		error_set(e, ERR_TOO_LARGE, "the archive takes too much time or memory to read");
	else
		error_set(e, ERR_INVALID, "the archive cannot be read: the unpacker ended with status %d", status);
	error_hint(e, "make it anew: git archive -o FILE HEAD");
	return e ? e->code : ERR_INVALID;
}

static enum err_code read_report(const struct import *m, int status, struct js **ret_done, struct error *e)
{
	const struct strbuf *text = &m->heard[0].text;
	AUTO_JS struct js *line = js_parse(strbuf_str(text), text->len, NULL);
	const struct js *failed = js_get(line, "error");

	if (failed) {
		enum err_code code = err_from_name(js_str_or(failed, "code", ""));

		error_set(e, code, "%s", js_str_or(failed, "text", "the archive cannot be read"));
		if (!str_empty(js_str(failed, "hint")))
			error_hint(e, "%s", js_str(failed, "hint"));
		return code;
	}
	if (!js_get(line, "done") || status != 0)
		return unpack_died(status, e);
	*ret_done = js_ref(js_get(line, "done"));
	return ERR_OK;
}

static enum err_code read_tree(const struct import *m, int status, char **ret, struct error *e)
{
	const char *answer = strbuf_str(&m->heard[1].text);
	AUTO_FREE char *tree = NULL;

	if (status != 0)
		return git_failed("git fast-import", status, strbuf_str(&m->heard[2].text), e);
	if (!str_starts(answer, ANSWER))
		return error_set(e, ERR_INTERNAL, "git fast-import named no tree");
	tree = mem_strndup(answer + strlen(ANSWER), TREE_ID_LEN);
	if (!git_is_commit_id(tree))
		return error_set(e, ERR_INTERNAL, "git fast-import named no tree");
	*ret = TAKE_PTR(tree);
	return ERR_OK;
}

enum err_code archive_import(const struct archive_job *job, const struct cache_store *store, struct js **ret_done, char **ret_tree, struct error *e)
{
	AUTO(import_release) struct import m = { .unpack = PROC_INIT, .git = PROC_INIT, .deadline_ms = clock_mono_ms() + ARCHIVE_TIMEOUT_MS };
	AUTO_JS struct js *done = NULL;
	int unpack_status = -1, git_status = -1;
	struct error git_error = ERROR_INIT;

	for (size_t i = 0; i < HEARD_FDS; i++) {
		m.heard[i].fd = -1;
		m.heard[i].text.max = SAID_MAX;
	}
	report_progress(job->report, "unpack", 0, "reading the archive");
	TRY(start_both(&m, job, store, e));
	TRY(hear_all(&m, e));
	TRY(end_both(&m, &unpack_status, &git_status, e));
	enum err_code rc = read_tree(&m, git_status, ret_tree, &git_error);
	enum err_code unpack_rc = read_report(&m, unpack_status, &done, e);
	/* Without a reader the unpacker dies of SIGPIPE or says so: then git's own words are the reason. */
	if (unpack_rc && rc && (unpack_status == 128 + SIGPIPE || (e && strstr(e->text, "write the stream")))) {
		*e = git_error;
		return rc;
	}
	if (unpack_rc)
		return unpack_rc;
	if (rc) {
		*e = git_error;
		return rc;
	}
	*ret_done = TAKE_PTR(done);
	return ERR_OK;
}

/* ---- the network ---- */

static enum err_code write_text(const char *path, const char *text, struct error *e)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return error_errno(e, "open '%s'", path);
	return file_write_all(fd, text, strlen(text), e);
}

static enum err_code map_ids(uid_t uid, gid_t gid, struct error *e)
{
	AUTO_FREE char *uids = mem_printf("%u %u 1\n", (unsigned)uid, (unsigned)uid);
	AUTO_FREE char *gids = mem_printf("%u %u 1\n", (unsigned)gid, (unsigned)gid);

	TRY(write_text("/proc/self/setgroups", "deny", e));
	TRY(write_text("/proc/self/uid_map", uids, e));
	return write_text("/proc/self/gid_map", gids, e);
}

enum err_code archive_leave_network(struct error *e)
{
	static const struct identity root = { .set = true };
	struct identity before;
	uid_t uid = geteuid();
	gid_t gid = getegid();

	if (identity_is_root()) {
		TRY(identity_enter(&root, &before, e));
		int r = unshare(CLONE_NEWNET);
		enum err_code rc = r < 0 ? error_errno(e, "leave the network before unpacking") : ERR_OK;
		identity_return(&before);
		return rc;
	}
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
		error_errno(e, "leave the network before unpacking");
		error_hint(e, "allow unprivileged user namespaces; `signalbox doctor` says how");
		return e ? e->code : ERR_IO;
	}
	prctl(PR_SET_DUMPABLE, 1); /* else our own maps are not ours to write */
	enum err_code rc = map_ids(uid, gid, e);
	prctl(PR_SET_DUMPABLE, 0);
	return rc;
}
