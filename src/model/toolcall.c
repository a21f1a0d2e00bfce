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

static struct js *function_call(const char *name, struct js *arguments_taken)
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

static struct js *shell_exec_command(const char *cmd) { return function_call("exec_command", exec_command_object(cmd)); }

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

static struct js *shell_shell_command(const char *cmd) { return function_call("shell_command", command_object("command", cmd)); }
static struct js *shell_bash(const char *cmd) { return function_call("bash", command_object("command", cmd)); }

static struct js *shell_shell(const char *cmd)
{
	struct js *o = js_object();

	js_set(o, "command", command_argv(cmd));
	return function_call("shell", o);
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
static struct js *patch_function(const char *patch) { return function_call("apply_patch", command_object("input", patch)); }
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

static struct js *patch_call(const struct turn *t, const char *patch)
{
	struct js *item = dialect_call(patch_dialects, t, patch);

	return item != NULL ? item : patch_by_shell(t, patch);
}

static struct js *plan_call(const struct turn *t, const struct js *plan)
{
	AUTO_JS struct js *o = js_object();

	js_set(o, "plan", js_copy(plan));
	if (turn_offers(t, "function", "update_plan"))
		return function_call("update_plan", js_ref(o));
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
	if (turn_offers(t, "function", tool))
		return function_call(tool, arguments != NULL ? js_copy(arguments) : js_object());
	return turn_offers(t, "custom", "exec") ? script_call(tool, arguments) : NULL;
}

struct js *toolcall_poll(const struct turn *t)
{
	struct js *o, *item;
	AUTO_FREE char *call_id = NULL;

	if (t->running_session < 0 || (!turn_offers(t, "function", "write_stdin") && !turn_offers(t, "custom", "exec")))
		return NULL;
	o = js_object();
	js_set_int(o, "session_id", t->running_session);
	js_set_str(o, "chars", "");
	js_set_int(o, "yield_time_ms", TOOLCALL_YIELD_MS);
	if (turn_offers(t, "function", "write_stdin")) {
		item = function_call("write_stdin", o);
	} else {
		item = script_call("write_stdin", o);
		js_free(o);
	}
	call_id = mem_printf("%s%s", TURN_POLL_PREFIX, js_str(item, "call_id"));
	js_set_str(item, "call_id", call_id);
	return item;
}

struct js *toolcall_make(const struct turn *t, const struct step *step, struct error *e)
{
	AUTO_STRBUF struct strbuf names = STRBUF_INIT;
	struct js *item = NULL;

	if (step->kind == STEP_SHELL)
		item = dialect_call(shell_dialects, t, js_text(step->value));
	else if (step->kind == STEP_PATCH)
		item = patch_call(t, js_text(step->value));
	else if (step->kind == STEP_PLAN)
		item = plan_call(t, step->value);
	else if (step->kind == STEP_ASK)
		item = named_call(t, step->value);
	if (item != NULL)
		return item;
	turn_tool_names(t, &names);
	(void)error_set(e, ERR_UNSUPPORTED, "step %zu (%s): the request offers no tool for it, only: %s", step->number, step_name(step->kind), strbuf_str(&names));
	return NULL;
}
