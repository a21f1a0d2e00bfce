/* JSON lines on stdout. A reader that went away is no reason to stop in the middle: the cache is still worth filling. */
#include "source/report.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include <ctype.h>
#include <string.h>

static void say(const char *name, struct js *taken)
{
	AUTO_JS struct js *line = js_object();
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	js_set(line, name, taken);
	js_dump_to(line, &text);
	strbuf_addc(&text, '\n');
	if (file_write_all(STDOUT_FILENO, text.data, text.len, NULL) != ERR_OK)
		return;
}

void report_progress(struct report *r, const char *step, int percent, const char *text)
{
	bool is_same_step = str_eq(r->step, step);
	int64_t now_ms = clock_mono_ms();
	struct js *o;

	if (is_same_step && (r->percent == percent || (percent < 100 && now_ms < r->at_ms + REPORT_PAUSE_MS)))
		return;
	r->at_ms = now_ms;
	r->step = step;
	r->percent = percent;
	o = js_object();
	js_set_str(o, "step", step);
	js_set_int(o, "percent", percent);
	js_set_str(o, "text", text);
	say("progress", o);
}

void report_git_line(struct report *r, const char *step, const char *line)
{
	const char *mark = strstr(line, "% ("), *colon, *digits = mark;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	int percent = 0;

	if (str_starts(line, "remote: "))
		line += strlen("remote: ");
	colon = strchr(line, ':');
	if (!mark || !colon || colon > mark)
		return;
	while (digits > colon && isdigit((unsigned char)digits[-1]))
		digits--;
	for (; digits < mark && percent < 100; digits++)
		percent = percent * 10 + (*digits - '0');
	str_add_printable(&text, line, (size_t)(colon - line));
	report_progress(r, step, percent, strbuf_str(&text));
}

void report_result(struct js *taken)
{
	say("result", taken);
}

void report_error(const struct error *e)
{
	struct js *o = js_object();

	js_set_str(o, "code", err_name(e->code));
	js_set_str(o, "text", e->text);
	js_set_str(o, "hint", e->hint);
	say("error", o);
}
