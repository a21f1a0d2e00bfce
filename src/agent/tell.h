/* Our events, as all adapters that talk tell them: the same types and members whichever way the agent was spoken to.  Only for this room. */
#pragma once
#include "agent/backend.h"

void tell_session(struct agent *a, const char *id); /* becomes the agent's session_id */
/* A command without the /bin/bash -c '...' in which agents start it. The caller frees. */
char *tell_as_typed(const char *command);
/* `item` is the adapter's id of the thing, as its live events name it. */
void tell_command_started(struct agent *a, const char *item, const char *command);
/* exit_code NULL: unknown. */
void tell_command_finished(struct agent *a, const char *item, const char *command, const char *status, const struct js *exit_code, const char *output);
void tell_message(struct agent *a, const char *item, const char *text); /* becomes the agent's last message; item may be NULL */
void tell_reasoning(struct agent *a, const char *text);
void tell_warning(struct agent *a, const char *text);
void tell_error(struct agent *a, const char *said, bool goes_on); /* kept for an end without other words */
void tell_turn(struct agent *a, const char *status, const struct js *usage, const char *error);
void tell_given_up(struct agent *a, const char *what, const char *why); /* the turn failed; kept as the agent's failure */
/* Members of the NULL-ended list; what is too big for an event is told as cut text. */
void tell_tool(struct agent *a, const char *kind, const struct js *item, const char *const *keys, bool done);
/* A refused request is told as the provider's whole answer; its message is what people want. The caller frees. */
char *tell_plain_words(const char *message);
