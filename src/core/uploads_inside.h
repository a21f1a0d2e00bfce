/* Between uploads.c (receiving) and uploads_kept.c (what is kept). */
#pragma once
#include "core/uploads.h"

char *uploads_path(struct core *c, const char *id, const char *suffix); /* the caller frees */
void uploads_unlink(struct core *c, const char *id);
void uploads_count(struct core *c, int64_t *ret_count, int64_t *ret_bytes); /* bytes: of those that are not whole, what was announced */
void uploads_drop_torn(struct core *c);
bool uploads_is_receiving(struct core *c, const char *id);
