/* A gate in its task's directory, for people and scripts with no server: gates/<id>.yaml says what is asked and how to answer, gates/<id>.decision is what
 * settled it, made once by link(2) and never replaced, inbox/<id>.yaml is where an answer is put.  Used by the server and by the runner (as whoever each is):
 * gates/ and inbox/ belong to the runs' identity, so nothing is opened through a link there. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include <stdbool.h>
#include <sys/types.h>

#define GATEFILE_MAX ((size_t)256 << 10) /* of one decision, of one file in the inbox */
#define GATEFILE_INBOX_MAX 64		  /* files looked at in one scan */
#define GATEFILE_ENTRIES_MAX 4096	  /* of the directory, with what is passed over */
#define GATEFILE_FRESH_MS 2000

/* Makes gates/, inbox/ and inbox/done/ below the task's directory; uid -1: as they are made. */
MUST_USE enum err_code gatefile_dirs(const char *task_dir, uid_t uid, gid_t gid, struct error *e);
/* `gate`: {id, kind, data, created_at, deadline_at?, at_deadline?}. */
MUST_USE enum err_code gatefile_write(const char *task_dir, const struct js *gate, struct error *e);
/* Settles: durable when it returns. *ret_winner: the decision that counts, ours or the one that was there; the caller frees. */
MUST_USE enum err_code gatefile_settle(const char *task_dir, const char *gate, const struct js *decision, struct js **ret_winner, bool *ret_won, struct error *e);
/* ERR_NOT_FOUND: not settled. */
MUST_USE enum err_code gatefile_decision(const char *task_dir, const char *gate, struct js **ret, struct error *e);

/* Looks through inbox/.  What take returns becomes of the file: left for later, moved to done/, to done/NAME.refused, or removed (it held a secret). */
enum inbox_fate { INBOX_LEAVE, INBOX_DONE, INBOX_REFUSED, INBOX_REMOVE };
struct inbox_file {
	const char *name, *text; /* text NULL: it could not be read, `problem` says why */
	size_t len;
	const char *problem;
	uid_t owner;
	bool fresh; /* written within the last moments: somebody may still be at it, so what is wrong with it is not told yet */
};
typedef enum inbox_fate (*inbox_take)(void *ctx, const struct inbox_file *file);
void gatefile_inbox(const char *task_dir, inbox_take take, void *ctx);
/* <gate>.yaml -> the gate's id; false: it is no gate's name. */
bool gatefile_inbox_gate(const char *name, char *ret_id, size_t size);
/* The decision that such a file gives, as a body for decision_check: members that are comments' examples left empty are left out. */
MUST_USE enum err_code gatefile_parse(const char *text, size_t len, struct js **ret_body, struct error *e);
