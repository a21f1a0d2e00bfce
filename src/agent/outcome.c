/* How a run went, by the agent's final answer: common to the adapters that ask for one. */
#include "agent/backend.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

void agent_outcome_of_final(struct agent_outcome *o)
{
	const char *status = js_str_or(o->final, "status", "failed");
	o->status = str_eq(status, "success") ? AGENT_SUCCESS : str_eq(status, "blocked") ? AGENT_BLOCKED : AGENT_FAILED;
	if (o->status != AGENT_FAILED)
		return;
	o->reason = "agent_failed";
	o->error = mem_printf("the agent says that it failed: %s", js_str_or(o->final, "summary", ""));
}

void agent_outcome_of_exit(struct agent *a, const char *name, int exit_status, const char *stderr_tail, struct agent_outcome *o)
{
	o->status = AGENT_FAILED;
	if (a->failed) {
		o->reason = "agent_failed";
		o->error = mem_strdup(a->error);
		return;
	}
	o->reason = "agent_exited";
	o->error = mem_printf("%s ended with status %d before its turn was over%s%s%s%s", name, exit_status, a->error ? ": " : "", a->error ? a->error : "",
		str_empty(stderr_tail) ? "" : "; it said: ", str_empty(stderr_tail) ? "" : stderr_tail);
}
