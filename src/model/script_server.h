/* The HTTP side of the scripted model.  The server owns nothing of the script; handlers run on connection threads and may block
 * (delays, hangs) until script_server_stop. */
#pragma once
#include "base/err.h"
#include "model/scenario.h"
#include <stdbool.h>

struct script_server;

struct script_server_config {
	const struct script *script;
	const char *key;	/* the API key that is asked for, or NULL */
	bool log;		/* one JSON line per request on stdout */
	const char *record_dir; /* each request's body as DIR/NNNNNN.json, or NULL */
	int unix_fd, tcp_fd;	/* listening; -1: none */
};

MUST_USE enum err_code script_server_start(const struct script_server_config *cfg, struct script_server **ret, struct error *e);
void script_server_stop(struct script_server *s); /* ends what still hangs, joins, frees */
