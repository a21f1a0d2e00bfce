/* wait: until tasks are settled; all of them, or any. */
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/thread.h"
#include "cli/ask.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/server.h"
#include "cli/table.h"
#include "cli/remote.h"
#include "cli/text.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>

#define WAIT_TASKS_MAX 256
#define WAIT_DEFAULT_MS 3600000
#define WAIT_THREAD_STACK ((size_t)256 << 10)
#define LOOK_MS 100 /* how often the waiting for any looks at an interrupt */

const struct opt wait_options[] = {
	{ "any", 0, OPT_FLAG, NULL, "return when the first one is done, and print it" },
	{ "timeout", 't', OPT_DURATION, "TIME", "stop waiting after this time (default 1h); exit status 8" },
	{ "for", 0, OPT_STRING, "terminal|gate", "what ends the wait beside the task's end (default gate)" },
	{ .name = NULL },
};

/* What is waited for, shared by the threads of --any. */
struct waiting {
	struct cli *c;
	pthread_mutex_t lock; /* guards first and failed */
	pthread_cond_t wake;
	int first;	      /* index of the first task that is settled; -1 */
	int failed;	      /* threads that ended with an error */
	int64_t timeout_ms;
	bool past_waiting;
	const volatile int *interrupted;
	struct waiter *all;
	int count;
};

/* One task; with --any, one thread with clients of its own. */
struct waiter {
	struct waiting *w;
	struct cli cli; /* borrowed settings, own clients */
	struct js *task;
	struct error error;
	enum err_code rc;
	pthread_t thread;
};

static enum err_code wait_one(struct waiter *one)
{
	AUTO_FREE char *id = mem_strdup(remote_id(one->task));
	struct follow f = { .c = &one->cli, .task_id = id, .past_waiting = one->w->past_waiting, .interrupted = one->w->interrupted };
	return follow_wait(&f, one->w->timeout_ms, &one->task, &one->error);
}

static void *wait_thread(void *arg)
{
	struct waiter *one = arg;
	one->rc = wait_one(one);
	pthread_mutex_lock(&one->w->lock);
	if (!one->rc && one->w->first < 0)
		one->w->first = (int)(one - one->w->all);
	one->w->failed += one->rc != ERR_OK;
	pthread_cond_signal(&one->w->wake);
	pthread_mutex_unlock(&one->w->lock);
	return NULL;
}

static enum err_code find_all(struct cli *c, struct waiting *w, struct error *e)
{
	for (int i = 0; i < w->count; i++) {
		w->all[i].w = w;
		w->all[i].cli = *c;
		enum err_code rc = remote_find(c, c->args[i], &w->all[i].task, e);
		if (rc)
			return rc;
		w->all[i].cli.client = c->client;
		w->all[i].cli.stream = c->stream;
	}
	return ERR_OK;
}

/* What waits for a person: the ids, to approve, reject or answer. */
static void add_gates(struct cli *c, struct strbuf *out, const struct js *task)
{
	AUTO_JS struct js *gates = NULL;
	if (!remote_is_waiting(task) || ask_list(c, remote_id(task), false, &gates, NULL, NULL))
		return;
	for (size_t i = 0; i < js_len(gates); i++) {
		strbuf_adds(out, i ? " " : out->len ? "; gate " : "gate ");
		text_add_line(out, ask_id(js_at(gates, i)));
	}
}

static void add_row(struct cli *c, struct table *t, const struct js *task)
{
	AUTO_STRBUF struct strbuf why = STRBUF_INIT;
	remote_add_why(&why, task);
	add_gates(c, &why, task);
	table_add(t, COLOUR_BOLD, remote_label(task));
	table_add(t, remote_colour(task), remote_status(task));
	table_add(t, COLOUR_NONE, remote_id(task));
	table_add(t, COLOUR_NONE, strbuf_str(&why));
}

static void print_tasks(struct cli *c, const struct waiter *from, int count)
{
	static const char *const titles[] = { "TASK", "STATUS", "ID", "WHY", NULL };
	struct table t;
	table_init(&t, titles);
	for (int i = 0; i < count; i++) {
		if (c->json)
			cli_json(c, from[i].task);
		else
			add_row(c, &t, from[i].task);
		int status = remote_exit_status(from[i].task);
		if (c->exit_status == EXIT_DONE)
			c->exit_status = status;
	}
	if (!c->json)
		table_print(&t, &c->out);
	table_release(&t);
}

/* One after the other: the last to end decides when all have. */
static enum err_code wait_all(struct waiting *w, struct error *e)
{
	int64_t deadline = clock_mono_ms() + w->timeout_ms;
	for (int i = 0; i < w->count; i++) {
		struct waiter *one = &w->all[i];
		w->timeout_ms = deadline - clock_mono_ms();
		if (w->timeout_ms < 0)
			w->timeout_ms = 0;
		enum err_code rc = wait_one(one);
		if (rc) {
			*e = one->error;
			return rc;
		}
	}
	print_tasks(w->c, w->all, w->count);
	return ERR_OK;
}

static enum err_code start_threads(struct waiting *w, int *ret_started, struct error *e)
{
	enum err_code rc = ERR_OK;
	/* Ctrl-C belongs to the thread that looks at it. */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (int i = 0; i < w->count && !rc; i++) {
		struct waiter *one = &w->all[i];
		one->cli.client = one->cli.stream = NULL;
		rc = server_connect_running(&one->cli, e);
		if (!rc && thread_start(&one->thread, WAIT_THREAD_STACK, wait_thread, one))
			rc = error_set(e, ERR_LIMIT, "cannot make a thread for each of %d tasks", w->count);
		*ret_started += !rc;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

static void sleep_until_news(struct waiting *w)
{
	int64_t at = clock_wall_ms() + LOOK_MS;
	struct timespec until = { .tv_sec = at / 1000, .tv_nsec = at % 1000 * 1000000 };
	pthread_cond_timedwait(&w->wake, &w->lock, &until);
}

static enum err_code any_outcome(struct waiting *w, int first, struct error *e)
{
	if (first >= 0) {
		print_tasks(w->c, &w->all[first], 1);
		return ERR_OK;
	}
	if (*w->interrupted)
		return error_set(e, ERR_CANCELED, "interrupted");
	*e = w->all[0].error;
	return e->code;
}

/* Threads that still wait are ended by the interrupt flag of their own. */
static enum err_code wait_any(struct waiting *w, struct error *e)
{
	volatile int stop = 0;
	const volatile int *user = w->interrupted;
	int started = 0;
	w->interrupted = &stop;
	enum err_code rc = start_threads(w, &started, e);
	pthread_mutex_lock(&w->lock);
	while (!rc && w->first < 0 && w->failed < started && !*user)
		sleep_until_news(w);
	int first = w->first;
	stop = 1;
	pthread_mutex_unlock(&w->lock);
	for (int i = 0; i < started; i++)
		pthread_join(w->all[i].thread, NULL);
	w->interrupted = user;
	return rc ? rc : any_outcome(w, first, e);
}

static enum err_code read_options(struct cli *c, struct waiting *w, struct error *e)
{
	const char *what = cli_opt_text(c, "for");
	if (what && !str_eq(what, "terminal") && !str_eq(what, "gate"))
		return error_set(e, ERR_USAGE, "--for takes terminal or gate, not '%s'", what);
	if (c->arg_count > WAIT_TASKS_MAX)
		return error_set(e, ERR_USAGE, "waits for at most %d tasks at once", WAIT_TASKS_MAX);
	w->past_waiting = str_eq(what, "terminal");
	w->timeout_ms = cli_opt(c, "timeout")->set ? cli_opt(c, "timeout")->number : WAIT_DEFAULT_MS;
	return ERR_OK;
}

static void release(struct waiting *w)
{
	for (int i = 0; i < w->count; i++) {
		js_free(w->all[i].task);
		if (w->all[i].cli.stream != w->c->stream) {
			client_close(w->all[i].cli.client);
			client_close(w->all[i].cli.stream);
		}
	}
	free(w->all);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
}

static enum err_code finish(struct cli *c, enum err_code rc, struct error *e)
{
	if (rc == ERR_TIMEOUT) {
		error_hint(e, "signalbox events -f %s", c->args[0]);
		c->exit_status = EXIT_WAIT_OVER;
	}
	if (rc != ERR_CANCELED)
		return rc;
	cli_say(c, "stopped waiting; the tasks go on\n  wait    signalbox wait %s%s", c->args[0], c->arg_count > 1 ? " ..." : "");
	c->exit_status = EXIT_DETACHED;
	error_clear(e);
	return ERR_OK;
}

enum err_code cmd_wait(struct cli *c, struct error *e)
{
	struct waiting w = { .c = c, .first = -1, .count = c->arg_count, .interrupted = interrupt_watch() };
	enum err_code rc = read_options(c, &w, e);
	if (rc)
		return rc;
	w.all = mem_alloc((size_t)w.count * sizeof(*w.all));
	pthread_mutex_init(&w.lock, NULL);
	pthread_cond_init(&w.wake, NULL);
	rc = find_all(c, &w, e);
	if (!rc)
		rc = cli_flag(c, "any") && w.count > 1 ? wait_any(&w, e) : wait_all(&w, e);
	release(&w);
	return finish(c, rc, e);
}
