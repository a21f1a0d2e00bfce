/* What follows a run that did not succeed: another attempt, after which pause, or the end.  Failures of our own house (a lost runner, a
 * full disk) are counted apart from failures of the agent; some reasons are never tried again. */
#pragma once
#include "core/task_db.h"

#define RETRY_ATTEMPTS_MAX 100

enum retry_class { RETRY_NEVER, RETRY_HOUSE, RETRY_AGENT };
enum retry_class retry_class_of(const char *reason);

/* From a request's `retry` member (or a bare `retries` count): {attempts, house_attempts, initial_ms, factor_percent, cap_ms, jitter_percent}, whole
 * and checked; NULL gives none at all. */
MUST_USE enum err_code retry_parse(const struct js *body, struct js **ret_policy, struct error *e);
/* -1: no further attempt; else the pause in ms before attempt `attempt`+1. `done` failures of this class have happened in this turn, this one included.
 * `random` is any number, for the jitter. */
int64_t retry_pause_ms(const struct js *policy, enum retry_class class, int64_t done, uint32_t random);
