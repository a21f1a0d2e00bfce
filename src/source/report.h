/* What `signalbox fetch` says on stdout: JSON lines of progress, and one last line with the result or the error. */
#pragma once
#include "base/js.h"

#define REPORT_PAUSE_MS 200 /* between two lines of the same step, but for 0 and 100 percent */

struct report {
	const char *step; /* of the last line said */
	int percent;
	int64_t at_ms;
};

void report_progress(struct report *r, const char *step, int percent, const char *text); /* what is not worth a line is not said */
/* A line of git's own progress ("Receiving objects:  45% (9/20), 1 MiB"); anything else is ignored. */
void report_git_line(struct report *r, const char *step, const char *line);
void report_result(struct js *taken);
void report_error(const struct error *e);
