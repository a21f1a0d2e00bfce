/* The agent's final answer: its schema, which agents that can are made to follow, and our own check of what came. */
#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/str.h"

const char agent_final_schema[] =
	"{\"type\":\"object\",\"additionalProperties\":false,"
	"\"required\":[\"status\",\"summary\",\"questions\",\"nextActions\",\"testsRun\",\"testsPassed\"],\"properties\":{"
	"\"status\":{\"type\":\"string\",\"enum\":[\"success\",\"blocked\",\"failed\"],"
	"\"description\":\"success: the request is done; blocked: a human must answer the questions first; failed: it cannot be done\"},"
	"\"summary\":{\"type\":\"string\",\"description\":\"what was done and why, for the person who asked\"},"
	"\"questions\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},"
	"\"nextActions\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},"
	"\"testsRun\":{\"type\":\"integer\"},\"testsPassed\":{\"type\":\"integer\"}}}";

static enum err_code check_strings(const struct js *o, const char *key, struct error *e)
{
	const struct js *list = js_get(o, key);
	if (!list)
		return ERR_OK;
	if (js_type(list) != JS_ARRAY)
		return error_set(e, ERR_INVALID, "%s: expected an array, got %s", key, js_type_name(js_type(list)));
	for (size_t i = 0; i < js_len(list); i++)
		if (!js_text(js_at(list, i)))
			return error_set(e, ERR_INVALID, "%s[%zu]: expected a string", key, i);
	return ERR_OK;
}

static enum err_code check_final(const struct js *o, struct error *e)
{
	const char *status = NULL, *summary = NULL;
	int64_t count = 0;
	if (js_type(o) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "expected an object, got %s", js_type_name(js_type(o)));
	enum err_code rc = js_want_str(o, "", "status", &status, e);
	if (!rc && !str_eq(status, "success") && !str_eq(status, "blocked") && !str_eq(status, "failed"))
		rc = error_set(e, ERR_INVALID, "status: expected success, blocked or failed");
	if (!rc)
		rc = js_want_str(o, "", "summary", &summary, e);
	if (!rc && !summary)
		rc = error_set(e, ERR_INVALID, "summary: missing");
	if (!rc)
		rc = check_strings(o, "questions", e);
	if (!rc)
		rc = check_strings(o, "nextActions", e);
	if (!rc)
		rc = js_want_i64(o, "", "testsRun", 0, INT32_MAX, &count, e);
	if (!rc)
		rc = js_want_i64(o, "", "testsPassed", 0, INT32_MAX, &count, e);
	return rc;
}

struct js *agent_final_parse(const char *text, size_t len, struct error *e)
{
	AUTO_JS struct js *o = js_parse(text, len, e);
	if (!o || check_final(o, e)) {
		if (e)
			error_wrap(e, "the agent's final answer");
		return NULL;
	}
	return js_ref(o);
}
