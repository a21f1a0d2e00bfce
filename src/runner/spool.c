/* The spool: every event is a numbered line in spool.jsonl, on disk before it is sent.  What is not acknowledged is read again from the
 * file, so that a server that is away costs disk, not memory. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "runner/runner.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPOOL_READ_MAX ((size_t)2 << 20) /* one batch's bytes */
#define SPOOL_LINE_MAX ((size_t)1 << 20) /* a longer line would never fit a batch; what it said is in the raw output */

struct spool {
	int fd;
	int64_t last, acked; /* numbers */
	off_t acked_offset;  /* of the first line that is not acknowledged */
	off_t size;	     /* of the whole lines */
	bool dirty;
};

enum err_code spool_open(const char *run_dir, struct spool **ret, struct error *e)
{
	AUTO_FREE char *path = file_join(run_dir, "spool.jsonl");
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_errno(e, "open '%s'", path);
	struct spool *s = NEW(struct spool);
	s->fd = fd;
	*ret = s;
	return ERR_OK;
}

void spool_close(struct spool *s)
{
	if (!s)
		return;
	close(s->fd);
	free(s);
}

/* Its place is kept, its words are counted. */
static void shorten(struct js *line, struct strbuf *text)
{
	struct js *data = js_object();
	const char *id = js_str(js_get(line, "data"), "id");
	js_set_str(data, "id", id);
	js_set_int(data, "truncated", (int64_t)text->len);
	js_set(line, "data", data);
	strbuf_reset(text);
	js_dump_to(line, text);
}

enum err_code spool_add(struct spool *s, const char *type, const char *actor, const struct js *data, struct error *e)
{
	char at[RFC3339_SIZE];
	AUTO_JS struct js *line = js_object();
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	clock_rfc3339(clock_wall_ms(), at);
	js_set_int(line, "n", s->last + 1);
	js_set_str(line, "at", at);
	js_set_str(line, "type", type);
	js_set_str(line, "actor", actor);
	js_set(line, "data", data ? js_ref(data) : js_object());
	js_dump_to(line, &text);
	if (text.len > SPOOL_LINE_MAX)
		shorten(line, &text);
	strbuf_addc(&text, '\n');
	enum err_code rc = file_write_all(s->fd, text.data, text.len, e);
	if (rc && ftruncate(s->fd, s->size) < 0) /* half a line must not stand before the next one */
		log_error("spool: half a line could not be taken back");
	if (rc)
		return error_wrap(e, "write the spool");
	s->size += (off_t)text.len;
	s->last++;
	s->dirty = true;
	return ERR_OK;
}

enum err_code spool_sync(struct spool *s, struct error *e)
{
	if (s->dirty && fdatasync(s->fd) < 0)
		return error_errno(e, "sync the spool");
	s->dirty = false;
	return ERR_OK;
}

int spool_next(struct spool *s, int max_lines, struct strbuf *out, int64_t *ret_first)
{
	if (s->acked == s->last)
		return 0;
	AUTO_FREE char *text = mem_alloc(SPOOL_READ_MAX + 1);
	ssize_t got = pread(s->fd, text, SPOOL_READ_MAX, s->acked_offset);
	int n = 0;
	for (char *at = text, *newline; got > 0 && n < max_lines && (newline = memchr(at, '\n', (size_t)(text + got - at))); at = newline + 1) {
		if (n++)
			strbuf_addc(out, ',');
		strbuf_add(out, at, (size_t)(newline - at));
	}
	*ret_first = s->acked + 1;
	return n;
}

void spool_acked(struct spool *s, int64_t n)
{
	AUTO_FREE char *text = mem_alloc(SPOOL_READ_MAX + 1);
	while (s->acked < n && s->acked < s->last) {
		ssize_t got = pread(s->fd, text, SPOOL_READ_MAX, s->acked_offset);
		char *at = text, *newline;
		while (got > 0 && s->acked < n && (newline = memchr(at, '\n', (size_t)(text + got - at)))) {
			s->acked++;
			s->acked_offset += newline + 1 - at;
			at = newline + 1;
		}
		if (at == text)
			return; /* the file was cut under us: the server will read what there is */
	}
}

bool spool_all_acked(const struct spool *s)
{
	return s->acked == s->last;
}
