/* The conversation: a message to a task that has ended or waits begins its next turn, in the workspace and the agent's session it left; one to
 * a task that is at work is queued when asked.  Gates: a question is settled once, and its answer is such a message. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/external.h"
#include "core/inside.h"
#include "core/talk.h"
#include <stdio.h>
#include <string.h>

#define MESSAGE_MAX ((size_t)256 << 10)
#define MESSAGES_WAITING_MAX 32
#define GATES_PAGE_MAX 1000

struct talk {
	struct core *core;
	const char *who, *ref, *repo, *text, *gate;
	const struct js *body;
	bool queue;
	char id[ID_SIZE];
	struct js *out;
	struct outbox outbox;
};

static enum err_code begin_turn(struct db_conn *c, const struct task_row *t, const char *text, const char *who, struct outbox *out, struct error *e)
{
	struct move m = { .to = PHASE_QUEUED, .actor = who, .reopen = true };
	enum err_code rc = task_move(c, t->id, &m, out, e);
	if (!rc)
		rc = db_exec(c, e, "UPDATE tasks SET turn=turn+1, turn_prompt=?2, house_failures=0, agent_failures=0, cancel_asked=0 WHERE id=?1", "ss", t->id, text);
	struct js *data = js_object();
	js_set_int(data, "turn", t->turn + 1);
	js_set_str(data, "text", text);
	if (rc) {
		js_free(data);
		return rc;
	}
	return event_add(c, t->id, "task.turn", NULL, 0, who, clock_wall_ms(), data, out, e);
}

static enum err_code count_waiting(struct db_conn *c, const char *task, int64_t *ret, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, "SELECT COUNT(*) FROM messages WHERE task=?1 AND delivered=0", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, task);
	rc = db_step(s, &row, e);
	*ret = !rc && row ? db_int(s, 0) : 0;
	db_done(s);
	return rc;
}

static enum err_code queue_message(struct db_conn *c, struct talk *k, const struct task_row *t, struct error *e)
{
	int64_t waiting = 0;
	enum err_code rc = count_waiting(c, t->id, &waiting, e);
	if (!rc && !k->queue) {
		error_set(e, ERR_CONFLICT, "task %s is %s, and its agent cannot be steered while it works", k->ref, phase_status(t->phase));
		error_hint(e, "say it again with --queue to have it delivered as the next turn, or wait for the end");
		return ERR_CONFLICT;
	}
	if (!rc && waiting >= MESSAGES_WAITING_MAX)
		return error_set(e, ERR_LIMIT, "%d messages are waiting already", MESSAGES_WAITING_MAX);
	if (!rc)
		rc = db_exec(c, e, "INSERT INTO messages(task,n,text,actor,created_at,delivered) SELECT ?1, COALESCE(MAX(n),0)+1, ?2, ?3, ?4, 0 FROM messages WHERE task=?1",
			"sssi", t->id, k->text, k->who, clock_wall_ms());
	struct js *data = js_object();
	js_set_str(data, "text", k->text);
	if (rc) {
		js_free(data);
		return rc;
	}
	return event_add(c, t->id, "message.queued", NULL, 0, k->who, clock_wall_ms(), data, &k->outbox, e);
}

/* One word settles every question that is open: the message is the answer. */
static enum err_code answer_open(struct db_conn *c, const char *task, const char *who, struct outbox *out, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	char ids[16][ID_SIZE];
	int n = 0;
	enum err_code rc = db_prepare(c, "SELECT id FROM gates WHERE task=?1 AND state='blocked' LIMIT 16", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, task);
	while (n < 16 && !(rc = db_step(s, &row, e)) && row)
		snprintf(ids[n++], ID_SIZE, "%s", db_text(s, 0));
	db_done(s);
	for (int i = 0; i < n && !rc; i++) {
		struct js *data = js_object();
		js_set_str(data, "gate", ids[i]);
		rc = db_exec(c, e, "UPDATE gates SET state='answered', settled_at=?2, actor=?3 WHERE id=?1 AND state='blocked'", "sis", ids[i], clock_wall_ms(), who);
		if (rc)
			js_free(data);
		else
			rc = event_add(c, task, "gate.answered", NULL, 0, who, clock_wall_ms(), data, out, e);
	}
	return rc;
}

static enum err_code message_op(struct db_conn *c, void *arg, struct error *e)
{
	struct talk *k = arg;
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_find(c, k->ref, k->repo, k->id, e);
	if (!rc)
		rc = task_load(c, k->id, &t, e);
	if (rc)
		return rc;
	if (external_is(&t))
		return error_set(e, ERR_CONFLICT, "task %s is of an agent that Signalbox did not start, and has no way to hear a message", k->ref);
	if (!phase_is_terminal(t.phase) && t.phase != PHASE_WAITING_HUMAN)
		return queue_message(c, k, &t, e);
	rc = answer_open(c, t.id, k->who, &k->outbox, e);
	return rc ? rc : begin_turn(c, &t, k->text, k->who, &k->outbox, e);
}

enum err_code core_message(struct core *c, const char *who, const char *ref, const char *repo, const struct js *body, struct js **ret_task, struct error *e)
{
	static const char *const members[] = { "text", "queue", NULL };
	struct talk k = { .core = c, .who = who, .ref = ref, .repo = repo };
	enum err_code rc = js_check_members(body, "", members, e);
	if (!rc)
		rc = js_want_str(body, "", "text", &k.text, e);
	if (!rc)
		rc = js_want_bool(body, "", "queue", &k.queue, e);
	if (!rc && str_empty(k.text))
		rc = error_set(e, ERR_INVALID, "text: missing or empty");
	if (!rc && strlen(k.text) > MESSAGE_MAX)
		rc = error_set(e, ERR_LIMIT, "text: %zu bytes, at most %zu are allowed", strlen(k.text), MESSAGE_MAX);
	if (!rc)
		rc = db_write(c->db, message_op, &k, e);
	if (!rc) {
		core_publish(c, &k.outbox);
		sched_ask(c);
		rc = core_task(c, k.id, NULL, ret_task, e);
	}
	outbox_release(&k.outbox);
	return rc;
}

/* At the end of a run: what was queued meanwhile becomes the next turn, in order, together. */
enum err_code talk_next_turn(struct db_conn *c, const char *task, struct outbox *out, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	AUTO_FREE char *who = NULL;
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = db_prepare(c, "SELECT text, actor FROM messages WHERE task=?1 AND delivered=0 ORDER BY n", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, task);
	while (!(rc = db_step(s, &row, e)) && row) {
		strbuf_addf(&text, "%s%s", text.len ? "\n\n" : "", db_text(s, 0));
		who = who ? who : mem_strdup(db_text(s, 1));
	}
	db_done(s);
	if (rc || !text.len)
		return rc;
	rc = db_exec(c, e, "UPDATE messages SET delivered=1 WHERE task=?1", "s", task);
	if (!rc)
		rc = task_load(c, task, &t, e);
	if (!rc)
		rc = answer_open(c, task, who, out, e);
	return rc ? rc : begin_turn(c, &t, strbuf_str(&text), who, out, e);
}

/* ---- gates */

static struct js *gate_to_js(struct db_stmt *s)
{
	struct js *o = js_object();
	char at[RFC3339_SIZE];
	const char *data = db_text(s, 4);
	js_set_str(o, "id", db_text(s, 0));
	js_set_str(o, "task", db_text(s, 1));
	js_set_str(o, "kind", db_text(s, 2));
	js_set_str(o, "state", db_text(s, 3));
	js_set(o, "data", js_parse(data, strlen(data), NULL));
	clock_rfc3339(db_int(s, 5), at);
	js_set_str(o, "created_at", at);
	clock_rfc3339(db_int(s, 6), at);
	js_set(o, "settled_at", db_is_null(s, 6) ? js_null() : js_string(at));
	js_set(o, "actor", js_string(db_text(s, 7)));
	js_set(o, "name", js_string(db_text(s, 8)));
	return o;
}

static enum err_code gates_op(struct db_conn *c, void *arg, struct error *e)
{
	struct talk *k = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c,
		"SELECT g.id, g.task, g.kind, g.state, g.data, g.created_at, g.settled_at, g.actor, t.name FROM gates g JOIN tasks t ON t.id=g.task"
		" WHERE (?1 IS NULL OR g.state=?1) AND (?2 IS NULL OR g.id=?2) ORDER BY g.id DESC LIMIT ?3", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, k->text);
	db_bind_text(s, 2, k->gate);
	db_bind_int(s, 3, GATES_PAGE_MAX);
	while (!(rc = db_step(s, &row, e)) && row)
		js_push(k->out, gate_to_js(s));
	db_done(s);
	return rc;
}

enum err_code core_gates(struct core *c, const char *state, struct js **ret_list, struct error *e)
{
	struct talk k = { .text = state, .out = js_array() };
	enum err_code rc = db_read(c->db, gates_op, &k, e);
	if (rc) {
		js_free(k.out);
		return rc;
	}
	*ret_list = js_object();
	js_set(*ret_list, "data", k.out);
	js_set(*ret_list, "next_cursor", js_null());
	return ERR_OK;
}

/* The same reply again is harmless; another one learns who was first. */
static enum err_code settled_already(const struct js *gate, const char *decision, const char *answer, struct error *e)
{
	const struct js *was = js_path(gate, "data.decision");
	if (str_eq(js_str(was, "decision"), decision) && str_eq(js_str(was, "answer"), answer))
		return ERR_OK;
	error_set(e, ERR_CONFLICT, "gate %s was %s by %s at %s", js_str(gate, "id"), js_str(gate, "state"), js_str_or(gate, "actor", "somebody"),
		js_str_or(gate, "settled_at", "?"));
	return ERR_CONFLICT;
}

static enum err_code settle_gate(struct db_conn *c, struct talk *k, const struct js *gate, const char *decision, const char *answer, struct error *e)
{
	bool answered = str_eq(decision, "answer");
	AUTO_JS struct js *data = js_copy(js_get(gate, "data"));
	struct js *settled = js_object(), *event = js_object();
	js_set_str(settled, "decision", decision);
	js_set_str(settled, "answer", answer);
	js_set(data, "decision", settled);
	AUTO_FREE char *text = js_dump(data);
	js_set_str(event, "gate", k->gate);
	js_set(event, "decision", js_ref(settled));
	enum err_code rc = db_exec(c, e, "UPDATE gates SET state=?2, data=?3, settled_at=?4, actor=?5 WHERE id=?1 AND state='blocked'", "sssis",
		k->gate, answered ? "answered" : "rejected", text, clock_wall_ms(), k->who);
	if (!rc)
		return event_add(c, js_str(gate, "task"), answered ? "gate.answered" : "gate.rejected", NULL, 0, k->who, clock_wall_ms(), event, &k->outbox, e);
	js_free(event);
	return rc;
}

static char *answer_prompt(const struct js *gate, const char *decision, const char *answer)
{
	const struct js *questions = js_path(gate, "data.questions");
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;
	for (size_t i = 0; i < js_len(questions); i++)
		strbuf_addf(&b, "%sYou asked: %s\n", i ? "" : "", js_text(js_at(questions, i)));
	if (str_eq(decision, "answer"))
		strbuf_addf(&b, "The answer: %s\n\nGo on with the request.", answer);
	else
		strbuf_addf(&b, "No answer will be given%s%s. Go on as well as you can without it.", str_empty(answer) ? "" : ": ", str_empty(answer) ? "" : answer);
	return strbuf_detach(&b);
}

static enum err_code decide_op(struct db_conn *c, void *arg, struct error *e)
{
	struct talk *k = arg;
	const char *decision = js_str_or(k->body, "decision", ""), *answer = js_str(k->body, "answer");
	AUTO_JS struct js *list = js_array();
	AUTO_TASK struct task_row t = { 0 };
	struct talk find = { .gate = k->gate, .out = list };
	enum err_code rc = gates_op(c, &find, e);
	const struct js *gate = js_at(list, 0);
	if (!rc && !gate)
		rc = error_set(e, ERR_NOT_FOUND, "no gate '%s'", k->gate);
	if (rc)
		return rc;
	snprintf(k->id, sizeof(k->id), "%s", js_str_or(gate, "task", ""));
	if (!str_eq(js_str(gate, "state"), "blocked"))
		return settled_already(gate, decision, answer, e);
	rc = task_load(c, k->id, &t, e);
	if (!rc)
		rc = settle_gate(c, k, gate, decision, answer, e);
	AUTO_FREE char *prompt = rc ? NULL : answer_prompt(gate, decision, answer);
	return rc ? rc : begin_turn(c, &t, prompt, k->who, &k->outbox, e);
}

static enum err_code check_decision(const struct js *body, struct error *e)
{
	static const char *const members[] = { "decision", "answer", "note", NULL };
	const char *decision = NULL, *answer = NULL, *note = NULL;
	enum err_code rc = js_check_members(body, "", members, e);
	if (!rc)
		rc = js_want_str(body, "", "decision", &decision, e);
	if (!rc)
		rc = js_want_str(body, "", "answer", &answer, e);
	if (!rc)
		rc = js_want_str(body, "", "note", &note, e);
	if (!rc && !str_eq(decision, "answer") && !str_eq(decision, "reject"))
		rc = error_set(e, ERR_INVALID, "decision: expected answer or reject");
	if (!rc && str_eq(decision, "answer") && str_empty(answer))
		rc = error_set(e, ERR_INVALID, "answer: missing or empty");
	if (!rc && answer && strlen(answer) > MESSAGE_MAX)
		rc = error_set(e, ERR_LIMIT, "answer: more than %zu bytes", MESSAGE_MAX);
	return rc;
}

enum err_code core_decide(struct core *c, const char *who, const char *gate, const struct js *body, struct js **ret_gate, struct error *e)
{
	struct talk k = { .core = c, .who = who, .gate = gate, .body = body };
	enum err_code rc = check_decision(body, e);
	if (!rc)
		rc = db_write(c->db, decide_op, &k, e);
	if (!rc) {
		struct talk shown = { .gate = gate, .out = js_array() };
		core_publish(c, &k.outbox);
		sched_ask(c);
		rc = db_read(c->db, gates_op, &shown, e);
		*ret_gate = js_ref(js_at(shown.out, 0));
		js_free(shown.out);
	}
	outbox_release(&k.outbox);
	return rc;
}
