/* The Messages dialect: a request of that API said as a Responses request, so that the scripted model reads both alike.
 *
 *	text of a user -> message     tool_result -> function_call_output     tools -> functions
 *	output_config.format or the tool StructuredOutput -> text.format json_schema
 *
 * Notes that an agent puts into the user's mouth (<system-reminder>) are left out, but for what a person said meanwhile. */
#pragma once
#include "base/err.h"
#include "base/js.h"

#define MESSAGES_FINAL_TOOL "StructuredOutput" /* Claude Code asks for its final answer as a call of this tool */
#define MESSAGES_ITEMS_MAX 20000

MUST_USE struct js *messages_to_responses(const struct js *request, struct error *e);
/* A copy without the marks of the prompt cache: they wander with every request, and would make old messages look new. */
struct js *messages_for_record(const struct js *messages);
/* {"type":"error","error":{"type","message"}}; `type` NULL: by the status. */
struct js *messages_error_body(int status, const char *type, const char *message);
