/* Finds the server: the one that --server names, or the user's own on its socket, which is started when nobody answers there
 * (detached, in a session of its own, with a clean environment, its output in <data>/log/server.log). */
#pragma once
#include "cli/cli.h"

/* Fills c->client and c->stream. */
MUST_USE enum err_code server_connect(struct cli *c, struct error *e);
/* The same, but starts nothing: ERR_UNREACHABLE when nobody answers. */
MUST_USE enum err_code server_connect_running(struct cli *c, struct error *e);
/* A model key that was exported after the server started is offered to it; only to a server on a socket, never over the net. */
void server_offer_keys(struct cli *c);
/* Path of the socket that would be used; NULL when it is a URL. The caller frees. */
char *server_socket(const struct cli *c);
bool server_answers(const char *socket_path);
