/* YAML in and out as struct js (libyaml inside).  Core schema for plain scalars (null, true/false, decimal integers, reals);
 * quoted scalars are strings.  Anchors, aliases and tags are refused: nobody needs them here and they are how YAML bites. */
#pragma once
#include "base/js.h"

#define YAML_INPUT_MAX ((size_t)4 << 20)

MUST_USE struct js *yaml_parse(const char *text, size_t len, struct error *e); /* NULL on error; an empty document is an empty object */
MUST_USE struct js *yaml_load(const char *path, struct error *e);
void yaml_dump(const struct js *v, struct strbuf *out); /* block style, multi-line strings as literal blocks */
