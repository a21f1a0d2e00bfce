/* An agent that another program drives (claude-acp: node, which starts Claude Code): its death while a person is asked.  The driver does not always
 * notice, and we speak with the driver alone; so the processes that are there when the question comes are held by their pidfds, and when none of them
 * is left the question is nobody's: the run ends as after any death of an agent, and the next attempt is told what was decided. */
#include "runner/runner.h"
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DRIVER_DEPTH 3 /* stage -> bwrap -> init -> driver */

/* What drives the agent: the oldest child of the walls' init.  0: not (or no more) there. */
static pid_t driver_of(const struct runner *r)
{
	pid_t pid = r->step.box.pid;
	for (int i = 0; i < DRIVER_DEPTH && pid > 0; i++)
		if (pulse_children(pid, &pid, 1) == 0)
			return 0;
	return pid;
}

static bool is_among(pid_t pid, const pid_t *pids, int count)
{
	for (int i = 0; i < count; i++)
		if (pids[i] == pid)
			return true;
	return false;
}

void driven_unwatch(struct runner *r)
{
	while (r->driven.count)
		close(r->driven.pidfds[--r->driven.count]);
	r->driven.gone_ms = 0;
}

/* Pidfds of the driver's children. */
static int open_children(pid_t driver, int ret_fds[RUNNER_DRIVEN_MAX])
{
	pid_t pids[RUNNER_DRIVEN_MAX], still[RUNNER_DRIVEN_MAX];
	int fds[RUNNER_DRIVEN_MAX], kept = 0, count = pulse_children(driver, pids, RUNNER_DRIVEN_MAX);
	for (int i = 0; i < count; i++)
		fds[i] = (int)syscall(SYS_pidfd_open, pids[i], 0);
	int left = count ? pulse_children(driver, still, RUNNER_DRIVEN_MAX) : 0; /* a number may have got another owner meanwhile */
	for (int i = 0; i < count; i++)
		if (fds[i] >= 0 && is_among(pids[i], still, left))
			ret_fds[kept++] = fds[i];
		else if (fds[i] >= 0)
			close(fds[i]);
	return kept;
}

/* Without children the question is one that was on the way when they died: then those of the question before it count. */
void driven_watch(struct runner *r)
{
	int fds[RUNNER_DRIVEN_MAX];
	pid_t driver = r->step.active && r->step.is_box && agent_is_driven(r->agent) ? driver_of(r) : 0;
	int count = driver ? open_children(driver, fds) : 0;
	if (!count)
		return;
	driven_unwatch(r);
	memcpy(r->driven.pidfds, fds, (size_t)count * sizeof(*fds));
	r->driven.count = count;
}

/* A pidfd is readable when its process has ended. */
bool driven_is_gone(const struct runner *r)
{
	struct pollfd fds[RUNNER_DRIVEN_MAX];
	const struct driven *d = &r->driven;
	for (int i = 0; i < d->count; i++)
		fds[i] = (struct pollfd){ .fd = d->pidfds[i], .events = POLLIN };
	return d->count && poll(fds, (nfds_t)d->count, 0) == d->count;
}

void driven_end(struct runner *r)
{
	r->driven.lost = true;
	step_end(r);
}

void driven_check(struct runner *r, int64_t now_ms)
{
	struct driven *d = &r->driven;
	if (!d->count || now_ms < d->next_ms)
		return;
	d->next_ms = now_ms + RUNNER_DRIVEN_LOOK_MS;
	if (!driven_is_gone(r))
		return;
	if (!d->gone_ms)
		d->gone_ms = now_ms;
	bool ends_anyway = !r->step.active || r->step.interrupted || r->verdict.set || r->turn_ends || agent_settled(r->agent);
	if (!ends_anyway && now_ms >= d->gone_ms + RUNNER_DRIVEN_GRACE_MS)
		driven_end(r);
}
