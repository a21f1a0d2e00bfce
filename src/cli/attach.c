/* attach: follow a task from now on, and say things to it.  What is typed is sent by a thread of its own, with a client of its own. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/interrupt.h"
#include "cli/remote.h"
#include "cli/run.h"
#include "cli/server.h"
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TAIL_DEFAULT 10
#define TAIL_MAX 100000
#define SAID_MAX ((size_t)256 << 10) /* one line */

const struct opt attach_options[] = {
	{ "tail", 0, OPT_INT, "N", "also the last N events before (10)" },
	{ "input", 'i', OPT_FLAG, NULL, "say what comes on standard input, also when it is no terminal" },
	{ .name = NULL },
};

struct speaker {
	struct cli *c; /* of the thread: a copy with clients of its own */
	char *path;
	int stop; /* eventfd */
	pthread_t thread;
	struct strbuf line;
	pthread_mutex_t lock; /* guards held, and the reading */
	pthread_cond_t wake;
	bool held; /* a question is being asked: what is typed is its answer */
};

static const char *how_said(const struct js *reply)
{
	const char *how = js_str_or(js_get(reply, "message"), "how", "turn");
	return str_eq(how, "queued") ? "it will be heard when this turn has ended" : str_eq(how, "turn") ? "its next turn begins" : "said at once";
}

static void say(struct speaker *s)
{
	AUTO_JS struct js *body = js_object();
	AUTO_JS struct js *reply = NULL;
	struct error e = ERROR_INIT;
	int status = 0;
	js_set(body, "text", js_string_n(strbuf_str(&s->line), s->line.len));
	enum err_code rc = client_call(s->c->client, "POST", s->path, body, &status, &reply, &e);
	if (rc == ERR_CONFLICT) { /* an agent that cannot be steered hears it after its turn */
		js_set_bool(body, "queue", true);
		rc = client_call(s->c->client, "POST", s->path, body, &status, &reply, &e);
	}
	if (rc)
		cli_say(s->c, "signalbox: not said: %s", e.text);
	else
		cli_say(s->c, "signalbox: %s", how_said(reply));
}

static void take_bytes(struct speaker *s, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] != '\n') {
			strbuf_addc(&s->line, bytes[i]);
			continue;
		}
		if (s->line.len)
			say(s);
		strbuf_reset(&s->line);
	}
}

static void speaker_hold(void *ctx, bool hold)
{
	struct speaker *s = ctx;
	pthread_mutex_lock(&s->lock);
	s->held = hold;
	pthread_cond_broadcast(&s->wake);
	pthread_mutex_unlock(&s->lock);
}

/* What there is to read; false: it was for somebody else. */
static bool read_typed(struct speaker *s, char *bytes, size_t size, ssize_t *ret_n)
{
	pthread_mutex_lock(&s->lock);
	bool mine = !s->held;
	while (s->held)
		pthread_cond_wait(&s->wake, &s->lock);
	*ret_n = mine ? read(0, bytes, size) : 0;
	pthread_mutex_unlock(&s->lock);
	return mine;
}

static void *speak(void *arg)
{
	struct speaker *s = arg;
	struct pollfd fds[] = { { .fd = 0, .events = POLLIN }, { .fd = s->stop, .events = POLLIN } };
	char bytes[4096];
	while (poll(fds, ARRAY_SIZE(fds), -1) >= 0 && !fds[1].revents) {
		ssize_t n = 0;
		if (!fds[0].revents || !read_typed(s, bytes, sizeof(bytes), &n))
			continue;
		if (n <= 0)
			break;
		take_bytes(s, bytes, (size_t)n);
	}
	return NULL;
}

static enum err_code speaker_start(struct speaker *s, const struct cli *c, const struct js *task, struct error *e)
{
	s->c = NEW(struct cli);
	*s->c = *c;
	s->c->client = s->c->stream = NULL;
	s->line.max = SAID_MAX;
	s->path = remote_path(remote_id(task), "/messages");
	s->stop = eventfd(0, EFD_CLOEXEC);
	enum err_code rc = s->stop < 0 ? error_errno(e, "make an eventfd") : server_connect_running(s->c, e);
	if (!rc && pthread_create(&s->thread, NULL, speak, s))
		rc = error_set(e, ERR_IO, "start a thread");
	return rc;
}

static void speaker_end(struct speaker *s, bool started)
{
	uint64_t one = 1;
	if (started && write(s->stop, &one, sizeof(one)) == sizeof(one))
		pthread_join(s->thread, NULL);
	if (s->stop >= 0)
		close(s->stop);
	client_close(s->c->client);
	client_close(s->c->stream);
	strbuf_release(&s->line);
	free(s->path);
	free(s->c);
}

static enum err_code follow_and_speak(struct cli *c, const struct js *task, int64_t after, struct error *e)
{
	struct speaker s = { .stop = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };
	const struct run_typing typing = { speaker_hold, &s };
	(void)interrupt_watch(); /* before there is a second thread, which could take the signal */
	enum err_code rc = speaker_start(&s, c, task, e);
	bool started = !rc;
	if (!rc)
		rc = run_follow(c, task, after, &typing, "attached; what you type is said to it", e);
	speaker_end(&s, started);
	return rc;
}

enum err_code cmd_attach(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	int64_t tail = cli_opt(c, "tail")->set ? cli_opt(c, "tail")->number : TAIL_DEFAULT;
	if (tail < 0 || tail > TAIL_MAX)
		return error_set(e, ERR_USAGE, "--tail must be within 0 and %d", TAIL_MAX);
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (rc)
		return rc;
	int64_t last = js_i64(task, "last_seq", 0), after = last > tail ? last - tail : 0;
	if (remote_is_over(task) && cli_flag(c, "input"))
		cli_say(c, "signalbox: task %s has ended, and nothing of standard input is said; `signalbox say %s TEXT` begins its next turn", remote_label(task), remote_label(task));
	bool speaks = !remote_is_over(task) && (cli_flag(c, "input") || (isatty(0) && c->err.tty));
	return speaks ? follow_and_speak(c, task, after, e) : run_follow(c, task, after, NULL, "attached", e);
}
