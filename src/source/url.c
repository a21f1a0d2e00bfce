/* Git URLs and ref names from outside. */
#include "source/url.h"
#include "source/address.h"
#include "source/try.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <ctype.h>
#include <string.h>

#define HOST_LENGTH_MAX 253 /* bytes; what the name system carries */

static const struct {
	const char *prefix;
	enum url_kind kind;
	const char *default_port;
} schemes[] = {
	{ "file://", URL_FILE, NULL },
	{ "http://", URL_HTTP, "80" },
	{ "https://", URL_HTTPS, "443" },
	{ "ssh://", URL_SSH, "22" },
};

void source_url_release(struct source_url *u)
{
	free(u->text);
	free(u->user);
	free(u->host);
	free(u->port);
	free(u->path);
	*u = (struct source_url){ .text = NULL };
}

static bool has_control(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return true;
	return false;
}

static enum err_code check_text(const char *what, const char *s, size_t max, struct error *e)
{
	if (str_empty(s))
		return error_set(e, ERR_INVALID, "%s is empty", what);
	if (strlen(s) > max)
		return error_set(e, ERR_INVALID, "%s is longer than %zu bytes", what, max);
	if (!str_is_utf8(s, strlen(s)))
		return error_set(e, ERR_INVALID, "%s is not valid UTF-8", what);
	if (has_control(s))
		return error_set(e, ERR_INVALID, "%s contains a control character or a newline", what);
	if (s[0] == '-')
		return error_set(e, ERR_INVALID, "%s '%s' begins with '-'", what, s);
	return ERR_OK;
}

enum err_code source_path_check(const char *path, struct error *e)
{
	enum err_code code = check_text("the directory", path, URL_LENGTH_MAX, e);

	if (code != ERR_OK || path[0] == '/')
		return code;
	return error_set(e, ERR_INVALID, "the directory '%s' is not an absolute path", path);
}

/* A name, or an address written plainly: what other programs would read as an address in another way is none of both. */
static bool is_host(const char *s)
{
	size_t n = strlen(s);
	struct address ignored;

	if (strchr(s, ':') || address_looks_numeric(s))
		return address_parse(s, &ignored);
	if (n == 0 || n > HOST_LENGTH_MAX || *s == '-' || *s == '.' || s[n - 1] == '.' || strstr(s, ".."))
		return false;
	for (; *s; s++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", *s))
			return false;
	return true;
}

static bool is_user(const char *s)
{
	if (!*s || *s == '-')
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("._-+", *s))
			return false;
	return true;
}

static enum err_code bad_url(const char *text, const char *why, struct error *e)
{
	error_set(e, ERR_INVALID, "the URL '%s' %s", text, why);
	error_hint(e, "use https://host/path, ssh://user@host/path, user@host:path, file:///path or an absolute path");
	return ERR_INVALID;
}

static enum err_code refuse_credentials(const struct source_url *u, struct error *e)
{
	error_set(e, ERR_INVALID, "the URL for %s carries a user name or a password", u->host);
	error_hint(e, "leave it out and keep it on the server: signalbox secret set git:%s", u->host);
	return ERR_INVALID;
}

/* "[user[:password]@]host[:port]" */
static enum err_code parse_authority(struct source_url *u, const char *from, size_t len, struct error *e)
{
	AUTO_FREE char *authority = mem_strndup(from, len);
	char *at = strrchr(authority, '@'), *host = at ? at + 1 : authority, *port = NULL, *end;

	if (*host == '[' && (end = strchr(host, ']'))) {
		host++;
		*end = '\0';
		port = end[1] == ':' ? end + 2 : NULL;
		if ((end[1] && end[1] != ':') || !strchr(host, ':')) /* brackets are for IPv6 */
			return bad_url(u->text, "has a host that is not one", e);
	} else if ((port = strchr(host, ':'))) {
		*port++ = '\0';
	}
	if (!is_host(host) || (port && (strlen(port) > 5 || strspn(port, "0123456789") != strlen(port))))
		return bad_url(at ? "..." : u->text, "has a host or port that is not one", e);
	u->host = mem_strdup(host);
	for (char *c = u->host; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	u->port = port && *port ? mem_strdup(port) : NULL;
	if (!at)
		return ERR_OK;
	*at = '\0';
	if (u->kind != URL_SSH || strchr(authority, ':'))
		return refuse_credentials(u, e);
	if (!is_user(authority))
		return bad_url(u->text, "has a user name that is not one", e);
	u->user = mem_strdup(authority);
	return ERR_OK;
}

/* What a credential is for is said by a path: the other end must not read another one out of it. */
static bool leads_up(const char *path)
{
	for (size_t n; *path; path += n + (path[n] == '/')) {
		n = strcspn(path, "/");
		if (n == 2 && path[0] == '.' && path[1] == '.')
			return true;
	}
	return false;
}

static enum err_code parse_path(struct source_url *u, const char *path, struct error *e)
{
	AUTO_STRBUF struct strbuf decoded = STRBUF_INIT;

	if (!str_add_urldec(&decoded, path, strlen(path), false) || has_control(strbuf_str(&decoded)))
		return bad_url(u->text, "has a bad %-escape in its path", e);
	if (decoded.len < 2 || decoded.data[0] != '/')
		return bad_url(u->text, "has no path", e);
	if (u->kind != URL_FILE && leads_up(strbuf_str(&decoded)))
		return bad_url(u->text, "has '..' in its path", e);
	u->path = strbuf_detach(&decoded);
	return ERR_OK;
}

static enum err_code parse_with_scheme(struct source_url *u, const char *rest, struct error *e)
{
	size_t authority = strcspn(rest, "/");

	if (u->kind != URL_FILE)
		TRY(parse_authority(u, rest, authority, e));
	else if (authority && strncmp(rest, "localhost", authority) != 0)
		return bad_url(u->text, "names a host; file URLs are for this machine", e);
	return parse_path(u, rest + authority, e);
}

/* "file:x" and "https:x" are slips or tricks, not hosts of that name. */
static bool is_scheme(const char *text, size_t len)
{
	static const char *const names[] = { "file", "http", "https", "ssh", "git", "ftp", "ftps", "ext", "fd", "data", "javascript" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strlen(names[i]) == len && strncasecmp(text, names[i], len) == 0)
			return true;
	return false;
}

/* "[user@]host:path" as scp has it; a path is not decoded and may be relative to the home there. */
static enum err_code parse_scp_like(struct source_url *u, const char *colon, struct error *e)
{
	u->kind = URL_SSH;
	if (is_scheme(u->text, (size_t)(colon - u->text)))
		return bad_url(u->text, "has a scheme that is not supported, or lacks its slashes", e);
	TRY(parse_authority(u, u->text, (size_t)(colon - u->text), e));
	if (colon[1] == '\0' || colon[1] == '-')
		return bad_url(u->text, "has no usable path after the colon", e);
	if (leads_up(colon + 1))
		return bad_url(u->text, "has '..' in its path", e);
	u->path = mem_strdup(colon + 1);
	return ERR_OK;
}

static enum err_code parse(struct source_url *u, struct error *e)
{
	const char *text = u->text, *colon = strchr(text, ':'), *slash = strchr(text, '/');

	if (text[0] == '/') {
		u->kind = URL_FILE;
		u->path = mem_strdup(text);
		return ERR_OK;
	}
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (strncasecmp(text, schemes[i].prefix, strlen(schemes[i].prefix)) == 0) {
			u->kind = schemes[i].kind;
			return parse_with_scheme(u, text + strlen(schemes[i].prefix), e);
		}
	if (strstr(text, "://"))
		return bad_url(strchr(text, '@') ? "..." : text, "has a scheme that is not supported", e);
	if (colon && colon[1] == ':' && (!slash || colon < slash))
		return bad_url(text, "asks for a transport helper, which is not allowed", e);
	if (colon && (!slash || colon < slash))
		return parse_scp_like(u, colon, e);
	return bad_url(text, "is neither a URL nor an absolute path", e);
}

enum err_code source_url_parse(const char *text, struct source_url *ret, struct error *e)
{
	enum err_code code = check_text("the URL", text, URL_LENGTH_MAX, e);

	*ret = (struct source_url){ .text = NULL };
	if (code != ERR_OK)
		return code;
	ret->text = mem_strdup(text);
	code = parse(ret, e);
	if (code != ERR_OK)
		source_url_release(ret);
	return code;
}

static size_t trimmed_length(const char *path)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	if (n > 5 && strncmp(path + n - 5, "/.git", 5) == 0)
		return n - 5;
	if (n > 4 && strncmp(path + n - 4, ".git", 4) == 0)
		return n - 4;
	return n;
}

char *source_url_key(const struct source_url *u)
{
	const char *path = u->path, *port = u->port;
	int len = (int)trimmed_length(path);

	if (u->kind == URL_FILE)
		return mem_printf("%.*s", len, path);
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (schemes[i].kind == u->kind && port && str_eq(port, schemes[i].default_port))
			port = NULL;
	return mem_printf("%s%s%s%s%.*s", u->host, port ? ":" : "", port ? port : "", *path == '/' ? "" : "/", len, path);
}

/* git-check-ref-format's rules, which also keep out every expression (`a..b`, `x^`, `y~2`, `@{1}`). */
enum err_code source_ref_check(const char *ref, struct error *e)
{
	size_t n;

	if (check_text("the ref", ref, REF_LENGTH_MAX, e) != ERR_OK)
		return ERR_INVALID;
	n = strlen(ref);
	if (strpbrk(ref, " ~^:?*[\\") || strstr(ref, "..") || strstr(ref, "@{") || strstr(ref, "//") || strstr(ref, "/.") || strstr(ref, ".lock/") ||
	    ref[0] == '/' || ref[0] == '.' || ref[n - 1] == '/' || ref[n - 1] == '.' || str_ends(ref, ".lock") || str_eq(ref, "@")) {
		error_set(e, ERR_INVALID, "the ref '%s' is not a name that git allows", ref);
		error_hint(e, "give a branch, a tag or a commit id");
		return ERR_INVALID;
	}
	return ERR_OK;
}
