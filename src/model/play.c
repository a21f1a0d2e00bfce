/* Making one response of the scripted model out of the steps it is the turn of. */
#include "model/play.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/schema.h"
#include "model/sse.h"
#include "model/toolcall.h"
#include <string.h>

#define PLAY_QUOTE_BYTES 400 /* of a tool's output, in the words of a failed expectation */

/* One response in the making. */
struct maker {
	struct play *play;
	const struct turn *turn;
	const struct play_counter *counter;
	struct sse sse;
	const struct js *usage; /* the step's, or NULL */
	bool ended;
	bool broken; /* the stream stops before response.completed */
};

struct js *play_error_body(const char *message, const char *type, const char *code)
{
	struct js *body = js_object();
	struct js *error = js_object();

	js_set_str(error, "message", message);
	js_set_str(error, "type", type);
	js_set(error, "code", js_string(code));
	js_set(body, "error", error);
	return body;
}

static void play_fail(struct play *p, int status, const char *message, const char *type, const char *code)
{
	js_free(p->error);
	p->status = status;
	p->error = play_error_body(message, type, code);
}

static void frame_add(struct play *p, enum frame_kind kind, char *data_taken, size_t len, int64_t ms)
{
	if (p->frame_count == p->frame_capacity) {
		p->frame_capacity = p->frame_capacity == 0 ? 16 : p->frame_capacity * 2;
		p->frames = mem_grow(p->frames, p->frame_capacity * sizeof(*p->frames));
	}
	p->frames[p->frame_count++] = (struct frame){ .kind = kind, .data = data_taken, .len = len, .ms = ms };
}

/* What was written so far becomes a frame of its own, so that the next thing is seen apart from it. */
static void maker_flush(struct maker *m)
{
	size_t len = m->sse.out.len;

	if (len == 0)
		return;
	frame_add(m->play, FRAME_DATA, strbuf_detach(&m->sse.out), len, 0);
	memset(&m->sse.out, 0, sizeof(m->sse.out));
}

static void maker_final(struct maker *m, const struct js *value)
{
	AUTO_FREE char *text = schema_answer(m->turn->schema, value);

	if (m->turn->final_tool != NULL)
		sse_call(&m->sse, toolcall_final(m->turn, text));
	else
		sse_message(&m->sse, text);
}

/* The scenario cannot go on: the agent is told in words, and in the schema's `failed` where it has one. */
static void maker_give_up(struct maker *m, const char *why)
{
	AUTO_JS struct js *value = js_object();
	AUTO_JS struct js *text = js_string(why);

	js_set_str(value, "status", "failed");
	js_set_str(value, "summary", why);
	maker_final(m, m->turn->schema != NULL ? value : text);
	m->ended = true;
}

static void step_expect(struct maker *m, const struct step *step)
{
	AUTO_FREE char *why = NULL;

	if (strstr(m->turn->last_output, js_text(step->value)) != NULL)
		return;
	why = mem_printf("step %zu expected '%s' in the previous tool's output, which was: %.*s", step->number, js_text(step->value),
		PLAY_QUOTE_BYTES, m->turn->last_output);
	maker_give_up(m, why);
}

static void step_call(struct maker *m, const struct step *step)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *list = toolcall_make(m->turn, step, &e);

	if (list == NULL)
		maker_give_up(m, e.text);
	for (size_t i = 0; i < js_len(list); i++)
		sse_call(&m->sse, js_copy(js_at(list, i)));
	m->ended = true;
}

static void step_garbage(struct maker *m)
{
	static const char garbage[] = "event: response.output_text.delta\ndata: {\"type\": \"response.output_te\n\n"
		"<html>\x01\xff\xfe not an event stream\n\ndata: [1, 2\n\n";

	strbuf_add(&m->sse.out, garbage, sizeof(garbage) - 1);
	m->ended = m->broken = true;
}

static bool step_is_due(const struct maker *m, const struct step *step)
{
	AUTO_FREE char *key = NULL;

	if (step->times == INT64_MAX)
		return true;
	key = mem_printf("%s/%zu/%zu", js_str_or(m->turn->request, "prompt_cache_key", ""), m->turn->prompt_index, step->number);
	return m->counter->take(m->counter->ctx, key, step->times);
}

static void maker_stop(struct maker *m, enum frame_kind how)
{
	maker_flush(m);
	frame_add(m->play, how, NULL, 0, 0);
	m->ended = m->broken = true;
}

static void maker_step(struct maker *m, const struct step *step)
{
	switch (step->kind) {
	case STEP_SAY: sse_message(&m->sse, js_text(step->value)); return;
	case STEP_REASON: sse_reasoning(&m->sse, js_text(step->value)); return;
	case STEP_REFUSE: sse_refusal(&m->sse, js_text(step->value)); return;
	case STEP_FINAL: maker_final(m, step->value); return;
	case STEP_EXPECT: step_expect(m, step); return;
	case STEP_SHELL:
	case STEP_PATCH:
	case STEP_PLAN:
	case STEP_QUESTION:
	case STEP_ASK: step_call(m, step); return;
	case STEP_DELAY:
		maker_flush(m);
		frame_add(m->play, FRAME_DELAY, NULL, 0, step->delay_ms);
		return;
	case STEP_GARBAGE:
		if (step_is_due(m, step))
			step_garbage(m);
		return;
	case STEP_CUT:
		if (step_is_due(m, step))
			maker_stop(m, FRAME_CUT);
		return;
	case STEP_HANG:
		if (js_flag(step->value, "after_headers", false) && step_is_due(m, step))
			maker_stop(m, FRAME_HANG);
		return;
	case STEP_USAGE: /* counted before the first byte */
	case STEP_ERROR: return;
	}
}

static struct js *maker_usage(const struct maker *m, size_t bytes_out)
{
	struct js *u = js_object();
	struct js *in = js_object(), *out = js_object();
	AUTO_FREE char *request = js_dump(m->turn->request);
	int64_t input = js_i64(m->usage, "input_tokens", (int64_t)strlen(request) / PLAY_BYTES_PER_TOKEN);
	int64_t output = js_i64(m->usage, "output_tokens", (int64_t)bytes_out / PLAY_BYTES_PER_TOKEN);

	js_set_int(in, "cached_tokens", js_i64(m->usage, "cached_input_tokens", 0));
	js_set_int(out, "reasoning_tokens", js_i64(m->usage, "reasoning_output_tokens", 0));
	js_set_int(u, "input_tokens", input);
	js_set(u, "input_tokens_details", in);
	js_set_int(u, "output_tokens", output);
	js_set(u, "output_tokens_details", out);
	js_set_int(u, "total_tokens", input + output);
	return u;
}

/* Failures that replace the whole response, looked at before a byte of it is made. */
static bool play_fails(struct maker *m, const struct step *steps, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct js *v = steps[i].value;

		m->play->wait_ms += steps[i].delay_ms;
		if (steps[i].kind == STEP_HANG && !js_flag(v, "after_headers", false) && step_is_due(m, &steps[i])) {
			m->play->hang = true;
			return true;
		}
		if (steps[i].kind != STEP_ERROR || !step_is_due(m, &steps[i]))
			continue;
		play_fail(m->play, (int)js_i64(v, "status", 500), js_str_or(v, "message", "the scenario answers with an error"),
			js_str_or(v, "type", js_i64(v, "status", 500) >= 500 ? "server_error" : "invalid_request_error"), js_str(v, "code"));
		m->play->retry_after_s = js_i64(v, "retry_after", -1);
		return true;
	}
	m->play->wait_ms = 0; /* the waits have their places in the stream */
	return false;
}

static size_t maker_bytes(const struct maker *m)
{
	AUTO_FREE char *text = js_dump(js_get(m->sse.response, m->turn->said_as_responses != NULL ? "content" : "output"));

	return strlen(text);
}

static void maker_run(struct maker *m, const struct step *steps, size_t count)
{
	struct js *poll = toolcall_poll(m->turn);
	AUTO_JS struct js *usage = NULL;

	for (size_t i = 0; i < count; i++)
		m->usage = steps[i].kind == STEP_USAGE ? steps[i].value : m->usage;
	usage = maker_usage(m, 0);
	sse_created(&m->sse, m->turn->model, usage);
	if (poll != NULL) {
		sse_call(&m->sse, poll);
		m->ended = true;
	} else if (m->turn->final_given) {
		sse_message(&m->sse, "Done.");
		m->ended = true;
	}
	for (size_t i = 0; i < count && !m->ended; i++)
		maker_step(m, &steps[i]);
	if (count == 0 && !m->ended)
		maker_give_up(m, "the scenario has no more steps");
	if (!m->broken)
		sse_completed(&m->sse, maker_usage(m, maker_bytes(m)));
	maker_flush(m);
	m->play->response = js_ref(m->sse.response);
}

void play_make(const struct scenario *scenario, const struct turn *t, const struct play_counter *counter, struct play *ret)
{
	struct maker m = { .play = ret, .turn = t, .counter = counter };
	size_t first = 0, count = 0;

	memset(ret, 0, sizeof(*ret));
	ret->status = 200;
	ret->retry_after_s = -1;
	if (scenario == NULL) {
		play_fail(ret, 400, "no scenario matches the prompt and none is the default", "invalid_request_error", "no_scenario");
		return;
	}
	sse_init(&m.sse, t->said_as_responses != NULL ? &sse_wire_messages : &sse_wire_responses);
	if (!scenario_response(scenario, t->position, &first, &count))
		count = 0;
	if (t->running_session >= 0 || !play_fails(&m, scenario->steps + first, count))
		maker_run(&m, scenario->steps + first, count);
	sse_release(&m.sse);
}

void play_release(struct play *p)
{
	for (size_t i = 0; i < p->frame_count; i++)
		free(p->frames[i].data);
	free(p->frames);
	js_free(p->error);
	js_free(p->response);
	memset(p, 0, sizeof(*p));
}
