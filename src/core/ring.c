/* The ring of a topic's last lines.  It grows with what it gets; a line that goes out to many is made ready once. */
#include "core/ring.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/caller.h"
#include "core/core.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RING_FIRST 16

struct ring_line {
	char *text; /* and behind its NUL whose it is: a project */
	size_t len;
	int64_t seq;
	char tag[HUB_TAG_SIZE];
	char *frame; /* as it goes out; made when the first one asks: the form for SSE, which has the one for JSONL in it */
	size_t frame_len, body;
	bool last, again; /* the task's end; its new beginning */
};

static struct ring_line *line_of(const struct ring *r, int64_t seq)
{
	return &r->lines[seq % r->cap];
}

static void line_release(struct ring_line *l)
{
	free(l->text);
	free(l->frame);
	*l = (struct ring_line){ 0 };
}

void ring_release(struct ring *r)
{
	for (int64_t i = 0; i < r->cap; i++)
		line_release(&r->lines[i]);
	free(r->lines);
	*r = (struct ring){ .all = r->all, .head = r->all ? r->head : 0 };
}

static void oldest_drop(struct ring *r)
{
	struct ring_line *l = line_of(r, r->head - r->count + 1);
	r->bytes -= l->len;
	r->count--;
	line_release(l);
}

static void lines_drop(struct ring *r)
{
	while (r->count)
		oldest_drop(r);
}

/* So that line `seq` has a place beside those that count. */
static void room_make(struct ring *r, int64_t seq)
{
	int64_t want = seq - (r->head - r->count);
	if (want > r->cap && r->cap < HUB_RING) {
		struct ring old = *r;
		for (r->cap = r->cap ? r->cap : RING_FIRST; r->cap < want && r->cap < HUB_RING;)
			r->cap *= 2;
		r->lines = mem_alloc((size_t)r->cap * sizeof(*r->lines));
		for (int64_t i = 0; i < old.cap; i++)
			if (old.lines[i].text)
				*line_of(r, old.lines[i].seq) = old.lines[i];
		free(old.lines);
	}
	while (r->count && seq - (r->head - r->count) > r->cap)
		oldest_drop(r);
}

/* The line after head is there. */
static void head_advance(struct ring *r, size_t bytes_max)
{
	r->head++;
	r->count++;
	r->bytes += line_of(r, r->head)->len;
	while ((r->bytes > HUB_RING_BYTES || r->bytes > bytes_max) && r->count > 1)
		oldest_drop(r);
}

static bool is_next(const struct ring *r)
{
	return line_of(r, r->head + 1)->seq == r->head + 1;
}

static char *text_with_owner(const char *text, const char *project)
{
	size_t n = strlen(text) + 1, m = strlen(project) + 1;
	char *both = mem_alloc(n + m);
	memcpy(both, text, n);
	memcpy(both + n, project, m);
	return both;
}

static bool is_seen(const struct ring *r, const struct ring_line *l, const char *project)
{
	return !r->all || project_has(project, l->text + l->len + 1);
}

static void line_set(struct ring *r, int64_t seq, const struct hub_mark *mark, const char *text)
{
	struct ring_line *l = line_of(r, seq);
	line_release(l);
	*l = (struct ring_line){ .text = text_with_owner(text, mark->project), .len = strlen(text), .seq = seq };
	snprintf(l->tag, sizeof(l->tag), "%s", mark->tag);
	l->last = core_line_is(text, "task.done\"");
	l->again = core_line_begins_again(text);
}

/* Two commits may be published out of order: a line that overtook others is kept until they are here.  One that cannot be waited for starts the
 * ring anew, and readers fetch what is missing from the database. */
int64_t ring_put(struct ring *r, int64_t seq, const struct hub_mark *mark, const char *line, size_t bytes_max)
{
	size_t before = r->bytes;
	if (seq <= r->head)
		return 0;
	if (!r->head || seq - r->head > HUB_AHEAD) {
		lines_drop(r);
		r->head = seq - 1;
	}
	room_make(r, seq);
	line_set(r, seq, mark, line);
	r->ahead = seq > r->ahead ? seq : r->ahead;
	while (is_next(r))
		head_advance(r, bytes_max);
	return (int64_t)r->bytes - (int64_t)before;
}

/* What never comes was committed by somebody who told nobody, or did not live to. */
int64_t ring_settle(struct ring *r)
{
	size_t before = r->bytes;
	if (r->ahead > r->head && r->ahead_old) {
		lines_drop(r);
		while (!is_next(r))
			r->head++;
		while (is_next(r))
			head_advance(r, HUB_RING_BYTES);
	}
	r->ahead_old = r->ahead > r->head;
	return (int64_t)r->bytes - (int64_t)before;
}

bool ring_has_gap(const struct ring *r, int64_t after)
{
	return r->head > after && after < r->head - r->count;
}

int64_t ring_read(struct ring *r, const char *project, int64_t after, int max, void (*fn)(void *ctx, int64_t seq, const char *line), void *ctx)
{
	for (int64_t seq = after + 1; seq <= r->head && max > 0; seq++, max--) {
		const struct ring_line *l = line_of(r, seq);
		fn(ctx, seq, is_seen(r, l, project) ? l->text : NULL);
		after = seq;
	}
	return after;
}

/* --- as they go out */

/* SSE: "id: CURSOR\ndata: LINE\n\n".  JSONL is what stands between "data: " and the empty line. */
void hub_frame(struct strbuf *out, enum hub_form form, const char *cursor, bool all, const char *line)
{
	bool in_line = all && line[0] == '{';
	if (form == HUB_SSE)
		strbuf_addf(out, "id: %s\ndata: ", cursor);
	if (in_line)
		strbuf_addf(out, "{\"cursor\":\"%s\",", cursor);
	strbuf_adds(out, in_line ? line + 1 : line);
	strbuf_adds(out, form == HUB_SSE ? "\n\n" : "\n");
}

static void frame_make(const struct ring *r, struct ring_line *l)
{
	struct strbuf text = STRBUF_INIT;
	AUTO_FREE char *cursor = mem_printf("%lld%s%s", (long long)l->seq, r->all ? "-" : "", l->tag);
	hub_frame(&text, HUB_SSE, cursor, r->all, l->text);
	l->body = strlen("id: ") + strlen(cursor) + strlen("\ndata: ");
	l->frame_len = text.len;
	l->frame = strbuf_detach(&text);
}

/* False: it does not fit any more. */
static bool frame_copy(const struct ring *r, struct ring_line *l, const struct hub_out *out, size_t *bytes)
{
	if (!l->frame)
		frame_make(r, l);
	size_t from = out->form == HUB_SSE ? 0 : l->body, n = l->frame_len - from - (out->form == HUB_JSONL);
	if (n <= out->max - *bytes)
		memcpy(out->buf + *bytes, l->frame + from, n);
	else if (*bytes)
		return false;
	else
		strbuf_add(out->rest, l->frame + from, n);
	*bytes += out->rest->len ? 0 : n;
	return true;
}

int64_t ring_copy(struct ring *r, const char *project, int64_t after, const struct hub_out *out, size_t *ret_bytes, bool *ret_last)
{
	for (int64_t seq = after + 1; seq <= r->head && !out->rest->len; seq++) {
		struct ring_line *l = line_of(r, seq);
		if (is_seen(r, l, project) && !frame_copy(r, l, out, ret_bytes))
			break;
		*ret_last = (*ret_last && !l->again) || l->last;
		after = seq;
	}
	return after;
}
