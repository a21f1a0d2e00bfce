/* Where an agent's program is: in the packages installed beside us from our lockfile, or along PATH.  Only for this room. */
#pragma once
#include "agent/backend.h"

char *find_modules(const char *relative);  /* the node_modules directory that holds this file; the caller frees; NULL: none */
char *find_on_path(const char *program);   /* behind all links; the caller frees; NULL: none */
/* The version in the package.json of the package that the program belongs to; NULL: none is told. The caller frees. */
char *find_version(const char *program);
/* Whether a version "2.1.329" is at least that. What cannot be read counts as new. */
bool find_version_is_at_least(const char *version, int64_t major, int64_t minor);
