/* The conversation of a task, for the files of this room: what happens to it inside other transactions. */
#pragma once
#include "core/task_db.h"

/* When a run has ended: messages that were queued meanwhile begin the next turn. */
MUST_USE enum err_code talk_next_turn(struct db_conn *c, const char *task, struct outbox *out, struct error *e);
