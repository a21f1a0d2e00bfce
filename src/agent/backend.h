/* The inside of the agent socket: what an adapter fills in. Included only in this room. */
#pragma once
#include "agent/agent.h"

#define AGENT_PROGRESS_MAX 200

struct agent {
	const struct agent_backend *backend;
	struct agent_run run;
	struct agent_sink sink;
	bool settled, failed;
	bool prompted; /* run.prompt is on its way to the agent */
	char *session_id;
	char *last_message; /* of the assistant */
	char *error;	    /* the agent's own words when it failed */
	char *progress;
	char *open_command; /* a tool's command that has begun and not ended, or NULL */
	struct strbuf pending; /* output lines not yet made into an event (command) */
	bool final_file;	/* the adapter's final answer is in a file of the home */
	struct js *todos;	/* the last list told, with ids; NULL: none yet */
	int64_t todo_last;	/* the last id given */
	void *state;		/* the adapter's own; freed by its slot `release` */
};

struct agent_backend {
	const char *name;
	bool uses_model; /* between commands it waits on a model */
	bool is_driven;	 /* the agent itself is a child of what is started, which does not always notice its death */
	const char *capabilities; /* space-separated words of: resume gates questions todos steer interrupt usage */
	/* Fills what is missing in the agent's settings and refuses what cannot work here. Server side, any thread. */
	enum err_code (*check)(struct js *agent, const char *codex_path, struct error *e);
	/* Writes into the home what the agent wants to find and says what to start. Runner side. */
	enum err_code (*prepare)(struct agent *a, struct agent_launch *l, struct error *e);
	/* One line of its output. */
	void (*line)(struct agent *a, const char *line, size_t len);
	/* The lines that were there are through; may be NULL. */
	void (*batch_end)(struct agent *a);
	/* The next four belong to adapters that talk; all may be NULL. */
	/* The process runs: the first words. */
	void (*started)(struct agent *a);
	/* The decision for a request that was given to sink.ask. Called once for each at most; may come from inside ask. */
	void (*decide)(struct agent *a, const char *request, const struct js *decision);
	/* Words for the running turn; false when there is none. Tells by sink.said. */
	bool (*say)(struct agent *a, const char *message_id, const char *text);
	/* Ask for the end of the turn; false when there is none. The outcome is then AGENT_FAILED with reason "interrupted". */
	bool (*interrupt)(struct agent *a);
	void (*release)(struct agent *a);
	/* After the process is gone: how it went. final and text are filled by the common part when NULL. */
	void (*finish)(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *o);
};

extern const struct agent_backend agent_codex, agent_codex_exec, agent_claude, agent_acp, agent_codex_acp, agent_claude_acp, agent_command, agent_fake;

/* The agent's plan as it is now: [{text, status: pending|in_progress|completed}], taken.  A step keeps its id while its text or its place stays; the
 * first list and each whose steps changed is a todo.snapshot {items:[{id,text,status}]}, a step whose status alone changed a todo.update {id,text,status,was}. */
void agent_todos(struct agent *a, struct js *list_taken);
void agent_send(struct agent *a, const struct js *message); /* as one line */
void agent_emit(struct agent *a, const char *type, struct js *data_taken);
void agent_emit_raw(struct agent *a, const char *line, size_t len);
void agent_set_progress(struct agent *a, const char *text);
void agent_fail(struct agent *a, const char *text);
void agent_outcome_of_final(struct agent_outcome *o); /* o->final is there: its status is the run's */
void agent_outcome_of_exit(struct agent *a, const char *name, int exit_status, const char *stderr_tail, struct agent_outcome *o); /* it failed, or ended too early */
void agent_set_text(struct js *o, const char *key, const char *text); /* cut at AGENT_TEXT_MAX, says how much was cut */
/* codex exec --json, shared with the fake. */
void codex_exec_line(struct agent *a, const char *line, size_t len);
void codex_exec_finish(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *o);
/* Where the native Codex program is; ERR_UNSUPPORTED with how to get it. */
enum err_code codex_find(const char *configured, char **ret_path, struct error *e);
