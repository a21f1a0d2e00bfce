/* signalbox-runner: supervises one run, from preparing the workspace to handing in the result.  One thread, one poll loop.
 *
 *   main.c     begins, loops, ends                    spool.c   events made durable, then shipped
 *   steps.c    the phases in their order              link.c    the server: batches out, commands in
 *   workspace.c  layers, kept and saved               box.c     a program in the walls
 *   setup.c, agent_step.c, collect.c  the phases      beat.c    the heartbeat
 *   result.c   what is handed in                     gates.c   what the agent asks: rules, people, the record
 *   inlet.c    the agent's stdin, and what went there  inbox.c  decisions by file when no server is there
 *   pulse.c    the run's processes, seen from outside  driven.c  an agent that dies behind its driver
 *
 * At any moment at most one step (a child: fetch, setup, agent, collect, verify) is under way.  A verdict, once set, stays: what ends the
 * run first is what it ended of. */
#pragma once
#include "agent/agent.h"
#include "agent/policy.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/js.h"
#include "base/line.h"
#include "base/proc.h"
#include "base/scrub.h"
#include "core/state.h"
#include "sandbox/sandbox.h"

#define BOX_SETUP_INSIDE "/run/signalbox/setup.sh"
#define RUNNER_LOCK_FD 3
#define RUNNER_SECRETS_FD 4
#define RUNNER_GATEWAY_FD 6 /* held as long as we live: it says that the model gateway is needed; 5 is the fetch's credential */
#define RUNNER_BEAT_MS 10000
#define RUNNER_BEATS_PER_TIMEOUT 4 /* at least so many within the server's heartbeat_timeout: one may be late, or lost with the server */
#define RUNNER_BEAT_SOON_MS 1000 /* changes of the cause come together */
#define RUNNER_SETTLE_GRACE_MS 500   /* an agent that has said how it ended may still close its files */
#define RUNNER_CANCEL_GRACE_MS 5000  /* between INT and KILL */
#define RUNNER_STEP_PIPE_READ ((size_t)64 << 10)
#define RUNNER_STDERR_MAX ((int64_t)4 << 20) /* kept of an agent's stderr */
#define RUNNER_TAIL_MAX ((size_t)2000)	     /* of a failed step's last words, in the error */
#define RUNNER_SEND_MAX ((size_t)16 << 20)   /* waiting for an agent that does not read its stdin */
#define RUNNER_GATES_MAX 64		     /* open at once; more are refused */
#define RUNNER_SETTLE_RETRY_MS 2000    /* after a decision that could not be written */
#define RUNNER_INBOX_MS 500		     /* between looks into the inbox while the server is away */
#define RUNNER_TURN_END_MS 10000	     /* for a turn that was asked to end, before its process is */
#define RUNNER_DRIVEN_MAX 8		     /* processes of an agent that is driven by another program */
#define RUNNER_DRIVEN_LOOK_MS 500	     /* between looks at them */
#define RUNNER_DRIVEN_GRACE_MS 2000    /* for the driver to say itself that they are gone */
#define RUNNER_LIVE_MAX 64		     /* live lines waiting to be sent; older ones are dropped */

struct runner;
struct spool;
struct link;

/* A child that is under way. */
struct step {
	bool active;
	const char *name;	 /* "fetch", "setup", "agent", "collect", "verify" */
	struct proc proc;	 /* a plain process ... */
	struct sandbox box;	 /* ... or a sandbox */
	bool is_box;
	int out_fd, err_fd;	 /* what it prints; -1: nothing (more) */
	int in_fd;		 /* its stdin when it talks, else -1 */
	void (*on_output)(struct runner *r, const char *data, size_t n); /* stdout */
	void (*on_error_output)(struct runner *r, const char *data, size_t n);
	void (*on_exit)(struct runner *r, int status, const struct error *start_error); /* start_error NULL: it ran */
	int64_t started_ms, deadline_ms, kill_at_ms; /* monotonic; 0: none */
	const char *deadline_reason;
	bool interrupted;	 /* asked to end; kill_at_ms is set */
};

/* Of the run's processes, as the kernel counts them. */
struct pulse {
	int64_t at_ms, busy_at_ms; /* monotonic: last look; last look that found them busy */
	int64_t ticks, cpu_ms;
	int processes;
	pid_t pid;     /* the one with the most CPU time ... */
	char name[17]; /* ... and its name */
};

/* The agent behind the program that we speak with, while a question of its is on the way. */
struct driven {
	int pidfds[RUNNER_DRIVEN_MAX];
	int count;
	int64_t next_ms, gone_ms; /* monotonic; gone_ms 0: not seen gone */
	bool lost;		  /* the run ends by it */
};

/* A request of the agent that a person decides. */
struct gate {
	char id[ID_SIZE];
	char *request; /* the adapter's key */
	char *kind;
	struct js *data;
	int64_t deadline_ms; /* monotonic; 0: none */
};

struct verdict {
	bool set;
	enum phase phase;
	const char *reason; /* static word or NULL */
	char *error;
};

struct runner {
	struct js *spec;
	const char *run_dir, *work_dir, *home, *run_id, *task_id; /* borrowed from spec */
	int64_t epoch;
	uid_t uid;
	gid_t gid;
	bool was_root;
	char *token, *gateway_token;
	enum phase phase;
	struct verdict verdict;
	bool result_spooled, over, stale;
	bool record_broken; /* a line of the raw output or of the spool was lost: the agent is no longer heard */

	struct spool *spool;
	struct link *link;
	int signals;

	struct step step;
	struct line_reader lines;  /* of the step's stdout */
	struct strbuf tail;	   /* last bytes of what the step printed */
	int out_file, err_file;	   /* where raw output is kept, -1: nowhere */
	int64_t out_bytes, err_bytes, dropped_bytes;

	/* source and workspace */
	struct js *source;	   /* the fetch's result */
	struct sandbox_layers layers; /* strings owned by paths below */
	char *setup_upper, *upper, *overlay_work, *merged, *scratch, *plain, *objects, *checkout, *base_tree;
	bool has_setup_layer, has_workspace;
	const char *workspace_from; /* "clean", "kept", "saved" */
	struct cgroup *cgroup;

	struct agent *agent;
	char *prompt, *model_url, *interrupted_by;
	struct agent_launch launch;
	struct agent_outcome outcome;
	int agent_status;
	bool agent_ran;
	struct pulse pulse;
	struct driven driven;
	int64_t next_pulse_ms;
	int64_t agent_started_ms, last_line_ms, next_beat_ms, last_beat_ms, run_deadline_ms;
	char *setup_script; /* host path of the script to run, NULL: none */

	struct gate gates[RUNNER_GATES_MAX];
	int gate_count;
	struct policy *policy;
	struct js *decided;	  /* settled by earlier attempts of this turn: [{gate, kind, data, decision, used}] */
	bool told;		  /* the prompt, with what was decided, has been given to the agent */
	struct js *unheard;	  /* given to the agent, which has said nothing since: gate.delivered events to be */
	int64_t waiting_since_ms; /* monotonic, while a gate is open; else 0 */
	int64_t next_inbox_ms;
	struct strbuf inlet;	  /* lines for the agent's stdin, not yet written */
	int requests_file;	  /* requests.jsonl, or -1 */
	struct scrub secrets;	  /* cut out of all that is kept */
	struct js *told_before;	  /* secrets of earlier turns, which the agent may know */
	struct js *unsealed;	  /* decisions with people's secret answers: {gate: decision} */
	size_t raw_skip;	  /* bytes of the line that is coming in which were kept before there was a secret */
	bool turn_ends;		  /* the agent was asked to end its turn */

	struct js *changes; /* the diff's summary */
	struct js *verify;  /* {command, exit_code, ms} */
	struct js *live;    /* array: live lines to send */
	struct js *result;  /* what was handed in */
};

/* main.c */
void runner_verdict(struct runner *r, enum phase phase, const char *reason, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void runner_move(struct runner *r, enum phase to);
void runner_event(struct runner *r, const char *type, const char *actor, struct js *data_taken);
void runner_live(struct runner *r, const char *type, struct js *data_taken);
int64_t runner_limit(const struct runner *r, const char *name);

/* step.c */
void step_begin(struct runner *r, const char *name, int64_t timeout_ms, const char *timeout_reason);
void step_run(struct runner *r, struct proc *proc_taken, int out_fd_taken, int err_fd_taken);
void step_run_box(struct runner *r, struct sandbox *box_taken, int out_fd_taken, int err_fd_taken);
void step_read(struct runner *r);	    /* what the pipes have now */
void step_ended(struct runner *r);	    /* its pidfd is readable */
void step_end(struct runner *r);	    /* KILL */
void step_interrupt(struct runner *r);	    /* INT, then KILL after the grace */
void step_check_time(struct runner *r, int64_t now_ms);
void step_tail_line(struct runner *r, char **ret_text); /* last line printed, for an error; the caller frees */

/* steps.c: each begins a step whose end begins the next. */
void steps_fetch(struct runner *r);
void steps_finish(struct runner *r); /* with the verdict that is set: collect what there is, hand in */

/* box.c */
MUST_USE enum err_code box_begin(struct runner *r, const char *name, const char *const *argv, char **extra_env, const char *stdin_path, bool share_net,
	int64_t timeout_ms, const char *timeout_reason, struct error *e);
void box_layers(struct runner *r, bool setup);
MUST_USE enum err_code box_open_walls(struct runner *r, struct error *e); /* the cgroup; root is given away for good */
/* workspace.c */
void workspace_begin(struct runner *r); /* kept, restored or new; then setup, then the agent */
void workspace_fail(struct runner *r, const char *reason, const struct error *e);
void workspace_save(struct runner *r); /* the last step: then the run is over */
/* setup.c */
void setup_or_agent(struct runner *r);

/* agent_step.c */
void agent_begin(struct runner *r);
void agent_told(struct runner *r, const struct js *message); /* a person's words for the running turn */
void agent_end_turn(struct runner *r, const char *who);	      /* interrupt: the run then is canceled, with what was done kept */
void agent_touch(struct runner *r);			      /* something happened that is not silence */
/* gates.c */
MUST_USE enum err_code gates_open(struct runner *r, struct error *e); /* policy and record from the spec */
void gates_release(struct runner *r);
void gates_ask(void *runner, const struct agent_ask *ask);	     /* sink.ask */
void gates_withdraw(void *runner, const char *request);	     /* sink.withdraw */
void gates_command(struct runner *r, const struct js *data);	     /* a decision from the server */
/* A decision made here: linked, told, delivered; one that was linked before counts instead. False: it could not be written. */
bool gates_settle(struct runner *r, struct gate *g, const struct js *checked, const char *actor);
void gates_close(struct runner *r); /* the run's end is its task's: nobody waits for an answer any more */
void gates_check_time(struct runner *r, int64_t now_ms);
int64_t gates_next_ms(const struct runner *r); /* INT64_MAX: nothing to wait for */
void gates_tell_decided(struct runner *r, struct strbuf *out);       /* for the prompt */
void gates_delivered_by_prompt(struct runner *r); /* once the prompt is out */
void gates_heard(struct runner *r); /* the agent has spoken: what was given to it before has arrived */
/* inbox.c */
void inbox_look(struct runner *r);
/* inlet.c */
MUST_USE enum err_code inlet_open(struct runner *r, struct error *e);
void inlet_send(void *runner, const char *line, size_t len); /* sink.send */
void inlet_write(struct runner *r);			      /* what fits into the pipe now */
void inlet_close(struct runner *r);
void inlet_add_secret(struct runner *r, const struct js *gate_data, const struct js *decision);
char *inlet_clean(const struct runner *r, const char *text); /* without the secrets, nor the half of one that was cut at its end; the caller frees */
struct js *inlet_clean_js(const struct runner *r, const struct js *v);	     /* the same for what is said with an event */
bool inlet_is_piece(const char *line, size_t len);
void inlet_hide(struct runner *r, const struct js *texts); /* from now on; called before the agent hears them */

/* collect.c */
void collect_plain_base(struct runner *r); /* plain layers, after setup: what setup did is not the agent's; then the agent */
void collect_begin(struct runner *r);
void verify_begin(struct runner *r);
/* result.c */
void result_hand_in(struct runner *r);
void result_save_session(struct runner *r, const char *session); /* as soon as it is known: a killed run can be resumed too */

/* spool.c */
MUST_USE enum err_code spool_open(const char *run_dir, struct spool **ret, struct error *e);
void spool_close(struct spool *s);
MUST_USE enum err_code spool_add(struct spool *s, const char *type, const char *actor, const struct js *data, struct error *e);
MUST_USE enum err_code spool_sync(struct spool *s, struct error *e);
/* The next unacknowledged lines, joined by commas, at most max_lines; returns how many, the first's number in *ret_first. */
int spool_next(struct spool *s, int max_lines, struct strbuf *out, int64_t *ret_first);
void spool_acked(struct spool *s, int64_t n);
bool spool_all_acked(const struct spool *s);

/* link.c */
MUST_USE enum err_code link_open(const struct runner *r, struct link **ret, struct error *e);
void link_close(struct link *l);
struct pollfd;
int link_poll_fds(struct runner *r, struct pollfd *fds); /* at most 2 */
void link_turn(struct runner *r, const struct pollfd *fds, int n, int64_t now_ms); /* does what can be done now */
int64_t link_next_ms(const struct runner *r);			     /* when it wants to be called again; monotonic, INT64_MAX: never */
bool link_is_away(const struct runner *r);			     /* the server does not answer now */
void link_want_beat(struct runner *r);

/* pulse.c */
void pulse_take(struct runner *r, int64_t now_ms);
int pulse_children(pid_t pid, pid_t *ret_pids, int max);
/* driven.c: of an agent that another program drives, seen from outside while it waits for a person */
void driven_watch(struct runner *r); /* it asks: its processes are those that are there now */
void driven_unwatch(struct runner *r);
bool driven_is_gone(const struct runner *r);
void driven_end(struct runner *r);
void driven_check(struct runner *r, int64_t now_ms); /* ends the step of one that is gone and whose driver does not say so */
/* beat.c */
struct js *beat_make(struct runner *r);
void beat_write(struct runner *r);
