/* 127.0.0.1:PORT inside -> a unix socket, for many connections at once from one poll loop.  Each direction has one bounded buffer:
 * a side that does not read stops only its own peer. */
#pragma once
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#define FORWARD_CONNECTIONS_MAX 128
#define FORWARD_POLLFDS_MAX (1 + 2 * FORWARD_CONNECTIONS_MAX)
#define FORWARD_BUFFER_BYTES (32 * 1024)
#define FORWARD_BACKLOG 128
#define FORWARD_DIAL_MS 5000	 /* how long a connection waits for a gateway that is restarting */
#define FORWARD_REDIAL_MS 20

struct forward;

struct forward *forward_open(uint16_t port, const char *socket_path, int *ret_error); /* NULL: *ret_error says why */
/* Adds what to wait for; *ret_timeout_ms is lowered when something is to be tried again by itself. */
int forward_fill(struct forward *f, struct pollfd *fds, int *ret_timeout_ms);
void forward_step(struct forward *f, const struct pollfd *fds, int count);
