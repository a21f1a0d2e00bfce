/* The retry policy: reasons in a table, exponential pauses with jitter. */
#include "core/retry.h"
#include "base/cleanup.h"
#include "base/str.h"
#include <pthread.h>
#include <string.h>

#define PAUSE_MAX_MS ((int64_t)24 * 3600 * 1000)

static const struct {
	const char *name;
	int64_t def, min, max;
} members[] = {
	{ "attempts", 0, 0, RETRY_ATTEMPTS_MAX },	{ "house_attempts", 0, 0, RETRY_ATTEMPTS_MAX }, { "initial_ms", 2000, 0, PAUSE_MAX_MS },
	{ "factor_percent", 200, 100, 1000 },		{ "cap_ms", 300000, 0, PAUSE_MAX_MS },		{ "jitter_percent", 20, 0, 100 },
};

/* What is not listed is the agent's: a model that failed, a test that did not pass, a silence. */
static const struct {
	const char *reason;
	enum retry_class class;
} reasons[] = {
	{ "runner_lost", RETRY_HOUSE },	     { "heartbeat_timeout", RETRY_HOUSE }, { "launch_failed", RETRY_HOUSE },  { "sandbox_failed", RETRY_HOUSE },
	{ "workspace_failed", RETRY_HOUSE }, { "spool_failed", RETRY_HOUSE },	   { "disk_failed", RETRY_HOUSE },    { "diff_failed", RETRY_HOUSE },
	{ "agent_start_failed", RETRY_HOUSE }, { "source_unreachable", RETRY_HOUSE }, { "fetch_timeout", RETRY_HOUSE }, { "collect_timeout", RETRY_HOUSE },
	{ "canceled", RETRY_NEVER },	     { "source_failed", RETRY_NEVER },	   { "task_timeout", RETRY_NEVER },   { "queue_timeout", RETRY_NEVER },
	{ "model_refused", RETRY_NEVER },    { "budget", RETRY_NEVER },		   { "policy", RETRY_NEVER },
};

enum retry_class retry_class_of(const char *reason)
{
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (str_eq(reasons[i].reason, reason))
			return reasons[i].class;
	return RETRY_AGENT;
}

static enum err_code parse_policy(const struct js *given, struct js *policy, struct error *e)
{
	const char *names[ARRAY_SIZE(members) + 1] = { NULL };
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		names[i] = members[i].name;
	enum err_code rc = given ? js_check_members(given, "retry", names, e) : ERR_OK;
	for (size_t i = 0; !rc && i < ARRAY_SIZE(members); i++) {
		int64_t v = members[i].def;
		rc = js_want_i64(given, "retry", members[i].name, members[i].min, members[i].max, &v, e);
		js_set_int(policy, members[i].name, v);
	}
	return rc;
}

static struct js *usual;

static void make_usual(void)
{
	usual = js_object();
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		js_set_int(usual, members[i].name, members[i].def);
}

enum err_code retry_parse(const struct js *body, struct js **ret_policy, struct error *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	if (!js_get(body, "retry") && !js_get(body, "retries")) {
		pthread_once(&once, make_usual);
		*ret_policy = js_ref(usual);
		return ERR_OK;
	}
	AUTO_JS struct js *policy = js_object();
	int64_t count = -1;
	enum err_code rc = parse_policy(js_get(body, "retry"), policy, e);
	if (!rc)
		rc = js_want_i64(body, "", "retries", 0, RETRY_ATTEMPTS_MAX, &count, e);
	if (rc)
		return rc;
	if (count >= 0) { /* the short form: as many for either kind of failure */
		js_set_int(policy, "attempts", count);
		js_set_int(policy, "house_attempts", count);
	}
	*ret_policy = js_ref(policy);
	return ERR_OK;
}

int64_t retry_pause_ms(const struct js *policy, enum retry_class class, int64_t done, uint32_t random)
{
	int64_t allowed = js_i64(policy, class == RETRY_HOUSE ? "house_attempts" : "attempts", 0);
	int64_t cap = js_i64(policy, "cap_ms", 0), pause = js_i64(policy, "initial_ms", 0);
	if (class == RETRY_NEVER || done > allowed)
		return -1;
	for (int64_t i = 1; i < done && pause < cap; i++)
		pause = pause * js_i64(policy, "factor_percent", 100) / 100;
	pause = pause < cap ? pause : cap;
	int64_t span = pause * js_i64(policy, "jitter_percent", 0) / 100;
	return span ? pause - span / 2 + (int64_t)(random % (uint64_t)span) : pause;
}
