/* A stream that may be a terminal: colour, width, and one live line at its bottom.
 * The live line is redrawn once a second by a thread of its own; the struct live's lock guards all writing to its stream. */
#pragma once
#include "base/strbuf.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum colour { COLOUR_NONE, COLOUR_BOLD, COLOUR_DIM, COLOUR_RED, COLOUR_GREEN, COLOUR_YELLOW, COLOUR_BLUE, COLOUR_CYAN, COLOUR_COUNT };

struct term {
	FILE *file;
	bool tty;
	bool colour;
};

/* NO_COLOR and `no_colour` switch colour off, CLICOLOR_FORCE switches it on also in a pipe. */
void term_init(struct term *t, FILE *file, bool no_colour);
size_t term_width(const struct term *t); /* columns; 80 when it cannot be known */
/* Adds s in colour (or as it is). */
void term_add(const struct term *t, struct strbuf *out, enum colour colour, const char *s);
void term_addf(const struct term *t, struct strbuf *out, enum colour colour, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Writes all of it; a reader that went away is not an error worth words (the next write ends us by SIGPIPE). */
void term_write(const struct term *t, const struct strbuf *text);

struct live {
	const struct term *term;
	pthread_mutex_t lock; /* guards everything below and the stream */
	pthread_cond_t wake;
	pthread_t thread;
	bool on;	 /* there is a terminal to draw on */
	bool stop;
	bool drawn;
	bool held;   /* somebody types below */
	struct strbuf text; /* what is going on */
	int64_t since_ms;   /* wall time that the elapsed time counts from */
};

/* Starts drawing when the stream is a terminal and `wanted`; otherwise live_print only prints. */
void live_start(struct live *l, const struct term *t, bool wanted, int64_t since_ms);
void live_text(struct live *l, const char *text);
void live_print(struct live *l, const struct strbuf *lines); /* above the live line */
/* Nothing is drawn between hold and its end: the terminal belongs to who types. */
void live_hold(struct live *l, bool hold);
void live_stop(struct live *l); /* clears the line; live_print must not be used after it */
