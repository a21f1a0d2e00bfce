/* Tokens: rows, and a copy of the living ones in memory, where each request looks. */
#include "core/tokens.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECRET_BYTES 32
#define TOKEN_PREFIX "sbt_" /* by which scanners for lost secrets know it */
#define TOKEN_PRINCIPAL "token:"
#define EXPIRES_MAX_S ((int64_t)10 * 365 * 86400)

struct token {
	char hash[crypto_hash_sha256_BYTES * 2 + 1];
	char *name, *project;
	int64_t expires_at; /* 0: never */
	bool local;
};

struct tokens {
	pthread_mutex_t lock; /* guards the rest */
	struct token *list;
	size_t count;
};

static void tokens_clear(struct tokens *t)
{
	for (size_t i = 0; i < t->count; i++) {
		free(t->list[i].name);
		free(t->list[i].project);
	}
	free(TAKE_PTR(t->list));
	t->count = 0;
}

struct tokens *tokens_new(void)
{
	struct tokens *t = NEW(struct tokens);
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

void tokens_free(struct tokens *t)
{
	if (!t)
		return;
	tokens_clear(t);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static void hash_text(const char *text, char ret[crypto_hash_sha256_BYTES * 2 + 1])
{
	unsigned char hash[crypto_hash_sha256_BYTES];
	crypto_hash_sha256(hash, (const unsigned char *)text, strlen(text));
	sodium_bin2hex(ret, crypto_hash_sha256_BYTES * 2 + 1, hash, sizeof(hash));
}

static enum err_code load_op(struct db_conn *c, void *arg, struct error *e)
{
	struct tokens *t = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, "SELECT hash, name, expires_at, project, local FROM tokens WHERE revoked_at IS NULL", &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row) {
		t->list = mem_grow(t->list, (t->count + 1) * sizeof(*t->list));
		struct token *one = &t->list[t->count++];
		snprintf(one->hash, sizeof(one->hash), "%s", db_text(s, 0));
		one->name = mem_strdup(db_text(s, 1));
		one->expires_at = db_int(s, 2);
		one->project = mem_strdup(db_text(s, 3));
		one->local = db_int(s, 4);
	}
	db_done(s);
	return rc;
}

enum err_code tokens_load(struct core *c, struct error *e)
{
	struct tokens *t = c->tokens;
	pthread_mutex_lock(&t->lock);
	tokens_clear(t);
	enum err_code rc = db_read(c->db, load_op, t, e);
	pthread_mutex_unlock(&t->lock);
	return rc;
}

bool core_token_check(struct core *c, const char *text, char **ret_who, char **ret_project, bool *ret_local)
{
	char hash[crypto_hash_sha256_BYTES * 2 + 1];
	bool opens = false;
	if (!str_starts(text, TOKEN_PREFIX))
		return false;
	hash_text(text, hash);
	pthread_mutex_lock(&c->tokens->lock);
	for (size_t i = 0; i < c->tokens->count && !opens; i++) {
		const struct token *t = &c->tokens->list[i];
		opens = str_const_time_eq(hash, t->hash) && (!t->expires_at || clock_wall_ms() < t->expires_at);
		if (opens) {
			*ret_who = mem_printf(TOKEN_PRINCIPAL "%s", t->name);
			*ret_project = mem_strdup(t->project);
			*ret_local = t->local;
		}
	}
	pthread_mutex_unlock(&c->tokens->lock);
	return opens;
}

bool core_token_lives(struct core *c, struct caller by)
{
	if (!str_starts(by.who, TOKEN_PRINCIPAL))
		return true;
	bool lives = false;
	pthread_mutex_lock(&c->tokens->lock);
	for (size_t i = 0; i < c->tokens->count && !lives; i++) {
		const struct token *t = &c->tokens->list[i];
		lives = str_eq(t->name, by.who + strlen(TOKEN_PRINCIPAL)) && str_eq(t->project, by.project) && (!t->expires_at || clock_wall_ms() < t->expires_at);
	}
	pthread_mutex_unlock(&c->tokens->lock);
	return lives;
}

bool core_project_exists(struct core *c, const char *project)
{
	bool found = str_eq(project, PROJECT_DEFAULT);
	pthread_mutex_lock(&c->tokens->lock);
	for (size_t i = 0; i < c->tokens->count && !found; i++)
		found = str_eq(c->tokens->list[i].project, project);
	pthread_mutex_unlock(&c->tokens->lock);
	return found;
}

struct creation {
	char id[ID_SIZE], hash[crypto_hash_sha256_BYTES * 2 + 1];
	const char *name, *project, *who;
	int64_t expires_at, now;
	bool local;
};

static enum err_code create_op(struct db_conn *c, void *arg, struct error *e)
{
	struct creation *k = arg;
	int64_t count = 0;
	/* A revoked token's name may be given again; its row goes then. */
	enum err_code rc = db_exec(c, e, "DELETE FROM tokens WHERE name=?1 AND (revoked_at IS NOT NULL OR expires_at<=?2)", "si", k->name, k->now);
	if (!rc)
		rc = db_number(c, e, &count, "SELECT COUNT(*) FROM tokens", "");
	if (!rc && count >= TOKENS_MAX)
		return error_set(e, ERR_LIMIT, "there are %d tokens already", TOKENS_MAX);
	if (!rc)
		rc = db_exec(c, e, "INSERT INTO tokens(id,name,hash,created_by,created_at,expires_at,project,local) VALUES(?1,?2,?3,?4,?5,NULLIF(?6,0),?7,?8)", "ssssiisi",
			k->id, k->name, k->hash, k->who, k->now, k->expires_at, k->project, (int64_t)k->local);
	if (rc == ERR_CONFLICT) {
		error_set(e, ERR_CONFLICT, "there is a token '%s' already", k->name);
		error_hint(e, "signalbox token revoke %s, or choose another name", k->name);
	}
	return rc;
}

static void set_time(struct js *o, const char *member, int64_t at)
{
	char text[RFC3339_SIZE];
	if (at)
		clock_rfc3339(at, text);
	js_set(o, member, at ? js_string(text) : js_null());
}

static struct js *show_token(const char *id, const char *name, const char *project, bool local, const char *who, int64_t created, int64_t expires, int64_t revoked)
{
	struct js *o = js_object();
	js_set_str(o, "id", id);
	js_set_str(o, "name", name);
	js_set_str(o, "project", project);
	js_set_bool(o, "local", local);
	js_set_str(o, "created_by", who);
	set_time(o, "created_at", created);
	set_time(o, "expires_at", expires);
	set_time(o, "revoked_at", revoked);
	return o;
}

static enum err_code check_body(const struct js *body, struct creation *k, struct error *e)
{
	static const char *const members[] = { "name", "expires_in", "project", "local", NULL };
	int64_t seconds = 0;
	enum err_code rc = js_check_members(body, "", members, e);
	if (!rc)
		rc = js_want_str(body, "", "name", &k->name, e);
	if (!rc && (!k->name || !str_is_name(k->name)))
		rc = error_set(e, ERR_INVALID, "name: expected a letter or digit, then up to 63 of letters, digits, '.', '_' and '-'");
	if (!rc)
		rc = js_want_i64(body, "", "expires_in", 1, EXPIRES_MAX_S, &seconds, e);
	k->expires_at = seconds ? k->now + seconds * 1000 : 0;
	k->project = PROJECT_DEFAULT;
	if (!rc)
		rc = js_want_str(body, "", "project", &k->project, e);
	if (!rc)
		rc = project_check(k->project, e);
	k->local = str_eq(k->project, PROJECT_DEFAULT);
	if (rc || k->local)
		return rc ? rc : js_want_bool(body, "", "local", &k->local, e);
	return js_flag(body, "local", false) ? error_set(e, ERR_INVALID, "local: only tokens of the project 'default' may name directories of this machine") : ERR_OK;
}

enum err_code core_token_create(struct core *c, const char *who, const struct js *body, struct js **ret_token, struct error *e)
{
	unsigned char secret[SECRET_BYTES];
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	struct creation k = { .who = who, .now = clock_wall_ms() };
	clock_new_id(k.id);
	clock_random(secret, sizeof(secret));
	strbuf_adds(&text, TOKEN_PREFIX);
	str_add_base64url(&text, secret, sizeof(secret));
	hash_text(strbuf_str(&text), k.hash);
	enum err_code rc = check_body(body, &k, e);
	if (!rc)
		rc = db_write(c->db, create_op, &k, e);
	if (!rc)
		rc = tokens_load(c, e);
	if (!rc) {
		*ret_token = show_token(k.id, k.name, k.project, k.local, who, k.now, k.expires_at, 0);
		js_set_str(*ret_token, "token", strbuf_str(&text));
	}
	sodium_memzero(secret, sizeof(secret));
	sodium_memzero(text.data, text.len);
	return rc;
}

static enum err_code list_tokens_op(struct db_conn *c, void *arg, struct error *e)
{
	struct js *data = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, "SELECT id, name, project, local, created_by, created_at, expires_at, revoked_at FROM tokens ORDER BY id DESC", &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row)
		js_push(data, show_token(db_text(s, 0), db_text(s, 1), db_text(s, 2), db_int(s, 3), db_text(s, 4), db_int(s, 5), db_int(s, 6), db_int(s, 7)));
	db_done(s);
	return rc;
}

enum err_code core_tokens(struct core *c, struct js **ret_list, struct error *e)
{
	AUTO_JS struct js *data = js_array();
	enum err_code rc = db_read(c->db, list_tokens_op, data, e);
	if (rc)
		return rc;
	*ret_list = js_object();
	js_set(*ret_list, "data", js_ref(data));
	js_set(*ret_list, "next_cursor", js_null());
	return ERR_OK;
}

static enum err_code revoke_op(struct db_conn *c, void *arg, struct error *e)
{
	enum err_code rc = db_exec(c, e, "UPDATE tokens SET revoked_at=COALESCE(revoked_at, ?2) WHERE id=?1 OR name=?1", "si", (const char *)arg, clock_wall_ms());
	if (!rc && !db_changes(c)) {
		error_set(e, ERR_NOT_FOUND, "no token '%s'", (const char *)arg);
		error_hint(e, "signalbox token ls");
		return ERR_NOT_FOUND;
	}
	return rc;
}

enum err_code core_token_revoke(struct core *c, const char *ref, struct error *e)
{
	AUTO_FREE char *copy = mem_strdup(ref);
	enum err_code rc = db_write(c->db, revoke_op, copy, e);
	return rc ? rc : tokens_load(c, e);
}
