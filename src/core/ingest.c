/* What runners hand in: numbered event lines, each taken once and in order, and the states they tell.  The same road serves the POST of a
 * live runner and the spool on disk of a dead one, so nothing is lost and nothing comes twice. */
#include "agent/policy.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/gate.h"
#include "core/inside.h"
#include "core/retry.h"
#include "core/talk.h"
#include "core/todos.h"
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPOOL_PART ((size_t)4 << 20) /* read at once; a line is at most a quarter of it */
#define PROGRESS_MAX 240
#define COMMANDS_BYTES_MAX ((size_t)512 << 10) /* in one answer, but for the last of them: a runner reads no more than 4 MiB */

struct batch {
	struct core *core;
	const char *run_id;
	const struct js *events; /* array of {n, at, type, actor?, data} */
	const struct js *beat;	 /* or NULL */
	const struct js *usage;	 /* the gateway's sum, for the result */
	bool from_disk;		 /* the runner is gone: no token, no epoch to check */
	const char *token;
	int64_t epoch, acked;
	bool ended;
	struct outbox out;
	char task[ID_SIZE], project[PROJECT_SIZE];
};

static bool token_fits(const char *token, const char *hash_hex)
{
	unsigned char hash[crypto_hash_sha256_BYTES];
	char hex[crypto_hash_sha256_BYTES * 2 + 1];
	crypto_hash_sha256(hash, (const unsigned char *)token, strlen(token));
	sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
	return str_const_time_eq(hex, hash_hex);
}

static enum err_code check_runner(const struct run_row *r, const char *token, int64_t epoch, struct error *e)
{
	if (!token || !token_fits(token, r->token_hash))
		return error_set(e, ERR_DENIED, "the token is not run %s's", r->id);
	if (epoch != r->n)
		return error_set(e, ERR_STALE, "run %s speaks with epoch %lld, its number is %lld", r->id, (long long)epoch, (long long)r->n);
	return ERR_OK;
}

/* After a failure: the pause before the next attempt, or -1. Counts the failure. */
static enum err_code next_attempt(struct db_conn *c, const struct task_row *t, const struct move *m, int64_t *ret_pause_ms, struct error *e)
{
	enum retry_class class = retry_class_of(m->reason);
	bool house = class == RETRY_HOUSE;
	uint32_t random;
	clock_random(&random, sizeof(random));
	*ret_pause_ms = -1;
	if (m->to == PHASE_SUCCEEDED || m->to == PHASE_CANCELED || t->cancel_asked || task_age_ms(t) >= js_i64(js_get(t->spec, "limits"), "task_timeout", INT64_MAX))
		return ERR_OK;
	*ret_pause_ms = retry_pause_ms(js_get(t->spec, "retry"), class, (house ? t->house_failures : t->agent_failures) + 1, random);
	if (house)
		return db_exec(c, e, "UPDATE tasks SET house_failures=house_failures+1 WHERE id=?1", "s", t->id);
	return db_exec(c, e, "UPDATE tasks SET agent_failures=agent_failures+1 WHERE id=?1", "s", t->id);
}

static enum err_code retry_event(struct db_conn *c, const struct run_row *r, const struct move *m, int64_t pause_ms, struct outbox *out, struct error *e)
{
	struct js *data = js_object();
	js_set_int(data, "pause_ms", pause_ms);
	js_set_str(data, "reason", m->reason);
	js_set_str(data, "error", m->error);
	return event_add(c, r->task, "task.retry_scheduled", r->worker, r->n, SERVER_ACTOR, m->at ? m->at : clock_wall_ms(), data, out, e);
}

/* Ends a run, and with it the task, unless its agent is blocked (then it waits) or its policy gives it another attempt. */
/* An agent or a runner that died did not take its questions back: they stay open, and what was decided is delivered by the next attempt. */
static enum err_code keep_gates(struct db_conn *c, const struct run_row *r, const struct task_row *t, const struct move *m, enum phase *task_to, int64_t *pause_ms,
	struct error *e)
{
	int64_t blocked = 0, undelivered = 0;
	bool died = m->to == PHASE_LOST || (m->to == PHASE_FAILED && (retry_class_of(m->reason) == RETRY_HOUSE || str_eq(m->reason, "agent_exited")));
	if (!died || t->cancel_asked)
		return ERR_OK;
	enum err_code rc = gate_count(c, r, &blocked, &undelivered, e);
	if (!rc && blocked) {
		*task_to = PHASE_WAITING_HUMAN;
		*pause_ms = -1;
	} else if (!rc && undelivered && *pause_ms < 0 && t->house_failures + t->agent_failures < GATE_RESUMES_MAX) {
		*pause_ms = 0;
	}
	return rc;
}

static enum err_code end_run(struct db_conn *c, const struct run_row *r, struct move *m, bool blocked, struct outbox *out, struct error *e)
{
	AUTO_TASK struct task_row t = { 0 };
	enum phase task_to = blocked ? PHASE_WAITING_HUMAN : m->to;
	int64_t pause_ms = -1;
	enum err_code rc = task_load(c, r->task, &t, e);
	if (!rc)
		rc = next_attempt(c, &t, m, &pause_ms, e);
	if (!rc)
		rc = keep_gates(c, r, &t, m, &task_to, &pause_ms, e);
	if (!rc && pause_ms >= 0) {
		task_to = PHASE_QUEUED;
		m->pause_ms = pause_ms;
	}
	if (!rc)
		rc = run_move(c, r->id, m, task_to, out, e);
	if (!rc && pause_ms < 0 && m->to != PHASE_CANCELED && !t.cancel_asked && (blocked || task_to != PHASE_WAITING_HUMAN))
		return talk_next_turn(c, r->task, out, e);
	return rc || pause_ms < 0 ? rc : retry_event(c, r, m, pause_ms, out, e);
}

/* How long people have is the policy's word, here as for what an agent asks while it works; counted from now, when they can know of it. */
static enum err_code add_deadline(struct db_conn *c, const char *task, struct js *data, struct error *e)
{
	AUTO_TASK struct task_row t = { 0 };
	struct policy *policy = NULL;
	struct error unread = ERROR_INIT;
	char until[RFC3339_SIZE];
	enum err_code rc = task_load(c, task, &t, e);
	/* As it was checked at submit; one of another release, which cannot be read now, shall not keep the run from ending. */
	if (!rc && policy_new(js_get(t.spec, "approvals"), &policy, &unread) == ERR_OK && policy_deadline_ms(policy)) {
		clock_rfc3339(clock_wall_ms() + policy_deadline_ms(policy), until);
		js_set_str(data, "deadline_at", until);
		js_set_str(data, "at_deadline", policy_at_deadline(policy));
		js_set_str(data, "default_answer", policy_default_answer(policy));
	}
	policy_free(policy);
	return rc;
}

/* The agent asks with its last words: its questions are one gate, each with an answer of its own. */
static enum err_code open_gate(struct db_conn *c, struct batch *b, const struct run_row *r, const struct js *result, int64_t at, struct error *e)
{
	char id[ID_SIZE];
	const struct js *said = js_get(result, "questions");
	AUTO_JS struct js *data = js_object();
	struct js *questions = js_array(), *choices = js_array();
	clock_new_id(id);
	for (size_t i = 0; i < js_len(said) || i == 0; i++) {
		struct js *q = js_object();
		AUTO_FREE char *name = mem_printf("q%zu", i + 1);
		const char *text = js_text(js_at(said, i));
		js_set_str(q, "id", name);
		js_set_str(q, "text", text ? text : js_str_or(result, "summary", "The agent asks for help"));
		js_set_bool(q, "free_text", true);
		js_push(questions, q);
	}
	js_push_str(choices, "answer");
	js_push_str(choices, "reject");
	js_set_str(data, "gate", id);
	js_set_str(data, "kind", "question");
	js_set_str(data, "title", js_str(js_at(questions, 0), "text"));
	js_set(data, "questions", questions);
	js_set(data, "choices", choices);
	js_set_str(data, "text", js_str(result, "summary"));
	enum err_code rc = add_deadline(c, r->task, data, e);
	return rc ? rc : gate_open(c, r, data, at, &b->out, e);
}

/* What runners tell of gates: opened, settled by a rule of time or by a file, delivered. */
static enum err_code take_gate(struct db_conn *c, struct batch *b, const struct run_row *r, const char *type, const struct js *data, int64_t at, struct error *e)
{
	AUTO_GATE struct gate_row g = { 0 };
	if (str_eq(type, "gate.blocked"))
		return js_str(data, "request") ? gate_open(c, r, data, at, &b->out, e) : error_set(e, ERR_INVALID, "gate.blocked: it names no request");
	enum err_code rc = gate_load(c, js_str_or(data, "gate", ""), &g, e);
	if (!rc && !str_eq(g.task, r->task))
		rc = error_set(e, ERR_INVALID, "%s: gate %s is of another task", type, g.id);
	if (rc)
		return rc == ERR_NOT_FOUND ? error_set(e, ERR_INVALID, "%s: no gate '%.40s'", type, js_str_or(data, "gate", "")) : rc;
	if (str_eq(type, "gate.delivered")) {
		rc = gate_delivered(c, g.id, at, e);
		return rc ? rc : event_add(c, r->task, type, r->worker, r->n, "runner", at, js_ref(data), &b->out, e);
	}
	return gate_settle(c, g.id, js_get(data, "decision"), &b->out, e);
}

/* How a message to the running turn went. */
static enum err_code take_said(struct db_conn *c, const struct run_row *r, const struct js *data, struct error *e)
{
	return talk_said(c, r->task, js_i64(data, "message", 0), js_str(data, "refused"), e);
}

/* What failed in an agent's words, and in the gateway's when the model was the cause. */
static char *error_words(const struct js *data, const struct js *usage)
{
	const char *error = js_str(data, "error"), *failure = js_str(usage, "failure");
	if (!error || !failure || !str_eq(js_str(data, "reason"), "agent_failed") || strstr(error, failure))
		return mem_strdup(error);
	int64_t status = js_i64(usage, "failure_status", 0);
	return status >= 400 ? mem_printf("%s (the model answered %lld: %s)", error, (long long)status, failure) : mem_printf("%s (%s)", error, failure);
}

static enum err_code take_result(struct db_conn *c, struct batch *b, const struct run_row *r, const struct js *data, int64_t at, struct error *e)
{
	enum phase to = PHASE_FAILED;
	if (!phase_from_name(js_str(data, "phase"), &to) || !phase_is_terminal(to))
		return error_set(e, ERR_INVALID, "run.result: '%s' is not an end", js_str_or(data, "phase", ""));
	struct js *result = js_get(data, "result") ? js_copy(js_get(data, "result")) : js_object();
	if (b->usage)
		js_set(result, "usage", js_ref(b->usage));
	AUTO_FREE char *text = js_dump(result);
	bool blocked = to == PHASE_SUCCEEDED && str_eq(js_str(result, "outcome"), "blocked");
	enum err_code rc = db_exec(c, e, "UPDATE runs SET result=?2 WHERE id=?1", "ss", r->id, text);
	if (!rc)
		rc = db_exec(c, e, "UPDATE tasks SET result=?2 WHERE id=?1", "ss", r->task, text);
	if (!rc && blocked)
		rc = open_gate(c, b, r, result, at, e);
	struct js *event = js_object();
	js_set(event, "result", result);
	if (!rc)
		rc = event_add(c, r->task, "run.result", r->worker, r->n, "runner", at, event, &b->out, e);
	else
		js_free(event);
	AUTO_FREE char *words = error_words(data, b->usage);
	struct move m = { .to = to, .reason = blocked ? "blocked" : js_str(data, "reason"), .error = words, .actor = "runner", .at = at };
	if (!rc)
		rc = end_run(c, r, &m, blocked, &b->out, e);
	b->ended = !rc;
	return rc;
}

static enum err_code take_phase(struct db_conn *c, struct batch *b, const struct run_row *r, const struct js *data, int64_t at, struct error *e)
{
	enum phase to;
	if (!phase_from_name(js_str(data, "to"), &to) || phase_is_terminal(to))
		return error_set(e, ERR_INVALID, "run.phase: '%s' is not a phase on the way", js_str_or(data, "to", ""));
	struct move m = { .to = to, .actor = "runner", .at = at };
	return run_move(c, r->id, &m, to, &b->out, e);
}

/* What a URL and a ref turned out to be is part of the task from then on. */
static enum err_code take_fetched(struct db_conn *c, const struct run_row *r, const struct js *data, struct error *e)
{
	static const char *const members[] = { "commit", "tree", "head", "branch", NULL };
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_load(c, r->task, &t, e);
	struct js *source = rc ? NULL : js_get(t.spec, "source");
	if (rc || !str_eq(js_str(source, "kind"), "git"))
		return rc;
	for (const char *const *m = members; *m; m++)
		if (js_get(data, *m))
			js_set(source, *m, js_ref(js_get(data, *m)));
	AUTO_FREE char *text = js_dump(t.spec);
	return db_exec(c, e, "UPDATE tasks SET spec=?2 WHERE id=?1", "ss", r->task, text);
}

static enum err_code take_event(struct db_conn *c, struct batch *b, const struct run_row *r, const struct js *line, struct error *e)
{
	const char *type = js_str_or(line, "type", "");
	const struct js *data = js_get(line, "data");
	int64_t at = clock_parse_rfc3339(js_str_or(line, "at", ""));
	at = at < 0 ? clock_wall_ms() : at;
	if (str_eq(type, "run.phase"))
		return take_phase(c, b, r, data, at, e);
	if (str_eq(type, "run.result"))
		return take_result(c, b, r, data, at, e);
	if (str_starts(type, "gate."))
		return take_gate(c, b, r, type, data, at, e);
	/* The task's own moves and counts are the server's to tell. */
	if (!type[0] || str_starts(type, "task.") || str_starts(type, "usage.") || str_eq(type, "run.ended"))
		return error_set(e, ERR_INVALID, "an event of type '%.40s' does not come from a runner", type);
	const char *said = js_str(line, "actor"), *actor = str_eq(said, "agent") || str_eq(said, "policy") ? said : "runner";
	enum err_code rc = ERR_OK;
	if (str_eq(type, "workspace.fetched"))
		rc = take_fetched(c, r, data, e);
	else if (str_eq(type, "message.steered") || str_eq(type, "message.refused"))
		rc = take_said(c, r, data, e);
	else if (str_starts(type, "todo."))
		rc = todos_take(c, r->task, r->worker, type, data, at, e);
	if (rc)
		return rc;
	return event_add(c, r->task, type, r->worker, r->n, actor, at, data ? js_ref(data) : NULL, &b->out, e);
}

static enum err_code take_beat(struct db_conn *c, const struct run_row *r, const struct js *beat, struct error *e)
{
	AUTO_FREE char *text = js_dump(beat);
	int64_t now = clock_wall_ms();
	enum err_code rc = db_exec(c, e, "UPDATE runs SET beat=?2, beat_at=?3 WHERE id=?1", "ssi", r->id, text, now);
	if (!rc)
		rc = db_exec(c, e, "UPDATE tasks SET beat_at=?2, progress=?3 WHERE id=?1", "sis", r->task, now, js_str(beat, "progress"));
	return rc;
}

static enum err_code take_events(struct db_conn *c, struct batch *b, const struct run_row *r, struct error *e)
{
	b->acked = r->acked;
	for (size_t i = 0; i < js_len(b->events); i++) {
		const struct js *line = js_at(b->events, i);
		int64_t n = js_i64(line, "n", -1);
		if (n <= b->acked)
			continue; /* sent again */
		if (b->ended)
			break; /* the end is taken, whatever comes behind it */
		if (phase_is_terminal(r->phase))
			return error_set(e, ERR_STALE, "run %s is over", r->id);
		if (n != b->acked + 1)
			return error_set(e, ERR_CONFLICT, "run %s: event %lld came where %lld was expected", r->id, (long long)n, (long long)b->acked + 1);
		enum err_code rc = take_event(c, b, r, line, e);
		if (rc)
			return rc;
		b->acked = n;
	}
	if (b->acked == r->acked)
		return ERR_OK;
	return db_exec(c, e, "UPDATE runs SET acked=?2 WHERE id=?1", "si", r->id, b->acked);
}

static enum err_code batch_op(struct db_conn *c, void *arg, struct error *e)
{
	struct batch *b = arg;
	AUTO_RUN struct run_row r = { 0 };
	enum err_code rc = run_load(c, b->run_id, &r, e);
	if (!rc && !b->from_disk)
		rc = check_runner(&r, b->token, b->epoch, e);
	if (rc)
		return rc;
	snprintf(b->task, sizeof(b->task), "%s", r.task);
	snprintf(b->project, sizeof(b->project), "%s", r.project);
	rc = take_events(c, b, &r, e);
	if (!rc && b->beat && !b->ended && !phase_is_terminal(r.phase))
		rc = take_beat(c, &r, b->beat, e);
	b->ended = b->ended || phase_is_terminal(r.phase);
	return rc;
}

static bool has_result(const struct js *events)
{
	size_t n = js_len(events);
	return n && str_eq(js_str(js_at(events, n - 1), "type"), "run.result");
}

/* Before anything is read or written for it. */
static enum err_code known_op(struct db_conn *c, void *arg, struct error *e)
{
	const struct batch *b = arg;
	AUTO_RUN struct run_row r = { 0 };
	enum err_code rc = run_load(c, b->run_id, &r, e);
	return rc || b->from_disk ? rc : check_runner(&r, b->token, b->epoch, e);
}

static enum err_code take_batch(struct core *c, struct batch *b, struct error *e)
{
	AUTO_JS struct js *total = NULL;
	struct error ignored = ERROR_INIT;
	enum err_code rc = db_read(c->db, known_op, b, e);
	if (rc)
		return rc;
	if (usage_pull(c, b->run_id, has_result(b->events) ? &total : NULL, &ignored))
		log_warn("run %s: usage: %s", b->run_id, ignored.text);
	b->usage = total;
	rc = db_write(c->db, batch_op, b, e);
	if (!rc) {
		atomic_fetch_add(&c->ingested, js_len(b->events));
		core_publish(c, &b->out);
		if (b->ended) {
			atomic_fetch_add(&c->ended, 1);
			sched_ask(c);
		}
	}
	outbox_release(&b->out);
	return rc;
}

static void publish_live(struct core *c, const char *project, const char *task, const struct js *live)
{
	for (size_t i = 0; i < js_len(live); i++) {
		AUTO_JS struct js *o = js_copy(js_at(live, i));
		js_set_bool(o, "live", true);
		js_set_str(o, "task", task);
		AUTO_FREE char *text = js_dump(o);
		hub_publish_live(c->hub, project, task, text);
	}
}

enum err_code core_ingest(struct core *c, const char *run_id, const char *token, const struct js *body, struct js **ret, struct error *e)
{
	int64_t protocol = js_i64(body, "protocol", 0);
	if (protocol != RUNNER_PROTOCOL && protocol != RUNNER_PROTOCOL - 1)
		return error_set(e, ERR_UNSUPPORTED, "runner protocol %lld: this server speaks %d", (long long)protocol, RUNNER_PROTOCOL);
	if (js_len(js_get(body, "events")) > RUNNER_BATCH_MAX)
		return error_set(e, ERR_LIMIT, "a batch of more than %d events", RUNNER_BATCH_MAX);
	struct batch b = { .core = c, .run_id = run_id, .events = js_get(body, "events"), .beat = js_get(body, "beat"), .token = token,
		.epoch = js_i64(body, "epoch", -1), .out.core = c };
	enum err_code rc = take_batch(c, &b, e);
	if (rc)
		return rc;
	reaper_beat(c, run_id);
	if (b.beat && c->root) /* the heartbeat file in a repository is ours to write then */
		taskdir_dirty(c, b.task);
	publish_live(c, b.project, b.task, js_get(body, "live"));
	*ret = js_object();
	js_set_int(*ret, "acked", b.acked);
	return ERR_OK;
}

struct command_list {
	const char *run_id, *token;
	int64_t after;
	struct js *out;
};

static enum err_code commands_op(struct db_conn *c, void *arg, struct error *e)
{
	struct command_list *l = arg;
	AUTO_RUN struct run_row r = { 0 };
	struct db_stmt *s;
	bool row = false;
	size_t bytes = 0;
	enum err_code rc = run_load(c, l->run_id, &r, e);
	if (!rc)
		rc = check_runner(&r, l->token, r.n, e);
	if (!rc && phase_is_terminal(r.phase))
		rc = error_set(e, ERR_STALE, "run %s is over", r.id);
	if (!rc)
		rc = db_prepare(c, "SELECT n, kind, data, actor FROM commands WHERE run=?1 AND n>?2 ORDER BY n LIMIT 64", &s, e);
	if (rc)
		return rc;
	db_bind_text(s, 1, l->run_id);
	db_bind_int(s, 2, l->after);
	l->out = js_array();
	while (bytes < COMMANDS_BYTES_MAX && !(rc = db_step(s, &row, e)) && row) {
		struct js *o = js_object();
		const char *data = db_text(s, 2);
		bytes += strlen(data);
		js_set_int(o, "n", db_int(s, 0));
		js_set_str(o, "kind", db_text(s, 1));
		js_set(o, "data", js_parse(data, strlen(data), NULL));
		js_set_str(o, "actor", db_text(s, 3));
		js_push(l->out, o);
	}
	db_done(s);
	return rc;
}

/* The runner gets people's secret answers open, over its own socket. One that cannot be given now waits, and what comes behind it. */
static enum err_code open_answers(struct core *c, const struct js *list, struct js *out, struct error *e)
{
	for (size_t i = 0; i < js_len(list); i++) {
		struct js *decision = js_get(js_get(js_at(list, i), "data"), "decision");
		enum err_code rc = decision ? gate_unseal(c, decision, e) : ERR_OK;
		if (rc == ERR_INVALID) { /* nobody can open it any more; what else is said to the runner shall not wait for that */
			log_error("gate %s: its decision is not handed out: %s", js_str_or(decision, "gate", "?"), e->text);
			continue;
		}
		if (rc) {
			log_warn("gate %s: its decision is not handed out now: %s", js_str_or(decision, "gate", "?"), e->text);
			return i ? ERR_OK : rc;
		}
		js_push(out, js_ref(js_at(list, i)));
	}
	return ERR_OK;
}

enum err_code core_commands(struct core *c, const char *run_id, const char *token, int64_t after, struct js **ret_list, struct error *e)
{
	struct command_list l = { .run_id = run_id, .token = token, .after = after };
	AUTO_JS struct js *given = js_array();
	enum err_code rc = db_read(c->db, commands_op, &l, e);
	if (!rc)
		rc = open_answers(c, l.out, given, e);
	js_free(l.out);
	if (!rc)
		*ret_list = js_ref(given);
	return rc;
}

struct find_run {
	const char *run_id;
	struct run_row run;
};

static enum err_code find_op(struct db_conn *c, void *arg, struct error *e)
{
	struct find_run *f = arg;
	return run_load(c, f->run_id, &f->run, e);
}

/* Whole lines of the spool, in batches; a line that is none ends the reading (*ret_torn). */
static enum err_code take_lines(struct core *c, const struct run_row *r, const char *at, bool *ret_torn, bool *ret_ended, struct error *e)
{
	const char *newline;
	enum err_code rc = ERR_OK;
	while (!rc && !*ret_ended && *at) {
		struct batch b = { .core = c, .run_id = r->id, .from_disk = true, .out.core = c };
		AUTO_JS struct js *events = js_array();
		while (js_len(events) < RUNNER_BATCH_MAX && (newline = strchr(at, '\n'))) {
			struct js *line = js_parse(at, (size_t)(newline - at), NULL);
			if (!line) {
				at = "";
				*ret_torn = true;
				break;
			}
			js_push(events, line);
			at = newline + 1;
		}
		if (!js_len(events))
			break;
		b.events = events;
		rc = take_batch(c, &b, e);
		*ret_ended = b.ended;
	}
	return rc;
}

/* The spool part by part, whatever its length. A torn last line was never acknowledged and ends the reading. */
static enum err_code take_spool(struct core *c, const struct run_row *r, int fd, bool *ret_ended, struct error *e)
{
	AUTO_FREE char *part = mem_alloc(SPOOL_PART + 1);
	bool torn = false;
	enum err_code rc = ERR_OK;
	for (off_t at = 0; !rc && !torn && !*ret_ended;) {
		ssize_t n = pread(fd, part, SPOOL_PART, at);
		if (n < 0)
			return error_errno(e, "read the spool of run %s", r->id);
		const char *end = memrchr(part, '\n', (size_t)n);
		if (!end)
			return ERR_OK;
		size_t len = (size_t)(end + 1 - part);
		part[len] = 0;
		rc = take_lines(c, r, part, &torn, ret_ended, e);
		at += (off_t)len;
	}
	return rc;
}

enum err_code ingest_spool(struct core *c, const char *run_id, bool *ret_ended, struct error *e)
{
	struct find_run f = { .run_id = run_id };
	enum err_code rc = db_read(c->db, find_op, &f, e);
	if (rc)
		return rc;
	AUTO_RUN struct run_row r = f.run;
	*ret_ended = phase_is_terminal(r.phase);
	if (*ret_ended)
		return ERR_OK;
	AUTO_CLOSE int dir = -1;
	AUTO_CLOSE int fd = -1;
	struct stat st;
	rc = launch_open_run_dir(c, r.task, r.worker, r.n, &dir, e);
	if (!rc)
		rc = file_open_beneath(dir, "spool.jsonl", O_RDONLY | O_NONBLOCK, &fd, e);
	if (rc == ERR_NOT_FOUND)
		return ERR_OK; /* it died before its first word */
	if (!rc && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)))
		rc = error_set(e, ERR_INVALID, "the spool of run %s is not a regular file", run_id);
	return rc ? rc : take_spool(c, &r, fd, ret_ended, e);
}

struct lost {
	const char *run_id, *reason, *text;
	struct outbox out;
};

static enum err_code lost_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct lost *l = arg;
	AUTO_RUN struct run_row r = { 0 };
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = run_load(conn, l->run_id, &r, e);
	if (!rc)
		rc = task_load(conn, r.task, &t, e);
	if (rc || phase_is_terminal(r.phase))
		return rc;
	bool canceled = t.cancel_asked; /* it was asked to end, and it has */
	struct move m = { .to = canceled ? PHASE_CANCELED : PHASE_LOST, .reason = canceled ? "canceled" : l->reason, .error = canceled ? NULL : l->text,
		.actor = SERVER_ACTOR };
	return end_run(conn, &r, &m, false, &l->out, e);
}

enum err_code ingest_lost(struct core *c, const char *run_id, const char *reason, const char *text, struct error *e)
{
	AUTO_FREE char *copy = mem_strdup(text); /* text may be e's own */
	struct lost l = { .run_id = run_id, .reason = reason, .text = copy, .out.core = c };
	enum err_code rc = db_write(c->db, lost_op, &l, e);
	if (!rc) {
		atomic_fetch_add(&c->lost, l.out.count ? 1 : 0);
		core_publish(c, &l.out);
	}
	outbox_release(&l.out);
	return rc;
}
