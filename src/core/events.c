/* Reading the log: pages of event lines from the database. */
#include "base/cleanup.h"
#include "core/feed.h"
#include "core/inside.h"
#include <string.h>

struct page {
	const char *project, *task;
	int64_t after, limit;
	size_t bytes_max;
	void (*fn)(void *ctx, int64_t seq, const char *line);
	void *ctx;
	int64_t head;
	bool over;
};

static enum err_code page_op(struct db_conn *c, void *arg, struct error *e)
{
	struct page *p = arg;
	struct db_stmt *s;
	size_t bytes = 0;
	bool row = false;
	enum err_code rc = db_prepare(c, "SELECT last_seq, phase FROM tasks WHERE id=?1 AND (project=?2 OR ?2='*')", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, p->task);
	db_bind_text(s, 2, p->project);
	rc = db_step(s, &row, e);
	if (!rc && !row)
		rc = error_set(e, ERR_NOT_FOUND, "no task '%s'", p->task);
	if (!rc) {
		enum phase phase = PHASE_QUEUED;
		p->head = db_int(s, 0);
		p->over = phase_from_name(db_text(s, 1), &phase) && phase_is_terminal(phase);
	}
	db_done(s);
	if (rc || p->limit == 0)
		return rc;
	rc = db_prepare(c, "SELECT seq, line FROM events WHERE task=?1 AND seq>?2 ORDER BY seq LIMIT ?3", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, p->task);
	db_bind_int(s, 2, p->after);
	db_bind_int(s, 3, p->limit);
	while (bytes <= p->bytes_max && !(rc = db_step(s, &row, e)) && row) {
		const char *line = db_text(s, 1);
		bytes += strlen(line);
		p->fn(p->ctx, db_int(s, 0), line);
	}
	db_done(s);
	return rc;
}

enum err_code core_events_within(struct core *c, struct caller by, const char *task_id, int64_t after, int64_t limit, size_t bytes_max,
	void (*fn)(void *ctx, int64_t seq, const char *line), void *ctx, int64_t *ret_head, bool *ret_over, struct error *e)
{
	struct page p = { .project = by.project, .task = task_id, .after = after, .limit = limit < EVENTS_PAGE_MAX ? limit : EVENTS_PAGE_MAX, .bytes_max = bytes_max, .fn = fn, .ctx = ctx };
	enum err_code rc = db_read(c->db, page_op, &p, e);
	if (!rc) {
		*ret_head = p.head;
		*ret_over = p.over;
	}
	return rc;
}

enum err_code core_events(struct core *c, struct caller by, const char *task_id, int64_t after, int64_t limit,
	void (*fn)(void *ctx, int64_t seq, const char *line), void *ctx, int64_t *ret_head, bool *ret_over, struct error *e)
{
	return core_events_within(c, by, task_id, after, limit, EVENTS_PAGE_BYTES, fn, ctx, ret_head, ret_over, e);
}

/* The type stands before the data, so the first member of that name is the event's own. */
static const char *line_type(const char *line)
{
	static const char member[] = "\"type\":\"";
	const char *at = strstr(line, member);
	return at ? at + sizeof(member) - 1 : "";
}

bool core_line_is(const char *line, const char *type)
{
	return strncmp(line_type(line), type, strlen(type)) == 0;
}

struct generation {
	const char *task;
	int64_t n;
};

static enum err_code generation_op(struct db_conn *c, void *arg, struct error *e)
{
	struct generation *g = arg;
	return db_number(c, e, &g->n, "SELECT generation FROM tasks WHERE id=?1", "s", g->task);
}

int64_t core_generation(struct core *c, const char *task_id)
{
	struct generation g = { .task = task_id, .n = 1 };
	struct error e = ERROR_INIT;
	return db_read(c->db, generation_op, &g, &e) ? 1 : g.n;
}

bool core_line_begins_again(const char *line)
{
	return core_line_is(line, "task.retried\"") || core_line_is(line, "task.turn\"");
}

struct heads {
	const char *project, *younger_than;
	struct js *heads;
};

static enum err_code heads_op(struct db_conn *c, void *arg, struct error *e)
{
	static const char *const queries[] = {
		"SELECT id, last_seq FROM tasks WHERE " SQL_LIVE("phase") " AND ?1 IS ?1 AND project=?2",
		"SELECT id, last_seq FROM tasks WHERE id>?1 AND project=?2",
	};
	const struct heads *h = arg;
	enum err_code rc = ERR_OK;
	for (size_t i = 0; !rc && i < (h->younger_than ? ARRAY_SIZE(queries) : 1); i++) {
		struct db_stmt *s;
		bool row = false;
		rc = db_prepare(c, queries[i], &s, e);
		if (rc)
			return rc;
		db_bind_text(s, 1, h->younger_than);
		db_bind_text(s, 2, h->project);
		while (js_len(h->heads) < HEADS_MAX && !(rc = db_step(s, &row, e)) && row)
			js_set_int(h->heads, db_text(s, 0), db_int(s, 1));
		db_done(s);
	}
	return rc;
}

enum err_code core_heads(struct core *c, struct caller by, const char *younger_than, struct js *heads, struct error *e)
{
	struct heads h = { .project = by.project, .younger_than = younger_than, .heads = heads };
	return db_read(c->db, heads_op, &h, e);
}

void core_publish(struct core *c, const struct outbox *out)
{
	for (size_t i = 0; i < out->count; i++) {
		const struct outbox_line *l = &out->lines[i];
		const char *type = line_type(l->line);
		if (str_starts(type, "gate."))
			gates_count(c, type + strlen("gate."));
		/* Before anybody hears of it: who hears of an end asks whether it is on record. */
		if (str_starts(type, "task.done\""))
			taskdir_dirty_ended(c, l->task);
		else if (i + 1 == out->count || strcmp(l->task, l[1].task) != 0)
			taskdir_dirty(c, l->task);
		hub_publish(c->hub, l->task, l->seq, l->line);
		feed_publish(c, l->n, l->project, l->task, l->line);
	}
}
