/* The log of all tasks in one order. */
#include "core/feed.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include <stdio.h>
#include <string.h>

#define TAG_OF_OTHERS "others" /* in place of the end of an id that is not the caller's to see: HUB_TAG_SIZE - 1 bytes */
#define FEED_FORGET_STEP 8192 /* rows in one transaction: others wait that long for their commit */

/* The end of a task's id is random. */
static const char *tag_of(const char *task)
{
	size_t n = strlen(task);
	return n > HUB_TAG_SIZE - 1 ? task + n - (HUB_TAG_SIZE - 1) : task;
}

static void cursor_make(char ret[FEED_CURSOR_SIZE], int64_t n, const char *task)
{
	snprintf(ret, FEED_CURSOR_SIZE, "%lld-%.6s", (long long)n, tag_of(task));
}

enum err_code feed_add(struct db_conn *conn, const char *task, int64_t seq, int64_t *ret_n, struct error *e)
{
	enum err_code rc = db_exec(conn, e, "INSERT INTO feed(task,seq) VALUES(?1,?2)", "si", task, seq);
	*ret_n = rc ? 0 : db_inserted(conn);
	return rc;
}

void feed_publish(struct core *c, int64_t n, const char *project, const char *task, const char *line)
{
	const struct hub_mark mark = { tag_of(task), project };
	hub_publish_all(c->hub, n, &mark, line);
}

/* What a cursor at a row says; project NULL: its task was removed, and nobody knows any more whose it was. */
static const char *tag_for(const char *by, const char *project, const char *task)
{
	return project_has(by, project ? project : PROJECT_DEFAULT) ? tag_of(task) : TAG_OF_OTHERS;
}

static bool is_tag_of(const char *tag, const char *by, const char *project, const char *task)
{
	bool may_have_been = !project && (str_eq(tag, tag_of(task)) || str_eq(tag, TAG_OF_OTHERS));
	return may_have_been || str_eq(tag, tag_for(by, project, task));
}

static enum err_code read_place(struct db_conn *conn, const char *by, struct feed_place *p, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT f.n, f.task, (SELECT MIN(n) FROM feed), t.project FROM feed AS f LEFT JOIN tasks AS t ON t.id=f.task ORDER BY f.n DESC LIMIT 1", &s, e);
	if (rc)
		return rc;
	rc = db_step(s, &row, e);
	*p = (struct feed_place){ .head_cursor = "0" };
	if (!rc && row) {
		p->head = db_int(s, 0);
		p->oldest = db_int(s, 2);
		snprintf(p->head_cursor, FEED_CURSOR_SIZE, "%lld-%.6s", (long long)p->head, tag_for(by, db_text(s, 3), db_text(s, 1)));
	}
	db_done(s);
	return rc;
}

/* --- where a cursor points */

struct look {
	const char *by, *tag;
	int64_t n;
	struct feed_place place;
};

static enum err_code gone(const struct look *l, struct error *e)
{
	if (l->n && l->n < l->place.oldest)
		error_set(e, ERR_GONE, "the events up to %lld are not kept any more, the cursor is at %lld", (long long)l->place.oldest - 1, (long long)l->n);
	else
		error_set(e, ERR_GONE, "the cursor %lld-%s is no place in this log", (long long)l->n, l->tag);
	error_hint(e, "begin again from the oldest: ?after=0");
	return ERR_GONE;
}

/* The one before the oldest is a place still, though its row is gone. */
static enum err_code look_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct look *l = arg;
	struct db_stmt *s;
	bool row = false, good = false;
	enum err_code rc = read_place(conn, l->by, &l->place, e);
	if (!rc)
		rc = db_prepare(conn, "SELECT f.task, t.project FROM feed AS f LEFT JOIN tasks AS t ON t.id=f.task WHERE f.n=?1", &s, e);
	if (rc)
		return rc;
	db_bind_int(s, 1, l->n);
	rc = db_step(s, &row, e);
	if (!rc)
		good = row ? is_tag_of(l->tag, l->by, db_text(s, 1), db_text(s, 0)) : l->n && l->n == l->place.oldest - 1;
	db_done(s);
	return rc || good ? rc : gone(l, e);
}

static enum err_code place_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct look *l = arg;
	return read_place(conn, l->by, &l->place, e);
}

static enum err_code ask_place(struct core *c, const char *by, struct feed_place *ret, struct error *e)
{
	struct look l = { .by = by };
	enum err_code rc = db_read(c->db, place_op, &l, e);
	*ret = l.place;
	return rc;
}

enum err_code core_feed_cursor(struct core *c, struct caller by, const char *text, int64_t *ret_after, struct error *e)
{
	struct look l = { .by = by.project };
	bool end = str_eq(text, "end");
	const char *dash = strchr(text, '-');
	if (str_empty(text) || str_eq(text, "0") || end) {
		enum err_code rc = ask_place(c, by.project, &l.place, e);
		*ret_after = end ? l.place.head : l.place.oldest ? l.place.oldest - 1 : 0;
		return rc;
	}
	AUTO_FREE char *number = dash ? mem_strndup(text, (size_t)(dash - text)) : NULL;
	if (!dash || strlen(dash + 1) != HUB_TAG_SIZE - 1 || str_to_i64(number, "after", 1, INT64_MAX - 1, &l.n, NULL)) {
		error_set(e, ERR_INVALID, "after: '%.40s' is not a cursor", text);
		error_hint(e, "give the cursor of an event, or 0 (from the oldest), or end (only what comes)");
		return ERR_INVALID;
	}
	l.tag = dash + 1;
	*ret_after = l.n;
	return db_read(c->db, look_op, &l, e);
}

/* --- pages */

struct page {
	const char *by;
	int64_t *after, limit;
	size_t bytes_max;
	void (*fn)(void *ctx, int64_t n, const char *cursor, const char *line);
	void *ctx;
	struct feed_place *place;
};

static void page_line(struct page *p, struct db_stmt *s, size_t *bytes)
{
	char cursor[FEED_CURSOR_SIZE];
	const char *line = db_text(s, 2);
	*p->after = db_int(s, 0);
	if (!line)
		return;
	cursor_make(cursor, *p->after, db_text(s, 1));
	*bytes += strlen(line);
	p->fn(p->ctx, *p->after, cursor, line);
}

static enum err_code page_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct page *p = arg;
	struct db_stmt *s;
	size_t bytes = 0;
	bool row = false;
	enum err_code rc = read_place(conn, p->by, p->place, e);
	if (!rc && p->place->oldest && *p->after < p->place->oldest - 1)
		rc = gone(&(struct look){ .n = *p->after ? *p->after : 1, .tag = "", .place = *p->place }, e);
	if (!rc)
		rc = db_prepare(conn, "SELECT f.n, f.task, v.line FROM feed AS f LEFT JOIN tasks AS t ON t.id=f.task AND (t.project=?3 OR ?3='*')"
			" LEFT JOIN events AS v ON v.task=t.id AND v.seq=f.seq WHERE f.n>?1 ORDER BY f.n LIMIT ?2", &s, e);
	if (rc)
		return rc;
	db_bind_int(s, 1, *p->after);
	db_bind_int(s, 2, p->limit);
	db_bind_text(s, 3, p->by);
	while (bytes <= p->bytes_max && !(rc = db_step(s, &row, e)) && row)
		page_line(p, s, &bytes);
	db_done(s);
	return rc;
}

enum err_code core_feed(struct core *c, struct caller by, int64_t *ret_after, int64_t limit, size_t bytes_max,
	void (*fn)(void *ctx, int64_t n, const char *cursor, const char *line), void *ctx, struct feed_place *ret, struct error *e)
{
	struct page p = { .by = by.project, .after = ret_after, .limit = limit < FEED_LINE_MAX ? limit : FEED_LINE_MAX, .bytes_max = bytes_max, .fn = fn, .ctx = ctx, .place = ret };
	return db_read(c->db, page_op, &p, e);
}

/* --- keeping */

enum err_code feed_start(struct core *c, struct error *e)
{
	struct feed_place place = { 0 };
	enum err_code rc = ask_place(c, PROJECT_ANY, &place, e);
	hub_seed_all(c->hub, place.head);
	return rc;
}

struct forget {
	struct feed_place place;
	int64_t upto;
};

static enum err_code forget_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct forget *f = arg;
	return db_exec(conn, e, "DELETE FROM feed WHERE n<=?1", "i", f->upto);
}

void feed_tick(struct core *c)
{
	struct forget f = { .upto = 0 };
	struct error e = ERROR_INIT;
	enum err_code rc = ask_place(c, PROJECT_ANY, &f.place, &e);
	if (!rc && f.place.head - f.place.oldest >= FEED_KEPT + FEED_FORGET_STEP) {
		f.upto = f.place.oldest + FEED_FORGET_STEP - 1;
		rc = db_write(c->db, forget_op, &f, &e);
	}
	if (rc)
		log_warn("feed: %s", e.text);
}
