/* Credentials for git hosts, and room in the cache, over HTTP. */
#include "core/secrets.h"
#include "api/api.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "core/cache.h"
#include "core/tokens.h"

#define OLDER_MAX_S ((int64_t)10 * 365 * 24 * 3600)

/* The owner keeps those of any project; everybody else his own. */
static enum err_code choose_project(const struct http_request *r, const struct api *a, struct caller *ret, struct error *e)
{
	const char *asked = http_query(r, "project");
	*ret = api_caller(r);
	if (!asked || str_eq(asked, ret->project))
		return ERR_OK;
	if (!http_is_unix(r))
		return error_set(e, ERR_DENIED, "this token acts for the project '%s', not for '%.80s'", ret->project, asked);
	enum err_code rc = project_check(asked, e);
	ret->project = asked;
	if (rc || core_project_exists(a->core, asked))
		return rc;
	error_set(e, ERR_NOT_FOUND, "there is no project '%s'", asked);
	error_hint(e, "it begins with a token: signalbox token create NAME --project %s", asked);
	return ERR_NOT_FOUND;
}

void api_list_secrets(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *list = NULL, *o = NULL;
	struct caller by;
	enum err_code rc = choose_project(r, a, &by, &e);
	if (!rc)
		rc = core_secrets(a->core, by, &list, &e);
	if (!rc) {
		o = js_object();
		js_set(o, "data", list);
		js_set(o, "next_cursor", js_null());
	}
	http_reply_outcome(r, rc, 200, o, &e);
}

static void answer_done(struct http_request *r, enum err_code rc, const struct error *e)
{
	if (rc)
		http_reply_error(r, e);
	else
		http_reply(r, 204, NULL, "", 0);
}

void api_put_secret(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct caller by;
	const struct js *body = http_body_js(r, &e);
	enum err_code rc = body ? choose_project(r, a, &by, &e) : e.code;
	if (!rc)
		rc = core_secret_set(a->core, by, http_param(r, "secret"), body, &e);
	answer_done(r, rc, &e);
}

void api_delete_secret(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct caller by;
	enum err_code rc = choose_project(r, a, &by, &e);
	if (!rc)
		rc = core_secret_remove(a->core, by, http_param(r, "secret"), &e);
	answer_done(r, rc, &e);
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
