/* The life of a run as a table.
 *
 *   queued -> claimed -> fetching -> preparing -> [setup] -> running <-> waiting_human
 *                                                              |
 *                                                          collecting -> succeeded | failed | canceled | timed_out
 *   any live phase -> failed | canceled | timed_out | lost;  a task whose agent is blocked waits: collecting -> waiting_human.
 *   A task (never a run) whose attempt failed goes back to queued when its policy gives it another one.
 */
#include "core/state.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/str.h"

#define BIT(p) (1u << (p))
#define ENDS (BIT(PHASE_QUEUED) | BIT(PHASE_FAILED) | BIT(PHASE_CANCELED) | BIT(PHASE_TIMED_OUT) | BIT(PHASE_LOST))

static const struct {
	const char *name, *status;
	bool terminal;
	unsigned next;
} phases[PHASE_COUNT] = {
	[PHASE_QUEUED] = { "queued", "QUEUED", false, BIT(PHASE_CLAIMED) | BIT(PHASE_CANCELED) | BIT(PHASE_TIMED_OUT) | BIT(PHASE_FAILED) },
	[PHASE_CLAIMED] = { "claimed", "RUNNING", false, BIT(PHASE_FETCHING) | BIT(PHASE_PREPARING) | ENDS },
	[PHASE_FETCHING] = { "fetching", "RUNNING", false, BIT(PHASE_PREPARING) | ENDS },
	[PHASE_PREPARING] = { "preparing", "RUNNING", false, BIT(PHASE_SETUP) | BIT(PHASE_RUNNING) | ENDS },
	[PHASE_SETUP] = { "setup", "RUNNING", false, BIT(PHASE_RUNNING) | ENDS },
	[PHASE_RUNNING] = { "running", "RUNNING", false, BIT(PHASE_WAITING_HUMAN) | BIT(PHASE_COLLECTING) | ENDS },
	[PHASE_WAITING_HUMAN] = { "waiting_human", "WAITING", false, BIT(PHASE_RUNNING) | BIT(PHASE_COLLECTING) | BIT(PHASE_QUEUED) | ENDS },
	[PHASE_COLLECTING] = { "collecting", "RUNNING", false, BIT(PHASE_SUCCEEDED) | BIT(PHASE_WAITING_HUMAN) | ENDS },
	[PHASE_SUCCEEDED] = { "succeeded", "DONE", true, 0 },
	[PHASE_FAILED] = { "failed", "ERROR", true, 0 },
	[PHASE_CANCELED] = { "canceled", "CANCELED", true, 0 },
	[PHASE_TIMED_OUT] = { "timed_out", "TIMEOUT", true, 0 },
	[PHASE_LOST] = { "lost", "ERROR", true, 0 },
};

const char *phase_name(enum phase p)
{
	CHECK((unsigned)p < PHASE_COUNT);
	return phases[p].name;
}

bool phase_from_name(const char *name, enum phase *ret)
{
	for (unsigned i = 0; i < PHASE_COUNT; i++)
		if (str_eq(name, phases[i].name)) {
			*ret = (enum phase)i;
			return true;
		}
	return false;
}

bool phase_is_terminal(enum phase p)
{
	CHECK((unsigned)p < PHASE_COUNT);
	return phases[p].terminal;
}

const char *phase_status(enum phase p)
{
	CHECK((unsigned)p < PHASE_COUNT);
	return phases[p].status;
}

enum err_code state_move_check(enum phase from, enum phase to, struct error *e)
{
	CHECK((unsigned)from < PHASE_COUNT && (unsigned)to < PHASE_COUNT);
	if (phases[from].next & BIT(to))
		return ERR_OK;
	return error_set(e, ERR_CONFLICT, "no move from '%s' to '%s'", phases[from].name, phases[to].name);
}

enum err_code state_reopen_check(enum phase from, struct error *e)
{
	CHECK((unsigned)from < PHASE_COUNT);
	if (phases[from].terminal || from == PHASE_WAITING_HUMAN)
		return ERR_OK;
	return error_set(e, ERR_CONFLICT, "it is %s, so there is nothing to begin again", phases[from].status);
}
