/* One kind of request that a person decides: how it is shown and how a decision is told.  Only for adapter `codex`. */
#pragma once
#include "agent/codex.h"

#define CODEX_ASKUSER "askuser"
#define CODEX_ASKUSER_ANSWER "answer" /* id of its one question */

struct codex_kind {
	const char *method;
	const char *kind;    /* of struct agent_ask */
	const char *choices; /* space-separated; describe may set others */
	bool refusing_ends;  /* Codex itself ends the turn when it is told to */
	bool has_words;	     /* the answer to a refusal carries its note */
	/* Fills `data`. False: the request is not as it should be. */
	bool (*describe)(struct codex *c, const struct js *params, struct js *data);
	struct js *(*answer)(const struct codex_ask *ask, const struct js *decision);
};

bool codex_describe_command(struct codex *c, const struct js *params, struct js *data);
bool codex_describe_patch(struct codex *c, const struct js *params, struct js *data);
bool codex_describe_permission(struct codex *c, const struct js *params, struct js *data);
bool codex_describe_input(struct codex *c, const struct js *params, struct js *data);
bool codex_describe_askuser(struct codex *c, const struct js *params, struct js *data);
bool codex_describe_elicitation(struct codex *c, const struct js *params, struct js *data);
bool codex_is_tool_approval(const struct js *params);
