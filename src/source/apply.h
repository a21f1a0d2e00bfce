/* A finished task's diff.patch, put on a person's working tree. */
#pragma once
#include "base/err.h"
#include <stdbool.h>

#define APPLY_PATCH_MAX ((size_t)1 << 30) /* bytes */

/* All of the patch or nothing: when a part does not fit, ERR_CONFLICT names the files and nothing is touched. The index is left
 * alone, the directory need not be a git repository, and none of its configuration is used. check_only: only looks. */
MUST_USE enum err_code apply_patch(const char *dir, const char *patch_path, bool check_only, struct error *e);
