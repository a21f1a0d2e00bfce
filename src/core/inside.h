/* struct core, for the files of this room only. */
#pragma once
#include "core/conf.h"
#include "core/core.h"
#include "core/seal.h"
#include "core/task_db.h"
#include "sandbox/sandbox.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#define GATE_COUNTED 5 /* states that a settled gate can have */

#define TOKEN_KEY_SIZE 32
#define SCHED_TICK_MS 1000
#define BEAT_INTERVAL_MS 10000
#define SERVER_ACTOR "signalbox"
#define THE_SERVER ((struct caller){ SERVER_ACTOR, PROJECT_ANY, true }) /* asks itself */
#define TASK_DELETED ".deleted" /* in a task's directory before its rows go: what is left of it is no record to import */

struct reaper;
struct taskdirs;
struct gateway_ctl;
struct shown;
struct reconcile;
struct shares;
struct externals;
struct uploads;
struct tokens;
struct cache_keeper;

struct core {
	char *data, *runtime, *socket, *runner_socket, *runner_path, *init_path, *exe;
	struct conf *_Atomic config; /* replaced by a reload; the old ones stay, for whoever is looking at them */
	struct conf **old_configs;
	size_t old_config_count;
	pthread_mutex_t reloading; /* guards the two above */
	char *config_option;	   /* the path we were given, or NULL */
	struct db *db;
	struct hub *hub;
	struct shown *shown;
	int lock_fd;
	bool root;
	uid_t uid; /* the sandboxes' identity */
	gid_t gid;
	struct sandbox_probe probe;
	unsigned char token_key[TOKEN_KEY_SIZE]; /* signs the runs' gateway tokens */
	unsigned char seal_key[SEAL_KEY_SIZE];	 /* seals people's secret answers */
	unsigned gate_ticks; /* of the scheduler's thread alone, like where the next looks go on: */
	char gates_after[ID_SIZE], inboxes_after[ID_SIZE];

	struct reaper *reaper;
	struct taskdirs *taskdirs;
	struct gateway_ctl *gateway;
	struct reconcile *reconcile;
	struct externals *externals;
	struct tokens *tokens;
	struct cache_keeper *cache;
	struct uploads *uploads;

	struct js *empty_snapshot; /* of a task without code; guarded by sched_lock */
	bool empty_making;	   /* somebody makes it; with sched_lock */
	pthread_cond_t empty_made; /* with sched_lock */
	pthread_mutex_t sched_lock; /* guards the next five */
	pthread_cond_t sched_wake;
	bool sched_asked, sched_stop, draining;
	bool sched_short_of_room; /* the scheduler's alone: it has said so */
	bool sched_full; /* the last look found every place taken; whoever frees one asks */
	int snapshots_now, snapshots_waiting;
	pthread_cond_t snapshot_left; /* with sched_lock */
	pthread_t sched_thread;
	bool sched_running;
	/* Held from a run's claim until its runner is watched, by whoever looks for runs that nobody watches, and by whoever takes a worker's
	 * directories away: a run is started once, and a workspace is not removed under one.  Before the reaper's lock. */
	pthread_mutex_t launching;

	struct shares *shares;
	atomic_ullong queued_about; /* rows of the queue: counted each tick, plus what was submitted since */
	atomic_ullong idem_about; /* kept idempotency keys: counted now and then, plus what came since */
	int64_t idem_next;	  /* the tick's own: when to sweep them again, monotonic ms */
	atomic_int proofs_now; /* proofs of access that are being taken */
	atomic_ullong cache_hits, cache_misses, cache_evictions, cache_evicted_bytes;
	atomic_ullong pulse, submitted, started, ended, lost, ingested;
	atomic_ullong gates_settled[GATE_COUNTED]; /* by state */
};

/* tasks.c: a task as the API shows it. How many go before it is counted, which takes its time in a long queue. */
enum { SHOW_RUN = 1, SHOW_PLACE = 2 };
MUST_USE enum err_code core_show(struct core *c, struct db_conn *conn, const char *id, unsigned what, struct js **ret, struct error *e);

/* search.c: full text over prompts. */
MUST_USE enum err_code search_catch_up(struct core *c, struct error *e); /* every committed task can be found */
void search_tick(struct core *c);
MUST_USE enum err_code search_forget(struct db_conn *c, const char *task, struct error *e); /* before its row goes */
MUST_USE enum err_code search_parse(const char *q, struct strbuf *out, struct error *e); /* what people type -> the index's language */

/* idempotency.c: keys older than their time go. */
void idem_tick(struct core *c);

/* tokens.c */
struct tokens *tokens_new(void);
void tokens_free(struct tokens *t); /* NULL is fine */
MUST_USE enum err_code tokens_load(struct core *c, struct error *e);

/* launch.c: the task directory and the runner. */
/* What opens the server to a run's runner: it gets the text through a pipe, the database has the hash. */
struct run_token {
	char *text, hash[65];
};
void run_token_make(struct run_token *t);
void run_token_release(struct run_token *t);
/* `token` is the one whose hash the claim has written; NULL: a new one takes its place. */
MUST_USE enum err_code launch_run(struct core *c, const char *run_id, const struct run_token *token, struct error *e);
char *launch_run_dir(struct core *c, const char *task, const char *worker, int64_t n);
/* Its parts from the worker's directory on belong to the sandboxes' identity: no link is followed on the way. */
MUST_USE enum err_code launch_open_run_dir(struct core *c, const char *task, const char *worker, int64_t n, int *ret_fd, struct error *e);
void launch_complete_record(struct core *c, const struct run_row *r); /* what people find beside a run's directory, where it lacks */
/* One workspace per worker, kept between its runs. */
char *launch_work_dir(struct core *c, const char *task, const char *worker);
/* The newest run's workspace was saved, or it holds no layers: only then may it go before its time. */
bool launch_workspace_is_spare(struct core *c, const char *task, const char *worker, int64_t newest);
/* After a runner's end: when the task is over and the workspace saved, the work directory. Then lets the task's next run begin. */
void launch_clean_up(struct core *c, const char *run_id);

/* sched.c */
MUST_USE enum err_code sched_start(struct core *c, struct error *e);
void sched_stop(struct core *c);
/* What a queued task waits for, in words for people, without "waits for"; nothing when its turn has come.  In a db op. */
MUST_USE enum err_code sched_why_queued(struct db_conn *conn, struct core *c, const struct task_row *t, struct strbuf *out, struct error *e);
void sched_ask(struct core *c); /* something may be claimable */
void sched_ask_queued(struct core *c); /* ... because something was queued: nobody is woken while all places are taken */

/* reaper.c: notices the end of local runners. */
MUST_USE enum err_code reaper_start(struct core *c, struct error *e);
void reaper_stop(struct core *c);
void reaper_watch(struct core *c, const char *run_id, pid_t pid, int pidfd_taken);
void reaper_beat(struct core *c, const char *run_id); /* the runner has spoken */
int reaper_signal_all(struct core *c, int sig); /* how many runners are watched */
void reaper_tick(struct core *c);		       /* a runner that has been silent for too long is killed: its run is then lost */
MUST_USE enum err_code reaper_adopt_all(struct core *c, struct error *e); /* held runs that nobody watches; at start all of them */

/* gate.c */
void gates_count(struct core *c, const char *state); /* one was settled; `state` may go on */
void gates_metrics(struct core *c, struct strbuf *out);
void gates_tick(struct core *c); /* expired gates, inboxes, decisions that were linked and not committed */

/* ingest.c */
MUST_USE enum err_code ingest_spool(struct core *c, const char *run_id, bool *ret_ended, struct error *e); /* from disk, what was not acknowledged */
MUST_USE enum err_code ingest_lost(struct core *c, const char *run_id, const char *reason, const char *text, struct error *e);

/* taskdir.c: task directories follow the rows. */
MUST_USE enum err_code taskdir_start(struct core *c, struct error *e);
void taskdir_stop(struct core *c);
void taskdir_dirty(struct core *c, const char *task_id);
void taskdir_dirty_ended(struct core *c, const char *task_id); /* goes first */
void taskdir_end_run(struct core *c, const struct task_row *t, const struct run_row *r); /* its heartbeat file, if its runner could not end it */
void taskdir_dirty_whole(struct core *c, const char *task_id); /* its files may be behind its log */
bool taskdir_is_whole(const char *dir, int64_t completed_at); /* an ended task's files were written after its end */
void taskdir_tick(struct core *c); /* records that could not be written are tried again; heartbeats of those that wait for a human */
void taskdir_hold(struct core *c, bool hold); /* between true and false no task's files are written */

/* usage.c: what the gateway counted. Adds usage.added events for new exchanges of a run; the sum is for the result. */
MUST_USE enum err_code usage_pull(struct core *c, const char *run_id, struct js **ret_total, struct error *e);
char *usage_file(struct core *c, const char *run_id);
/* The run's token opens the gateway from here to there: its file is there, and may be written. */
MUST_USE enum err_code usage_begin(struct core *c, const char *run_id, struct error *e);
void usage_end(struct core *c, const char *run_id);
struct js *usage_open_request(struct core *c, const char *run_id); /* {request_id, since, model} of a request that the model has not answered yet, or NULL */

/* reconcile.c: rows, processes, cgroups, directories and mounts are compared, at start and every minute. */
MUST_USE enum err_code reconcile_start(struct core *c, struct error *e); /* one pass, then the thread */
void reconcile_stop(struct core *c);
void reconcile_workspace(struct core *c, const char *task); /* a task has ended without a runner (canceled while it waited): its workspace goes, if it can */
void reconcile_records(struct core *c, char cursor[ID_SIZE]); /* the next few ended tasks' files; cursor "" : from the first */
void reconcile_found(struct core *c, const char *kind, const char *subject, const char *action); /* for the record, metrics and alerts */
void reconcile_metrics(struct core *c, struct strbuf *out);

/* import.c: a task directory that no row knows becomes rows again. */
MUST_USE enum err_code import_task(struct core *c, const char *id, struct error *e);

/* gateway_ctl.c: the gateway process. */
MUST_USE enum err_code gateway_ctl_start(struct core *c, struct error *e);
void gateway_ctl_stop(struct core *c); /* the process goes on */
void gateway_ctl_tick(struct core *c); /* restarts it when it is gone */
MUST_USE enum err_code gateway_ctl_set_key(struct core *c, const char *provider, const char *key, struct error *e);
void gateway_ctl_reload(struct core *c); /* the configuration may have changed: another gateway takes over when it has */
bool gateway_ctl_has_key(struct core *c, const char *provider);
/* These texts are cut out of the record of the task's model traffic from now on. Another gateway is told them at its start. */
MUST_USE enum err_code gateway_ctl_hide(struct core *c, const char *task, const struct js *texts, struct error *e);
int gateway_ctl_users_fd(struct core *c); /* while anybody has it open, the gateway goes on; each runner gets it */
char *gateway_ctl_dir(struct core *c); /* the directory that sandboxes see */
MUST_USE enum err_code gateway_ctl_token(struct core *c, const char *run_id, const struct js *spec, char **ret, struct error *e);

/* After a commit: wakes streams and the record. */
void core_publish(struct core *c, const struct outbox *out);
