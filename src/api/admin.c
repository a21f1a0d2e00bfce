/* What the owner of a server does with it: tokens, the configuration, and its description. */
#include "api/docs.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "core/tokens.h"
#include <string.h>

void api_post_token(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *token = NULL;
	const struct js *body = http_body_js(r, &e);
	if (!body || core_token_create(a->core, http_principal(r), body, &token, &e))
		http_reply_error(r, &e);
	else
		http_reply_js(r, 201, token);
}

void api_list_tokens(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *list = NULL;
	if (core_tokens(a->core, &list, &e))
		http_reply_error(r, &e);
	else
		http_reply_js(r, 200, list);
}

void api_delete_token(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	if (core_token_revoke(a->core, http_param(r, "token"), &e))
		http_reply_error(r, &e);
	else
		http_reply(r, 204, NULL, "", 0);
}

void api_reload(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *report = NULL;
	if (!api_has_no_words(r))
		return;
	if (core_reload(a->core, &report, &e))
		http_reply_error(r, &e);
	else
		http_reply_js(r, 200, report);
}

void api_get_openapi(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	pthread_mutex_lock(&a->lock);
	if (!a->openapi)
		a->openapi = api_openapi();
	pthread_mutex_unlock(&a->lock);
	http_reply(r, 200, "application/json", a->openapi, strlen(a->openapi));
}
