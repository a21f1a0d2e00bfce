/* The model gateway: the only door from a sandbox to a model.  A process of its own that outlives the server.
 *
 *	agent --run token--> [unix socket] gateway --provider key--> provider
 *
 * `signalbox gateway --config FILE | --config-fd N`.  It puts in the key, counts, records, limits; see gateway/config.h for the
 * configuration.  TERM drains (no new requests; running ones may finish), a second TERM ends at once, HUP reads FILE again.
 * argv[0] is the verb; returns the exit status. */
#pragma once
#include "base/opt.h"

#define GATEWAY_BODY_MAX ((size_t)32 << 20)    /* an agent's request */
#define GATEWAY_SANDBOX_CONNECTIONS_MAX 192    /* of one sandbox; more than its forwarder makes, since agents may dial themselves */
#define GATEWAY_RUN_ACTIVE_MAX 16	       /* exchanges of one run at a time */
#define GATEWAY_RETRY_AFTER_MAX_S 60	       /* a provider that asks for more is asked again all the same */
#define GATEWAY_RETRY_AFTER_MAX "60"
#define GATEWAY_ERROR_BODY_MAX ((size_t)64 << 10) /* of an upstream's error that must be told inside a stream */

extern const struct opt gateway_options[];
int gateway_main(int argc, char **argv);
