/* Tasks and runs over HTTP. */
#include "api/api.h"
#include "api/idempotent.h"
#include "api/uploads.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdlib.h>
#include <string.h>

#define LIST_DEFAULT 50
#define LABELS_ASKED_MAX 32 /* of one list */

bool api_task_id(struct http_request *r, struct api *a, char ret_id[27])
{
	struct error e = ERROR_INIT;
	if (core_resolve(a->core, api_caller(r), http_param(r, "task"), http_query(r, "repo"), ret_id, &e) == ERR_OK)
		return true;
	http_reply_error(r, &e);
	return false;
}

/* A submit between its write and its answer; no thread of the server waits for the commit. */
struct posting {
	struct http_request *request;
	struct once once;
	struct submission *submission;
};

static void posting_free(void *arg)
{
	struct posting *p = arg;
	core_submission_free(p->submission);
	api_once_release(&p->once);
	free(p);
}

static void posting_answer(struct http_request *r, void *arg)
{
	struct posting *p = arg;
	struct error e = ERROR_INIT;
	char *task = NULL;
	enum err_code rc = core_submit_end(p->submission, &task, &e);
	api_once_answer_text(r, &p->once, rc, task, &e);
}

static void posting_is_written(void *arg)
{
	http_later_wake(((struct posting *)arg)->request);
}

void api_post_task(struct http_request *r, void *ctx)
{
	static const struct http_later_ops later = { posting_answer, posting_free };
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	if (api_post_form(r, a))
		return;
	struct once once = { .status = 201, .makes_task = true };
	struct submission *submission = NULL;
	const struct js *body = http_body_js(r, &e);
	if (body && !api_once_begin(r, a, &once))
		return;
	enum err_code rc = body ? core_submit_begin(a->core, api_caller(r), body, &submission, &e) : e.code;
	if (rc) {
		api_once_answer(r, &once, rc, NULL, &e);
		return;
	}
	struct posting *p = NEW(struct posting);
	*p = (struct posting){ r, once, submission };
	http_later(r, &later, p);
	core_submit_commit(submission, posting_is_written, p);
}

void api_list_tasks(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *list = NULL;
	const char *labels[LABELS_ASKED_MAX], *label;
	struct task_filter f = { .state = http_query(r, "state"), .q = http_query(r, "q"), .name = http_query(r, "name"), .after = http_query(r, "after"),
		.repo = http_query(r, "repo"), .labels = labels, .limit = LIST_DEFAULT };
	enum err_code rc = http_query_i64(r, "limit", 1, TASKS_PAGE_MAX, &f.limit, &e);
	while (!rc && (label = http_query_nth(r, "label", f.label_count)))
		if (f.label_count == LABELS_ASKED_MAX)
			rc = error_set(&e, ERR_INVALID, "more than %d labels are asked for", LABELS_ASKED_MAX);
		else
			labels[f.label_count++] = label;
	if (!rc)
		rc = core_tasks(a->core, api_caller(r), &f, &list, &e);
	http_reply_outcome(r, rc, 200, list, &e);
}

void api_get_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	AUTO_FREE char *text = NULL;
	if (core_task_text(a->core, api_caller(r), http_param(r, "task"), http_query(r, "repo"), &text, &e))
		http_reply_error(r, &e);
	else
		http_reply(r, 200, "application/json", text, strlen(text));
}

void api_delete_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	if (core_delete(a->core, api_caller(r), http_param(r, "task"), http_query(r, "repo"), &e))
		http_reply_error(r, &e);
	else
		http_reply(r, 204, NULL, "", 0);
}

void api_patch_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *task = NULL;
	const struct js *body = http_body_js(r, &e);
	enum err_code rc = body ? core_patch(a->core, api_caller(r), http_param(r, "task"), http_query(r, "repo"), body, &task, &e) : e.code;
	http_reply_outcome(r, rc, 200, task, &e);
}

/* cancel, retry and their like take no words; what is sent all the same is looked at. */
bool api_has_no_words(struct http_request *r)
{
	static const char *const none[] = { NULL };
	struct error e = ERROR_INIT;
	size_t n = 0;
	http_body(r, &n);
	const struct js *body = n ? http_body_js(r, &e) : NULL;
	if (!e.code && (!n || js_check_members(body, "", none, &e) == ERR_OK))
		return true;
	http_reply_error(r, &e);
	return false;
}

void api_cancel_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *task = NULL;
	char id[27];
	struct once once = { .status = 202, .task = id };
	if (!api_has_no_words(r) || !api_task_id(r, a, id) || !api_once_begin(r, a, &once))
		return;
	bool over = false;
	enum err_code rc = core_is_over(a->core, id, &over, &e);
	if (!rc && over) /* nothing is left to be canceled */
		once.status = 200;
	if (!rc)
		rc = (over ? core_task : core_cancel)(a->core, api_caller(r), id, NULL, &task, &e);
	api_once_answer(r, &once, rc, task, &e);
}

void api_retry_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *task = NULL;
	char id[27];
	struct once once = { .status = 202, .task = id };
	if (!api_has_no_words(r) || !api_task_id(r, a, id) || !api_once_begin(r, a, &once))
		return;
	enum err_code rc = core_retry(a->core, api_caller(r), id, NULL, &task, &e);
	api_once_answer(r, &once, rc, task, &e);
}

void api_list_runs(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *list = NULL;
	enum err_code rc = core_runs(a->core, api_caller(r), http_param(r, "task"), http_query(r, "repo"), &list, &e);
	http_reply_outcome(r, rc, 200, list, &e);
}

void api_get_run(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *run = NULL;
	enum err_code rc = core_run(a->core, api_caller(r), http_param(r, "run"), &run, &e);
	http_reply_outcome(r, rc, 200, run, &e);
}

void api_runner_events(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *reply = NULL;
	const struct js *body = http_body_js(r, &e);
	enum err_code rc = body ? core_ingest(a->core, http_param(r, "run"), api_bearer(r), body, &reply, &e) : e.code;
	http_reply_outcome(r, rc, 200, reply, &e);
}

void api_post_message(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *task = NULL;
	char id[27];
	struct once once = { .status = 202, .task = id };
	const struct js *body = http_body_js(r, &e);
	if (body && (!api_task_id(r, a, id) || !api_once_begin(r, a, &once)))
		return;
	enum err_code rc = body ? core_message(a->core, api_caller(r), id, NULL, body, &task, &e) : e.code;
	api_once_answer(r, &once, rc, task, &e);
}

void api_decide_gate(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *gate = NULL;
	struct once once = { .status = 200 };
	const struct js *body = http_body_js(r, &e);
	if (body && !api_once_begin(r, a, &once))
		return;
	enum err_code rc = body ? core_decide(a->core, api_caller(r), http_param(r, "gate"), body, &gate, &e) : e.code;
	api_once_answer(r, &once, rc, gate, &e);
}
