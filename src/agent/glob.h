/* Patterns in rules. Both run in time of pattern times text at most. */
#pragma once
#include <stdbool.h>

/* `*` any bytes, `?` one byte, everything else itself. */
bool glob_word(const char *pattern, const char *word);
/* `*` and `?` within a name, `**` across names; "**" and a slash after it also fit nothing at all. */
bool glob_path(const char *pattern, const char *path);
