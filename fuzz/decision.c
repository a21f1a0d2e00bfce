/* What people decide: a file of the inbox, or a body of the API, for a gate that an agent has opened.  The first line is the gate
 * ({"kind","data"}), the rest the file. */
#include "fuzz.h"
#include "agent/decision.h"
#include "core/gatefile.h"

static void tell(const char *kind, const struct js *data, const struct js *decision)
{
	AUTO_STRBUF struct strbuf words = STRBUF_INIT;
	fuzz_is_json(decision);
	CHECK(decision_state(js_str(decision, "decision")));
	decision_tell(kind, data, decision, &words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct error e = ERROR_INIT;
	size_t len;
	AUTO_FREE char *first = fuzz_part(&data, &n, '\n', &len);
	AUTO_JS struct js *gate = js_parse(first, len, NULL);
	AUTO_JS struct js *body = NULL;
	AUTO_JS struct js *decision = NULL;
	const char *kind = js_str_or(gate, "kind", "question");
	const struct js *asked = js_get(gate, "data");

	if (js_type(asked) != JS_OBJECT)
		return 0;
	js_free(decision_default(kind, asked, "a"));
	decision_is_secret(asked);
	decision_same_request(kind, asked, kind, asked);
	if (gatefile_parse((const char *)data, n, &body, &e) != ERR_OK || decision_check(kind, asked, body, &decision, &e) != ERR_OK)
		CHECK(e.code && e.text[0]);
	else
		tell(kind, asked, decision);
	return 0;
}
