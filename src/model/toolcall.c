/* Tool calls in the dialects of the agents we know. */
#include "model/toolcall.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

static struct js *call_item(const char *type)
{
	struct js *item = js_object();
	char id[ID_SIZE];
	AUTO_FREE char *call_id = NULL;

	clock_new_id(id);
	call_id = mem_printf("call_%s", id);
	js_set_str(item, "type", type);
	js_set_str(item, "call_id", call_id);
	return item;
}

struct js *toolcall_function(const char *name, struct js *arguments_taken)
{
	struct js *item = call_item("function_call");
	AUTO_FREE char *text = js_dump(arguments_taken);

	js_set_str(item, "name", name);
	js_set_str(item, "arguments", text);
	js_free(arguments_taken);
	return item;
}

static struct js *custom_call(const char *name, const char *input)
{
	struct js *item = call_item("custom_tool_call");

	js_set_str(item, "name", name);
	js_set_str(item, "input", input);
	return item;
}

/* A call inside a JavaScript tool: JSON is an expression of that language. */
static struct js *script_call(const char *tool, const struct js *argument)
{
	AUTO_STRBUF struct strbuf code = STRBUF_INIT;

	strbuf_addf(&code, "const r = await tools.%s(", tool);
	js_dump_to(argument, &code);
	strbuf_adds(&code, ");\ntext(r);\n");
	return custom_call("exec", strbuf_str(&code));
}

/* A command that takes longer is asked for again (toolcall_poll). */
static struct js *exec_command_object(const char *cmd)
{
	struct js *o = js_object();

	js_set_str(o, "cmd", cmd);
	js_set_int(o, "yield_time_ms", TOOLCALL_YIELD_MS);
	return o;
}

static struct js *shell_exec_command(const char *cmd) { return toolcall_function("exec_command", exec_command_object(cmd)); }

static struct js *command_object(const char *key, const char *cmd)
{
	struct js *o = js_object();

	js_set_str(o, key, cmd);
	return o;
}

static struct js *command_argv(const char *cmd)
{
	struct js *argv = js_array();

	js_push_str(argv, "bash");
	js_push_str(argv, "-c");
	js_push_str(argv, cmd);
	return argv;
}

static struct js *shell_shell_command(const char *cmd) { return toolcall_function("shell_command", command_object("command", cmd)); }
static struct js *shell_bash(const char *cmd) { return toolcall_function("bash", command_object("command", cmd)); }

static struct js *shell_claude(const char *cmd)
{
	struct js *o = command_object("command", cmd);

	js_set_str(o, "description", "A step of the scenario");
	return toolcall_function("Bash", o);
}

static struct js *shell_shell(const char *cmd)
{
	struct js *o = js_object();

	js_set(o, "command", command_argv(cmd));
	return toolcall_function("shell", o);
}

static struct js *shell_local(const char *cmd)
{
	struct js *item = call_item("local_shell_call");
	struct js *action = js_object();

	js_set_str(action, "type", "exec");
	js_set(action, "command", command_argv(cmd));
	js_set(action, "env", js_object());
	js_set(item, "action", action);
	js_set_str(item, "status", "completed");
	return item;
}

static struct js *shell_script(const char *cmd)
{
	AUTO_JS struct js *argument = exec_command_object(cmd);

	return script_call("exec_command", argument);
}

/* A command for those that have only a shell: the agent's own apply_patch command, fed by a here-document. */
static struct js *patch_function(const char *patch) { return toolcall_function("apply_patch", command_object("input", patch)); }
static struct js *patch_custom(const char *patch) { return custom_call("apply_patch", patch); }

static struct js *patch_script(const char *patch)
{
	AUTO_JS struct js *argument = js_string(patch);

	return script_call("apply_patch", argument);
}

struct dialect {
	const char *type;
	const char *name; /* NULL: any of that type */
	struct js *(*make)(const char *text);
};

static const struct dialect shell_dialects[] = {
	{ "function", "exec_command", shell_exec_command },
	{ "function", "shell_command", shell_shell_command },
	{ "function", "shell", shell_shell },
	{ "local_shell", NULL, shell_local },
	{ "function", "bash", shell_bash },
	{ "function", "Bash", shell_claude },
	{ "custom", "exec", shell_script },
	{ NULL, NULL, NULL },
};

static const struct dialect patch_dialects[] = {
	{ "custom", "apply_patch", patch_custom },
	{ "function", "apply_patch", patch_function },
	{ "custom", "exec", patch_script },
	{ NULL, NULL, NULL },
};

static struct js *dialect_call(const struct dialect *d, const struct turn *t, const char *text)
{
	for (; d->type != NULL; d++)
		if (turn_offers(t, d->type, d->name))
			return d->make(text);
	return NULL;
}

static struct js *patch_by_shell(const struct turn *t, const char *patch)
{
	AUTO_STRBUF struct strbuf cmd = STRBUF_INIT;

	strbuf_adds(&cmd, "apply_patch <<'SCENARIO_PATCH'\n");
	strbuf_adds(&cmd, patch);
	if (cmd.data[cmd.len - 1] != '\n')
		strbuf_addc(&cmd, '\n');
	strbuf_adds(&cmd, "SCENARIO_PATCH\n");
	return dialect_call(shell_dialects, t, strbuf_str(&cmd));
}

static struct js *only(struct js *item_taken)
{
	struct js *list;

	if (item_taken == NULL)
		return NULL;
	list = js_array();
	js_push(list, item_taken);
	return list;
}

static struct js *patch_call(const struct turn *t, const char *patch)
{
	struct js *list = only(dialect_call(patch_dialects, t, patch));

	if (list == NULL && turn_offers(t, "function", "Edit"))
		list = toolcall_edits(t, patch);
	return list != NULL ? list : only(patch_by_shell(t, patch));
}

/* Claude Code's list wants what to show while a step is being done, too. */
static struct js *todo_write(const struct js *plan)
{
	struct js *o = js_object(), *todos = js_array();

	for (size_t i = 0; i < js_len(plan); i++) {
		const struct js *step = js_at(plan, i);
		struct js *one = js_object();

		js_set_str(one, "content", js_str(step, "step"));
		js_set_str(one, "status", js_str(step, "status"));
		js_set_str(one, "activeForm", js_str(step, "step"));
		js_push(todos, one);
	}
	js_set(o, "todos", todos);
	return toolcall_function("TodoWrite", o);
}

static struct js *plan_call(const struct turn *t, const struct js *plan)
{
	AUTO_JS struct js *o = js_object();

	js_set(o, "plan", js_copy(plan));
	if (turn_offers(t, "function", "update_plan"))
		return toolcall_function("update_plan", js_ref(o));
	if (turn_offers(t, "function", "TodoWrite"))
		return todo_write(plan);
	if (turn_offers(t, "custom", "exec"))
		return script_call("update_plan", o);
	/* The count of tool outputs is the model's only memory, so a plan that cannot be shown is still one call. */
	return dialect_call(shell_dialects, t, "true # the plan: no plan tool is offered");
}

static struct js *named_call(const struct turn *t, const struct js *ask)
{
	const char *tool = js_str(ask, "tool");
	const struct js *arguments = js_get(ask, "arguments");

	if (turn_offers(t, "custom", tool))
		return custom_call(tool, js_type(arguments) == JS_STRING ? js_text(arguments) : "");
	if (turn_offers(t, "function", tool)) {
		struct js *item = toolcall_function(tool, arguments != NULL ? js_copy(arguments) : js_object());

		js_set_str(item, "namespace", turn_namespace(t, tool));
		return item;
	}
	return turn_offers(t, "custom", "exec") ? script_call(tool, arguments) : NULL;
}

static struct js *question_askuser(const struct js *q)
{
	struct js *o = js_object();

	js_set_str(o, "question", js_str(q, "text"));
	js_set_str(o, "header", js_str(q, "header"));
	if (js_get(q, "options") != NULL)
		js_set(o, "options", js_copy(js_get(q, "options")));
	return toolcall_function("askuser", o);
}

/* The form of the tools that take several questions, with options that are described. */
static struct js *question_list(const struct js *q, const char *tool)
{
	const struct js *options = js_get(q, "options");
	struct js *o = js_object(), *questions = js_array(), *one = js_object(), *list = js_array();

	for (size_t i = 0; i < js_len(options); i++) {
		struct js *option = js_object();

		js_set_str(option, "label", js_text(js_at(options, i)));
		js_set_str(option, "description", js_text(js_at(options, i)));
		js_push(list, option);
	}
	js_set_str(one, "id", "question");
	js_set_str(one, "question", js_str(q, "text"));
	js_set_str(one, "header", js_str_or(q, "header", "Question"));
	js_set_bool(one, "multiSelect", false);
	js_set(one, "options", list);
	js_push(questions, one);
	js_set(o, "questions", questions);
	return toolcall_function(tool, o);
}

static struct js *question_call(const struct turn *t, const struct js *q)
{
	static const char *const lists[] = { "AskUserQuestion", "request_user_input" };

	if (turn_offers(t, "function", "askuser"))
		return question_askuser(q);
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		if (turn_offers(t, "function", lists[i]))
			return question_list(q, lists[i]);
	return NULL;
}

struct js *toolcall_poll(const struct turn *t)
{
	struct js *o, *item;

	if (t->running_session < 0 || (!turn_offers(t, "function", "write_stdin") && !turn_offers(t, "custom", "exec")))
		return NULL;
	o = js_object();
	js_set_int(o, "session_id", t->running_session);
	js_set_str(o, "chars", "");
	js_set_int(o, "yield_time_ms", TOOLCALL_YIELD_MS);
	if (turn_offers(t, "function", "write_stdin")) {
		item = toolcall_function("write_stdin", o);
	} else {
		item = script_call("write_stdin", o);
		js_free(o);
	}
	toolcall_mark(item, TURN_POLL_PREFIX);
	return item;
}

void toolcall_mark(struct js *item, const char *prefix)
{
	AUTO_FREE char *call_id = mem_printf("%s%s", prefix, js_str(item, "call_id"));

	js_set_str(item, "call_id", call_id);
}

struct js *toolcall_final(const struct turn *t, const char *answer)
{
	struct js *arguments = js_parse(answer, strlen(answer), NULL);
	struct js *item = toolcall_function(t->final_tool, arguments != NULL ? arguments : js_object());

	toolcall_mark(item, TURN_FINAL_PREFIX);
	return item;
}

struct js *toolcall_make(const struct turn *t, const struct step *step, struct error *e)
{
	AUTO_STRBUF struct strbuf names = STRBUF_INIT;
	struct js *list = NULL;

	if (step->kind == STEP_SHELL)
		list = only(dialect_call(shell_dialects, t, js_text(step->value)));
	else if (step->kind == STEP_PATCH)
		list = patch_call(t, js_text(step->value));
	else if (step->kind == STEP_PLAN)
		list = only(plan_call(t, step->value));
	else if (step->kind == STEP_QUESTION)
		list = only(question_call(t, step->value));
	else if (step->kind == STEP_ASK)
		list = only(named_call(t, step->value));
	if (list != NULL)
		return list;
	turn_tool_names(t, &names);
	(void)error_set(e, ERR_UNSUPPORTED, "step %zu (%s): the request offers no tool for it, only: %s", step->number, step_name(step->kind), strbuf_str(&names));
	return NULL;
}
