/* What agents print.  The first byte chooses the adapter (of agent.c's table, so that new ones join by themselves); its next bits how the
 * process ended; the lines behind go in as a pipe would bring them, in batches that end at an empty line.  What is asked is decided, now or
 * later, and between the batches somebody talks to the agent. */
#include "fuzz.h"
#include "agent/backend.h"
#include "base/line.h"
#include "base/str.h"

#define ASKED_MAX 16

struct peer {
	struct agent *agent;
	size_t events, asked;
	char *requests[ASKED_MAX]; /* not decided yet */
};

static void take(void *ctx, const char *type, struct js *data_taken)
{
	struct peer *p = ctx;
	CHECK(type[0] && str_is_utf8(type, strlen(type)));
	if (data_taken)
		fuzz_is_json(data_taken);
	js_free(data_taken);
	p->events++;
}

static void sent(void *ctx UNUSED, const char *line, size_t len)
{
	CHECK(!memchr(line, '\n', len));
}

static void decide(struct peer *p, const char *request, const char *what)
{
	AUTO_JS struct js *d = js_object(), *answers = js_object();
	js_set_str(d, "id", "d1");
	js_set_str(d, "decision", what);
	js_set_str(d, "scope", "once");
	js_set_str(answers, "q", "a");
	js_set(d, "answers", js_ref(answers));
	agent_decide(p->agent, request, d);
}

/* Every second one is decided at once, as a rule does. */
static void ask(void *ctx, const struct agent_ask *a)
{
	struct peer *p = ctx;
	CHECK(a->request && a->kind && a->data_taken);
	fuzz_is_json(a->data_taken);
	js_free(a->data_taken);
	if (p->asked % 2 || p->asked >= ASKED_MAX)
		decide(p, a->request, "approve");
	else
		p->requests[p->asked] = mem_strdup(a->request);
	p->asked++;
}

static void withdraw(void *ctx UNUSED, const char *request)
{
	CHECK(request);
}

static void said(void *ctx UNUSED, const char *message_id, const char *refused UNUSED)
{
	CHECK(message_id);
}

static struct js *configured(unsigned choice)
{
	AUTO_JS struct js *known = agent_capabilities();
	struct js *agent = js_object();
	js_set_str(agent, "adapter", js_str(js_at(known, choice % js_len(known)), "name"));
	js_set_str(agent, "model", "m");
	js_set_str(agent, "program", "/bin/true");
	return agent;
}

static void settle(struct peer *p)
{
	static const char *const words[] = { "approve", "reject", "abort", "answer", "expire", "cancel" };
	for (size_t i = 0; i < ASKED_MAX; i++)
		if (p->requests[i]) {
			AUTO_FREE char *request = TAKE_PTR(p->requests[i]);
			decide(p, request, words[i % ARRAY_SIZE(words)]);
		}
}

static void take_line(void *ctx, const char *line, size_t len, size_t full_len UNUSED)
{
	struct peer *p = ctx;
	agent_line(p->agent, line, len);
	if (len)
		return;
	agent_batch_end(p->agent);
	agent_say(p->agent, "m1", "go on");
	settle(p);
}

static void feed(struct peer *p, const char *data, size_t n)
{
	struct line_reader lines;
	line_init(&lines, AGENT_LINE_MAX);
	line_feed(&lines, data, n / 3, take_line, p);
	line_feed(&lines, data + n / 3, n - n / 3, take_line, p);
	line_finish(&lines, take_line, p);
	line_release(&lines);
}

static void play(struct peer *p, const char *data, size_t n)
{
	struct agent_launch launch = { .argc = 0 };
	if (agent_prepare(p->agent, &launch, NULL) == ERR_OK) {
		agent_started(p->agent);
		feed(p, data, n);
	}
	agent_launch_release(&launch);
	CHECK(str_is_utf8(agent_progress(p->agent), strlen(agent_progress(p->agent))));
	agent_is_working(p->agent);
	agent_interrupt(p->agent);
	settle(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n == 0)
		return 0;
	struct peer p = { .events = 0 };
	AUTO_JS struct js *agent = configured(data[0] & 0x1f);
	const struct agent_run run = { .agent = agent, .home = fuzz_tmpdir(), .prompt = "do it", .model_url = "http://127.0.0.1:1/v1", .model_token = "t",
		.session_id = data[0] & 0x80 ? "s1" : NULL, .approvals = "on-request" };
	const struct agent_sink sink = { .event = take, .live = take, .send = sent, .ask = ask, .withdraw = withdraw, .said = said, .ctx = &p };
	struct agent_outcome o = { .status = AGENT_SUCCESS };

	CHECK(agent_new(&run, &sink, &p.agent, NULL) == ERR_OK);
	play(&p, (const char *)data + 1, n - 1);
	agent_finish(p.agent, data[0] & 0x20 ? 1 : 0, data[0] & 0x40 ? "its last words" : NULL, &o);
	CHECK(o.status != AGENT_FAILED || (o.reason && o.error));
	if (o.final)
		fuzz_is_json(o.final);
	agent_outcome_release(&o);
	agent_free(p.agent);
	return 0;
}
