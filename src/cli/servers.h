/* The servers that one has logged in to: names, URLs and tokens in $XDG_CONFIG_HOME/signalbox/servers.json (0600), and which of them is meant
 * when nothing else is said.  LOCAL_SERVER is one's own, on its socket. */
#pragma once
#include "base/js.h"
#include <stdbool.h>

#define LOCAL_SERVER "local"

char *servers_path(void); /* the caller frees */
/* {current: NAME|null, servers: {NAME: {url, token}}}; no file is an empty one. A file that others can read is refused. */
MUST_USE enum err_code servers_load(struct js **ret, struct error *e);
MUST_USE enum err_code servers_save(const struct js *all, struct error *e);
const char *servers_current(const struct js *all); /* LOCAL_SERVER when none was chosen */
struct js *servers_get(const struct js *all, const char *name); /* borrowed, or NULL */
struct js *servers_by_url(const struct js *all, const char *url); /* borrowed, or NULL */
/* As it is kept: https:// put before a bare name, no slash at the end; ERR_USAGE when it cannot be one. */
MUST_USE enum err_code servers_check_url(const char *text, char **ret, struct error *e);
