/* Looking on at a task until it is settled, and telling its result. */
#pragma once
#include "cli/cli.h"

/* Somebody else who reads what is typed: told to hold while a question is asked, and to go on after it. */
struct run_typing {
	void (*hold)(void *ctx, bool hold);
	void *ctx;
};

/* From the event behind `after` on. On a terminal the questions that open are asked there. With `typing` (may be NULL) a question that is left
 * is not the end, and there is no live line: somebody types there. `begin`: what the live line says first. */
MUST_USE enum err_code run_follow(struct cli *c, const struct js *task, int64_t after, const struct run_typing *typing, const char *begin, struct error *e);
