/* What is acceptable of a task's own words, whoever gives them: a submit, a change. */
#pragma once
#include "base/js.h"

#define PRIORITY_LIMIT 1000

MUST_USE enum err_code task_check_name(const char *name, struct error *e);
MUST_USE enum err_code task_check_labels(const struct js *labels, struct error *e); /* NULL is fine */
/* An object of strings, with usable names. */
MUST_USE enum err_code task_check_strings(const struct js *map, const char *where, size_t max, struct error *e);
