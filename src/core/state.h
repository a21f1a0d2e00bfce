/* The life of a run and of its task: phases, the legal moves between them, and what the outside is told.
 * state_move_check is the only judge; task_db's one moving function asks it before every change. */
#pragma once
#include "base/err.h"
#include <stdbool.h>

enum phase {
	PHASE_QUEUED, PHASE_CLAIMED, PHASE_FETCHING, PHASE_PREPARING, PHASE_SETUP, PHASE_RUNNING, PHASE_WAITING_HUMAN, PHASE_COLLECTING,
	PHASE_SUCCEEDED, PHASE_FAILED, PHASE_CANCELED, PHASE_TIMED_OUT, PHASE_LOST,
	PHASE_COUNT
};

const char *phase_name(enum phase p);
bool phase_from_name(const char *name, enum phase *ret);
bool phase_is_terminal(enum phase p);
const char *phase_status(enum phase p); /* PENDING QUEUED RUNNING WAITING DONE ERROR TIMEOUT CANCELED */
/* ERR_CONFLICT, with both names, when the move is not in the table. Staying is not a move. */
MUST_USE enum err_code state_move_check(enum phase from, enum phase to, struct error *e);
/* An ended or waiting task may be queued again, but only because a person asked for it (retry, a follow-up): the same error otherwise. */
MUST_USE enum err_code state_reopen_check(enum phase from, struct error *e);
