/* The heartbeat file that others poll (schema: doc/state.schema.json).  Written whole and renamed, never through a link; whoever writes
 * holds the task's file lock and looks first whether a newer run has written.  Used by the server and by the runner: libc and jansson. */
#pragma once
#include "base/js.h"

struct statefile {
	const char *task_id, *session_id;
	const char *status;	/* PENDING RUNNING DONE ERROR TIMEOUT */
	const char *progress;	/* or NULL */
	const char *error;	/* or NULL */
	int64_t start_ms, completed_ms; /* wall; 0: not yet */
	int64_t heartbeat_ms;	/* wall, the last sign of life; 0: now, the writer is it */
	int64_t run;		/* the fencing number; 0 before the first run */
	const struct js *result; /* {filesChanged, testsRun, testsPassed} or NULL */
	const struct js *beat;	/* extra: the three clocks and the cause, or NULL */
};

/* What the outside calls our status: QUEUED is PENDING, WAITING is RUNNING, CANCELED is ERROR. */
const char *statefile_status(const char *status);
/* From a task's result (or NULL). The caller frees. */
struct js *statefile_result(const struct js *task_result);
/* Writes dir/name; ERR_STALE when a higher run number is in the file. `lock_path`: the task's lock file. */
MUST_USE enum err_code statefile_write(const char *dir, const char *name, const char *lock_path, const struct statefile *s, struct error *e);
/* Makes <repo>/.codex/tasks with a .gitignore that ignores everything in it. */
MUST_USE enum err_code statefile_prepare_mirror(const char *dir, struct error *e);
