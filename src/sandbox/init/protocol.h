/* What the stage and signalbox-init agree on.  bwrap passes these descriptors through unchanged; the agent gets the first three as
 * its 0, 1, 2 and none of the others.  Arguments: init [--port N] [--scoped] -- AGENT ARGS.
 * On the report pipe init writes INIT_STARTED as its first byte; then nothing (end of file: the agent's exec succeeded) or one JSON
 * line {"step","error"}. */
#pragma once

enum init_fd {
	INIT_AGENT_STDIN = 3,
	INIT_AGENT_STDOUT,
	INIT_AGENT_STDERR,
	INIT_CONTROL, /* one byte = a signal for the agent's process group */
	INIT_REPORT,
	INIT_FD_END
};

#define INIT_STARTED '+'
#define INIT_SOCKET_PATH "/run/signalbox/gateway/model.sock"
#define INIT_EXIT_USAGE 125  /* init itself could not go on */
#define INIT_EXIT_NOEXEC 127 /* the agent could not be executed */
