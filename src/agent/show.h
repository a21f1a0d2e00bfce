/* What a person is shown of an agent's request (members of struct agent_ask's `data`).  Only for this room. */
#pragma once
#include "agent/backend.h"

#define SHOW_TITLE_MAX 160		    /* bytes */
#define SHOW_DIFF_MAX ((size_t)128 << 10)   /* bytes of a patch */
#define SHOW_OBJECT_MAX ((size_t)32 << 10)  /* bytes of an object that is shown as it came */
#define SHOW_CONTEXT_LINES 3

void show_title(struct js *data, const char *before, const char *text); /* one line, cut between characters; text may be NULL */
const char *show_path(const char *path);				 /* below the workspace: relative to it; borrowed */
struct js *show_words(const char *words);				 /* "approve reject" as a list */
/* How `before` became `after`; NULL before: a new file; NULL after: a deleted one. Pieces of a file have no line numbers: whole is false. */
void show_diff(struct strbuf *out, const char *path, const char *before, const char *after, bool whole);
void show_set_diff(struct js *data, const struct strbuf *diff); /* "diff", cut */
void show_add_file(struct js *files, const char *path, const char *kind);
bool show_set_object(struct js *data, const char *key, const struct js *value); /* false: too big, its head is there as text */
