/* What an agent asks: leave for a tool call, or a form that a person fills in. */
#include "agent/acp.h"
#include "agent/tell.h"
#include "agent/show.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define CUSTOM "_custom" /* a field beside another for an answer in own words */

static bool says(const struct js *decision, const char *word)
{
	return str_eq(js_str(decision, "decision"), word);
}

static bool ends_turn(const struct js *decision)
{
	return says(decision, "abort") || says(decision, "cancel");
}

/* --- leave for a tool call */

/* The option of the first kind that there is. NULL: none. */
static const char *option_of(const struct js *params, const char *first, const char *second)
{
	const struct js *options = js_get(params, "options");
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < js_len(options); i++)
			if (str_eq(js_str(js_at(options, i), "kind"), round ? second : first) && js_str(js_at(options, i), "optionId"))
				return js_str(js_at(options, i), "optionId");
	return NULL;
}

static struct js *outcome(const char *option)
{
	struct js *o = js_object(), *inner = js_object();
	js_set_str(inner, "outcome", option ? "selected" : "cancelled");
	js_set_str(inner, "optionId", option);
	js_set(o, "outcome", inner);
	return o;
}

static struct js *answer_permission(const struct acp_ask *ask, const struct js *decision)
{
	bool session = str_eq(js_str(decision, "scope"), "session");
	if (ends_turn(decision))
		return outcome(NULL);
	if (says(decision, "approve"))
		return outcome(option_of(ask->params, session ? "allow_always" : "allow_once", session ? "allow_once" : "allow_always"));
	return outcome(option_of(ask->params, "reject_once", "reject_always"));
}

static bool describe_patch(const struct acp_tool *t, struct js *data)
{
	AUTO_STRBUF struct strbuf diff = STRBUF_LIMIT(AGENT_LINE_MAX), names = STRBUF_INIT;
	struct js *files = js_array();
	for (size_t i = 0; i < js_len(t->content); i++) {
		const struct js *one = js_at(t->content, i);
		const char *path = js_str(one, "path"), *before = js_str(one, "oldText");
		if (!str_eq(js_str(one, "type"), "diff") || !path)
			continue;
		show_add_file(files, path, before ? "update" : "add");
		show_diff(&diff, show_path(path), before, js_str_or(one, "newText", ""), false);
		strbuf_addf(&names, "%s%s", names.len ? ", " : "", show_path(path));
	}
	js_set(data, "files", files);
	show_title(data, "Change ", names.len ? strbuf_str(&names) : t->title);
	show_set_diff(data, &diff);
	return js_len(files) > 0;
}

static void describe_permission(const struct acp_tool *t, struct js *data)
{
	AUTO_JS struct js *wanted = js_object();
	show_title(data, "", t->title ? t->title : "Use a tool");
	js_set_str(wanted, "tool", t->title);
	js_set_str(wanted, "kind", t->kind);
	js_set(wanted, "input", t->input ? js_ref(t->input) : js_null());
	(void)show_set_object(data, "permissions", wanted);
}

static void describe_command(const struct acp_tool *t, struct js *data)
{
	show_title(data, "Run: ", acp_tool_command(t));
	agent_set_text(data, "command", acp_tool_command(t));
	js_set_str(data, "cwd", js_str_or(t->input, "cwd", ACP_WORKSPACE));
	agent_set_text(data, "reason", js_str_or(t->input, "reason", js_str(t->input, "description")));
}

/* Its kind; what cannot be shown as a command or a patch is a permission. */
static const char *describe(const struct acp_tool *t, struct js *data)
{
	if (str_eq(t->kind, "execute") && acp_tool_command(t)[0]) {
		describe_command(t, data);
		return "command";
	}
	if (str_eq(t->kind, "edit") && describe_patch(t, data))
		return "patch";
	describe_permission(t, data);
	return "permission";
}

/* --- forms */

static struct js *option_make(const struct js *given)
{
	struct js *o = js_object();
	const char *value = js_text(given) ? js_text(given) : js_str_or(given, "const", "");
	agent_set_text(o, "label", value);
	agent_set_text(o, "description", js_str(given, "description"));
	return o;
}

static const struct js *choices_of(const struct js *field)
{
	const struct js *of = str_eq(js_str(field, "type"), "array") ? js_get(field, "items") : field;
	const struct js *list = js_get(of, "oneOf");
	list = list ? list : js_get(of, "anyOf");
	return list ? list : js_get(of, "enum");
}

static bool is_custom_of(const struct js *fields, const char *key)
{
	AUTO_FREE char *base = str_ends(key, CUSTOM) ? mem_strndup(key, strlen(key) - strlen(CUSTOM)) : NULL;
	return base && js_get(fields, base);
}

/* `text`: the form's own words, when it has this one question only. */
static struct js *question_make(const struct js *fields, const char *key, const struct js *field, const char *text)
{
	struct js *q = js_object(), *options = js_array();
	const struct js *choices = choices_of(field);
	AUTO_FREE char *custom = mem_printf("%s%s", key, CUSTOM);
	for (size_t i = 0; i < js_len(choices) && i < ACP_FORM_MAX; i++)
		js_push(options, option_make(js_at(choices, i)));
	js_set_str(q, "id", key);
	agent_set_text(q, "header", js_str(field, "title"));
	agent_set_text(q, "text", js_str_or(field, "description", text ? text : js_str_or(field, "title", key)));
	js_set_bool(q, "free_text", !choices || js_get(fields, custom));
	if (str_eq(js_str(field, "type"), "array"))
		js_set_bool(q, "multiple", true);
	js_set_bool(q, "secret", str_eq(js_str(field, "format"), "password"));
	if (choices)
		js_set(q, "options", options);
	else
		js_free(options);
	return q;
}

/* A form of texts and choices is a list of questions. NULL: it is more than that. */
static struct js *questions_of(const struct js *schema, const char *message)
{
	const struct js *fields = js_get(schema, "properties");
	struct js *list = js_array();
	bool plain = js_len(fields) > 0 && js_len(fields) <= 2 * ACP_FORM_MAX;
	size_t count = 0;
	for (struct js_iter it = js_iter(fields); it.key; js_next(&it))
		count += !is_custom_of(fields, it.key);
	for (struct js_iter it = js_iter(fields); it.key && plain; js_next(&it)) {
		const char *type = js_str_or(it.value, "type", "");
		plain = str_eq(type, "string") || (str_eq(type, "array") && choices_of(it.value));
		if (plain && !is_custom_of(fields, it.key))
			js_push(list, question_make(fields, it.key, it.value, count == 1 ? message : NULL));
	}
	if (plain && js_len(list) <= ACP_FORM_MAX)
		return list;
	js_free(list);
	return NULL;
}

static bool is_choice(const struct js *field, const char *text)
{
	const struct js *choices = choices_of(field);
	for (size_t i = 0; i < js_len(choices); i++) {
		const char *value = js_text(js_at(choices, i)) ? js_text(js_at(choices, i)) : js_str(js_at(choices, i), "const");
		if (str_eq(value, text))
			return true;
	}
	return !choices;
}

static void fill_field(struct js *content, const char *key, const struct js *field, const struct js *given)
{
	AUTO_FREE char *custom = mem_printf("%s%s", key, CUSTOM);
	bool many = str_eq(js_str(field, "type"), "array");
	struct js *list = js_array();
	for (size_t i = 0; i < js_len(given); i++) {
		const char *text = js_text(js_at(given, i));
		if (text && !is_choice(field, text))
			js_set_str(content, custom, text);
		else if (text && many)
			js_push_str(list, text);
		else if (text)
			js_set_str(content, key, text);
	}
	if (many && js_len(list))
		js_set(content, key, list);
	else
		js_free(list);
}

static struct js *content_of(const struct acp_ask *ask, const struct js *decision)
{
	const struct js *fields = js_path(ask->params, "requestedSchema.properties");
	struct js *content = js_object();
	if (js_type(js_get(decision, "content")) == JS_OBJECT)
		js_merge(content, js_get(decision, "content"));
	for (struct js_iter it = js_iter(fields); it.key; js_next(&it))
		fill_field(content, it.key, it.value, js_get(js_get(decision, "answers"), it.key));
	return content;
}

static struct js *answer_form(const struct acp_ask *ask, const struct js *decision)
{
	struct js *o = js_object();
	bool answered = says(decision, "answer") || says(decision, "approve");
	js_set_str(o, "action", answered ? "accept" : ends_turn(decision) ? "cancel" : "decline");
	if (answered)
		js_set(o, "content", content_of(ask, decision));
	return o;
}

/* --- asking */

static bool is_form(const struct acp_ask *ask)
{
	return js_get(ask->params, "requestedSchema") != NULL;
}

static struct acp_ask *ask_find(struct acp *c, const char *request, const struct js *id)
{
	for (size_t i = 0; i < c->ask_count; i++)
		if (request ? str_eq(c->asks[i].request, request) : js_equal(c->asks[i].id, id))
			return &c->asks[i];
	return NULL;
}

static struct acp_ask ask_take(struct acp *c, struct acp_ask *ask)
{
	struct acp_ask taken = *ask;
	memmove(ask, ask + 1, (size_t)(&c->asks[c->ask_count] - (ask + 1)) * sizeof *ask);
	c->ask_count--;
	return taken;
}

static void ask_release(struct acp_ask *ask)
{
	free(ask->request);
	js_free(ask->id);
	free(ask->tool);
	js_free(ask->params);
}

static void ask_person(struct acp *c, const char *kind, const struct js *id, const struct js *params, const char *tool, struct js *data_taken)
{
	AUTO_FREE char *request = mem_printf("acp-%lld", (long long)++c->last_ask); /* the ask is decided, and gone, when a rule knows the answer */
	c->asks[c->ask_count++] = (struct acp_ask){ .request = mem_strdup(request), .id = js_ref(id), .kind = kind, .tool = mem_strdup(tool), .params = js_ref(params) };
	if (tool)
		acp_tool_asked(c, tool, true, false);
	const struct agent_ask told = { .request = request, .kind = kind, .data_taken = data_taken };
	c->agent->sink.ask(c->agent->sink.ctx, &told);
}

static void refuse(struct acp *c, const struct js *id, const char *method, const char *why)
{
	AUTO_FREE char *text = mem_printf("the agent's %s was refused: %s", method, why);
	rpc_refuse(&c->rpc, id, RPC_BAD_REQUEST, why);
	tell_warning(c->agent, text);
}

bool acp_is_asking(const struct acp *c)
{
	return str_eq(c->agent->run.approvals, "always") || str_eq(c->agent->run.approvals, "on-request");
}

static void on_permission(struct acp *c, const struct js *id, const struct js *params)
{
	const char *tool = js_str(js_get(params, "toolCall"), "toolCallId");
	struct acp_tool *t = acp_tool_take(c, js_get(params, "toolCall"));
	const char *allow = option_of(params, "allow_once", "allow_always");
	if (!t || !js_len(js_get(params, "options"))) {
		refuse(c, id, "session/request_permission", "it is not as it should be");
		return;
	}
	if (!acp_is_asking(c) && allow) {
		rpc_answer(&c->rpc, id, outcome(allow));
		acp_tool_asked(c, tool, false, true);
		return;
	}
	struct js *data = js_object();
	const char *kind = describe(t, data);
	bool always = !str_eq(kind, "permission") || option_of(params, "allow_always", "allow_always");
	js_set(data, "choices", show_words(!allow ? "reject abort" : always ? "approve approve_session reject abort" : "approve reject abort"));
	ask_person(c, kind, id, params, tool, data);
}

static void on_form(struct acp *c, const struct js *id, const struct js *params)
{
	const struct js *schema = js_get(params, "requestedSchema");
	const char *message = js_str_or(params, "message", "The agent asks for something");
	if (!str_eq(js_str_or(params, "mode", "form"), "form") || js_type(schema) != JS_OBJECT) {
		refuse(c, id, "elicitation/create", "only forms can be filled in");
		return;
	}
	struct js *data = js_object(), *questions = questions_of(schema, message);
	bool fits = questions || show_set_object(data, "schema", schema);
	show_title(data, "", message);
	agent_set_text(data, "message", message);
	js_set_str(data, "server", questions ? NULL : "agent");
	js_set(data, "choices", show_words("answer reject abort"));
	if (questions)
		js_set(data, "questions", questions);
	if (fits) {
		ask_person(c, questions ? "question" : "elicitation", id, params, NULL, data);
		return;
	}
	js_free(data);
	refuse(c, id, "elicitation/create", "the form is too big");
}

bool acp_request(struct agent *a, const char *method, const struct js *id, const struct js *params)
{
	struct acp *c = acp_of(a);
	bool permission = str_eq(method, "session/request_permission"), form = str_eq(method, "elicitation/create") || str_eq(method, "session/elicitation");
	acp_text_flush(c);
	if (!permission && !form) {
		AUTO_FREE char *text = mem_printf("the agent asked for %.80s, which was refused: Signalbox knows no such request", method);
		tell_warning(a, text);
		return false;
	}
	if (ask_find(c, NULL, id))
		tell_warning(a, "the agent used the id of a request again that is still open: it was ignored");
	else if (!c->prompting || a->settled)
		refuse(c, id, method, "no turn is running");
	else if (c->ask_count == ACP_ASKS_MAX)
		refuse(c, id, method, "too many requests are waiting for a person");
	else if (permission)
		on_permission(c, id, params);
	else
		on_form(c, id, params);
	return true;
}

/* The protocol has no room for words; they go into the running turn where the agent takes any. */
static void pass_note(struct acp *c, const struct js *decision)
{
	const char *note = js_str(decision, "note");
	c->refused = c->refused || says(decision, "reject") || says(decision, "expire");
	if (str_empty(note) || !says(decision, "reject"))
		return;
	free(c->note);
	c->note = mem_strdup(note);
	if (!c->can_steer)
		return;
	AUTO_FREE char *text = mem_printf("The person who refused it says: %s", note);
	acp_steer(c, NULL, text);
}

void acp_decide(struct acp *c, const char *request, const struct js *decision)
{
	struct acp_ask *found = ask_find(c, request, NULL);
	if (!found)
		return;
	struct acp_ask ask = ask_take(c, found);
	rpc_answer(&c->rpc, ask.id, is_form(&ask) ? answer_form(&ask, decision) : answer_permission(&ask, decision));
	if (ask.tool)
		acp_tool_asked(c, ask.tool, false, says(decision, "approve"));
	if (ends_turn(decision)) {
		c->aborted = true;
		acp_cancel(c);
	} else {
		pass_note(c, decision);
	}
	ask_release(&ask);
}

void acp_asks_cancel(struct acp *c)
{
	AUTO_JS struct js *cancel = js_object();
	js_set_str(cancel, "decision", "cancel");
	while (c->ask_count) {
		struct acp_ask ask = ask_take(c, &c->asks[0]);
		rpc_answer(&c->rpc, ask.id, is_form(&ask) ? answer_form(&ask, cancel) : outcome(NULL));
		c->agent->sink.withdraw(c->agent->sink.ctx, ask.request);
		ask_release(&ask);
	}
}

bool acp_ask_canceled(struct acp *c, const struct js *id)
{
	struct acp_ask *ask = ask_find(c, NULL, id);
	if (ask)
		ask->given_up = true;
	return ask != NULL;
}

void acp_asks_given_up(struct acp *c)
{
	for (size_t i = c->ask_count; i-- > 0;) {
		if (!c->asks[i].given_up)
			continue;
		struct acp_ask ask = ask_take(c, &c->asks[i]);
		c->agent->sink.withdraw(c->agent->sink.ctx, ask.request);
		ask_release(&ask);
	}
}

void acp_asks_release(struct acp *c)
{
	while (c->ask_count)
		ask_release(&c->asks[--c->ask_count]);
}
