/* One line typed at the terminal of standard input, with an eye on everything that may make it pointless meanwhile. */
#pragma once
#include "cli/term.h"
#include <stdbool.h>

#define KEYBOARD_LINE_MAX ((size_t)64 << 10)

enum typed { TYPED_LINE, TYPED_END, TYPED_STOPPED, TYPED_INTERRUPTED };

struct keyboard {
	const struct term *term;	   /* where the prompt goes, once typing counts */
	const char *prompt;
	bool secret;			   /* what is typed is not shown */
	const volatile int *interrupted;   /* may be NULL */
	bool (*stop)(void *ctx);	   /* asked twice a second whether it is still worth waiting; may be NULL */
	void *ctx;
};

bool keyboard_is_there(void);
/* What was typed before is thrown away: it was no answer to this. The line comes without its newline. */
enum typed keyboard_line(const struct keyboard *k, struct strbuf *ret);
