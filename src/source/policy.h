/* Which URLs may be fetched from.  The rules are the server's (`source` in its configuration) and travel with each job; what they do
 * not say is refused.
 *
 *   schemes: [https, http, ssh]   file has to be named      allow_hosts, deny_hosts: [github.com, "*.corp.example"]   deny wins
 *   private: false | true | [10.1.0.0/16, ::1]   true: loopback and private networks, not link-local or metadata addresses
 *   user_keys: true    ssh without a stored key uses those of whoever runs the server
 *   ssh_config: false  ... and reads ~/.ssh/config, which then decides where a host is
 *
 * A name is resolved once, every address it has is judged, and the connection is pinned to those. */
#pragma once
#include "base/js.h"
#include "source/url.h"

#define POLICY_ADDRESSES_MAX 16 /* of one name; more are not used */

/* The rules themselves, from a configuration. */
MUST_USE enum err_code policy_check_rules(const struct js *rules, struct error *e);
/* What can be said without asking anybody: the scheme, the name, a literal address. `rules` may be NULL: the defaults. */
MUST_USE enum err_code policy_check_url(const struct js *rules, const struct source_url *u, struct error *e);

struct pin {
	char *addresses[POLICY_ADDRESSES_MAX]; /* in the order to try; IPv6 without brackets */
	size_t n;			       /* 0: a proxy resolves the name */
	bool is_loopback;		       /* all of them */
};
/* policy_check_url, then the name's addresses. ERR_UNREACHABLE when it has none. */
MUST_USE enum err_code policy_resolve(const struct js *rules, const struct source_url *u, struct pin *ret, struct error *e);
void pin_release(struct pin *p);
