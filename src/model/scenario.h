/* Scenarios: what the scripted model says and does, from a YAML file (doc/scenario.md has the format).
 *
 * A scenario is a list of steps; a response of the model is a run of steps up to the first one that ends it (a tool call or
 * `final`).  Which response comes next is counted from the request itself, so the model keeps no state.  The table of steps in
 * scenario.c is the format: names, shapes and the words of the errors come out of it.  Read-only after loading; any thread. */
#pragma once
#include "base/js.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCENARIOS_MAX 256
#define SCENARIO_STEPS_MAX 256
#define SCENARIO_DELAY_MAX_MS INT64_C(600000)

enum step_kind {
	STEP_SAY, STEP_FINAL, STEP_REASON, STEP_SHELL, STEP_PATCH, STEP_PLAN, STEP_ASK, STEP_QUESTION, STEP_USAGE, STEP_DELAY, STEP_EXPECT,
	STEP_ERROR, STEP_CUT, STEP_GARBAGE, STEP_HANG, STEP_REFUSE,
};

struct step {
	enum step_kind kind;
	const struct js *value; /* borrowed from the script's document */
	int64_t delay_ms;	/* STEP_DELAY */
	int64_t times;		/* failures: how often; INT64_MAX: always */
	size_t number;		/* place in the scenario, from 1 */
};

struct scenario {
	const char *match;	/* borrowed; substring of the prompt; NULL for the default one */
	bool is_default;
	struct step *steps;
	size_t step_count;
};

struct script {
	struct js *doc;
	struct scenario *scenarios;
	size_t scenario_count;
};

MUST_USE enum err_code script_load(const char *path, struct script *ret, struct error *e);
MUST_USE enum err_code script_parse(const char *yaml, size_t len, struct script *ret, struct error *e);
void script_release(struct script *s);
#define AUTO_SCRIPT __attribute__((cleanup(script_release)))

/* The first scenario whose match is in the prompt, else the default one, else NULL. */
const struct scenario *script_find(const struct script *s, const char *prompt);
/* The steps of response number `n` (from 0) as [*ret_first, *ret_first + *ret_count); false when the scenario is over. */
bool scenario_response(const struct scenario *s, size_t n, size_t *ret_first, size_t *ret_count);
const char *step_name(enum step_kind k);
