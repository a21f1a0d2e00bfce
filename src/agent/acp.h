/* The inside of adapter `acp`: one session and one prompt of an Agent Client Protocol agent.
 *
 *   acp.c         the life of the turn: initialize, authenticate, session, prompt, steering, cancel, the end
 *   acp_ask.c     session/request_permission and elicitation/create: what a person decides
 *   acp_items.c   session/update: what was said and thought, tool calls, the plan
 *   acp_launch.c  programs: any command line, and those that we know by name */
#pragma once
#include "agent/rpc.h"

#define ACP_ASKS_MAX 64	  /* requests that wait for a person */
#define ACP_TOOLS_MAX 64  /* tool calls that have begun and not ended */
#define ACP_FORM_MAX 20	  /* questions of one form; options of one question */
#define ACP_PROMPTS_MAX 20 /* of one turn: its own, and those that make an agent go on that stops at a refusal */
#define ACP_WORKSPACE "/workspace"

struct acp_tool {
	char *id, *title, *kind;
	struct js *input;   /* rawInput, or NULL */
	struct js *content; /* of the newest update that had any, or NULL */
	struct strbuf output; /* of a terminal, as it came */
	struct js *exit_code;
	bool told;  /* its start is out */
	bool asked; /* it waits for a person */
	bool refused; /* a person said no */
};

struct acp_ask {
	char *request; /* our key */
	struct js *id; /* the agent's */
	const char *kind; /* static */
	char *tool;
	struct js *params;
	bool given_up; /* the agent does not wait for it any more, unless it is about to say that it broke */
};

struct acp {
	struct agent *agent;
	struct rpc rpc;
	const char *reason; /* of a failure that is not the model's; static */
	char *session;
	struct js *auth_methods;
	bool can_load, can_resume, can_steer;
	bool authenticated; /* it was tried */
	bool prompting, interrupting, aborted;
	bool broke; /* while a person was being asked */
	bool broken; /* it says, in its own way, that its model failed, and will call the turn ended all the same */
	bool refused; /* a person said no since the turn's newest prompt */
	char *note;   /* what they said besides */
	int prompts;
	int64_t last_ask;
	struct acp_ask asks[ACP_ASKS_MAX];
	size_t ask_count;
	struct acp_tool tools[ACP_TOOLS_MAX];
	size_t tool_count;
	struct strbuf text;    /* of the message, or the thought, in the making */
	char *text_id;	       /* its id, or NULL */
	bool is_thought;
};

struct acp *acp_of(struct agent *a);
void acp_cancel(struct acp *c);
void acp_steer(struct acp *c, const char *message_id, const char *text);

bool acp_request(struct agent *a, const char *method, const struct js *id, const struct js *params); /* false: no such request */
void acp_decide(struct acp *c, const char *request, const struct js *decision);
bool acp_is_asking(const struct acp *c); /* people are asked at all */
void acp_asks_cancel(struct acp *c); /* nobody will answer: the agent is told so, people as well */
void acp_asks_given_up(struct acp *c); /* the turn goes on: those that the agent gave up are over */
void acp_asks_release(struct acp *c);

bool acp_ask_canceled(struct acp *c, const struct js *id); /* by the agent */
bool acp_notice(struct agent *a, const char *method, const struct js *params);
struct acp_tool *acp_tool_take(struct acp *c, const struct js *update); /* the tool call of an update or a request, brought up to it; NULL: none */
void acp_tool_asked(struct acp *c, const char *id, bool asked, bool goes_on);
const char *acp_tool_command(const struct acp_tool *t); /* what it runs; its title when it does not tell */
void acp_text_flush(struct acp *c);
void acp_tools_release(struct acp *c);

enum err_code acp_check(struct js *agent, const char *codex_path, struct error *e);
enum err_code acp_known_check(struct js *agent, const char *codex_path, struct error *e); /* an agent that we know: where is it? */
enum err_code acp_launch(struct agent *a, struct agent_launch *l, struct error *e);
