/* What the files about external tasks share: external.c, external_db.c, external_message.c, external_files.c, external_record.c. */
#pragma once
#include "core/external.h"
#include "core/inside.h"

#define EXTERNAL_ACTOR_FILE "state-file" /* who did it, when a file told it */

/* How a task is described at its registration. */
struct external_birth {
	const char *project, *name, *session_id, *title, *progress, *who, *file; /* file: NULL for those on the channel */
	const struct js *source; /* checked */
	const char *repo;
	int64_t start_ms; /* wall; 0: now */
	bool pending;	  /* not begun yet */
};

/* How it ends. */
struct external_end {
	enum phase to;
	const char *reason, *error;
	const struct js *result; /* as the state file has it, or NULL */
	const char *summary;
	int64_t at; /* wall; 0: now */
};

/* In a write op. */
MUST_USE enum err_code external_insert(struct db_conn *c, const struct external_birth *b, char ret_id[ID_SIZE], struct outbox *out, struct error *e);
MUST_USE enum err_code external_begin(struct db_conn *c, const char *id, const char *who, struct outbox *out, struct error *e); /* a pending one runs */
MUST_USE enum err_code external_progress(struct db_conn *c, const char *id, const char *text, const char *who, struct outbox *out, struct error *e);
MUST_USE enum err_code external_finish(struct db_conn *c, const char *id, const struct external_end *end, const char *who, struct outbox *out, struct error *e);
MUST_USE enum err_code external_check_result(const struct js *result, const char *where, struct error *e);

/* external.c: the table of those that live.  age_ms: since the last sign of life. */
void external_know(struct core *c, const char *project, const char *id, const char *name, const char *session, const char *file, int64_t age_ms);
void external_beat(struct core *c, const char *id, int64_t age_ms);
/* A word from the agent of `ref` (an id, or the name it registered under; session NULL: any). */
enum heard { HEARD, HEARD_OF_FILE, HEARD_NOBODY };
enum heard external_hear(struct core *c, const char *project, const char *ref, const char *session, char ret_id[ID_SIZE], char **ret_name, bool *ret_interrupt);
void external_forget(struct core *c, const char *id);
bool external_is_known(struct core *c, const char *id);
size_t external_count(struct core *c);
void external_found(struct core *c, const char *file, const char *finding); /* kept, counted, logged */

/* external_files.c */
struct external_files;
MUST_USE enum err_code external_files_start(struct core *c, struct external_files **ret, struct error *e);
void external_files_stop(struct external_files *f); /* NULL is fine */
void external_files_look(struct external_files *f); /* soon, on its own thread: file systems may hang */
