/* An archive on its way to the server: announced, sent, gone on with when the connection broke. */
#pragma once
#include "cli/cli.h"

/* path "-": what comes on stdin. *ret_id is the upload's, whole; the caller frees. */
MUST_USE enum err_code upload_archive(struct cli *c, const char *path, char **ret_id, struct error *e);
