/* A byte stream cut into lines, with a ceiling on what is kept of one. */
#include "base/line.h"
#include <string.h>

void line_init(struct line_reader *r, size_t max)
{
	*r = (struct line_reader){ .buf = STRBUF_LIMIT(max), .max = max };
}

void line_release(struct line_reader *r)
{
	strbuf_release(&r->buf);
	r->skipped = 0;
}

static void keep(struct line_reader *r, const char *data, size_t n)
{
	size_t fits = r->max - r->buf.len;

	strbuf_add(&r->buf, data, n < fits ? n : fits);
	r->skipped += n < fits ? 0 : n - fits;
}

static void deliver(struct line_reader *r, line_fn *fn, void *ctx)
{
	fn(ctx, strbuf_str(&r->buf), r->buf.len, r->buf.len + r->skipped);
	strbuf_reset(&r->buf);
	r->skipped = 0;
}

void line_feed(struct line_reader *r, const char *data, size_t n, line_fn *fn, void *ctx)
{
	const char *newline;

	while (n && (newline = memchr(data, '\n', n))) {
		size_t len = (size_t)(newline - data);
		keep(r, data, len);
		deliver(r, fn, ctx);
		data += len + 1;
		n -= len + 1;
	}
	if (n)
		keep(r, data, n);
}

void line_finish(struct line_reader *r, line_fn *fn, void *ctx)
{
	if (r->buf.len || r->skipped)
		deliver(r, fn, ctx);
}
