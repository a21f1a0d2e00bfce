/* Who submits a git URL proves that its repository may be read, with the credential that the server has for it.  What that finds (the
 * commit that the ref is) stands in the source from then on, and only then may the cache serve it without asking again. */
#pragma once
#include "base/js.h"

struct core;

/* Adds credential {name, fingerprint}, proven, commit, branch to a git source. A host that does not answer now leaves it unproven: then the
 * runner asks. Others are left alone. */
MUST_USE enum err_code proof_take(struct core *c, const char *project, struct js *source, struct error *e);
/* For a run's spec: the rules and the credential that its fetch gets. *ret_fd: the credential's descriptor, or -1. When another credential
 * fits by now, the proof of the old one does not count any more. */
MUST_USE enum err_code proof_equip(struct core *c, const char *project, struct js *spec, int *ret_fd, struct error *e);
