/* What a server (or who pretends to be one) answers a runner: a reply to a batch, or the commands. */
#include "fuzz.h"
#include "runner/link.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	AUTO_STRBUF struct strbuf in = STRBUF_LIMIT(LINK_REPLY_MAX);
	AUTO_JS struct js *body = NULL;

	strbuf_add(&in, data, n);
	int status = parse_reply(&in, &body);
	CHECK(status == 0 || (status >= 100 && status <= 599));
	CHECK(status || !body);
	is_dismissal(status, body);
	if (body)
		fuzz_is_json(body);
	return 0;
}
