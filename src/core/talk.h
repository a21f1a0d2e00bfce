/* The conversation of a task, for the files of this room: what happens to it inside other transactions. */
#pragma once
#include "core/task_db.h"

/* When a run has ended: messages that were queued meanwhile begin the next turn. */
MUST_USE enum err_code talk_next_turn(struct db_conn *c, const char *task, struct outbox *out, struct error *e);

struct gate_row;
/* The last open gate of a task without a live run has been settled: the next attempt of the turn, or the next turn, or the end. */
MUST_USE enum err_code talk_go_on(struct db_conn *c, const struct task_row *t, const struct gate_row *g, const struct js *decision, struct outbox *out, struct error *e);
/* What a runner tells of a message that it was given: the agent took it (refused NULL), or it waits for the next turn. */
MUST_USE enum err_code talk_said(struct db_conn *c, const char *task, int64_t message, const char *refused, struct error *e);
