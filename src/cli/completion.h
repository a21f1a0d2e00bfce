/* Completion scripts for shells, out of the command table. */
#pragma once
#include "cli/cli.h"

void completion_bash(struct strbuf *out);
void completion_fish(struct strbuf *out);
void completion_zsh(struct strbuf *out);
const char *completion_lister(const struct command *cmd); /* the command whose first two columns are what it takes; NULL: none */
bool completion_is_file(const struct opt *o); /* its value is a file or a directory */
