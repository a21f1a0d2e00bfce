/* The stage: one clone of the runner that is the init of its own PID, user and mount namespaces.  It waits until the runner has told
 * it to go (so a runner killed in between leaves nothing), becomes the sandbox's host identity, mounts the layers, starts what it was
 * made for, and ends with it, or when the runner's end of the death socket is closed.  Its end is the end of everything in it. */
#pragma once
#include "sandbox/plan.h"

#define STAGE_FD_FLOOR 64	 /* the stage's own descriptors live from here up, out of the way of those it passes on */
#define STAGE_EXIT_FAILED 125	 /* the reason is on the error pipe */
#define STAGE_EXIT_ABANDONED 137 /* the runner is gone */
#define STAGE_OOM_SCORE "500"	 /* the kernel takes an agent before the server */
#define STAGE_TEXT_MAX ((size_t)4096) /* of bwrap's last words */
#define STAGE_REPORT_MAX ((size_t)16 << 10)

struct stage {
	const struct sandbox_layers *layers; /* NULL: none */
	uid_t uid;			     /* used when we are root */
	gid_t gid;
	const struct sandbox_plan *plan; /* start bwrap for it... */
	const struct op_list *ops;
	const char *bwrap;
	int (*call)(void *arg); /* ...or call this */
	void *arg;
};

MUST_USE enum err_code stage_start(const struct stage *s, struct sandbox *ret, struct error *e);

/* Writes {"step","error","code"} as one line. */
void stage_report(int fd, const char *step, const struct error *e);
