/* The rules about URLs. */
#include "source/policy.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/address.h"
#include "source/try.h"
#include <netdb.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

static const char *const scheme_names[] = { [URL_FILE] = "file", [URL_HTTP] = "http", [URL_HTTPS] = "https", [URL_SSH] = "ssh" };
static const enum url_kind default_schemes[] = { URL_HTTPS, URL_HTTP, URL_SSH };

/* ---- the rules ---- */

static enum err_code check_list(const struct js *rules, const char *name, struct error *e)
{
	const struct js *list = js_get(rules, name);

	if (list && js_type(list) != JS_ARRAY)
		return error_set(e, ERR_INVALID, "source.%s: expected a list", name);
	for (size_t i = 0; i < js_len(list); i++)
		if (str_empty(js_text(js_at(list, i))))
			return error_set(e, ERR_INVALID, "source.%s[%zu]: expected a text", name, i);
	return ERR_OK;
}

static enum err_code check_schemes(const struct js *rules, struct error *e)
{
	const struct js *list = js_get(rules, "schemes");

	for (size_t i = 0; i < js_len(list); i++) {
		bool found = false;

		for (size_t k = 0; k < ARRAY_SIZE(scheme_names); k++)
			found = found || str_eq(js_text(js_at(list, i)), scheme_names[k]);
		if (!found)
			return error_set(e, ERR_INVALID, "source.schemes: '%.40s' is none of https, http, ssh, file", js_text(js_at(list, i)));
	}
	return ERR_OK;
}

static enum err_code check_private(const struct js *rules, struct error *e)
{
	const struct js *v = js_get(rules, "private");
	struct network ignored;

	if (!v || js_type(v) == JS_BOOL)
		return ERR_OK;
	TRY(check_list(rules, "private", e));
	for (size_t i = 0; i < js_len(v); i++)
		if (network_parse(js_text(js_at(v, i)), &ignored, e) != ERR_OK)
			return error_wrap(e, "source.private");
	return ERR_OK;
}

enum err_code policy_check_rules(const struct js *rules, struct error *e)
{
	bool ignored;

	TRY(check_list(rules, "schemes", e));
	TRY(check_list(rules, "allow_hosts", e));
	TRY(check_list(rules, "deny_hosts", e));
	TRY(check_schemes(rules, e));
	TRY(check_private(rules, e));
	TRY(js_want_bool(rules, "source", "user_keys", &ignored, e));
	return js_want_bool(rules, "source", "ssh_config", &ignored, e);
}

/* ---- a URL ---- */

static bool scheme_allowed(const struct js *rules, enum url_kind kind)
{
	const struct js *list = js_get(rules, "schemes");

	for (size_t i = 0; !list && i < ARRAY_SIZE(default_schemes); i++)
		if (default_schemes[i] == kind)
			return true;
	for (size_t i = 0; i < js_len(list); i++)
		if (str_eq(js_text(js_at(list, i)), scheme_names[kind]))
			return true;
	return false;
}

/* "*.corp.example" is every name below it. */
static bool host_matches(const char *pattern, const char *host)
{
	size_t n = strlen(host);

	if (!str_starts(pattern, "*."))
		return strcasecmp(pattern, host) == 0;
	pattern++;
	return n > strlen(pattern) && strcasecmp(host + n - strlen(pattern), pattern) == 0;
}

static bool host_listed(const struct js *list, const char *host)
{
	for (size_t i = 0; i < js_len(list); i++)
		if (host_matches(js_text(js_at(list, i)), host))
			return true;
	return false;
}

static bool address_allowed(const struct js *rules, const struct address *a)
{
	const struct js *private = js_get(rules, "private");
	enum address_kind kind = address_kind(a);

	if (kind == ADDRESS_PUBLIC)
		return true;
	if (js_true(private))
		return kind == ADDRESS_PRIVATE || kind == ADDRESS_LOOPBACK;
	for (size_t i = 0; i < js_len(private); i++) {
		struct network n;

		if (network_parse(js_text(js_at(private, i)), &n, NULL) == ERR_OK && network_has(&n, a))
			return true;
	}
	return false;
}

static enum err_code refuse_address(const struct source_url *u, const struct address *a, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	address_add(&text, a);
	if (str_eq(strbuf_str(&text), u->host))
		error_set(e, ERR_DENIED, "'%s' leads to a %s address", u->text, address_kind_name(address_kind(a)));
	else
		error_set(e, ERR_DENIED, "'%s' leads to a %s address (%s is %s)", u->text, address_kind_name(address_kind(a)), u->host, strbuf_str(&text));
	error_hint(e, "if that is meant, allow it in the server's configuration: source.private");
	return ERR_DENIED;
}

enum err_code policy_check_url(const struct js *rules, const struct source_url *u, struct error *e)
{
	struct address a;

	if (!scheme_allowed(rules, u->kind)) {
		error_set(e, ERR_DENIED, "'%s': this server fetches nothing over %s", u->text, scheme_names[u->kind]);
		error_hint(e, u->kind == URL_FILE ? "name the directory itself (--repo DIR), or allow it in the server's configuration: source.schemes"
						  : "use another URL, or allow it in the server's configuration: source.schemes");
		return ERR_DENIED;
	}
	if (u->kind == URL_FILE)
		return ERR_OK;
	if (host_listed(js_get(rules, "deny_hosts"), u->host) ||
	    (js_len(js_get(rules, "allow_hosts")) && !host_listed(js_get(rules, "allow_hosts"), u->host))) {
		error_set(e, ERR_DENIED, "'%s': this server does not fetch from %s", u->text, u->host);
		error_hint(e, "the server's configuration says which hosts it uses: source.allow_hosts, source.deny_hosts");
		return ERR_DENIED;
	}
	return address_parse(u->host, &a) && !address_allowed(rules, &a) ? refuse_address(u, &a, e) : ERR_OK;
}

/* ---- where a name leads ---- */

/* A name that only a proxy knows: then the proxy connects, and its rules hold. */
static bool has_proxy(const struct source_url *u)
{
	const char *https = getenv("https_proxy") ? getenv("https_proxy") : getenv("HTTPS_PROXY");
	const char *all = getenv("all_proxy") ? getenv("all_proxy") : getenv("ALL_PROXY");
	const char *own = u->kind == URL_HTTP ? getenv("http_proxy") : u->kind == URL_HTTPS ? https : NULL;
	const char *except = getenv("no_proxy") ? getenv("no_proxy") : getenv("NO_PROXY");

	if (u->kind == URL_SSH || (str_empty(own) && str_empty(all)))
		return false;
	for (size_t n; except && *(except += strspn(except, ", ")); except += n) {
		n = strcspn(except, ", ");
		AUTO_FREE char *item = mem_strndup(except, n);
		const char *suffix = item[0] == '.' ? item + 1 : item;
		size_t len = strlen(u->host), tail = strlen(suffix);

		if (str_eq(suffix, "*") || (tail && tail <= len && strcasecmp(u->host + len - tail, suffix) == 0))
			return false;
	}
	return true;
}

static enum err_code not_known(const struct source_url *u, int why, struct error *e)
{
	error_set(e, ERR_UNREACHABLE, "read '%s': the host name is not known (%s: %s)", u->text, u->host, gai_strerror(why));
	error_hint(e, "check the spelling, the network and any proxy setting");
	return ERR_UNREACHABLE;
}

static enum err_code keep(const struct js *rules, const struct source_url *u, const struct sockaddr *sa, struct pin *p, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	struct address a;

	if (!address_from_sockaddr(sa, &a))
		return ERR_OK;
	if (!address_allowed(rules, &a))
		return refuse_address(u, &a, e); /* one of several is enough: the other end chooses which is used */
	p->is_loopback = p->is_loopback && address_kind(&a) == ADDRESS_LOOPBACK;
	address_add(&text, &a);
	if (p->n < POLICY_ADDRESSES_MAX)
		p->addresses[p->n++] = strbuf_detach(&text);
	return ERR_OK;
}

enum err_code policy_resolve(const struct js *rules, const struct source_url *u, struct pin *ret, struct error *e)
{
	const struct addrinfo want = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct addrinfo *list = NULL;
	enum err_code code;
	int why;

	TRY(policy_check_url(rules, u, e));
	*ret = (struct pin){ .is_loopback = true };
	why = getaddrinfo(u->host, NULL, &want, &list);
	if (why != 0) {
		ret->is_loopback = false;
		return has_proxy(u) ? ERR_OK : not_known(u, why, e);
	}
	code = ERR_OK;
	for (const struct addrinfo *at = list; at && code == ERR_OK; at = at->ai_next)
		code = keep(rules, u, at->ai_addr, ret, e);
	freeaddrinfo(list);
	if (code == ERR_OK && ret->n == 0)
		code = not_known(u, EAI_NONAME, e);
	if (code != ERR_OK)
		pin_release(ret);
	return code;
}

void pin_release(struct pin *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->addresses[i]);
	*p = (struct pin){ .n = 0 };
}
