/* State files that other programs keep in a repository's .codex/tasks: the first line is the file's name, the rest its text. */
#include "fuzz.h"
#include "core/external_files.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct error e = ERROR_INIT;
	struct told t = { .path = "p", .dir = "d" };
	size_t len;
	AUTO_FREE char *name = NULL;
	AUTO_FREE char *stem = fuzz_part(&data, &n, '\n', &len);
	AUTO_FREE char *file = mem_printf("%s.json", stem);
	AUTO_JS struct js *o = js_parse((const char *)data, n, NULL);

	if (js_type(o) != JS_OBJECT)
		return 0;
	if (read_name(o, file, &name, &e) == ERR_OK)
		CHECK(str_is_name(name));
	if (read_told(o, &t, &e) == ERR_OK)
		CHECK(status_of(t.status) >= 0 && t.start_ms >= 0 && t.beat_ms >= 0 && t.done_ms >= 0);
	else
		CHECK(e.code && e.text[0]);
	return 0;
}
