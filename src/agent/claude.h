/* The inside of adapter `claude`: one process of `claude -p` that speaks stream-json both ways, one turn of one session.
 *
 *   claude.c        the program, its settings, the first words, steering, interrupting, the result
 *   claude_ask.c    control requests that a person decides, and decisions as Claude Code wants them
 *   claude_items.c  messages: what was said and thought, tools that begin and end, todos */
#pragma once
#include "agent/backend.h"

#define CLAUDE_ASKS_MAX 64   /* requests that wait for a person */
#define CLAUDE_TOOLS_MAX 64 /* tools that have begun and not ended */
#define CLAUDE_SAYS_MAX 64   /* messages of a person that wait to be taken */
#define CLAUDE_SEEN_MAX 1000 /* files that it has read, so that a Write of one is known as a change */
#define CLAUDE_QUESTIONS_MAX 20 /* in one request; options in one question */
#define CLAUDE_UUID_SIZE 37

struct claude_tool {
	char *id, *name;
	struct js *input;
	bool told;  /* its start is out */
	bool asked; /* it waits for a person */
};

struct claude_ask {
	char *request; /* the program's own id of it, and our key */
	char *tool_id;
	const char *kind; /* static */
	struct js *input, *suggestions;
};

struct claude_say {
	char *message; /* the id that the person's message has with us */
	char uuid[CLAUDE_UUID_SIZE];
};

struct claude {
	struct agent *agent;
	const char *reason; /* of a failure that is not the model's; static */
	bool interrupting, aborted, schema; /* schema: it offers the tool for the final answer */
	bool spoken; /* it has its first words */
	struct claude_tool tools[CLAUDE_TOOLS_MAX];
	size_t tool_count;
	struct claude_ask asks[CLAUDE_ASKS_MAX];
	size_t ask_count;
	struct claude_say says[CLAUDE_SAYS_MAX];
	size_t say_count;
	struct js *seen;  /* path -> true */
	struct js *final; /* the structured answer, or NULL */
};

struct claude *claude_of(struct agent *a);
void claude_interrupt_turn(struct claude *c);

bool claude_is_asking(const struct claude *c); /* people are asked about commands and patches at all */
void claude_control(struct claude *c, const struct js *line); /* a control_request of the program's */
void claude_withdrawn(struct claude *c, const char *request);
/* A request that is too long to be read: its id is in its head. False: that is not what the line is. */
bool claude_refuse_cut(struct claude *c, const char *line, size_t len);
void claude_decide(struct claude *c, const char *request, const struct js *decision);
void claude_asks_withdraw(struct claude *c);
void claude_asks_release(struct claude *c);

void claude_assistant(struct claude *c, const struct js *line);
void claude_user(struct claude *c, const struct js *line);
void claude_task(struct claude *c, const struct js *line); /* a command has a process now */
/* A person is asked about this tool now, or is no more; `goes_on`: it runs. */
void claude_tool_asked(struct claude *c, const char *id, bool asked, bool goes_on);
void claude_tools_release(struct claude *c);
