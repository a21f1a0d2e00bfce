/* Tool calls of the scripted model: what a step wants (run a command, apply a patch, show a plan, call a tool by name), said in
 * whichever of the tools a request offers.  The tables in toolcall.c are the dialects, in order of preference. */
#pragma once
#include "base/js.h"
#include "model/scenario.h"
#include "model/turn.h"

#define TOOLCALL_YIELD_MS 30000 /* how long a command may run before the agent answers for it */

/* A Responses item of type function_call, custom_tool_call or local_shell_call without id; NULL with `e` set when no tool fits. */
MUST_USE struct js *toolcall_make(const struct turn *t, const struct step *step, struct error *e);
/* The call that waits on for a command that has not ended yet; NULL when none runs or it cannot be asked for. */
struct js *toolcall_poll(const struct turn *t);
