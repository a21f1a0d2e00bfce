/* report: an agent or a script that Signalbox did not start tells how it fares. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/server.h"
#include "cli/table.h"
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define REPORT_PATH "/v1/external"
#define BEAT_DEFAULT_MS 10000
#define LOOK_MS 200	       /* how late a signal or the command's end may be seen */
#define STOP_GRACE_MS 10000    /* between INT, TERM and KILL */
#define END_RETRY_MS 30000     /* how long the end is offered to a server that is away */
#define END_RETRY_STEP_MS 500
#define FILES_MAX 10000

const struct opt report_options[] = {
	{ "task", 0, OPT_STRING, "NAME", "run: the task's name (default: made up)" },
	{ "session", 0, OPT_STRING, "ID", "session id; later messages that give it must give the same" },
	{ "title", 0, OPT_STRING, "TEXT", "what it is about, for people" },
	{ "repo", 0, OPT_STRING, "URL", "the repository it works on" },
	{ "dir", 0, OPT_STRING, "DIR", "the directory it works in; its state file is kept there, in .codex/tasks" },
	{ "progress", 0, OPT_STRING, "TEXT", "what it is doing" },
	{ "summary", 0, OPT_STRING, "TEXT", "complete: what was done" },
	{ "file", 0, OPT_LIST, "PATH", "complete: a file that was changed; may be repeated" },
	{ "tests-run", 0, OPT_INT, "N", "complete: tests that were run" },
	{ "tests-passed", 0, OPT_INT, "N", "complete: tests that passed" },
	{ "every", 0, OPT_DURATION, "TIME", "run: time between heartbeats (default 10s)" },
	{ .name = NULL },
};

static enum err_code post(struct cli *c, const struct js *message, struct js **ret, struct error *e)
{
	int status = 0;
	return client_call(c->client, "POST", REPORT_PATH, message, &status, ret, e);
}

static struct js *message_of(struct cli *c, const char *type, const char *task)
{
	struct js *m = js_object();
	js_set_str(m, "type", type);
	js_set_str(m, "taskId", task);
	js_set_str(m, "sessionId", cli_opt_text(c, "session"));
	return m;
}

/* --- what each message takes from the words */

static enum err_code fill_register(struct cli *c, struct js *m, struct error *e)
{
	char session[ID_SIZE];
	AUTO_FREE char *dir = NULL;
	enum err_code rc = cli_opt_text(c, "dir") ? file_realpath(cli_opt_text(c, "dir"), &dir, e) : ERR_OK;
	clock_new_id(session);
	if (!js_str(m, "sessionId"))
		js_set_str(m, "sessionId", session);
	js_set_str(m, "name", cli_opt_text(c, "title"));
	js_set_str(m, "repo", cli_opt_text(c, "repo"));
	js_set_str(m, "dir", dir);
	js_set_str(m, "progress", cli_opt_text(c, "progress"));
	return rc;
}

static enum err_code fill_beat(struct cli *c, struct js *m, struct error *e)
{
	(void)e;
	js_set_str(m, "progress", c->arg_count > 2 ? c->args[2] : cli_opt_text(c, "progress"));
	return ERR_OK;
}

static enum err_code fill_complete(struct cli *c, struct js *m, struct error *e)
{
	const struct opt_value *files = cli_opt(c, "file"), *run = cli_opt(c, "tests-run"), *passed = cli_opt(c, "tests-passed");
	struct js *result = js_object(), *list = js_array();
	(void)e;
	for (int i = 0; i < files->list_len; i++)
		js_push_str(list, files->list[i]);
	js_set(result, "filesChanged", list);
	if (run->set)
		js_set_int(result, "testsRun", run->number);
	if (passed->set)
		js_set_int(result, "testsPassed", passed->number);
	js_set(m, "result", result);
	js_set_str(m, "summary", c->arg_count > 2 ? c->args[2] : cli_opt_text(c, "summary"));
	return ERR_OK;
}

static enum err_code fill_error(struct cli *c, struct js *m, struct error *e)
{
	if (c->arg_count < 3) {
		error_set(e, ERR_USAGE, "error needs the error's text");
		error_hint(e, "signalbox report error %s 'what went wrong'", c->args[1]);
		return ERR_USAGE;
	}
	js_set_str(m, "error", c->args[2]);
	return ERR_OK;
}

static enum err_code fill_nothing(struct cli *c, struct js *m, struct error *e)
{
	(void)c, (void)m, (void)e;
	return ERR_OK;
}

static const struct {
	const char *verb;
	enum err_code (*fill)(struct cli *c, struct js *m, struct error *e);
	int args_max; /* the verb and the task among them */
} verbs[] = {
	{ "register", fill_register, 2 }, { "heartbeat", fill_beat, 3 }, { "progress", fill_beat, 3 },
	{ "complete", fill_complete, 3 }, { "error", fill_error, 3 },	 { "canceled", fill_nothing, 2 },
};

static void print_reply(struct cli *c, const struct js *m, const struct js *reply)
{
	static const char *const titles[] = { "ID", "SESSION", NULL };
	struct table t;
	if (c->json) {
		cli_json(c, reply);
	} else if (str_eq(js_str(m, "type"), "register")) {
		table_init(&t, titles);
		table_add(&t, COLOUR_BOLD, js_str(reply, "task"));
		table_add(&t, COLOUR_NONE, js_str(m, "sessionId"));
		table_print(&t, &c->out);
		table_release(&t);
	}
	if (!js_flag(reply, "interrupt", false))
		return;
	cli_say(c, "signalbox: task %s is asked to end", js_str(reply, "taskId"));
	c->exit_status = EXIT_CANCELED;
}

static enum err_code report_once(struct cli *c, size_t verb, struct error *e)
{
	AUTO_JS struct js *m = message_of(c, verbs[verb].verb, c->args[1]);
	AUTO_JS struct js *reply = NULL;
	enum err_code rc = verbs[verb].fill(c, m, e);
	if (!rc)
		rc = server_connect(c, e);
	if (!rc)
		rc = post(c, m, &reply, e);
	if (!rc)
		print_reply(c, m, reply);
	return rc;
}

/* --- report run: a command whose life is a task's */

struct watch {
	struct cli *c;
	const char *task, *session;
	struct proc proc;
	const volatile int *interrupted;
	int64_t every_ms, next_beat, stop_at;
	int stop_step; /* of the signals below that were sent */
	bool lost;     /* the server was told to be away */
	bool ended;    /* the server has ended the task: nothing more is to be told */
};

static void stop_harder(struct watch *w)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGKILL };
	if ((size_t)w->stop_step >= ARRAY_SIZE(signals) || clock_mono_ms() < w->stop_at)
		return;
	proc_signal(&w->proc, signals[w->stop_step++]);
	w->stop_at = clock_mono_ms() + STOP_GRACE_MS;
}

static void send_beat(struct watch *w)
{
	AUTO_JS struct js *m = js_object();
	AUTO_JS struct js *reply = NULL;
	struct error e = ERROR_INIT;
	js_set_str(m, "type", "heartbeat");
	js_set_str(m, "taskId", w->task);
	js_set_str(m, "sessionId", w->session);
	enum err_code rc = post(w->c, m, &reply, &e);
	w->next_beat = clock_mono_ms() + w->every_ms;
	if (rc && rc != ERR_UNREACHABLE && rc != ERR_BUSY && rc != ERR_TIMEOUT) {
		cli_say(w->c, "signalbox: %s; the command goes on", e.text);
		w->ended = true;
	} else if (rc && !w->lost) {
		cli_say(w->c, "signalbox: %s; the command goes on, and so do the attempts to report", e.text);
	}
	w->lost = rc != ERR_OK;
	if (!rc && js_flag(reply, "interrupt", false) && !w->stop_step) {
		cli_say(w->c, "signalbox: task %s is asked to end", w->task);
		stop_harder(w);
	}
}

static enum err_code watch_command(struct watch *w, int *ret_status, struct error *e)
{
	enum err_code rc;
	while ((rc = proc_wait(&w->proc, LOOK_MS, ret_status, e)) == ERR_TIMEOUT) {
		error_clear(e);
		if (*w->interrupted == SIGTERM && !w->stop_step)
			w->stop_step = 1; /* it is told what we were told */
		if (*w->interrupted || w->stop_step)
			stop_harder(w);
		if (!w->ended && clock_mono_ms() >= w->next_beat)
			send_beat(w);
	}
	return rc;
}

static void tell_end(struct watch *w, const char *type, const char *member, const char *text)
{
	AUTO_JS struct js *m = js_object();
	struct error e = ERROR_INIT;
	int64_t until = clock_mono_ms() + END_RETRY_MS;
	js_set_str(m, "type", type);
	js_set_str(m, "taskId", w->task);
	js_set_str(m, "sessionId", w->session);
	if (member)
		js_set_str(m, member, text);
	for (;;) {
		AUTO_JS struct js *reply = NULL;
		error_clear(&e);
		enum err_code rc = post(w->c, m, &reply, &e);
		if (!rc)
			return;
		if ((rc != ERR_UNREACHABLE && rc != ERR_BUSY) || clock_mono_ms() >= until || *w->interrupted)
			break;
		interrupt_sleep(END_RETRY_STEP_MS);
	}
	cli_say(w->c, "signalbox: the end could not be reported: %s", e.text);
}

/* The command sees who it is, as an agent in a sandbox does. */
static enum err_code start_command(struct watch *w, char **argv, struct error *e)
{
	struct proc_spec spec = PROC_SPEC_INIT;
	setenv("TASK_ID", w->task, 1);
	setenv("SESSION_ID", w->session, 1);
	spec.argv = (const char *const *)argv;
	spec.stdin_fd = 0;
	w->interrupted = interrupt_watch();
	return proc_start(&spec, &w->proc, e);
}

static enum err_code follow_command(struct watch *w, char **argv, struct error *e)
{
	int status = 0;
	enum err_code rc = start_command(w, argv, e);
	if (rc) {
		tell_end(w, "error", "error", e->text);
		return rc;
	}
	w->next_beat = clock_mono_ms() + w->every_ms;
	rc = watch_command(w, &status, e);
	if (rc)
		return rc;
	w->c->exit_status = status;
	AUTO_FREE char *words = mem_printf("%s ended with status %d", argv[0], status);
	if (w->ended)
		return ERR_OK;
	if (w->stop_step && status)
		tell_end(w, "canceled", NULL, NULL);
	else if (status)
		tell_end(w, "error", "error", words);
	else
		tell_end(w, "complete", "summary", words);
	return ERR_OK;
}

static enum err_code report_run(struct cli *c, struct error *e)
{
	char id[ID_SIZE];
	clock_new_id(id);
	AUTO_FREE char *made_up = mem_printf("run-%s", id + ID_SIZE / 2);
	const char *task = cli_opt_text(c, "task") ? cli_opt_text(c, "task") : made_up;
	AUTO_JS struct js *m = message_of(c, "register", task);
	AUTO_JS struct js *reply = NULL;
	if (c->arg_count < 2) {
		error_set(e, ERR_USAGE, "needs a command");
		error_hint(e, "signalbox report run -- COMMAND...");
		return ERR_USAGE;
	}
	enum err_code rc = fill_register(c, m, e);
	if (!rc && !js_str(m, "name"))
		js_set_str(m, "name", c->args[1]);
	if (!rc)
		rc = server_connect(c, e);
	if (!rc)
		rc = post(c, m, &reply, e);
	if (rc)
		return rc;
	struct watch w = { .c = c, .task = task, .session = js_str(m, "sessionId"), .proc = PROC_INIT,
		.every_ms = cli_opt(c, "every")->set ? cli_opt(c, "every")->number : BEAT_DEFAULT_MS };
	cli_say(c, "signalbox: task %s (%s)", task, js_str(reply, "task"));
	return follow_command(&w, c->args + 1, e);
}

enum err_code cmd_report(struct cli *c, struct error *e)
{
	size_t verb = 0;
	if (str_eq(c->args[0], "run"))
		return report_run(c, e);
	while (verb < ARRAY_SIZE(verbs) && !str_eq(verbs[verb].verb, c->args[0]))
		verb++;
	if (verb == ARRAY_SIZE(verbs)) {
		error_set(e, ERR_USAGE, "does not know '%s'", c->args[0]);
		error_hint(e, "register, heartbeat, progress, complete, error, canceled or run");
		return ERR_USAGE;
	}
	if (c->arg_count < 2 || c->arg_count > verbs[verb].args_max) {
		error_set(e, ERR_USAGE, c->arg_count < 2 ? "%s needs the task's name" : "%s: too many words", c->args[0]);
		error_hint(e, "signalbox report %s TASK%s", c->args[0], verbs[verb].args_max > 2 ? " TEXT" : "");
		return ERR_USAGE;
	}
	return report_once(c, verb, e);
}
