/* The server's requests that a person decides.  Codex waits for each for ever and forgets them with its process: they are told at once, and
 * answered exactly once. */
#include "agent/codex_ask.h"
#include "agent/tell.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

static bool says(const struct js *decision, const char *word)
{
	return str_eq(js_str(decision, "decision"), word);
}

static bool is_approved(const struct js *decision)
{
	return says(decision, "approve");
}

static bool ends_turn(const struct js *decision)
{
	return says(decision, "abort") || says(decision, "cancel");
}

static bool for_session(const struct js *decision)
{
	return is_approved(decision) && str_eq(js_str(decision, "scope"), "session");
}

/* What a person who did not answer is said to have said. */
static char *words_of_refusal(const struct js *decision)
{
	const char *note = js_str(decision, "note");
	if (says(decision, "expire"))
		return mem_strdup("Nobody answered in time. Go on without an answer, with the most careful assumption, and say which one you made.");
	if (ends_turn(decision))
		return mem_strdup("The question was withdrawn: stop here.");
	return mem_printf("The person who was asked does not answer this. %s%s%sGo on without it, and say what you assumed.", str_empty(note) ? "" : "They say: \"",
		str_empty(note) ? "" : note, str_empty(note) ? "" : "\". ");
}

static struct js *answer_approval(const struct codex_ask *ask UNUSED, const struct js *decision)
{
	struct js *o = js_object();
	js_set_str(o, "decision", for_session(decision) ? "acceptForSession" : is_approved(decision) ? "accept" : ends_turn(decision) ? "cancel" : "decline");
	return o;
}

/* Members that are null in the request may not be in the answer. */
static struct js *answer_permission(const struct codex_ask *ask, const struct js *decision)
{
	struct js *o = js_object(), *granted = js_object();
	const struct js *wanted = js_get(ask->params, "permissions");
	for (struct js_iter it = js_iter(wanted); is_approved(decision) && it.key; js_next(&it))
		if (js_type(it.value) != JS_NULL)
			js_set(granted, it.key, js_ref(it.value));
	js_set(o, "permissions", granted);
	js_set_str(o, "scope", for_session(decision) ? "session" : "turn");
	return o;
}

static struct js *answers_to(const struct js *decision, const char *question)
{
	const struct js *given = says(decision, "answer") ? js_get(js_get(decision, "answers"), question) : NULL;
	struct js *list = js_array();
	for (size_t i = 0; i < js_len(given); i++)
		if (js_text(js_at(given, i)))
			js_push(list, js_ref(js_at(given, i)));
	if (js_text(given))
		js_push(list, js_ref(given));
	return list;
}

static struct js *answer_input(const struct codex_ask *ask, const struct js *decision)
{
	struct js *o = js_object(), *answers = js_object();
	const struct js *questions = js_get(ask->params, "questions");
	for (size_t i = 0; i < js_len(questions); i++) {
		const char *id = js_str_or(js_at(questions, i), "id", "");
		struct js *one = js_object(), *list = answers_to(decision, id);
		AUTO_FREE char *words = says(decision, "answer") ? NULL : words_of_refusal(decision);
		if (words)
			js_push_str(list, words);
		js_set(one, "answers", list);
		js_set(answers, id, one);
	}
	js_set(o, "answers", answers);
	return o;
}

static struct js *tool_result(const char *text, bool success)
{
	struct js *o = js_object(), *list = js_array(), *part = js_object();
	js_set_str(part, "type", "inputText");
	js_set_str(part, "text", text);
	js_push(list, part);
	js_set(o, "contentItems", list);
	js_set_bool(o, "success", success);
	return o;
}

static struct js *answer_askuser(const struct codex_ask *ask UNUSED, const struct js *decision)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(AGENT_LINE_MAX);
	AUTO_JS struct js *given = answers_to(decision, CODEX_ASKUSER_ANSWER);
	for (size_t i = 0; i < js_len(given); i++)
		strbuf_addf(&text, "%s%s", i ? "\n" : "", js_text(js_at(given, i)));
	if (js_len(given))
		return tool_result(strbuf_str(&text), true);
	AUTO_FREE char *words = words_of_refusal(decision);
	return tool_result(words, false);
}

static struct js *answer_elicitation(const struct codex_ask *ask UNUSED, const struct js *decision)
{
	struct js *o = js_object();
	const struct js *content = js_get(decision, "content");
	bool accepted = is_approved(decision) || says(decision, "answer");
	js_set_str(o, "action", accepted ? "accept" : ends_turn(decision) ? "cancel" : "decline");
	js_set(o, "content", !accepted ? js_null() : content ? js_ref(content) : js_object());
	struct js *meta = for_session(decision) ? js_object() : js_null();
	if (for_session(decision))
		js_set_str(meta, "persist", "session");
	js_set(o, "_meta", meta);
	return o;
}

#define APPROVAL "approve approve_session reject abort"
static const struct codex_kind kinds[] = {
	{ "item/commandExecution/requestApproval", "command", APPROVAL, true, false, codex_describe_command, answer_approval },
	{ "item/fileChange/requestApproval", "patch", APPROVAL, true, false, codex_describe_patch, answer_approval },
	{ "item/permissions/requestApproval", "permission", APPROVAL, false, false, codex_describe_permission, answer_permission },
	{ "item/tool/requestUserInput", "question", "answer reject abort", false, true, codex_describe_input, answer_input },
	{ "item/tool/call", "question", "answer reject abort", false, true, codex_describe_askuser, answer_askuser },
	{ "mcpServer/elicitation/request", "elicitation", "answer reject abort", false, false, codex_describe_elicitation, answer_elicitation },
};

static struct codex_ask *ask_find(struct codex *c, const char *request, const struct js *id)
{
	for (size_t i = 0; i < c->ask_count; i++)
		if (request ? str_eq(c->asks[i].request, request) : js_equal(c->asks[i].id, id))
			return &c->asks[i];
	return NULL;
}

static struct codex_ask ask_take(struct codex *c, struct codex_ask *ask)
{
	struct codex_ask taken = *ask;
	memmove(ask, ask + 1, (size_t)(&c->asks[c->ask_count] - (ask + 1)) * sizeof *ask);
	c->ask_count--;
	return taken;
}

static void ask_release(struct codex_ask *ask)
{
	free(ask->request);
	js_free(ask->id);
	js_free(ask->params);
}

static struct js *words_list(const char *words)
{
	struct js *list = js_array();
	for (const char *w = words; *w; w += strspn(w, " ")) {
		size_t n = strcspn(w, " ");
		js_push(list, js_string_n(w, n));
		w += n;
	}
	return list;
}

static bool is_command(const struct codex_kind *kind)
{
	return str_eq(kind->kind, "command");
}

/* The command that does not run while this is decided; words for one that runs do not stop it. */
static const char *held_command(const struct codex_kind *kind, const struct js *params)
{
	return is_command(kind) && !str_eq(js_str(params, "kind"), "writeStdin") ? js_str_or(params, "itemId", "") : "";
}

static void ask_person(struct codex *c, const struct codex_kind *kind, const struct js *id, const struct js *params, struct js *data_taken)
{
	if (!js_get(data_taken, "choices"))
		js_set(data_taken, "choices", words_list(kind->choices));
	struct codex_ask *ask = &c->asks[c->ask_count++];
	*ask = (struct codex_ask){ .request = mem_printf("codex-%lld", (long long)++c->last_ask), .id = js_ref(id), .kind = kind, .params = js_ref(params) };
	AUTO_FREE char *waiting = mem_printf("asks a person: %s", js_str_or(data_taken, "title", ""));
	agent_set_progress(c->agent, waiting);
	AUTO_FREE char *request = mem_strdup(ask->request); /* decided, and gone, when a rule knows the answer */
	codex_command_asked(c, held_command(kind, params), true, false);
	const struct agent_ask told = { .request = request, .kind = kind->kind, .data_taken = data_taken };
	c->agent->sink.ask(c->agent->sink.ctx, &told);
}

/* Codex can only ask about everything or about nothing when it has no walls of its own; what the agent itself wants asked carries its reason.  Where
 * nothing is to be asked, a tool may be called; what that tool then asks is a question all the same. */
static bool is_wanted(struct codex *c, const struct codex_kind *kind, const struct js *params)
{
	bool approval = is_command(kind) || str_eq(kind->kind, "patch");
	if (codex_is_tool_approval(params))
		return codex_asks_commands(c);
	return !approval || !str_eq(c->agent->run.approvals, "on-request") || js_str(params, "reason") || js_str(params, "grantRoot");
}

static void accept(struct codex *c, const struct codex_kind *kind, const struct js *id, const struct js *params)
{
	const struct codex_ask ask = { .kind = kind, .params = js_ref(params) };
	AUTO_JS struct js *decision = js_object();
	js_set_str(decision, "decision", "approve");
	rpc_answer(&c->rpc, id, kind->answer(&ask, decision));
	codex_command_asked(c, held_command(kind, params), false, true);
	js_free(ask.params);
}

static void refuse_and_tell(struct codex *c, const char *method, const struct js *id, const char *why)
{
	AUTO_FREE char *text = mem_printf("Codex's %s was refused: %s", method, why);
	rpc_refuse(&c->rpc, id, RPC_NO_METHOD, why);
	tell_warning(c->agent, text);
}

/* A tool of ours that is called wrongly tells the model so. */
static bool tool_refused(struct codex *c, const char *method, const struct js *id, const struct js *params)
{
	const char *why = NULL;
	if (!str_eq(method, "item/tool/call"))
		return false;
	if (!str_eq(js_str(params, "tool"), CODEX_ASKUSER))
		why = "there is no such tool";
	else if (str_empty(js_str(js_get(params, "arguments"), "question")))
		why = "askuser needs a text in `question`";
	if (why)
		rpc_answer(&c->rpc, id, tool_result(why, false));
	return why != NULL;
}

bool codex_ask(struct codex *c, const char *method, const struct js *id, const struct js *params)
{
	const struct codex_kind *kind = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (str_eq(kinds[i].method, method))
			kind = &kinds[i];
	if (!kind)
		return false;
	AUTO_JS struct js *data = js_object();
	if (ask_find(c, NULL, id))
		tell_warning(c->agent, "Codex used the id of a request again that is still open: it was ignored");
	else if (!c->turn || c->agent->settled)
		refuse_and_tell(c, method, id, "no turn is running");
	else if (tool_refused(c, method, id, params))
		return true;
	else if (!is_wanted(c, kind, params))
		accept(c, kind, id, params);
	else if (c->ask_count == CODEX_ASKS_MAX)
		refuse_and_tell(c, method, id, "too many requests are waiting for a person");
	else if (!kind->describe(c, params, data))
		refuse_and_tell(c, method, id, "it is not as it should be");
	else
		ask_person(c, kind, id, params, js_ref(data));
	return true;
}

/* A refusal's answer has no room for words; they go into the running turn, before the answer: after it the model may have been asked already. */
static void pass_note(struct codex *c, const struct codex_ask *ask, const struct js *decision)
{
	const char *note = js_str(decision, "note");
	if (str_empty(note) || ask->kind->has_words || !says(decision, "reject"))
		return;
	AUTO_FREE char *text = mem_printf("The person who refused it says: %s", note);
	codex_steer(c, NULL, text);
}

void codex_decide(struct codex *c, const char *request, const struct js *decision)
{
	struct codex_ask *found = ask_find(c, request, NULL);
	if (!found)
		return;
	struct codex_ask ask = ask_take(c, found);
	agent_set_progress(c->agent, "working");
	pass_note(c, &ask, decision);
	rpc_answer(&c->rpc, ask.id, ask.kind->answer(&ask, decision));
	codex_command_asked(c, held_command(ask.kind, ask.params), false, is_approved(decision));
	if (ends_turn(decision)) {
		c->aborted = true;
		if (!ask.kind->refusing_ends)
			codex_interrupt_turn(c);
	}
	ask_release(&ask);
}

static void withdraw(struct codex *c, struct codex_ask *found)
{
	struct codex_ask ask = ask_take(c, found);
	c->agent->sink.withdraw(c->agent->sink.ctx, ask.request);
	ask_release(&ask);
}

/* Codex says so of every request that is over, also of those that we answered. */
void codex_resolved(struct codex *c, const struct js *id)
{
	struct codex_ask *ask = ask_find(c, NULL, id);
	if (ask)
		withdraw(c, ask);
}

void codex_asks_withdraw(struct codex *c)
{
	while (c->ask_count)
		withdraw(c, &c->asks[0]);
}

void codex_asks_release(struct codex *c)
{
	while (c->ask_count)
		ask_release(&c->asks[--c->ask_count]);
}
