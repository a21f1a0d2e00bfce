/* Programs that speak ACP: a command line from the configuration, or a package that we know by the agent's name. */
#include "agent/acp.h"
#include "agent/claude_home.h"
#include "agent/codex_home.h"
#include "agent/find.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define MODULES "/node_modules/"
#define MODULES_INSIDE "/run/signalbox/node_modules"
#define NODE_INSIDE "/run/signalbox/node"

/* The newest first; then along PATH. */
static const struct known {
	const char *name;
	const char *packages[3]; /* files below node_modules */
	const char *programs[3];
	const char *install;
} known[] = {
	{ "codex-acp", { "@agentclientprotocol/codex-acp/dist/index.js", "@zed-industries/codex-acp-linux-x64/bin/codex-acp", NULL }, { "codex-acp", NULL },
		"@agentclientprotocol/codex-acp" },
	{ "claude-acp", { "@agentclientprotocol/claude-agent-acp/dist/index.js", "@zed-industries/claude-code-acp/dist/index.js", NULL },
		{ "claude-agent-acp", "claude-code-acp", NULL }, "@agentclientprotocol/claude-agent-acp" },
};

/* node and what it runs must be seen inside: /usr is, other places are bound. */
static enum err_code check_node(struct js *agent, const char *program, struct error *e)
{
	if (!str_ends(program, ".js"))
		return ERR_OK;
	AUTO_FREE char *node = find_on_path("node");
	if (!node)
		return error_set(e, ERR_UNSUPPORTED, "'%s' needs node, which is not on PATH", program);
	js_set_str(agent, "node", node);
	return ERR_OK;
}

static char *known_program(const struct known *k)
{
	for (const char *const *p = k->packages; *p; p++) {
		AUTO_FREE char *modules = find_modules(*p);
		if (modules)
			return file_join(modules, *p);
	}
	for (const char *const *p = k->programs; *p; p++) {
		char *found = find_on_path(*p);
		if (found)
			return found;
	}
	return NULL;
}

enum err_code acp_known_check(struct js *agent, const char *codex_path UNUSED, struct error *e)
{
	const struct known *k = &known[0];
	const char *own = js_str(agent, "path");
	AUTO_FREE char *real = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (str_eq(known[i].name, js_str(agent, "adapter")))
			k = &known[i];
	if (own && file_realpath(own, &real, NULL))
		return error_set(e, ERR_UNSUPPORTED, "%s is configured as '%s', which is not there", k->name, own);
	AUTO_FREE char *program = own ? mem_strdup(real) : known_program(k);
	if (!program) {
		error_set(e, ERR_UNSUPPORTED, "%s was not found", k->name);
		error_hint(e, "npm install -g %s, or set `path` of the agent in the configuration", k->install);
		return ERR_UNSUPPORTED;
	}
	js_set_str(agent, "program", program);
	return check_node(agent, program, e);
}

enum err_code acp_check(struct js *agent, const char *codex_path UNUSED, struct error *e)
{
	const struct js *argv = js_get(agent, "command");
	if (js_type(argv) != JS_ARRAY || js_len(argv) == 0 || js_len(argv) > AGENT_ARGS_MAX - 2) {
		error_set(e, ERR_INVALID, "agent command: expected the agent's command line, a list of 1 to %d strings", AGENT_ARGS_MAX - 2);
		error_hint(e, "agents: {NAME: {adapter: acp, command: [gemini, --experimental-acp]}}");
		return ERR_INVALID;
	}
	for (size_t i = 0; i < js_len(argv); i++)
		if (!js_text(js_at(argv, i)))
			return error_set(e, ERR_INVALID, "agent command[%zu]: expected a string", i);
	return check_node(agent, js_text(js_at(argv, 0)), e);
}

/* A file of a package is shown with all packages around it, since they need each other. */
static void add_program(const struct js *agent, const char *program, struct agent_launch *l)
{
	const char *at = strstr(program, MODULES), *node = js_str(agent, "node");
	bool seen = str_starts(program, "/usr/");
	AUTO_FREE char *modules = at ? mem_strndup(program, (size_t)(at - program) + strlen(MODULES) - 1) : NULL;
	AUTO_FREE char *inside = modules && !seen ? mem_printf(MODULES_INSIDE "/%s", at + strlen(MODULES)) : mem_strdup(program);
	if (modules && !seen)
		agent_launch_bind(l, modules, MODULES_INSIDE);
	if (node && str_ends(program, ".js")) {
		bool node_seen = str_starts(node, "/usr/");
		if (!node_seen)
			agent_launch_bind(l, node, NODE_INSIDE);
		agent_launch_arg(l, node_seen ? node : NODE_INSIDE);
	} else if (!strchr(program, '/')) {
		agent_launch_arg(l, "/usr/bin/env"); /* looks along the sandbox's PATH */
	}
	agent_launch_arg(l, inside);
}

/* codex-acp reads Codex's own configuration; with its own walls everything that leaves them is asked, without them nothing is. */
static enum err_code add_codex(struct agent *a, struct agent_launch *l, struct error *e)
{
	AUTO_CLOSE int dir = -1;
	const char *approvals = a->run.approvals;
	bool asks = str_eq(approvals, "always") || str_eq(approvals, "on-request");
	enum err_code rc = codex_home_write(a, &dir, e);
	if (rc)
		return error_wrap(e, "prepare Codex's home");
	agent_launch_env(l, "CODEX_HOME", CODEX_HOME_INSIDE);
	agent_launch_env(l, "SIGNALBOX_MODEL_TOKEN", a->run.model_token);
	agent_launch_env(l, "CODEX_API_KEY", a->run.model_token);
	agent_launch_env(l, "NO_BROWSER", "1");
	agent_launch_env(l, "INITIAL_AGENT_MODE", asks ? "read-only" : "agent-full-access");
	return ERR_OK;
}

static void add_environment(struct agent *a, struct agent_launch *l)
{
	const struct agent_run *run = &a->run;
	agent_launch_env(l, "OPENAI_BASE_URL", run->model_url);
	agent_launch_env(l, "OPENAI_API_KEY", run->model_token);
	claude_add_model(run, l);
	for (struct js_iter it = js_iter(js_get(run->agent, "env")); it.key; js_next(&it))
		agent_launch_env(l, it.key, js_text(it.value));
}

enum err_code acp_launch(struct agent *a, struct agent_launch *l, struct error *e)
{
	const struct js *agent = a->run.agent, *argv = js_get(agent, "command");
	bool by_name = !str_eq(js_str(agent, "adapter"), "acp");
	const char *program = by_name ? js_str(agent, "program") : js_text(js_at(argv, 0));
	enum err_code rc = ERR_OK;
	if (!program)
		return error_set(e, ERR_INTERNAL, "the spec names no program of the agent");
	add_program(agent, program, l);
	for (size_t i = 1; !by_name && i < js_len(argv); i++)
		agent_launch_arg(l, js_text(js_at(argv, i)));
	if (str_eq(js_str(agent, "adapter"), "codex-acp"))
		rc = add_codex(a, l, e);
	else if (str_eq(js_str(agent, "adapter"), "claude-acp"))
		rc = claude_add_home(a, l, e);
	add_environment(a, l);
	return rc;
}
