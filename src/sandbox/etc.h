/* The few files of /etc inside: our own, never the host's, but for name resolution when the host's network is shared. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include <stdbool.h>

#define ETC_FILE_MAX ((size_t)256 << 10)

struct etc_file {
	const char *path;		 /* inside */
	const char *text;		 /* its whole text, or NULL: */
	const char *host_path;		 /* copied from the host when the network is shared; absent there: absent inside */
	bool net_only, offline_only;
};

extern const struct etc_file etc_files[]; /* ends with path NULL */
extern const char *const etc_shared[];	  /* directories and files of the host that are bound read-only when they exist */
extern const char *const etc_shared_net[];

/* The text of one file for a host name and shell; ERR_NOT_FOUND when the host does not have it. */
MUST_USE enum err_code etc_text(const struct etc_file *file, const char *hostname, struct strbuf *out, struct error *e);
