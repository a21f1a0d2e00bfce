/* Claude Code's environment and settings inside the walls. */
#include "agent/claude_home.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLAUDE_HOME_NAME "claude"
#define CLAUDE_RETRIES "4" /* of a request to the model */

void claude_add_model(const struct agent_run *run, struct agent_launch *l)
{
	size_t n = strlen(run->model_url);
	AUTO_FREE char *base = mem_strndup(run->model_url, str_ends(run->model_url, "/v1") ? n - strlen("/v1") : n);
	agent_launch_env(l, "ANTHROPIC_BASE_URL", base);
	agent_launch_env(l, "ANTHROPIC_API_KEY", run->model_token);
}

void claude_add_environment(struct agent_launch *l)
{
	static const struct { const char *key, *value; } fixed[] = {
		{ "CLAUDE_CONFIG_DIR", "/home/agent/" CLAUDE_HOME_NAME }, { "SHELL", "/bin/bash" }, { "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1" },
		{ "DISABLE_AUTOUPDATER", "1" }, { "DISABLE_TELEMETRY", "1" }, { "DISABLE_ERROR_REPORTING", "1" }, { "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1" },
		{ "CLAUDE_CODE_ENABLE_TASKS", "0" }, { "CLAUDE_CODE_ENABLE_TODO_TOOLS", "1" }, /* one list, told whole */
		{ "ENABLE_TOOL_SEARCH", "0" }, { "CLAUDE_CODE_MAX_RETRIES", CLAUDE_RETRIES },
	};
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		agent_launch_env(l, fixed[i].key, fixed[i].value);
}

/* Rules that ask win over those that allow, whoever wrote them. */
const char *claude_settings(const char *approvals)
{
	return str_eq(approvals, "always") ? "{\"permissions\":{\"ask\":[\"Bash\",\"Edit\",\"Write\",\"NotebookEdit\"]}}" : "{}";
}

/* The home was the agent's in earlier turns: its directory is opened without following what may have become a link. */
enum err_code claude_add_home(struct agent *a, struct agent_launch *l, struct error *e)
{
	AUTO_FREE char *path = file_join(a->run.home, CLAUDE_HOME_NAME);
	const char *settings = claude_settings(a->run.approvals);
	claude_add_environment(l);
	agent_launch_env(l, "ANTHROPIC_MODEL", js_str(a->run.agent, "model"));
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_errno(e, "make '%s'", path);
	AUTO_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return error_errno(e, "open '%s'", path);
	return file_replace_at(dir, "settings.json", settings, strlen(settings), 0600, FILE_NOSYNC, e);
}
