/* External tasks: the messages of their agents, checked whole before anything is changed. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/external_inside.h"
#include "source/source.h"
#include <stdlib.h>
#include <string.h>

struct message {
	struct core *core;
	struct caller by;
	const char *type, *task_id, *session, *title, *repo_url, *dir, *progress, *summary, *error;
	const struct js *result;
	char id[ID_SIZE];
	struct js *source;
	char *repo, *name;
	bool interrupt;
	struct outbox out;
};

static enum err_code check_text(const char *text, const char *member, size_t max, struct error *e)
{
	if (text && strlen(text) > max)
		return error_set(e, ERR_LIMIT, "%s: %zu bytes, at most %zu are allowed", member, strlen(text), max);
	return ERR_OK;
}

static enum err_code take_text(const struct js *o, const char *member, size_t max, const char **ret, struct error *e)
{
	enum err_code rc = js_want_str(o, "", member, ret, e);
	return rc ? rc : check_text(*ret, member, max, e);
}

static enum err_code need_text(const struct js *o, const char *member, size_t max, const char **ret, struct error *e)
{
	enum err_code rc = take_text(o, member, max, ret, e);
	if (!rc && str_empty(*ret))
		rc = error_set(e, ERR_INVALID, "%s: missing or empty", member);
	return rc;
}

/* Where it works: a repository's URL, a directory here, or nothing we know. */
static enum err_code take_source(struct message *m, const struct js *o, struct error *e)
{
	enum err_code rc = take_text(o, "repo", EXTERNAL_TEXT_MAX, &m->repo_url, e);
	if (!rc)
		rc = take_text(o, "dir", EXTERNAL_TEXT_MAX, &m->dir, e);
	if (!rc && m->repo_url && m->dir)
		rc = error_set(e, ERR_INVALID, "repo, dir: only one of them may be given");
	if (rc)
		return rc;
	m->source = js_object();
	js_set_str(m->source, "kind", m->repo_url ? "git" : m->dir ? "local" : "none");
	js_set_str(m->source, "url", m->repo_url);
	js_set_str(m->source, "dir", m->dir);
	if (!m->by.local && source_is_local(m->source))
		return error_set(e, ERR_DENIED, "the project '%s' may not name directories of the server's machine", m->by.project);
	rc = source_check(m->source, e);
	return rc ? rc : source_repo_key(m->source, &m->repo, e);
}

static enum err_code register_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct message *m = arg;
	struct external_birth b = { .project = m->by.project, .name = m->task_id, .session_id = m->session, .title = m->title, .progress = m->progress, .who = m->by.who, .source = m->source,
		.repo = m->repo };
	return external_insert(conn, &b, m->id, &m->out, e);
}

static enum err_code take_register(struct message *m, const struct js *o, struct error *e)
{
	enum err_code rc = need_text(o, "sessionId", EXTERNAL_ID_MAX, &m->session, e);
	if (!rc)
		rc = take_text(o, "name", EXTERNAL_ID_MAX, &m->title, e);
	if (!rc)
		rc = take_text(o, "progress", EXTERNAL_PROGRESS_MAX, &m->progress, e);
	if (!rc && (!str_is_name(m->task_id) || clock_is_id(m->task_id)))
		rc = error_set(e, ERR_INVALID, "taskId '%.80s': expected a letter or digit, then up to 63 of letters, digits, '.', '_' and '-'", m->task_id);
	if (!rc)
		rc = take_source(m, o, e);
	if (!rc && external_count(m->core) >= EXTERNAL_LIVE_MAX)
		rc = error_set(e, ERR_LIMIT, "%d external tasks live already, the limit", EXTERNAL_LIVE_MAX);
	if (!rc)
		rc = db_write(m->core->db, register_op, m, e);
	if (rc == ERR_CONFLICT) {
		error_set(e, ERR_CONFLICT, "the taskId '%s' is in use", m->task_id);
		e->hint[0] = 0;
		error_hint(e, "if it is yours, go on with heartbeat; else choose another, or `signalbox rm %s` when it has ended", m->task_id);
	}
	if (!rc)
		external_know(m->core, m->by.project, m->id, m->task_id, m->session, NULL, 0);
	return rc;
}

/* Why a message names nothing that lives here. */
static enum err_code explain_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct message *m = arg;
	AUTO_TASK struct task_row t = { 0 };
	enum err_code rc = task_find(conn, m->by.project, m->task_id, NULL, m->id, e);
	if (!rc)
		rc = task_load(conn, m->id, &t, e);
	if (rc)
		return rc;
	if (!external_is(&t))
		return error_set(e, ERR_CONFLICT, "task %s is run by Signalbox itself", m->task_id);
	if (phase_is_terminal(t.phase))
		return error_set(e, ERR_CONFLICT, "task %s has ended (%s%s%s)", m->task_id, phase_status(t.phase), t.reason ? ", " : "", t.reason ? t.reason : "");
	return error_set(e, ERR_CONFLICT, "task %s is of another session", m->task_id);
}

/* A message is a beat, too; ended tasks and strangers are refused. */
static enum err_code hear(struct message *m, struct error *e)
{
	switch (external_hear(m->core, m->by.project, m->task_id, m->session, m->id, &m->name, &m->interrupt)) {
	case HEARD:
		return ERR_OK;
	case HEARD_OF_FILE:
		return error_set(e, ERR_CONFLICT, "task %s: its state file speaks for it", m->task_id);
	case HEARD_NOBODY:
		break;
	}
	enum err_code rc = db_read(m->core->db, explain_op, m, e);
	return rc ? rc : ERR_CONFLICT;
}

static enum err_code progress_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct message *m = arg;
	return external_progress(conn, m->id, m->progress, m->by.who, &m->out, e);
}

static enum err_code take_beat(struct message *m, const struct js *o, struct error *e)
{
	bool progress = str_eq(m->type, "progress");
	enum err_code rc = progress ? need_text(o, "progress", EXTERNAL_PROGRESS_MAX, &m->progress, e) : take_text(o, "progress", EXTERNAL_PROGRESS_MAX, &m->progress, e);
	if (!rc)
		rc = hear(m, e);
	return rc || !m->progress ? rc : db_write(m->core->db, progress_op, m, e);
}

static enum err_code finish_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct message *m = arg;
	struct external_end end = { .to = PHASE_SUCCEEDED, .result = m->result, .summary = m->summary };
	if (str_eq(m->type, "error"))
		end = (struct external_end){ .to = PHASE_FAILED, .reason = "agent_failed", .error = m->error };
	if (str_eq(m->type, "canceled"))
		end = (struct external_end){ .to = PHASE_CANCELED, .reason = "canceled" };
	enum err_code rc = db_exec(conn, e, "UPDATE tasks SET beat_at=?2 WHERE id=?1", "si", m->id, clock_wall_ms()); /* its last word */
	return rc ? rc : external_finish(conn, m->id, &end, m->by.who, &m->out, e);
}

static enum err_code take_end(struct message *m, const struct js *o, struct error *e)
{
	enum err_code rc = take_text(o, "summary", EXTERNAL_TEXT_MAX, &m->summary, e);
	m->result = js_get(o, "result");
	if (!rc && m->result)
		rc = external_check_result(m->result, "result", e);
	if (!rc && str_eq(m->type, "error"))
		rc = need_text(o, "error", EXTERNAL_TEXT_MAX, &m->error, e);
	if (!rc)
		rc = hear(m, e);
	if (!rc)
		rc = db_write(m->core->db, finish_op, m, e);
	if (!rc)
		external_forget(m->core, m->id);
	return rc;
}

static const struct {
	const char *type;
	enum err_code (*take)(struct message *m, const struct js *o, struct error *e);
	const char *members[11];
} messages[] = {
	{ "register", take_register, { "type", "ref", "taskId", "sessionId", "name", "repo", "dir", "progress", NULL } },
	{ "heartbeat", take_beat, { "type", "ref", "taskId", "sessionId", "progress", NULL } },
	{ "progress", take_beat, { "type", "ref", "taskId", "sessionId", "progress", NULL } },
	{ "complete", take_end, { "type", "ref", "taskId", "sessionId", "result", "summary", NULL } },
	{ "error", take_end, { "type", "ref", "taskId", "sessionId", "error", NULL } },
	{ "canceled", take_end, { "type", "ref", "taskId", "sessionId", NULL } },
};

static enum err_code take_message(struct message *m, const struct js *o, struct error *e)
{
	enum err_code rc = js_want_str(o, "", "type", &m->type, e);
	size_t i = 0;
	while (i < ARRAY_SIZE(messages) && !str_eq(messages[i].type, m->type))
		i++;
	if (!rc && i == ARRAY_SIZE(messages)) {
		error_set(e, ERR_INVALID, "type '%.40s' is not known", m->type ? m->type : "");
		error_hint(e, "expected register, heartbeat, progress, complete, error or canceled");
		return ERR_INVALID;
	}
	if (!rc)
		rc = js_check_members(o, "", messages[i].members, e);
	if (!rc)
		rc = need_text(o, "taskId", EXTERNAL_ID_MAX, &m->task_id, e);
	if (!rc)
		rc = take_text(o, "sessionId", EXTERNAL_ID_MAX, &m->session, e);
	return rc ? rc : messages[i].take(m, o, e);
}

enum err_code core_external(struct core *c, struct caller by, const struct js *o, struct js **ret, struct error *e)
{
	struct message m = { .core = c, .by = by };
	enum err_code rc = take_message(&m, o, e);
	if (!rc) {
		bool lives = external_is_known(c, m.id);
		core_publish(c, &m.out);
		*ret = js_object();
		js_set_str(*ret, "task", m.id);
		js_set_str(*ret, "taskId", m.name ? m.name : m.task_id);
		js_set_bool(*ret, "live", lives);
		js_set_bool(*ret, "interrupt", lives && m.interrupt);
	}
	outbox_release(&m.out);
	js_free(m.source);
	free(m.repo);
	free(m.name);
	return rc;
}
