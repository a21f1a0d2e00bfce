/* gzip, by zlib itself: libarchive's own reader of it does not look at the checksum, and a damaged archive is not to become a project. */
#include "source/unpack_input.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include <errno.h>
#include <string.h>
#include <zlib.h>

#define WINDOW_GZIP (MAX_WBITS + 16)
#define DRAIN_MAX ((int64_t)64 << 20) /* bytes of padding after the end of a tar */

struct gunzip {
	z_stream z;
	unsigned char in[UNPACK_BLOCK], out[UNPACK_BLOCK];
	bool in_member, over;
};

bool gunzip_is_gzip(const unsigned char *head, size_t n)
{
	return n >= 3 && head[0] == 0x1f && head[1] == 0x8b && head[2] == 8;
}

struct gunzip *gunzip_new(void)
{
	struct gunzip *g = NEW(struct gunzip);

	CHECK(inflateInit2(&g->z, WINDOW_GZIP) == Z_OK);
	g->in_member = true;
	return g;
}

static bool fill(struct gunzip *g, const char **ret_why)
{
	ssize_t n;

	if (g->z.avail_in)
		return true;
	do
		n = read(STDIN_FILENO, g->in, sizeof(g->in));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		*ret_why = strerror(errno);
	g->z.next_in = g->in;
	g->z.avail_in = n > 0 ? (uInt)n : 0;
	return n > 0;
}

/* Members may follow one another; what is no member after the first is padding. */
static void next_member(struct gunzip *g, const char **ret_why)
{
	g->in_member = false;
	if (fill(g, ret_why) && g->z.next_in[0] == 0x1f) {
		CHECK(inflateReset(&g->z) == Z_OK);
		g->in_member = true;
	}
	g->over = !g->in_member;
}

static bool inflate_some(struct gunzip *g, const char **ret_why)
{
	if (!fill(g, ret_why)) {
		*ret_why = *ret_why ? *ret_why : "the gzip data is cut short";
		return false;
	}
	int r = inflate(&g->z, Z_NO_FLUSH);
	if (r == Z_STREAM_END)
		next_member(g, ret_why);
	else if (r != Z_OK && r != Z_BUF_ERROR)
		*ret_why = g->z.msg ? g->z.msg : "the gzip data is damaged";
	return !*ret_why;
}

ssize_t gunzip_read(struct gunzip *g, const void **ret, const char **ret_why)
{
	g->z.next_out = g->out;
	g->z.avail_out = sizeof(g->out);
	*ret_why = NULL;
	while (!g->over && g->z.avail_out == sizeof(g->out))
		if (!inflate_some(g, ret_why))
			return -1;
	*ret = g->out;
	return (ssize_t)(sizeof(g->out) - g->z.avail_out);
}

enum err_code gunzip_finish(struct gunzip *g, const char *last_entry, struct error *e)
{
	const void *ignored;
	const char *why = NULL;
	int64_t rest = 0;
	ssize_t n;

	while ((n = gunzip_read(g, &ignored, &why)) > 0)
		if ((rest += n) > DRAIN_MAX)
			return unpack_refuse(e, ERR_TOO_LARGE, last_entry, "is the last, and more than %lld bytes follow the archive's end", (long long)DRAIN_MAX);
	return n == 0 ? ERR_OK : unpack_refuse(e, ERR_INVALID, last_entry, "is the last, and what follows is damaged or cut short: %s", why);
}
