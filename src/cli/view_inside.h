/* How a line of an event is made, for the files of the view. */
#pragma once
#include "cli/view.h"

#define MESSAGE_INDENT 10 /* columns before the text of a line: time and mark */

/* What a line is made into. */
struct line {
	struct strbuf text;
	enum colour colour;
	bool hide; /* nothing worth a line */
};

typedef void line_maker(struct view *v, const struct js *event, const struct js *data, struct line *l);

/* The value behind some words; nothing when there is none. */
void view_add_pair(struct strbuf *out, const char *before, const char *value);

line_maker view_line_gate, view_line_settled, view_line_delivered, view_line_policy, view_line_said, view_line_unsaid, view_line_steered, view_line_interrupt;
