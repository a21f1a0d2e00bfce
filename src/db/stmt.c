/* Statements: a cache per connection, keyed by the text, so that the hot path neither parses SQL nor allocates.
 * A statement that is prepared again while it is in use gets a second, uncached copy. */
#include "base/check.h"
#include "base/mem.h"
#include "db/backend.h"
#include <stdarg.h>
#include <string.h>

static uint32_t text_hash(const char *s)
{
	uint32_t h = 2166136261u;
	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h;
}

static struct db_stmt **bucket_of(struct db_conn *c, uint32_t hash)
{
	return &c->buckets[hash & (DB_STATEMENT_BUCKETS - 1)];
}

static struct db_stmt *cache_find(struct db_conn *c, const char *sql, uint32_t hash)
{
	for (struct db_stmt *s = *bucket_of(c, hash); s; s = s->bucket_next)
		if (!s->busy && s->hash == hash && strcmp(s->sql, sql) == 0)
			return s;
	return NULL;
}

static void stmt_free(struct db_stmt *s)
{
	char *sql = s->sql;
	s->conn->backend->reset(s, true);
	free(sql);
}

static void cache_remove(struct db_conn *c, struct db_stmt *s)
{
	struct db_stmt **at = bucket_of(c, s->hash);
	while (*at != s)
		at = &(*at)->bucket_next;
	*at = s->bucket_next;
	c->cached--;
	stmt_free(s);
}

static void cache_drop_oldest(struct db_conn *c)
{
	struct db_stmt *oldest = NULL;
	for (size_t i = 0; i < DB_STATEMENT_BUCKETS; i++)
		for (struct db_stmt *s = c->buckets[i]; s; s = s->bucket_next)
			if (!s->busy && (!oldest || s->used < oldest->used))
				oldest = s;
	if (oldest)
		cache_remove(c, oldest);
}

static void cache_add(struct db_conn *c, struct db_stmt *s)
{
	if (c->cached >= DB_STATEMENTS_MAX)
		cache_drop_oldest(c);
	struct db_stmt **at = bucket_of(c, s->hash);
	s->bucket_next = *at;
	*at = s;
	s->cached = true;
	c->cached++;
}

static bool text_is_cached(struct db_conn *c, const char *sql, uint32_t hash)
{
	for (struct db_stmt *s = *bucket_of(c, hash); s; s = s->bucket_next)
		if (s->hash == hash && strcmp(s->sql, sql) == 0)
			return true;
	return false;
}

static void active_add(struct db_conn *c, struct db_stmt *s)
{
	s->busy = true;
	s->used = ++c->clock;
	s->active_prev = NULL;
	s->active_next = c->active;
	if (c->active)
		c->active->active_prev = s;
	c->active = s;
}

static void active_remove(struct db_conn *c, struct db_stmt *s)
{
	if (s->active_prev)
		s->active_prev->active_next = s->active_next;
	else
		c->active = s->active_next;
	if (s->active_next)
		s->active_next->active_prev = s->active_prev;
	s->busy = false;
}

enum err_code db_prepare(struct db_conn *c, const char *sql, struct db_stmt **ret, struct error *e)
{
	uint32_t hash = text_hash(sql);
	struct db_stmt *s = cache_find(c, sql, hash);
	if (!s) {
		enum err_code rc = c->backend->prepare(c, sql, &s, e);
		if (rc)
			return rc;
		s->conn = c;
		s->sql = mem_strdup(sql);
		s->hash = hash;
		if (!text_is_cached(c, sql, hash))
			cache_add(c, s);
	}
	active_add(c, s);
	*ret = s;
	return ERR_OK;
}

void db_done(struct db_stmt *s)
{
	if (!s || !s->busy)
		return;
	active_remove(s->conn, s);
	if (s->cached)
		s->conn->backend->reset(s, false);
	else
		stmt_free(s);
}

void db_statements_end(struct db_conn *c)
{
	while (c->active)
		db_done(c->active);
}

void db_conn_close(struct db_conn *c)
{
	if (!c)
		return;
	db_statements_end(c);
	for (size_t i = 0; i < DB_STATEMENT_BUCKETS; i++)
		while (c->buckets[i])
			cache_remove(c, c->buckets[i]);
	c->backend->close(c);
}

static void bind(struct db_stmt *s, int index, struct db_value v)
{
	s->conn->backend->bind(s, index, &v);
}

void db_bind_int(struct db_stmt *s, int index_from_1, int64_t v)
{
	bind(s, index_from_1, (struct db_value){ .type = DB_INT, .i = v });
}

void db_bind_text(struct db_stmt *s, int index_from_1, const char *v)
{
	if (v)
		bind(s, index_from_1, (struct db_value){ .type = DB_TEXT, .p = v, .n = strlen(v) });
	else
		db_bind_null(s, index_from_1);
}

void db_bind_blob(struct db_stmt *s, int index_from_1, const void *v, size_t n)
{
	bind(s, index_from_1, (struct db_value){ .type = DB_BLOB, .p = v ? v : "", .n = v ? n : 0 });
}

void db_bind_null(struct db_stmt *s, int index_from_1)
{
	bind(s, index_from_1, (struct db_value){ .type = DB_NULL });
}

enum err_code db_step(struct db_stmt *s, bool *ret_row, struct error *e)
{
	return s->conn->backend->step(s, ret_row, e);
}

static struct db_value column(struct db_stmt *s, int col, enum db_type want)
{
	struct db_value v = { .type = DB_NULL };
	s->conn->backend->column(s, col, want, &v);
	return v;
}

int64_t db_int(struct db_stmt *s, int column_from_0)
{
	return column(s, column_from_0, DB_INT).i;
}

const char *db_text(struct db_stmt *s, int column_from_0)
{
	return column(s, column_from_0, DB_TEXT).p;
}

const void *db_blob(struct db_stmt *s, int column_from_0, size_t *ret_len)
{
	struct db_value v = column(s, column_from_0, DB_BLOB);
	*ret_len = v.n;
	return v.p;
}

bool db_is_null(struct db_stmt *s, int column_from_0)
{
	return column(s, column_from_0, DB_NULL).type == DB_NULL;
}

int64_t db_changes(struct db_conn *c)
{
	return c->changes;
}

int64_t db_inserted(struct db_conn *c)
{
	return c->inserted;
}

/* 'i' is int64_t exactly: an int passed for it would be read with rubbish above it, so callers cast. */
static void bind_format(struct db_stmt *s, const char *fmt, va_list ap)
{
	for (int i = 0; fmt[i]; i++) {
		switch (fmt[i]) {
		case 'i':
			db_bind_int(s, i + 1, va_arg(ap, int64_t));
			break;
		case 's':
			db_bind_text(s, i + 1, va_arg(ap, const char *));
			break;
		case 'n':
			db_bind_null(s, i + 1);
			break;
		default:
			CHECK(fmt[i] == 'n'); /* the format is made of i, s and n */
		}
	}
}

static enum err_code prepare_bound(struct db_conn *c, const char *sql, const char *fmt, va_list ap, struct db_stmt **ret, struct error *e)
{
	enum err_code rc = db_prepare(c, sql, ret, e);
	if (!rc)
		bind_format(*ret, fmt, ap);
	return rc;
}

enum err_code db_exec(struct db_conn *c, struct error *e, const char *sql, const char *fmt, ...)
{
	struct db_stmt *s = NULL;
	va_list ap;
	va_start(ap, fmt);
	enum err_code rc = prepare_bound(c, sql, fmt, ap, &s, e);
	va_end(ap);
	bool row = true;
	while (row && !rc)
		rc = db_step(s, &row, e);
	db_done(s);
	return rc;
}

/* The first row's first column, and whether there is such a row; what is not wanted may be NULL.  Written on success only. */
static enum err_code first_row(struct db_conn *c, const char *sql, const char *fmt, va_list ap, int64_t *ret_number, bool *ret_row, struct error *e)
{
	struct db_stmt *s = NULL;
	bool row = false;
	enum err_code rc = prepare_bound(c, sql, fmt, ap, &s, e);
	if (!rc)
		rc = db_step(s, &row, e);
	if (!rc && ret_number)
		*ret_number = row ? db_int(s, 0) : 0;
	if (!rc && ret_row)
		*ret_row = row;
	db_done(s);
	return rc;
}

enum err_code db_number(struct db_conn *c, struct error *e, int64_t *ret, const char *sql, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	enum err_code rc = first_row(c, sql, fmt, ap, ret, NULL, e);
	va_end(ap);
	return rc;
}

enum err_code db_has(struct db_conn *c, struct error *e, bool *ret, const char *sql, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	enum err_code rc = first_row(c, sql, fmt, ap, NULL, ret, e);
	va_end(ap);
	return rc;
}
