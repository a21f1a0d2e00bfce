/* The roads to a repository.  http(s) is git's own.  For file and ssh we start the other end ourselves (git upload-pack as the
 * directory's owner; ssh as whoever started us, with their keys) and hand git the two pipes (git-remote-fd): so that a
 * root process reads as the owner and writes as the cache's user, and no URL ever reaches a command line's parser. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include "source/identity.h"
#include "source/report.h"
#include "source/url.h"

#define TRANSPORT_LIST_TIMEOUT_MS ((int64_t)2 * 60 * 1000)
#define TRANSPORT_FETCH_TIMEOUT_MS ((int64_t)60 * 60 * 1000)
#define TRANSPORT_LIST_MAX ((size_t)128 << 20) /* bytes of ref names */

struct transport {
	const struct source_url *url;
	struct identity caller; /* who started us, for ssh */
	struct identity owner;	/* of a directory, for file; transport_find_owner */
	struct report *report;
	const char *step; /* "clone" or "fetch", for the progress */
};

/* Who may read the directory of a file URL. Not found is said here. */
MUST_USE enum err_code transport_find_owner(const char *path, struct identity *ret, struct error *e);
/* Lines of `git ls-remote --symref`: HEAD, branches and tags, and `extra` (a full ref name) when not NULL. */
MUST_USE enum err_code transport_list(const struct transport *t, const char *extra, struct strbuf *ret, struct error *e);
/* `git fetch` into the bare repository `store`. options and refspecs are NULL-ended. */
MUST_USE enum err_code transport_fetch(const struct transport *t, const char *store, const char *const *options, const char *const *refspecs, struct error *e);
