/* What a person may answer to a gate, checked against what was asked.  Used by the server (API) and by the runner (inbox): libc and jansson. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include <stdbool.h>

#define DECISION_TEXT_MAX ((size_t)64 << 10) /* of one answer */

/* `data` is the gate's (struct agent_ask); `body` {decision: approve|reject|abort|answer, scope, answer, note} as it came from outside.
 * *ret: {decision, scope (approve), answers {question: [text]} or content (answer), note}, in one form whatever the form of the answer, so that equal
 * decisions are equal.  ERR_INVALID: no decision at all; ERR_UNPROCESSABLE: it does not fit this gate, the path says where. */
MUST_USE enum err_code decision_check(const char *kind, const struct js *data, const struct js *body, struct js **ret, struct error *e);
/* The answers that go without anybody's word: the first option of each question, or `text`. NULL when there is none. */
struct js *decision_default(const char *kind, const struct js *data, const char *text);
/* {id, gate, decision..., actor, at} from a checked decision: what is linked into place, and sent to the agent.  A copy: sealing one seals no other. */
struct js *decision_make(const char *gate, const struct js *checked, const char *actor);
/* {decision: "expire", then, answers?}: what happens when nobody has answered in time, by the gate's own rule (at_deadline, default_answer). */
struct js *decision_expired(const char *kind, const struct js *data);
/* One of its questions is secret. */
bool decision_is_secret(const struct js *data);
/* Two requests that ask for the same thing. */
bool decision_same_request(const char *kind_a, const struct js *data_a, const char *kind_b, const struct js *data_b);
/* "approve" -> "approved" ...; NULL: no such decision. */
const char *decision_state(const char *decision);
/* For the agent, as words of a new turn: what it asked and what was decided. Secrets are named, not told. */
void decision_tell(const char *kind, const struct js *data, const struct js *decision, struct strbuf *out);
