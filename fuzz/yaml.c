/* YAML from outside: what is taken and written again reads back as the same value. */
#include "fuzz.h"
#include "base/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *v = yaml_parse((const char *)data, n, &e);

	CHECK(v || (e.code && e.text[0]));
	if (!v)
		return 0;
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT((size_t)64 << 20);
	yaml_dump(v, &text);
	AUTO_JS struct js *again = yaml_parse(strbuf_str(&text), text.len, &e);
	CHECK(again);
	AUTO_FREE char *one = js_dump(v);
	AUTO_FREE char *two = js_dump(again);
	CHECK(strcmp(one, two) == 0);
	return 0;
}
