/* What each route takes and gives, beside the route table: from here come OpenAPI and the refusal of parameters that no route knows. */
#pragma once
#include "api/api.h"

enum doc_flags {
	DOC_IDEMPOTENT = 1, /* takes an Idempotency-Key */
	DOC_MERGE = 2,	    /* the body may also be called a merge patch */
};

/* Query parameters by name, several words; "name:kind" is another thing of the same name, "name*" may be given several times. */
struct api_doc {
	const char *method, *pattern;
	const char *id;	     /* operationId */
	const char *tag;
	const char *query;   /* NULL: none */
	const char *request; /* a schema's name, or a content type, or NULL */
	const char *answers; /* "201 Task", "200 TaskList", "204", "200 text/plain"; several: "200 Events, 200 text/event-stream" */
	unsigned flags;
	const char *details; /* more than the route's summary; may be NULL */
};

extern const struct api_doc api_docs[]; /* ends with method NULL; in the order of the route table */
struct query_doc {
	const char *name;    /* as in struct api_doc.query */
	const char *schema;  /* JSON */
	const char *summary;
};
extern const struct query_doc api_query_docs[]; /* ends with name NULL */

const struct api_doc *api_doc_of(const struct http_route *route); /* NULL: not written yet */
/* One word of a list "a b:x c*": false at the end. *ret_name has the name's length without what follows it. */
bool api_doc_word(const char **at, const char **ret_word, size_t *ret_len, size_t *ret_name);
/* Unknown parameters, and those given twice. */
MUST_USE enum err_code api_check_query(const struct http_request *r, struct error *e);
/* The OpenAPI document as text; the caller frees. */
char *api_openapi(void);
extern const char api_schemas_json[]; /* schemas.json, embedded at build */
extern const size_t api_schemas_json_len;
