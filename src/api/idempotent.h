/* Handlers of requests that make something: with an Idempotency-Key they are done once and answered again.
 *
 *	struct once once = { .status = 201, .makes_task = true };
 *	if (!api_once_begin(r, a, &once))
 *		return; // answered
 *	rc = core_...
 *	api_once_answer(r, &once, rc, body, &e); */
#pragma once
#include "api/api.h"
#include "core/idempotency.h"

struct once {
	int status; /* of a success */
	bool makes_task;
	const char *task; /* id of the task that it is about, or NULL */
	const char *body; /* what makes two requests the same; NULL: their bodies */
	size_t body_len;
	struct idem *idem; /* private */
};

bool api_once_begin(struct http_request *r, struct api *a, struct once *o);
void api_once_answer(struct http_request *r, struct once *o, enum err_code rc, struct js *body_taken, const struct error *e);
void api_once_answer_text(struct http_request *r, struct once *o, enum err_code rc, char *json_taken, const struct error *e);
void api_once_release(struct once *o); /* of a request that was never answered; else nothing is left to do */
