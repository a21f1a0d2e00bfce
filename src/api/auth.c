/* Who may call what: the one function that authorises every route.
 * The unix socket is for its owner (and root), known by the kernel's word; TCP wants the bearer token, a Host that is ours (a page that
 * rebinds its name to us fails here) and, from browsers, an Origin that is ours. */
#include "api/docs.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/tokens.h"
#include <arpa/inet.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define TOKEN_BYTES 32
#define TOKEN_TEXT_MAX ((size_t)256)
#define PASSWD_BUFFER 4096
#define RIGHT_LOCAL 1u /* may name directories of this machine */

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

struct caller api_caller(const struct http_request *r)
{
	return (struct caller){ .who = http_principal(r), .project = http_project(r), .local = http_rights(r) & RIGHT_LOCAL };
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
	http_set_project(r, PROJECT_DEFAULT, RIGHT_LOCAL);
	return ERR_OK;
}

/* "[::1]:8080" or "10.0.0.1": an address cannot be rebound, so whoever names us by one means us. */
static bool is_address(const char *host, size_t n)
{
	unsigned char address[sizeof(struct in6_addr)];
	bool bracketed = n > 2 && host[0] == '[' && host[n - 1] == ']';
	AUTO_FREE char *text = bracketed ? mem_strndup(host + 1, n - 2) : mem_strndup(host, n);
	return inet_pton(bracketed ? AF_INET6 : AF_INET, text, address) == 1;
}

static size_t host_len(const char *host)
{
	const char *bracket = host[0] == '[' ? strchr(host, ']') : NULL;
	return bracket ? (size_t)(bracket + 1 - host) : strcspn(host, ":");
}

static bool is_named(const char *host, const char *name)
{
	return strcasecmp(host, name) == 0 || (strlen(name) == host_len(host) && strncasecmp(host, name, host_len(host)) == 0);
}

/* Our own port with an address or localhost; or, behind a proxy, one of the names that the server was told. */
static bool is_our_host(const struct api *a, const char *host)
{
	if (str_empty(host))
		return false;
	size_t n = host_len(host);
	AUTO_FREE char *port = mem_printf(":%d", a->tcp_port);
	if (str_eq(host + n, port) && (is_named(host, "localhost") || is_address(host, n)))
		return true;
	for (int i = 0; i < a->host_count; i++)
		if (is_named(host, a->hosts[i]))
			return true;
	const struct js *configured = core_hosts(a->core);
	for (size_t i = 0; i < js_len(configured); i++)
		if (is_named(host, js_text(js_at(configured, i))))
			return true;
	return false;
}

static enum err_code check_host(const struct api *a, struct http_request *r, struct error *e)
{
	const char *origin = http_header(r, "Origin"), *host = http_header(r, "Host");
	if (!is_our_host(a, host)) {
		error_set(e, ERR_DENIED, "the Host header '%.80s' does not name this server ('%s')", host ? host : "", a->tcp_host);
		error_hint(e, "name it by its address, or start it with --host NAME (server.hosts in its configuration)");
		return ERR_DENIED;
	}
	if (origin && !(str_starts(origin, "http://") && is_our_host(a, origin + 7)) && !(str_starts(origin, "https://") && is_our_host(a, origin + 8)))
		return error_set(e, ERR_DENIED, "requests from the origin '%.80s' are refused", origin);
	return ERR_OK;
}

static enum err_code check_token(const struct api *a, struct http_request *r, struct error *e)
{
	const char *token = api_bearer(r);
	AUTO_FREE char *who = NULL, *project = NULL;
	bool local = true;
	if (token && a->token && str_const_time_eq(token, a->token)) {
		who = mem_strdup("token");
		project = mem_strdup(PROJECT_DEFAULT);
	}
	if (who || (token && core_token_check(a->core, token, &who, &project, &local))) {
		http_set_principal(r, who);
		http_set_project(r, project, local ? RIGHT_LOCAL : 0);
		return ERR_OK;
	}
	error_set(e, ERR_UNAUTHENTICATED, token ? "the bearer token does not open this server" : "a bearer token is needed");
	error_hint(e, token ? "it may have been revoked; make a new one on the server's machine: signalbox token create NAME" : "signalbox login URL, or send Authorization: Bearer TOKEN");
	return ERR_UNAUTHENTICATED;
}

static enum err_code authorize_tcp(const struct api *a, struct http_request *r, struct error *e)
{
	enum err_code rc = check_host(a, r, e);
	return rc || http_route_of(r)->flags == ROUTE_OPEN ? rc : check_token(a, r, e);
}

/* The one place that says which routes a caller may use; what of his project's he touches there, the lookups say (core/caller.h). */
static enum err_code check_scope(const struct http_request *r, struct error *e)
{
	switch ((enum route_scope)http_route_of(r)->flags) {
	case ROUTE_OPEN:
		return ERR_OK;
	case ROUTE_PROJECT:
		if (http_project(r))
			return ERR_OK;
		break;
	case ROUTE_SERVER:
		if (project_has(http_project(r), PROJECT_DEFAULT))
			return ERR_OK;
		error_set(e, ERR_DENIED, "%s is about the whole server, and this token acts for the project '%s'", http_path(r), http_project(r));
		error_hint(e, "ask the server's owner");
		return ERR_DENIED;
	case ROUTE_OWNER:
		if (http_is_unix(r))
			return ERR_OK;
		error_set(e, ERR_DENIED, "%s is for the server's owner, on its own machine", http_path(r));
		error_hint(e, "use the signalbox command there, with --context local");
		return ERR_DENIED;
	case ROUTE_RUNNER:
		break;
	}
	return error_set(e, ERR_DENIED, "%s is not for you", http_path(r)); /* a route without a scope is for nobody */
}

const char *api_scope_name(unsigned scope)
{
	static const char *const names[] = { [ROUTE_OPEN] = "open", [ROUTE_PROJECT] = "project", [ROUTE_SERVER] = "server", [ROUTE_OWNER] = "owner", [ROUTE_RUNNER] = "runner" };
	return scope < ARRAY_SIZE(names) && names[scope] ? names[scope] : "nobody";
}

enum err_code api_authorize(struct http_request *r, void *ctx, struct error *e)
{
	struct api *a = ctx;
	enum err_code rc = http_is_unix(r) ? authorize_unix(a, r, e) : authorize_tcp(a, r, e);
	if (!rc)
		rc = check_scope(r, e);
	return rc ? rc : api_check_query(r, e);
}

/* The run's token is compared in the transaction that takes the batch; here only that there is one. */
enum err_code api_authorize_runner(struct http_request *r, void *ctx UNUSED, struct error *e)
{
	if (!api_bearer(r))
		return error_set(e, ERR_DENIED, "a run token is needed");
	http_set_principal(r, "runner");
	return ERR_OK;
}
