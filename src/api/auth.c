/* Who may call what: the one function that authorises every route.
 * The unix socket is for its owner (and root), known by the kernel's word; TCP wants the bearer token, a Host that is ours (a page that
 * rebinds its name to us fails here) and, from browsers, an Origin that is ours. */
#include "api/api.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TOKEN_BYTES 32
#define TOKEN_TEXT_MAX ((size_t)256)
#define PASSWD_BUFFER 4096

const char *api_bearer(const struct http_request *r)
{
	const char *h = http_header(r, "Authorization");
	return h && strncasecmp(h, "Bearer ", 7) == 0 ? h + 7 : NULL;
}

enum err_code api_load_token(const char *data_dir, char **ret, struct error *e)
{
	AUTO_FREE char *path = file_join(data_dir, "token");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(TOKEN_TEXT_MAX);
	enum err_code rc = file_read(path, TOKEN_TEXT_MAX, &text, e);
	while (text.len && (text.data[text.len - 1] == '\n' || text.data[text.len - 1] == ' '))
		text.data[--text.len] = 0;
	if (rc == ERR_NOT_FOUND || (!rc && !text.len)) { /* an empty token would let everybody in */
		unsigned char secret[TOKEN_BYTES];
		clock_random(secret, sizeof(secret));
		str_add_base64url(&text, secret, sizeof(secret));
		rc = file_replace(path, text.data, text.len, 0600, FILE_SYNC, e);
	}
	if (!rc)
		*ret = strbuf_detach(&text);
	return rc;
}

static char *user_name(uid_t uid)
{
	struct passwd pw, *found = NULL;
	char buffer[PASSWD_BUFFER];
	if (getpwuid_r(uid, &pw, buffer, sizeof(buffer), &found) == 0 && found)
		return mem_printf("user:%s", found->pw_name);
	return mem_printf("uid:%u", (unsigned)uid);
}

/* Only two can come, so their names are looked up once. */
void api_load_names(struct api *a)
{
	a->owner = geteuid();
	a->owner_name = user_name(a->owner);
	a->root_name = user_name(0);
}

static enum err_code authorize_unix(const struct api *a, struct http_request *r, struct error *e)
{
	uid_t uid = 0;
	if (!http_peer_uid(r, &uid))
		return error_set(e, ERR_DENIED, "the kernel does not say who is calling");
	if (uid != a->owner && uid != 0)
		return error_set(e, ERR_DENIED, "this socket is for its owner");
	http_set_principal(r, uid == a->owner ? a->owner_name : a->root_name);
	return ERR_OK;
}

static bool is_our_host(const struct api *a, const char *host)
{
	AUTO_FREE char *localhost = mem_printf("localhost:%d", a->tcp_port);
	return host && (str_eq(host, a->tcp_host) || str_eq(host, localhost));
}

static enum err_code check_host(const struct api *a, struct http_request *r, struct error *e)
{
	const char *origin = http_header(r, "Origin");
	if (!is_our_host(a, http_header(r, "Host")))
		return error_set(e, ERR_DENIED, "the Host header does not name this server ('%s')", a->tcp_host);
	if (origin && !(str_starts(origin, "http://") && is_our_host(a, origin + 7)) && !(str_starts(origin, "https://") && is_our_host(a, origin + 8)))
		return error_set(e, ERR_DENIED, "requests from the origin '%s' are refused", origin);
	return ERR_OK;
}

enum err_code api_authorize(struct http_request *r, void *ctx, struct error *e)
{
	struct api *a = ctx;
	const struct http_route *route = http_route_of(r);
	if (http_is_unix(r))
		return authorize_unix(a, r, e);
	enum err_code rc = check_host(a, r, e);
	if (rc || (route && route->flags & ROUTE_OPEN))
		return rc;
	const char *token = api_bearer(r);
	if (!token || !a->token || !str_const_time_eq(token, a->token)) {
		error_set(e, ERR_DENIED, "a bearer token is needed");
		error_hint(e, "Authorization: Bearer <the token in the server's data directory>");
		return ERR_DENIED;
	}
	http_set_principal(r, "token");
	return ERR_OK;
}

/* The run's token is compared in the transaction that takes the batch; here only that there is one. */
enum err_code api_authorize_runner(struct http_request *r, void *ctx UNUSED, struct error *e)
{
	if (!api_bearer(r))
		return error_set(e, ERR_DENIED, "a run token is needed");
	http_set_principal(r, "runner");
	return ERR_OK;
}
