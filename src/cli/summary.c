/* The end of a run, told. */
#include "cli/summary.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "cli/remote.h"
#include "cli/text.h"
#include <inttypes.h>
#include <string.h>

#define GRAPH_MIN 10 /* columns kept for + and - */
#define FILES_MAX 200 /* listed; the rest is counted */

/* An agent that says why it failed says so in its summary, which comes next: then the reason is enough here. */
static void add_why(struct strbuf *out, const struct js *task)
{
	const char *summary = js_str_or(js_get(task, "result"), "summary", ""), *error = js_str_or(task, "error", "");
	AUTO_STRBUF struct strbuf one = STRBUF_INIT, other = STRBUF_INIT;
	text_add_line(&one, summary);
	text_add_line(&other, error);
	if (one.len && strstr(strbuf_str(&other), strbuf_str(&one)))
		text_add_line(out, js_str_or(task, "reason", "failed"));
	else
		remote_add_why(out, task);
}

static void add_head(const struct term *t, struct strbuf *out, const struct js *task)
{
	const char *began = js_str(task, "created_at"), *ended = js_str(task, "completed_at");
	term_add(t, out, remote_colour(task), remote_status(task));
	strbuf_adds(out, "  ");
	AUTO_STRBUF struct strbuf label = STRBUF_INIT, why = STRBUF_INIT;
	text_add_line(&label, remote_label(task));
	term_add(t, out, COLOUR_BOLD, strbuf_str(&label));
	if (began && ended && clock_parse_rfc3339(began) >= 0 && clock_parse_rfc3339(ended) >= 0) {
		strbuf_adds(out, "  in ");
		str_add_duration(out, clock_parse_rfc3339(ended) - clock_parse_rfc3339(began));
	}
	strbuf_addc(out, '\n');
	add_why(&why, task);
	if (why.len) {
		term_add(t, out, remote_colour(task), strbuf_str(&why));
		strbuf_addc(out, '\n');
	}
}

static void add_list(struct strbuf *out, const char *title, const struct js *list)
{
	if (!js_len(list))
		return;
	strbuf_addf(out, "\n%s\n", title);
	for (size_t i = 0; i < js_len(list); i++) {
		const char *text = js_text(js_at(list, i));
		strbuf_adds(out, "  - ");
		text_add_block(out, text ? text : js_str_or(js_at(list, i), "text", "?"), 4);
		strbuf_addc(out, '\n');
	}
}

static void add_verify(const struct term *t, struct strbuf *out, const struct js *verify)
{
	AUTO_STRBUF struct strbuf command = STRBUF_INIT;
	int64_t code = js_i64(verify, "exit_code", -1);
	if (js_type(verify) != JS_OBJECT)
		return;
	text_add_line(&command, js_str_or(verify, "command", "?"));
	strbuf_adds(out, "verify  ");
	term_addf(t, out, code == 0 ? COLOUR_GREEN : COLOUR_RED, "%s", code == 0 ? "passed" : "failed");
	strbuf_addf(out, "  %s  [exit %" PRId64, strbuf_str(&command), code);
	if (js_get(verify, "ms")) {
		strbuf_adds(out, ", ");
		str_add_duration(out, js_i64(verify, "ms", 0));
	}
	strbuf_adds(out, "]  (run by Signalbox)\n");
}

static void add_claims(struct strbuf *out, const struct js *claims)
{
	int64_t run = js_i64(claims, "tests_run", -1), passed = js_i64(claims, "tests_passed", -1);
	if (run <= 0 && passed <= 0)
		return; /* nothing is claimed */
	strbuf_adds(out, "claims  ");
	if (run >= 0)
		strbuf_addf(out, "%" PRId64 " test%s run", run, run == 1 ? "" : "s");
	if (passed >= 0)
		strbuf_addf(out, "%s%" PRId64 " passed", run >= 0 ? ", " : "", passed);
	strbuf_adds(out, "  (the agent says so; not checked)\n");
}

static void add_usage(struct strbuf *out, const struct js *usage)
{
	int64_t in = js_i64(usage, "input_tokens", 0), result = js_i64(usage, "output_tokens", 0);
	if (!in && !result)
		return;
	strbuf_addf(out, "tokens  %" PRId64 " in (%" PRId64 " cached), %" PRId64 " out", in, js_i64(usage, "cached_input_tokens", 0), result);
	if (js_i64(usage, "requests", 0))
		strbuf_addf(out, ", %" PRId64 " requests", js_i64(usage, "requests", 0));
	strbuf_addc(out, '\n');
}

static void add_walls(struct strbuf *out, const struct js *walls)
{
	const char *why = js_str(walls, "why");
	if (!str_empty(why) && str_eq(js_str(walls, "confinement"), "rlimits")) {
		strbuf_adds(out, "walls   ");
		text_add_line(out, why);
		strbuf_addc(out, '\n');
	}
}

void summary_add(const struct term *t, struct strbuf *out, const struct js *task)
{
	const struct js *result = js_get(task, "result");
	const char *words = js_str(result, "summary");
	add_head(t, out, task);
	if (!str_empty(words)) {
		strbuf_addc(out, '\n');
		if (t->tty)
			text_add_wrapped(out, words, 0, term_width(t));
		else
			text_add_block(out, words, 0);
		strbuf_addc(out, '\n');
	}
	add_list(out, "Questions", js_get(result, "questions"));
	add_list(out, "Next", js_get(result, "next_actions"));
	AUTO_STRBUF struct strbuf facts = STRBUF_INIT, stat = STRBUF_INIT;
	add_verify(t, &facts, js_get(result, "verify"));
	add_claims(&facts, js_get(result, "claims"));
	add_usage(&facts, js_get(result, "usage"));
	add_walls(&facts, js_get(result, "walls"));
	if (facts.len)
		strbuf_addf(out, "\n%s", strbuf_str(&facts));
	diffstat_add(t, &stat, result);
	if (stat.len)
		strbuf_addf(out, "\n%s", strbuf_str(&stat));
}

static void add_file_name(struct strbuf *out, const struct js *file)
{
	if (js_str(file, "old_path")) {
		text_add_line(out, js_str(file, "old_path"));
		strbuf_adds(out, " => ");
	}
	text_add_line(out, js_str_or(file, "path", "?"));
}

static size_t digits(int64_t n)
{
	size_t d = 1;
	while (n >= 10) {
		n /= 10;
		d++;
	}
	return d;
}

/* How wide each part of a line is. */
struct stat_widths {
	size_t name, count, graph;
	int64_t most; /* changed lines of the busiest file */
};

static int64_t changed_lines(const struct js *file)
{
	return js_i64(file, "added", 0) + js_i64(file, "deleted", 0);
}

static struct stat_widths measure(const struct term *t, const struct js *files, size_t shown)
{
	struct stat_widths w = { .count = 1 };
	size_t width = term_width(t);
	for (size_t i = 0; i < shown; i++) {
		AUTO_STRBUF struct strbuf name = STRBUF_INIT;
		const struct js *file = js_at(files, i);
		add_file_name(&name, file);
		size_t columns = text_columns(strbuf_str(&name), name.len);
		w.name = columns > w.name ? columns : w.name;
		w.most = changed_lines(file) > w.most ? changed_lines(file) : w.most;
		if (js_flag(file, "binary", false) && w.count < 3)
			w.count = 3;
	}
	if (digits(w.most) > w.count)
		w.count = digits(w.most);
	size_t fixed = 1 + 3 + w.count + 1; /* " name | count graph" */
	size_t name_max = width > fixed + GRAPH_MIN ? width - fixed - GRAPH_MIN : GRAPH_MIN;
	w.name = w.name > name_max ? name_max : w.name;
	w.graph = width > fixed + w.name + 1 ? width - fixed - w.name - 1 : GRAPH_MIN;
	return w;
}

/* At least one mark for what is not nothing. */
static size_t scale(int64_t n, const struct stat_widths *w)
{
	if (w->most <= (int64_t)w->graph)
		return (size_t)n;
	return n ? 1 + (size_t)(n * (int64_t)(w->graph - 2) / w->most) : 0;
}

static void add_marks(const struct term *t, struct strbuf *out, enum colour colour, char mark, size_t n)
{
	AUTO_STRBUF struct strbuf marks = STRBUF_INIT;
	while (n--)
		strbuf_addc(&marks, mark);
	term_add(t, out, colour, strbuf_str(&marks));
}

static void add_name_column(struct strbuf *out, const struct js *file, size_t width)
{
	AUTO_STRBUF struct strbuf name = STRBUF_INIT;
	add_file_name(&name, file);
	const char *s = strbuf_str(&name);
	size_t columns = text_columns(s, name.len);
	/* The end of a path says more than its beginning. */
	if (columns > width) {
		size_t skip = text_fit(s, name.len, columns - width + 3);
		strbuf_addf(out, "...%s", s + skip);
		columns = 3 + text_columns(s + skip, name.len - skip);
	} else {
		strbuf_adds(out, s);
	}
	text_add_spaces(out, columns < width ? width - columns : 0);
}

static void add_file(const struct term *t, struct strbuf *out, const struct js *file, const struct stat_widths *w)
{
	strbuf_addc(out, ' ');
	add_name_column(out, file, w->name);
	strbuf_adds(out, " | ");
	if (js_flag(file, "binary", false)) {
		text_add_spaces(out, w->count - 3);
		strbuf_adds(out, "Bin\n");
		return;
	}
	strbuf_addf(out, "%*" PRId64, (int)w->count, changed_lines(file));
	if (changed_lines(file))
		strbuf_addc(out, ' ');
	add_marks(t, out, COLOUR_GREEN, '+', scale(js_i64(file, "added", 0), w));
	add_marks(t, out, COLOUR_RED, '-', scale(js_i64(file, "deleted", 0), w));
	strbuf_addc(out, '\n');
}

static void add_total(struct strbuf *out, const struct js *result, const struct js *files)
{
	int64_t added = js_i64(result, "added", 0), deleted = js_i64(result, "deleted", 0);
	size_t n = js_len(files);
	strbuf_addf(out, " %zu file%s changed", n, n == 1 ? "" : "s");
	if (added)
		strbuf_addf(out, ", %" PRId64 " insertion%s(+)", added, added == 1 ? "" : "s");
	if (deleted)
		strbuf_addf(out, ", %" PRId64 " deletion%s(-)", deleted, deleted == 1 ? "" : "s");
	strbuf_addc(out, '\n');
}

void diffstat_add(const struct term *t, struct strbuf *out, const struct js *result)
{
	const struct js *files = js_get(result, "files");
	size_t n = js_len(files), shown = n < FILES_MAX ? n : FILES_MAX;
	if (!n)
		return;
	struct stat_widths w = measure(t, files, shown);
	for (size_t i = 0; i < shown; i++)
		add_file(t, out, js_at(files, i), &w);
	if (shown < n)
		strbuf_addf(out, " ... and %zu more\n", n - shown);
	add_total(out, result, files);
}
