/* A place for the unit tests of adapters that are spoken with, first of all `codex`: what it told, asked and sent, and the recorded sessions. */
#pragma once
#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#ifndef SITE_ADAPTERS_DATA /* the directory below test/data of another adapter's recordings */
#define SITE_ADAPTERS_DATA "codex"
#define SITE_IS_CODEX
#endif

#define LINES_MAX 128
#define ASKS_MAX 256

struct seen {
	struct strbuf story; /* event types and "ask KIND", "withdraw", "said", in order */
	struct js *last;     /* event's or request's data */
	struct js *sent;     /* all that went to the agent */
	char *asks[ASKS_MAX];
	int ask_count;
	const char *decision; /* given at once; NULL: never */
	struct agent *agent;
};

static inline void keep(struct seen *s, const char *before, const char *name, struct js *data_taken)
{
	strbuf_addf(&s->story, "%s%s ", before, name);
	js_free(s->last);
	s->last = data_taken;
}

static inline void on_event(void *ctx, const char *type, struct js *data_taken)
{
	assert_non_null(data_taken);
	keep(ctx, "", type, data_taken);
}

static inline void on_live(void *ctx, const char *type, struct js *data_taken)
{
	(void)ctx;
	assert_true(type[0]);
	js_free(data_taken);
}

static inline void on_send(void *ctx, const char *line, size_t len)
{
	struct seen *s = ctx;
	struct js *o = js_parse(line, len, NULL);
	assert_non_null(o);
	js_push(s->sent, o);
}

static inline void on_ask(void *ctx, const struct agent_ask *ask)
{
	struct seen *s = ctx;
	AUTO_FREE char *request = mem_strdup(ask->request);
	assert_true(js_str(ask->data_taken, "title") && js_len(js_get(ask->data_taken, "choices")) > 0);
	for (int i = 0; i < s->ask_count; i++)
		assert_string_not_equal(s->asks[i], request);
	assert_true(s->ask_count < ASKS_MAX);
	s->asks[s->ask_count++] = mem_strdup(request);
	keep(s, "ask ", ask->kind, ask->data_taken);
	if (!s->decision)
		return;
	AUTO_JS struct js *decision = js_parse(s->decision, strlen(s->decision), NULL);
	agent_decide(s->agent, request, decision);
}

static inline void on_withdraw(void *ctx, const char *request)
{
	(void)request;
	keep(ctx, "", "withdraw", NULL);
}

static inline void on_said(void *ctx, const char *message_id, const char *refused)
{
	(void)message_id;
	keep(ctx, "said ", refused ? "no" : "yes", NULL);
}

static inline void seen_release(struct seen *s)
{
	strbuf_release(&s->story);
	js_free(s->last);
	js_free(s->sent);
	for (int i = 0; i < s->ask_count; i++)
		free(s->asks[i]);
}

static struct js *settings; /* of the agent, made by the program's set-up */

static inline struct agent *open_agent(struct seen *s, const char *approvals, const char *decision)
{
	const struct agent_sink sink = { on_event, on_live, on_send, on_ask, on_withdraw, on_said, s };
	const struct agent_run run = { .agent = settings, .home = "/nonexistent", .prompt = "do it", .model_url = "", .model_token = "", .approvals = approvals };
	*s = (struct seen){ .story = STRBUF_INIT, .sent = js_array(), .decision = decision };
	assert_int_equal(agent_new(&run, &sink, &s->agent, NULL), ERR_OK);
	agent_started(s->agent);
	return s->agent;
}

struct recording {
	struct strbuf text;
	char *lines[LINES_MAX];
	int count;
};

static inline void recording_open(struct recording *r, const char *name)
{
	AUTO_FREE char *path = mem_printf("%s/test/data/" SITE_ADAPTERS_DATA "/%s.jsonl", getenv("SIGNALBOX_SOURCE"), name);
	*r = (struct recording){ .text = STRBUF_INIT };
	assert_int_equal(file_read(path, 1 << 20, &r->text, NULL), ERR_OK);
	for (char *save = NULL, *line = strtok_r(r->text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		assert_true(r->count < LINES_MAX);
		r->lines[r->count++] = line;
	}
}

static inline void recording_release(struct recording *r)
{
	strbuf_release(&r->text);
}

static inline void feed(struct agent *a, const char *line)
{
	agent_line(a, line, strlen(line));
}

#ifdef SITE_IS_CODEX
static inline int make_settings(void **state)
{
	(void)state;
	settings = js_object();
	js_set_str(settings, "adapter", "codex");
	return 0;
}

static inline int free_settings(void **state)
{
	(void)state;
	js_free(settings);
	return 0;
}

static const char approve[] = "{\"decision\":\"approve\"}";
static const char answer[] = "{\"decision\":\"answer\",\"answers\":{\"answer\":[\"blue\"],\"colour\":[\"blue\"]},\"content\":{\"day\":\"monday\"}}";
static const char words[] = "{\"decision\":\"answer\",\"answers\":{\"answer\":\"blue\"}}";

static const struct {
	const char *name, *approvals, *decision, *story;
	enum agent_status status;
} sessions[] = {
	{ "approve", "always", approve, "run.session ask command command.started command.finished ask patch file.changed ask command command.started command.finished message.done run.turn ",
	  AGENT_SUCCESS },
	{ "askuser", "never", answer, "run.session tool.started ask question tool.finished message.done run.turn ", AGENT_SUCCESS },
	{ "askuser", NULL, words, "run.session tool.started ask question tool.finished message.done run.turn ", AGENT_SUCCESS },
	{ "user-input", NULL, answer, "run.session ask question message.done run.turn ", AGENT_SUCCESS },
	{ "permissions", "always", approve, "run.session agent.warning ask permission message.done run.turn ", AGENT_SUCCESS },
	{ "plan", "never", NULL, "run.session todo.snapshot todo.update todo.update todo.snapshot message.done run.turn ", AGENT_SUCCESS },
	{ "interrupted", "always", NULL, "run.session ask command agent.raw run.turn withdraw ", AGENT_FAILED }, /* raw: the reply to an interrupt that is not made here */
	{ "failed", "never", NULL, "run.session agent.error run.turn ", AGENT_FAILED },
};
#endif
