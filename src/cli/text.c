/* Columns, cuts, ages and near misses. */
#include "cli/text.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <inttypes.h>
#include <string.h>
#include <wchar.h>

#define NEAR_ENOUGH 3	 /* edits */
#define WRAP_LEAST 20	 /* columns; narrower terminals wrap by themselves */
#define TEXT_WRAP_MAX ((size_t)16 << 20)
#define WORD_MAX_BYTES 64 /* longer words are not compared */

/* One character: its code point in *ret, its length in bytes as the answer; a bad byte counts as one. */
static size_t char_at(const char *s, size_t n, uint32_t *ret)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t len = u[0] < 0x80 ? 1 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
	if (len > n || !str_is_utf8(s, len)) {
		*ret = '?';
		return 1;
	}
	static const unsigned char lead[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	uint32_t c = u[0] & lead[len];
	for (size_t i = 1; i < len; i++)
		c = c << 6 | (u[i] & 0x3fU);
	*ret = c;
	return len;
}

static size_t char_columns(uint32_t c)
{
	if (c < 0x80)
		return 1;
	int w = wcwidth((wchar_t)c);
	return w < 0 ? 1 : (size_t)w;
}

size_t text_columns(const char *s, size_t n)
{
	size_t columns = 0;
	for (size_t i = 0; i < n;) {
		uint32_t c;
		i += char_at(s + i, n - i, &c);
		columns += char_columns(c);
	}
	return columns;
}

size_t text_fit(const char *s, size_t n, size_t columns)
{
	size_t i = 0;
	while (i < n) {
		uint32_t c;
		size_t len = char_at(s + i, n - i, &c);
		size_t w = char_columns(c);
		if (w > columns)
			break;
		columns -= w;
		i += len;
	}
	return i;
}

void text_add_cut(struct strbuf *out, const char *s, size_t columns)
{
	size_t n = strlen(s);
	if (text_columns(s, n) <= columns) {
		strbuf_add(out, s, n);
		return;
	}
	size_t dots = columns < 4 ? 0 : 3;
	strbuf_add(out, s, text_fit(s, n, columns - dots));
	strbuf_add(out, "...", dots);
}

void text_add_spaces(struct strbuf *out, size_t n)
{
	while (n--)
		strbuf_addc(out, ' ');
}

void text_add_line(struct strbuf *out, const char *s)
{
	AUTO_STRBUF struct strbuf clean = STRBUF_INIT;
	str_add_printable(&clean, s, strlen(s));
	size_t start = out->len;
	bool gap = false;
	for (const char *p = strbuf_str(&clean); *p; p++) {
		if (*p == '\n' || *p == '\t' || *p == ' ') {
			gap = true;
			continue;
		}
		if (gap && out->len > start)
			strbuf_addc(out, ' ');
		gap = false;
		strbuf_addc(out, *p);
	}
}

void text_add_block(struct strbuf *out, const char *s, size_t indent)
{
	size_t n = strlen(s);
	while (n && (s[n - 1] == '\n' || s[n - 1] == ' '))
		n--;
	while (n) {
		const char *nl = memchr(s, '\n', n);
		size_t line = nl ? (size_t)(nl - s) : n;
		str_add_printable(out, s, line > 0 && s[line - 1] == '\r' ? line - 1 : line);
		if (!nl)
			break;
		strbuf_addc(out, '\n');
		s += line + 1;
		n -= line + 1;
		if (n && *s != '\n')
			text_add_spaces(out, indent);
	}
}

/* How much of the line goes before a break: up to the last space that fits, or as much as fits. */
static size_t wrap_at(const char *s, size_t n, size_t columns)
{
	size_t fits = text_fit(s, n, columns), at = fits;
	if (fits == n || s[fits] == ' ')
		return fits;
	while (at && s[at - 1] != ' ')
		at--;
	while (at && s[at - 1] == ' ')
		at--;
	return at ? at : fits ? fits : n;
}

void text_add_wrapped(struct strbuf *out, const char *s, size_t indent, size_t width)
{
	AUTO_STRBUF struct strbuf block = STRBUF_LIMIT(TEXT_WRAP_MAX);
	size_t columns = width > indent + WRAP_LEAST ? width - indent : WRAP_LEAST;
	text_add_block(&block, s, 0);
	for (const char *line = strbuf_str(&block); *line;) {
		size_t n = strcspn(line, "\n"), at = wrap_at(line, n, columns);
		strbuf_add(out, line, at);
		line += at;
		if (at < n)
			line += strspn(line, " ");
		else if (*line)
			line++;
		if (!*line)
			break;
		strbuf_addc(out, '\n');
		if (*line != '\n')
			text_add_spaces(out, indent);
	}
}

const char *text_tail(const char *s, int lines)
{
	size_t n = strlen(s);
	while (n && s[n - 1] == '\n')
		n--;
	while (n && lines > 0)
		if (s[--n] == '\n' && --lines == 0)
			return s + n + 1;
	return s;
}

void text_add_clock(struct strbuf *out, int64_t ms)
{
	int64_t s = ms < 0 ? 0 : ms / 1000;
	if (s >= 3600)
		strbuf_addf(out, "%" PRId64 ":%02d:%02d", s / 3600, (int)(s / 60 % 60), (int)(s % 60));
	else
		strbuf_addf(out, "%d:%02d", (int)(s / 60), (int)(s % 60));
}

void text_add_age(struct strbuf *out, int64_t ms)
{
	static const struct { int64_t s; const char *unit; } units[] = { { 86400, "d" }, { 3600, "h" }, { 60, "min" }, { 1, "s" } };
	int64_t s = ms < 1000 ? 1 : ms / 1000;
	size_t i = 0;
	while (s < units[i].s)
		i++;
	strbuf_addf(out, "%" PRId64 " %s", s / units[i].s, units[i].unit);
}

/* Edits (insert, delete, replace) that make b of a; both shorter than WORD_MAX_BYTES. */
static size_t distance(const char *a, const char *b)
{
	size_t row[WORD_MAX_BYTES + 1];
	size_t nb = strlen(b);
	for (size_t j = 0; j <= nb; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[nb];
}

const char *text_nearest(const char *word, const char *(*name_at)(size_t i, const void *ctx), const void *ctx)
{
	const char *best = NULL, *name;
	size_t least = NEAR_ENOUGH;
	if (strlen(word) > WORD_MAX_BYTES)
		return NULL;
	for (size_t i = 0; (name = name_at(i, ctx)); i++) {
		if (strlen(name) > WORD_MAX_BYTES)
			continue;
		size_t d = str_starts(name, word) && word[0] ? 0 : distance(word, name);
		if (d < least && d < strlen(name)) {
			least = d;
			best = name;
		}
	}
	return best;
}
