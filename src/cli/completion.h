/* Completion scripts for shells, out of the command table. */
#pragma once
#include "cli/cli.h"

void completion_bash(struct strbuf *out);
void completion_fish(struct strbuf *out);
void completion_zsh(struct strbuf *out);
const char *completion_lister(const struct command *cmd); /* the command that lists what it takes; NULL: none */
/* The words that can follow, with a space between them; false: none are known. */
bool completion_add_values(const struct opt *o, struct strbuf *out);
bool completion_add_verbs(const struct command *cmd, struct strbuf *out);
void completion_add_valued(struct strbuf *out, char between); /* the options before the command that take a value */
/* What the names that completion offers are made of; there is nothing in them that a shell would evaluate. */
#define COMPLETION_LETTERS "A-Za-z0-9._:/@+-"
const char *completion_columns(const char *lister); /* for cut: where in a listing the names are */
bool completion_is_file(const struct opt *o); /* its value is a file or a directory */
