/* Rows of tasks, runs and events: what is done inside one transaction.  Every function here runs in a db op.
 * What was appended is collected in a struct outbox and published by the caller after the commit. */
#pragma once
#include "base/clock.h"
#include "base/js.h"
#include "core/caller.h"
#include "core/state.h"
#include "db/db.h"

/* Conditions in the very words of the indexes tasks_live, runs_live and tasks_over, which SQLite takes only for those.  Not NOT IN (...): where an
 * index has a list in its condition, each INSERT and UPDATE makes a table of that list first, and that was a third of what a submit cost. */
#define SQL_LIVE(phase) "(" phase "<>'succeeded' AND " phase "<>'failed' AND " phase "<>'canceled' AND " phase "<>'timed_out' AND " phase "<>'lost')"
#define SQL_OVER(phase) "(" phase "='succeeded' OR " phase "='failed' OR " phase "='canceled' OR " phase "='timed_out' OR " phase "='lost')"

struct task_row {
	char id[ID_SIZE];
	char *name, *project, *repo, *created_by, *session_id, *reason, *error, *progress;
	enum phase phase;
	struct js *spec, *labels, *result;
	int64_t priority, created_at, started_at, completed_at, last_seq, run_n, beat_at; /* times: ms, 0 when not yet */
	int64_t created_mono; /* with `boot`: how old it is, whatever the wall clock does */
	int64_t house_failures, agent_failures; /* of this turn */
	int64_t turn;
	char *turn_prompt; /* the message that began it; NULL: the request */
	int64_t waited_ms, waiting_since; /* for humans: in all, and since when it does now, by the task's own clock (task_age_ms) */
	char *boot;
	bool cancel_asked;
};

struct run_row {
	char *id, *task, *worker, *project, *repo, *token_hash, *boot, *reason, *error;
	enum phase phase;
	int64_t n, turn, attempt, pid, start_ticks, acked, exchanges, beat_at, created_at, ended_at;
	struct js *beat, *result;
};

struct core;

/* Event lines made in a transaction, in order. */
struct outbox {
	struct core *core; /* whose task directories: where gates are settled on the way (the end of a task) their files are linked; NULL: no gate can be */
	struct outbox_line { char task[ID_SIZE], project[PROJECT_SIZE]; int64_t seq, n; char *line; } *lines; /* n: in the log of all tasks */
	size_t count, cap;
};
void outbox_release(struct outbox *o);

struct js *column_js(struct db_stmt *s, int column); /* a column that holds JSON; NULL for NULL */
void task_row_release(struct task_row *t);
void run_row_release(struct run_row *r);
#define AUTO_TASK __attribute__((cleanup(task_row_release)))
#define AUTO_RUN __attribute__((cleanup(run_row_release)))

MUST_USE enum err_code task_load(struct db_conn *c, const char *id, struct task_row *ret, struct error *e);
MUST_USE enum err_code run_load(struct db_conn *c, const char *id, struct run_row *ret, struct error *e);
MUST_USE enum err_code run_find(struct db_conn *c, const char *project, const char *id, struct run_row *ret, struct error *e); /* for people, like task_find */
/* The one way from people's words to a task: what is of another project than `project` (or PROJECT_ANY) does not exist.
 * `ref` is an id, or a name, or the beginning of just one id (then `repo` narrows when not NULL). Several matches: ERR_CONFLICT whose hint lists the ids. */
MUST_USE enum err_code task_find(struct db_conn *c, const char *project, const char *ref, const char *repo, char ret_id[ID_SIZE], struct error *e);

/* A new task and its first event.  Its texts are made before the transaction: only one transaction writes at a time. */
struct task_birth {
	const struct task_row *row;
	char *spec, *labels, *line;
	int64_t n; /* of its first event in the log of all tasks; set by task_insert */
};
void task_birth_make(struct task_birth *b, const struct task_row *t);
void task_birth_release(struct task_birth *b);
MUST_USE enum err_code task_insert(struct db_conn *c, struct task_birth *b, struct error *e);
void outbox_add_birth(struct outbox *o, const struct task_birth *b); /* its first line, for those who publish an outbox */
/* A line as it is, with its place in the log of all tasks. */
MUST_USE enum err_code event_put(struct db_conn *c, const char *task, int64_t seq, int64_t at, const char *type, const char *line, int64_t *ret_n, struct error *e);
/* Appends one event: seq comes from tasks.last_seq in this transaction. `data` is taken. worker may be NULL; run_n 0: none. */
MUST_USE enum err_code event_add(struct db_conn *c, const char *task, const char *type, const char *worker, int64_t run_n,
	const char *actor, int64_t at, struct js *data_taken, struct outbox *out, struct error *e);
/* The only functions that change a phase; they refuse what the table does not allow, and say it in an event. */
struct move {
	enum phase to;
	const char *reason, *error, *actor;
	int64_t at;	  /* wall ms; 0: now */
	bool reopen;	  /* a person wants an ended task to begin again */
	int64_t pause_ms; /* to queued: not before this has passed */
};
MUST_USE enum err_code task_move(struct db_conn *c, const char *id, const struct move *m, struct outbox *out, struct error *e);
/* Moves a run and its task with it. When the run ends, `task_to` tells where the task goes (usually the same; waiting_human when blocked). */
MUST_USE enum err_code run_move(struct db_conn *c, const char *run_id, const struct move *m, enum phase task_to, struct outbox *out, struct error *e);

/* Milliseconds since the task was made, without those in which it waited for a human: by the monotonic clock within one boot, else by the wall clock. */
int64_t task_age_ms(const struct task_row *t);

/* What the API shows. */
struct js *task_to_js(const struct task_row *t, const char *directory);
char *task_to_text(const struct task_row *t, const char *directory); /* the same, when it is only written; the caller frees */
struct js *run_to_js(const struct run_row *r);
