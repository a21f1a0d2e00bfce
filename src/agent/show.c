/* Titles, paths and patches for people. */
#include "agent/show.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define WORKSPACE "/workspace/"

static size_t cut_at(const char *text, size_t len, size_t max)
{
	if (len <= max)
		return len;
	for (len = max; len && ((unsigned char)text[len] & 0xC0) == 0x80;)
		len--;
	return len;
}

void show_title(struct js *data, const char *before, const char *text)
{
	AUTO_FREE char *all = mem_printf("%s%s", before, text ? text : "");
	js_set(data, "title", js_string_n(all, cut_at(all, strcspn(all, "\n"), SHOW_TITLE_MAX)));
}

const char *show_path(const char *path)
{
	return str_starts(path, WORKSPACE) && path[strlen(WORKSPACE)] ? path + strlen(WORKSPACE) : path;
}

struct js *show_words(const char *words)
{
	struct js *list = js_array();
	for (size_t n; *words; words += n + strspn(words + n, " ")) {
		n = strcspn(words, " ");
		js_push(list, js_string_n(words, n));
	}
	return list;
}

static size_t line_len(const char *text)
{
	size_t n = strcspn(text, "\n");
	return n + (text[n] == '\n');
}

static size_t count_lines(const char *text, size_t len)
{
	size_t lines = 0;
	for (const char *end = text + len; text < end; text += line_len(text))
		lines++;
	return lines;
}

static void add_lines(struct strbuf *out, char mark, const char *text, size_t len)
{
	for (const char *end = text + len; text < end;) {
		size_t n = line_len(text);
		strbuf_addc(out, mark);
		strbuf_add(out, text, n);
		if (text[n - 1] != '\n')
			strbuf_addc(out, '\n');
		text += n;
	}
}

/* Bytes of whole lines that both begin with. */
static size_t common_head(const char *a, const char *b)
{
	size_t at = 0;
	while (a[at] && line_len(a + at) == line_len(b + at) && memcmp(a + at, b + at, line_len(a + at)) == 0)
		at += line_len(a + at);
	return at;
}

static size_t last_line(const char *text, size_t end)
{
	size_t at = end - 1;
	while (at && text[at - 1] != '\n')
		at--;
	return at;
}

/* Bytes of whole lines that both end with, behind the common head. */
static size_t common_tail(const char *a, const char *b, size_t head)
{
	size_t a_end = strlen(a), b_end = strlen(b), len = a_end;
	while (a_end > head && b_end > head) {
		size_t a_at = last_line(a, a_end), b_at = last_line(b, b_end);
		if (a_at < head || b_at < head || a_end - a_at != b_end - b_at || memcmp(a + a_at, b + b_at, a_end - a_at) != 0)
			break;
		a_end = a_at;
		b_end = b_at;
	}
	return len - a_end;
}

/* The last (or first) few lines of a common part. */
static size_t context_head(const char *text, size_t len)
{
	size_t lines = count_lines(text, len), at = 0;
	for (; lines > SHOW_CONTEXT_LINES; lines--)
		at += line_len(text + at);
	return at;
}

static size_t context_tail(const char *text, size_t len)
{
	size_t at = 0;
	for (int i = 0; i < SHOW_CONTEXT_LINES && at < len; i++)
		at += line_len(text + at);
	return at < len ? at : len;
}

static void add_hunk(struct strbuf *out, const char *before, const char *after, bool whole)
{
	size_t head = common_head(before, after), tail = common_tail(before, after, head);
	size_t from = context_head(before, head), old_len = strlen(before) - tail - head, new_len = strlen(after) - tail - head;
	const char *rest = before + head + old_len;
	size_t shown = context_tail(rest, tail), first = count_lines(before, from) + 1;
	size_t context = count_lines(before + from, head - from) + count_lines(rest, shown);
	if (whole)
		strbuf_addf(out, "@@ -%zu,%zu +%zu,%zu @@\n", first, context + count_lines(before + head, old_len), first, context + count_lines(after + head, new_len));
	else
		strbuf_adds(out, "@@\n");
	add_lines(out, ' ', before + from, head - from);
	add_lines(out, '-', before + head, old_len);
	add_lines(out, '+', after + head, new_len);
	add_lines(out, ' ', rest, shown);
}

void show_diff(struct strbuf *out, const char *path, const char *before, const char *after, bool whole)
{
	strbuf_addf(out, "--- %s%s\n+++ %s%s\n", before ? "a/" : "/dev/null", before ? path : "", after ? "b/" : "/dev/null", after ? path : "");
	if (before && after) {
		add_hunk(out, before, after, whole);
		return;
	}
	const char *text = before ? before : after ? after : "";
	strbuf_addf(out, before ? "@@ -1,%zu +0,0 @@\n" : "@@ -0,0 +1,%zu @@\n", count_lines(text, strlen(text)));
	add_lines(out, before ? '-' : '+', text, strlen(text));
}

void show_set_diff(struct js *data, const struct strbuf *diff)
{
	size_t n = cut_at(strbuf_str(diff), diff->len, SHOW_DIFF_MAX);
	js_set(data, "diff", js_string_n(strbuf_str(diff), n));
	if (n < diff->len)
		js_set_int(data, "truncated", (int64_t)(diff->len - n));
}

void show_add_file(struct js *files, const char *path, const char *kind)
{
	struct js *one = js_object();
	js_set_str(one, "path", show_path(path));
	js_set_str(one, "kind", kind);
	js_push(files, one);
}

bool show_set_object(struct js *data, const char *key, const struct js *value)
{
	AUTO_FREE char *text = js_dump(value);
	size_t len = strlen(text);
	if (len <= SHOW_OBJECT_MAX) {
		js_set(data, key, js_ref(value));
		return true;
	}
	js_set(data, key, js_string_n(text, cut_at(text, len, AGENT_TEXT_MAX)));
	js_set_int(data, "truncated", (int64_t)(len - AGENT_TEXT_MAX));
	return false;
}
