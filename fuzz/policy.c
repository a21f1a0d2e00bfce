/* Command lines of agents: whatever they are, the splitter ends within its limits, what is certain reads back as itself when it is quoted again,
 * and a line that is in doubt is never allowed by a rule. */
#include "fuzz.h"
#include "agent/policy.h"
#include "agent/shell.h"

static const char rules[] = "{\"ask\":\"always\",\"rules\":[{\"deny\":{\"command\":\"git push **\"}},{\"allow\":{\"command\":\"a *\"}},{\"allow\":{\"command\":\"**\"}}]}";

static bool is_plain(const struct shell_split *s)
{
	if (s->why || s->count == 0)
		return false;
	for (size_t i = 0; i < s->count; i++)
		for (size_t k = 0; k < s->commands[i].count; k++)
			if (s->commands[i].assigns || s->commands[i].words[k].open != SHELL_PLAIN)
				return false;
	return true;
}

static void quote(struct strbuf *out, const char *word)
{
	strbuf_addc(out, '\'');
	for (; *word; word++)
		if (*word == '\'')
			strbuf_adds(out, "'\\''");
		else
			strbuf_addc(out, *word);
	strbuf_adds(out, "' ");
}

static void check_again(const struct shell_split *s)
{
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	struct shell_split again;
	for (size_t i = 0; i < s->count; i++) {
		for (size_t k = 0; k < s->commands[i].count; k++)
			quote(&line, s->commands[i].words[k].text);
		strbuf_adds(&line, ";");
	}
	if (line.len > SHELL_LINE_MAX)
		return;
	shell_split(strbuf_str(&line), line.len, &again);
	CHECK(!again.why && again.count == s->count);
	for (size_t i = 0; i < s->count; i++) {
		CHECK(again.commands[i].count == s->commands[i].count);
		for (size_t k = 0; k < s->commands[i].count; k++)
			CHECK(strcmp(again.commands[i].words[k].text, s->commands[i].words[k].text) == 0);
	}
	shell_split_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct shell_split s;
	struct policy *p = NULL;
	const char *rule = NULL;
	AUTO_JS struct js *approvals = js_parse(rules, sizeof(rules) - 1, NULL);
	AUTO_JS struct js *ask = js_object();

	js_set(ask, "command", js_string_n((const char *)data, n)); /* what is no text is repaired, as it is on the wire */
	const char *line = js_str_or(ask, "command", "");
	shell_split(line, strlen(line), &s);
	CHECK(s.count <= SHELL_COMMANDS_MAX);
	for (size_t i = 0; i < s.count; i++)
		for (size_t k = 0; k < s.commands[i].count; k++)
			CHECK(s.commands[i].words[k].fixed <= strlen(s.commands[i].words[k].text));
	if (is_plain(&s))
		check_again(&s);
	CHECK(policy_new(approvals, &p, NULL) == ERR_OK);
	enum policy_verdict v = policy_judge(p, "command", ask, &rule);
	CHECK((v == POLICY_ASK) == !rule);
	CHECK(!s.why || v != POLICY_ALLOW);
	policy_free(p);
	shell_split_release(&s);
	return 0;
}
