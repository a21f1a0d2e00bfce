/* The adapters' table and what is common to all of them. */
#include "agent/backend.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

static const struct agent_backend *const backends[] = { &agent_codex, &agent_codex_exec, &agent_claude, &agent_acp, &agent_codex_acp,
	&agent_claude_acp, &agent_command, &agent_fake };
static const char *const capability_words[] = { "resume", "gates", "questions", "todos", "steer", "interrupt", "usage" };

const struct agent_backend *agent_backend_find(const char *adapter)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		if (str_eq(backends[i]->name, adapter))
			return backends[i];
	return NULL;
}

void agent_backend_names(struct strbuf *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
		strbuf_addf(out, "%s%s", i ? ", " : "", backends[i]->name);
}

static bool backend_can(const struct agent_backend *b, const char *word)
{
	for (const char *at = b->capabilities; (at = strstr(at, word)); at += strlen(word))
		if ((at == b->capabilities || at[-1] == ' ') && (at[strlen(word)] == ' ' || !at[strlen(word)]))
			return true;
	return false;
}

bool agent_can(const struct agent *a, const char *capability)
{
	return backend_can(a->backend, capability);
}

bool agent_is_driven(const struct agent *a)
{
	return a->backend->is_driven;
}

enum err_code agent_check_required(const char *adapter, const struct js *required, struct error *e)
{
	const struct agent_backend *b = agent_backend_find(adapter);
	for (size_t i = 0; i < js_len(required); i++) {
		const char *word = js_text(js_at(required, i));
		bool known = false;
		for (size_t w = 0; w < ARRAY_SIZE(capability_words); w++)
			known = known || str_eq(capability_words[w], word);
		if (!known)
			return error_set(e, ERR_INVALID, "require[%zu]: '%s' is no capability; there are resume, gates, questions, todos, steer, interrupt and usage", i, word ? word : "?");
		if (!b || !backend_can(b, word)) {
			error_set(e, ERR_UNSUPPORTED, "require[%zu]: the adapter '%s' cannot do '%s'", i, adapter, word);
			error_hint(e, "`signalbox doctor` and GET /v1/agents list what each adapter can do");
			return ERR_UNSUPPORTED;
		}
	}
	return ERR_OK;
}

struct js *agent_capabilities(void)
{
	struct js *list = js_array();
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		struct js *o = js_object();
		js_set_str(o, "name", backends[i]->name);
		for (size_t w = 0; w < ARRAY_SIZE(capability_words); w++)
			js_set_bool(o, capability_words[w], backend_can(backends[i], capability_words[w]));
		js_push(list, o);
	}
	return list;
}

enum err_code agent_check(struct js *agent, const char *codex_path, struct error *e)
{
	const struct agent_backend *b = agent_backend_find(js_str(agent, "adapter"));
	if (!b)
		return error_set(e, ERR_INVALID, "unknown adapter '%s'", js_str_or(agent, "adapter", ""));
	return b->check ? b->check(agent, codex_path, e) : ERR_OK;
}

enum err_code agent_new(const struct agent_run *run, const struct agent_sink *sink, struct agent **ret, struct error *e)
{
	const struct agent_backend *b = agent_backend_find(js_str(run->agent, "adapter"));
	if (!b)
		return error_set(e, ERR_INVALID, "unknown adapter '%s'", js_str_or(run->agent, "adapter", ""));
	struct agent *a = NEW(struct agent);
	a->backend = b;
	a->run = *run;
	a->sink = *sink;
	a->pending.max = AGENT_LINE_MAX;
	a->session_id = mem_strdup(run->session_id);
	*ret = a;
	return ERR_OK;
}

void agent_free(struct agent *a)
{
	if (!a)
		return;
	if (a->backend->release)
		a->backend->release(a);
	js_free(a->todos);
	free(a->session_id);
	free(a->last_message);
	free(a->error);
	free(a->progress);
	free(a->open_command);
	strbuf_release(&a->pending);
	free(a);
}

enum err_code agent_prepare(struct agent *a, struct agent_launch *ret, struct error *e)
{
	return a->backend->prepare(a, ret, e);
}

void agent_started(struct agent *a)
{
	if (a->backend->started)
		a->backend->started(a);
	else
		a->prompted = true; /* it was started with it */
}

void agent_decide(struct agent *a, const char *request, const struct js *decision)
{
	if (a->backend->decide && !a->settled)
		a->backend->decide(a, request, decision);
}

bool agent_say(struct agent *a, const char *message_id, const char *text)
{
	return a->backend->say && !a->settled && a->backend->say(a, message_id, text);
}

bool agent_interrupt(struct agent *a)
{
	return a->backend->interrupt && !a->settled && a->backend->interrupt(a);
}

void agent_send(struct agent *a, const struct js *message)
{
	AUTO_FREE char *line = js_dump(message);
	a->sink.send(a->sink.ctx, line, strlen(line));
}

void agent_line(struct agent *a, const char *line, size_t len)
{
	if (len)
		a->backend->line(a, line, len);
}

void agent_batch_end(struct agent *a)
{
	if (a->backend->batch_end)
		a->backend->batch_end(a);
}

bool agent_has_prompt(const struct agent *a)
{
	return a->prompted;
}

bool agent_settled(const struct agent *a)
{
	return a->settled;
}

bool agent_is_working(const struct agent *a)
{
	return a && (a->open_command || !a->backend->uses_model);
}

const char *agent_open_command(const struct agent *a)
{
	return a->open_command;
}

bool agent_uses_model(const struct agent *a)
{
	return a->backend->uses_model;
}

const char *agent_progress(const struct agent *a)
{
	return a->progress ? a->progress : "";
}

void agent_finish(struct agent *a, int exit_status, const char *stderr_tail, struct agent_outcome *ret)
{
	agent_batch_end(a);
	*ret = (struct agent_outcome){ .status = AGENT_SUCCESS };
	a->backend->finish(a, exit_status, stderr_tail, ret);
	if (!ret->text)
		ret->text = mem_strdup(a->last_message);
	ret->session_id = mem_strdup(a->session_id);
}

void agent_outcome_release(struct agent_outcome *o)
{
	free(o->error);
	js_free(o->final);
	free(o->text);
	free(o->session_id);
	*o = (struct agent_outcome){ 0 };
}

void agent_launch_release(struct agent_launch *l)
{
	for (int i = 0; i < l->argc; i++)
		free(l->argv[i]);
	for (int i = 0; i < l->envc; i++)
		free(l->env[i]);
	for (int i = 0; i < l->bindc; i++) {
		free(l->binds[i].from);
		free(l->binds[i].to);
	}
	free(l->stdin_path);
	*l = (struct agent_launch){ 0 };
}

void agent_launch_arg(struct agent_launch *l, const char *arg)
{
	if (l->argc < AGENT_ARGS_MAX)
		l->argv[l->argc++] = mem_strdup(arg);
}

void agent_launch_env(struct agent_launch *l, const char *key, const char *value)
{
	if (value && l->envc < AGENT_ENV_MAX)
		l->env[l->envc++] = mem_printf("%s=%s", key, value);
}

void agent_launch_bind(struct agent_launch *l, const char *from, const char *to)
{
	if (l->bindc < AGENT_BINDS_MAX) {
		l->binds[l->bindc].from = mem_strdup(from);
		l->binds[l->bindc++].to = mem_strdup(to);
	}
}

void agent_emit(struct agent *a, const char *type, struct js *data_taken)
{
	a->sink.event(a->sink.ctx, type, data_taken);
}

void agent_emit_raw(struct agent *a, const char *line, size_t len)
{
	size_t kept = len < AGENT_TEXT_MAX ? len : AGENT_TEXT_MAX;
	struct js *o = js_object();
	if (str_is_utf8(line, len)) {
		js_set(o, "line", js_string_n(line, kept));
	} else {
		AUTO_STRBUF struct strbuf b = STRBUF_INIT;
		str_add_base64(&b, line, kept);
		js_set_str(o, "base64", strbuf_str(&b));
	}
	if (kept < len)
		js_set_int(o, "truncated", (int64_t)(len - kept));
	agent_emit(a, "agent.raw", o);
}

void agent_set_text(struct js *o, const char *key, const char *text)
{
	if (!text)
		return;
	size_t len = strlen(text);
	if (len <= AGENT_TEXT_MAX) {
		js_set_str(o, key, text);
		return;
	}
	size_t kept = AGENT_TEXT_MAX;
	while (kept && ((unsigned char)text[kept] & 0xC0) == 0x80)
		kept--;
	js_set(o, key, js_string_n(text, kept));
	js_set_int(o, "truncated", (int64_t)(len - kept));
}

void agent_set_progress(struct agent *a, const char *text)
{
	size_t n = strcspn(text, "\n");
	if (n > AGENT_PROGRESS_MAX)
		for (n = AGENT_PROGRESS_MAX; n && ((unsigned char)text[n] & 0xC0) == 0x80;)
			n--;
	free(a->progress);
	a->progress = mem_strndup(text, n);
}

void agent_fail(struct agent *a, const char *text)
{
	a->failed = true;
	free(a->error);
	a->error = mem_strdup(text);
}
