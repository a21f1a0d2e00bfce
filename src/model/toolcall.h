/* Tool calls of the scripted model: what a step wants (run a command, apply a patch, show a plan, call a tool by name), said in
 * whichever of the tools a request offers.  The tables in toolcall.c are the dialects, in order of preference. */
#pragma once
#include "base/js.h"
#include "model/scenario.h"
#include "model/turn.h"

#define TOOLCALL_YIELD_MS 30000 /* how long a command may run before the agent answers for it */

/* Responses items of type function_call, custom_tool_call or local_shell_call without id, to be said in this order (an agent that must
 * read a file before it edits it is made to; only the last counts as a step); NULL with `e` set when no tool fits. */
MUST_USE struct js *toolcall_make(const struct turn *t, const struct step *step, struct error *e);
/* The final answer as a call of the turn's final_tool. */
struct js *toolcall_final(const struct turn *t, const char *answer);
/* A patch said in file tools: Write, Read and Edit. NULL: it cannot be. */
struct js *toolcall_edits(const struct turn *t, const char *patch);
struct js *toolcall_function(const char *name, struct js *arguments_taken);
/* Gives an item's call another kind of id, so that its output is no step. */
void toolcall_mark(struct js *item, const char *prefix);
/* The call that waits on for a command that has not ended yet; NULL when none runs or it cannot be asked for. */
struct js *toolcall_poll(const struct turn *t);
