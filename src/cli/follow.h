/* The events of one task until it is settled (over, or waiting for a human).  A connection that breaks is made again from the last
 * event seen; nothing is submitted or started anew. */
#pragma once
#include "cli/cli.h"

struct follow {
	struct cli *c;
	const char *task_id;
	int64_t after; /* seq of the last event seen; events after it are delivered, each once */
	void (*on_event)(void *ctx, const struct js *event, const char *line, size_t len);
	void (*on_trouble)(void *ctx, const char *text); /* the connection broke, or is back; may be NULL */
	void *ctx;
	bool past_waiting; /* do not end at a question to a human */
	bool look;	   /* set by on_event: end the stream and look at the task itself */
	int64_t last;	   /* private: the log's last seq once the task is known to be settled, else 0 */
	const volatile int *interrupted;
};

/* ERR_CANCELED when interrupted. *ret_task is the task as it was settled. */
MUST_USE enum err_code follow_task(struct follow *f, struct js **ret_task, struct error *e);
/* Blocks until the task is settled, without its events; timeout_ms < 0 waits for ever, ERR_TIMEOUT when it is up. *ret_task is set
 * also then. `c` names the clients to use (each thread its own). */
MUST_USE enum err_code follow_wait(struct follow *f, int64_t timeout_ms, struct js **ret_task, struct error *e);
