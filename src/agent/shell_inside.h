/* Between the files of the splitter: the place in the text, and who reads what. */
#pragma once
#include "agent/shell.h"
#include "base/strbuf.h"

#define SHELL_HEREDOCS_MAX 4
/* Bytes with which bash marks quoted text inside of itself. */
#define SHELL_MARK_1 '\001'
#define SHELL_MARK_2 '\177'

struct shell_text {
	const char *s;
	size_t len, at;
	bool posix; /* read by a plain sh: what only bash does is in doubt */
	bool piped; /* the command here reads from a pipe */
	int depth;
	char *heredocs[SHELL_HEREDOCS_MAX]; /* ends of here-documents that begin after this line */
	int heredoc_count;
	struct shell_split *out;
};

/* The first doubt is kept. */
void shell_doubt(struct shell_split *out, const char *why);
/* The byte `ahead` of the place, -1 past the end. */
int shell_peek(const struct shell_text *t, size_t ahead);
/* A backslash and a newline stand here: the line goes on, also inside operators. */
bool shell_joins(const struct shell_text *t, size_t ahead);
bool shell_is_name(int c, bool first);
/* A list of commands up to the end, or to `until` ( ')' or '}' ), which is consumed; false when it did not come. */
bool shell_list(struct shell_text *t, int until);
/* A whole text of its own inside of another. */
void shell_inner(struct shell_split *out, const char *s, size_t len, bool posix, int depth);
/* One word; it may be empty text ('' in the line). The caller frees its text. */
void shell_word_read(struct shell_text *t, struct shell_word *ret);
/* A command as it was read, words taken: looks through wrappers, and adds what is run. */
void shell_emit(struct shell_split *out, struct shell_command *c, bool posix, int depth);
void shell_command_release(struct shell_command *c);
void shell_command_add(struct shell_split *out, struct shell_command *c, struct shell_word *taken);
