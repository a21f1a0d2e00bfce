/* Run tokens: signing and checking.  The signature is compared in constant time before a single claim is looked at. */
#include "model/token.h"
#include "base/cleanup.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/str.h"
#include <sodium.h>
#include <string.h>

#define TOKEN_PREFIX "sbx1."

_Static_assert(TOKEN_KEY_BYTES == crypto_auth_hmacsha256_KEYBYTES, "the key is one of HMAC-SHA256");

void token_claims_release(struct token_claims *c)
{
	free(c->run);
	free(c->project);
	free(c->provider);
	free(c->model);
	memset(c, 0, sizeof(*c));
}

static enum err_code claims_check(const struct token_claims *c, struct error *e)
{
	if (c->run == NULL || !str_is_name(c->run))
		return error_set(e, ERR_INVALID, "run token: claim 'run' is not a name");
	if (c->exp_s <= 0 || c->exp_s > TOKEN_EXP_MAX_S)
		return error_set(e, ERR_INVALID, "run token: claim 'exp' is not a time");
	if (c->limit_requests < 0 || c->limit_tokens < 0)
		return error_set(e, ERR_INVALID, "run token: a limit is negative");
	return ERR_OK;
}

static void claims_to_text(const struct token_claims *c, struct strbuf *out)
{
	AUTO_JS struct js *o = js_object();
	struct js *limits = js_object();

	js_set_str(o, "run", c->run);
	js_set_str(o, "project", c->project);
	js_set_str(o, "provider", c->provider);
	js_set_str(o, "model", c->model);
	js_set_int(o, "exp", c->exp_s);
	if (c->limit_requests > 0)
		js_set_int(limits, "requests", c->limit_requests);
	if (c->limit_tokens > 0)
		js_set_int(limits, "tokens", c->limit_tokens);
	js_set(o, "limits", limits);
	js_dump_to(o, out);
}

enum err_code token_sign(const unsigned char key[TOKEN_KEY_BYTES], const struct token_claims *claims, struct strbuf *ret, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(TOKEN_TEXT_MAX);
	AUTO_STRBUF struct strbuf token = STRBUF_LIMIT(TOKEN_TEXT_MAX);
	unsigned char mac[crypto_auth_hmacsha256_BYTES];
	enum err_code rc = claims_check(claims, e);

	if (rc != ERR_OK)
		return rc;
	claims_to_text(claims, &text);
	strbuf_adds(&token, TOKEN_PREFIX);
	str_add_base64url(&token, text.data, text.len);
	crypto_auth_hmacsha256(mac, (const unsigned char *)token.data, token.len, key);
	strbuf_addc(&token, '.');
	str_add_base64url(&token, mac, sizeof(mac));
	if (text.over || token.over)
		return error_set(e, ERR_LIMIT, "run token: the claims are longer than %zu bytes", TOKEN_TEXT_MAX);
	strbuf_add(ret, token.data, token.len);
	return ERR_OK;
}

static bool signature_holds(const unsigned char key[TOKEN_KEY_BYTES], const char *token, const char *dot)
{
	AUTO_STRBUF struct strbuf mac = STRBUF_LIMIT(TOKEN_TEXT_MAX);

	if (!str_from_base64url(dot + 1, strlen(dot + 1), &mac) || mac.len != crypto_auth_hmacsha256_BYTES)
		return false;
	return crypto_auth_hmacsha256_verify((const unsigned char *)mac.data, (const unsigned char *)token, (size_t)(dot - token), key) == 0;
}

static enum err_code claims_from_js(const struct js *o, struct token_claims *ret, struct error *e)
{
	const struct js *limits = js_get(o, "limits");

	ret->run = mem_strdup(js_str(o, "run"));
	ret->project = mem_strdup(js_str(o, "project"));
	ret->provider = mem_strdup(js_str(o, "provider"));
	ret->model = mem_strdup(js_str(o, "model"));
	ret->exp_s = js_i64(o, "exp", 0);
	ret->limit_requests = js_i64(limits, "requests", 0);
	ret->limit_tokens = js_i64(limits, "tokens", 0);
	return claims_check(ret, e);
}

static enum err_code claims_from_text(const char *b64, size_t n, struct token_claims *ret, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(TOKEN_TEXT_MAX);
	AUTO_JS struct js *o = NULL;

	if (!str_from_base64url(b64, n, &text))
		return error_set(e, ERR_DENIED, "run token: the claims are not base64url");
	o = js_parse(strbuf_str(&text), text.len, e);
	if (js_type(o) != JS_OBJECT)
		return error_set(e, ERR_DENIED, "run token: the claims are not a JSON object");
	return claims_from_js(o, ret, e);
}

enum err_code token_verify(const unsigned char key[TOKEN_KEY_BYTES], const char *token, int64_t now_s, struct token_claims *ret, struct error *e)
{
	AUTO_CLAIMS struct token_claims c = { .run = NULL };
	const char *claims = token == NULL ? NULL : token + strlen(TOKEN_PREFIX);
	const char *dot;
	enum err_code rc;

	if (token == NULL || !str_starts(token, TOKEN_PREFIX) || strlen(token) > TOKEN_TEXT_MAX)
		return error_set(e, ERR_DENIED, "this is not a run token");
	dot = strrchr(claims, '.');
	if (dot == NULL || !signature_holds(key, token, dot))
		return error_set(e, ERR_DENIED, "the run token's signature is wrong");
	rc = claims_from_text(claims, (size_t)(dot - claims), &c, e);
	if (rc != ERR_OK)
		return rc == ERR_DENIED ? rc : error_set(e, ERR_DENIED, "the run token's claims are not valid");
	if (now_s >= c.exp_s)
		return error_set(e, ERR_DENIED, "the run token of '%s' has expired", c.run);
	*ret = c;
	memset(&c, 0, sizeof(c));
	return ERR_OK;
}
