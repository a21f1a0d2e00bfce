/* final.json, which an agent wrote. */
#include "fuzz.h"
#include "agent/agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *final = agent_final_parse((const char *)data, n, &e);

	CHECK(final ? js_str(final, "status") && js_str(final, "summary") : e.code && e.text[0]);
	return 0;
}
