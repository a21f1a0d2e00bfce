/* The texts of task objects that were asked for lately; see shown.c.  Thread-safe. */
#pragma once

struct shown;

struct shown *shown_new(void);
void shown_free(struct shown *s);
