/* External tasks on disk: the heartbeat file in the task directory and, for an agent on the channel, in the repository it works in. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/external_inside.h"
#include "core/statefile.h"
#include <stdlib.h>

#define STATE_FILE_MAX ((size_t)1 << 20)

/* A file of that name that another program keeps is left alone; ours are known by their taskId, which is an id of ours. */
static bool may_write(const char *dir, const char *name)
{
	AUTO_FREE char *path = file_join(dir, name);
	AUTO_JS struct js *o = js_load(path, STATE_FILE_MAX, NULL);
	return !file_exists(path) || clock_is_id(js_str_or(o, "taskId", ""));
}

static void write_mirror(const struct task_row *t, const struct statefile *s)
{
	const char *repo = js_str(js_get(t->spec, "source"), "dir");
	struct error e = ERROR_INIT;
	if (!repo || js_str(js_get(t->spec, "external"), "file"))
		return;
	AUTO_FREE char *dir = mem_printf("%s/.codex/tasks", repo);
	AUTO_FREE char *name = mem_printf("%s.json", t->name);
	if (statefile_prepare_mirror(dir, &e) || (may_write(dir, name) && statefile_write(dir, name, NULL, s, &e)))
		log_debug("task %s: %s", t->id, e.text);
}

void external_write_state(struct core *c, const struct task_row *t, const char *dir)
{
	struct error e = ERROR_INIT;
	bool over = phase_is_terminal(t->phase);
	AUTO_JS struct js *result = over ? statefile_result(t->result) : NULL;
	AUTO_FREE char *at = file_join(dir, "agents/main");
	struct statefile s = { .task_id = t->id, .session_id = t->session_id, .status = statefile_status(phase_status(t->phase)), .progress = t->progress,
		.error = t->phase == PHASE_CANCELED ? "canceled" : t->error, .start_ms = t->started_at, .completed_ms = t->completed_at, .result = result,
		.heartbeat_ms = t->beat_at };
	(void)c;
	if (file_mkdirs(at, 0711, &e) || statefile_write(at, "state.json", NULL, &s, &e))
		log_warn("task %s: %s", t->id, e.text);
	write_mirror(t, &s);
}
