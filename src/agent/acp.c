/* Adapter `acp`: any agent that speaks the Agent Client Protocol on its stdin and stdout; `codex-acp` and `claude-acp` are those that we know where to find.
 * The protocol has no schema for a final answer: it is asked for in the prompt, and plain text counts as success, with a warning. */
#include "agent/acp.h"
#include "agent/tell.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define ACP_VERSION 1
#define AUTH_REQUIRED (-32000)
#define CLIENT_VERSION "1"

static const char final_words[] = "\n\n---\nYou work unattended for a person. When you are done, or cannot go on, your last message must be only one JSON object, "
	"without any other text, that fits this JSON Schema:\n";

struct acp *acp_of(struct agent *a)
{
	if (!a->state) {
		struct acp *c = NEW(struct acp);
		c->agent = a;
		c->rpc = (struct rpc){ .agent = a, .request = acp_request, .notice = acp_notice };
		c->text.max = AGENT_FINAL_MAX;
		a->state = c;
	}
	return a->state;
}

static void acp_release(struct agent *a)
{
	struct acp *c = a->state;
	if (!c)
		return;
	acp_tools_release(c);
	acp_asks_release(c);
	rpc_release(&c->rpc);
	free(c->session);
	free(c->note);
	js_free(c->auth_methods);
	strbuf_release(&c->text);
	free(c->text_id);
	free(c);
}

/* --- the end */

static void settle(struct acp *c)
{
	acp_asks_cancel(c);
	rpc_drop(&c->rpc, "the turn was over before the agent took it");
	acp_tools_release(c);
	c->prompting = false;
	c->agent->settled = true;
}

static void give_up(struct acp *c, const char *reason, const char *what, const char *why)
{
	tell_given_up(c->agent, what, why);
	c->reason = reason;
	settle(c);
}

/* What drives the agent lives, but the agent broke while a person was being asked: as if it had died, so that the question stays and another
 * attempt gets the answer. */
static bool broke_while_asking(struct acp *c, const char *why)
{
	if (!c->ask_count || c->interrupting || c->aborted)
		return false;
	tell_error(c->agent, why, false);
	acp_asks_release(c);
	rpc_drop(&c->rpc, "the agent broke before it took it");
	acp_tools_release(c);
	c->prompting = false;
	c->agent->settled = true;
	c->broke = true;
	return true;
}

/* Some count what came from a cache as input, some beside it: the total tells. */
static struct js *usage_of(const struct js *result)
{
	const struct js *u = js_get(result, "usage");
	int64_t output = js_i64(u, "outputTokens", 0), total = js_i64(u, "totalTokens", 0), input = js_i64(u, "inputTokens", 0);
	struct js *o;
	if (js_type(u) != JS_OBJECT)
		return NULL;
	o = js_object();
	js_set_int(o, "input_tokens", total > output ? total - output : input);
	js_set_int(o, "cached_input_tokens", js_i64(u, "cachedReadTokens", 0));
	js_set_int(o, "output_tokens", output);
	js_set_int(o, "reasoning_output_tokens", js_i64(u, "thoughtTokens", 0));
	return o;
}

static void turn_failed(struct acp *c, const char *stop, const struct js *usage)
{
	bool interrupted = str_eq(stop, "cancelled");
	AUTO_FREE char *text = interrupted ? mem_strdup(c->aborted ? "a person ended the turn instead of allowing what the agent asked for" :
					      c->interrupting ? "the turn was interrupted" : "the agent ended its turn early")
					   : mem_printf("the agent stopped: %s", stop);
	tell_turn(c->agent, interrupted ? "interrupted" : "failed", usage, text);
	agent_fail(c->agent, text);
	c->reason = interrupted ? "interrupted" : NULL;
}

static void prompt(struct acp *c, const char *text);

/* Some agents end their turn when they are refused something; a refusal is not meant so. */
static bool goes_on(struct acp *c, const char *stop)
{
	const char *note = c->note ? c->note : "";
	if (!str_eq(stop, "cancelled") || !c->refused || c->interrupting || c->aborted || c->prompts >= ACP_PROMPTS_MAX)
		return false;
	AUTO_FREE char *text = mem_printf("A person refused what you asked leave for.%s%s Go on without it, and say what you assumed. The form of your last message "
		"stays as it was asked for.", *note ? " They say: " : "", note);
	prompt(c, text);
	return true;
}

static void on_prompted(struct agent *a, const struct rpc_call *call UNUSED, const struct js *result, const char *refused, int64_t code UNUSED)
{
	struct acp *c = acp_of(a);
	const char *stop = js_str_or(result, "stopReason", "without a reason");
	AUTO_JS struct js *usage = usage_of(result);
	acp_text_flush(c);
	if (!refused && goes_on(c, stop))
		return;
	if (refused && c->interrupting)
		turn_failed(c, "cancelled", NULL);
	else if (refused && broke_while_asking(c, refused))
		return;
	else if (refused) {
		give_up(c, NULL, "The agent could not go on", refused);
		return;
	} else if (c->broken) {
		AUTO_FREE char *words = tell_plain_words(a->last_message ? a->last_message : "its model failed");
		if (broke_while_asking(c, words))
			return;
		give_up(c, NULL, "The agent could not go on", words);
		return;
	} else if (str_eq(stop, "end_turn"))
		tell_turn(a, "completed", usage, NULL);
	else
		turn_failed(c, stop, usage);
	settle(c);
}

/* --- the beginning */

static struct js *text_prompt(const char *text)
{
	struct js *list = js_array(), *part = js_object();
	js_set_str(part, "type", "text");
	js_set_str(part, "text", text);
	js_push(list, part);
	return list;
}

static void prompt(struct acp *c, const char *text)
{
	struct js *params = js_object();
	js_set_str(params, "sessionId", c->session);
	js_set(params, "prompt", text_prompt(text));
	c->prompting = true;
	c->refused = false;
	c->prompts++;
	rpc_call(&c->rpc, "session/prompt", params, on_prompted, NULL);
}

static void begin_turn(struct acp *c)
{
	AUTO_FREE char *text = mem_printf("%s%s%s", c->agent->run.prompt, final_words, agent_final_schema);
	agent_set_progress(c->agent, "working");
	c->agent->prompted = true;
	prompt(c, text);
	if (c->interrupting)
		acp_cancel(c);
}

static void begin_session(struct acp *c);

static void on_authenticated(struct agent *a, const struct rpc_call *call UNUSED, const struct js *result UNUSED, const char *refused, int64_t code UNUSED)
{
	struct acp *c = acp_of(a);
	if (refused)
		give_up(c, NULL, "The agent refused to be authenticated", refused);
	else
		begin_session(c);
}

/* The configured way, or the first that is an API key. */
static const char *auth_method(const struct acp *c)
{
	const char *configured = js_str(c->agent->run.agent, "authenticate");
	for (size_t i = 0; i < js_len(c->auth_methods) && !configured; i++) {
		const struct js *one = js_at(c->auth_methods, i);
		const char *id = js_str_or(one, "id", "");
		if (str_eq(js_str(one, "type"), "env_var") || strstr(id, "api-key"))
			configured = id;
	}
	return configured;
}

static void authenticate(struct acp *c)
{
	struct js *params = js_object();
	c->authenticated = true;
	js_set_str(params, "methodId", auth_method(c));
	rpc_call(&c->rpc, "authenticate", params, on_authenticated, NULL);
}

static void on_session(struct agent *a, const struct rpc_call *call, const struct js *result, const char *refused, int64_t code)
{
	struct acp *c = acp_of(a);
	bool fresh = str_eq(call->method, "session/new");
	const char *id = fresh ? js_str(result, "sessionId") : a->run.session_id;
	if (refused && code == AUTH_REQUIRED && !c->authenticated && auth_method(c)) {
		authenticate(c);
		return;
	}
	if (refused || !id) {
		give_up(c, fresh ? NULL : "session_lost", fresh ? "The agent refused to start a session" : "The agent could not resume the session",
			refused ? refused : "it gave no id");
		return;
	}
	free(c->session);
	c->session = mem_strdup(id);
	tell_session(a, id);
	begin_turn(c);
}

static void begin_session(struct acp *c)
{
	const char *resumed = c->agent->run.session_id;
	struct js *params = js_object();
	js_set_str(params, "cwd", ACP_WORKSPACE);
	js_set(params, "mcpServers", js_array());
	if (resumed && !c->can_load && !c->can_resume) {
		tell_warning(c->agent, "this agent cannot go on with an earlier session: it begins anew");
		resumed = NULL;
	}
	js_set_str(params, "sessionId", resumed);
	rpc_call(&c->rpc, !resumed ? "session/new" : c->can_resume ? "session/resume" : "session/load", params, on_session, NULL);
}

static void on_initialized(struct agent *a, const struct rpc_call *call UNUSED, const struct js *result, const char *refused, int64_t code UNUSED)
{
	struct acp *c = acp_of(a);
	const struct js *can = js_get(result, "agentCapabilities");
	if (refused || js_i64(result, "protocolVersion", 0) != ACP_VERSION) {
		give_up(c, NULL, "The agent refused to be spoken to", refused ? refused : "it speaks another version of the Agent Client Protocol");
		return;
	}
	c->can_load = js_flag(can, "loadSession", false);
	c->can_resume = js_type(js_path(can, "sessionCapabilities.resume")) == JS_OBJECT;
	c->can_steer = js_true(js_path(result, "_meta.steering.supported"));
	c->auth_methods = js_ref(js_get(result, "authMethods"));
	if (js_str(a->run.agent, "authenticate"))
		authenticate(c);
	else
		begin_session(c);
}

static void acp_started(struct agent *a)
{
	struct js *params = js_object(), *client = js_object(), *can = js_object(), *fs = js_object(), *elicitation = js_object();
	js_set_str(client, "name", "signalbox");
	js_set_str(client, "title", "Signalbox");
	js_set_str(client, "version", CLIENT_VERSION);
	js_set_bool(fs, "readTextFile", false);
	js_set_bool(fs, "writeTextFile", false);
	js_set(elicitation, "form", js_object());
	js_set(can, "fs", fs);
	js_set_bool(can, "terminal", false);
	js_set(can, "elicitation", elicitation);
	js_set_int(params, "protocolVersion", ACP_VERSION);
	js_set(params, "clientCapabilities", can);
	js_set(params, "clientInfo", client);
	rpc_call(&acp_of(a)->rpc, "initialize", params, on_initialized, NULL);
}

static enum err_code acp_prepare(struct agent *a, struct agent_launch *l, struct error *e)
{
	enum err_code rc = acp_launch(a, l, e);
	l->talks = true;
	return rc;
}

static void acp_line(struct agent *a, const char *line, size_t len)
{
	rpc_line(&acp_of(a)->rpc, line, len);
}

/* --- words of a person */

static void on_steered(struct agent *a, const struct rpc_call *call, const struct js *result, const char *refused, int64_t code UNUSED)
{
	const char *why = refused ? refused : str_eq(js_str(result, "outcome"), "promptRequired") ? "no turn was running any more" : NULL;
	if (call->message)
		a->sink.said(a->sink.ctx, call->message, why);
}

void acp_steer(struct acp *c, const char *message_id, const char *text)
{
	struct js *params = js_object(), *meta = js_object(), *steering = js_object();
	js_set_str(params, "sessionId", c->session);
	js_set(params, "prompt", text_prompt(text));
	js_set_str(steering, "idleBehavior", "promptRequired");
	js_set(meta, "steering", steering);
	js_set(params, "_meta", meta);
	rpc_call(&c->rpc, "_session/steering", params, on_steered, message_id);
}

static bool acp_say(struct agent *a, const char *message_id, const char *text)
{
	struct acp *c = acp_of(a);
	if (!c->prompting || c->interrupting || !c->can_steer)
		return false;
	acp_steer(c, message_id, text);
	return true;
}

void acp_cancel(struct acp *c)
{
	struct js *params = js_object();
	c->interrupting = true;
	js_set_str(params, "sessionId", c->session);
	rpc_notify(&c->rpc, "session/cancel", params);
	acp_asks_cancel(c);
}

static bool acp_interrupt(struct agent *a)
{
	struct acp *c = acp_of(a);
	c->interrupting = true; /* before the turn has begun: as soon as it has */
	if (c->prompting)
		acp_cancel(c);
	return true;
}

static void acp_decision(struct agent *a, const char *request, const struct js *decision)
{
	acp_decide(acp_of(a), request, decision);
}

/* --- the outcome */

/* The object in a last message that has more around it: from a line that begins with { to the last }. */
static char *object_in(const char *text)
{
	const char *from = text[0] == '{' ? text : strstr(text, "\n{"), *to = strrchr(text, '}');
	if (!from || !to || to < from)
		return NULL;
	from += *from == '\n';
	return mem_strndup(from, (size_t)(to - from) + 1);
}

static struct js *plain_final(const char *text)
{
	struct js *o = js_object();
	js_set_str(o, "status", "success");
	js_set_str(o, "summary", text);
	js_set(o, "questions", js_array());
	js_set(o, "nextActions", js_array());
	js_set_int(o, "testsRun", 0);
	js_set_int(o, "testsPassed", 0);
	return o;
}

static void acp_finish(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *o)
{
	struct acp *c = acp_of(a);
	rpc_drop(&c->rpc, "the agent ended before it took it");
	if (!a->settled || a->failed || c->broke) {
		agent_outcome_of_exit(a, "The agent", exit_status, stderr_tail, o);
		o->reason = c->reason ? c->reason : o->reason;
		return;
	}
	o->text = mem_strdup(a->last_message ? a->last_message : "");
	AUTO_FREE char *object = object_in(o->text);
	o->final = object ? agent_final_parse(object, strlen(object), NULL) : NULL;
	if (!o->final) {
		tell_warning(a, "the agent gave its final answer as plain text: that counts as success");
		o->final = plain_final(o->text);
	}
	agent_outcome_of_final(o);
}

#define ACP_SLOTS .uses_model = true, .prepare = acp_prepare, .started = acp_started, .line = acp_line, .decide = acp_decision, .say = acp_say, \
	.interrupt = acp_interrupt, .release = acp_release, .finish = acp_finish

/* What the protocol promises; what an agent says that it can do beyond that is used. */
const struct agent_backend agent_acp = { ACP_SLOTS, .name = "acp", .capabilities = "gates todos interrupt", .check = acp_check };
/* What these were seen to do. */
const struct agent_backend agent_codex_acp = { ACP_SLOTS, .name = "codex-acp", .capabilities = "resume gates todos steer interrupt usage", .check = acp_known_check };
const struct agent_backend agent_claude_acp = { ACP_SLOTS, .name = "claude-acp", .capabilities = "resume gates questions todos steer interrupt usage",
	.is_driven = true, .check = acp_known_check };
