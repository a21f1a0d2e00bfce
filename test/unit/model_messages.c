/* The Messages dialect of the scripted model: a request says the same as in the other API, and no member of it can break anything. */
#include "agent_mutate.h"
#include "base/cleanup.h"
#include "base/js.h"
#include "base/str.h"
#include "model/messages.h"
#include "model/meter.h"
#include "model/play.h"
#include "model/turn.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const char script[] =
	"scenarios:\n"
	"  - default: true\n"
	"    steps:\n"
	"      - reason: hm\n"
	"      - say: first\n"
	"      - patch: \"*** Begin Patch\\n*** Update File: a\\n@@\\n x\\n-y\\n+z\\n*** End Patch\\n\"\n"
	"      - question: {text: which, options: [a, b]}\n"
	"      - final: {status: success}\n";

static const char request[] =
	"{\"model\":\"m\",\"stream\":true,\"system\":[{\"type\":\"text\",\"text\":\"Working directory: /workspace\\n\"}],\"metadata\":{\"user_id\":\"u\"},"
	"\"tools\":[{\"name\":\"Bash\"},{\"name\":\"Edit\"},{\"name\":\"AskUserQuestion\"},{\"name\":\"StructuredOutput\",\"input_schema\":{\"type\":\"object\"}}],"
	"\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"<system-reminder>no</system-reminder>\"},{\"type\":\"text\",\"text\":\"do it\"}]},"
	"{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"call_1\",\"name\":\"Bash\",\"input\":{}}]},"
	"{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"call_1\",\"content\":[{\"type\":\"text\",\"text\":\"out\"}]}]}]}";

static bool take(void *ctx, const char *key, int64_t times)
{
	(void)ctx;
	(void)key;
	return times > 0;
}

static enum err_code play_it(const struct js *rq, struct play *ret, size_t *ret_position)
{
	AUTO_SCRIPT struct script s = { .doc = NULL };
	AUTO_TURN struct turn t = { .request = NULL };
	const struct play_counter counter = { take, NULL };

	assert_int_equal(script_parse(script, strlen(script), &s, NULL), ERR_OK);
	if (turn_read_messages(rq, &t, NULL) != ERR_OK)
		return ERR_INVALID;
	*ret_position = t.position;
	play_make(script_find(&s, t.prompt), &t, &counter, ret);
	return ERR_OK;
}

static void a_request_is_read_like_one_of_the_other_api(void **state)
{
	AUTO_JS struct js *rq = js_parse(request, strlen(request), NULL);
	AUTO_TURN struct turn t = { .request = NULL };

	(void)state;
	assert_int_equal(turn_read_messages(rq, &t, NULL), ERR_OK);
	assert_string_equal(t.prompt, "do it");
	assert_string_equal(t.last_output, "out");
	assert_string_equal(t.directory, "/workspace");
	assert_int_equal(t.position, 1);
	assert_string_equal(t.final_tool, MESSAGES_FINAL_TOOL);
	assert_true(turn_offers(&t, "function", "Edit"));
}

/* What the model writes the meter understands, whole and in pieces. */
static void the_meter_hears_what_was_said(void **state)
{
	AUTO_JS struct js *rq = js_parse(request, strlen(request), NULL);
	AUTO_PLAY struct play p = { .status = 0 };
	struct meter m;
	size_t position;

	(void)state;
	assert_int_equal(play_it(rq, &p, &position), ERR_OK);
	meter_init(&m, true);
	for (size_t i = 0; i < p.frame_count; i++)
		for (size_t k = 0; k < p.frames[i].len; k++)
			meter_feed(&m, p.frames[i].data + k, 1);
	meter_finish(&m);
	assert_true(m.completed && m.has_usage && m.error == NULL);
	assert_int_equal(js_len(m.output), 1);
	assert_true(js_equal(m.output, js_get(p.response, "content")));
	assert_int_equal(m.usage.total_tokens, m.usage.input_tokens + m.usage.output_tokens);
	meter_release(&m);
}

static void no_member_can_break_it(void **state)
{
	AUTO_JS struct js *rq = js_parse(request, strlen(request), NULL);

	(void)state;
	for (int member = 0, left = -1; left < 0; member++)
		for (int with = 0; with < REPLACEMENTS; with++) {
			left = member;
			AUTO_JS struct js *changed = mutate(rq, &left, with);
			js_free(messages_for_record(js_get(changed, "messages"))); /* whatever it holds */
			AUTO_PLAY struct play p = { .status = 0 };
			size_t position = 0;

			assert_true(play_it(changed, &p, &position) != ERR_OK || p.status == 200);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_is_read_like_one_of_the_other_api),
		cmocka_unit_test(the_meter_hears_what_was_said),
		cmocka_unit_test(no_member_can_break_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
