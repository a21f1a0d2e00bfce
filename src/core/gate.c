/* Gates as the API sees them: listed, decided once, swept when their time is up; and the inbox, through which files decide. */
#include "core/gate.h"
#include "agent/decision.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/gatefile.h"
#include "core/inside.h"
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#define SWEEP_MAX 64	    /* expired gates in one tick */
#define INBOXES_MAX 512	    /* tasks whose inbox is looked at in one tick */
#define ADOPT_EVERY_TICKS 5 /* decisions that were linked and not committed are looked for this often */

/* ---- shown */

static void set_time(struct js *o, const char *key, int64_t ms)
{
	char text[RFC3339_SIZE];
	if (ms)
		clock_rfc3339(ms, text);
	js_set(o, key, ms ? js_string(text) : js_null());
}

/* Questions were plain texts in the first release. */
static struct js *data_shown(const struct js *data)
{
	struct js *o = js_copy(data), *list = js_array();
	const struct js *questions = js_get(data, "questions");
	for (size_t i = 0; i < js_len(questions); i++) {
		const struct js *q = js_at(questions, i);
		AUTO_FREE char *id = mem_printf("q%zu", i + 1);
		struct js *whole = js_text(q) ? js_object() : js_copy(q);
		if (js_text(q)) {
			js_set_str(whole, "id", id);
			js_set_str(whole, "text", js_text(q));
			js_set_bool(whole, "free_text", true);
		}
		js_push(list, whole);
	}
	if (questions)
		js_set(o, "questions", js_ref(list));
	js_free(list);
	return o;
}

static struct js *gate_to_js(const struct gate_row *g)
{
	struct js *o = js_object();
	const char *dot = g->run ? strrchr(g->run, '.') : NULL;
	js_set_str(o, "id", g->id);
	js_set_str(o, "task", g->task);
	js_set(o, "name", js_string(g->name));
	js_set(o, "run", js_string(g->run));
	js_set(o, "worker", g->run && dot && strchr(g->run, '.') < dot ? js_string_n(strchr(g->run, '.') + 1, (size_t)(dot - strchr(g->run, '.') - 1)) : js_null());
	js_set_str(o, "kind", g->kind);
	js_set_str(o, "state", g->state);
	js_set(o, "data", data_shown(g->data));
	set_time(o, "created_at", g->created_at);
	set_time(o, "deadline_at", g->deadline_at);
	js_set(o, "at_deadline", js_string(js_str(g->data, "at_deadline")));
	set_time(o, "settled_at", g->settled_at);
	set_time(o, "delivered_at", g->delivered_at);
	js_set(o, "actor", js_string(g->actor));
	js_set(o, "decision", g->decision ? gate_decision_shown(g->data, g->decision) : js_null());
	return o;
}

struct gates_look {
	struct core *core;
	const struct gate_filter *filter;
	const char *project, *id;
	struct js *out;
	char task[ID_SIZE], next[ID_SIZE];
	struct strbuf text;
};

/* A list of a thousand is asked for again and again: its texts are JSON already, and are put together as they are. */
static void add_text(struct strbuf *out, const char *key, const char *text)
{
	size_t plain = text ? strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-+ ") : 0;
	strbuf_addf(out, ",\"%s\":", key);
	if (text && !text[plain]) {
		strbuf_addf(out, "\"%s\"", text);
		return;
	}
	AUTO_JS struct js *v = js_string(text);
	js_dump_to(v, out);
}

static void add_time(struct strbuf *out, const char *key, int64_t ms)
{
	char text[RFC3339_SIZE];
	if (ms)
		clock_rfc3339(ms, text);
	add_text(out, key, ms ? text : NULL);
}

static void add_js(struct strbuf *out, const char *key, struct js *taken)
{
	AUTO_JS struct js *v = taken;
	strbuf_addf(out, ",\"%s\":", key);
	js_dump_to(v, out);
}

static const char list_sql_open[] = "SELECT g.id, g.task, t.name, g.run, g.kind, g.state, g.data, g.created_at, g.deadline_at, g.settled_at, g.delivered_at, g.actor, g.decision"
	" FROM gates g JOIN tasks t ON t.id=g.task WHERE g.state='blocked' AND ?1 IS NOT NULL AND (?2 IS NULL OR g.task=?2) AND (?3 IS NULL OR g.id<?3) AND t.project=?5 ORDER BY g.id DESC LIMIT ?4";
static const char list_sql_any[] = "SELECT g.id, g.task, t.name, g.run, g.kind, g.state, g.data, g.created_at, g.deadline_at, g.settled_at, g.delivered_at, g.actor, g.decision"
	" FROM gates g JOIN tasks t ON t.id=g.task WHERE (?1 IS NULL OR g.state=?1) AND (?2 IS NULL OR g.task=?2) AND (?3 IS NULL OR g.id<?3) AND t.project=?5 ORDER BY g.id DESC LIMIT ?4";

/* What holds a secret, or is of the first release, is read and changed first. */
static void add_row(struct strbuf *out, struct db_stmt *s)
{
	const char *run = db_text(s, 3), *data = db_text(s, 6), *decision = db_text(s, 12);
	const char *dot = run ? strchr(run, '.') : NULL, *last = run ? strrchr(run, '.') : NULL;
	AUTO_FREE char *worker = dot && last > dot ? mem_strndup(dot + 1, (size_t)(last - dot - 1)) : NULL;
	bool special = strstr(data, "\"questions\"") != NULL;
	AUTO_JS struct js *read = special || strstr(data, "\"at_deadline\"") ? js_parse(data, strlen(data), NULL) : NULL;
	strbuf_addf(out, "{\"id\":\"%s\"", db_text(s, 0));
	add_text(out, "task", db_text(s, 1));
	add_text(out, "name", db_text(s, 2));
	add_text(out, "run", run);
	add_text(out, "worker", worker);
	add_text(out, "kind", db_text(s, 4));
	add_text(out, "state", db_text(s, 5));
	if (special)
		add_js(out, "data", data_shown(read));
	else
		strbuf_addf(out, ",\"data\":%s", data);
	add_time(out, "created_at", db_int(s, 7));
	add_time(out, "deadline_at", db_int(s, 8));
	add_text(out, "at_deadline", js_str(read, "at_deadline"));
	add_time(out, "settled_at", db_int(s, 9));
	add_time(out, "delivered_at", db_int(s, 10));
	add_text(out, "actor", db_text(s, 11));
	AUTO_JS struct js *decided = special && decision ? js_parse(decision, strlen(decision), NULL) : NULL;
	if (decided)
		add_js(out, "decision", gate_decision_shown(read, decided));
	else
		strbuf_addf(out, ",\"decision\":%s", decision ? decision : "null");
	strbuf_addc(out, '}');
}

static enum err_code list_op(struct db_conn *c, void *arg, struct error *e)
{
	struct gates_look *l = arg;
	const struct gate_filter *f = l->filter;
	struct db_stmt *s;
	bool row = false;
	int64_t n = 0, max = f->limit > 0 && f->limit < GATES_PAGE_MAX ? f->limit : GATES_PAGE_MAX;
	enum err_code rc = f->task ? task_find(c, l->project, f->task, NULL, l->task, e) : ERR_OK;
	if (!rc)
		rc = db_prepare(c, str_eq(f->state, "blocked") ? list_sql_open : list_sql_any, &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, f->state);
	db_bind_text(s, 2, f->task ? l->task : NULL);
	db_bind_text(s, 3, f->after);
	db_bind_int(s, 4, max);
	db_bind_text(s, 5, l->project);
	while (!(rc = db_step(s, &row, e)) && row) {
		if (n++)
			strbuf_addc(&l->text, ',');
		add_row(&l->text, s);
		snprintf(l->next, sizeof(l->next), "%s", db_text(s, 0));
	}
	db_done(s);
	if (n < max)
		l->next[0] = 0;
	return rc;
}

enum err_code core_gates(struct core *c, struct caller by, const struct gate_filter *f, struct strbuf *ret_text, struct error *e)
{
	static const char *const states[] = { "blocked", "approved", "rejected", "answered", "expired", "canceled" };
	struct gates_look l = { .core = c, .project = by.project, .filter = f };
	bool known = !f->state;
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		known = known || str_eq(f->state, states[i]);
	if (f->after && !clock_is_id(f->after)) {
		error_set(e, ERR_INVALID, "after '%.80s' is not a cursor of this list", f->after);
		error_hint(e, "give next_cursor of the page before, with the same filters");
		return ERR_INVALID;
	}
	strbuf_adds(&l.text, "{\"data\":[");
	enum err_code rc = known ? db_read(c->db, list_op, &l, e)
				 : error_set(e, ERR_INVALID, "state '%.40s': expected blocked, approved, rejected, answered, expired or canceled", f->state);
	strbuf_adds(&l.text, "]");
	add_text(&l.text, "next_cursor", l.next[0] ? l.next : NULL);
	strbuf_addc(&l.text, '}');
	if (!rc)
		strbuf_add(ret_text, l.text.data, l.text.len);
	strbuf_release(&l.text);
	return rc;
}

static enum err_code one_op(struct db_conn *c, void *arg, struct error *e)
{
	struct gates_look *l = arg;
	AUTO_GATE struct gate_row g = { 0 };
	enum err_code rc = gate_find(c, l->project, l->id, &g, e);
	if (!rc)
		l->out = gate_to_js(&g);
	return rc;
}

enum err_code core_gate(struct core *c, struct caller by, const char *id, struct js **ret, struct error *e)
{
	struct gates_look l = { .core = c, .project = by.project, .id = id };
	enum err_code rc = db_read(c->db, one_op, &l, e);
	if (rc == ERR_NOT_FOUND)
		error_hint(e, "`signalbox gates` lists those that are open");
	if (!rc)
		*ret = l.out;
	return rc;
}

struct one_gate {
	const char *project, *gate;
	struct gate_row row;
};

static enum err_code load_gate_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct one_gate *u = arg;
	return gate_find(conn, u->project, u->gate, &u->row, e);
}

/* ---- decided */

struct decide {
	struct core *core;
	const char *gate;
	const struct js *winner;
	struct outbox out;
	struct gate_row row;
};

static enum err_code settle_op(struct db_conn *c, void *arg, struct error *e)
{
	struct decide *d = arg;
	return gate_settle(c, d->gate, d->winner, &d->out, e);
}

static enum err_code commit_winner(struct core *c, const char *gate, const char *task, const struct js *winner, struct error *e)
{
	struct decide d = { .core = c, .gate = gate, .winner = winner, .out.core = c };
	enum err_code rc = db_write(c->db, settle_op, &d, e);
	if (!rc && d.out.count) {
		AUTO_FREE char *topic = mem_printf("commands:%s", task);
		core_publish(c, &d.out);
		hub_touch(c->hub, topic);
		sched_ask(c);
	}
	outbox_release(&d.out);
	return rc;
}

/* The same reply again is harmless; another one learns who was first. */
static enum err_code compare(struct core *c, const struct gate_row *g, const struct js *winner, const struct js *checked, struct error *e)
{
	static const char *const members[] = { "decision", "scope", "answers", "content", "note" };
	AUTO_JS struct js *was = winner ? js_copy(winner) : js_object();
	bool same = gate_reveal(c, g->data, was, NULL) == ERR_OK;
	for (size_t i = 0; same && i < ARRAY_SIZE(members); i++) {
		const struct js *a = js_get(was, members[i]), *b = js_get(checked, members[i]);
		same = !a == !b && (!a || js_equal(a, b));
	}
	if (same)
		return ERR_OK;
	error_set(e, ERR_CONFLICT, "gate %s was %s by %s at %s", g->id, decision_state(js_str_or(winner, "decision", "cancel")), js_str_or(winner, "actor", "somebody"),
		js_str_or(winner, "at", "?"));
	error_hint(e, "signalbox gates %s", g->id);
	return ERR_CONFLICT;
}

/* The file is the judge between replies: whoever links it has decided, then the row follows. */
static enum err_code settle(struct core *c, const struct gate_row *g, const struct js *checked, const char *who, struct js **ret_winner, struct error *e)
{
	AUTO_JS struct js *decision = decision_make(g->id, checked, who);
	enum err_code rc = gate_seal(c, g->data, decision, e);
	return rc ? rc : gate_settle_file(c, g->task, g->id, decision, ret_winner, e);
}

static enum err_code decide(struct core *c, const char *who, const struct gate_row *g, const struct js *body, struct error *e)
{
	AUTO_JS struct js *checked = NULL;
	AUTO_JS struct js *winner = NULL;
	AUTO_JS struct js *data = data_shown(g->data);
	struct one_gate after = { .project = PROJECT_ANY, .gate = g->id };
	enum err_code rc = decision_check(g->kind, data, body, &checked, e);
	if (rc)
		return rc;
	if (!str_eq(g->state, "blocked"))
		return compare(c, g, g->decision, checked, e);
	rc = settle(c, g, checked, who, &winner, e);
	if (!rc)
		rc = commit_winner(c, g->id, g->task, winner, e);
	if (!rc)
		rc = db_read(c->db, load_gate_op, &after, e); /* canceled meanwhile, for example */
	if (!rc)
		rc = compare(c, &after.row, after.row.decision, checked, e);
	gate_row_release(&after.row);
	return rc;
}

enum err_code core_decide(struct core *c, struct caller by, const char *gate, const struct js *body, struct js **ret_gate, struct error *e)
{
	struct one_gate u = { .project = by.project, .gate = gate };
	enum err_code rc = db_read(c->db, load_gate_op, &u, e);
	if (rc == ERR_NOT_FOUND)
		error_hint(e, "`signalbox gates` lists those that are open");
	if (!rc)
		rc = decide(c, by.who, &u.row, body, e);
	gate_row_release(&u.row);
	return rc ? rc : core_gate(c, by, gate, ret_gate, e);
}

/* ---- ticks */

struct sweep {
	char ids[INBOXES_MAX][ID_SIZE];
	size_t n, max;
	const char *sql, *after; /* after: the id where the look before this one ended */
};

static enum err_code sweep_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct sweep *w = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, w->sql, &s, e);
	if (rc)
		return rc;
	if (!w->after) {
		db_bind_text(s, 1, clock_boot_id());
		db_bind_int(s, 2, clock_mono_ms());
		db_bind_int(s, 3, clock_wall_ms());
	}
	if (w->after)
		db_bind_text(s, 1, w->after);
	while (w->n < w->max && !(rc = db_step(s, &row, e)) && row)
		snprintf(w->ids[w->n++], ID_SIZE, "%s", db_text(s, 0));
	db_done(s);
	return rc;
}

/* `after`: of many, each has its turn; the next look goes on where this one ends. */
static void sweep(struct core *c, const char *sql, size_t max, char after[ID_SIZE], void (*each)(struct core *c, const char *id))
{
	struct sweep *w = NEW(struct sweep);
	struct error e = ERROR_INIT;
	w->sql = sql;
	w->max = max;
	w->after = after;
	if (db_read(c->db, sweep_op, w, &e))
		log_warn("gates: %s", e.text);
	for (size_t i = 0; i < w->n; i++)
		each(c, w->ids[i]);
	if (after)
		snprintf(after, ID_SIZE, "%s", w->n == max ? w->ids[w->n - 1] : "");
	free(w);
}

static void expire_gate(struct core *c, const char *id)
{
	struct one_gate u = { .project = PROJECT_ANY, .gate = id };
	struct error e = ERROR_INIT;
	AUTO_JS struct js *winner = NULL;
	enum err_code rc = db_read(c->db, load_gate_op, &u, &e);
	AUTO_JS struct js *decision = rc ? NULL : decision_expired(u.row.kind, u.row.data);
	if (!rc)
		rc = settle(c, &u.row, decision, SERVER_ACTOR, &winner, &e);
	if (!rc)
		rc = commit_winner(c, id, u.row.task, winner, &e);
	if (rc)
		log_warn("gate %s: its time is up: %s", id, e.text);
	else
		reconcile_found(c, "gate_expired", id, "settled by its rule");
	gate_row_release(&u.row);
}

/* Linked by a server that was killed before its commit, or by a runner whose word has not come. */
static void adopt_decision(struct core *c, const char *id)
{
	struct one_gate u = { .project = PROJECT_ANY, .gate = id };
	struct error e = ERROR_INIT;
	AUTO_JS struct js *winner = NULL;
	if (db_read(c->db, load_gate_op, &u, &e) == ERR_OK) {
		AUTO_FREE char *dir = core_task_dir(c, u.row.task);
		enum err_code rc = gatefile_decision(dir, id, &winner, &e);
		if (!rc)
			rc = commit_winner(c, id, u.row.task, winner, &e);
		if (!rc)
			reconcile_found(c, "gate_decision", id, "taken from its file");
		else if (rc != ERR_NOT_FOUND)
			log_warn("gate %s: its decision: %s", id, e.text);
	}
	gate_row_release(&u.row);
}

struct inbox {
	struct core *core;
	const char *task;
	struct outbox out;
	const char *file, *problem, *who;
};

static enum err_code refused_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct inbox *i = arg;
	struct js *data = js_object();
	js_set_str(data, "file", i->file);
	js_set_str(data, "problem", i->problem);
	return event_add(conn, i->task, "inbox.refused", NULL, 0, i->who, clock_wall_ms(), data, &i->out, e);
}

static enum inbox_fate refuse(struct inbox *i, const struct inbox_file *file, const char *problem, const char *who)
{
	struct error e = ERROR_INIT;
	if (file->fresh)
		return INBOX_LEAVE;
	i->file = file->name;
	i->problem = problem;
	i->who = who;
	if (db_write(i->core->db, refused_op, i, &e))
		log_warn("inbox of task %s: %s", i->task, e.text);
	else
		core_publish(i->core, &i->out);
	outbox_release(&i->out);
	return INBOX_REFUSED;
}

static enum err_code take_gate_file(struct core *c, const char *gate, const char *task, const struct inbox_file *file, const char *who, bool *ret_secret, struct error *e)
{
	AUTO_JS struct js *body = NULL;
	AUTO_JS struct js *shown = NULL;
	struct js *after = NULL;
	enum err_code rc = core_gate(c, THE_SERVER, gate, &shown, e);
	if (!rc && !str_eq(js_str(shown, "task"), task))
		rc = error_set(e, ERR_NOT_FOUND, "gate %s is of another task", gate);
	if (rc)
		return rc;
	*ret_secret = decision_is_secret(js_get(shown, "data"));
	rc = gatefile_parse(file->text, file->len, &body, e);
	if (!rc)
		rc = core_decide(c, (struct caller){ .who = who, .project = PROJECT_ANY }, gate, body, &after, e);
	js_free(after);
	return rc;
}

/* The file's owner; not more than that can be known of who wrote it. */
static char *owner_name(uid_t uid)
{
	char room[4096];
	struct passwd pw, *found = NULL;
	if (getpwuid_r(uid, &pw, room, sizeof(room), &found) == 0 && found)
		return mem_printf("file:%s", pw.pw_name);
	return mem_printf("file:%u", (unsigned)uid);
}

static enum inbox_fate take_file(void *ctx, const struct inbox_file *file)
{
	struct inbox *i = ctx;
	char gate[ID_SIZE + 8];
	bool secret = false;
	struct error e = ERROR_INIT;
	AUTO_FREE char *who = owner_name(file->owner);
	enum err_code rc = ERR_OK;
	if (file->problem)
		return refuse(i, file, file->problem, who);
	if (str_eq(file->name, "message.md")) {
		AUTO_JS struct js *body = js_object();
		struct js *task = NULL;
		if (file->fresh)
			return INBOX_LEAVE; /* a message has no end that one could see */
		js_set(body, "text", js_string_n(file->text, file->len));
		js_set_bool(body, "queue", true);
		rc = core_message(i->core, (struct caller){ .who = who, .project = PROJECT_ANY }, i->task, NULL, body, &task, &e);
		js_free(task);
	} else if (gatefile_inbox_gate(file->name, gate, sizeof(gate))) {
		rc = take_gate_file(i->core, gate, i->task, file, who, &secret, &e);
	} else {
		rc = error_set(&e, ERR_INVALID, "it is neither message.md nor <gate>.yaml");
	}
	if (rc == ERR_BUSY || rc == ERR_FULL || rc == ERR_IO) /* that is not the file's fault */
		log_info("inbox/%s of task %s: %s", file->name, i->task, e.text);
	if (rc)
		return rc == ERR_BUSY || rc == ERR_FULL || rc == ERR_IO ? INBOX_LEAVE : refuse(i, file, e.text, who);
	return secret ? INBOX_REMOVE : INBOX_DONE;
}

static void look_into_inbox(struct core *c, const char *task)
{
	struct inbox i = { .core = c, .task = task };
	AUTO_FREE char *dir = core_task_dir(c, task);
	gatefile_inbox(dir, take_file, &i);
}

static const char *const counted_states[GATE_COUNTED] = { "approved", "rejected", "answered", "expired", "canceled" };

void gates_count(struct core *c, const char *state)
{
	for (size_t i = 0; i < GATE_COUNTED; i++)
		if (str_starts(state, counted_states[i]))
			atomic_fetch_add(&c->gates_settled[i], 1);
}

void gates_metrics(struct core *c, struct strbuf *out)
{
	strbuf_adds(out, "# HELP signalbox_gates_settled_total Gates settled since the server started, expired ones among them.\n# TYPE signalbox_gates_settled_total counter\n");
	for (size_t i = 0; i < GATE_COUNTED; i++)
		strbuf_addf(out, "signalbox_gates_settled_total{state=\"%s\"} %llu\n", counted_states[i], (unsigned long long)atomic_load(&c->gates_settled[i]));
}

/* A live run's own gates are its runner's to expire; those of others nobody else looks after. */
void gates_tick(struct core *c)
{
	sweep(c, "SELECT g.id FROM gates g JOIN tasks t ON t.id=g.task WHERE g.state='blocked' AND g.deadline_at IS NOT NULL"
		" AND ((g.boot=?1 AND g.deadline_mono<?2) OR (g.boot<>?1 AND g.deadline_at<?3))"
		" AND NOT EXISTS(SELECT 1 FROM runs r WHERE r.task=g.task AND " SQL_LIVE("r.phase") ") LIMIT 64",
		SWEEP_MAX, NULL, expire_gate);
	/* A message to a task that is over begins its next turn; of those only the newest are looked after.  The phases are spelled out (what waits
	 * between two attempts is looked at when it runs again), so that a long queue and a long history cost nothing. */
	sweep(c, "SELECT id FROM tasks WHERE " SQL_LIVE("phase") " AND id>?1"
		" AND phase IN ('claimed','fetching','preparing','setup','running','waiting_human','collecting') AND run_n>0"
		" UNION SELECT id FROM (SELECT id, run_n FROM tasks ORDER BY id DESC LIMIT 64) WHERE run_n>0 AND id>?1 ORDER BY id", INBOXES_MAX, c->inboxes_after,
		look_into_inbox);
	if (c->gate_ticks++ % ADOPT_EVERY_TICKS == 0)
		sweep(c, "SELECT id FROM gates WHERE state='blocked' AND id>?1 ORDER BY id", INBOXES_MAX, c->gates_after, adopt_decision);
}
