/* Idempotency-Key over HTTP. */
#include "api/idempotent.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include <stdlib.h>
#include <string.h>

static void repeat_answer(struct http_request *r, struct idem *idem)
{
	AUTO_FREE char *text = NULL;
	struct error e = ERROR_INIT;
	int status = 200;
	if (idem_reply(idem, &status, &text, &e)) {
		http_reply_error(r, &e);
		return;
	}
	http_reply_header(r, "Idempotent-Replayed", "true");
	http_reply(r, status, "application/json", text, strlen(text));
}

bool api_once_begin(struct http_request *r, struct api *a, struct once *o)
{
	const char *key = http_header(r, "Idempotency-Key");
	struct error e = ERROR_INIT;
	bool found = false;
	if (!key)
		return true;
	const char *repo = http_query(r, "repo");
	AUTO_FREE char *path = mem_printf("%s?repo=%s", http_path(r), repo ? repo : "");
	struct idem_request q = { .by = api_caller(r), .key = key, .method = http_method(r), .path = path, .task = o->task, .makes_task = o->makes_task, .status = o->status };
	q.body = o->body ? o->body : http_body(r, &q.len);
	if (o->body)
		q.len = o->body_len;
	if (idem_begin(a->core, &q, &o->idem, &found, &e)) {
		http_reply_error(r, &e);
		return false;
	}
	if (!found)
		return true;
	repeat_answer(r, o->idem);
	idem_free(o->idem);
	return false;
}

void api_once_answer_text(struct http_request *r, struct once *o, enum err_code rc, char *json_taken, const struct error *e)
{
	if (rc && idem_lost_race(o->idem)) {
		repeat_answer(r, o->idem);
	} else if (rc) {
		http_reply_error(r, e);
	} else {
		if (o->idem)
			idem_keep(o->idem, json_taken);
		http_reply_json(r, o->status, json_taken);
	}
	api_once_release(o);
}

void api_once_answer(struct http_request *r, struct once *o, enum err_code rc, struct js *body_taken, const struct error *e)
{
	api_once_answer_text(r, o, rc, rc ? NULL : js_dump(body_taken), e);
	js_free(body_taken);
}

void api_once_release(struct once *o)
{
	idem_free(TAKE_PTR(o->idem));
}
