/* Credentials: kept sealed, found by URL. */
#include "core/secrets.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include "source/url.h"
#include <sodium.h>
#include <string.h>

#define SECRET_TEXT_MAX ((size_t)32 << 10) /* bytes: a key, a password, a list of hosts' keys */
#define FINGERPRINT_BYTES 16
#define USER_MAX 256
#define DEFAULT_USER "x-access-token" /* hosts that take tokens take it beside any name */

static const struct scope_kind {
	const char *prefix, *scheme, *kind, *default_port;
	bool is_key;
} kinds[] = {
	{ "git:", "https://", "password", "443", false },
	{ "ssh:", "ssh://", "ssh key", "22", true },
};

/* What a name is for. */
struct scope {
	const struct scope_kind *kind;
	char *host, *port, *path; /* port: never the default one; path without slashes at its ends */
};

static void scope_release(struct scope *s)
{
	free(s->host);
	free(s->port);
	free(s->path);
	*s = (struct scope){ .host = NULL };
}

static char *trim_path(const char *path)
{
	while (*path == '/')
		path++;
	size_t n = strlen(path);
	while (n && path[n - 1] == '/')
		n--;
	if (n > 4 && strncmp(path + n - 4, ".git", 4) == 0)
		n -= 4;
	return mem_strndup(path, n);
}

static void scope_from_url(const struct source_url *u, const struct scope_kind *kind, struct scope *ret)
{
	bool is_default = !u->port || str_eq(u->port, kind->default_port) || (u->kind == URL_HTTP && str_eq(u->port, "80"));
	*ret = (struct scope){ .kind = kind, .host = mem_strdup(u->host), .port = is_default ? NULL : mem_strdup(u->port), .path = trim_path(u->path) };
}

static enum err_code bad_name(const char *name, struct error *e)
{
	error_set(e, ERR_INVALID, "'%.80s' is not a secret's name", name);
	error_hint(e, "git:HOST or git:HOST/PATH for http(s) URLs, ssh:HOST or ssh:HOST/PATH for ssh URLs");
	return ERR_INVALID;
}

static enum err_code scope_parse(const char *name, struct scope *ret, struct error *e)
{
	AUTO(source_url_release) struct source_url u = { .text = NULL };
	if (str_empty(name) || strlen(name) > SECRET_NAME_MAX)
		return bad_name(str_empty(name) ? "" : name, e);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!str_starts(name, kinds[i].prefix))
			continue;
		const char *rest = name + strlen(kinds[i].prefix);
		const char *slash = strchr(rest, '/');
		/* A path of its own, so that a bare host is a URL too. */
		AUTO_FREE char *text = mem_printf("%s%s%s", kinds[i].scheme, rest, slash && slash[1] ? "" : slash ? "." : "/.");
		if (source_url_parse(text, &u, NULL) || u.user)
			return bad_name(name, e);
		scope_from_url(&u, &kinds[i], ret);
		if (!slash || !slash[1])
			ret->path[0] = 0;
		return ERR_OK;
	}
	return bad_name(name, e);
}

/* Whether the scope holds `at`; the longer the path, the better: -1 when it does not. */
static int scope_fit(const struct scope *s, const struct scope *at)
{
	size_t n = strlen(s->path);
	if (s->kind != at->kind || !str_eq(s->host, at->host) || !str_eq(s->port, at->port))
		return -1;
	if (n && (strncmp(s->path, at->path, n) != 0 || (at->path[n] && at->path[n] != '/')))
		return -1;
	return (int)n;
}

/* ---- what is stored ---- */

struct stored {
	const char *project, *name, *kind, *sealed, *who;
	int64_t at;
	struct js *list;
	char *found_sealed;
};

static enum err_code set_op(struct db_conn *conn, void *arg, struct error *e)
{
	const struct stored *s = arg;
	int64_t others = 0;
	enum err_code rc = db_number(conn, e, &others, "SELECT COUNT(*) FROM secrets WHERE project=?1 AND name<>?2", "ss", s->project, s->name);
	if (!rc && others >= SECRETS_MAX_STORED)
		rc = error_set(e, ERR_LIMIT, "%d secrets are stored already", SECRETS_MAX_STORED);
	return rc ? rc : db_exec(conn, e, "INSERT OR REPLACE INTO secrets(project,name,kind,sealed,created_by,created_at) VALUES(?1,?2,?3,?4,?5,?6)", "sssssi",
		s->project, s->name, s->kind, s->sealed, s->who, s->at);
}

static enum err_code remove_op(struct db_conn *conn, void *arg, struct error *e)
{
	const struct stored *s = arg;
	enum err_code rc = db_exec(conn, e, "DELETE FROM secrets WHERE project=?1 AND name=?2", "ss", s->project, s->name);
	return rc || db_changes(conn) ? rc : error_set(e, ERR_NOT_FOUND, "no secret '%s' is stored", s->name);
}

static enum err_code list_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct stored *s = arg;
	struct db_stmt *q;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT name, kind, created_by, created_at FROM secrets WHERE project=?1 ORDER BY name", &q, e);
	if (rc)
		return rc;
	db_bind_text(q, 1, s->project);
	while (!(rc = db_step(q, &row, e)) && row) {
		struct js *o = js_object();
		char at[RFC3339_SIZE];
		clock_rfc3339(db_int(q, 3), at);
		js_set_str(o, "name", db_text(q, 0));
		js_set_str(o, "kind", db_text(q, 1));
		js_set_str(o, "from", "stored");
		js_set_str(o, "created_at", at);
		js_set_str(o, "created_by", db_text(q, 2));
		js_push(s->list, o);
	}
	db_done(q);
	return rc;
}

static enum err_code load_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct stored *s = arg;
	struct db_stmt *q;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT sealed FROM secrets WHERE project=?1 AND name=?2", &q, e);
	if (rc)
		return rc;
	db_bind_text(q, 1, s->project);
	db_bind_text(q, 2, s->name);
	rc = db_step(q, &row, e);
	if (!rc && row)
		s->found_sealed = mem_strdup(db_text(q, 0));
	db_done(q);
	return rc;
}

/* ---- in and out ---- */

static enum err_code check_key(const char *text, struct error *e)
{
	if (str_starts(text, "-----BEGIN ") && strstr(text, "PRIVATE KEY-----") && !strstr(text, "ENCRYPTED"))
		return ERR_OK;
	error_set(e, ERR_INVALID, "secret: this is not a private ssh key without a passphrase");
	error_hint(e, "make one for this purpose: ssh-keygen -t ed25519 -N '' -f KEY");
	return ERR_INVALID;
}

static enum err_code check_password(const char *text, struct error *e)
{
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return error_set(e, ERR_INVALID, "secret: a token or password is one line of text");
	return ERR_OK;
}

static enum err_code check_text(const struct js *body, const char *member, size_t max, const char **ret, struct error *e)
{
	enum err_code rc = js_want_str(body, "", member, ret, e);
	if (!rc && *ret && strlen(*ret) > max)
		rc = error_set(e, ERR_LIMIT, "%s: longer than %zu bytes", member, max);
	return rc;
}

static enum err_code check_body(const struct scope_kind *kind, const struct js *body, struct error *e)
{
	static const char *const for_key[] = { "secret", "known_hosts", NULL }, *const for_password[] = { "secret", "user", NULL };
	const char *secret = NULL, *user = NULL, *hosts = NULL;
	enum err_code rc = js_check_members(body, "", kind->is_key ? for_key : for_password, e);
	if (!rc)
		rc = check_text(body, "secret", SECRET_TEXT_MAX / 2, &secret, e);
	if (!rc)
		rc = check_text(body, "user", USER_MAX, &user, e);
	if (!rc)
		rc = check_text(body, "known_hosts", SECRET_TEXT_MAX, &hosts, e);
	if (!rc && str_empty(secret))
		rc = error_set(e, ERR_INVALID, "secret: missing or empty");
	if (!rc)
		rc = kind->is_key ? check_key(secret, e) : check_password(secret, e);
	return rc || !user ? rc : check_password(user, e);
}

static void wipe(char *text)
{
	if (text)
		sodium_memzero(text, strlen(text));
	free(text);
}

enum err_code core_secret_set(struct core *c, struct caller by, const char *name, const struct js *body, struct error *e)
{
	AUTO(scope_release) struct scope scope = { .host = NULL };
	enum err_code rc = scope_parse(name, &scope, e);
	if (!rc)
		rc = check_body(scope.kind, body, e);
	if (rc)
		return rc;
	AUTO_JS struct js *whole = js_copy(body);
	js_set_str(whole, "name", name); /* sealed with it: one row's secret does not pass for another's */
	js_set_str(whole, "project", by.project);
	char *text = js_dump(whole);
	AUTO_FREE char *sealed = seal_text(c->seal_key, text);
	wipe(text);
	struct stored s = { .project = by.project, .name = name, .kind = scope.kind->kind, .sealed = sealed, .who = by.who, .at = clock_wall_ms() };
	return db_write(c->db, set_op, &s, e);
}

enum err_code core_secret_remove(struct core *c, struct caller by, const char *name, struct error *e)
{
	struct stored s = { .project = by.project, .name = name };
	return db_write(c->db, remove_op, &s, e);
}

/* Who wrote the configuration wrote it for himself. */
static const struct js *configured(struct core *c, const char *project)
{
	return !str_eq(project, PROJECT_DEFAULT) ? NULL : js_get(conf_section(c->config, "source"), "credentials");
}

enum err_code core_secrets(struct core *c, struct caller by, struct js **ret_list, struct error *e)
{
	AUTO_JS struct js *list = js_array();
	struct stored s = { .project = by.project, .list = list };
	enum err_code rc = db_read(c->db, list_op, &s, e);
	for (struct js_iter it = js_iter(configured(c, by.project)); !rc && it.key; js_next(&it)) {
		struct js *o = js_object();
		js_set_str(o, "name", it.key);
		js_set_str(o, "kind", str_starts(it.key, "ssh:") ? kinds[1].kind : kinds[0].kind);
		js_set_str(o, "from", "configuration");
		js_push(list, o);
	}
	if (!rc)
		*ret_list = js_ref(list);
	return rc;
}

/* ---- the one for a URL ---- */

static void take_best(const char *name, const struct scope *at, int *best, const char **ret_name)
{
	AUTO(scope_release) struct scope s = { .host = NULL };
	int fit = scope_parse(name, &s, NULL) == ERR_OK ? scope_fit(&s, at) : -1;
	if (fit > *best) {
		*best = fit;
		*ret_name = name;
	}
}

static enum err_code load_stored(struct core *c, const char *project, const char *name, struct secret *ret, struct error *e)
{
	struct stored s = { .project = project, .name = name };
	char *text = NULL;
	enum err_code rc = db_read(c->db, load_op, &s, e);
	if (!rc && !s.found_sealed)
		return ERR_OK; /* removed just now */
	if (!rc)
		rc = seal_reveal(c->seal_key, s.found_sealed, &text, e);
	free(s.found_sealed);
	AUTO_JS struct js *o = rc ? NULL : js_parse(text, strlen(text), e);
	seal_forget(text);
	if (!rc && (!o || !str_eq(js_str(o, "name"), name) || !str_eq(js_str_or(o, "project", PROJECT_DEFAULT), project)))
		rc = error_set(e, ERR_INVALID, "the stored secret '%s' is damaged", name);
	if (rc)
		return rc;
	ret->name = mem_strdup(name);
	ret->user = mem_strdup(js_str(o, "user"));
	ret->text = mem_strdup(js_str(o, "secret"));
	ret->known_hosts = mem_strdup(js_str(o, "known_hosts"));
	return ERR_OK;
}

/* A value that stands in the configuration, in a variable, or in a file. NULL when there is none of them. */
static enum err_code load_value(const struct js *o, const char *name, const char *const members[3], char **ret, struct error *e)
{
	const char *text = js_str(o, members[0]), *env = members[1] ? js_str(o, members[1]) : NULL, *file = js_str(o, members[2]);
	AUTO_STRBUF struct strbuf b = STRBUF_LIMIT(SECRET_TEXT_MAX);
	if (!text && env)
		text = getenv(env);
	if (text || !file) {
		*ret = mem_strdup(text);
		return ERR_OK;
	}
	enum err_code rc = file_read(file, SECRET_TEXT_MAX, &b, e);
	if (rc)
		return error_wrap(e, "source.credentials.%s", name);
	*ret = mem_strdup(strbuf_str(&b));
	sodium_memzero(b.data, b.len);
	return ERR_OK;
}

static enum err_code load_configured(struct core *c, const char *name, struct secret *ret, struct error *e)
{
	static const char *const key[3] = { "key", "key_env", "key_file" }, *const hosts[3] = { "known_hosts", NULL, "known_hosts_file" };
	const struct js *o = js_get(configured(c, PROJECT_DEFAULT), name);
	enum err_code rc = load_value(o, name, key, &ret->text, e);
	if (!rc)
		rc = load_value(o, name, hosts, &ret->known_hosts, e);
	if (rc)
		return rc;
	for (size_t n = ret->text && !str_starts(name, "ssh:") ? strlen(ret->text) : 0; n && (ret->text[n - 1] == '\n' || ret->text[n - 1] == ' '); n--)
		ret->text[n - 1] = 0;
	if (str_empty(ret->text))
		return error_set(e, ERR_NOT_FOUND, "source.credentials.%s has no key", name);
	ret->name = mem_strdup(name);
	ret->user = mem_strdup(js_str(o, "user"));
	return ERR_OK;
}

char *secret_scope(const char *name)
{
	AUTO(scope_release) struct scope s = { .host = NULL };
	return scope_parse(name, &s, NULL) == ERR_OK ? TAKE_PTR(s.path) : mem_strdup("");
}

static void seal_fingerprint(struct core *c, struct secret *s)
{
	crypto_generichash_state state;
	unsigned char hash[FINGERPRINT_BYTES];
	crypto_generichash_init(&state, c->seal_key, SEAL_KEY_SIZE, sizeof(hash));
	crypto_generichash_update(&state, (const unsigned char *)s->user, strlen(s->user) + 1);
	crypto_generichash_update(&state, (const unsigned char *)s->text, strlen(s->text) + 1);
	crypto_generichash_final(&state, hash, sizeof(hash));
	sodium_bin2hex(s->fingerprint, sizeof(s->fingerprint), hash, sizeof(hash));
	sodium_memzero(&state, sizeof(state));
}

static enum err_code find_in(struct core *c, const char *project, const struct scope *at, struct secret *ret, struct error *e)
{
	AUTO_JS struct js *list = js_array();
	struct stored s = { .project = project, .list = list };
	const char *stored = NULL, *config = NULL;
	int best = -1;
	enum err_code rc = db_read(c->db, list_op, &s, e);
	for (size_t i = 0; !rc && i < js_len(list); i++)
		take_best(js_str(js_at(list, i), "name"), at, &best, &stored);
	for (struct js_iter it = js_iter(configured(c, project)); !rc && it.key; js_next(&it))
		take_best(it.key, at, &best, &config);
	if (rc || (!stored && !config))
		return rc;
	return config ? load_configured(c, config, ret, e) : load_stored(c, project, stored, ret, e);
}

enum err_code secret_find(struct core *c, const char *project, const char *url, struct secret *ret, struct error *e)
{
	AUTO(source_url_release) struct source_url u = { .text = NULL };
	AUTO(scope_release) struct scope at = { .host = NULL };
	*ret = (struct secret){ .name = NULL };
	enum err_code rc = source_url_parse(url, &u, e);
	if (rc || u.kind == URL_FILE)
		return rc;
	scope_from_url(&u, &kinds[u.kind == URL_SSH], &at);
	rc = find_in(c, project, &at, ret, e);
	if (rc || !ret->name)
		return rc;
	if (!ret->user)
		ret->user = mem_strdup(at.kind->is_key ? "" : DEFAULT_USER);
	if (!ret->known_hosts)
		ret->known_hosts = mem_strdup("");
	ret->credential = (struct credential){ .is_key = at.kind->is_key, .user = ret->user, .secret = ret->text, .known_hosts = ret->known_hosts };
	seal_fingerprint(c, ret);
	return ERR_OK;
}

void secret_release(struct secret *s)
{
	wipe(s->text);
	free(s->name);
	free(s->user);
	free(s->known_hosts);
	*s = (struct secret){ .name = NULL };
}

enum err_code secret_check_config(const struct js *credentials, struct error *e)
{
	static const char *const members[] = { "user", "key", "key_env", "key_file", "known_hosts", "known_hosts_file", NULL };
	if (credentials && js_type(credentials) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "source.credentials: expected names and what is of each");
	for (struct js_iter it = js_iter(credentials); it.key; js_next(&it)) {
		AUTO(scope_release) struct scope s = { .host = NULL };
		AUTO_FREE char *where = mem_printf("source.credentials.%s", it.key);
		enum err_code rc = scope_parse(it.key, &s, e);
		if (!rc)
			rc = js_check_members(it.value, where, members, e);
		if (rc)
			return rc;
		if (!js_str(it.value, "key") && !js_str(it.value, "key_env") && !js_str(it.value, "key_file"))
			return error_set(e, ERR_INVALID, "%s: key, key_env or key_file is missing", where);
	}
	return ERR_OK;
}
