/* A task's result for people: outcome, summary, what was verified beside what is claimed, diffstat. */
#pragma once
#include "base/js.h"
#include "cli/term.h"

void summary_add(const struct term *t, struct strbuf *out, const struct js *task);
/* Like `git diff --stat`: files of a result, fitted into the width. */
void diffstat_add(const struct term *t, struct strbuf *out, const struct js *result);
