/* Lines that no sane app-server would print: every member of every kind of line, in the midst of a real session, is replaced by everything else. */
#include "agent_codex_site.h"
#include "agent_mutate.h"

/* The whole session with one line changed. */
static void play_with(const struct recording *r, int at, const char *changed, const char *approvals, const char *decision)
{
	AUTO(seen_release) struct seen s;
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	struct agent *a = open_agent(&s, approvals, decision);
	for (int i = 0; i < r->count; i++)
		feed(a, i == at ? changed : r->lines[i]);
	assert_true(js_len(s.sent) <= 20);
	agent_finish(a, -1, "", &o);
	assert_true(o.status == AGENT_SUCCESS || o.reason);
	agent_free(a);
}

/* What kind of line it is: of each kind the first is enough. */
static char *line_kind(const struct js *line)
{
	const struct js *params = js_get(line, "params");
	return mem_printf("%s %s %lld", js_str_or(line, "method", ""), js_str_or(js_get(params, "item"), "type", ""), js_str(line, "method") ? 0 : (long long)js_i64(line, "id", 0));
}

static void any_member_may_be_anything(struct js *done, const char *name, const char *approvals, const char *decision)
{
	AUTO(recording_release) struct recording r;
	recording_open(&r, name);
	for (int at = 0; at < r.count; at++) {
		AUTO_JS struct js *line = js_parse(r.lines[at], strlen(r.lines[at]), NULL);
		AUTO_FREE char *kind_of_line = line_kind(line);
		if (js_get(done, kind_of_line))
			continue;
		js_set_bool(done, kind_of_line, true);
		for (int member = 0, left = -1; left < 0; member++)
			for (int kind = 0; kind < REPLACEMENTS; kind++) {
				left = member;
				AUTO_JS struct js *changed = mutate(line, &left, kind);
				AUTO_FREE char *text = js_dump(changed);
				if (left < 0)
					play_with(&r, at, text, approvals, decision);
			}
	}
}

static void no_member_of_any_line_can_break_it(void **state)
{
	AUTO_JS struct js *done = js_object();
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sessions); i++)
		any_member_may_be_anything(done, sessions[i].name, sessions[i].approvals, sessions[i].decision);
	any_member_may_be_anything(done, "elicit", "always", answer);
	any_member_may_be_anything(done, "fix-test", NULL, NULL);
	any_member_may_be_anything(done, "cut", NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(no_member_of_any_line_can_break_it) };
	return cmocka_run_group_tests(tests, make_settings, free_settings);
}
