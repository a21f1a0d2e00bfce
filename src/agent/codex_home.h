/* Codex's own directory and how the program is started: the same for both ways of speaking to it.  Only for this room. */
#pragma once
#include "agent/backend.h"

#define CODEX_HOME_NAME "codex" /* below the run's home */
#define CODEX_HOME_INSIDE "/home/agent/" CODEX_HOME_NAME
#define CODEX_WORKSPACE "/workspace"
#define CODEX_LAST_MESSAGE "last-message.txt"
#define CODEX_DEFAULT_MODEL "gpt-5.5"

/* Slot `check`: finds the program, fills in the model. */
enum err_code codex_check(struct js *agent, const char *codex_path, struct error *e);
/* Makes the directory and writes config.toml; the descriptor is for further files. */
enum err_code codex_home_write(struct agent *a, int *ret_dir, struct error *e);
/* The program (argv[0], with the directory that it lives in) and the environment. */
enum err_code codex_launch(struct agent *a, struct agent_launch *l, struct error *e);
