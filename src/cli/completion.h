/* Completion scripts for shells, out of the command table. */
#pragma once
#include "cli/cli.h"

void completion_bash(struct strbuf *out);
void completion_fish(struct strbuf *out);
void completion_zsh(struct strbuf *out);
bool completion_takes_task(const struct command *cmd);
bool completion_is_file(const struct opt *o); /* its value is a file or a directory */
