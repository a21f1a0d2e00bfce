/* `git diff-tree` of two trees: the patch streamed to a file under a limit, the rest as a summary. */
#pragma once
#include "base/js.h"
#include "source/git.h"

/* Adds files, added, deleted, bytes to `summary` (diff.h). patch_path is replaced whole, or not touched at all. */
MUST_USE enum err_code diff_read(const struct git *g, const char *from, const char *to, const char *patch_path, int64_t max_bytes,
	struct js *summary, struct error *e);
