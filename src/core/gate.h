/* Gates, for the files of this room: rows, and what happens to them inside other transactions.
 *
 *   blocked -> approved | rejected | answered | expired | canceled         settled once: gates/<id>.decision is linked into place first, then the row follows
 *   settled -> delivered                                                   when the run's agent has got it
 *
 * A gate of a live run is delivered to it as a command.  One whose run is gone waits; when the last such gate is settled the task goes on with a new
 * attempt (or turn) that is told the decisions and answers the same requests from the record. */
#pragma once
#include "core/task_db.h"

struct core;

#define GATE_RESUMES_MAX 10 /* attempts of one turn that only deliver decisions, beyond the retry policy's */
#define GATES_PAGE_MAX 1000

struct gate_row {
	char id[ID_SIZE];
	char *task, *run, *request, *kind, *state, *actor, *name, *boot, *project; /* request NULL: the agent asked with its last words; name: the task's */
	struct js *data, *decision;
	int64_t turn, created_at, settled_at, delivered_at, deadline_at, deadline_mono;
};
void gate_row_release(struct gate_row *g);
#define AUTO_GATE __attribute__((cleanup(gate_row_release)))

MUST_USE enum err_code gate_load(struct db_conn *c, const char *id, struct gate_row *ret, struct error *e);
MUST_USE enum err_code gate_find(struct db_conn *c, const char *project, const char *id, struct gate_row *ret, struct error *e); /* for people, like task_find */
/* From a runner's gate.blocked, or from a final answer. `data` has gate, kind, request?, deadline_at?, deadline_clock?; one that is there already is left as it is. */
MUST_USE enum err_code gate_open(struct db_conn *c, const struct run_row *r, const struct js *data, int64_t at, struct outbox *out, struct error *e);
/* `decision` {id, decision, ..., actor, at} has won gates/<id>.decision. Tells the live run, or lets the task go on. Settled already: nothing. */
MUST_USE enum err_code gate_settle(struct db_conn *c, const char *id, const struct js *decision, struct outbox *out, struct error *e);
/* Only the row and the event; who calls goes on itself. */
MUST_USE enum err_code gate_settle_row(struct db_conn *c, const struct gate_row *g, const struct js *decision, struct outbox *out, struct error *e);
MUST_USE enum err_code gate_delivered(struct db_conn *c, const char *id, int64_t at, struct error *e);
/* How many of the run's own requests are open, how many decisions of its turn no run has got. */
MUST_USE enum err_code gate_count(struct db_conn *c, const struct run_row *r, int64_t *ret_blocked, int64_t *ret_undelivered, struct error *e);
/* Settled requests of this turn, and of those before it what was not delivered, for the next attempt's spec: [{gate, kind, data, decision}]; sealed
 * answers stay sealed.  What ended a turn (an abort that was heard, a time that was up) is not among them: who begins the turn anew is asked again. */
MUST_USE enum err_code gate_decided(struct db_conn *c, const char *task, int64_t turn, struct js **ret, struct error *e);
/* Open gates of a task whose questions nobody will be asked any more: their files are linked here, in the transaction, since whoever links first has
 * settled it (what was linked before and not committed counts).  A task that ends with open gates is a person's matter: it may cost two syncs a gate. */
MUST_USE enum err_code gate_cancel_open(struct db_conn *c, const char *task, const char *actor, struct outbox *out, struct error *e);
MUST_USE enum err_code task_has_open_gate(struct db_conn *c, const char *task, bool *ret, struct error *e);
MUST_USE enum err_code task_has_live_run(struct db_conn *c, const struct task_row *t, bool *ret, struct error *e);
/* A numbered command for a run's runner; the caller wakes it (hub topic "commands:<task>") after the commit. */
MUST_USE enum err_code command_add(struct db_conn *c, const char *run, const char *kind, const struct js *data, const char *actor, struct error *e);

/* What a decision shows: secrets are stars. */
struct js *gate_decision_shown(const struct js *data, const struct js *decision);
/* The open gates of a task, as rows. The caller releases each and frees. */
struct gate_list { struct gate_row *rows; size_t n; };
void gate_list_release(struct gate_list *l);
MUST_USE enum err_code gate_list_open(struct db_conn *c, const char *task, struct gate_list *ret, struct error *e);
/* gate_record.c: gates in their task's directory.  *ret_winner: the decision that counts, to be freed: `decision`, or what was linked before it. */
MUST_USE enum err_code gate_settle_file(struct core *c, const char *task, const char *gate, const struct js *decision, struct js **ret_winner, struct error *e);
/* The same for the end of a task, which nothing may hold up: where nothing can be written it is `decision`, and the record is completed later. */
struct js *gate_link(struct core *c, const struct gate_row *g, const struct js *decision);
void gate_record_open(struct core *c, const char *task_dir, const struct gate_list *open); /* the questions that lack their file: those of last words */
void gate_record_settled(struct core *c, const char *task); /* decisions that lack theirs */
/* gate_secrets.c: answers to secret questions, sealed in place and opened again. */
MUST_USE enum err_code gate_seal(struct core *c, const struct js *data, struct js *decision, struct error *e);
MUST_USE enum err_code gate_reveal(struct core *c, const struct js *data, struct js *decision, struct error *e);
/* Opened for the runner, after the model gateway was told to hide them: while it cannot be told, they stay sealed. */
MUST_USE enum err_code gate_unseal(struct core *c, struct js *decision, struct error *e);
/* {task: [secret answers]} of one task, or (NULL) of all that are not over. ERR_LIMIT: not all of them are in *ret. */
MUST_USE enum err_code gate_secrets(struct core *c, const char *task, struct js **ret, struct error *e);
/* Before a run: the agent's session may know what was told to it in earlier turns. */
MUST_USE enum err_code gate_hide(struct core *c, const char *task, struct js **ret_texts, struct error *e);
