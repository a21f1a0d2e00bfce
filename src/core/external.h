/* Tasks that Signalbox did not start: agents elsewhere that tell how they fare, over the real-time channel, over HTTP, or by the state
 * files that they keep in a repository's .codex/tasks.
 *
 *   channel, POST --core_external--> row, events       .codex/tasks/<name>.json --every 10 s--> row, events (the file is never written)
 *   scheduler's tick --external_tick--> whoever was silent for longer than limits.heartbeat_timeout ends as lost
 *
 * Such a task has a row and a log like others, spec.external, no run and no queue row; it is in phase running from its registration.
 * Beats are kept in memory with the monotonic clock; after a restart of the server each gets a whole new limit. */
#pragma once
#include "base/js.h"
#include "core/caller.h"

struct core;
struct task_row;

#define EXTERNAL_LIVE_MAX 4096		/* at once */
#define EXTERNAL_ID_MAX ((size_t)256)	/* bytes of a session's id, a title */
#define EXTERNAL_PROGRESS_MAX ((size_t)1024)
#define EXTERNAL_TEXT_MAX ((size_t)16384) /* of a summary or an error */
#define EXTERNAL_CHANGED_MAX 10000	/* files in a result */
#define EXTERNAL_SCAN_MS 10000
#define EXTERNAL_DIRS_MAX 256		/* repositories that are looked at */
#define EXTERNAL_FILES_MAX 1024		/* state files followed, all together; in one directory a quarter of it */
#define EXTERNAL_FILE_BYTES ((size_t)256 << 10)
#define EXTERNAL_FILE_AGE_MS ((int64_t)24 * 3600 * 1000) /* a file older than this when it is first seen is history, and left alone */

MUST_USE enum err_code external_start(struct core *c, struct error *e);
void external_stop(struct core *c);
void external_tick(struct core *c);
bool external_is(const struct task_row *t);
void external_metrics(struct core *c, struct strbuf *out);
void external_write_state(struct core *c, const struct task_row *t, const char *dir); /* the record's thread, for taskdir.c */
void external_asked_to_end(struct core *c, const char *task_id); /* somebody canceled it: its agent shall hear of it */

/* One message of an agent: {"type": "register"|"heartbeat"|"progress"|"complete"|"error"|"canceled", "taskId", ...}; see doc/channel.md.
 * *ret: {"task", "taskId", "status", "interrupt"}. Refused messages change nothing. */
MUST_USE enum err_code core_external(struct core *c, struct caller by, const struct js *message, struct js **ret, struct error *e);
/* False when the task is not alive any more (or never was one of these); *ret_interrupt: it was asked to end. */
bool core_external_look(struct core *c, const char *task_id, bool *ret_interrupt);
/* {"data": [those that live], "findings": [{file, finding}], "findings_total"}; who asks has the state files looked at, too.
 * State files belong to the default project. */
struct js *core_externals(struct core *c, struct caller by);
