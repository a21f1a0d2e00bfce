/* Adapter `fake`: plays a script of lines as if an agent had printed them, through the same pipes and walls.  The script (the prompt) is
 * what `codex exec --json` would print; it is how translation and the record are tested without a model. */
#include "agent/backend.h"
#include "base/cleanup.h"
#include "base/file.h"
#include <string.h>

#define FAKE_SCRIPT "script.jsonl"

static enum err_code fake_prepare(struct agent *a, struct agent_launch *l, struct error *e)
{
	AUTO_FREE char *script = file_join(a->run.home, FAKE_SCRIPT);
	enum err_code rc = file_replace(script, a->run.prompt, strlen(a->run.prompt), 0600, FILE_NOSYNC, e);
	if (rc)
		return rc;
	agent_launch_arg(l, "/bin/cat");
	agent_launch_arg(l, "/home/agent/" FAKE_SCRIPT);
	return ERR_OK;
}

const struct agent_backend agent_fake = {
	.name = "fake",
	.capabilities = "todos usage",
	.prepare = fake_prepare,
	.line = codex_exec_line,
	.finish = codex_exec_finish,
};
