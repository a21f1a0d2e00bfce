/* Bodies that are archives, for the files of this room. */
#pragma once
#include "api/api.h"

#define TASK_BODY_MAX ((size_t)4 << 20) /* a task as JSON, and the part of a form that is one */

extern const struct http_intake api_intakes[];
/* A task whose archive comes with it; false: the body is an ordinary one. */
bool api_post_form(struct http_request *r, struct api *a);
