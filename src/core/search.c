/* Full text over prompts.  To index a prompt costs ten times what its task's row costs, so a submit does not: the index follows the rows by
 * their numbers, up to a mark.  It is brought up to date by the tick, and by each search before it looks: what was acknowledged is found. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "core/inside.h"
#include <string.h>

#define SEARCH_BITE_US 5000		 /* of one transaction, when nobody else wants to write ... */
#define SEARCH_BITE_LEAST_US 500	 /* ... and when somebody waits: he does so for that long, one prompt and a commit */
#define SEARCH_TICK_MS 100		 /* of each tick, when nobody else writes ... */
#define SEARCH_TICK_CROWDED_MS 10	 /* ... and when many do */
#define SEARCH_CATCH_UP_MS 10000	 /* of one search, before it looks */
#define SEARCH_WORDS_MAX 32
#define SEARCH_PROMPT "substr(json_extract(spec, '$.prompt'), 1, 65536)" /* what of a prompt is indexed; the same when it is taken out */

struct bite {
	struct db *db;
	int64_t begun_us;
	int64_t mark; /* the last row that is in the index; 0: none came in */
	bool more;
};

/* A long bite makes few segments of the index, a short one lets the others write. */
static bool bite_is_full(const struct bite *b)
{
	int64_t taken_us = clock_mono_us() - b->begun_us;
	return taken_us > SEARCH_BITE_US || (taken_us > SEARCH_BITE_LEAST_US && db_others_wait(b->db));
}

static enum err_code index_one(struct db_conn *c, const char *task, const char *prompt, struct error *e)
{
	enum err_code rc = db_exec(c, e, "INSERT INTO search_tasks(task) VALUES(?1)", "s", task);
	return rc ? rc : db_exec(c, e, "INSERT INTO search(rowid, prompt) VALUES(?1, ?2)", "is", db_inserted(c), prompt);
}

static enum err_code bite_op(struct db_conn *c, void *arg, struct error *e)
{
	struct bite *b = arg;
	struct db_stmt *s;
	bool row = false;
	*b = (struct bite){ .db = b->db, .begun_us = clock_mono_us() };
	enum err_code rc = db_prepare(c, "SELECT rowid, id, " SEARCH_PROMPT " FROM tasks WHERE rowid>(SELECT n FROM search_mark) ORDER BY rowid", &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row && !(b->mark && bite_is_full(b))) {
		rc = index_one(c, db_text(s, 1), db_text(s, 2), e);
		if (rc)
			break;
		b->mark = db_int(s, 0);
	}
	b->more = row;
	db_done(s);
	return rc || !b->mark ? rc : db_exec(c, e, "UPDATE search_mark SET n=?1", "i", b->mark);
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
		struct bite b = { .db = c->db };
		rc = db_write_again(c->db, bite_op, &b, e);
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
