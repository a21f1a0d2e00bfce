/* The gateway's configuration: reading, checking, wiping. */
#include "gateway/config.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/str.h"
#include <curl/curl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_USUAL_MAX ((size_t)512 << 10)

static const char *const top_members[] = { "socket", "control", "key", "record_dir", "uid", "gid", "providers", "default_provider", "limits", "hide", "users", NULL };
static const char *const provider_members[] = { "base_url", "key", "wire", "model", NULL };
static const char *const limit_members[] = { "connect_ms", "idle_ms", "drain_ms", "probe_ms", "early_ms", "linger_ms", NULL };

static void text_wipe(char *s)
{
	if (s != NULL)
		sodium_memzero(s, strlen(s));
	free(s);
}

/* A parsed document keeps its strings as plain memory; the secret ones are overwritten before it goes. */
static void js_wipe(const struct js *o, const char *key)
{
	const char *s = js_str(o, key);

	if (s != NULL)
		sodium_memzero((void *)(uintptr_t)s, strlen(s));
}

void config_forget_hidden(struct config *c)
{
	for (struct js_iter it = js_iter(c->hide); it.key != NULL; js_next(&it))
		for (size_t i = 0; i < js_len(it.value); i++)
			if (js_text(js_at(it.value, i)) != NULL)
				sodium_memzero((void *)(uintptr_t)js_text(js_at(it.value, i)), js_text_len(js_at(it.value, i)));
	js_free(TAKE_PTR(c->hide));
}

static void config_free(struct config *c)
{
	for (size_t i = 0; i < c->provider_count; i++) {
		struct provider *p = &c->providers[i];

		free(p->name);
		free(p->url);
		free(p->host);
		free(p->model);
		text_wipe(p->key);
	}
	free(c->providers);
	free(c->socket);
	free(c->control);
	free(c->record_dir);
	free(c->users);
	free(c->default_provider);
	config_forget_hidden(c);
	sodium_memzero(c, sizeof(*c));
	free(c);
}

struct config *config_ref(struct config *c)
{
	__atomic_add_fetch(&c->references, 1, __ATOMIC_RELAXED);
	return c;
}

void config_unref(struct config *c)
{
	if (c != NULL && __atomic_sub_fetch(&c->references, 1, __ATOMIC_ACQ_REL) == 0)
		config_free(c);
}

static void config_cleanup(struct config **c)
{
	config_unref(*c);
}

const struct provider *config_provider(const struct config *c, const char *name)
{
	if (name == NULL)
		name = c->default_provider;
	for (size_t i = 0; i < c->provider_count; i++)
		if (str_eq(c->providers[i].name, name))
			return &c->providers[i];
	return NULL;
}

const struct provider *config_provider_for(const struct config *c, const char *name, enum wire wire)
{
	const struct provider *own = config_provider(c, name);

	if (own == NULL || own->wire == wire)
		return own;
	if (str_eq(own->name, c->default_provider))
		for (size_t i = 0; i < c->provider_count; i++)
			if (c->providers[i].wire == wire)
				return &c->providers[i];
	return own->wire == WIRE_ANY ? own : NULL;
}

static enum err_code text_wanted(const struct js *o, const char *where, const char *key, bool needed, char **ret, struct error *e)
{
	const char *s = NULL;
	enum err_code rc = js_want_str(o, where, key, &s, e);

	if (rc != ERR_OK)
		return rc;
	if (str_empty(s) && needed)
		return error_set(e, ERR_INVALID, "%s%s%s: missing, expected a text", where, *where ? "." : "", key);
	*ret = mem_strdup(s);
	return ERR_OK;
}

static char *url_part(CURLU *u, CURLUPart part)
{
	char *s = NULL, *copy;

	if (curl_url_get(u, part, &s, 0) != CURLUE_OK)
		return NULL;
	copy = mem_strdup(s);
	curl_free(s);
	return copy;
}

static bool url_is_plain(CURLU *u)
{
	static const CURLUPart unwanted[] = { CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY, CURLUPART_FRAGMENT };
	AUTO_FREE char *scheme = url_part(u, CURLUPART_SCHEME);

	for (size_t i = 0; i < ARRAY_SIZE(unwanted); i++) {
		AUTO_FREE char *s = url_part(u, unwanted[i]);

		if (s != NULL)
			return false;
	}
	return str_eq(scheme, "https") || str_eq(scheme, "http");
}

static enum err_code provider_url(struct provider *p, const char *where, const char *base, struct error *e)
{
	CURLU *u = curl_url();
	bool good = curl_url_set(u, CURLUPART_URL, base, 0) == CURLUE_OK && url_is_plain(u);
	AUTO_FREE char *host = url_part(u, CURLUPART_HOST);
	AUTO_FREE char *port = url_part(u, CURLUPART_PORT);
	size_t len = strlen(base);

	curl_url_cleanup(u);
	if (!good || host == NULL)
		return error_set(e, ERR_INVALID, "%s.base_url: expected http(s)://HOST[:PORT]/PATH without user, query or fragment", where);
	while (len > 0 && base[len - 1] == '/')
		len--;
	p->url = mem_strndup(base, len);
	p->host = port == NULL ? mem_strdup(host) : mem_printf("%s:%s", host, port);
	return ERR_OK;
}

static enum err_code provider_read(struct provider *p, const char *name, const struct js *o, struct error *e)
{
	AUTO_FREE char *where = mem_printf("providers.%s", name);
	AUTO_FREE char *base = NULL;
	AUTO_FREE char *wire = NULL;
	enum err_code rc = js_check_members(o, where, provider_members, e);

	p->name = mem_strdup(name);
	if (rc == ERR_OK)
		rc = text_wanted(o, where, "base_url", true, &base, e);
	if (rc == ERR_OK)
		rc = text_wanted(o, where, "key", false, &p->key, e);
	if (rc == ERR_OK)
		rc = text_wanted(o, where, "wire", false, &wire, e);
	if (rc == ERR_OK)
		rc = text_wanted(o, where, "model", false, &p->model, e);
	if (rc != ERR_OK)
		return rc;
	if (wire != NULL && !str_eq(wire, "responses") && !str_eq(wire, "messages"))
		return error_set(e, ERR_UNSUPPORTED, "%s.wire: '%s' is not known, expected responses or messages", where, wire);
	p->wire = wire == NULL ? WIRE_ANY : str_eq(wire, "messages") ? WIRE_MESSAGES : WIRE_RESPONSES;
	if (p->key != NULL && strpbrk(p->key, "\r\n") != NULL)
		return error_set(e, ERR_INVALID, "%s.key: has a line end in it", where);
	return provider_url(p, where, base, e);
}

static enum err_code providers_read(struct config *c, const struct js *o, struct error *e)
{
	size_t n = js_len(o);

	if (js_type(o) != JS_OBJECT || n == 0 || n > CONFIG_PROVIDERS_MAX)
		return error_set(e, ERR_INVALID, "providers: expected an object of 1 to %d providers", CONFIG_PROVIDERS_MAX);
	c->providers = mem_alloc(n * sizeof(*c->providers));
	for (struct js_iter it = js_iter(o); it.key != NULL; js_next(&it)) {
		enum err_code rc = provider_read(&c->providers[c->provider_count++], it.key, it.value, e);

		if (rc != ERR_OK)
			return rc;
	}
	if (c->default_provider == NULL)
		c->default_provider = mem_strdup(c->providers[0].name);
	if (config_provider(c, NULL) == NULL)
		return error_set(e, ERR_INVALID, "default_provider: there is no provider '%s'", c->default_provider);
	return ERR_OK;
}

static enum err_code limits_read(struct config *c, const struct js *o, struct error *e)
{
	const struct { const char *key; int64_t *at, otherwise, min, max; } limits[] = {
		{ "connect_ms", &c->connect_ms, CONFIG_CONNECT_MS, 1, CONFIG_LIMIT_MAX_MS },
		{ "idle_ms", &c->idle_ms, CONFIG_IDLE_MS, 1, CONFIG_LIMIT_MAX_MS },
		{ "drain_ms", &c->drain_ms, CONFIG_DRAIN_MS, 0, CONFIG_LIMIT_MAX_MS },
		{ "probe_ms", &c->probe_ms, CONFIG_PROBE_MS, 1, CONFIG_PROBE_MAX_MS },
		{ "early_ms", &c->early_ms, CONFIG_EARLY_MS, 1, CONFIG_PROBE_MAX_MS },
		{ "linger_ms", &c->linger_ms, CONFIG_LINGER_MS, 1, CONFIG_LIMIT_MAX_MS },
	};
	enum err_code rc = js_check_members(o, "limits", limit_members, e);

	for (size_t i = 0; i < ARRAY_SIZE(limits) && rc == ERR_OK; i++) {
		*limits[i].at = limits[i].otherwise;
		rc = js_want_i64(o, "limits", limits[i].key, limits[i].min, limits[i].max, limits[i].at, e);
	}
	return rc;
}

static enum err_code ids_read(struct config *c, const struct js *o, struct error *e)
{
	int64_t uid = -1, gid = -1;
	enum err_code rc = js_want_i64(o, "", "uid", 1, INT32_MAX, &uid, e);

	if (rc == ERR_OK)
		rc = js_want_i64(o, "", "gid", 1, INT32_MAX, &gid, e);
	if (rc != ERR_OK)
		return rc;
	if ((uid < 0) != (gid < 0))
		return error_set(e, ERR_INVALID, "uid and gid: give both or none");
	c->drop_ids = uid >= 0;
	c->uid = (uid_t)uid;
	c->gid = (gid_t)gid;
	return ERR_OK;
}

static enum err_code key_read(struct config *c, const struct js *o, struct error *e)
{
	AUTO_STRBUF struct strbuf raw = STRBUF_LIMIT(TOKEN_TEXT_MAX);
	const char *text = js_str(o, "key");
	bool good = text != NULL && str_from_base64url(text, strlen(text), &raw) && raw.len == sizeof(c->key);

	if (good)
		memcpy(c->key, raw.data, sizeof(c->key));
	if (raw.len > 0)
		sodium_memzero(raw.data, raw.len);
	return good ? ERR_OK : error_set(e, ERR_INVALID, "key: expected %d bytes as base64url", TOKEN_KEY_BYTES);
}

static enum err_code config_read(struct config *c, const struct js *o, struct error *e)
{
	enum err_code rc = js_check_members(o, "", top_members, e);

	if (rc == ERR_OK)
		rc = text_wanted(o, "", "socket", true, &c->socket, e);
	if (rc == ERR_OK)
		rc = text_wanted(o, "", "control", true, &c->control, e);
	if (rc == ERR_OK)
		rc = text_wanted(o, "", "record_dir", true, &c->record_dir, e);
	if (rc == ERR_OK)
		rc = text_wanted(o, "", "default_provider", false, &c->default_provider, e);
	if (rc == ERR_OK)
		rc = text_wanted(o, "", "users", false, &c->users, e);
	if (rc == ERR_OK)
		rc = key_read(c, o, e);
	if (rc == ERR_OK)
		rc = ids_read(c, o, e);
	if (rc == ERR_OK)
		rc = limits_read(c, js_get(o, "limits"), e);
	if (rc == ERR_OK)
		rc = providers_read(c, js_get(o, "providers"), e);
	return rc;
}

/* Secrets come and go; the configuration is the same. */
static void hash_set(struct config *c, struct js *o, const char *text, size_t len)
{
	unsigned char hash[CONFIG_HASH_BYTES];
	AUTO_FREE char *rest = NULL;

	c->hide = js_ref(js_get(o, "hide"));
	if (c->hide != NULL) {
		js_del(o, "hide");
		text = rest = js_dump(o);
		len = strlen(rest);
	}
	crypto_generichash(hash, sizeof(hash), (const unsigned char *)text, len, NULL, 0);
	sodium_bin2hex(c->hash, sizeof(c->hash), hash, sizeof(hash));
	if (rest != NULL)
		sodium_memzero(rest, len);
}

static void document_wipe(const struct js *o)
{
	js_wipe(o, "key");
	for (struct js_iter it = js_iter(js_get(o, "providers")); it.key != NULL; js_next(&it))
		js_wipe(it.value, "key");
}

enum err_code config_parse(const char *text, size_t len, struct config **ret, struct error *e)
{
	AUTO(config_cleanup) struct config *c = NEW(struct config);
	AUTO_JS struct js *o = js_parse(text, len, e);
	enum err_code rc;

	c->references = 1;
	if (js_type(o) != JS_OBJECT)
		return o == NULL ? error_wrap(e, "gateway configuration") : error_set(e, ERR_INVALID, "gateway configuration: expected an object");
	rc = config_read(c, o, e);
	hash_set(c, o, text, len);
	document_wipe(o);
	if (rc != ERR_OK)
		return error_wrap(e, "gateway configuration");
	*ret = TAKE_PTR(c);
	return ERR_OK;
}

enum err_code config_load_fd(int fd, struct config **ret, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(CONFIG_BYTES_MAX);
	enum err_code rc;

	(void)strbuf_reserve(&text, CONFIG_USUAL_MAX); /* so that growing leaves no copies behind */
	rc = file_read_fd(fd, CONFIG_BYTES_MAX, &text, e);
	if (rc == ERR_OK)
		rc = config_parse(strbuf_str(&text), text.len, ret, e);
	if (text.len > 0)
		sodium_memzero(text.data, text.len);
	return rc;
}

enum err_code config_load(const char *path, struct config **ret, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(CONFIG_BYTES_MAX);
	struct stat st;
	enum err_code rc;

	if (stat(path, &st) == 0 && (st.st_mode & 077) != 0)
		return error_set(e, ERR_INVALID, "the gateway configuration '%s' can be read by others, expected mode 0600", path);
	(void)strbuf_reserve(&text, CONFIG_USUAL_MAX);
	rc = file_read(path, CONFIG_BYTES_MAX, &text, e);
	if (rc == ERR_OK)
		rc = config_parse(strbuf_str(&text), text.len, ret, e);
	if (text.len > 0)
		sodium_memzero(text.data, text.len);
	return rc;
}
