/* git's listing of a diff, of names that an agent chose; the first byte says where the stream is cut. */
#include "fuzz.h"
#include "source/diff_read.c"
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n == 0)
		return 0;
	struct error e = ERROR_INIT;
	const char *text = (const char *)data + 1;
	size_t cut = (size_t)data[0] * (n - 1) / 255;
	AUTO(reader_release) struct reader r = { .token = STRBUF_LIMIT(TOKEN_MAX), .files = js_array(), .max_bytes = 4096, .fd = memfd_create("patch", MFD_CLOEXEC) };

	CHECK(r.fd >= 0);
	if (take_output(&r, text, cut, &e) && take_output(&r, text + cut, n - 1 - cut, &e))
		CHECK(r.added >= 0 && r.deleted >= 0 && r.bytes <= (int64_t)n);
	else
		CHECK(e.code && e.text[0]);
	fuzz_is_json(r.files);
	return 0;
}
