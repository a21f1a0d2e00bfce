/* A command line, as an agent sends it, taken apart into the simple commands that a shell would run: through lists, pipes, groups and
 * subshells, the strings of `bash -c`, and the wrappers that run the rest of their words (env, timeout, nice, ...).
 *
 * The answer is certain, or says why it is not: then the commands are what could be seen, and there may be others.  Certain means: bash, given
 * this line, runs these commands with these words and no others, and no file but /dev/null is opened for them.  What was not thought of is not certain.
 * A word that a shell would still expand ($HOME, *.c, {a,b}) is open: its text is what stands in the line. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define SHELL_LINE_MAX ((size_t)64 << 10) /* bytes of one line */
#define SHELL_COMMANDS_MAX 256		  /* of one line, the ones inside strings included */
#define SHELL_WORDS_MAX 4096		  /* of one line, all commands together */
#define SHELL_DEPTH_MAX 12		  /* groups, substitutions, strings of shells, wrappers inside each other */

enum shell_open {
	SHELL_PLAIN,
	SHELL_ONE, /* one word of which only `fixed` bytes are known */
	SHELL_MANY /* any number of words */
};

struct shell_word {
	char *text;
	enum shell_open open;
	size_t fixed;  /* bytes at the beginning that hold also when it is open */
	size_t assign; /* place of the = when it has the form of an assignment, else 0 */
	bool bare;     /* not quoted anywhere */
	bool joined;   /* a line ended inside it */
	bool subscript; /* a name and an open bracket begin it */
};

struct shell_command {
	struct shell_word *words; /* assignments first */
	size_t count, cap;
	size_t assigns;
	size_t verb;  /* of git, when options stand before its verb: the place of the verb, else 0 */
	bool wraps;   /* it runs other commands out of its words and of what it reads; which ones is not known */
};

struct shell_split {
	struct shell_command *commands;
	size_t count, cap;
	size_t words;
	char *why; /* NULL: certain */
};

void shell_split(const char *line, size_t len, struct shell_split *ret);
void shell_split_release(struct shell_split *s);
