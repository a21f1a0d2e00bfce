/* Answers that fit a JSON schema: what a scenario leaves out is filled in with the emptiest value the schema allows. */
#pragma once
#include "base/js.h"

#define SCHEMA_DEPTH_MAX 16

/* The final answer as text: `value` is an object, or a text that becomes {status: "success", summary: text} where a schema is
 * asked for.  `schema` may be NULL: then a text is given as it is.  The caller frees. */
char *schema_answer(const struct js *schema, const struct js *value);
