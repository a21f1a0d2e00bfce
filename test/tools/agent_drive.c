/* Test tool: runs one turn of any adapter, without server and runner, behind a plain bubblewrap, and prints what it tells as JSON lines.
 *
 *   agent_drive --capabilities                                 what all adapters say that they can
 *   agent_drive --adapter codex --home DIR --workspace DIR --model-url URL --prompt TEXT [options]
 *
 *   --decide WORDS   what the next request gets, the last one all further ones: approve, "approve session", reject, "reject: note", abort, expire, cancel,
 *                    "answer: text" (every question), "json: {...}", hold (never answered); "now approve" decides before ask returns; "twice approve"
 *   --say "TYPE: text", --interrupt TYPE, --kill TYPE     when the first event of TYPE came; TYPE may be `ask`, or TYPE=text in its data
 *
 * Lines: {event, data} {live, data} {ask, request, data} {withdraw} {said, refused} {sent} (--wire) {running} (the open command, when it changes) and at
 * last {outcome, reason, error, final, text, session, working}. */
#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/line.h"
#include "base/mem.h"
#include "base/opt.h"
#include "base/proc.h"
#include "base/str.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define ASKS_MAX 64
#define ARGV_MAX 256
#define STDERR_MAX ((size_t)64 << 10)
#define SETTLE_MS 5000 /* between its settling and its end */

enum { O_ADAPTER, O_HOME, O_WORKSPACE, O_URL, O_PROMPT, O_SESSION, O_APPROVALS, O_AGENT, O_CODEX, O_DECIDE, O_SAY, O_INTERRUPT, O_KILL, O_WIRE, O_RAW, O_TIMEOUT, O_COUNT };

static const struct opt table[] = {
	[O_ADAPTER] = { .name = "adapter", .type = OPT_STRING, .value = "NAME", .help = "the adapter" },
	[O_HOME] = { .name = "home", .type = OPT_STRING, .value = "DIR", .help = "the agent's home" },
	[O_WORKSPACE] = { .name = "workspace", .type = OPT_STRING, .value = "DIR", .help = "what is /workspace" },
	[O_URL] = { .name = "model-url", .type = OPT_STRING, .value = "URL", .help = "the model" },
	[O_PROMPT] = { .name = "prompt", .type = OPT_STRING, .value = "TEXT", .help = "the prompt" },
	[O_SESSION] = { .name = "session", .type = OPT_STRING, .value = "ID", .help = "resume this one" },
	[O_APPROVALS] = { .name = "approvals", .type = OPT_STRING, .value = "WORD", .help = "always, on-request, never" },
	[O_AGENT] = { .name = "agent", .type = OPT_STRING, .value = "JSON", .help = "more settings of the agent" },
	[O_CODEX] = { .name = "codex", .type = OPT_STRING, .value = "FILE", .help = "the Codex program" },
	[O_DECIDE] = { .name = "decide", .type = OPT_LIST, .value = "WORDS", .help = "what a request gets" },
	[O_SAY] = { .name = "say", .type = OPT_LIST, .value = "TYPE: TEXT", .help = "words for the running turn" },
	[O_INTERRUPT] = { .name = "interrupt", .type = OPT_STRING, .value = "TYPE", .help = "interrupt then" },
	[O_KILL] = { .name = "kill", .type = OPT_STRING, .value = "TYPE", .help = "kill the process then" },
	[O_WIRE] = { .name = "wire", .type = OPT_FLAG, .help = "print what is sent" },
	[O_RAW] = { .name = "raw", .type = OPT_STRING, .value = "FILE", .help = "keep what it printed" },
	[O_TIMEOUT] = { .name = "timeout", .type = OPT_DURATION, .value = "TIME", .help = "of the whole turn (default 60s)" },
	{ .name = NULL },
};

struct drive {
	struct opt_value v[O_COUNT];
	struct agent *agent;
	struct proc child;
	int in, out, err, raw;
	struct strbuf to_send, errors;
	struct line_reader lines;
	char *open_command;
	struct { char *request; struct js *data; } asks[ASKS_MAX];
	int ask_count, decided;
	bool say_due[OPT_LIST_MAX], interrupt_due, kill_due;
	bool said[OPT_LIST_MAX], interrupted, killed;
};

static void print(struct js *taken)
{
	AUTO_FREE char *line = js_dump(taken);
	puts(line);
	fflush(stdout);
	js_free(taken);
}

static void print_with(const char *key, const char *value, const char *with, struct js *data_taken)
{
	struct js *o = js_object();
	js_set_str(o, key, value);
	if (with)
		js_set(o, with, data_taken);
	print(o);
}

/* "TYPE" or "TYPE=text in its data". */
static bool fits(const char *rule, size_t len, const char *type, const struct js *data)
{
	AUTO_FREE char *wanted = mem_strndup(rule, len);
	AUTO_FREE char *text = js_dump(data);
	char *within = strchr(wanted, '=');
	if (within)
		*within++ = 0;
	return str_eq(wanted, type) && (!within || strstr(text, within));
}

static void notice(struct drive *d, const char *type, const struct js *data)
{
	for (int i = 0; i < d->v[O_SAY].list_len; i++)
		if (!d->said[i] && fits(d->v[O_SAY].list[i], strcspn(d->v[O_SAY].list[i], ":"), type, data))
			d->said[i] = d->say_due[i] = true;
	if (d->v[O_INTERRUPT].set && !d->interrupted && fits(d->v[O_INTERRUPT].text, strlen(d->v[O_INTERRUPT].text), type, data))
		d->interrupted = d->interrupt_due = true;
	if (d->v[O_KILL].set && !d->killed && fits(d->v[O_KILL].text, strlen(d->v[O_KILL].text), type, data))
		d->killed = d->kill_due = true;
}

static void on_event(void *ctx, const char *type, struct js *data_taken)
{
	notice(ctx, type, data_taken);
	print_with("event", type, "data", data_taken);
}

static void on_live(void *ctx, const char *type, struct js *data_taken)
{
	notice(ctx, type, data_taken);
	print_with("live", type, "data", data_taken);
}

static void on_send(void *ctx, const char *line, size_t len)
{
	struct drive *d = ctx;
	strbuf_add(&d->to_send, line, len);
	strbuf_addc(&d->to_send, '\n');
	if (d->v[O_WIRE].flag)
		print_with("sent", "", "line", js_string_n(line, len));
}

static struct js *answers_of(const struct js *data, const char *text)
{
	struct js *answers = js_object();
	const struct js *questions = js_get(data, "questions");
	for (size_t i = 0; i < js_len(questions); i++) {
		struct js *list = js_array();
		js_push_str(list, text);
		js_set(answers, js_str_or(js_at(questions, i), "id", "?"), list);
	}
	return answers;
}

static struct js *decision_of(const char *words, const struct js *data)
{
	if (str_starts(words, "json: "))
		return js_parse(words + 6, strlen(words + 6), NULL);
	struct js *o = js_object();
	js_set_str(o, "id", "d1");
	if (str_starts(words, "answer: ")) {
		js_set_str(o, "decision", "answer");
		js_set(o, "answers", answers_of(data, words + 8));
	} else {
		size_t n = strcspn(words, " :");
		js_set(o, "decision", js_string_n(words, n));
		js_set_str(o, "scope", str_ends(words, " session") ? "session" : "once");
		if (words[n] == ':')
			js_set_str(o, "note", words + n + 2);
	}
	return o;
}

static const char *next_words(struct drive *d)
{
	const struct opt_value *v = &d->v[O_DECIDE];
	return v->list_len == 0 ? "hold" : v->list[d->decided < v->list_len ? d->decided : v->list_len - 1];
}

static void decide(struct drive *d, const char *words, const char *request, const struct js *data)
{
	bool twice = str_starts(words, "twice ");
	AUTO_JS struct js *decision = decision_of(words + (twice ? 6 : 0), data);
	agent_decide(d->agent, request, decision);
	if (twice)
		agent_decide(d->agent, request, decision);
}

static void on_ask(void *ctx, const struct agent_ask *ask)
{
	struct drive *d = ctx;
	struct js *o = js_object();
	js_set_str(o, "ask", ask->kind);
	js_set_str(o, "request", ask->request);
	js_set(o, "data", js_ref(ask->data_taken));
	print(o);
	notice(d, "ask", ask->data_taken);
	const char *words = next_words(d);
	if (str_starts(words, "now ")) {
		d->decided++;
		decide(d, words + 4, ask->request, ask->data_taken);
	} else if (d->ask_count < ASKS_MAX) {
		d->asks[d->ask_count].request = mem_strdup(ask->request);
		d->asks[d->ask_count++].data = js_ref(ask->data_taken);
	}
	js_free(ask->data_taken);
}

static void on_withdraw(void *ctx, const char *request)
{
	(void)ctx;
	print_with("withdraw", request, NULL, NULL);
}

static void on_said(void *ctx, const char *message_id, const char *refused)
{
	(void)ctx;
	print_with("said", message_id, "refused", js_string(refused));
}

static void answer_asks(struct drive *d)
{
	while (d->ask_count > 0 && !str_eq(next_words(d), "hold")) {
		const char *words = next_words(d);
		d->decided++;
		char *request = d->asks[0].request;
		AUTO_JS struct js *data = d->asks[0].data;
		memmove(d->asks, d->asks + 1, (size_t)--d->ask_count * sizeof *d->asks);
		decide(d, words, request, data);
		free(request);
	}
}

/* What became due while lines were read. */
static void act(struct drive *d)
{
	for (int i = 0; i < d->v[O_SAY].list_len; i++) {
		AUTO_FREE char *id = mem_printf("m%d", i + 1);
		const char *text = d->v[O_SAY].list[i];
		text += strcspn(text, ":");
		if (d->say_due[i] && !agent_say(d->agent, id, text + strspn(text, ": ")))
			on_said(d, id, "no turn is running, or this adapter cannot");
		d->say_due[i] = false;
	}
	if (d->interrupt_due && !agent_interrupt(d->agent))
		print_with("note", "cannot be interrupted", NULL, NULL);
	if (d->kill_due)
		proc_signal(&d->child, SIGKILL);
	d->interrupt_due = d->kill_due = false;
	answer_asks(d);
}

static void tell_running(struct drive *d)
{
	const char *now = agent_open_command(d->agent);
	if (now ? str_eq(now, d->open_command) : !d->open_command)
		return;
	free(d->open_command);
	d->open_command = mem_strdup(now);
	print_with("running", now ? now : "", NULL, NULL);
}

static void on_line(void *ctx, const char *line, size_t len, size_t full_len UNUSED)
{
	struct drive *d = ctx;
	agent_line(d->agent, line, len);
	tell_running(d); /* the command's end may come with its beginning */
}

/* False: the stream is over. */
static bool take_output(struct drive *d)
{
	char buf[65536];
	ssize_t n = read(d->out, buf, sizeof buf);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	if (d->raw >= 0 && file_write_all(d->raw, buf, (size_t)n, NULL))
		d->raw = -1;
	line_feed(&d->lines, buf, (size_t)n, on_line, d);
	agent_batch_end(d->agent);
	act(d);
	tell_running(d);
	return true;
}

static void take_errors(struct drive *d)
{
	char buf[4096];
	ssize_t n = read(d->err, buf, sizeof buf);
	if (n > 0)
		strbuf_add(&d->errors, buf, (size_t)n);
	if (n == 0) {
		close(d->err);
		d->err = -1;
	}
}

static void give_input(struct drive *d)
{
	ssize_t n = write(d->in, d->to_send.data, d->to_send.len);
	if (n > 0)
		strbuf_cut(&d->to_send, (size_t)n);
	if (n < 0 && errno != EAGAIN) {
		close(d->in);
		d->in = -1;
	}
}

/* Ends when the stream does; an agent that has settled is told to go by the end of its input. */
static void loop(struct drive *d, int64_t until_ms)
{
	for (bool open = true; open;) {
		if (agent_settled(d->agent) && d->in >= 0) {
			close(d->in);
			d->in = -1;
			until_ms = clock_mono_ms() + SETTLE_MS;
		}
		int64_t left_ms = until_ms - clock_mono_ms();
		struct pollfd f[] = { { .fd = d->out, .events = POLLIN }, { .fd = d->err, .events = POLLIN }, { .fd = d->to_send.len ? d->in : -1, .events = POLLOUT } };
		if (left_ms <= 0 || poll(f, ARRAY_SIZE(f), (int)left_ms) == 0) {
			print_with("note", agent_settled(d->agent) ? "lingers" : "timeout", NULL, NULL);
			return;
		}
		if (f[2].revents)
			give_input(d);
		if (f[1].revents)
			take_errors(d);
		if (f[0].revents)
			open = take_output(d);
	}
}

static void pipe_make(int *ret_ours, int *ret_theirs, bool we_write)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		abort();
	*ret_ours = p[we_write ? 1 : 0];
	*ret_theirs = p[we_write ? 0 : 1];
	fcntl(*ret_ours, F_SETFL, O_NONBLOCK);
}

static void argv_add(const char **argv, size_t *n, const char *const *words)
{
	for (; *words && *n < ARGV_MAX; words++)
		argv[(*n)++] = *words;
}

static enum err_code start(struct drive *d, const struct agent_launch *l, struct error *e)
{
	static const char *const walls[] = { "bwrap", "--die-with-parent", "--unshare-pid", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
		"--symlink", "usr/lib64", "/lib64", "--symlink", "usr/sbin", "/sbin", "--ro-bind", "/etc", "/etc", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
		"--clearenv", "--setenv", "HOME", "/home/agent", "--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin", "--setenv", "TMPDIR", "/tmp",
		"--setenv", "LANG", "C.UTF-8", NULL };
	const char *argv[ARGV_MAX + 1] = { NULL };
	size_t n = 0;
	argv_add(argv, &n, walls);
	argv_add(argv, &n, (const char *const[]){ "--bind", d->v[O_HOME].text, "/home/agent", "--bind", d->v[O_WORKSPACE].text, "/workspace", "--chdir", "/workspace", NULL });
	for (int i = 0; i < l->bindc; i++)
		argv_add(argv, &n, (const char *const[]){ "--ro-bind", l->binds[i].from, l->binds[i].to, NULL });
	for (int i = 0; i < l->envc; i++) {
		char *value = strchr(l->env[i], '=');
		*value = 0;
		argv_add(argv, &n, (const char *const[]){ "--setenv", l->env[i], value + 1, NULL });
	}
	argv_add(argv, &n, (const char *const *)l->argv);
	struct proc_spec spec = PROC_SPEC_INIT;
	int in = -1, out = -1, err = -1;
	pipe_make(&d->out, &out, false);
	pipe_make(&d->err, &err, false);
	if (l->talks)
		pipe_make(&d->in, &in, true);
	else if (l->stdin_path)
		in = open(l->stdin_path, O_RDONLY | O_CLOEXEC);
	spec.argv = argv;
	spec.stdin_fd = in;
	spec.stdout_fd = out;
	spec.stderr_fd = err;
	spec.new_session = true;
	enum err_code rc = proc_start(&spec, &d->child, e);
	close(out);
	close(err);
	if (in >= 0)
		close(in);
	return rc;
}

static void print_outcome(const struct drive *d, struct agent_outcome *o)
{
	static const char *const words[] = { [AGENT_SUCCESS] = "success", [AGENT_BLOCKED] = "blocked", [AGENT_FAILED] = "failed" };
	struct js *line = js_object();
	js_set_str(line, "outcome", words[o->status]);
	js_set_str(line, "reason", o->reason);
	js_set_str(line, "error", o->error);
	js_set_str(line, "text", o->text);
	js_set_str(line, "session", o->session_id);
	if (o->final)
		js_set(line, "final", js_ref(o->final));
	js_set_str(line, "stderr", strbuf_str(&d->errors));
	print(line);
}

static enum err_code configure(struct drive *d, struct js *agent, struct error *e)
{
	if (d->v[O_AGENT].set) {
		AUTO_JS struct js *more = js_parse(d->v[O_AGENT].text, strlen(d->v[O_AGENT].text), e);
		if (!more)
			return ERR_INVALID;
		js_merge(agent, more);
	}
	js_set_str(agent, "adapter", d->v[O_ADAPTER].text);
	return agent_check(agent, d->v[O_CODEX].text, e);
}

static enum err_code run(struct drive *d, struct error *e)
{
	const struct agent_sink sink = { on_event, on_live, on_send, on_ask, on_withdraw, on_said, d };
	AUTO_JS struct js *agent = js_object();
	AUTO(agent_launch_release) struct agent_launch launch = { 0 };
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	int status = -1;
	enum err_code rc = configure(d, agent, e);
	const struct agent_run about = { .agent = agent, .home = d->v[O_HOME].text, .prompt = d->v[O_PROMPT].text, .model_url = d->v[O_URL].text, .model_token = "test-token",
		.session_id = d->v[O_SESSION].text, .approvals = d->v[O_APPROVALS].set ? d->v[O_APPROVALS].text : "never" };
	if (!rc)
		rc = agent_new(&about, &sink, &d->agent, e);
	if (!rc)
		rc = agent_prepare(d->agent, &launch, e);
	if (!rc)
		rc = start(d, &launch, e);
	if (rc)
		return rc;
	agent_started(d->agent);
	loop(d, clock_mono_ms() + (d->v[O_TIMEOUT].set ? d->v[O_TIMEOUT].number : 60000));
	bool settled = agent_settled(d->agent);
	proc_signal(&d->child, SIGKILL);
	rc = proc_wait(&d->child, SETTLE_MS, &status, e);
	line_finish(&d->lines, on_line, d);
	agent_finish(d->agent, settled ? -1 : status, strbuf_str(&d->errors), &o);
	tell_running(d);
	print_outcome(d, &o);
	return rc;
}

int main(int argc, char **argv)
{
	struct drive d = { .child = PROC_INIT, .in = -1, .out = -1, .err = -1, .raw = -1, .errors = STRBUF_LIMIT(STDERR_MAX) };
	struct error e = ERROR_INIT;
	AUTO_FREE char **rest = mem_alloc(((size_t)argc + 1) * sizeof *rest);
	int count = 0;
	if (argc == 2 && str_eq(argv[1], "--capabilities")) {
		print(agent_capabilities());
		return 0;
	}
	signal(SIGPIPE, SIG_IGN);
	line_init(&d.lines, AGENT_LINE_MAX);
	enum err_code rc = opt_parse(table, argc - 1, argv + 1, d.v, rest, &count, &e);
	if (!rc && d.v[O_RAW].set)
		d.raw = open(d.v[O_RAW].text, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (!rc)
		rc = run(&d, &e);
	if (rc)
		fprintf(stderr, "agent_drive: %s%s%s\n", e.text, e.hint[0] ? "; " : "", e.hint);
	agent_free(d.agent);
	while (d.ask_count > 0) {
		free(d.asks[--d.ask_count].request);
		js_free(d.asks[d.ask_count].data);
	}
	strbuf_release(&d.to_send);
	strbuf_release(&d.errors);
	line_release(&d.lines);
	free(d.open_command);
	return rc ? 1 : 0;
}
