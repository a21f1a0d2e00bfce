/* Run tokens: what an agent gets in place of an API key.  It opens the model gateway for one run, until a moment, within limits.
 *
 *	sbx1.<base64url claims>.<base64url HMAC-SHA256 over everything before the last dot>
 *
 * The claims are JSON {run, project, provider, model?, exp, limits{requests, tokens}}.  Whoever holds the 32-byte key (server and
 * gateway) can sign; a token says nothing secret, it only cannot be made up.  No state; any thread. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include <stdint.h>

#define TOKEN_KEY_BYTES 32
#define TOKEN_TEXT_MAX ((size_t)4096)
#define TOKEN_EXP_MAX_S INT64_C(253402300799) /* the end of year 9999 */

struct token_claims {
	char *run;		/* a name (str_is_name); it becomes a file name in the gateway's record */
	char *project;		/* may be NULL */
	char *provider;		/* may be NULL: the gateway's default */
	char *model;		/* may be NULL: any; else the only model that may be asked for */
	int64_t exp_s;		/* seconds since 1970; from this second on the token is void */
	int64_t limit_requests; /* 0: none */
	int64_t limit_tokens;	/* 0: none */
};

void token_claims_release(struct token_claims *c);
#define AUTO_CLAIMS __attribute__((cleanup(token_claims_release)))

/* Appends the token to `ret`.  Refuses claims that token_verify would refuse. */
MUST_USE enum err_code token_sign(const unsigned char key[TOKEN_KEY_BYTES], const struct token_claims *claims, struct strbuf *ret, struct error *e);
/* Checks form, signature, then expiry; *ret is filled (and to be released) only on ERR_OK.  Everything else is ERR_DENIED. */
MUST_USE enum err_code token_verify(const unsigned char key[TOKEN_KEY_BYTES], const char *token, int64_t now_s, struct token_claims *ret, struct error *e);
