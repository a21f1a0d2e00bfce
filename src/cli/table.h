/* Rows for people or for programs: aligned columns with titles on a terminal, tab-separated lines without titles in a pipe. */
#pragma once
#include "cli/term.h"

#define TABLE_COLUMNS_MAX 10

struct table_cell {
	char *text; /* one line, printable */
	enum colour colour;
};

struct table {
	const char *const *titles; /* NULL-ended */
	size_t columns;
	struct table_cell *cells; /* row by row */
	size_t count, cap;
	bool whole; /* the last column is never cut, but wraps: paths and the like, to be copied */
};

void table_init(struct table *t, const char *const *titles);
void table_add(struct table *t, enum colour colour, const char *text); /* the next cell; NULL is empty */
void table_addf(struct table *t, enum colour colour, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void table_print(const struct table *t, const struct term *out);
void table_release(struct table *t);
