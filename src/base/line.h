/* Cuts a byte stream into lines with a ceiling.  A longer line is delivered once, cut, with `full_len` telling its real length. */
#pragma once
#include "base/strbuf.h"

struct line_reader {
	struct strbuf buf;
	size_t max;	 /* bytes kept of one line */
	size_t skipped;	 /* bytes of the present line that were dropped */
};
typedef void line_fn(void *ctx, const char *line, size_t len, size_t full_len); /* without the newline; NUL-terminated copy */

void line_init(struct line_reader *r, size_t max);
void line_release(struct line_reader *r);
void line_feed(struct line_reader *r, const char *data, size_t n, line_fn *fn, void *ctx);
void line_finish(struct line_reader *r, line_fn *fn, void *ctx); /* a last line without newline */
