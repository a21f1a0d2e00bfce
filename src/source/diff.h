/* What the agent changed: the diff of a workspace against its snapshot, made with our own git directory and index, never with the
 * workspace's .git.  Runs inside sandbox_stage_call (layers mounted), linked into the runner: libc and base only. */
#pragma once
#include "base/err.h"
#include "base/js.h"

struct diff_job {
	const char *store;	/* bare git directory that has the snapshot's objects */
	const char *commit;	/* the snapshot */
	const char *checkout;	/* cached tree: its .git/index is copied as a start */
	const char *upper;	/* the agent's overlay layer; NULL in plain mode (then everything below worktree is compared) */
	const char *worktree;	/* merged view */
	const char *base_tree;	/* plain mode: the tree after setup (diff_snapshot_tree), so that setup's noise is not the agent's; or NULL */
	const char *scratch;	/* a directory of ours for index and objects; empty, or as diff_snapshot_tree left it for the same workspace */
	const char *patch_path; /* the diff is written here */
	const char *own_path;	/* and here what is new since `before`; NULL: not wanted */
	const char *before;	/* the diff as an earlier run left it; NULL: there was none, so own and whole are the same */
	int64_t max_bytes;	/* of the patch; beyond: ERR_LIMIT */
};

/* *ret_summary: {"files":[{"path","status":"A|M|D|R|T","old_path"?,"added":N|null,"deleted":N|null,"binary":bool}],"added":N,"deleted":N,"tree":"<result tree>","bytes":N,"skipped":[{"path","reason"}],
 * "own":{"added","deleted","files":N,"bytes":N} or {"missing":"why"}}
 * A path that is not UTF-8 has path_base64 (old_path_base64) beside it. What the snapshot does not track and .gitignore excludes is left out, as are .git
 * directories, submodules' contents, files over DIFF_FILE_MAX and whatever is neither file nor link. Renames are told unless a symbolic link was renamed. */
MUST_USE enum err_code diff_collect(const struct diff_job *job, struct js **ret_summary, struct error *e);
/* Plain mode, after setup: the tree id of the workspace as it is. */
MUST_USE enum err_code diff_snapshot_tree(const struct diff_job *job, char **ret_tree, struct error *e);
