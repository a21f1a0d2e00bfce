/* Archives that people send: received piece by piece into a file, durable before they are acknowledged, kept until nobody has used them
 * for a while.
 *
 *   DATA/uploads/ID.json  what was said of it (name, size, who, when)    ID.part  what has come so far    ID.data  all of it
 *
 * The renaming to ID.data is what makes an upload whole; only whole ones can become a task's source. */
#pragma once
#include "core/core.h"

#define UPLOAD_NAME_MAX ((size_t)255)			 /* bytes of the name that people see */
#define UPLOAD_FREE_BYTES ((int64_t)256 << 20)		 /* stay free on the disk, whatever is sent */
#define UPLOAD_FLUSH_BYTES ((int64_t)8 << 20)		 /* are given to the disk at a time, so that the end need not wait for all */
#define UPLOAD_BLOCK ((size_t)128 << 10)		 /* what comes in smaller pieces is gathered up to it */
#define UPLOAD_TIME_MAX_MS ((int64_t)6 * 3600 * 1000)	 /* of one request */

struct upload;

struct upload_ask {
	struct caller by;
	const char *name; /* may be NULL */
	int64_t size;		/* of all of it; -1: not known */
	bool later;		/* nothing comes yet: the pieces are sent by further requests */
};

/* Too many, too often: ERR_LIMIT; too large: ERR_TOO_LARGE; no room on the disk: ERR_FULL. */
MUST_USE enum err_code upload_begin(struct core *c, const struct upload_ask *ask, struct upload **ret, struct error *e);
/* Goes on at `offset`, which must be where it stands; ERR_CONFLICT says where that is. */
MUST_USE enum err_code upload_resume(struct core *c, struct caller by, const char *id, int64_t offset, int64_t length, struct upload **ret, struct error *e);
MUST_USE enum err_code upload_write(struct upload *u, const char *data, size_t n, struct error *e);
/* What has come is on disk when this returns; whole, when all has come. *ret is what people see of it. */
MUST_USE enum err_code upload_finish(struct upload *u, struct js **ret, struct error *e);
void upload_close(struct upload *u); /* NULL is fine; what was not finished and cannot be resumed is removed */
const char *upload_id(const struct upload *u);

MUST_USE enum err_code upload_get(struct core *c, struct caller by, const char *id, struct js **ret, struct error *e);
MUST_USE enum err_code upload_list(struct core *c, struct caller by, struct js **ret, struct error *e);
MUST_USE enum err_code upload_delete(struct core *c, struct caller by, const char *id, struct error *e);
/* For a task: a descriptor of the whole file, and what is known of it. Counts as a use. */
MUST_USE enum err_code upload_open(struct core *c, struct caller by, const char *id, int *ret_fd, struct js **ret, struct error *e);

MUST_USE enum err_code uploads_start(struct core *c, struct error *e); /* what a killed server was receiving at once, and could not be resumed, is removed */
void uploads_sweep(struct core *c);  /* those that are too old, unless a task that lives is of them */
void uploads_stop(struct core *c);
void uploads_metrics(struct core *c, struct strbuf *out);
