/* cancel and retry: ask for tasks to stop, and to begin again. */
#include "base/cleanup.h"
#include "base/str.h"
#include "base/mem.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/table.h"
#include "cli/remote.h"

/* How long we look on: the agent has some seconds to end by itself before it is killed, then all that it changed is kept, which in a large workspace or on
 * a busy machine may well need more than ten. "has not ended yet" is for what is stuck. `rm` waits as long. */
#define STOP_TIMEOUT_MS 60000

static void add_status(struct table *t, const struct js *task)
{
	table_add(t, COLOUR_BOLD, remote_label(task));
	table_add(t, remote_colour(task), remote_status(task));
}

/* The run is told to stop at once, its end comes a moment later: that is what one wants to see. */
static void watch_it_end(struct cli *c, struct js **task)
{
	AUTO_FREE char *id = mem_strdup(remote_id(*task));
	struct follow f = { .c = c, .task_id = id, .past_waiting = true, .interrupted = interrupt_watch() };
	struct error e = ERROR_INIT;
	if (!remote_is_over(*task) && follow_wait(&f, STOP_TIMEOUT_MS, task, &e))
		cli_say(c, "signalbox: task %s is told to stop, but has not ended yet", remote_label(*task));
}

/* The task as it was, and as it is after `what` was asked of it. */
static enum err_code ask(struct cli *c, const char *ref, const char *what, struct js **ret_task, struct js **ret_after, struct error *e)
{
	AUTO_JS struct js *body = js_object();
	int status = 0;
	enum err_code rc = remote_find(c, ref, ret_task, e);
	if (rc)
		return rc;
	AUTO_FREE char *path = remote_path(remote_id(*ret_task), what);
	return client_call(c->client, "POST", path, body, &status, ret_after, e);
}

static enum err_code cancel_one(struct cli *c, const char *ref, void *t, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	AUTO_JS struct js *after = NULL;
	enum err_code rc = ask(c, ref, "/cancel", &task, &after, e);
	if (rc)
		return rc;
	bool was_over = remote_is_over(task);
	if (!after)
		after = js_ref(task);
	watch_it_end(c, &after);
	const struct js *now = after;
	if (c->json)
		cli_json(c, now);
	add_status(t, now);
	/* It ended by itself before: canceling changed nothing. */
	if (was_over || (remote_is_over(now) && !str_eq(remote_status(now), "CANCELED"))) {
		cli_say(c, "signalbox: task %s had already ended", remote_label(now));
		c->exit_status = EXIT_CONFLICT;
	}
	return ERR_OK;
}

static enum err_code retry_one(struct cli *c, const char *ref, void *t, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	AUTO_JS struct js *after = NULL;
	enum err_code rc = ask(c, ref, "/retry", &task, &after, e);
	if (rc)
		return rc;
	if (c->json)
		cli_json(c, after);
	add_status(t, after);
	return ERR_OK;
}

/* Each named task in turn, and a table of how they are now. */
static enum err_code each_task(struct cli *c, cli_one_fn *one, struct error *e)
{
	static const char *const titles[] = { "TASK", "STATUS", NULL };
	struct table t;
	table_init(&t, titles);
	enum err_code rc = cli_each(c, one, &t, e);
	if (!c->json && t.count)
		table_print(&t, &c->out);
	table_release(&t);
	return rc;
}

enum err_code cmd_cancel(struct cli *c, struct error *e)
{
	return each_task(c, cancel_one, e);
}

enum err_code cmd_retry(struct cli *c, struct error *e)
{
	return each_task(c, retry_one, e);
}
