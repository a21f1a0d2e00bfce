/* A host's address: which network it is of, and whether it is written plainly. Nothing is resolved here. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include <stdbool.h>

struct sockaddr;

struct address { /* an IPv4 address that an IPv6 one only wraps (v4-mapped, NAT64) is taken out of it */
	bool is_v6;
	unsigned char bytes[16];
};

enum address_kind {
	ADDRESS_PUBLIC,
	ADDRESS_PRIVATE,  /* of somebody's own network */
	ADDRESS_LOOPBACK, /* this machine */
	ADDRESS_SPECIAL,  /* link-local, metadata services, multicast, tunnels, documentation, not assigned */
};

struct network {
	struct address base;
	int bits;
};

/* "192.0.2.1" or "2001:db8::1" and no other notation: no zone, no octal, no fewer than four numbers. */
bool address_parse(const char *text, struct address *ret);
bool address_from_sockaddr(const struct sockaddr *sa, struct address *ret);
/* Some resolver would read the name as a number: "0x7f.1", "2130706433", "127.0.0.1.". */
bool address_looks_numeric(const char *host);
enum address_kind address_kind(const struct address *a);
const char *address_kind_name(enum address_kind kind);
void address_add(struct strbuf *out, const struct address *a);

/* "10.0.0.0/8", "::1" */
MUST_USE enum err_code network_parse(const char *text, struct network *ret, struct error *e);
bool network_has(const struct network *n, const struct address *a);
