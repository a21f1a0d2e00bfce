/* Idempotency-Key: a request that was done is not done again, it is answered again.  What a key did is noted in the transaction that did it, by a
 * rider on the write, so neither is there without the other, through any crash and for any number of callers at once.
 *
 *   idem_begin --found--> idem_reply          (the same answer)
 *              --new----> the core's function --ERR_OK--> idem_keep(answer)
 *                                             --idem_lost_race--> idem_reply
 *   always idem_free at the end */
#pragma once
#include "core/core.h"

#define IDEM_KEY_MAX 255	      /* bytes */
#define IDEM_KEYS_MAX 1000000	      /* kept at once, all principals together; beyond: 429 */
#define IDEM_AGE_MS ((int64_t)86400000)

struct idem;
struct idem_request {
	struct caller by;
	const char *key, *method, *path;
	const void *body;
	size_t len;
	const char *task; /* the task that it is about, or NULL */
	bool makes_task;
	int status;	  /* of a success */
};

/* ERR_UNPROCESSABLE when the key was used for another request. *ret_found: it was done before. */
MUST_USE enum err_code idem_begin(struct core *c, const struct idem_request *q, struct idem **ret, bool *ret_found, struct error *e);
bool idem_lost_race(const struct idem *i); /* another caller's write with this key came first: ours was not made */
/* What it was answered; the caller frees. */
MUST_USE enum err_code idem_reply(struct idem *i, int *ret_status, char **ret_text, struct error *e);
void idem_keep(struct idem *i, const char *answer);
void idem_free(struct idem *i); /* NULL is fine */
