/* Uploads over HTTP: one body, pieces from an offset on, or a part of the form that also brings the task.
 *
 *   POST /v1/uploads                 the archive as the body
 *   POST /v1/uploads?size=N          only announced; then PATCH /v1/uploads/ID?offset=M with pieces, HEAD tells how far it is
 *   POST /v1/tasks (multipart)       the parts `task` (JSON) and `archive`, in either order */
#include "api/idempotent.h"
#include "api/uploads.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/uploads.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct receive { /* of one request */
	struct http_request *request;
	struct api *api;
	struct upload *upload;
	struct http_parts *parts; /* of a form; then also: */
	struct strbuf task;
	bool in_task, in_archive, task_seen, archive_seen;
};

static struct receive *receive_new(struct http_request *r, struct api *a)
{
	struct receive *v = NEW(struct receive);
	v->request = r;
	v->api = a;
	v->task.max = TASK_BODY_MAX;
	return v;
}

static void receive_free(void *state)
{
	struct receive *v = state;
	http_parts_close(v->parts);
	upload_close(v->upload);
	strbuf_release(&v->task);
	free(v);
}

static enum err_code receive_take(void *state, const char *data, size_t n, struct error *e)
{
	struct receive *v = state;
	return v->parts ? http_parts_feed(v->parts, data, n, e) : upload_write(v->upload, data, n, e);
}

static enum err_code begin_upload(struct receive *v, const char *name, int64_t size, bool later, struct error *e)
{
	const struct upload_ask ask = { .by = api_caller(v->request), .name = name, .size = size, .later = later };
	return upload_begin(v->api->core, &ask, &v->upload, e);
}

static int64_t size_of(uint64_t declared)
{
	return declared > INT64_MAX ? -1 : (int64_t)declared;
}

/* ---- one body ---- */

static enum err_code post_begin(struct http_request *r, void *ctx, uint64_t declared, void **ret, struct error *e)
{
	if (http_query(r, "size")) /* only announced: no body */
		return ERR_OK;
	if (declared == 0) {
		error_set(e, ERR_INVALID, "the body is empty");
		error_hint(e, "send the archive as the body, or announce its size: POST /v1/uploads?size=BYTES");
		return ERR_INVALID;
	}
	struct receive *v = receive_new(r, ctx);
	enum err_code rc = begin_upload(v, http_query(r, "name"), size_of(declared), false, e);
	if (rc)
		receive_free(v);
	else
		*ret = v;
	return rc;
}

static void set_offset(struct http_request *r, const struct js *upload)
{
	const struct { const char *name; int64_t v; } headers[] = { { "Upload-Offset", js_i64(upload, "received", 0) }, { "Upload-Length", js_i64(upload, "size", 0) } };
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
		AUTO_FREE char *text = mem_printf("%lld", (long long)headers[i].v);
		http_reply_header(r, headers[i].name, text);
	}
}

static void answer_finish(struct http_request *r, struct receive *v, int status)
{
	struct error e = ERROR_INIT;
	struct js *upload = NULL;
	enum err_code rc = upload_finish(v->upload, &upload, &e);
	upload_close(TAKE_PTR(v->upload)); /* before the answer: the next piece may come at once */
	if (rc) {
		http_reply_error(r, &e);
		return;
	}
	set_offset(r, upload);
	http_reply_js(r, status, upload);
}

void api_post_upload(struct http_request *r, void *ctx)
{
	struct receive *v = http_intake_state(r);
	struct error e = ERROR_INIT;
	int64_t size = 0;
	if (v) {
		answer_finish(r, v, 201);
		return;
	}
	v = receive_new(r, ctx);
	enum err_code rc = http_query_i64(r, "size", 1, INT64_MAX / 4, &size, &e);
	if (!rc)
		rc = begin_upload(v, http_query(r, "name"), size, true, &e);
	if (rc)
		http_reply_error(r, &e);
	else
		answer_finish(r, v, 201);
	receive_free(v);
}

/* ---- pieces ---- */

static enum err_code patch_begin(struct http_request *r, void *ctx, uint64_t declared, void **ret, struct error *e)
{
	const char *header = http_header(r, "Upload-Offset");
	int64_t offset = -1;
	enum err_code rc = header ? str_to_i64(header, "Upload-Offset", 0, INT64_MAX / 4, &offset, e) : ERR_OK;
	if (!rc)
		rc = http_query_i64(r, "offset", 0, INT64_MAX / 4, &offset, e);
	if (rc)
		return rc;
	if (offset < 0) {
		error_set(e, ERR_INVALID, "the offset is missing");
		error_hint(e, "PATCH /v1/uploads/ID?offset=BYTES; HEAD tells how far it is");
		return ERR_INVALID;
	}
	struct receive *v = receive_new(r, ctx);
	rc = upload_resume(v->api->core, api_caller(r), http_param(r, "upload"), offset, size_of(declared), &v->upload, e);
	if (rc)
		receive_free(v);
	else
		*ret = v;
	return rc;
}

void api_patch_upload(struct http_request *r, void *ctx UNUSED)
{
	answer_finish(r, http_intake_state(r), 200);
}

/* ---- the form ---- */

static enum err_code switch_part(struct receive *v, const char *name, const char *filename, struct error *e)
{
	v->in_task = str_eq(name, "task");
	v->in_archive = str_eq(name, "archive");
	if (!v->in_task && !v->in_archive)
		return error_set(e, ERR_INVALID, "the form has a part '%.40s'; expected task and archive", name);
	if (v->in_task ? v->task_seen : v->archive_seen)
		return error_set(e, ERR_INVALID, "the form has two parts '%s'", name);
	v->task_seen = v->task_seen || v->in_task;
	v->archive_seen = v->archive_seen || v->in_archive;
	return v->in_archive ? begin_upload(v, filename, -1, false, e) : ERR_OK;
}

static enum err_code on_part(void *ctx, const char *name, const char *filename, bool begins, const char *data, size_t n, struct error *e)
{
	struct receive *v = ctx;
	enum err_code rc = begins ? switch_part(v, name, filename, e) : ERR_OK;
	if (rc || v->in_archive)
		return rc ? rc : upload_write(v->upload, data, n, e);
	strbuf_add(&v->task, data, n);
	return v->task.over ? error_set(e, ERR_TOO_LARGE, "the part 'task' is larger than the limit of %zu bytes", TASK_BODY_MAX) : ERR_OK;
}

static enum err_code form_begin(struct http_request *r, void *ctx, uint64_t declared UNUSED, void **ret, struct error *e)
{
	if (!http_is_multipart(r))
		return ERR_OK;
	struct receive *v = receive_new(r, ctx);
	enum err_code rc = http_parts_open(r, on_part, v, &v->parts, e);
	if (rc)
		receive_free(v);
	else
		*ret = v;
	return rc;
}

static struct js *read_task(struct receive *v, struct error *e)
{
	if (http_parts_finish(v->parts, e))
		return NULL;
	if (!v->task_seen || !v->archive_seen) {
		error_set(e, ERR_INVALID, "the form has no part '%s'", v->task_seen ? "archive" : "task");
		return NULL;
	}
	struct js *body = js_parse(strbuf_str(&v->task), v->task.len, e);
	if (!body) {
		error_wrap(e, "the part 'task'");
		return NULL;
	}
	const struct js *source = js_get(body, "source");
	bool fits = js_type(body) == JS_OBJECT && (!source || (str_eq(js_str(source, "kind"), "archive") && !js_get(source, "upload")));
	if (fits)
		return body;
	error_set(e, ERR_INVALID, "the part 'task' is no object, or names another source than the form's archive");
	js_free(body);
	return NULL;
}

static void name_upload(struct js *body, const char *id)
{
	if (!js_get(body, "source"))
		js_set(body, "source", js_object());
	js_set_str(js_get(body, "source"), "kind", "archive");
	js_set_str(js_get(body, "source"), "upload", id);
}

/* Durable first, then the task; an upload that no task came of is not kept. */
static void post_form(struct http_request *r, struct api *a, struct receive *v)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *body = read_task(v, &e), *upload = NULL;
	char *task = NULL;
	struct once once = { .status = 201, .makes_task = true, .body = strbuf_str(&v->task), .body_len = v->task.len };
	if (!body) {
		http_reply_error(r, &e);
		return;
	}
	if (!api_once_begin(r, a, &once))
		return;
	enum err_code rc = upload_finish(v->upload, &upload, &e);
	AUTO_FREE char *id = mem_strdup(upload_id(v->upload));
	if (!rc) {
		upload_close(TAKE_PTR(v->upload));
		name_upload(body, id);
		rc = core_submit(a->core, api_caller(r), body, &task, &e);
		if (rc && upload_delete(a->core, api_caller(r), id, NULL) != ERR_OK)
			error_hint(&e, "upload %s is kept", id);
	}
	api_once_answer_text(r, &once, rc, task, &e);
}

bool api_post_form(struct http_request *r, struct api *a)
{
	struct receive *v = http_intake_state(r);
	if (v)
		post_form(r, a, v);
	return v;
}

/* ---- looking, removing ---- */

void api_get_upload(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *upload = NULL;
	if (upload_get(a->core, api_caller(r), http_param(r, "upload"), &upload, &e)) {
		http_reply_error(r, &e);
		return;
	}
	set_offset(r, upload);
	http_reply_header(r, "Cache-Control", "no-store");
	http_reply_js(r, 200, upload);
}

void api_list_uploads(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	struct js *list = NULL;
	if (upload_list(a->core, api_caller(r), &list, &e))
		http_reply_error(r, &e);
	else
		http_reply_js(r, 200, list);
}

void api_delete_upload(struct http_request *r, void *ctx)
{
	struct api *a = ctx;
	struct error e = ERROR_INIT;
	if (upload_delete(a->core, api_caller(r), http_param(r, "upload"), &e))
		http_reply_error(r, &e);
	else
		http_reply(r, 204, NULL, "", 0);
}

const struct http_intake api_intakes[] = {
	{ api_post_upload, post_begin, receive_take, receive_free },
	{ api_patch_upload, patch_begin, receive_take, receive_free },
	{ api_post_task, form_begin, receive_take, receive_free },
	{ .handle = NULL },
};
