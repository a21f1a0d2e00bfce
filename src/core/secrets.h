/* Credentials for git hosts, by name: git:HOST[:PORT][/PATH] is a token or password for http(s) URLs, ssh:HOST[:PORT][/PATH] a private key.
 * The longest path that fits a URL wins; a stored one comes before the configuration's (`source.credentials`).  Stored ones are sealed in
 * the database and never shown again.  Each belongs to a project; those of the configuration to the default one.
 *
 * Every function may be called from any thread. */
#pragma once
#include "base/js.h"
#include "core/caller.h"
#include "source/credential.h"

struct core;
struct conf;

#define SECRET_NAME_MAX 512  /* bytes */
#define SECRETS_MAX_STORED 1000 /* of one project */

/* {secret, user?, known_hosts?} */
MUST_USE enum err_code core_secret_set(struct core *c, struct caller by, const char *name, const struct js *body, struct error *e);
MUST_USE enum err_code core_secret_remove(struct core *c, struct caller by, const char *name, struct error *e);
/* [{name, kind, from: stored|configuration, created_at?, created_by?}]; nothing of what is in them. */
MUST_USE enum err_code core_secrets(struct core *c, struct caller by, struct js **ret_list, struct error *e);

/* The one for a URL. */
struct secret {
	char *name;	       /* NULL: there is none */
	char fingerprint[33];  /* tells two credentials apart, and nothing else of them */
	struct credential credential; /* its texts are owned here */
	char *user, *text, *known_hosts;
};
MUST_USE enum err_code secret_find(struct core *c, const char *project, const char *url, struct secret *ret, struct error *e);
/* The path that a name is for, without slashes at its ends; "" for a whole host. The caller frees. */
char *secret_scope(const char *name);
void secret_release(struct secret *s); /* wipes */

/* The configuration's part, when it is loaded. */
MUST_USE enum err_code secret_check_config(const struct js *credentials, struct error *e);
