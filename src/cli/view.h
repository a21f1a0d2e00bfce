/* Events as lines for people.  One table says for each type what its line is; a view adds the elapsed time and colour, keeps what a
 * line needs to know about earlier events (when a command started, which plan steps are done) and feeds the live line. */
#pragma once
#include "base/js.h"
#include "cli/term.h"

struct view {
	const struct term *term;
	struct live live;
	struct js *commands; /* id -> {command, at} of those that run */
	struct js *plan;     /* id or text -> status, as last shown */
	int64_t since_ms;    /* wall time that the elapsed times count from */
	int64_t tokens;
	bool quiet;
	bool all;	     /* also the types that a follower does not need to see */
};

void view_start(struct view *v, const struct term *t, bool quiet, bool live, int64_t since_ms);
void view_stop(struct view *v);
/* One event, or a live-only message. */
void view_event(struct view *v, const struct js *event);
void view_note(struct view *v, enum colour colour, const char *text); /* a line of our own */
/* The event's line without time and colour, on one line; for pipes. Keeps no state between events unless v has it. */
void view_event_text(struct view *v, const struct js *event, struct strbuf *out);
/* A final answer forced to JSON, parsed; NULL when the text is an ordinary message. The caller frees. */
struct js *view_final_answer(const char *text);
/* "npm test" out of "/bin/bash -lc 'npm test'": what the agent meant to run. */
void view_add_command(struct strbuf *out, const char *command);
/* "$ ", or "verify $ " and "setup $ " for what Signalbox ran itself. */
void view_add_prompt(struct strbuf *out, const struct js *data);
