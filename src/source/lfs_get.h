/* HTTP for git-lfs, with libcurl: every URL is judged, its host pinned, no redirect followed, every file proven by its hash. */
#pragma once
#include "source/lfs.h"

struct lfs_road;

MUST_USE enum err_code lfs_road_open(struct fetch *f, const struct mirror_want *of, struct lfs_road **ret, struct error *e);
void lfs_road_close(struct lfs_road **r);
MUST_USE enum err_code lfs_ask(struct lfs_road *r, const struct js *question, struct js **ret_answer, struct error *e);
/* Into file->kept, whole or not at all. `headers` is what the server wants to be told there; may be NULL. */
MUST_USE enum err_code lfs_get_file(struct lfs_road *r, const char *href, const struct js *headers, const struct lfs_file *file, struct error *e);
