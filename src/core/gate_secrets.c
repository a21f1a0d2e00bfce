/* People's secret answers: sealed in rows and files, open only on their way to a runner, and hidden from the model gateway's record first:
 * what an agent is told it tells its model. */
#include "agent/decision.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "core/gate.h"
#include "core/inside.h"
#include <stdlib.h>
#include <string.h>

#define HIDDEN_BYTES_MAX ((size_t)4 << 20) /* of all that is told to a gateway at its start */

typedef enum err_code text_fn(struct core *c, const char *text, char **ret, struct error *e);

static enum err_code seal_one(struct core *c, const char *text, char **ret, struct error *e UNUSED)
{
	*ret = seal_text(c->seal_key, text);
	return ERR_OK;
}

static enum err_code reveal_one(struct core *c, const char *text, char **ret, struct error *e)
{
	return seal_reveal(c->seal_key, text, ret, e);
}

/* Every text of the answers to `question` is replaced by what fn makes of it. */
static enum err_code change_answers(struct core *c, struct js *answers, const char *question, text_fn *fn, struct error *e)
{
	const struct js *texts = js_get(answers, question);
	AUTO_JS struct js *changed = js_array();
	for (size_t i = 0; i < js_len(texts); i++) {
		char *text = NULL;
		enum err_code rc = fn(c, js_text(js_at(texts, i)) ? js_text(js_at(texts, i)) : "", &text, e);
		if (rc)
			return rc;
		js_push_str(changed, text);
		seal_forget(text);
	}
	if (texts)
		js_set(answers, question, js_ref(changed));
	return ERR_OK;
}

static enum err_code change_secrets(struct core *c, const struct js *data, struct js *decision, text_fn *fn, struct error *e)
{
	const struct js *questions = js_get(data, "questions");
	enum err_code rc = ERR_OK;
	for (size_t i = 0; !rc && i < js_len(questions); i++) {
		const struct js *q = js_at(questions, i);
		if (js_flag(q, "secret", false) && js_str(q, "id") && js_get(decision, "answers"))
			rc = change_answers(c, js_get(decision, "answers"), js_str(q, "id"), fn, e);
	}
	return rc;
}

enum err_code gate_seal(struct core *c, const struct js *data, struct js *decision, struct error *e)
{
	return change_secrets(c, data, decision, seal_one, e);
}

enum err_code gate_reveal(struct core *c, const struct js *data, struct js *decision, struct error *e)
{
	return change_secrets(c, data, decision, reveal_one, e);
}

struct unseal {
	const char *gate;
	struct gate_row row;
};

static enum err_code load_gate_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct unseal *u = arg;
	return gate_load(conn, u->gate, &u->row, e);
}

static void add_texts(struct js *texts, const struct js *data, const struct js *decision)
{
	const struct js *questions = js_get(data, "questions");
	for (size_t i = 0; i < js_len(questions); i++) {
		const struct js *q = js_at(questions, i), *given = js_get(js_get(decision, "answers"), js_str_or(q, "id", ""));
		for (size_t n = 0; js_flag(q, "secret", false) && n < js_len(given); n++)
			js_push(texts, js_ref(js_at(given, n)));
	}
}

enum err_code gate_unseal(struct core *c, struct js *decision, struct error *e)
{
	struct unseal u = { .gate = js_str_or(decision, "gate", "") };
	AUTO_JS struct js *texts = js_array();
	enum err_code rc = db_read(c->db, load_gate_op, &u, e);
	if (!rc)
		rc = gate_reveal(c, u.row.data, decision, e);
	if (!rc)
		add_texts(texts, u.row.data, decision);
	if (!rc && js_len(texts))
		rc = gateway_ctl_hide(c, u.row.task, texts, e);
	gate_row_release(&u.row);
	return rc;
}

/* ---- all of a task's */

struct hidden_look {
	struct core *core;
	const char *task; /* NULL: of all tasks that are not over */
	struct js *out;	  /* {task: [texts]} */
	size_t bytes;
};

static struct js *parse_column(struct db_stmt *s, int column)
{
	const char *text = db_text(s, column);
	return text ? js_parse(text, strlen(text), NULL) : NULL;
}

static void take_row(struct hidden_look *l, struct db_stmt *s)
{
	AUTO_JS struct js *data = parse_column(s, 1);
	AUTO_JS struct js *decision = parse_column(s, 2);
	const char *task = db_text(s, 0);
	if (!decision_is_secret(data) || !decision || gate_reveal(l->core, data, decision, NULL))
		return; /* what does not open is not handed out either */
	if (!js_get(l->out, task))
		js_set(l->out, task, js_array());
	struct js *texts = js_get(l->out, task);
	size_t before = js_len(texts);
	add_texts(texts, data, decision);
	for (size_t i = before; i < js_len(texts); i++)
		l->bytes += js_text_len(js_at(texts, i));
}

static enum err_code hidden_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct hidden_look *l = arg;
	struct db_stmt *s;
	bool row = false;
	/* The text narrows it down without parsing; decision_is_secret judges. The newest first: they are the ones in use. */
	enum err_code rc = db_prepare(conn, l->task
		? "SELECT task, data, decision FROM gates WHERE task=?1 AND decision IS NOT NULL AND instr(data, '\"secret\":true') ORDER BY id DESC"
		: "SELECT g.task, g.data, g.decision FROM tasks t JOIN gates g ON g.task=t.id"
		  " WHERE " SQL_LIVE("t.phase") " AND g.decision IS NOT NULL AND instr(g.data, '\"secret\":true')"
		  " ORDER BY g.id DESC", &s, e);
	if (rc)
		return rc;
	if (l->task)
		db_bind_text(s, 1, l->task);
	while (!(rc = db_step(s, &row, e)) && row && l->bytes < HIDDEN_BYTES_MAX)
		take_row(l, s);
	db_done(s);
	if (!rc && row)
		rc = error_set(e, ERR_LIMIT, "more than %zu bytes of secret answers", HIDDEN_BYTES_MAX);
	return rc;
}

enum err_code gate_secrets(struct core *c, const char *task, struct js **ret, struct error *e)
{
	struct hidden_look l = { .core = c, .task = task, .out = js_object() };
	enum err_code rc = db_read(c->db, hidden_op, &l, e);
	*ret = l.out;
	return rc;
}

enum err_code gate_hide(struct core *c, const char *task, struct js **ret_texts, struct error *e)
{
	AUTO_JS struct js *all = NULL;
	enum err_code rc = gate_secrets(c, task, &all, e);
	const struct js *texts = js_get(all, task);
	if (!rc && js_len(texts))
		rc = gateway_ctl_hide(c, task, texts, e);
	if (!rc)
		*ret_texts = texts ? js_ref(texts) : js_array();
	return rc;
}
