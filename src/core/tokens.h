/* Tokens that open the server over the net.  The text is told once, when it is made; kept is its hash.  A token's principal is token:NAME. */
#pragma once
#include "core/core.h"

#define TOKENS_MAX 1000

/* {name, expires_in?: seconds}; *ret_token has the member `token`. */
MUST_USE enum err_code core_token_create(struct core *c, const char *who, const struct js *body, struct js **ret_token, struct error *e);
MUST_USE enum err_code core_tokens(struct core *c, struct js **ret_list, struct error *e);
MUST_USE enum err_code core_token_revoke(struct core *c, const char *ref, struct error *e); /* id or name */
/* Its principal, or NULL when it does not open; the caller frees. */
char *core_token_check(struct core *c, const char *text);
