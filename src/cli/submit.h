/* From the words of run and start to a task on the server. */
#pragma once
#include "cli/cli.h"

/* Submits; *ret_task is what the server made of it. */
MUST_USE enum err_code submit_task(struct cli *c, struct js **ret_task, struct error *e);
