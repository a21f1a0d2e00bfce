/* bubblewrap: found, given its arguments by descriptor, started from the stage. */
#pragma once
#include "sandbox/plan.h"

#define BWRAP_DATA_FDS_MAX 16

/* What the stage passes on; all at or above STAGE_FD_FLOOR and close-on-exec. */
struct bwrap_fds {
	int null, agent_in, agent_out, agent_err, control, report, words; /* words: a memfd for bwrap's own messages */
};

MUST_USE enum err_code bwrap_find(char **ret_path, struct error *e); /* the caller frees */
MUST_USE enum err_code bwrap_spawn(const char *bwrap, const struct sandbox_plan *p, const struct op_list *ops, const struct bwrap_fds *fds, pid_t *ret_pid, struct error *e);
MUST_USE enum err_code bwrap_memfd(const char *name, const void *data, size_t n, int *ret_fd, struct error *e); /* filled and rewound */
