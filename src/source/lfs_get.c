/* The two calls of git-lfs' API that a download needs. */
#include "source/lfs_get.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/policy.h"
#include "source/try.h"
#include "source/url.h"
#include <curl/curl.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>

#define ANSWER_MAX ((size_t)4 << 20)
#define ASK_TIMEOUT_S 60L
#define GET_TIMEOUT_S 3600L
#define CONNECT_TIMEOUT_S 20L
#define SLOW_BYTES_S 100L /* slower than that for so long: given up */
#define SLOW_TIME_S 60L
#define HEADERS_MAX 32
#define LFS_TYPE "application/vnd.git-lfs+json"

struct lfs_road {
	struct fetch *fetch;
	const struct mirror_want *of;
	struct source_url url; /* the repository's */
	char *api;
	CURL *curl;
};

void lfs_road_close(struct lfs_road **r)
{
	if (!*r)
		return;
	if ((*r)->curl)
		curl_easy_cleanup((*r)->curl);
	source_url_release(&(*r)->url);
	free((*r)->api);
	free(TAKE_PTR(*r));
}

/* As git-lfs has it: beside "x.git", which the URL may leave out. */
static char *api_of(const char *url)
{
	size_t n = strlen(url);

	while (n && url[n - 1] == '/')
		n--;
	return mem_printf("%.*s%s/info/lfs/objects/batch", (int)n, url, n > 4 && strncmp(url + n - 4, ".git", 4) == 0 ? "" : ".git");
}

enum err_code lfs_road_open(struct fetch *f, const struct mirror_want *of, struct lfs_road **ret, struct error *e)
{
	AUTO(lfs_road_close) struct lfs_road *r = NEW(struct lfs_road);

	r->fetch = f;
	r->of = of;
	r->api = api_of(of->url);
	TRY(source_url_parse(of->url, &r->url, e));
	if (r->url.kind != URL_HTTP && r->url.kind != URL_HTTPS) {
		error_set(e, ERR_UNSUPPORTED, "git-lfs files of '%s' can only be had over https", of->url);
		error_hint(e, "use the repository's https URL, or submit it without lfs");
		return ERR_UNSUPPORTED;
	}
	r->curl = curl_easy_init();
	if (!r->curl)
		return error_set(e, ERR_INTERNAL, "libcurl does not start");
	*ret = TAKE_PTR(r);
	return ERR_OK;
}

/* ---- one call ---- */

struct call {
	struct lfs_road *road;
	struct source_url url;
	struct pin pin;
	struct curl_slist *resolve, *headers;
	char *login; /* "user:password" */
	char why[CURL_ERROR_SIZE];
};

static void call_release(struct call *c)
{
	source_url_release(&c->url);
	pin_release(&c->pin);
	curl_slist_free_all(c->resolve);
	curl_slist_free_all(c->headers);
	if (c->login)
		explicit_bzero(c->login, strlen(c->login));
	free(c->login);
}

static void set_pin(struct call *c)
{
	struct strbuf line = STRBUF_INIT;

	if (c->pin.n == 0 || strchr(c->url.host, ':'))
		return;
	strbuf_addf(&line, "%s:%s:", c->url.host, c->url.port ? c->url.port : c->url.kind == URL_HTTP ? "80" : "443");
	for (size_t i = 0; i < c->pin.n; i++) {
		bool v6 = strchr(c->pin.addresses[i], ':') != NULL;

		strbuf_addf(&line, "%s%s%s%s", i ? "," : "", v6 ? "[" : "", c->pin.addresses[i], v6 ? "]" : "");
	}
	c->resolve = curl_slist_append(NULL, strbuf_str(&line));
	strbuf_release(&line);
	curl_easy_setopt(c->road->curl, CURLOPT_RESOLVE, c->resolve);
}

/* To the repository's own server alone, and never in the clear over a network. */
static bool may_login(const struct call *c)
{
	const struct source_url *own = &c->road->url;

	return credential_fits(c->road->of->credential, c->url.kind) && c->url.kind == own->kind && str_eq(c->url.host, own->host) && str_eq(c->url.port, own->port) &&
		(c->url.kind == URL_HTTPS || c->pin.is_loopback);
}

static enum err_code call_begin(struct call *c, const char *url, bool login, struct error *e)
{
	CURL *curl = c->road->curl;
	const struct credential *k = c->road->of->credential;

	TRY(source_url_parse(url, &c->url, e));
	if (c->url.kind != URL_HTTP && c->url.kind != URL_HTTPS)
		return error_set(e, ERR_DENIED, "the server leads to '%.200s', which is not http(s)", url);
	TRY(policy_resolve(js_get(c->road->fetch->job, "rules"), &c->url, &c->pin, e));
	curl_easy_reset(curl);
	set_pin(c);
	curl_easy_setopt(curl, CURLOPT_URL, c->url.text);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, c->url.kind == URL_HTTP ? "http" : "https");
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, SLOW_BYTES_S);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, SLOW_TIME_S);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, c->why);
	if (login && may_login(c)) {
		c->login = mem_printf("%s:%s", k->user, k->secret);
		curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
		curl_easy_setopt(curl, CURLOPT_USERPWD, c->login);
	}
	return ERR_OK;
}

static enum err_code call_end(struct call *c, CURLcode code, struct error *e)
{
	long status = 0;

	if (code != CURLE_OK)
		return error_set(e, ERR_UNREACHABLE, "%s: %s", c->url.host, c->why[0] ? c->why : curl_easy_strerror(code));
	curl_easy_getinfo(c->road->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200)
		return ERR_OK;
	if (status >= 300 && status < 400)
		return error_set(e, ERR_DENIED, "%s leads elsewhere, and redirects are not followed", c->url.host);
	return error_set(e, status == 401 || status == 403 ? ERR_DENIED : status == 404 ? ERR_NOT_FOUND : ERR_UNREACHABLE, "%s answers with status %ld", c->url.host, status);
}

/* ---- ask ---- */

static size_t take_text(char *data, size_t size, size_t n, void *ctx)
{
	struct strbuf *b = ctx;

	strbuf_add(b, data, size * n);
	return b->over ? 0 : size * n;
}

enum err_code lfs_ask(struct lfs_road *r, const struct js *question, struct js **ret_answer, struct error *e)
{
	AUTO(call_release) struct call c = { .road = r };
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(ANSWER_MAX);
	AUTO_FREE char *body = js_dump(question);

	TRY(call_begin(&c, r->api, true, e));
	c.headers = curl_slist_append(curl_slist_append(NULL, "Accept: " LFS_TYPE), "Content-Type: " LFS_TYPE);
	curl_easy_setopt(r->curl, CURLOPT_HTTPHEADER, c.headers);
	curl_easy_setopt(r->curl, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(r->curl, CURLOPT_TIMEOUT, ASK_TIMEOUT_S);
	curl_easy_setopt(r->curl, CURLOPT_WRITEFUNCTION, take_text);
	curl_easy_setopt(r->curl, CURLOPT_WRITEDATA, &out);
	TRY(call_end(&c, curl_easy_perform(r->curl), e));
	*ret_answer = js_parse(strbuf_str(&out), out.len, e);
	return *ret_answer ? ERR_OK : error_wrap(e, "the answer of %s", r->url.host);
}

/* ---- get ---- */

struct sink {
	int fd;
	int64_t left;
	EVP_MD_CTX *hash;
};

static size_t take_file(char *data, size_t size, size_t n, void *ctx)
{
	struct sink *s = ctx;
	size_t len = size * n;

	if ((int64_t)len > s->left || file_write_all(s->fd, data, len, NULL) != ERR_OK)
		return 0;
	s->left -= (int64_t)len;
	EVP_DigestUpdate(s->hash, data, len);
	return len;
}

/* The server's own words for the other one: only what is a header and nothing more. */
static enum err_code add_headers(struct call *c, const struct js *headers, struct error *e)
{
	if (js_len(headers) > HEADERS_MAX)
		return error_set(e, ERR_LIMIT, "the server wants more than %d headers", HEADERS_MAX);
	for (struct js_iter it = js_iter(headers); it.key; js_next(&it)) {
		const char *value = js_text(it.value);

		if (!value || strpbrk(it.key, "\r\n: ") || strpbrk(value, "\r\n") || strcasecmp(it.key, "Host") == 0)
			return error_set(e, ERR_INVALID, "the server wants a header that is none");
		AUTO_FREE char *line = mem_printf("%s: %s", it.key, value);
		c->headers = curl_slist_append(c->headers, line);
	}
	if (c->headers)
		curl_easy_setopt(c->road->curl, CURLOPT_HTTPHEADER, c->headers);
	return ERR_OK;
}

static enum err_code check_hash(struct sink *s, const struct lfs_file *file, struct error *e)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int n = 0;
	AUTO_STRBUF struct strbuf hex = STRBUF_INIT;

	EVP_DigestFinal_ex(s->hash, digest, &n);
	str_add_hex(&hex, digest, n);
	return s->left == 0 && str_eq(strbuf_str(&hex), file->oid) ? ERR_OK : error_set(e, ERR_INVALID, "what the server sent is not what the pointer names");
}

static enum err_code get_into(struct call *c, struct sink *s, const struct lfs_file *file, struct error *e)
{
	curl_easy_setopt(c->road->curl, CURLOPT_TIMEOUT, GET_TIMEOUT_S);
	curl_easy_setopt(c->road->curl, CURLOPT_WRITEFUNCTION, take_file);
	curl_easy_setopt(c->road->curl, CURLOPT_WRITEDATA, s);
	TRY(call_end(c, curl_easy_perform(c->road->curl), e));
	return check_hash(s, file, e);
}

enum err_code lfs_get_file(struct lfs_road *r, const char *href, const struct js *headers, const struct lfs_file *file, struct error *e)
{
	AUTO(call_release) struct call c = { .road = r };
	AUTO_FREE char *temp = mem_printf("%s.part", file->kept);
	AUTO_CLOSE int fd = -1;
	struct sink s = { .left = file->size };
	enum err_code code;

	TRY(call_begin(&c, href, !js_get(headers, "Authorization"), e));
	TRY(add_headers(&c, headers, e));
	s.fd = fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_errno(e, "make '%s'", temp);
	s.hash = EVP_MD_CTX_new();
	EVP_DigestInit_ex(s.hash, EVP_sha256(), NULL);
	code = get_into(&c, &s, file, e);
	EVP_MD_CTX_free(s.hash);
	if (code == ERR_OK && (fsync(fd) < 0 || rename(temp, file->kept) < 0))
		code = error_errno(e, "write '%s'", file->kept);
	if (code != ERR_OK)
		unlink(temp);
	return code;
}
