/* Full text over prompts.  To index a prompt costs ten times what its task's row costs, so a submit does not: the index follows the rows by
 * their numbers, up to a mark.  It is brought up to date by the tick, and by each search before it looks: what was acknowledged is found. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "core/inside.h"
#include <stdio.h>
#include <string.h>

#define SEARCH_BATCH 128		 /* prompts in one transaction */
#define SEARCH_BATCH_BYTES (256 << 10)	 /* of text in one transaction: others wait that long for their commit */
#define SEARCH_TICK_MS 100		 /* of each tick, when nobody else writes ... */
#define SEARCH_TICK_CROWDED_MS 10	 /* ... and when many do */
#define SEARCH_CATCH_UP_MS 10000	 /* of one search, before it looks */
#define SEARCH_WORDS_MAX 32
#define SEARCH_PROMPT "substr(json_extract(spec, '$.prompt'), 1, 65536)" /* what of a prompt is indexed; the same when it is taken out */

struct batch {
	char ids[SEARCH_BATCH][ID_SIZE];
	int count;
	int64_t mark;
	bool more;
};

static enum err_code index_one(struct db_conn *c, const char *task, struct error *e)
{
	enum err_code rc = db_exec(c, e, "INSERT INTO search_tasks(task) VALUES(?1)", "s", task);
	return rc ? rc : db_exec(c, e, "INSERT INTO search(rowid, prompt) SELECT s.n, " SEARCH_PROMPT " FROM tasks AS t JOIN search_tasks AS s ON s.task=t.id WHERE t.id=?1", "s", task);
}

static enum err_code batch_take(struct db_conn *c, struct batch *b, struct error *e)
{
	struct db_stmt *s;
	int64_t bytes = 0;
	bool row = false;
	enum err_code rc = db_prepare(c, "SELECT id, length(spec), rowid FROM tasks WHERE rowid>(SELECT n FROM search_mark) ORDER BY rowid", &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row) {
		if (b->count == SEARCH_BATCH || (b->count && bytes + db_int(s, 1) > SEARCH_BATCH_BYTES))
			break;
		bytes += db_int(s, 1);
		b->mark = db_int(s, 2);
		snprintf(b->ids[b->count++], ID_SIZE, "%s", db_text(s, 0));
	}
	b->more = row;
	db_done(s);
	return rc;
}

static enum err_code batch_op(struct db_conn *c, void *arg, struct error *e)
{
	struct batch *b = arg;
	enum err_code rc = batch_take(c, b, e);
	for (int i = 0; i < b->count && !rc; i++)
		rc = index_one(c, b->ids[i], e);
	if (!rc && b->count)
		rc = db_exec(c, e, "UPDATE search_mark SET n=?1", "i", b->mark);
	return rc;
}

static enum err_code wanted_op(struct db_conn *c, void *arg, struct error *e)
{
	return db_has(c, e, arg, "SELECT 1 FROM tasks WHERE rowid>(SELECT n FROM search_mark) LIMIT 1", "");
}

static enum err_code catch_up(struct core *c, int64_t time_ms, bool *ret_more, struct error *e)
{
	int64_t until = clock_mono_ms() + time_ms;
	enum err_code rc = db_read(c->db, wanted_op, ret_more, e);
	while (!rc && *ret_more && clock_mono_ms() < until) {
		struct batch b = { .count = 0 };
		rc = db_write(c->db, batch_op, &b, e);
		*ret_more = b.more;
	}
	return rc;
}

enum err_code search_catch_up(struct core *c, struct error *e)
{
	bool more = false;
	enum err_code rc = catch_up(c, SEARCH_CATCH_UP_MS, &more, e);
	if (rc || !more)
		return rc;
	error_set(e, ERR_BUSY, "the words of many new tasks are still being indexed");
	error_hint(e, "search again in a moment");
	return ERR_BUSY;
}

void search_tick(struct core *c)
{
	struct db_stats stats;
	struct error e = ERROR_INIT;
	bool more = false;
	db_stats(c->db, &stats);
	if (catch_up(c, stats.queued_now ? SEARCH_TICK_CROWDED_MS : SEARCH_TICK_MS, &more, &e))
		log_warn("search: %s", e.text);
}

enum err_code search_forget(struct db_conn *c, const char *task, struct error *e)
{
	enum err_code rc = db_exec(c, e, "INSERT INTO search(search, rowid, prompt) SELECT 'delete', s.n, " SEARCH_PROMPT
		" FROM tasks AS t JOIN search_tasks AS s ON s.task=t.id WHERE t.id=?1", "s", task);
	return rc ? rc : db_exec(c, e, "DELETE FROM search_tasks WHERE task=?1", "s", task);
}

/* One word as a phrase of the index's language: quoted, so that nothing in it is an operator. */
static void add_phrase(struct strbuf *out, const char *text, size_t n, bool prefix)
{
	strbuf_adds(out, out->len ? " \"" : "\"");
	for (size_t i = 0; i < n; i++) {
		if (text[i] == '"')
			strbuf_addc(out, '"');
		strbuf_addc(out, text[i]);
	}
	strbuf_adds(out, prefix ? "\"*" : "\"");
}

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* "fix parser", "\"empty line\"", "pars*": all words must be there; a quoted part is a phrase, a star at a word's end stands for any end. */
enum err_code search_parse(const char *q, struct strbuf *out, struct error *e)
{
	int words = 0;
	for (const char *p = q; *p;) {
		if (is_space(*p)) {
			p++;
			continue;
		}
		bool quoted = *p == '"';
		const char *from = p + quoted, *end = from;
		while (*end && (quoted ? *end != '"' : !is_space(*end) && *end != '"'))
			end++;
		p = quoted && *end ? end + 1 : end;
		bool prefix = !quoted && end > from && end[-1] == '*';
		if (end - prefix == from)
			continue;
		if (words++ == SEARCH_WORDS_MAX)
			return error_set(e, ERR_INVALID, "q: more than %d words", SEARCH_WORDS_MAX);
		add_phrase(out, from, (size_t)(end - from) - prefix, prefix);
	}
	return words ? ERR_OK : error_set(e, ERR_INVALID, "q: there is no word in it");
}
