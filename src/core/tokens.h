/* Tokens that open the server over the net.  The text is told once, when it is made; kept is its hash.  A token's principal is token:NAME.
 * It acts for one project, the default one unless it names another; only of that one it may name directories of the server's machine, unless it is
 * made without. */
#pragma once
#include "core/core.h"

#define TOKENS_MAX 1000

/* {name, expires_in?: seconds, project?, local?}; *ret_token has the member `token`. */
MUST_USE enum err_code core_token_create(struct core *c, const char *who, const struct js *body, struct js **ret_token, struct error *e);
/* Whether the token that `by` came with (if it was one of these) opens still: for what goes on after a request. */
bool core_token_lives(struct core *c, struct caller by);
bool core_project_exists(struct core *c, const char *project); /* the default one, and those with a token that opens */
MUST_USE enum err_code core_tokens(struct core *c, struct js **ret_list, struct error *e);
MUST_USE enum err_code core_token_revoke(struct core *c, const char *ref, struct error *e); /* id or name */
/* Whose it is, and for which project; false when it does not open. The caller frees both. */
bool core_token_check(struct core *c, const char *text, char **ret_who, char **ret_project, bool *ret_local);
