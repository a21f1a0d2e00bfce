/* The server's heart: what the API asks for.  One struct core per data directory (a lock makes sure).
 *
 *   submit -> queue -> scheduler thread: claim, task directory, spec, runner -> ingest of the runner's batches -> end
 *   reaper thread: pidfds of local runners      record thread: task directories follow the rows      gateway: a child that outlives us
 *
 * Every function may be called from any thread.  `by` is who asks, and for which project. */
#pragma once
#include "base/js.h"
#include "core/caller.h"
#include "core/hub.h"
#include "db/db.h"

#define RUNNER_PROTOCOL 1	   /* spoken by runners of this build; the server also takes RUNNER_PROTOCOL - 1 */
#define EVENTS_PAGE_MAX 1000
#define EVENTS_PAGE_BYTES ((size_t)4 << 20) /* of lines in one page; one line more */
#define TASKS_PAGE_MAX 200
#define RUNNER_BATCH_MAX 512	   /* events in one POST */

struct core;

struct core_options {
	const char *data_dir, *runtime_dir, *config_path; /* NULL: the defaults */
};
MUST_USE enum err_code core_open(const struct core_options *o, struct core **ret, struct error *e);
/* Starts scheduling and adoption; the API's socket must be listening by then (runners call it). */
MUST_USE enum err_code core_start(struct core *c, struct error *e);
void core_drain(struct core *c); /* no new claims */
int core_stop_runs(struct core *c, int64_t grace_ms); /* asks the local runners to end and waits; how many are still there */
/* Reads the configuration again: {changed: [...], restart: [...]}, by the names of its parts. A file with an error changes nothing. */
MUST_USE enum err_code core_reload(struct core *c, struct js **ret, struct error *e);
uint64_t core_pulse(struct core *c);		      /* grows while the scheduler's thread lives: for a watchdog */
void core_close(struct core *c); /* runs go on without us */

const char *core_data_dir(const struct core *c);
const char *core_socket(const struct core *c);
const char *core_runner_socket(const struct core *c); /* where runners call: only their routes are served there */
const struct js *core_hosts(struct core *c);	/* names of this server in the configuration, or NULL */
const char *core_listen(struct core *c);	/* its TCP address there, or NULL */
struct hub *core_hub(struct core *c);
struct js *core_reconcile(struct core *c); /* {last, counts, findings} */
struct js *core_checks(struct core *c);	/* for /readyz and doctor: [{name, ok, text, hint}] */
bool core_ready(struct core *c);
void core_metrics(struct core *c, struct strbuf *out);

/* *ret_task: the task as JSON text; the caller frees. */
MUST_USE enum err_code core_submit(struct core *c, struct caller by, const struct js *body, char **ret_task, struct error *e);
/* The same in steps, so that no thread waits for the commit: begin checks everything and fixes the source; commit calls `then(arg)` once, from
 * whichever thread writes or before it returns, when the task is on disk or was refused; end says which. */
struct submission;
MUST_USE enum err_code core_submit_begin(struct core *c, struct caller by, const struct js *body, struct submission **ret, struct error *e);
void core_submit_commit(struct submission *s, void (*then)(void *arg), void *arg);
MUST_USE enum err_code core_submit_end(struct submission *s, char **ret_task, struct error *e);
void core_submission_free(struct submission *s); /* not between commit and `then`; NULL is fine */
MUST_USE enum err_code core_task(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret, struct error *e);
/* The same as JSON text, cheap for those who ask again and again; the caller frees. */
MUST_USE enum err_code core_task_text(struct core *c, struct caller by, const char *ref, const char *repo, char **ret, struct error *e);
/* NULL: whatever it is. `q` is words of the prompt; `labels` are "KEY=VALUE" or "KEY", all must be there. */
struct task_filter { const char *state, *q, *name, *repo, *after; const char *const *labels; size_t label_count; int64_t limit; };
MUST_USE enum err_code core_tasks(struct core *c, struct caller by, const struct task_filter *f, struct js **ret_list, struct error *e);
MUST_USE enum err_code core_resolve(struct core *c, struct caller by, const char *ref, const char *repo, char ret_id[27], struct error *e);
/* Cheap, where core_task counts the task's place in the queue.  At work: neither over nor waiting for a human; a task that is gone is neither. */
MUST_USE enum err_code core_is_over(struct core *c, const char *id, bool *ret, struct error *e);
MUST_USE enum err_code core_is_at_work(struct core *c, const char *id, bool *ret, struct error *e);
MUST_USE enum err_code core_cancel(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret_task, struct error *e);
MUST_USE enum err_code core_retry(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret_task, struct error *e);
/* {text, queue?, id?}: begins the next turn of an ended or waiting task; steers one at work when its agent can, else it is queued when asked.
 * The same id with the same text again: nothing new. *ret_task has `message` {n, how: turn|steering|queued}. */
MUST_USE enum err_code core_message(struct core *c, struct caller by, const char *ref, const char *repo, const struct js *body, struct js **ret_task, struct error *e);
/* Asks a running turn to end; the task then is CANCELED (interrupted), its workspace kept, and goes on with a message. */
MUST_USE enum err_code core_interrupt(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret_task, struct error *e);
struct gate_filter { const char *state, *task, *after; int64_t limit; }; /* NULL: any */
/* {data, next_cursor} as JSON text, newest first. */
MUST_USE enum err_code core_gates(struct core *c, struct caller by, const struct gate_filter *f, struct strbuf *ret_text, struct error *e);
MUST_USE enum err_code core_gate(struct core *c, struct caller by, const char *id, struct js **ret, struct error *e);
/* {decision, scope, answer, note}. The same again is ERR_OK with the first outcome; ERR_CONFLICT says who settled it when; ERR_UNPROCESSABLE where it does not fit. */
MUST_USE enum err_code core_decide(struct core *c, struct caller by, const char *gate, const struct js *body, struct js **ret_gate, struct error *e);
/* {name, labels, priority}: what is given changes; a label that is null goes. */
MUST_USE enum err_code core_patch(struct core *c, struct caller by, const char *ref, const char *repo, const struct js *body, struct js **ret_task, struct error *e);
MUST_USE enum err_code core_delete(struct core *c, struct caller by, const char *ref, const char *repo, struct error *e);
MUST_USE enum err_code core_runs(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret_list, struct error *e);
MUST_USE enum err_code core_run(struct core *c, struct caller by, const char *run_id, struct js **ret, struct error *e);
/* The agent's plan as it is: {data: [{id, text, status, worker}], updated_at}. */
MUST_USE enum err_code core_todos(struct core *c, struct caller by, const char *ref, const char *repo, struct js **ret, struct error *e);
char *core_task_dir(struct core *c, const char *task_id); /* the caller frees */
bool core_record_is_whole(struct core *c, const struct js *task); /* of a task that has ended, as it is shown: its directory says all that its rows do */

/* A page of event lines with seq > after; fn per line. *ret_head is the task's last seq, *ret_over whether it has ended.  A page may end before
 * `limit` lines, at its limit of bytes: the last seq against *ret_head tells whether there is more. */
MUST_USE enum err_code core_events_within(struct core *c, struct caller by, const char *task_id, int64_t after, int64_t limit, size_t bytes_max,
	void (*fn)(void *ctx, int64_t seq, const char *line), void *ctx, int64_t *ret_head, bool *ret_over, struct error *e);
MUST_USE enum err_code core_events(struct core *c, struct caller by, const char *task_id, int64_t after, int64_t limit,
	void (*fn)(void *ctx, int64_t seq, const char *line), void *ctx, int64_t *ret_head, bool *ret_over, struct error *e);

/* Whether the line is an event whose type begins so ("run."); with a closing quote ("task.done\"") it is that type. Data may hold anything. */
int64_t core_generation(struct core *c, const char *task_id); /* of the log: grows when it was rebuilt; 1 when unknown */
bool core_line_is(const char *line, const char *type);
bool core_line_begins_again(const char *line); /* the task was over and is not any more: a retry, a new turn */

/* The last seq of each task that lives, and of each whose id is greater than `younger_than` (NULL: none): id -> seq, into heads; at most HEADS_MAX. */
#define HEADS_MAX 16384
MUST_USE enum err_code core_heads(struct core *c, struct caller by, const char *younger_than, struct js *heads, struct error *e);

/* The runner's protocol. `token` is the run's. */
MUST_USE enum err_code core_ingest(struct core *c, const char *run_id, const char *token, const struct js *body, struct js **ret, struct error *e);
MUST_USE enum err_code core_commands(struct core *c, const char *run_id, const char *token, int64_t after, struct js **ret_list, struct error *e);
/* Offers a model provider's key that was exported after the server started. Kept in memory only. */
MUST_USE enum err_code core_offer_key(struct core *c, const char *provider, const char *key, struct error *e);
