/* Bodies that go somewhere else than memory, piece by piece as they come: uploads, and the parts of a multipart form. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/http.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PARTS_BUFFER ((size_t)64 << 10) /* heads of parts, and what is looked at for the boundary */

static const struct http_intake *intake_of(const struct http_request *r)
{
	for (const struct http_intake *i = r->server->cfg.intakes; i && i->handle; i++)
		if (i->handle == r->route->handle)
			return i;
	return NULL;
}

void intake_begin(struct http_request *r, uint64_t declared)
{
	const struct http_intake *intake = intake_of(r);
	struct error e = ERROR_INIT;
	enum err_code rc = intake ? intake->begin(r, r->server->cfg.ctx, declared, &r->intake_state, &e) : ERR_OK;
	if (rc)
		*request_refuse(r, r->error_status ? r->error_status : err_http_status(rc)) = e;
	else if (r->intake_state)
		r->intake = intake;
}

void intake_take(struct http_request *r, const char *data, size_t n)
{
	struct error e = ERROR_INIT;
	enum err_code rc = r->intake->take(r->intake_state, data, n, &e);
	if (!rc) {
		r->intake_bytes += n;
		return;
	}
	*request_refuse(r, r->error_status ? r->error_status : err_http_status(rc)) = e;
	r->intake->free(TAKE_PTR(r->intake_state)); /* the rest is only read off */
}

/* Over the limit of what is read off for politeness after a refusal. */
bool intake_is_over(const struct http_request *r)
{
	return r->refusal && r->body_seen - r->intake_bytes > HTTP_INTAKE_DISCARD_MAX;
}

void intake_end(struct http_request *r)
{
	if (r->intake && r->intake_state)
		r->intake->free(TAKE_PTR(r->intake_state));
}

void *http_intake_state(const struct http_request *r)
{
	return r->intake ? r->intake_state : NULL;
}

/* ---- multipart/form-data ---- */

struct http_parts {
	struct MHD_PostProcessor *processor;
	http_part_fn *fn;
	void *ctx;
	struct error error;
};

bool http_is_multipart(const struct http_request *r)
{
	const char *type = http_header(r, "Content-Type");
	static const char multipart[] = "multipart/form-data";
	return type && strncasecmp(type, multipart, strlen(multipart)) == 0;
}

static enum MHD_Result on_part(void *arg, enum MHD_ValueKind kind, const char *key, const char *filename, const char *content_type,
	const char *transfer_encoding, const char *data, uint64_t offset, size_t n)
{
	(void)kind, (void)content_type, (void)transfer_encoding;
	struct http_parts *p = arg;
	enum err_code rc = p->fn(p->ctx, key ? key : "", filename, offset == 0, data, n, &p->error);
	return rc ? MHD_NO : MHD_YES;
}

enum err_code http_parts_open(struct http_request *r, http_part_fn *fn, void *ctx, struct http_parts **ret, struct error *e)
{
	struct http_parts *p = NEW(struct http_parts);
	p->fn = fn;
	p->ctx = ctx;
	p->processor = MHD_create_post_processor(r->connection, PARTS_BUFFER, on_part, p);
	if (p->processor) {
		*ret = p;
		return ERR_OK;
	}
	free(p);
	return error_set(e, ERR_INVALID, "the multipart body names no boundary");
}

enum err_code http_parts_feed(struct http_parts *p, const char *data, size_t n, struct error *e)
{
	if (MHD_post_process(p->processor, data, n) == MHD_YES && !p->error.code)
		return ERR_OK;
	if (!p->error.code)
		error_set(&p->error, ERR_INVALID, "the multipart body is not well formed");
	if (e)
		*e = p->error;
	return p->error.code;
}

enum err_code http_parts_finish(struct http_parts *p, struct error *e)
{
	enum MHD_Result whole = MHD_destroy_post_processor(TAKE_PTR(p->processor));
	if (whole != MHD_YES)
		return error_set(e, ERR_INVALID, "the multipart body ends before its last boundary");
	return ERR_OK;
}

void http_parts_close(struct http_parts *p)
{
	if (p && p->processor)
		MHD_destroy_post_processor(p->processor);
	free(p);
}
