/* Files that git-lfs keeps beside a repository. */
#pragma once
#include "base/err.h"

MUST_USE enum err_code lfs_check(struct error *e);
