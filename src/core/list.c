/* Lists of tasks, newest first, a page at a time.  The strongest filter gives the candidates by its index (a name, words, a label, states, a
 * repository), the others are looked up row by row.  A page ends when it is full, when it is large, or when enough rows were looked at: its cursor
 * goes on from there, so no list costs more than a page.
 * The tasks of a project other than the default one have an index of their own; there the other filters look at them row by row, so that no cursor
 * names a task of somebody else. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_SCAN_MAX 10000		  /* candidates looked at for one page */
#define LIST_BYTES_MAX ((size_t)8 << 20)  /* of one page, about */
#define NEWEST_ID "~" /* sorts behind every id */

enum source { SOURCE_ALL, SOURCE_NAME, SOURCE_TEXT, SOURCE_LABEL, SOURCE_STATE, SOURCE_REPO, SOURCE_PROJECT };

/* Each gives (task, place in the order) of the project ?4 with a place below ?1, in falling order. */
static const char *const source_sql[] = {
	[SOURCE_ALL] = "SELECT id, 0 FROM tasks WHERE id<?1 AND project=?4 ORDER BY id DESC",
	[SOURCE_NAME] = "SELECT id, 0 FROM tasks WHERE name=?2 AND id<?1 AND project=?4 ORDER BY id DESC",
	[SOURCE_TEXT] = "SELECT s.task, s.n FROM search JOIN search_tasks AS s ON s.n=search.rowid JOIN tasks AS t ON t.id=s.task AND t.project=?4 WHERE search MATCH ?2 AND search.rowid<?1 ORDER BY search.rowid DESC",
	[SOURCE_LABEL] = "SELECT l.task, 0 FROM task_labels AS l JOIN tasks AS t ON t.id=l.task AND t.project=?4 WHERE l.key=?2 AND l.value=?3 AND l.task<?1 ORDER BY l.task DESC",
	[SOURCE_STATE] = "SELECT id, 0 FROM tasks WHERE phase=?2 AND " SQL_LIVE("phase") " AND id<?1 AND project=?4 ORDER BY id DESC",
	[SOURCE_REPO] = "SELECT id, 0 FROM tasks WHERE repo=?2 AND id<?1 AND project=?4 ORDER BY id DESC",
	[SOURCE_PROJECT] = "SELECT id, 0 FROM tasks WHERE project=?4 AND project<>'" PROJECT_DEFAULT "' AND id<?1 ORDER BY id DESC",
};
static const char over_sql[] = "SELECT id, 0 FROM tasks WHERE phase=?2 AND " SQL_OVER("phase") " AND id<?1 AND project=?4 ORDER BY id DESC";

struct label { char *key, *value; }; /* value NULL: whatever it is */

/* One falling sequence of candidates; a list of several states merges one for each phase. */
struct feed {
	struct db_stmt *stmt;
	char id[ID_SIZE];
	int64_t place;
	bool row;
};

struct list {
	struct core *core;
	const char *project;
	const struct task_filter *filter;
	enum source source;
	struct label *labels;
	struct strbuf words; /* of q, in the index's language */
	unsigned phases;     /* bit per phase; 0: all */
	int64_t after_place;
	struct feed feeds[PHASE_COUNT];
	size_t feed_count;
	struct js *data;
	char next[ID_SIZE];
	int64_t limit;
};

/* "RUNNING,QUEUED" -> the phases that are shown so. */
static enum err_code parse_states(const char *text, unsigned *ret, struct error *e)
{
	AUTO_FREE char *copy = mem_strdup(text);
	for (char *save = NULL, *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		unsigned hit = 0;
		for (unsigned p = 0; p < PHASE_COUNT; p++)
			if (str_eq(phase_status((enum phase)p), word))
				hit |= 1u << p;
		if (!hit)
			return error_set(e, ERR_INVALID, "state '%.40s': expected QUEUED, RUNNING, WAITING, DONE, ERROR, TIMEOUT or CANCELED", word);
		*ret |= hit;
	}
	return ERR_OK;
}

static enum err_code parse_labels(struct list *l, struct error *e)
{
	l->labels = mem_alloc((l->filter->label_count + 1) * sizeof(*l->labels));
	for (size_t i = 0; i < l->filter->label_count; i++) {
		const char *text = l->filter->labels[i];
		size_t n = strcspn(text, "=");
		if (!n)
			return error_set(e, ERR_INVALID, "label '%.80s': expected KEY=VALUE, or KEY for any value", text);
		l->labels[i].key = mem_strndup(text, n);
		l->labels[i].value = text[n] ? mem_strdup(text + n + 1) : NULL;
	}
	return ERR_OK;
}

static enum err_code parse_cursor(struct list *l, struct error *e)
{
	const char *after = l->filter->after;
	l->after_place = INT64_MAX;
	if (str_empty(after) || (l->source != SOURCE_TEXT && clock_is_id(after)))
		return ERR_OK;
	if (l->source == SOURCE_TEXT && after[0] == 'n' && str_to_i64(after + 1, "after", 1, INT64_MAX, &l->after_place, NULL) == ERR_OK)
		return ERR_OK;
	error_set(e, ERR_INVALID, "after '%.40s' is not a cursor of this list", after);
	error_hint(e, "give next_cursor of the page before, with the same filters");
	return ERR_INVALID;
}

static enum source choose_source(const struct list *l)
{
	const struct task_filter *f = l->filter;
	if (f->name)
		return SOURCE_NAME;
	if (f->q)
		return SOURCE_TEXT;
	if (!str_eq(l->project, PROJECT_DEFAULT))
		return SOURCE_PROJECT;
	if (f->label_count && l->labels[0].value)
		return SOURCE_LABEL;
	if (l->phases)
		return SOURCE_STATE;
	return f->repo ? SOURCE_REPO : SOURCE_ALL;
}

static enum err_code feed_open(struct list *l, struct db_conn *c, const char *sql, const char *second, struct error *e)
{
	struct feed *f = &l->feeds[l->feed_count];
	enum err_code rc = db_prepare(c, sql, &f->stmt, e);
	if (rc)
		return rc;
	l->feed_count++;
	if (l->source == SOURCE_TEXT)
		db_bind_int(f->stmt, 1, l->after_place);
	else
		db_bind_text(f->stmt, 1, str_empty(l->filter->after) ? NEWEST_ID : l->filter->after);
	if (second)
		db_bind_text(f->stmt, 2, second);
	if (l->source == SOURCE_LABEL)
		db_bind_text(f->stmt, 3, l->labels[0].value);
	db_bind_text(f->stmt, 4, l->project);
	return ERR_OK;
}

static enum err_code feed_step(struct feed *f, struct error *e)
{
	enum err_code rc = db_step(f->stmt, &f->row, e);
	if (rc || !f->row)
		return rc;
	snprintf(f->id, sizeof(f->id), "%s", db_text(f->stmt, 0));
	f->place = db_int(f->stmt, 1);
	return ERR_OK;
}

static enum err_code feeds_open(struct list *l, struct db_conn *c, struct error *e)
{
	const char *second[] = { [SOURCE_ALL] = NULL, [SOURCE_NAME] = l->filter->name, [SOURCE_TEXT] = strbuf_str(&l->words),
		[SOURCE_LABEL] = l->labels[0].key, [SOURCE_STATE] = NULL, [SOURCE_REPO] = l->filter->repo, [SOURCE_PROJECT] = NULL };
	enum err_code rc = ERR_OK;
	if (l->source != SOURCE_STATE)
		rc = feed_open(l, c, source_sql[l->source], second[l->source], e);
	for (unsigned p = 0; !rc && l->source == SOURCE_STATE && p < PHASE_COUNT; p++)
		if (l->phases & (1u << p))
			rc = feed_open(l, c, phase_is_terminal((enum phase)p) ? over_sql : source_sql[SOURCE_STATE], phase_name((enum phase)p), e);
	for (size_t i = 0; !rc && i < l->feed_count; i++)
		rc = feed_step(&l->feeds[i], e);
	return rc;
}

/* The feed that has the newest candidate; NULL at the end. */
static struct feed *feed_newest(struct list *l)
{
	struct feed *best = NULL;
	for (size_t i = 0; i < l->feed_count; i++)
		if (l->feeds[i].row && (!best || strcmp(l->feeds[i].id, best->id) > 0))
			best = &l->feeds[i];
	return best;
}

static bool labels_match(const struct list *l, const char *text)
{
	AUTO_JS struct js *labels = js_parse(text, strlen(text), NULL);
	for (size_t i = 0; i < l->filter->label_count; i++) {
		const char *v = js_str(labels, l->labels[i].key);
		if (!v || (l->labels[i].value && !str_eq(v, l->labels[i].value)))
			return false;
	}
	return true;
}

static bool needs_look(const struct list *l)
{
	const struct task_filter *f = l->filter;
	return (l->phases && l->source != SOURCE_STATE) || (f->repo && l->source != SOURCE_REPO) || (f->name && l->source != SOURCE_NAME) ||
		f->label_count > (l->source == SOURCE_LABEL);
}

/* Whether a candidate passes the filters that its source has not applied. */
static enum err_code candidate_passes(const struct list *l, struct db_conn *c, const char *id, bool *ret, struct error *e)
{
	struct db_stmt *s;
	enum phase p = PHASE_QUEUED;
	bool row = false;
	*ret = true;
	if (!needs_look(l))
		return ERR_OK;
	enum err_code rc = db_prepare(c, "SELECT phase, repo, labels FROM tasks WHERE id=?1", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, id);
	rc = db_step(s, &row, e);
	*ret = !rc && row && (!l->phases || (phase_from_name(db_text(s, 0), &p) && l->phases & (1u << p))) &&
		(!l->filter->repo || str_eq(db_text(s, 1), l->filter->repo)) && (!l->filter->label_count || labels_match(l, db_text(s, 2)));
	db_done(s);
	return rc;
}

static void set_cursor(struct list *l, const struct feed *last)
{
	if (l->source == SOURCE_TEXT)
		snprintf(l->next, sizeof(l->next), "n%" PRId64, last->place);
	else
		memcpy(l->next, last->id, ID_SIZE);
}

static enum err_code add_task(struct list *l, struct db_conn *c, const char *id, size_t *bytes, struct error *e)
{
	struct js *o = NULL;
	enum err_code rc = core_show(l->core, c, id, SHOW_RUN, &o, e);
	if (rc)
		return rc;
	js_push(l->data, o);
	*bytes += js_text_len(js_get(o, "prompt"));
	return ERR_OK;
}

static enum err_code fill_page(struct list *l, struct db_conn *c, struct error *e)
{
	struct feed last = { .stmt = NULL };
	size_t bytes = 0;
	enum err_code rc = ERR_OK;
	for (int seen = 0; !rc; seen++) {
		struct feed *f = feed_newest(l);
		bool passes = false;
		if (!f)
			return ERR_OK;
		if (seen == LIST_SCAN_MAX || bytes > LIST_BYTES_MAX || (int64_t)js_len(l->data) == l->limit) {
			set_cursor(l, &last);
			return ERR_OK;
		}
		last = *f;
		rc = candidate_passes(l, c, last.id, &passes, e);
		if (!rc && passes)
			rc = add_task(l, c, last.id, &bytes, e);
		if (!rc)
			rc = feed_step(f, e);
	}
	return rc;
}

static enum err_code list_op(struct db_conn *c, void *arg, struct error *e)
{
	struct list *l = arg;
	enum err_code rc = feeds_open(l, c, e);
	return rc ? rc : fill_page(l, c, e); /* the statements end with the op */
}

static enum err_code list_begin(struct list *l, struct error *e)
{
	const struct task_filter *f = l->filter;
	enum err_code rc = f->state ? parse_states(f->state, &l->phases, e) : ERR_OK;
	if (!rc)
		rc = parse_labels(l, e);
	if (rc)
		return rc;
	l->source = choose_source(l);
	rc = parse_cursor(l, e);
	if (!rc && f->q && f->name)
		rc = error_set(e, ERR_INVALID, "name and q cannot be given together: a name is one task");
	if (!rc && f->q)
		rc = search_parse(f->q, &l->words, e);
	return !rc && f->q ? search_catch_up(l->core, e) : rc;
}

static void list_release(struct list *l)
{
	for (size_t i = 0; l->labels && i < l->filter->label_count; i++) {
		free(l->labels[i].key);
		free(l->labels[i].value);
	}
	free(l->labels);
	strbuf_release(&l->words);
	js_free(l->data);
}

enum err_code core_tasks(struct core *c, struct caller by, const struct task_filter *f, struct js **ret_list, struct error *e)
{
	struct list l = { .core = c, .project = by.project, .filter = f, .data = js_array(), .limit = f->limit < TASKS_PAGE_MAX ? f->limit : TASKS_PAGE_MAX, .words = STRBUF_INIT };
	enum err_code rc = list_begin(&l, e);
	if (!rc)
		rc = db_read(c->db, list_op, &l, e);
	if (!rc) {
		*ret_list = js_object();
		js_set(*ret_list, "data", js_ref(l.data));
		js_set(*ret_list, "next_cursor", l.next[0] ? js_string(l.next) : js_null());
	}
	list_release(&l);
	return rc;
}
