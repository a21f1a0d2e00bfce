/* The conversation: a message to a task that has ended or waits begins its next turn, in the workspace and the agent's session it left; one to
 * a task that is at work steers it when its agent can, or is queued.  Every message is a row first: in order, and once under its id. */
#include "core/talk.h"
#include "agent/agent.h"
#include "agent/decision.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/external.h"
#include "core/gate.h"
#include "core/inside.h"
#include <stdio.h>
#include <string.h>

#define MESSAGE_MAX ((size_t)256 << 10)
#define MESSAGES_WAITING_MAX 32
#define MESSAGE_ID_MAX 128
#define UNHEARD_TURNS_MAX 5 /* turns in a row that ended with a question which nobody answered in time */

enum how { HOW_TURN, HOW_STEERING, HOW_QUEUED };
static const char *const how_names[] = { [HOW_TURN] = "turn", [HOW_STEERING] = "steering", [HOW_QUEUED] = "queued" };

struct talk {
	struct core *core;
	const char *who, *project, *ref, *repo, *text, *message_id;
	bool queue, again; /* again: known by its id, and nothing was done */
	char id[ID_SIZE]; /* the task's */
	int64_t n;	  /* the message's number within the task */
	enum how how;
	struct gate_list gates; /* open ones that the message answers */
	struct js *winners;	/* the decisions that settled them, in the same order */
	struct outbox outbox;
};

static bool adapter_can(const struct task_row *t, const char *word)
{
	AUTO_JS struct js *one = js_array();
	js_push_str(one, word);
	return agent_check_required(js_str_or(js_get(t->spec, "agent"), "adapter", ""), one, NULL) == ERR_OK;
}

/* `messages`: those that the turn is made of, for the record; NULL: it comes of something else. */
static enum err_code begin_turn(struct db_conn *c, const struct task_row *t, const char *text, const struct js *messages, const char *who, struct outbox *out,
	struct error *e)
{
	struct move m = { .to = PHASE_QUEUED, .actor = who, .reopen = true };
	enum err_code rc = task_move(c, t->id, &m, out, e);
	if (!rc)
		rc = db_exec(c, e, "UPDATE tasks SET turn=turn+1, turn_prompt=?2, house_failures=0, agent_failures=0, cancel_asked=0 WHERE id=?1", "ss", t->id, text);
	struct js *data = js_object();
	js_set_int(data, "turn", t->turn + 1);
	js_set_str(data, "text", text);
	js_set(data, "messages", messages ? js_ref(messages) : js_array());
	if (rc) {
		js_free(data);
		return rc;
	}
	return event_add(c, t->id, "task.turn", NULL, 0, who, clock_wall_ms(), data, out, e);
}

/* ---- messages */

static enum err_code message_row(struct db_conn *c, struct talk *k, bool delivered, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(c, "INSERT INTO messages(task,n,text,actor,created_at,delivered,id) SELECT ?1, COALESCE(MAX(n),0)+1, ?2, ?3, ?4, ?5, ?6"
		" FROM messages WHERE task=?1 RETURNING n", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, k->id);
	db_bind_text(s, 2, k->text);
	db_bind_text(s, 3, k->who);
	db_bind_int(s, 4, clock_wall_ms());
	db_bind_int(s, 5, delivered);
	db_bind_text(s, 6, k->message_id);
	rc = db_step(s, &row, e);
	k->n = !rc && row ? db_int(s, 0) : 0;
	db_done(s);
	return rc;
}

/* *ret_known: a message of this id is there; with another text that is an error. */
static enum err_code find_same(struct db_conn *c, struct talk *k, bool *ret_known, struct error *e)
{
	struct db_stmt *s;
	bool same = false;
	*ret_known = false;
	if (!k->message_id)
		return ERR_OK;
	enum err_code rc = db_prepare(c, "SELECT n, text FROM messages WHERE task=?1 AND id=?2", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, k->id);
	db_bind_text(s, 2, k->message_id);
	rc = db_step(s, ret_known, e);
	k->n = !rc && *ret_known ? db_int(s, 0) : 0;
	same = !rc && *ret_known && str_eq(db_text(s, 1), k->text);
	db_done(s);
	if (!rc && *ret_known && !same)
		return error_set(e, ERR_UNPROCESSABLE, "id: message '%.80s' of task %s has another text", k->message_id, k->ref);
	return rc;
}

static struct js *message_data(const struct talk *k)
{
	struct js *data = js_object();
	js_set_int(data, "message", k->n);
	js_set(data, "id", js_string(k->message_id));
	js_set_str(data, "text", k->text);
	return data;
}

/* To a task at work: into the running turn, or behind it. */
static enum err_code message_at_work(struct db_conn *c, struct talk *k, const struct task_row *t, struct error *e)
{
	int64_t waiting = 0;
	bool live = false;
	enum err_code rc = db_number(c, e, &waiting, "SELECT COUNT(*) FROM messages WHERE task=?1 AND delivered=0", "s", t->id);
	if (!rc)
		rc = task_has_live_run(c, t, &live, e);
	bool steer = live && !k->queue && (t->phase == PHASE_RUNNING || t->phase == PHASE_WAITING_HUMAN) && adapter_can(t, "steer");
	if (!rc && !steer && !k->queue) {
		error_set(e, ERR_CONFLICT, "task %s is %s, and its agent cannot be steered%s", k->ref, phase_status(t->phase),
			adapter_can(t, "steer") ? " now" : " while it works");
		error_hint(e, "say it again with --queue (\"queue\": true) to have it delivered as the next turn, or wait for the end");
		return ERR_CONFLICT;
	}
	if (!rc && waiting >= MESSAGES_WAITING_MAX)
		return error_set(e, ERR_LIMIT, "%d messages are waiting already", MESSAGES_WAITING_MAX);
	if (!rc)
		rc = message_row(c, k, false, e);
	if (rc)
		return rc;
	k->how = steer ? HOW_STEERING : HOW_QUEUED;
	AUTO_JS struct js *data = message_data(k);
	AUTO_FREE char *run = mem_printf("%s.main.%lld", t->id, (long long)t->run_n);
	if (steer)
		rc = command_add(c, run, "message", data, k->who, e);
	return rc ? rc : event_add(c, t->id, steer ? "message.sent" : "message.queued", NULL, 0, k->who, clock_wall_ms(), js_ref(data), &k->outbox, e);
}

static bool is_settled_here(const struct talk *k, const char *gate)
{
	for (size_t i = 0; i < k->gates.n; i++)
		if (str_eq(k->gates.rows[i].id, gate))
			return true;
	return false;
}

/* The turn's text tells the decision when it is ours: nothing else has to. */
static enum err_code settle_by_turn(struct db_conn *c, struct talk *k, const struct gate_row *g, const struct js *decision, struct error *e)
{
	int64_t now = clock_wall_ms();
	enum err_code rc = gate_settle_row(c, g, decision, &k->outbox, e);
	if (rc || !str_eq(js_str(decision, "decision"), "answer") || !str_eq(js_str(decision, "note"), k->text))
		return rc;
	rc = gate_delivered(c, g->id, now, e);
	struct js *data = js_object();
	js_set_str(data, "gate", g->id);
	js_set_str(data, "decision_id", js_str(decision, "id"));
	js_set_str(data, "how", "told");
	if (!rc)
		return event_add(c, g->task, "gate.delivered", NULL, 0, SERVER_ACTOR, now, data, &k->outbox, e);
	js_free(data);
	return rc;
}

/* One word settles every question that is open: the message is the answer. The files were linked before; where somebody else was first, his decision counts. */
static enum err_code answer_open(struct db_conn *c, struct talk *k, struct error *e)
{
	AUTO(gate_list_release) struct gate_list open = { 0 };
	enum err_code rc = gate_list_open(c, k->id, &open, e);
	for (size_t i = 0; i < open.n && !rc; i++)
		if (!is_settled_here(k, open.rows[i].id))
			return error_set(e, ERR_BUSY, "a gate of task %s has opened this moment", k->ref);
	for (size_t i = 0; i < k->gates.n && !rc; i++) {
		AUTO_GATE struct gate_row now = { 0 };
		rc = gate_load(c, k->gates.rows[i].id, &now, e);
		if (!rc && str_eq(now.state, "blocked"))
			rc = settle_by_turn(c, k, &now, js_at(k->winners, i), e);
	}
	return rc;
}

static enum err_code message_op(struct db_conn *c, void *arg, struct error *e)
{
	struct talk *k = arg;
	AUTO_TASK struct task_row t = { 0 };
	bool known = false, live = false;
	enum err_code rc = task_find(c, k->project, k->ref, k->repo, k->id, e);
	if (!rc)
		rc = task_load(c, k->id, &t, e);
	if (!rc)
		rc = find_same(c, k, &known, e);
	k->again = known;
	if (rc || known)
		return rc;
	if (external_is(&t))
		return error_set(e, ERR_CONFLICT, "task %s is of an agent that Signalbox did not start, and has no way to hear a message", k->ref);
	rc = task_has_live_run(c, &t, &live, e);
	if (rc)
		return rc;
	if (!phase_is_terminal(t.phase) && (t.phase != PHASE_WAITING_HUMAN || live))
		return message_at_work(c, k, &t, e);
	k->how = HOW_TURN;
	rc = answer_open(c, k, e);
	if (!rc)
		rc = message_row(c, k, false, e);
	return rc ? rc : talk_next_turn(c, k->id, &k->outbox, e); /* behind what was left by a run that was ended */
}

static enum err_code open_gates_op(struct db_conn *c, void *arg, struct error *e)
{
	struct talk *k = arg;
	AUTO_TASK struct task_row t = { 0 };
	bool live = false, known = false;
	enum err_code rc = task_find(c, k->project, k->ref, k->repo, k->id, e);
	if (!rc)
		rc = task_load(c, k->id, &t, e);
	if (!rc)
		rc = task_has_live_run(c, &t, &live, e);
	if (!rc && !live && t.phase == PHASE_WAITING_HUMAN)
		rc = find_same(c, k, &known, e); /* said before: it was the answer to another question */
	return rc || known || live || t.phase != PHASE_WAITING_HUMAN ? rc : gate_list_open(c, k->id, &k->gates, e);
}

/* Before the transaction, since files are not written in one that many wait for. */
static enum err_code link_answers(struct talk *k, struct error *e)
{
	struct core *c = k->core;
	enum err_code rc = db_read(c->db, open_gates_op, k, e);
	k->winners = js_array();
	for (size_t i = 0; i < k->gates.n && !rc; i++) {
		AUTO_JS struct js *word = js_object();
		struct js *winner = NULL;
		js_set_str(word, "decision", "answer");
		js_set_str(word, "note", k->text);
		AUTO_JS struct js *decision = decision_make(k->gates.rows[i].id, word, k->who);
		rc = gate_settle_file(c, k->id, k->gates.rows[i].id, decision, &winner, e);
		if (!rc)
			js_push(k->winners, winner);
	}
	return rc;
}

static enum err_code check_message(struct talk *k, const struct js *body, struct error *e)
{
	static const char *const members[] = { "text", "queue", "id", NULL };
	enum err_code rc = js_check_members(body, "", members, e);
	if (!rc)
		rc = js_want_str(body, "", "text", &k->text, e);
	if (!rc)
		rc = js_want_bool(body, "", "queue", &k->queue, e);
	if (!rc)
		rc = js_want_str(body, "", "id", &k->message_id, e);
	if (!rc && str_empty(k->text))
		rc = error_set(e, ERR_INVALID, "text: missing or empty");
	if (!rc && strlen(k->text) > MESSAGE_MAX)
		rc = error_set(e, ERR_UNPROCESSABLE, "text: %zu bytes, at most %zu are allowed", strlen(k->text), MESSAGE_MAX);
	if (!rc && k->message_id && (!k->message_id[0] || strlen(k->message_id) > MESSAGE_ID_MAX))
		rc = error_set(e, ERR_INVALID, "id: expected 1 to %d bytes", MESSAGE_ID_MAX);
	return rc;
}

static struct js *message_shown(const struct talk *k)
{
	struct js *o = js_object();
	js_set_int(o, "n", k->n);
	js_set(o, "id", js_string(k->message_id));
	if (k->again)
		js_set_bool(o, "again", true);
	else
		js_set_str(o, "how", how_names[k->how]);
	return o;
}

enum err_code core_message(struct core *c, struct caller by, const char *ref, const char *repo, const struct js *body, struct js **ret_task, struct error *e)
{
	struct talk k = { .core = c, .who = by.who, .project = by.project, .ref = ref, .repo = repo, .outbox.core = c };
	enum err_code rc = check_message(&k, body, e);
	if (!rc)
		rc = link_answers(&k, e);
	if (!rc)
		rc = db_write(c->db, message_op, &k, e);
	if (!rc) {
		AUTO_FREE char *topic = mem_printf("commands:%s", k.id);
		core_publish(c, &k.outbox);
		hub_touch(c->hub, topic);
		sched_ask(c);
		rc = core_task(c, by, k.id, NULL, ret_task, e);
	}
	if (!rc)
		js_set(*ret_task, "message", message_shown(&k));
	gate_list_release(&k.gates);
	js_free(k.winners);
	outbox_release(&k.outbox);
	return rc;
}

enum err_code talk_said(struct db_conn *c, const char *task, int64_t message, const char *refused, struct error *e)
{
	return refused ? ERR_OK : db_exec(c, e, "UPDATE messages SET delivered=1 WHERE task=?1 AND n=?2", "si", task, message);
}

/* {message, id, text?} of a turn's message; the text where the turn's own is not the same. */
static void add_message(struct js *list, struct db_stmt *s)
{
	struct js *o = js_object();
	js_set_int(o, "message", db_int(s, 2));
	js_set(o, "id", js_string(db_text(s, 3)));
	js_set_str(o, "text", db_text(s, 0));
	js_push(list, o);
}

/* At the end of a run: what was queued meanwhile, or could not be told to it, becomes the next turn, in order, together. */
enum err_code talk_next_turn(struct db_conn *c, const char *task, struct outbox *out, struct error *e)
{
	struct db_stmt *s;
	bool row = false;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	AUTO_FREE char *who = NULL;
	AUTO_TASK struct task_row t = { 0 };
	AUTO_JS struct js *messages = js_array();
	enum err_code rc = db_prepare(c, "SELECT text, actor, n, id FROM messages WHERE task=?1 AND delivered=0 ORDER BY n", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, task);
	while (!(rc = db_step(s, &row, e)) && row) {
		strbuf_addf(&text, "%s%s", text.len ? "\n\n" : "", db_text(s, 0));
		who = who ? who : mem_strdup(db_text(s, 1));
		add_message(messages, s);
	}
	db_done(s);
	if (rc || !text.len)
		return rc;
	if (js_len(messages) == 1)
		js_del(js_at(messages, 0), "text");
	rc = db_exec(c, e, "UPDATE messages SET delivered=1 WHERE task=?1", "s", task);
	if (!rc)
		rc = task_load(c, task, &t, e);
	/* A gate that was opened by the last words is canceled: people had said more already. */
	return rc ? rc : begin_turn(c, &t, strbuf_str(&text), messages, who, out, e);
}

/* ---- after a gate */

/* The run that asked is gone: another attempt of the same turn is told the decision. */
static enum err_code next_attempt(struct db_conn *c, const struct task_row *t, const char *who, struct outbox *out, struct error *e)
{
	struct move m = { .to = PHASE_QUEUED, .actor = who };
	return task_move(c, t->id, &m, out, e);
}

/* An agent that asks again whenever its time is up would do so for ever: nobody is there. */
static enum err_code nobody_is_there(struct db_conn *c, const struct task_row *t, bool *ret, struct error *e)
{
	int64_t n = 0;
	enum err_code rc = db_number(c, e, &n, "SELECT COUNT(*) FROM gates WHERE task=?1 AND request IS NULL AND state='expired' AND turn>?2", "si", t->id, t->turn - UNHEARD_TURNS_MAX);
	*ret = n >= UNHEARD_TURNS_MAX;
	return rc;
}

enum err_code talk_go_on(struct db_conn *c, const struct task_row *t, const struct gate_row *g, const struct js *decision, struct outbox *out, struct error *e)
{
	const char *who = js_str_or(decision, "actor", SERVER_ACTOR), *word = js_str_or(decision, "decision", "");
	AUTO(gate_list_release) struct gate_list open = { 0 };
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	bool unheard = false;
	enum err_code rc = gate_list_open(c, t->id, &open, e);
	bool expired = str_eq(word, "expire");
	if (!rc && expired && !str_eq(js_str(decision, "then"), "answer"))
		rc = nobody_is_there(c, t, &unheard, e);
	if (unheard || (expired && str_eq(js_str(decision, "then"), "fail"))) {
		struct move m = { .to = PHASE_FAILED, .reason = "gate_expired", .error = "nobody answered in time", .actor = who };
		return rc ? rc : task_move(c, t->id, &m, out, e);
	}
	if (str_eq(word, "abort")) {
		struct move m = { .to = PHASE_CANCELED, .reason = "interrupted", .actor = who };
		return rc ? rc : task_move(c, t->id, &m, out, e);
	}
	if (rc || open.n)
		return rc;
	if (g->request)
		return next_attempt(c, t, who, out, e);
	decision_tell(g->kind, g->data, decision, &text);
	strbuf_adds(&text, str_eq(word, "answer") ? "\nGo on with the request." : "\nGo on as well as you can without an answer.");
	return begin_turn(c, t, strbuf_str(&text), NULL, who, out, e);
}
