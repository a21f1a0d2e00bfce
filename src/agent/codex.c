/* Adapter `codex`: the real `codex app-server` over stdio.  One process is one turn of one thread; the thread lives in the worker's home and is
 * resumed by the next.  Codex's own walls are off (ours are outside), and with them off `untrusted` asks about every command and patch.
 * A request waits for its answer as long as it takes. */
#include "agent/codex.h"
#include "agent/codex_ask.h"
#include "agent/tell.h"
#include "agent/codex_home.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define CLIENT_NAME "signalbox"
#define CLIENT_VERSION "1"
#define CODEX_OVERLOADED (-32001) /* the server's queue was full; it did nothing */

static const char developer_instructions[] =
	"You work unattended for a person. When you need a decision, a fact or a secret that only a person can give, call the tool " CODEX_ASKUSER
	" and wait for its answer, however long it takes; do not guess. Your last message must be the JSON object that was asked for.";

static const char askuser_tool[] =
	"[{\"type\":\"function\",\"name\":\"" CODEX_ASKUSER "\","
	"\"description\":\"Ask the person you work for. Returns what they answered; it may take hours.\","
	"\"inputSchema\":{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"question\"],\"properties\":{"
	"\"question\":{\"type\":\"string\",\"description\":\"the whole question, understandable without the conversation\"},"
	"\"header\":{\"type\":\"string\",\"description\":\"two or three words for a list\"},"
	"\"options\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"description\":\"answers to choose from; leave out for a free answer\"},"
	"\"free_text\":{\"type\":\"boolean\",\"description\":\"false: only one of the options will do; default true\"},"
	"\"secret\":{\"type\":\"boolean\",\"description\":\"true for a password or a key: it is not written down anywhere\"}}}}]";

/* --- whom a line is for */

/* Threads of agents that our agent started are its own business; their requests are refused, since nobody can tell what they belong to. */
static bool is_foreign(struct codex *c, const struct js *params)
{
	const char *thread = js_str(params, "threadId");
	return thread && c->thread && !str_eq(thread, c->thread);
}

static void tell_foreign(struct codex *c, const char *method, const char *thread)
{
	if (c->foreign_told)
		return;
	c->foreign_told = true;
	AUTO_FREE char *text = mem_printf("%s for another thread, %s: such are not followed", method, thread);
	tell_warning(c->agent, text);
}

static bool codex_request(struct agent *a, const char *method, const struct js *id, const struct js *params)
{
	struct codex *c = codex_of(a);
	const char *why = "Signalbox knows no such request";
	if (is_foreign(c, params)) {
		tell_foreign(c, method, js_str(params, "threadId"));
		why = "Signalbox follows one thread only, and this is another one's";
	} else if (codex_ask(c, method, id, params)) {
		return true;
	}
	rpc_refuse(&c->rpc, id, RPC_NO_METHOD, why);
	AUTO_FREE char *text = mem_printf("Codex asked for %s, which was refused: %s", method, why);
	tell_warning(a, text);
	return true;
}

static bool codex_notified(struct agent *a, const char *method, const struct js *params)
{
	struct codex *c = codex_of(a);
	if (!is_foreign(c, params))
		return codex_notice(c, method, params);
	tell_foreign(c, method, js_str(params, "threadId"));
	return true;
}

/* --- the turn */

struct codex *codex_of(struct agent *a)
{
	if (!a->state) {
		struct codex *c = NEW(struct codex);
		c->agent = a;
		c->rpc = (struct rpc){ .agent = a, .bare = true, .busy_code = CODEX_OVERLOADED, .request = codex_request, .notice = codex_notified };
		a->state = c;
	}
	return a->state;
}

static void codex_release(struct agent *a)
{
	struct codex *c = a->state;
	if (!c)
		return;
	codex_commands_forget(c);
	codex_asks_release(c);
	rpc_release(&c->rpc);
	free(c->thread);
	free(c->turn);
	js_free(c->patches);
	js_free(c->usage);
	js_free(c->usage_before);
	free(c);
}

static enum err_code codex_prepare(struct agent *a, struct agent_launch *l, struct error *e)
{
	AUTO_CLOSE int dir = -1;
	enum err_code rc = codex_launch(a, l, e);
	if (!rc && (rc = codex_home_write(a, &dir, e)))
		error_wrap(e, "prepare Codex's home");
	agent_launch_arg(l, "app-server");
	l->talks = true;
	return rc;
}

/* The turn is over, or never began: nobody waits for anything any more. */
static void settle(struct codex *c)
{
	codex_asks_withdraw(c);
	rpc_drop(&c->rpc, "the turn was over before the agent took it");
	codex_commands_forget(c);
	free(c->turn);
	c->turn = NULL;
	c->agent->settled = true;
}

static void give_up(struct codex *c, const char *reason, const char *what, const char *why)
{
	tell_given_up(c->agent, what, why);
	c->reason = reason;
	settle(c);
}

static void set_text_input(struct js *params, const char *text)
{
	struct js *input = js_array(), *part = js_object();
	js_set_str(part, "type", "text");
	js_set_str(part, "text", text);
	js_set(part, "text_elements", js_array());
	js_push(input, part);
	js_set(params, "input", input);
}

void codex_turn_started(struct codex *c, const struct js *turn)
{
	if (c->turn || c->agent->settled || !js_str(turn, "id"))
		return;
	c->turn = mem_strdup(js_str(turn, "id"));
	agent_set_progress(c->agent, "working");
	if (c->interrupting)
		codex_interrupt_turn(c);
}

static void on_turn_begun(struct agent *a, const struct rpc_call *call UNUSED, const struct js *result, const char *refused, int64_t code UNUSED)
{
	struct codex *c = codex_of(a);
	if (refused)
		give_up(c, NULL, "Codex refused the turn", refused);
	else
		codex_turn_started(c, js_get(result, "turn"));
}

/* Codex's own mode in which it only talks and plans. */
static void set_plan_mode(struct codex *c, struct js *params)
{
	const struct js *agent = c->agent->run.agent;
	if (!str_eq(js_str(agent, "mode"), "plan"))
		return;
	struct js *mode = js_object(), *settings = js_object();
	js_set_str(settings, "model", js_str_or(agent, "model", CODEX_DEFAULT_MODEL));
	js_set(settings, "reasoning_effort", js_null());
	js_set(settings, "developer_instructions", js_null());
	js_set_str(mode, "mode", "plan");
	js_set(mode, "settings", settings);
	js_set(params, "collaborationMode", mode);
}

static void begin_turn(struct codex *c)
{
	struct js *params = js_object();
	js_set_str(params, "threadId", c->thread);
	set_text_input(params, c->agent->run.prompt);
	js_set(params, "outputSchema", js_parse(agent_final_schema, strlen(agent_final_schema), NULL));
	set_plan_mode(c, params);
	c->agent->prompted = true;
	rpc_call(&c->rpc, "turn/start", params, on_turn_begun, NULL);
}

static void on_thread(struct agent *a, const struct rpc_call *call, const struct js *result, const char *refused, int64_t code UNUSED)
{
	struct codex *c = codex_of(a);
	bool resumed = str_eq(call->method, "thread/resume");
	const char *id = js_str(js_get(result, "thread"), "id");
	if (refused || !id) {
		free(c->agent->session_id); /* there is none to go on with */
		c->agent->session_id = NULL;
		give_up(c, resumed ? "session_lost" : NULL, resumed ? "Codex could not resume the thread" : "Codex refused to start a thread",
			refused ? refused : "it gave no id");
		return;
	}
	free(c->thread);
	c->thread = mem_strdup(id);
	tell_session(c->agent, id);
	if (c->interrupting) {
		give_up(c, "interrupted", "The turn was interrupted", "it had not begun");
		return;
	}
	begin_turn(c);
}

bool codex_asks_commands(const struct codex *c)
{
	return str_eq(c->agent->run.approvals, "always") || str_eq(c->agent->run.approvals, "on-request");
}

/* "never" would also keep the tool servers' questions from people. */
static struct js *only_elicitations(void)
{
	static const char *const members[] = { "sandbox_approval", "rules", "skill_approval", "request_permissions", "mcp_elicitations" };
	struct js *policy = js_object(), *granular = js_object();
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		js_set_bool(granular, members[i], str_eq(members[i], "mcp_elicitations"));
	js_set(policy, "granular", granular);
	return policy;
}

static void set_thread_members(struct codex *c, struct js *params)
{
	const struct agent_run *run = &c->agent->run;
	js_set_str(params, "cwd", CODEX_WORKSPACE);
	js_set(params, "approvalPolicy", codex_asks_commands(c) ? js_string("untrusted") : only_elicitations());
	js_set_str(params, "sandbox", "danger-full-access");
	js_set_str(params, "developerInstructions", developer_instructions);
	if (js_type(js_get(run->agent, "config")) == JS_OBJECT)
		js_set(params, "config", js_ref(js_get(run->agent, "config")));
}

static void on_initialized(struct agent *a, const struct rpc_call *call UNUSED, const struct js *result UNUSED, const char *refused, int64_t code UNUSED)
{
	struct codex *c = codex_of(a);
	if (refused) {
		give_up(c, NULL, "Codex refused to be spoken to", refused);
		return;
	}
	rpc_notify(&c->rpc, "initialized", NULL);
	struct js *params = js_object();
	set_thread_members(c, params);
	if (c->agent->run.session_id) {
		js_set_str(params, "threadId", c->agent->run.session_id);
		js_set_bool(params, "excludeTurns", true);
	} else {
		js_set(params, "dynamicTools", js_parse(askuser_tool, strlen(askuser_tool), NULL));
	}
	rpc_call(&c->rpc, c->agent->run.session_id ? "thread/resume" : "thread/start", params, on_thread, NULL);
}

static void codex_started(struct agent *a)
{
	struct js *params = js_object(), *client = js_object(), *can = js_object();
	js_set_str(client, "name", CLIENT_NAME);
	js_set_str(client, "title", "Signalbox");
	js_set_str(client, "version", CLIENT_VERSION);
	js_set_bool(can, "experimentalApi", true);
	js_set(params, "clientInfo", client);
	js_set(params, "capabilities", can);
	rpc_call(&codex_of(a)->rpc, "initialize", params, on_initialized, NULL);
}

static void codex_line(struct agent *a, const char *line, size_t len)
{
	rpc_line(&codex_of(a)->rpc, line, len);
}

static void on_steered(struct agent *a, const struct rpc_call *call, const struct js *result UNUSED, const char *refused, int64_t code UNUSED)
{
	struct codex *c = codex_of(a);
	if (call->message)
		c->agent->sink.said(c->agent->sink.ctx, call->message, refused);
	else if (refused)
		tell_warning(c->agent, refused);
}

void codex_steer(struct codex *c, const char *message_id, const char *text)
{
	struct js *params = js_object();
	js_set_str(params, "threadId", c->thread);
	js_set_str(params, "expectedTurnId", c->turn);
	js_set_str(params, "clientUserMessageId", message_id);
	set_text_input(params, text);
	rpc_call(&c->rpc, "turn/steer", params, on_steered, message_id);
}

static bool codex_say(struct agent *a, const char *message_id, const char *text)
{
	struct codex *c = codex_of(a);
	if (!c->turn || c->interrupting)
		return false;
	codex_steer(c, message_id, text);
	return true;
}

/* Nothing is left to end when Codex refuses, and the process can go. */
static void on_interrupted(struct agent *a, const struct rpc_call *call UNUSED, const struct js *result UNUSED, const char *refused, int64_t code UNUSED)
{
	struct codex *c = codex_of(a);
	if (refused && !c->agent->settled)
		give_up(c, "interrupted", "The turn was interrupted", refused);
}

void codex_interrupt_turn(struct codex *c)
{
	c->interrupting = true;
	if (!c->turn)
		return;
	struct js *params = js_object();
	js_set_str(params, "threadId", c->thread);
	js_set_str(params, "turnId", c->turn);
	rpc_call(&c->rpc, "turn/interrupt", params, on_interrupted, NULL);
}

static bool codex_interrupt(struct agent *a)
{
	codex_interrupt_turn(codex_of(a)); /* before the turn has begun: as soon as it has */
	return true;
}

static void turn_failed(struct codex *c, const char *status, const struct js *error)
{
	bool interrupted = str_eq(status, "interrupted");
	const char *otherwise = !interrupted ? "the turn failed" : c->aborted ? "a person ended the turn instead of granting what the agent asked for"
		: c->interrupting ? "the turn was interrupted" : "Codex ended its turn early";
	AUTO_FREE char *text = tell_plain_words(js_str_or(error, "message", otherwise));
	tell_turn(c->agent, interrupted ? "interrupted" : "failed", c->usage, text);
	agent_fail(c->agent, text);
	c->reason = interrupted ? "interrupted" : NULL;
}

void codex_turn_completed(struct codex *c, const struct js *turn)
{
	const char *status = js_str_or(turn, "status", "failed");
	if (str_eq(status, "completed"))
		tell_turn(c->agent, status, c->usage, NULL);
	else
		turn_failed(c, status, js_get(turn, "error"));
	settle(c);
}

static void codex_finish(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *o)
{
	struct codex *c = codex_of(a);
	rpc_drop(&c->rpc, "the agent ended before it took it");
	codex_exec_finish(a, exit_status, stderr_tail, o);
	if (c->reason && o->status == AGENT_FAILED)
		o->reason = c->reason;
}

static void codex_decision(struct agent *a, const char *request, const struct js *decision)
{
	codex_decide(codex_of(a), request, decision);
}

const struct agent_backend agent_codex = {
	.name = "codex",
	.uses_model = true,
	.capabilities = "resume gates questions todos steer interrupt usage",
	.check = codex_check,
	.prepare = codex_prepare,
	.started = codex_started,
	.line = codex_line,
	.decide = codex_decision,
	.say = codex_say,
	.interrupt = codex_interrupt,
	.release = codex_release,
	.finish = codex_finish,
};
