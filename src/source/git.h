/* git, tamed: every git process of Signalbox starts here, with a clean environment, none of the system's or the user's
 * configuration, no hooks, filters, fsmonitor, credential helpers, prompts or automatic gc, no protocol but the ones named,
 * and a bound on time and output.  Nothing here knows what the commands mean.
 *
 *   struct git g = { .git_dir = store, .index = index_path };
 *   TRY(git_run(&g, (const char *const[]){ "write-tree", NULL }, NULL, 0, &out, e));
 *
 * For single-threaded programs: every child dies with its parent (PDEATHSIG follows the thread), and `as` changes ids. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include "source/identity.h"
#include "source/try.h"
#include <stdbool.h>
#include <stdint.h>

#define GIT_TIMEOUT_MS ((int64_t)10 * 60 * 1000) /* of one git process unless told otherwise */
#define GIT_OUTPUT_MAX ((size_t)256 << 20)	 /* bytes of one command's stdout that we keep: names of about 3 million files */
#define GIT_STDERR_MAX ((size_t)256 << 10)	 /* bytes of its stderr; more is dropped */
#define GIT_FDS_MAX 4
#define GIT_STREAMED "core.bigFileThreshold=32m", "core.packedGitWindowSize=32m", "core.packedGitLimit=256m" /* larger files are not held in memory; not for diffs, where they would be binary */

struct git {
	const char *git_dir;	      /* NULL: git looks for one above cwd */
	const char *work_tree;
	const char *index;	      /* NULL: the git dir's own */
	const char *alternate;	      /* one more object directory to read from */
	const char *cwd;
	const char *protocols;	      /* GIT_ALLOW_PROTOCOL, "http:https"; NULL: none at all */
	const char *home;	      /* NULL: nowhere, so that no file of the user's is read */
	const char *const *config;    /* further "section.key=value" lines, NULL-ended; NULL: none */
	const char *const *environment; /* further "NAME=value" lines, NULL-ended, stronger than ours; NULL: none */
	const struct identity *as;    /* NULL: the effective ids we have */
	int64_t timeout_ms;	      /* 0: GIT_TIMEOUT_MS */
	int fds[GIT_FDS_MAX];	      /* passed under the same numbers (all > 2) */
	int fd_count;
};

/* Runs `git args...`. A non-zero exit is ERR_FAILED with the line of stderr that says most. `in` and `ret_out` may be NULL. */
MUST_USE enum err_code git_run(const struct git *g, const char *const *args, const void *in, size_t in_len, struct strbuf *ret_out, struct error *e);
/* The same, but the exit status is an answer; ret_err may be NULL. */
MUST_USE enum err_code git_try(const struct git *g, const char *const *args, const void *in, size_t in_len,
	struct strbuf *ret_out, struct strbuf *ret_err, int *ret_status, struct error *e);

/* What a long command says while it runs. Either may be NULL. out: false ends the command (ERR_CANCELED unless e says more). */
struct git_sink {
	bool (*out)(void *ctx, const char *data, size_t n, struct error *e);
	void (*progress)(void *ctx, const char *line); /* each line of stderr; \r ends a line too */
	void *ctx;
};
/* Runs with both outputs delivered as they come; ret_err keeps the lines that are not progress. */
MUST_USE enum err_code git_stream(const struct git *g, const char *const *args, const struct git_sink *sink,
	struct strbuf *ret_err, int *ret_status, struct error *e);

/* For `what` that ended with a status other than 0: ERR_FAILED and the most telling line of stderr, made printable. */
enum err_code git_failed(const char *what, int status, const char *stderr_text, struct error *e);
/* Like git_run, for output that is one line; the newline is cut. The caller frees *ret. */
MUST_USE enum err_code git_line(const struct git *g, const char *const *args, char **ret, struct error *e);

/* One more child that needs the same care (git-upload-pack, ssh): argv with our environment, stdin and stdout given. */
struct proc;
MUST_USE enum err_code git_peer_start(const struct git *g, const char *const *argv, int stdin_fd, int stdout_fd, int stderr_fd, struct proc *ret, struct error *e);

bool git_is_commit_id(const char *s); /* 40 lower-case hex digits */
