/* What the fuzz targets share: the entry that libFuzzer (or replay.c) calls, and inputs of several parts. */
#pragma once
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The bytes up to `end` (or all that is left), as a copy that ends where they end, so that a step beyond is seen; *data moves behind. */
static inline char *fuzz_part(const uint8_t **data, size_t *n, int end, size_t *ret_len)
{
	const uint8_t *stop = memchr(*data, end, *n);
	size_t len = stop ? (size_t)(stop - *data) : *n;
	char *text = mem_alloc(len + 1);

	memcpy(text, *data, len);
	*data += len + (stop ? 1 : 0);
	*n -= len + (stop ? 1 : 0);
	*ret_len = len;
	return text;
}

static char *fuzz_dir;

static inline void fuzz_dir_remove(void)
{
	(void)!file_remove_tree(fuzz_dir, NULL);
	free(fuzz_dir);
}

/* A directory of this process, in memory where there is some; removed at its end. */
static inline const char *fuzz_tmpdir(void)
{
	if (!fuzz_dir) {
		CHECK(file_tmpdir(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", "fuzz-", &fuzz_dir, NULL) == ERR_OK);
		atexit(fuzz_dir_remove);
	}
	return fuzz_dir;
}

/* One line of JSON that reads back as what it was. */
static inline void fuzz_is_json(const struct js *v)
{
	AUTO_FREE char *text = js_dump(v);
	AUTO_JS struct js *again = js_parse(text, strlen(text), NULL);

	CHECK(!strchr(text, '\n'));
	CHECK(again && js_equal(again, v));
}
