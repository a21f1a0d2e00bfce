/* The gateway's two sockets and how a new gateway takes them over from an old one: bound under a temporary name, renamed over the
 * old ones (an agent that connects meets one or the other, never none), then the old gateway is asked to drain. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <sys/types.h>

#define SOCKETS_DRAIN_CALL_MS INT64_C(2000) /* the old gateway's answer to POST /drain */

struct gateway_socket {
	char *path;
	int fd;
	dev_t device;
	ino_t inode;
};

struct gateway_sockets {
	struct gateway_socket model, control;
};
#define GATEWAY_SOCKETS_INIT { .model = { .fd = -1 }, .control = { .fd = -1 } }

MUST_USE enum err_code sockets_take(const char *model_path, const char *control_path, struct gateway_sockets *ret, struct error *e);
void sockets_release(struct gateway_sockets *s); /* closes, and removes the files where they are still ours */
