/* Tasks whose directories are behind their rows: a queue without doubles, in which those that have ended go first, as somebody waits for them.
 * Thread-safe; one thread takes. */
#pragma once
#include "base/clock.h"
#include <stdbool.h>

enum { BEHIND_WHOLE = 1, /* its files may be behind, whatever the log's end says */
       BEHIND_ENDED = 2 };

struct behind;

struct behind *behind_new(void);
void behind_free(struct behind *b);
void behind_add(struct behind *b, const char *task_id, unsigned flags);
/* The next one; waits for it.  False when the queue was stopped and is empty. */
bool behind_take(struct behind *b, char ret_task_id[ID_SIZE], unsigned *ret_flags);
void behind_done(struct behind *b, bool written); /* with the one that was taken; what was not written waits for behind_again */
void behind_again(struct behind *b);
bool behind_has(struct behind *b, const char *task_id, unsigned flags); /* it is queued with these flags, or being written */
void behind_stop(struct behind *b);
