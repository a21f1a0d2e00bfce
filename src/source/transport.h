/* The roads to a repository.  http(s) is git's own.  For file and ssh we start the other end ourselves (git upload-pack as the
 * directory's owner; ssh as whoever started us, with their keys) and hand git the two pipes (git-remote-fd): so that a
 * root process reads as the owner and writes as the cache's user, and no URL ever reaches a command line's parser.
 * A host's name is resolved and judged here once; git and ssh are told the address (policy.h). */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include "base/js.h"
#include "source/credential.h"
#include "source/identity.h"
#include "source/policy.h"
#include "source/report.h"
#include "source/url.h"

#define TRANSPORT_LIST_TIMEOUT_MS ((int64_t)2 * 60 * 1000)
#define TRANSPORT_FETCH_TIMEOUT_MS ((int64_t)60 * 60 * 1000)
#define TRANSPORT_LIST_MAX ((size_t)128 << 20) /* bytes of ref names */

struct transport {
	const struct source_url *url;
	struct identity caller; /* who started us, for ssh */
	struct identity owner;	/* of a directory, for file; transport_find_owner */
	const struct js *rules; /* policy.h; NULL: the defaults */
	const struct credential *credential; /* NULL: none */
	const struct pin *pin;	/* from transport_resolve; NULL: our own scratch directory, for which there are no rules */
	struct report *report;
	const char *step; /* "clone" or "fetch", for the progress */
};

/* Once for all that follows: the rules, and where the host's name leads. */
MUST_USE enum err_code transport_resolve(const struct transport *t, struct pin *ret, struct error *e);
/* Who may read the directory of a file URL. Not found is said here. */
MUST_USE enum err_code transport_find_owner(const char *path, struct identity *ret, struct error *e);
/* Lines of `git ls-remote --symref`: HEAD, branches and tags, and `extra` (a full ref name) when not NULL. */
MUST_USE enum err_code transport_list(const struct transport *t, const char *extra, struct strbuf *ret, struct error *e);
/* `git fetch` into the bare repository `store`. options and refspecs are NULL-ended. */
MUST_USE enum err_code transport_fetch(const struct transport *t, const char *store, const char *const *options, const char *const *refspecs, struct error *e);
