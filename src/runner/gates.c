/* What the agent asks: decided by a rule, from the record of an earlier attempt, or by a person.
 *
 *   ask -> rule? -> policy.decided                                     -> agent
 *       -> asked and settled in an earlier attempt of this turn?       -> gate.delivered -> agent
 *       -> gates/<id>.yaml, gate.blocked; the run waits, its clocks stand still
 *            decision: by the server's command, by inbox/ when it is away, by the deadline -> agent, gate.delivered
 *
 * An agent that ends with open gates leaves them open: the server decides by how it ended. */
#include "agent/decision.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/gatefile.h"
#include "runner/runner.h"
#include <stdlib.h>
#include <string.h>

static const char *task_dir(const struct runner *r)
{
	return js_str_or(r->spec, "task_dir", "");
}

/* "For this session" outlives the runner that heard it: the session goes on in this one. */
static void remember_decided(struct runner *r)
{
	for (size_t i = 0; i < js_len(r->decided); i++) {
		const struct js *d = js_at(r->decided, i), *decision = js_get(d, "decision");
		if (str_eq(js_str(decision, "decision"), "approve") && str_eq(js_str(decision, "scope"), "session"))
			policy_remember(r->policy, js_str_or(d, "kind", ""), js_get(d, "data"));
	}
}

enum err_code gates_open(struct runner *r, struct error *e)
{
	r->decided = js_get(r->spec, "decided") ? js_copy(js_get(r->spec, "decided")) : js_array();
	inlet_hide(r, r->told_before);
	for (size_t i = 0; i < js_len(r->decided); i++) {
		const struct js *open = js_get(r->unsealed, js_str_or(js_at(r->decided, i), "gate", ""));
		if (!open)
			continue;
		js_set(js_at(r->decided, i), "decision", js_ref(open));
		inlet_add_secret(r, js_get(js_at(r->decided, i), "data"), open);
	}
	enum err_code rc = policy_new(js_get(r->spec, "approvals"), &r->policy, e);
	if (!rc)
		remember_decided(r);
	return rc;
}

static void gate_release(struct gate *g)
{
	free(g->request);
	free(g->kind);
	js_free(g->data);
	*g = (struct gate){ 0 };
}

void gates_release(struct runner *r)
{
	while (r->gate_count)
		gate_release(&r->gates[--r->gate_count]);
	policy_free(r->policy);
	js_free(r->decided);
	scrub_release(&r->secrets);
	js_free(r->told_before);
	js_free(r->unsealed);
	js_free(r->unheard);
	driven_unwatch(r);
	strbuf_release(&r->inlet);
}

static void pause_clocks(struct runner *r)
{
	if (r->waiting_since_ms)
		return;
	r->waiting_since_ms = clock_mono_ms();
	if (r->phase == PHASE_RUNNING)
		runner_move(r, PHASE_WAITING_HUMAN);
}

static void resume_clocks(struct runner *r)
{
	if (r->gate_count || !r->waiting_since_ms)
		return;
	r->run_deadline_ms += clock_mono_ms() - r->waiting_since_ms;
	r->waiting_since_ms = 0;
	if (r->phase == PHASE_WAITING_HUMAN)
		runner_move(r, PHASE_RUNNING);
	if (r->agent && r->step.active)
		agent_touch(r);
}

static void forget(struct runner *r, struct gate *g)
{
	gate_release(g);
	*g = r->gates[--r->gate_count];
	r->gates[r->gate_count] = (struct gate){ 0 };
	resume_clocks(r);
}

static struct gate *find(struct runner *r, const char *id, const char *request)
{
	for (int i = 0; i < r->gate_count; i++)
		if ((id && str_eq(r->gates[i].id, id)) || (request && str_eq(r->gates[i].request, request)))
			return &r->gates[i];
	return NULL;
}

/* ---- without a person */

static void tell_rule(struct runner *r, const struct agent_ask *ask, const struct js *shown, const char *decision, const char *rule)
{
	static const char *const members[] = { "title", "command", "cwd", "files" };
	struct js *data = js_object();
	js_set_str(data, "kind", ask->kind);
	js_set_str(data, "decision", decision);
	js_set_str(data, "rule", rule);
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		if (js_get(shown, members[i]))
			js_set(data, members[i], js_ref(js_get(shown, members[i])));
	runner_event(r, "policy.decided", "policy", data);
}

static void answer_by_rule(struct runner *r, const struct agent_ask *ask, const struct js *shown, const char *word, const char *rule)
{
	AUTO_JS struct js *decision = js_object();
	char id[ID_SIZE];
	clock_new_id(id);
	js_set_str(decision, "id", id);
	js_set_str(decision, "decision", word);
	js_set_str(decision, "scope", "once");
	AUTO_FREE char *note = str_eq(word, "reject") ? mem_printf("refused by the rule '%s'", rule) : NULL;
	js_set_str(decision, "note", note);
	tell_rule(r, ask, shown, word, rule);
	agent_decide(r->agent, ask->request, decision);
}

static bool decided_by_rule(struct runner *r, const struct agent_ask *ask, const struct js *shown)
{
	const char *rule = NULL;
	if (r->gate_count == RUNNER_GATES_MAX) {
		answer_by_rule(r, ask, shown, "reject", "too many open gates");
		return true;
	}
	switch (policy_judge(r->policy, ask->kind, ask->data_taken, &rule)) {
	case POLICY_ALLOW:
		answer_by_rule(r, ask, shown, "approve", rule);
		return true;
	case POLICY_DENY:
		answer_by_rule(r, ask, shown, "reject", rule);
		return true;
	case POLICY_ASK:
		break;
	}
	return false;
}

/* Bytes in a pipe are not yet heard: an agent that dies before its next word has not got them, and the next attempt is told. */
static void delivered_event(struct runner *r, const char *gate, const struct js *decision, const char *how)
{
	struct js *data = js_object();
	js_set_str(data, "gate", gate);
	js_set_str(data, "decision_id", js_str(decision, "id"));
	js_set_str(data, "how", how);
	if (!r->unheard)
		r->unheard = js_array();
	js_push(r->unheard, data);
}

void gates_heard(struct runner *r)
{
	if (driven_is_gone(r)) /* who speaks is not who asked */
		return;
	AUTO_JS struct js *list = r->inlet.len ? NULL : TAKE_PTR(r->unheard);
	for (size_t i = 0; i < js_len(list); i++)
		runner_event(r, "gate.delivered", "runner", js_ref(js_at(list, i)));
	if (!r->gate_count && !r->inlet.len)
		driven_unwatch(r);
}

/* A decision as the adapter wants it: a default answer at the deadline is an answer. */
static void hand_to_agent(struct runner *r, const char *request, const struct js *decision)
{
	AUTO_JS struct js *given = js_copy(decision);
	if (str_eq(js_str(given, "decision"), "expire") && str_eq(js_str(given, "then"), "answer"))
		js_set_str(given, "decision", "answer");
	if (r->agent)
		agent_decide(r->agent, request, given);
}

/* The same request of an earlier attempt that died: one answer for one request. */
static bool decided_before(struct runner *r, const struct agent_ask *ask, const struct js *shown)
{
	for (size_t i = 0; i < js_len(r->decided); i++) {
		struct js *d = js_at(r->decided, i);
		AUTO_JS struct js *was = scrub_js(&r->secrets, js_get(d, "data")); /* it may have been asked before the secret was told */
		if (js_flag(d, "used", false) || !decision_same_request(js_str_or(d, "kind", ""), was, ask->kind, shown))
			continue;
		js_set_bool(d, "used", true);
		delivered_event(r, js_str_or(d, "gate", ""), js_get(d, "decision"), "from the record");
		hand_to_agent(r, ask->request, js_get(d, "decision"));
		return true;
	}
	return false;
}

/* ---- by a person */

static void set_deadline(struct runner *r, struct gate *g)
{
	int64_t limit = policy_deadline_ms(r->policy);
	char at[RFC3339_SIZE];
	if (!limit)
		return;
	g->deadline_ms = clock_mono_ms() + limit;
	clock_rfc3339(clock_wall_ms() + limit, at);
	js_set_str(g->data, "deadline_at", at);
	js_set_str(g->data, "at_deadline", policy_at_deadline(r->policy));
	js_set_str(g->data, "default_answer", policy_default_answer(r->policy));
}

static void write_file(struct runner *r, const struct gate *g)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *o = js_object();
	char at[RFC3339_SIZE];
	clock_rfc3339(clock_wall_ms(), at);
	js_set_str(o, "id", g->id);
	js_set_str(o, "task", r->task_id);
	js_set_str(o, "run", r->run_id);
	js_set_str(o, "kind", g->kind);
	js_set_str(o, "created_at", at);
	js_set_str(o, "deadline_at", js_str(g->data, "deadline_at"));
	js_set_str(o, "at_deadline", js_str(g->data, "at_deadline"));
	js_set(o, "data", js_ref(g->data));
	enum err_code rc = gatefile_dirs(task_dir(r), (uid_t)-1, 0, &e);
	if (!rc)
		rc = gatefile_write(task_dir(r), o, &e);
	if (rc)
		log_warn("gate %s: %s", g->id, e.text);
}

/* The server is told the deadline on the clock that holds, too. */
static void blocked_event(struct runner *r, const struct gate *g)
{
	struct js *data = js_copy(g->data);
	if (g->deadline_ms) {
		struct js *clock = js_object();
		js_set_str(clock, "boot", clock_boot_id());
		js_set_int(clock, "mono", g->deadline_ms);
		js_set(data, "deadline_clock", clock);
	}
	runner_event(r, "gate.blocked", "agent", data);
}

void gates_ask(void *runner, const struct agent_ask *ask)
{
	struct runner *r = runner;
	AUTO_JS struct js *raw = ask->data_taken;
	AUTO_JS struct js *data = inlet_clean_js(r, raw); /* rules judge what is meant; kept is what may be seen */
	if (decided_by_rule(r, ask, data) || decided_before(r, ask, data))
		return;
	struct gate *g = &r->gates[r->gate_count++];
	*g = (struct gate){ .request = mem_strdup(ask->request), .kind = mem_strdup(ask->kind), .data = js_ref(data) };
	clock_new_id(g->id);
	js_set_str(data, "gate", g->id);
	js_set_str(data, "kind", g->kind);
	js_set_str(data, "request", g->request);
	set_deadline(r, g);
	write_file(r, g);
	blocked_event(r, g);
	pause_clocks(r);
	driven_watch(r);
}

/* The decision is settled: the agent gets it. */
static void deliver(struct runner *r, struct gate *g, const struct js *decision)
{
	if (str_eq(js_str(decision, "decision"), "approve") && str_eq(js_str(decision, "scope"), "session"))
		policy_remember(r->policy, g->kind, g->data);
	inlet_add_secret(r, g->data, decision);
	if (str_eq(js_str(decision, "decision"), "expire") && str_eq(js_str(decision, "then"), "fail"))
		runner_verdict(r, PHASE_FAILED, "gate_expired", "nobody answered in time: %s", js_str_or(g->data, "title", g->kind));
	if (driven_is_gone(r)) { /* the next attempt is told */
		driven_end(r);
		return;
	}
	hand_to_agent(r, g->request, decision);
	delivered_event(r, g->id, decision, "live");
	forget(r, g);
}

void gates_command(struct runner *r, const struct js *data)
{
	struct gate *g = find(r, js_str_or(data, "gate", ""), NULL);
	if (g) /* else it was settled here already, or belongs to an attempt before this one */
		deliver(r, g, js_get(data, "decision"));
}

/* Links a decision made here and tells which counts; NULL: it could not be written. */
static struct js *link_decision(struct runner *r, const struct gate *g, const struct js *checked, const char *actor, bool *ret_won)
{
	struct error e = ERROR_INIT;
	struct js *winner = NULL;
	AUTO_JS struct js *decision = decision_make(g->id, checked, actor);
	if (gatefile_settle(task_dir(r), g->id, decision, &winner, ret_won, &e)) {
		log_warn("gate %s: %s", g->id, e.text);
		return NULL;
	}
	return winner;
}

static void settled_event(struct runner *r, const struct gate *g, const struct js *decision)
{
	const char *state = decision_state(js_str_or(decision, "decision", "cancel"));
	AUTO_FREE char *type = mem_printf("gate.%s", state ? state : "canceled");
	struct js *data = js_object();
	js_set_str(data, "gate", g->id);
	js_set(data, "decision", js_ref(decision));
	runner_event(r, type, "runner", data);
}

bool gates_settle(struct runner *r, struct gate *g, const struct js *checked, const char *actor)
{
	bool won = false;
	AUTO_JS struct js *counts = link_decision(r, g, checked, actor, &won);
	if (!counts)
		return false;
	if (!won && decision_is_secret(g->data))
		return true; /* it is sealed: the server brings it */
	settled_event(r, g, counts);
	deliver(r, g, counts);
	return true;
}

/* Only where the verdict leaves no doubt: a run that died leaves its questions to the next attempt, and which ends are deaths the server says. */
void gates_close(struct runner *r)
{
	AUTO_JS struct js *word = js_object();
	js_set_str(word, "decision", "cancel");
	if (r->verdict.phase != PHASE_CANCELED && r->verdict.phase != PHASE_TIMED_OUT)
		return;
	for (; r->gate_count; gate_release(&r->gates[--r->gate_count])) {
		const struct gate *g = &r->gates[r->gate_count - 1];
		bool won = false;
		AUTO_JS struct js *counts = link_decision(r, g, word, "runner", &won);
		if (counts && (won || !decision_is_secret(g->data)))
			settled_event(r, g, counts);
	}
}

void gates_withdraw(void *runner, const char *request)
{
	struct runner *r = runner;
	struct gate *g = find(r, NULL, request);
	AUTO_JS struct js *word = js_object();
	js_set_str(word, "decision", "cancel");
	js_set_str(word, "note", "the agent does not wait for it any more");
	if (g)
		gates_settle(r, g, word, "agent");
}

/* ---- time */

static void expire(struct runner *r, struct gate *g)
{
	AUTO_JS struct js *word = decision_expired(g->kind, g->data);
	g->deadline_ms = 0;
	if (!gates_settle(r, g, word, "signalbox"))
		g->deadline_ms = clock_mono_ms() + RUNNER_SETTLE_RETRY_MS; /* a full disk, for example: nobody else ends the gate of a live run */
}

void gates_check_time(struct runner *r, int64_t now_ms)
{
	for (int i = r->gate_count - 1; i >= 0; i--)
		if (r->gates[i].deadline_ms && now_ms >= r->gates[i].deadline_ms)
			expire(r, &r->gates[i]);
	if (r->gate_count && now_ms >= r->next_inbox_ms) {
		r->next_inbox_ms = now_ms + RUNNER_INBOX_MS;
		if (link_is_away(r)) /* else the server looks, who knows more */
			inbox_look(r);
	}
}

int64_t gates_next_ms(const struct runner *r)
{
	int64_t next = r->gate_count ? r->next_inbox_ms : INT64_MAX;
	for (int i = 0; i < r->gate_count; i++)
		if (r->gates[i].deadline_ms && r->gates[i].deadline_ms < next)
			next = r->gates[i].deadline_ms;
	return next;
}

/* ---- an attempt after one that died */

void gates_tell_decided(struct runner *r, struct strbuf *out)
{
	for (size_t i = 0; i < js_len(r->decided); i++) {
		const struct js *d = js_at(r->decided, i);
		if (i == 0)
			strbuf_adds(out, "What you asked before, and what was decided:\n");
		decision_tell(js_str_or(d, "kind", ""), js_get(d, "data"), js_get(d, "decision"), out);
	}
	if (js_len(r->decided))
		strbuf_adds(out, "Go on from there.\n\n");
}

void gates_delivered_by_prompt(struct runner *r)
{
	if (r->told || !agent_has_prompt(r->agent)) /* its first words come before it has heard any of ours */
		return;
	r->told = true;
	for (size_t i = 0; i < js_len(r->decided); i++) {
		const struct js *d = js_at(r->decided, i);
		if (!decision_is_secret(js_get(d, "data"))) /* those are delivered when they are asked again */
			delivered_event(r, js_str_or(d, "gate", ""), js_get(d, "decision"), "told");
	}
}
