/* A gate at the terminal: shown with its choices, answered by typing. */
#pragma once
#include "cli/ask.h"

enum ask_end {
	ASK_SETTLED,   /* by us, now */
	ASK_ELSEWHERE, /* by somebody else, or withdrawn */
	ASK_LEFT,      /* for later */
	ASK_INTERRUPTED
};

struct ask_prompt {
	struct cli *c;
	const struct js *gate;
	const volatile int *interrupted; /* may be NULL */
	struct js *settled;		 /* the gate as it is after; owned by the caller */
	const struct js *given;		 /* answers to some of the questions already, or NULL */
};

/* Is there somebody to ask? Standard input and the talk must be a terminal. */
bool ask_can(const struct cli *c);
/* Until it is settled, one way or another. */
MUST_USE enum err_code ask_person(struct ask_prompt *p, enum ask_end *ret, struct error *e);
