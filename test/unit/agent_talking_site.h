/* What the unit tests of `claude` and of the ACP adapters share: a recorded session replayed, whole and with one line changed. */
#pragma once
#include "agent_codex_site.h"
#include "agent_mutate.h"

struct session {
	const char *adapter, *name, *approvals, *decision, *story;
	enum agent_status status;
};

static const char approve[] = "{\"decision\":\"approve\"}";

static inline void replay(const struct session *s, const struct recording *r, int at, const char *changed, struct seen *seen, struct agent_outcome *o)
{
	settings = js_object();
	js_set_str(settings, "adapter", s->adapter);
	struct agent *a = open_agent(seen, s->approvals, s->decision);
	for (int i = 0; i < r->count; i++)
		feed(a, i == at ? changed : r->lines[i]);
	agent_finish(a, -1, "", o);
	agent_free(a);
	js_free(settings);
}

static inline void tell_as_recorded(const struct session *s)
{
	AUTO(recording_release) struct recording r;
	AUTO(seen_release) struct seen seen;
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	recording_open(&r, s->name);
	replay(s, &r, -1, NULL, &seen, &o);
	assert_string_equal(strbuf_str(&seen.story), s->story);
	assert_int_equal(o.status, s->status);
}

/* Of each kind of line the first is enough. */
static inline char *kind_of_line(const struct js *line)
{
	const struct js *params = js_get(line, "params"), *update = js_get(params, "update"), *block = js_path(line, "message.content.0");
	return mem_printf("%s %s %s %s %s %s %s %lld", js_str_or(line, "type", ""), js_str_or(line, "subtype", ""), js_str_or(line, "method", ""), js_str_or(update, "sessionUpdate", ""),
		js_str_or(update, "kind", ""), js_str_or(block, "type", ""), js_str_or(block, "name", ""),
		js_get(line, "result") ? (long long)js_i64(line, "id", 0) : 0);
}

static inline void any_member_may_be_anything(struct js *done, const struct session *s)
{
	AUTO(recording_release) struct recording r;
	recording_open(&r, s->name);
	for (int at = 0; at < r.count; at++) {
		AUTO_JS struct js *line = js_parse(r.lines[at], strlen(r.lines[at]), NULL);
		AUTO_FREE char *kind = kind_of_line(line);
		if (js_get(done, kind))
			continue;
		js_set_bool(done, kind, true);
		for (int member = 0, left = -1; left < 0; member++)
			for (int with = 0; with < REPLACEMENTS; with++) {
				left = member;
				AUTO_JS struct js *changed = mutate(line, &left, with);
				AUTO_FREE char *text = js_dump(changed);
				AUTO(seen_release) struct seen seen = { .story = STRBUF_INIT };
				AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
				if (left >= 0)
					continue;
				replay(s, &r, at, text, &seen, &o);
				assert_true(js_len(seen.sent) <= 20);
				assert_true(o.status == AGENT_SUCCESS || o.status == AGENT_BLOCKED || o.reason);
			}
	}
}

/* Lines that are no JSON, repeat an id, come too late, are too long. */
static inline void hostile_lines(const char *adapter, const char *const *lines, const char *long_head)
{
	AUTO(seen_release) struct seen seen;
	AUTO(agent_outcome_release) struct agent_outcome o = { 0 };
	AUTO_STRBUF struct strbuf big = STRBUF_INIT;
	settings = js_object();
	js_set_str(settings, "adapter", adapter);
	struct agent *a = open_agent(&seen, "always", NULL);
	for (; *lines; lines++)
		feed(a, *lines);
	size_t sent = js_len(seen.sent);
	strbuf_adds(&big, long_head);
	while (big.len < AGENT_LINE_MAX)
		strbuf_adds(&big, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
	agent_line(a, big.data, AGENT_LINE_MAX);
	assert_int_equal(js_len(seen.sent), sent + 1); /* refused: its id is in its head */
	agent_finish(a, 1, "its last words", &o);
	assert_int_equal(o.status, AGENT_FAILED);
	assert_string_equal(o.reason, "agent_exited");
	assert_non_null(strstr(o.error, "its last words"));
	agent_free(a);
	js_free(settings);
}
