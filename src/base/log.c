/* Lines on stderr for the daemons' journal: made whole in memory, written with one write. */
#include "base/log.h"
#include "base/clock.h"
#include "base/str.h"
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_LINE_MAX 8192

static const char *const level_names[] = { "debug", "info", "warn", "error" };
static _Atomic(const char *) log_program = "signalbox";
static _Atomic(int) log_least = LOG_INFO;

void log_open(const char *program, enum log_level least)
{
	const char *wanted = getenv("SIGNALBOX_LOG");

	for (int i = LOG_DEBUG; wanted && i <= LOG_ERROR; i++)
		if (strcmp(wanted, level_names[i]) == 0)
			least = (enum log_level)i;
	atomic_store(&log_program, program);
	atomic_store(&log_least, (int)least);
}

/* Printable, and without line ends: text from outside must not be able to forge a second line. */
static void add_one_line(struct strbuf *line, const struct strbuf *text)
{
	AUTO_STRBUF struct strbuf shown = STRBUF_LIMIT(LOG_LINE_MAX);

	str_add_printable(&shown, strbuf_str(text), text->len);
	for (const char *s = strbuf_str(&shown); *s; s++) {
		if (*s == '\n')
			strbuf_adds(line, "\\n");
		else
			strbuf_addc(line, *s);
	}
}

void log_at(enum log_level level, const char *fmt, ...)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(LOG_LINE_MAX);
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	int saved = errno;
	char at[RFC3339_SIZE];
	va_list ap;

	if ((int)level < atomic_load(&log_least) || level > LOG_ERROR)
		return;
	va_start(ap, fmt);
	strbuf_vaddf(&text, fmt, ap);
	va_end(ap);
	clock_rfc3339(clock_wall_ms(), at);
	strbuf_addf(&line, "%s %s program=%s ", at, level_names[level], atomic_load(&log_program));
	add_one_line(&line, &text);
	strbuf_addc(&line, '\n');
	ssize_t n = write(STDERR_FILENO, strbuf_str(&line), line.len);
	(void)n; /* there is nowhere left to say it */
	errno = saved;
}
