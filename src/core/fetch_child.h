/* `signalbox fetch` as the server's child: one job in, its result or its error out. */
#pragma once
#include "base/js.h"

#define FETCH_ARCHIVE_FD 3

struct core;

/* Adds cache, uid and gid to `job`. credential_fd is inherited as CREDENTIAL_FD; -1: none. */
MUST_USE enum err_code fetch_child_run(struct core *c, const char *project, struct js *job, int credential_fd, int64_t timeout_ms, struct js **ret, struct error *e);
/* The same with the archive's file instead of a credential, and no variable of ours. */
MUST_USE enum err_code fetch_child_unpack(struct core *c, const char *project, struct js *job, int archive_fd, int64_t timeout_ms, struct js **ret, struct error *e);
