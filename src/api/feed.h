/* A log as a stream, by cursor: of one task, or of all.  Included in this room alone. */
#pragma once
#include "api/api.h"
#include "core/feed.h"

#define FEED_LAG_MS 20000 /* a reader that does not take what it was given for so long is told `lagged` and let go */

/* Answers with a stream of the task's lines after that seq, or (task NULL) of all tasks' lines after that number. */
void feed_reply(struct http_request *r, struct api *a, const char *task, int64_t after, bool sse);
