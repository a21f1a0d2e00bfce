/* A git URL taken apart, and everything refused that is not plainly one of ours: file, http, https, ssh, host:path, /path.
 * Nothing is resolved or connected here. */
#pragma once
#include "base/err.h"

#define URL_LENGTH_MAX 4096 /* bytes */
#define REF_LENGTH_MAX 255  /* bytes */

enum url_kind { URL_FILE, URL_HTTP, URL_HTTPS, URL_SSH };

struct source_url {
	enum url_kind kind;
	char *text; /* as given; what git and people see */
	char *user; /* ssh only; NULL: none */
	char *host; /* lower case; NULL for URL_FILE; IPv6 without brackets */
	char *port; /* digits or NULL */
	char *path; /* decoded; absolute but for host:path */
};

MUST_USE enum err_code source_url_parse(const char *text, struct source_url *ret, struct error *e);
void source_url_release(struct source_url *u);
/* The same repository gives the same text: no user, no default port, no trailing slash or ".git". The caller frees. */
char *source_url_key(const struct source_url *u);

/* Branch, tag, commit, "HEAD" or full ref name: a name git itself would accept, and nothing that looks like an option or an expression. */
MUST_USE enum err_code source_ref_check(const char *ref, struct error *e);
/* Absolute, UTF-8, no control characters. */
MUST_USE enum err_code source_path_check(const char *path, struct error *e);
