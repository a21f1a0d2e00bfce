/* Credentials for git hosts, and room in the cache, over HTTP. */
#include "core/secrets.h"
#include "api/api.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "core/cache.h"

#define OLDER_MAX_S ((int64_t)10 * 365 * 24 * 3600)

void api_list_secrets(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *list = NULL;
	if (core_secrets(a->core, &list, &e)) {
		http_reply_error(r, &e);
		return;
	}
	struct js *o = js_object();
	js_set(o, "data", list);
	js_set(o, "next_cursor", js_null());
	http_reply_js(r, 200, o);
}

void api_put_secret(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	const struct js *body = http_body_js(r, &e);
	enum err_code rc = body ? core_secret_set(a->core, http_principal(r), http_param(r, "secret"), body, &e) : e.code;
	if (rc)
		http_reply_error(r, &e);
	else
		http_reply(r, 204, NULL, "", 0);
}

void api_delete_secret(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	if (core_secret_remove(a->core, http_param(r, "secret"), &e))
		http_reply_error(r, &e);
	else
		http_reply(r, 204, NULL, "", 0);
}

void api_prune(struct http_request *r, void *ctx)
{
	static const char *const members[] = { "dry_run", "older_than_s", NULL };
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *result = NULL;
	const struct js *body = http_body_js(r, &e);
	bool dry_run = false;
	int64_t older_s = 0;
	enum err_code rc = body ? js_check_members(body, "", members, &e) : e.code;
	if (!rc)
		rc = js_want_bool(body, "", "dry_run", &dry_run, &e);
	if (!rc)
		rc = js_want_i64(body, "", "older_than_s", 0, OLDER_MAX_S, &older_s, &e);
	if (!rc)
		rc = core_prune(a->core, dry_run, older_s * 1000, &result, &e);
	http_reply_outcome(r, rc, 200, result, &e);
}
