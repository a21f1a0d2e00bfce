/* The gateway's configuration: one JSON document, from a 0600 file or an inherited descriptor, never from argv or environment.
 *
 *	{"socket":"/run/x/model.sock", "control":"/run/x/gateway.sock", "key":"<base64url of 32 bytes>", "record_dir":"/data/model",
 *	 "uid":N, "gid":N, "default_provider":"openai",
 *	 "providers":{"openai":{"base_url":"https://api.openai.com/v1","key":"...","wire":"responses","model":"override, optional"}},
 *	 (wire: responses or messages; left out: whichever of them an agent asks for)
 *	 "hide":{"TASK":["secret", ...]}: what is kept out of the record from the first request on; no part of the hash
 *	 "limits":{"connect_ms":10000,"idle_ms":600000,"drain_ms":600000,"probe_ms":5000,"early_ms":20000,"linger_ms":60000}}
 *	 "users":"/run/x/gateway-users.lock": what server and runners hold as long as they live; it ends linger_ms after the last of them. Left out: never.
 *	 With it a run's record is the server's to make, and its token is good until that may not be written any more
 *
 * A struct config is immutable and counted: an exchange keeps the one it began with while HUP brings another. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include "model/token.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CONFIG_BYTES_MAX ((size_t)8 << 20)
#define CONFIG_PROVIDERS_MAX 64
#define CONFIG_HASH_BYTES 16
#define CONFIG_CONNECT_MS INT64_C(10000)
#define CONFIG_IDLE_MS INT64_C(600000)
#define CONFIG_DRAIN_MS INT64_C(600000)
#define CONFIG_PROBE_MS INT64_C(5000)  /* a silent stream gets a comment this often, so that a dead agent is noticed */
#define CONFIG_EARLY_MS INT64_C(20000) /* an upstream that has not answered by then: its 200 is given in advance, to be probed too */
#define CONFIG_LINGER_MS INT64_C(60000)
#define CONFIG_PROBE_MAX_MS INT64_C(20000) /* the agent's connection is closed after a minute of silence */
#define CONFIG_LIMIT_MAX_MS INT64_C(86400000)

enum wire { WIRE_ANY, WIRE_RESPONSES, WIRE_MESSAGES };

struct provider {
	char *name;
	enum wire wire; /* the API that it speaks */
	char *url;   /* what "/responses" or "/messages" is added to */
	char *host;  /* host[:port], for messages */
	char *key;   /* NULL: none is sent. Bearer for Responses, x-api-key for Messages */
	char *model; /* what every request asks for instead of its own; or NULL */
};

struct config {
	int references;
	char *socket, *control, *record_dir, *default_provider, *users; /* users may be NULL */
	unsigned char key[TOKEN_KEY_BYTES];
	bool drop_ids;
	uid_t uid;
	gid_t gid;
	int64_t connect_ms, idle_ms, drain_ms, probe_ms, early_ms, linger_ms;
	struct provider *providers;
	size_t provider_count;
	struct js *hide; /* {task: [texts]}, or NULL */
	char hash[CONFIG_HASH_BYTES * 2 + 1]; /* of the document's bytes, as they are without `hide` */
};

MUST_USE enum err_code config_load(const char *path, struct config **ret, struct error *e);
MUST_USE enum err_code config_load_fd(int fd, struct config **ret, struct error *e);
MUST_USE enum err_code config_parse(const char *text, size_t len, struct config **ret, struct error *e);
struct config *config_ref(struct config *c); /* the caller guards the pointer it comes from */
void config_forget_hidden(struct config *c); /* wipes `hide`, once it was told to the recorder */
void config_unref(struct config *c);	     /* NULL is fine; the last one wipes the keys */
const struct provider *config_provider(const struct config *c, const char *name); /* NULL name: the default */
/* Of the providers that a run may use, the one that speaks `wire`. A run that is bound to the default one may use another for an API that
 * the default does not speak: the first of the configuration. NULL: none. */
const struct provider *config_provider_for(const struct config *c, const char *name, enum wire wire);
