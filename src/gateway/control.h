/* The gateway's control socket: who it is, and please drain.  For its owner alone (mode 0600). */
#pragma once
#include "gateway/exchange.h"

struct control {
	struct exchange_host *host;
	char started[25]; /* RFC 3339 */
	void (*drain)(void *ctx);
	void *drain_ctx;
};

extern const struct http_route control_routes[]; /* http_config.ctx is the struct control */
