/* Who needs the gateway: the server, and each runner (whose agent has a token of ours), holds a shared lock on one file for as long as it lives.
 * When nobody has held it for a while the gateway is of no use any more; whoever begins to hold it in that time keeps it. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

struct users {
	int fd; /* -1: nobody told us; then it is never alone */
	int64_t linger_ms, alone_since_ms, look_ms; /* monotonic; alone_since 0: somebody is there */
};
#define USERS_INIT { .fd = -1 }

/* path NULL: there is no such file. */
MUST_USE enum err_code users_open(const char *path, int64_t linger_ms, struct users *ret, struct error *e);
void users_release(struct users *u);
int64_t users_next_ms(const struct users *u); /* when to look again; INT64_MAX: never */
/* True when nobody has been there for linger_ms: then it stays so, since the lock is ours until users_release. */
bool users_are_gone(struct users *u, int64_t now_ms);
