/* How to talk to one kind of agent.  The front door: a table of adapters, what is common to all, and the translation of an agent's lines
 * into our events.  Linked into the server (checks at submit) and into the runner (everything else): libc, jansson and base only.
 *
 * An adapter never starts a process: it says what to start (struct agent_launch), is fed the lines that came out, and tells at the end
 * how it went (struct agent_outcome).  One struct agent per run; single-threaded. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include "base/strbuf.h"
#include <stdbool.h>

#define AGENT_ARGS_MAX 64
#define AGENT_ENV_MAX 128
#define AGENT_BINDS_MAX 4
#define AGENT_LINE_MAX ((size_t)1 << 20)   /* of one line that is parsed; longer ones are recorded cut */
#define AGENT_TEXT_MAX ((size_t)12 << 10)  /* of one text inside an event */
#define AGENT_FINAL_MAX ((size_t)1 << 20)

struct agent;

/* What an agent wants to know or to be allowed, for a person to decide.  `data` by kind:
 *   all          title (one line for people), choices ["approve","approve_session","reject","abort","answer"]: what this request can take
 *   command      command (as one would type it), cwd, reason; truncated: it is not whole; stdin: text for a command that runs; host: the network
 *                is what is asked for (with any of these three no rule allows it)
 *   patch        files [{path, kind add|update|delete}], diff, reason, root (a directory that it wants to write below)
 *   permission   permissions (the agent's own object), reason, cwd
 *   question     questions [{id, header, text, options [{label, description}], free_text, secret}]
 *   elicitation  server, message, schema (a JSON Schema of the content that is wanted)
 * What comes back under the same `request` is a decision:
 *   {id, decision: approve|reject|abort|answer|expire|cancel, scope: once|session, answers: {question: [text]}, content: {}, note}
 *   reject: the agent goes on without; abort: its turn ends; expire: nobody answered in time; cancel: the task is being ended. */
struct agent_ask {
	const char *request; /* the adapter's own key, unique within the run, borrowed */
	const char *kind;
	struct js *data_taken;
};

/* Where translated lines go. data is taken. A live event is for watchers only and is not kept.
 * send: one line to the agent's stdin, without newline; queued, never blocks (adapters with `talks` only).
 * ask: agent_decide comes later, or before ask returns when a rule decides.  withdraw: the agent does not wait for it any more.
 * said: how a message given to agent_say went: NULL when the agent has taken it into its running turn, else why not. */
struct agent_sink {
	void (*event)(void *ctx, const char *type, struct js *data_taken);
	void (*live)(void *ctx, const char *type, struct js *data_taken);
	void (*send)(void *ctx, const char *line, size_t len);
	void (*ask)(void *ctx, const struct agent_ask *ask);
	void (*withdraw)(void *ctx, const char *request);
	void (*said)(void *ctx, const char *message_id, const char *refused);
	void *ctx;
};

/* What the adapter needs to know of the run. Borrowed for the life of the agent. */
struct agent_run {
	const struct js *agent;	  /* the spec's "agent": adapter, program, model, command, ... */
	const char *home;	  /* host directory that is SANDBOX_HOME inside */
	const char *prompt;	  /* the whole text for the agent, notes included */
	const char *model_url;	  /* "http://127.0.0.1:PORT/v1" inside */
	const char *model_token;  /* the run's gateway token */
	const char *session_id;	  /* of the agent's own session to resume, or NULL */
	const char *approvals;	  /* "always": every command and patch is asked; "on-request": what the agent itself wants asked; "never" */
};

struct agent_launch {
	char *argv[AGENT_ARGS_MAX + 1]; /* owned; released by agent_launch_release */
	char *env[AGENT_ENV_MAX + 1];	/* "K=V", what the adapter adds */
	struct { char *from, *to; } binds[AGENT_BINDS_MAX]; /* read-only */
	int argc, envc, bindc;
	char *stdin_path; /* host file given as stdin, or NULL for /dev/null */
	bool talks;	  /* its stdin is a pipe that stays open until it has settled: lines go in by sink.send */
};
void agent_launch_release(struct agent_launch *l);
void agent_launch_arg(struct agent_launch *l, const char *arg);
void agent_launch_env(struct agent_launch *l, const char *key, const char *value);
void agent_launch_bind(struct agent_launch *l, const char *from, const char *to);

enum agent_status { AGENT_SUCCESS, AGENT_BLOCKED, AGENT_FAILED };
struct agent_outcome {
	enum agent_status status;
	const char *reason;   /* static word: "agent_failed", "model_error", "final_invalid", ...; NULL on success */
	char *error;	      /* one sentence, or NULL; owned */
	struct js *final;     /* checked final.json, or NULL; owned */
	char *text;	      /* the final text as it came, or NULL; owned */
	char *session_id;     /* owned, or NULL */
};
void agent_outcome_release(struct agent_outcome *o);

struct agent_backend;
const struct agent_backend *agent_backend_find(const char *adapter); /* NULL: unknown */
void agent_backend_names(struct strbuf *out);			      /* comma-separated */
struct js *agent_capabilities(void);				      /* [{name, resume, gates, ...}] */
/* At submit: is this agent's configuration usable here? May add what it found ("program") to `agent`. */
MUST_USE enum err_code agent_check(struct js *agent, const char *codex_path, struct error *e);

MUST_USE enum err_code agent_new(const struct agent_run *run, const struct agent_sink *sink, struct agent **ret, struct error *e);
void agent_free(struct agent *a);
MUST_USE enum err_code agent_prepare(struct agent *a, struct agent_launch *ret, struct error *e);
void agent_started(struct agent *a); /* the process runs: an adapter that talks says its first words */
void agent_line(struct agent *a, const char *line, size_t len); /* one line of its stdout, without newline */
void agent_batch_end(struct agent *a);				/* all lines that were there have been given */
bool agent_has_prompt(const struct agent *a);			/* the prompt has been given; with agents that talk not before they are ready */
bool agent_settled(const struct agent *a);			/* it said how it ended; the sandbox can go */
bool agent_is_working(const struct agent *a);			/* a command of its is running (or it is one); not waiting on its model */
const char *agent_open_command(const struct agent *a);		/* that command, or NULL */
bool agent_uses_model(const struct agent *a);
const char *agent_progress(const struct agent *a);		/* one line for people; never NULL */
void agent_decide(struct agent *a, const char *request, const struct js *decision); /* unknown or decided requests are ignored */
/* A person's words for the running turn. False: this adapter cannot, or no turn is running now; else sink.said tells, now or later. */
bool agent_say(struct agent *a, const char *message_id, const char *text);
/* Asks the agent to end its turn: it settles soon after. False: it has no such way, and is ended from outside. */
bool agent_interrupt(struct agent *a);
bool agent_can(const struct agent *a, const char *capability);
bool agent_is_driven(const struct agent *a); /* by the program that we start, whose child it is: it may die alone */
/* The words of `require` that this adapter lacks are refused, by name. */
MUST_USE enum err_code agent_check_required(const char *adapter, const struct js *required, struct error *e);
/* exit_status: of the process (128+signal), or -1 when it was ended by us after it settled. */
void agent_finish(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *ret);

/* final.json's shape, checked: {status, summary, questions, nextActions, testsRun, testsPassed}. */
MUST_USE struct js *agent_final_parse(const char *text, size_t len, struct error *e);
extern const char agent_final_schema[];
