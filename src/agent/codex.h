/* The inside of adapter `codex`: one thread and one turn of `codex app-server`.
 *
 *   codex.c        the life of the turn: initialize, thread/start or thread/resume, turn/start, steering, interrupting, the end
 *   codex_ask.c    the server's requests that a person decides, and decisions as Codex wants them
 *   codex_items.c  notifications: items, deltas, plan, usage, errors */
#pragma once
#include "agent/rpc.h"

#define CODEX_ASKS_MAX 64	    /* requests of the server that wait for a person */
#define CODEX_COMMANDS_MAX 64	    /* commands that are followed at once */
#define CODEX_PATCHES_MAX 64	    /* patches that have begun and are kept for their request */
#define CODEX_DIFF_MAX ((size_t)128 << 10)   /* bytes of a patch that a person is shown */
#define CODEX_OBJECT_MAX ((size_t)32 << 10)  /* bytes of a command, a schema, a set of permissions, of all names of a patch's files */
#define CODEX_QUESTIONS_MAX 20	    /* in one request; options in one question */

struct codex_command {
	char *item, *text;
	bool told;  /* command.started is out */
	bool asked; /* it waits for a person */
};

struct codex_kind; /* of request; its table is in codex_ask.c */
struct codex_ask {
	char *request; /* our key */
	struct js *id; /* the server's */
	const struct codex_kind *kind;
	struct js *params;
};

struct codex {
	struct agent *agent;
	struct rpc rpc;
	char *thread, *turn;   /* NULL: not yet, no more */
	const char *reason;    /* of a failure that is not the model's; static */
	bool interrupting;     /* somebody wants the turn to end */
	bool aborted;	       /* ... by the answer to a request */
	bool foreign_told;     /* that there are threads that are not ours */
	int64_t last_ask;
	struct codex_ask asks[CODEX_ASKS_MAX];
	size_t ask_count;
	struct codex_command commands[CODEX_COMMANDS_MAX];
	size_t command_count;
	struct js *patches; /* item -> its changes */
	struct js *usage;   /* this turn's, as run.turn tells it */
	struct js *usage_before; /* the thread's before this turn */
};

struct codex *codex_of(struct agent *a);
bool codex_asks_commands(const struct codex *c); /* `untrusted`: every command and patch comes as a request */
void codex_turn_started(struct codex *c, const struct js *turn);
void codex_turn_completed(struct codex *c, const struct js *turn);
void codex_interrupt_turn(struct codex *c);
void codex_steer(struct codex *c, const char *message_id, const char *text); /* message_id NULL: nobody is told how it went */

bool codex_ask(struct codex *c, const char *method, const struct js *id, const struct js *params); /* false: no such request */
void codex_decide(struct codex *c, const char *request, const struct js *decision);
void codex_resolved(struct codex *c, const struct js *id);
void codex_asks_withdraw(struct codex *c);
void codex_asks_release(struct codex *c);

bool codex_notice(struct codex *c, const char *method, const struct js *params); /* false: no such notification */
/* A person is asked about this command now, or is no more; `goes_on`: it runs. */
void codex_command_asked(struct codex *c, const char *item, bool asked, bool goes_on);
void codex_commands_forget(struct codex *c);
