/* can_use_tool: Claude Code waits for each answer for ever and forgets it with its process.  What is asked is asked once and answered once. */
#include "agent/claude.h"
#include "agent/tell.h"
#include "agent/show.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define CUT_ID_MAX 128

static bool says(const struct js *decision, const char *word)
{
	return str_eq(js_str(decision, "decision"), word);
}

static void control_reply(struct claude *c, const char *request, const char *subtype, const char *key, struct js *value_taken)
{
	AUTO_JS struct js *o = js_object();
	struct js *response = js_object();
	js_set_str(response, "subtype", subtype);
	js_set_str(response, "request_id", request);
	js_set(response, key, value_taken);
	js_set_str(o, "type", "control_response");
	js_set(o, "response", response);
	agent_send(c->agent, o);
}

static void refuse(struct claude *c, const char *request, const char *what, const char *why)
{
	AUTO_FREE char *text = mem_printf("Claude Code's request %s was refused: %s", what, why);
	control_reply(c, request, "error", "error", js_string(why));
	tell_warning(c->agent, text);
}

static struct js *allow(const struct js *input)
{
	struct js *o = js_object();
	js_set_str(o, "behavior", "allow");
	js_set(o, "updatedInput", input ? js_ref(input) : js_object());
	return o;
}

static struct js *deny(const char *message, bool ends_turn)
{
	struct js *o = js_object();
	js_set_str(o, "behavior", "deny");
	js_set_str(o, "message", message);
	if (ends_turn)
		js_set_bool(o, "interrupt", true);
	return o;
}

/* --- what is asked, as people are shown it */

/* The places where a text of the file's is replaced. */
static void add_edits(struct strbuf *diff, const char *path, const struct js *input)
{
	const struct js *edits = js_get(input, "edits");
	if (js_str(input, "new_string"))
		show_diff(diff, path, js_str_or(input, "old_string", ""), js_str(input, "new_string"), false);
	for (size_t i = 0; i < js_len(edits); i++)
		show_diff(diff, path, js_str_or(js_at(edits, i), "old_string", ""), js_str_or(js_at(edits, i), "new_string", ""), false);
}

static void describe_patch(struct claude *c, const char *tool, const struct js *input, struct js *data)
{
	AUTO_STRBUF struct strbuf diff = STRBUF_LIMIT(AGENT_LINE_MAX);
	const char *full = js_str_or(input, "file_path", js_str_or(input, "notebook_path", "?")), *path = show_path(full);
	bool writes = str_eq(tool, "Write"), known = js_true(js_get(c->seen, full));
	struct js *files = js_array();
	if (writes)
		show_diff(&diff, path, known ? "" : NULL, js_str_or(input, "content", ""), false);
	else if (js_str(input, "new_source"))
		show_diff(&diff, path, "", js_str(input, "new_source"), false);
	else
		add_edits(&diff, path, input);
	show_add_file(files, path, writes && !known ? "add" : "update");
	js_set(data, "files", files);
	show_title(data, writes && !known ? "Write " : "Change ", path);
	show_set_diff(data, &diff);
}

static struct js *question_of(const struct js *given, size_t number)
{
	struct js *q = js_object(), *options = js_array();
	const struct js *list = js_get(given, "options");
	AUTO_FREE char *id = mem_printf("q%zu", number);
	for (size_t i = 0; i < js_len(list) && i < CLAUDE_QUESTIONS_MAX; i++) {
		struct js *one = js_object();
		agent_set_text(one, "label", js_str_or(js_at(list, i), "label", ""));
		agent_set_text(one, "description", js_str(js_at(list, i), "description"));
		js_push(options, one);
	}
	js_set_str(q, "id", id);
	agent_set_text(q, "header", js_str(given, "header"));
	agent_set_text(q, "text", js_str_or(given, "question", ""));
	js_set(q, "options", options);
	js_set_bool(q, "free_text", true);
	js_set_bool(q, "secret", false);
	if (js_flag(given, "multiSelect", false))
		js_set_bool(q, "multiple", true);
	return q;
}

static bool describe_question(const struct js *input, struct js *data)
{
	const struct js *given = js_get(input, "questions");
	struct js *list = js_array();
	size_t n = js_len(given);
	for (size_t i = 0; i < n && n <= CLAUDE_QUESTIONS_MAX; i++)
		js_push(list, question_of(js_at(given, i), i + 1));
	js_set(data, "questions", list);
	show_title(data, "", js_str_or(js_at(list, 0), "text", ""));
	return js_type(given) == JS_ARRAY && n > 0 && n <= CLAUDE_QUESTIONS_MAX;
}

static bool describe_command(const struct js *input, struct js *data)
{
	const char *command = js_str(input, "command");
	if (str_empty(command))
		return false;
	show_title(data, "Run: ", command);
	agent_set_text(data, "command", command);
	return true;
}

static void describe_permission(const char *tool, const struct js *input, struct js *data)
{
	AUTO_FREE char *title = mem_printf("Use %s: ", tool);
	AUTO_FREE char *text = js_dump(input);
	AUTO_JS struct js *wanted = js_object();
	show_title(data, title, text);
	js_set_str(wanted, "tool", tool);
	js_set(wanted, "input", input ? js_ref(input) : js_object());
	(void)show_set_object(data, "permissions", wanted);
}

static const char *kind_of(const char *tool)
{
	static const struct { const char *tool, *kind; } kinds[] = {
		{ "Bash", "command" }, { "Edit", "patch" }, { "Write", "patch" }, { "MultiEdit", "patch" }, { "NotebookEdit", "patch" },
		{ "AskUserQuestion", "question" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (str_eq(kinds[i].tool, tool))
			return kinds[i].kind;
	return "permission";
}

static bool describe(struct claude *c, const char *kind, const struct js *request, struct js *data)
{
	const struct js *input = js_get(request, "input");
	const char *tool = js_str_or(request, "tool_name", "?");
	bool good = true;
	if (str_eq(kind, "command"))
		good = describe_command(input, data);
	else if (str_eq(kind, "patch"))
		describe_patch(c, tool, input, data);
	else if (str_eq(kind, "question"))
		good = describe_question(input, data);
	else
		describe_permission(tool, input, data);
	agent_set_text(data, "reason", js_str_or(request, "decision_reason", str_eq(kind, "command") ? js_str(input, "description") : NULL));
	js_set_str(data, "cwd", str_eq(kind, "command") ? "/workspace" : NULL);
	return good;
}

/* --- asking */

static struct claude_ask *ask_find(struct claude *c, const char *request)
{
	for (size_t i = 0; i < c->ask_count; i++)
		if (str_eq(c->asks[i].request, request))
			return &c->asks[i];
	return NULL;
}

static struct claude_ask ask_take(struct claude *c, struct claude_ask *ask)
{
	struct claude_ask taken = *ask;
	memmove(ask, ask + 1, (size_t)(&c->asks[c->ask_count] - (ask + 1)) * sizeof *ask);
	c->ask_count--;
	return taken;
}

static void ask_release(struct claude_ask *ask)
{
	free(ask->request);
	free(ask->tool_id);
	js_free(ask->input);
	js_free(ask->suggestions);
}

static void ask_person(struct claude *c, const char *request, const char *kind, const struct js *rq, struct js *data_taken)
{
	/* "for this session" is kept by us for commands and patches, and by Claude Code for what it offers to remember. */
	bool question = str_eq(kind, "question"), session = !str_eq(kind, "permission") || js_len(js_get(rq, "permission_suggestions"));
	AUTO_FREE char *key = mem_strdup(request); /* decided, and gone, when a rule knows the answer */
	js_set(data_taken, "choices", show_words(question ? "answer reject abort" : session ? "approve approve_session reject abort" : "approve reject abort"));
	c->asks[c->ask_count++] = (struct claude_ask){ .request = mem_strdup(request), .tool_id = mem_strdup(js_str_or(rq, "tool_use_id", "")), .kind = kind,
		.input = js_ref(js_get(rq, "input")), .suggestions = js_ref(js_get(rq, "permission_suggestions")) };
	claude_tool_asked(c, js_str_or(rq, "tool_use_id", ""), true, false);
	const struct agent_ask told = { .request = key, .kind = kind, .data_taken = data_taken };
	c->agent->sink.ask(c->agent->sink.ctx, &told);
}

bool claude_is_asking(const struct claude *c)
{
	return str_eq(c->agent->run.approvals, "always") || str_eq(c->agent->run.approvals, "on-request");
}

/* Without approvals everything but a question is allowed at once; a plan's run does not leave its plan. */
static bool answered_at_once(struct claude *c, const char *request, const char *kind, const struct js *rq)
{
	bool plan = str_eq(js_str(c->agent->run.agent, "mode"), "plan");
	if (plan && str_eq(js_str(rq, "tool_name"), "ExitPlanMode"))
		control_reply(c, request, "success", "response", deny("Only the plan is wanted: give it as your final answer.", false));
	else if (!str_eq(kind, "question") && !claude_is_asking(c))
		control_reply(c, request, "success", "response", allow(js_get(rq, "input")));
	else
		return false;
	return true;
}

static void can_use_tool(struct claude *c, const char *request, const struct js *rq)
{
	const char *tool = js_str(rq, "tool_name"), *kind = kind_of(tool);
	AUTO_JS struct js *data = js_object();
	if (ask_find(c, request))
		tell_warning(c->agent, "Claude Code used the id of a request again that is still open: it was ignored");
	else if (c->agent->settled)
		refuse(c, request, "can_use_tool", "no turn is running");
	else if (!tool || js_type(js_get(rq, "input")) != JS_OBJECT)
		refuse(c, request, "can_use_tool", "it is not as it should be");
	else if (answered_at_once(c, request, kind, rq))
		return;
	else if (c->ask_count == CLAUDE_ASKS_MAX)
		refuse(c, request, "can_use_tool", "too many requests are waiting for a person");
	else if (!describe(c, kind, rq, data))
		control_reply(c, request, "success", "response", deny("This call cannot be shown to a person: its input is not as it should be.", false));
	else
		ask_person(c, request, kind, rq, js_ref(data));
}

void claude_control(struct claude *c, const struct js *line)
{
	const char *request = js_str(line, "request_id");
	const struct js *rq = js_get(line, "request");
	const char *subtype = js_str_or(rq, "subtype", "?");
	if (!request)
		tell_warning(c->agent, "Claude Code made a request without an id: it was ignored");
	else if (str_eq(subtype, "can_use_tool"))
		can_use_tool(c, request, rq);
	else
		refuse(c, request, subtype, "Signalbox knows no such request");
}

bool claude_refuse_cut(struct claude *c, const char *line, size_t len)
{
	static const char begins[] = "{\"type\":\"control_request\",\"request_id\":\"";
	size_t from = sizeof begins - 1, n = 0;
	if (len < from || memcmp(line, begins, from) != 0)
		return false;
	while (from + n < len && n < CUT_ID_MAX && line[from + n] != '"' && line[from + n] != '\\')
		n++;
	AUTO_FREE char *request = mem_strndup(line + from, n);
	refuse(c, request, "can_use_tool", "it is longer than Signalbox reads");
	return true;
}

/* --- decisions */

/* What is remembered is remembered for this session only: not in the workspace's files. */
static struct js *for_session(const struct js *suggestions)
{
	struct js *list = js_copy(suggestions);
	for (size_t i = 0; i < js_len(list); i++)
		if (js_type(js_at(list, i)) == JS_OBJECT)
			js_set_str(js_at(list, i), "destination", "session");
	return list;
}

static struct js *answers_of(const struct claude_ask *ask, const struct js *decision)
{
	const struct js *questions = js_get(ask->input, "questions");
	struct js *answers = js_object();
	for (size_t i = 0; i < js_len(questions); i++) {
		AUTO_FREE char *id = mem_printf("q%zu", i + 1);
		AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(AGENT_LINE_MAX);
		const struct js *given = js_get(js_get(decision, "answers"), id);
		if (js_text(given))
			strbuf_adds(&text, js_text(given));
		for (size_t k = 0; k < js_len(given); k++)
			strbuf_addf(&text, "%s%s", k ? ", " : "", js_text(js_at(given, k)) ? js_text(js_at(given, k)) : "");
		js_set_str(answers, js_str_or(js_at(questions, i), "question", ""), strbuf_str(&text));
	}
	return answers;
}

static struct js *refusal(const struct claude_ask *ask, const struct js *decision)
{
	const char *note = js_str(decision, "note");
	bool question = str_eq(ask->kind, "question"), ends = says(decision, "abort") || says(decision, "cancel");
	AUTO_FREE char *text = says(decision, "expire")
		? mem_strdup("Nobody answered in time. Go on without it, with the most careful assumption, and say which one you made.")
		: mem_printf("%s%s%s Go on without it, and say what you assumed.", question ? "The person who was asked does not answer this." : "A person refused this.",
			  str_empty(note) ? "" : " They say: ", str_empty(note) ? "" : note);
	return deny(ends ? "The person ended the turn." : text, ends);
}

static struct js *answer_of(const struct claude_ask *ask, const struct js *decision)
{
	if (says(decision, "answer") && str_eq(ask->kind, "question")) {
		AUTO_JS struct js *input = js_copy(ask->input);
		js_set(input, "answers", answers_of(ask, decision));
		return allow(input);
	}
	if (!says(decision, "approve"))
		return refusal(ask, decision);
	struct js *o = allow(ask->input);
	if (str_eq(js_str(decision, "scope"), "session") && js_len(ask->suggestions))
		js_set(o, "updatedPermissions", for_session(ask->suggestions));
	return o;
}

void claude_decide(struct claude *c, const char *request, const struct js *decision)
{
	struct claude_ask *found = ask_find(c, request);
	if (!found)
		return;
	struct claude_ask ask = ask_take(c, found);
	c->aborted = c->aborted || says(decision, "abort") || says(decision, "cancel");
	control_reply(c, ask.request, "success", "response", answer_of(&ask, decision));
	claude_tool_asked(c, ask.tool_id, false, says(decision, "approve") || says(decision, "answer"));
	ask_release(&ask);
}

void claude_withdrawn(struct claude *c, const char *request)
{
	struct claude_ask *found = ask_find(c, request);
	if (!found)
		return;
	struct claude_ask ask = ask_take(c, found);
	c->agent->sink.withdraw(c->agent->sink.ctx, ask.request);
	ask_release(&ask);
}

void claude_asks_withdraw(struct claude *c)
{
	while (c->ask_count)
		claude_withdrawn(c, c->asks[0].request);
}

void claude_asks_release(struct claude *c)
{
	while (c->ask_count)
		ask_release(&c->asks[--c->ask_count]);
}
