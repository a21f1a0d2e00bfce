/* Tables. */
#include "cli/table.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "cli/text.h"
#include <string.h>

#define GAP 2 /* columns between two cells */
#define LAST_MIN 8 /* columns that the last cell has at least; then the terminal wraps the line */

void table_init(struct table *t, const char *const *titles)
{
	*t = (struct table){ .titles = titles };
	while (titles[t->columns])
		t->columns++;
	CHECK(t->columns <= TABLE_COLUMNS_MAX);
}

void table_add(struct table *t, enum colour colour, const char *text)
{
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	text_add_line(&line, text ? text : "");
	if (t->count == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 64;
		t->cells = mem_grow(t->cells, t->cap * sizeof(*t->cells));
	}
	t->cells[t->count++] = (struct table_cell){ .text = strbuf_detach(&line), .colour = colour };
}

void table_addf(struct table *t, enum colour colour, const char *fmt, ...)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	strbuf_vaddf(&text, fmt, ap);
	va_end(ap);
	table_add(t, colour, strbuf_str(&text));
}

void table_release(struct table *t)
{
	for (size_t i = 0; i < t->count; i++)
		free(t->cells[i].text);
	free(t->cells);
	*t = (struct table){ .titles = t->titles, .columns = t->columns };
}

static void print_tabs(const struct table *t, struct strbuf *out)
{
	for (size_t i = 0; i < t->count; i++) {
		strbuf_adds(out, t->cells[i].text);
		strbuf_addc(out, i % t->columns == t->columns - 1 ? '\n' : '\t');
	}
}

/* A column in which no row has anything stays 0 and is not shown. */
static void measure(const struct table *t, size_t widths[TABLE_COLUMNS_MAX])
{
	memset(widths, 0, TABLE_COLUMNS_MAX * sizeof(*widths));
	for (size_t i = 0; i < t->count; i++) {
		size_t w = text_columns(t->cells[i].text, strlen(t->cells[i].text));
		if (w > widths[i % t->columns])
			widths[i % t->columns] = w;
	}
	for (size_t i = 0; i < t->columns; i++) {
		size_t w = text_columns(t->titles[i], strlen(t->titles[i]));
		if (widths[i] && w > widths[i])
			widths[i] = w;
	}
}

/* The last column takes what is left of the line and is cut there, unless `left` is 0. */
static void print_cell(const struct term *term, struct strbuf *out, const struct table_cell *cell, size_t width, bool last, size_t left)
{
	AUTO_STRBUF struct strbuf cut = STRBUF_INIT;
	if (last) {
		if (left)
			text_add_cut(&cut, cell->text, left);
		term_add(term, out, cell->colour, left ? strbuf_str(&cut) : cell->text);
		strbuf_addc(out, '\n');
		return;
	}
	term_add(term, out, cell->colour, cell->text);
	text_add_spaces(out, width - text_columns(cell->text, strlen(cell->text)) + GAP);
}

static void print_row(const struct table *t, const struct term *term, struct strbuf *out, const struct table_cell *cells, const size_t *widths)
{
	size_t used = 0, width = term_width(term);
	for (size_t i = 0; i < t->columns; i++) {
		bool last = i == t->columns - 1;
		if (!widths[i] && !last)
			continue;
		size_t left = used + LAST_MIN <= width ? width - used : LAST_MIN;
		print_cell(term, out, &cells[i], widths[i], last, t->whole ? 0 : left);
		used += widths[i] + GAP;
	}
}

void table_print(const struct table *t, const struct term *term)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	size_t widths[TABLE_COLUMNS_MAX];
	struct table_cell titles[TABLE_COLUMNS_MAX];
	if (!term->tty) {
		print_tabs(t, &out);
		term_write(term, &out);
		return;
	}
	measure(t, widths);
	for (size_t i = 0; i < t->columns; i++)
		titles[i] = (struct table_cell){ .text = (char *)(uintptr_t)t->titles[i], .colour = COLOUR_BOLD };
	if (t->count)
		print_row(t, term, &out, titles, widths);
	for (size_t i = 0; i + t->columns <= t->count; i += t->columns)
		print_row(t, term, &out, t->cells + i, widths);
	term_write(term, &out);
}
