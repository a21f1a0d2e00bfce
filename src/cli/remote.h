/* Tasks as the server tells them: found by id or name, their outcome as an exit status, their members as words. */
#pragma once
#include "cli/cli.h"

/* By id or name; a name that two repositories use means the one we stand in. Connects when needed. */
MUST_USE enum err_code remote_find(struct cli *c, const char *ref, struct js **ret, struct error *e);
MUST_USE enum err_code remote_get(struct cli *c, const char *id, struct js **ret, struct error *e);
/* "/v1/tasks/<id><suffix>"; the caller frees. */
char *remote_path(const char *id, const char *suffix);
const char *remote_id(const struct js *task);
const char *remote_label(const struct js *task); /* its name, or its id: what to type next */
const char *remote_status(const struct js *task);
bool remote_is_over(const struct js *task);    /* DONE ERROR TIMEOUT CANCELED */
bool remote_is_waiting(const struct js *task); /* a human is needed */
int remote_exit_status(const struct js *task);
enum colour remote_colour(const struct js *task);
/* The repository of the current directory (its top); NULL when we are in none. The caller frees. */
char *remote_here(void);
/* The key by which the server counts the tasks of that repository; NULL when there is none. The caller frees. */
char *remote_repo_here(void);
/* "local /home/me/x", "git https://... main", "none". */
void remote_add_source(struct strbuf *out, const struct js *task);
/* reason and error in one line; nothing when there are none. */
void remote_add_why(struct strbuf *out, const struct js *task);
