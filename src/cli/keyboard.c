/* Typing. The terminal edits the line itself; we wait for it in slices. */
#include "cli/keyboard.h"
#include "base/clock.h"
#include <poll.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define SLICE_MS 100
#define STOP_EVERY_MS 500

bool keyboard_is_there(void)
{
	return isatty(STDIN_FILENO);
}

/* A number of bytes; 0 at the end of input. The last part of a line ends in a newline. */
static bool take(struct strbuf *ret, enum typed *how)
{
	char part[1024];
	ssize_t n = read(STDIN_FILENO, part, sizeof(part));
	if (n <= 0) {
		*how = ret->len ? TYPED_LINE : TYPED_END;
		return true;
	}
	const char *newline = memchr(part, '\n', (size_t)n);
	strbuf_add(ret, part, newline ? (size_t)(newline - part) : (size_t)n);
	explicit_bzero(part, sizeof(part));
	*how = TYPED_LINE;
	return newline != NULL;
}

static enum typed wait_for_line(const struct keyboard *k, struct strbuf *ret)
{
	int64_t next = clock_mono_ms() + STOP_EVERY_MS;
	enum typed how = TYPED_LINE;
	for (;;) {
		struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
		int n = poll(&p, 1, SLICE_MS);
		if (k->interrupted && *k->interrupted)
			return TYPED_INTERRUPTED;
		if (n > 0 && take(ret, &how))
			return how;
		if (k->stop && clock_mono_ms() >= next) {
			if (k->stop(k->ctx))
				return TYPED_STOPPED;
			next = clock_mono_ms() + STOP_EVERY_MS;
		}
	}
}

enum typed keyboard_line(const struct keyboard *k, struct strbuf *ret)
{
	AUTO_STRBUF struct strbuf prompt = STRBUF_INIT;
	struct termios before, quiet;
	bool known = tcgetattr(STDIN_FILENO, &before) == 0;
	strbuf_reset(ret);
	if (known)
		quiet = before;
	if (known && k->secret)
		quiet.c_lflag &= ~(tcflag_t)ECHO;
	if (known)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
	term_add(k->term, &prompt, COLOUR_BOLD, k->prompt);
	term_write(k->term, &prompt);
	enum typed how = wait_for_line(k, ret);
	if (known && k->secret)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
	return how;
}
