/* How Claude Code is told where its model is and what to leave alone: the same for `claude` and for what drives it.  Only for this room. */
#pragma once
#include "agent/backend.h"

void claude_add_model(const struct agent_run *run, struct agent_launch *l); /* ANTHROPIC_BASE_URL and the run's token */
void claude_add_environment(struct agent_launch *l);
/* For those that cannot be given settings on a command line: the environment, and a settings file in the home. */
enum err_code claude_add_home(struct agent *a, struct agent_launch *l, struct error *e);
const char *claude_settings(const char *approvals); /* JSON */
