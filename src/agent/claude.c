/* Adapter `claude`: Claude Code by `claude -p` with stream-json both ways.  Facts (2.1.329): everything it would ask a person comes as control_request
 * can_use_tool and waits for ever; a user message with a uuid is followed by command_lifecycle lines; one that comes while a turn runs is given to the
 * model with the next tool's result; --json-schema adds a tool for the final answer and checks it; the process ends when stdin does. */
#include "agent/claude.h"
#include "agent/claude_home.h"
#include "agent/tell.h"
#include "agent/find.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdio.h>
#include <string.h>

#define CLAUDE_INSIDE "/run/signalbox/claude"
#define CLAUDE_MAJOR 2 /* the oldest version that is known to speak as we need it */
#define CLAUDE_MINOR 1
#if defined(__aarch64__)
#define CLAUDE_NATIVE "@anthropic-ai/claude-code-linux-arm64/claude"
#else
#define CLAUDE_NATIVE "@anthropic-ai/claude-code-linux-x64/claude"
#endif

static const char instructions[] =
	"You work unattended for a person. When you need a decision or a fact that only a person can give, call AskUserQuestion and wait for the answer, however "
	"long it takes; do not guess. End with the structured answer that is asked for.";

/* Makes no sense inside walls without a network, or outlives the turn. */
static const char unwanted_tools[] = "WebFetch,CronCreate,CronDelete,CronList,ScheduleWakeup,Monitor,EnterWorktree,ExitWorktree,SendMessage,ListAgents";

struct claude *claude_of(struct agent *a)
{
	if (!a->state) {
		struct claude *c = NEW(struct claude);
		c->agent = a;
		a->state = c;
	}
	return a->state;
}

static void claude_release(struct agent *a)
{
	struct claude *c = a->state;
	if (!c)
		return;
	claude_tools_release(c);
	claude_asks_release(c);
	while (c->say_count)
		free(c->says[--c->say_count].message);
	js_free(c->seen);
	js_free(c->final);
	free(c);
}

/* --- the program */

/* npm's `claude` is the native program, or a stub beside the package that has it. */
static char *native_behind(const char *found)
{
	const char *at = strstr(found, "/@anthropic-ai/claude-code/");
	AUTO_FREE char *modules = at ? mem_strndup(found, (size_t)(at - found)) : NULL;
	AUTO_FREE char *native = modules ? file_join(modules, CLAUDE_NATIVE) : NULL;
	return mem_strdup(native && file_is_executable(native) ? native : found);
}

static char *claude_find(void)
{
	AUTO_FREE char *modules = find_modules(CLAUDE_NATIVE);
	AUTO_FREE char *on_path = modules ? NULL : find_on_path("claude");
	return modules ? file_join(modules, CLAUDE_NATIVE) : on_path ? native_behind(on_path) : NULL;
}

static enum err_code claude_check(struct js *agent, const char *codex_path UNUSED, struct error *e)
{
	const char *own = js_str(agent, "path");
	AUTO_FREE char *real = NULL;
	if (own && (!file_is_executable(own) || file_realpath(own, &real, NULL)))
		return error_set(e, ERR_UNSUPPORTED, "Claude Code is configured as '%s', which is not an executable file", own);
	AUTO_FREE char *program = own ? native_behind(real) : claude_find();
	if (!program) {
		error_set(e, ERR_UNSUPPORTED, "Claude Code was not found");
		error_hint(e, "npm install -g @anthropic-ai/claude-code, or set `path` of the agent in the configuration");
		return ERR_UNSUPPORTED;
	}
	AUTO_FREE char *version = find_version(program);
	if (!find_version_is_at_least(version, CLAUDE_MAJOR, CLAUDE_MINOR)) {
		error_set(e, ERR_UNSUPPORTED, "Claude Code %s at '%s' is too old", version, program);
		error_hint(e, "%d.%d or newer is needed: npm install -g @anthropic-ai/claude-code", CLAUDE_MAJOR, CLAUDE_MINOR);
		return ERR_UNSUPPORTED;
	}
	js_set_str(agent, "program", program);
	return ERR_OK;
}

static enum err_code claude_prepare(struct agent *a, struct agent_launch *l, struct error *e)
{
	static const char *const fixed[] = { CLAUDE_INSIDE "/claude", "-p", "--output-format", "stream-json", "--input-format", "stream-json", "--verbose",
		"--permission-prompt-tool", "stdio", "--replay-user-messages", "--strict-mcp-config", "--setting-sources", "project", "--disallowedTools",
		unwanted_tools, "--append-system-prompt", instructions, "--json-schema", agent_final_schema, NULL };
	const struct js *agent = a->run.agent;
	const char *program = js_str(agent, "program");
	if (!program)
		return error_set(e, ERR_INTERNAL, "the spec names no Claude Code program");
	agent_launch_bind(l, program, CLAUDE_INSIDE "/claude");
	for (const char *const *f = fixed; *f; f++)
		agent_launch_arg(l, *f);
	agent_launch_arg(l, "--settings");
	agent_launch_arg(l, claude_settings(a->run.approvals));
	agent_launch_arg(l, "--permission-mode");
	agent_launch_arg(l, str_eq(js_str(agent, "mode"), "plan") ? "plan" : "default");
	if (js_str(agent, "model")) {
		agent_launch_arg(l, "--model");
		agent_launch_arg(l, js_str(agent, "model"));
	}
	if (a->run.session_id) {
		agent_launch_arg(l, "--resume");
		agent_launch_arg(l, a->run.session_id);
	}
	claude_add_model(&a->run, l);
	claude_add_environment(l);
	for (struct js_iter it = js_iter(js_get(agent, "env")); it.key; js_next(&it))
		agent_launch_env(l, it.key, js_text(it.value));
	l->talks = true;
	return ERR_OK;
}

/* --- words of a person */

/* New in every run: a session that is resumed takes a uuid that it has seen for a repetition. */
static void make_uuid(char ret[CLAUDE_UUID_SIZE])
{
	unsigned char b[16];
	clock_random(b, sizeof b);
	snprintf(ret, CLAUDE_UUID_SIZE, "%02x%02x%02x%02x-%02x%02x-4%x%02x-8%x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5], b[6] & 15, b[7],
		b[8] & 15, b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

static void send_user(struct claude *c, const char *text, char ret_uuid[CLAUDE_UUID_SIZE])
{
	AUTO_JS struct js *o = js_object();
	struct js *message = js_object();
	make_uuid(ret_uuid);
	js_set_str(message, "role", "user");
	js_set_str(message, "content", text);
	js_set_str(o, "type", "user");
	js_set(o, "message", message);
	js_set_str(o, "uuid", ret_uuid);
	c->spoken = true;
	agent_send(c->agent, o);
}

static void claude_started(struct agent *a)
{
	char uuid[CLAUDE_UUID_SIZE];
	a->prompted = true;
	send_user(claude_of(a), a->run.prompt, uuid);
}

static bool claude_say(struct agent *a, const char *message_id, const char *text)
{
	struct claude *c = claude_of(a);
	if (!c->spoken || c->interrupting || c->say_count == CLAUDE_SAYS_MAX)
		return false;
	struct claude_say *say = &c->says[c->say_count++];
	say->message = mem_strdup(message_id);
	send_user(c, text, say->uuid);
	return true;
}

static void said(struct claude *c, size_t at, const char *refused)
{
	AUTO_FREE char *message = c->says[at].message;
	c->says[at] = c->says[--c->say_count];
	c->agent->sink.said(c->agent->sink.ctx, message, refused);
}

/* queued, started, completed; or canceled, when it was dropped. */
static void on_lifecycle(struct claude *c, const struct js *line)
{
	const char *state = js_str_or(line, "state", "");
	for (size_t i = 0; i < c->say_count; i++)
		if (str_eq(c->says[i].uuid, js_str(line, "command_uuid")) && !str_eq(state, "queued")) {
			said(c, i, str_eq(state, "started") || str_eq(state, "completed") ? NULL : "Claude Code dropped it");
			return;
		}
}

void claude_interrupt_turn(struct claude *c)
{
	AUTO_JS struct js *o = js_object();
	struct js *request = js_object();
	c->interrupting = true;
	js_set_str(request, "subtype", "interrupt");
	js_set_bool(request, "cancel_queued", true);
	js_set_str(o, "type", "control_request");
	js_set_str(o, "request_id", "interrupt");
	js_set(o, "request", request);
	agent_send(c->agent, o);
}

static bool claude_interrupt(struct agent *a)
{
	struct claude *c = claude_of(a);
	if (!c->spoken)
		return false;
	claude_interrupt_turn(c);
	return true;
}

/* --- the turn's end */

static void settle(struct claude *c)
{
	claude_asks_withdraw(c);
	while (c->say_count)
		said(c, c->say_count - 1, "the turn was over before the agent took it");
	claude_tools_release(c);
	c->agent->settled = true;
}

static int64_t count(const struct js *o, const char *key)
{
	int64_t n = js_i64(o, key, 0);
	return n > 0 ? n : 0;
}

/* Over all models that were used, helpers' included. */
static struct js *usage_of(const struct js *line)
{
	struct js *o = js_object();
	int64_t input = 0, cached = 0, written = 0, output = 0;
	for (struct js_iter it = js_iter(js_get(line, "modelUsage")); it.key; js_next(&it)) {
		cached += count(it.value, "cacheReadInputTokens");
		written += count(it.value, "cacheCreationInputTokens");
		input += count(it.value, "inputTokens");
		output += count(it.value, "outputTokens");
	}
	js_set_int(o, "input_tokens", input + cached + written);
	js_set_int(o, "cached_input_tokens", cached);
	js_set_int(o, "cache_write_input_tokens", written);
	js_set_int(o, "output_tokens", output);
	return o;
}

static char *words_of_failure(struct claude *c, const struct js *line, bool interrupted)
{
	const char *said_so = js_str_or(line, "result", js_text(js_at(js_get(line, "errors"), 0)));
	if (interrupted)
		return mem_strdup(c->aborted ? "a person ended the turn instead of allowing what the agent asked for" : "the turn was interrupted");
	return mem_printf("%s", str_empty(said_so) ? js_str_or(line, "subtype", "the turn failed") : said_so);
}

static void on_result(struct claude *c, const struct js *line)
{
	bool failed = js_flag(line, "is_error", false) || !str_eq(js_str(line, "subtype"), "success");
	bool interrupted = failed && (c->interrupting || c->aborted) && str_starts(js_str_or(line, "terminal_reason", "aborted"), "aborted");
	AUTO_JS struct js *usage = usage_of(line);
	AUTO_FREE char *words = failed ? words_of_failure(c, line, interrupted) : NULL;
	if (!failed && js_i64(line, "queued_turn_count", 0) > 0 && c->say_count) {
		js_free(c->final); /* what a person said meanwhile is a turn of its own, and begins now */
		c->final = NULL;
		return;
	}
	if (js_type(js_get(line, "structured_output")) == JS_OBJECT) {
		js_free(c->final);
		c->final = js_ref(js_get(line, "structured_output"));
	}
	tell_turn(c->agent, interrupted ? "interrupted" : failed ? "failed" : "completed", usage, words);
	if (failed) {
		agent_fail(c->agent, words);
		c->reason = interrupted ? "interrupted" : strstr(words, "No conversation found") ? "session_lost" : NULL;
	} else if (!c->final && js_str(line, "result")) {
		free(c->agent->last_message);
		c->agent->last_message = mem_strdup(js_str(line, "result"));
	}
	settle(c);
}

static void on_init(struct claude *c, const struct js *line)
{
	const char *session = js_str(line, "session_id"), *version = js_str(line, "claude_code_version");
	if (session && !str_eq(session, c->agent->session_id))
		tell_session(c->agent, session);
	if (version && !find_version_is_at_least(version, CLAUDE_MAJOR, CLAUDE_MINOR))
		tell_warning(c->agent, "this Claude Code is older than those that Signalbox was tried with");
	agent_set_progress(c->agent, "working");
}

static void on_system(struct claude *c, const struct js *line)
{
	const char *subtype = js_str_or(line, "subtype", "");
	if (str_eq(subtype, "init"))
		on_init(c, line);
	else if (str_eq(subtype, "task_started"))
		claude_task(c, line);
	else if (str_eq(subtype, "api_retry"))
		tell_error(c->agent, js_str_or(line, "error", "the model did not answer"), true);
}

static bool dispatch(struct claude *c, const struct js *line)
{
	static const struct { const char *type; void (*on)(struct claude *c, const struct js *line); } types[] = {
		{ "system", on_system }, { "assistant", claude_assistant }, { "user", claude_user }, { "result", on_result },
		{ "control_request", claude_control }, { "command_lifecycle", on_lifecycle },
	};
	static const char *const known[] = { "control_response", "tool_progress", "rate_limit_event", "stream_event", "keep_alive", "tool_use_summary", "auth_status" };
	const char *type = js_str_or(line, "type", "");
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (str_eq(types[i].type, type)) {
			types[i].on(c, line);
			return true;
		}
	if (str_eq(type, "control_cancel_request") && js_str(line, "request_id")) {
		claude_withdrawn(c, js_str(line, "request_id"));
		return true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (str_eq(known[i], type))
			return true;
	return false;
}

/* The turn's end in a line that is too long to be read: without it the program would be waited for in vain. */
static void end_cut(struct claude *c, const char *line, size_t len)
{
	static const char *const heads[] = { "{\"duration_api_ms\":", "{\"type\":\"result\"" };
	for (size_t i = 0; i < ARRAY_SIZE(heads) && len >= AGENT_LINE_MAX && !c->agent->settled; i++)
		if (memcmp(line, heads[i], strlen(heads[i])) == 0) {
			agent_fail(c->agent, "Claude Code's result is longer than Signalbox reads");
			tell_turn(c->agent, "failed", NULL, c->agent->error);
			settle(c);
		}
}

static void claude_line(struct agent *a, const char *line, size_t len)
{
	AUTO_JS struct js *parsed = js_parse(line, len, NULL);
	struct claude *c = claude_of(a);
	bool object = parsed && js_type(parsed) == JS_OBJECT;
	if (object && a->settled && !str_eq(js_str(parsed, "type"), "control_request"))
		return;
	if (!object)
		end_cut(c, line, len);
	if (object ? !dispatch(c, parsed) : !claude_refuse_cut(c, line, len))
		agent_emit_raw(a, line, len);
}

static void claude_decision(struct agent *a, const char *request, const struct js *decision)
{
	claude_decide(claude_of(a), request, decision);
}

static void claude_finish(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *o)
{
	struct claude *c = claude_of(a);
	struct error e = ERROR_INIT;
	if (!a->settled || a->failed) {
		agent_outcome_of_exit(a, "Claude Code", exit_status, stderr_tail, o);
		o->reason = c->reason ? c->reason : o->reason;
		return;
	}
	o->text = c->final ? js_dump(c->final) : mem_strdup(a->last_message ? a->last_message : "");
	o->final = agent_final_parse(o->text, strlen(o->text), &e);
	if (o->final) {
		agent_outcome_of_final(o);
		return;
	}
	o->status = AGENT_FAILED;
	o->reason = "final_invalid";
	o->error = mem_strdup(e.text);
}

const struct agent_backend agent_claude = {
	.name = "claude",
	.uses_model = true,
	.capabilities = "resume gates questions todos steer interrupt usage",
	.check = claude_check,
	.prepare = claude_prepare,
	.started = claude_started,
	.line = claude_line,
	.decide = claude_decision,
	.say = claude_say,
	.interrupt = claude_interrupt,
	.release = claude_release,
	.finish = claude_finish,
};
