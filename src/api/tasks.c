/* Tasks and runs over HTTP. */
#include "api/api.h"
#include "base/cleanup.h"
#include <string.h>

#define LIST_DEFAULT 50

static void answer(struct http_request *r, enum err_code rc, int status, struct js *body_taken, const struct error *e)
{
	if (rc)
		http_reply_error(r, e);
	else
		http_reply_js(r, status, body_taken);
}

bool api_task_id(struct http_request *r, struct api *a, char ret_id[27])
{
	struct error e = ERROR_INIT;
	if (core_resolve(a->core, http_param(r, "task"), http_query(r, "repo"), ret_id, &e) == ERR_OK)
		return true;
	http_reply_error(r, &e);
	return false;
}

void api_post_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *task = NULL;
	const struct js *body = http_body_js(r, &e);
	enum err_code rc = body ? core_submit(a->core, http_principal(r), body, &task, &e) : e.code;
	answer(r, rc, 201, task, &e);
}

void api_list_tasks(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *list = NULL;
	struct task_filter f = { .state = http_query(r, "state"), .label = http_query(r, "label"), .after = http_query(r, "after"),
		.repo = http_query(r, "repo"), .limit = LIST_DEFAULT };
	enum err_code rc = http_query_i64(r, "limit", 1, TASKS_PAGE_MAX, &f.limit, &e);
	if (!rc)
		rc = core_tasks(a->core, &f, &list, &e);
	answer(r, rc, 200, list, &e);
}

void api_get_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	AUTO_FREE char *text = NULL;
	if (core_task_text(a->core, http_param(r, "task"), http_query(r, "repo"), &text, &e))
		http_reply_error(r, &e);
	else
		http_reply(r, 200, "application/json", text, strlen(text));
}

void api_delete_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	if (core_delete(a->core, http_principal(r), http_param(r, "task"), http_query(r, "repo"), &e))
		http_reply_error(r, &e);
	else
		http_reply(r, 204, NULL, "", 0);
}

void api_cancel_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *task = NULL;
	enum err_code rc = core_task(a->core, http_param(r, "task"), http_query(r, "repo"), &task, &e);
	if (!rc && js_str(task, "completed_at")) { /* nothing is left to be canceled */
		http_reply_js(r, 200, task);
		return;
	}
	js_free(task);
	task = NULL;
	if (!rc)
		rc = core_cancel(a->core, http_principal(r), http_param(r, "task"), http_query(r, "repo"), &task, &e);
	answer(r, rc, 202, task, &e);
}

void api_retry_task(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *task = NULL;
	enum err_code rc = core_retry(a->core, http_principal(r), http_param(r, "task"), http_query(r, "repo"), &task, &e);
	answer(r, rc, 202, task, &e);
}

void api_list_runs(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *list = NULL;
	enum err_code rc = core_runs(a->core, http_param(r, "task"), http_query(r, "repo"), &list, &e);
	answer(r, rc, 200, list, &e);
}

void api_get_run(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *run = NULL;
	enum err_code rc = core_run(a->core, http_param(r, "run"), &run, &e);
	answer(r, rc, 200, run, &e);
}

void api_runner_events(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *reply = NULL;
	const struct js *body = http_body_js(r, &e);
	enum err_code rc = body ? core_ingest(a->core, http_param(r, "run"), api_bearer(r), body, &reply, &e) : e.code;
	answer(r, rc, 200, reply, &e);
}

void api_post_message(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *task = NULL;
	const struct js *body = http_body_js(r, &e);
	enum err_code rc = body ? core_message(a->core, http_principal(r), http_param(r, "task"), http_query(r, "repo"), body, &task, &e) : e.code;
	answer(r, rc, 202, task, &e);
}

void api_list_gates(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *list = NULL;
	enum err_code rc = core_gates(a->core, http_query(r, "state"), &list, &e);
	answer(r, rc, 200, list, &e);
}

void api_decide_gate(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *gate = NULL;
	const struct js *body = http_body_js(r, &e);
	enum err_code rc = body ? core_decide(a->core, http_principal(r), http_param(r, "gate"), body, &gate, &e) : e.code;
	answer(r, rc, 200, gate, &e);
}
