/* Finding tasks and saying what they are. */
#include "cli/remote.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/server.h"
#include "cli/text.h"
#include "source/source.h"

/* How each status looks from outside. */
static const struct {
	const char *status;
	bool over;
	int exit;
	enum colour colour;
} statuses[] = {
	{ "DONE", true, EXIT_DONE, COLOUR_GREEN },	   { "ERROR", true, EXIT_ERROR, COLOUR_RED },
	{ "TIMEOUT", true, EXIT_TIMEOUT, COLOUR_RED },	   { "CANCELED", true, EXIT_CANCELED, COLOUR_YELLOW },
	{ "WAITING", false, EXIT_HUMAN, COLOUR_YELLOW },   { "RUNNING", false, EXIT_WAIT_OVER, COLOUR_BLUE },
	{ "QUEUED", false, EXIT_WAIT_OVER, COLOUR_NONE },  { "PENDING", false, EXIT_WAIT_OVER, COLOUR_NONE },
};
/* Reasons of an ERROR that mean: the runner was lost. */
static const char *const lost_reasons[] = { "heartbeat_timeout", "lost", "runner_lost" };

char *remote_path(const char *id, const char *suffix)
{
	AUTO_STRBUF struct strbuf path = STRBUF_INIT;
	strbuf_adds(&path, "/v1/tasks/");
	str_add_urlenc(&path, id);
	strbuf_adds(&path, suffix);
	return strbuf_detach(&path);
}

const char *remote_id(const struct js *task)
{
	return js_str_or(task, "id", "");
}

const char *remote_label(const struct js *task)
{
	return js_str_or(task, "name", remote_id(task));
}

const char *remote_status(const struct js *task)
{
	return js_str_or(task, "status", "PENDING");
}

static size_t status_index(const struct js *task)
{
	size_t i = 0;
	while (i < ARRAY_SIZE(statuses) - 1 && !str_eq(statuses[i].status, remote_status(task)))
		i++;
	return i;
}

bool remote_is_over(const struct js *task)
{
	return statuses[status_index(task)].over;
}

bool remote_is_waiting(const struct js *task)
{
	return str_eq(remote_status(task), "WAITING");
}

int remote_exit_status(const struct js *task)
{
	int status = statuses[status_index(task)].exit;
	for (size_t i = 0; status == EXIT_ERROR && i < ARRAY_SIZE(lost_reasons); i++)
		if (str_eq(js_str(task, "reason"), lost_reasons[i]))
			return EXIT_LOST;
	return status;
}

enum colour remote_colour(const struct js *task)
{
	return statuses[status_index(task)].colour;
}

char *remote_here(void)
{
	AUTO_FREE char *dir = getcwd(NULL, 0);
	while (dir) {
		AUTO_FREE char *git = file_join(dir, ".git");
		if (file_exists(git))
			return TAKE_PTR(dir);
		if (str_eq(dir, "/"))
			break;
		char *up = file_dirname(dir);
		free(dir);
		dir = up;
	}
	return NULL;
}

char *remote_repo_here(void)
{
	AUTO_FREE char *dir = remote_here();
	AUTO_JS struct js *source = js_object();
	char *key = NULL;
	if (!dir)
		return NULL;
	js_set_str(source, "kind", "local");
	js_set_str(source, "dir", dir);
	return source_repo_key(source, &key, NULL) ? NULL : key;
}

static enum err_code get_here(struct cli *c, const char *ref, struct js **ret, struct error *e)
{
	AUTO_FREE char *key = remote_repo_here();
	struct error mine = ERROR_INIT;
	AUTO_STRBUF struct strbuf suffix = STRBUF_INIT;
	int status;
	if (!key)
		return e->code;
	strbuf_adds(&suffix, "?repo=");
	str_add_urlenc(&suffix, key);
	AUTO_FREE char *path = remote_path(ref, strbuf_str(&suffix));
	if (client_call(c->client, "GET", path, NULL, &status, ret, &mine))
		return e->code; /* the list of ids says more than "not here" */
	error_clear(e);
	return ERR_OK;
}

enum err_code remote_get(struct cli *c, const char *id, struct js **ret, struct error *e)
{
	AUTO_FREE char *path = remote_path(id, "");
	int status = 0;
	enum err_code rc = client_call(c->client, "GET", path, NULL, &status, ret, e);
	if (!rc && !*ret)
		return error_set(e, ERR_INTERNAL, "the server told nothing about task '%s'", id);
	return rc;
}

enum err_code remote_find(struct cli *c, const char *ref, struct js **ret, struct error *e)
{
	enum err_code rc = ERR_OK;
	if (!str_is_name(ref)) {
		AUTO_STRBUF struct strbuf shown = STRBUF_INIT;
		text_add_line(&shown, ref);
		error_set(e, ERR_USAGE, "'%s' is neither a task's id nor a name", strbuf_str(&shown));
		error_hint(e, "signalbox ls");
		return ERR_USAGE;
	}
	if (!c->client)
		rc = server_connect(c, e);
	if (!rc)
		rc = remote_get(c, ref, ret, e);
	if (rc == ERR_CONFLICT)
		rc = get_here(c, ref, ret, e);
	if (rc == ERR_NOT_FOUND)
		error_hint(e, "signalbox ls");
	return rc;
}

void remote_add_source(struct strbuf *out, const struct js *task)
{
	const struct js *source = js_get(task, "source");
	const char *kind = js_str_or(source, "kind", "none");
	text_add_line(out, kind);
	const char *where = js_str_or(source, "url", js_str_or(source, "dir", js_str(source, "name")));
	if (where) {
		strbuf_addc(out, ' ');
		text_add_line(out, where);
	}
	if (js_str(source, "ref")) {
		strbuf_addc(out, ' ');
		text_add_line(out, js_str(source, "ref"));
	}
}

void remote_add_why(struct strbuf *out, const struct js *task)
{
	const char *reason = js_str(task, "reason");
	const char *error = js_str_or(js_get(task, "error"), "text", js_str(task, "error"));
	if (!str_empty(error))
		text_add_line(out, error);
	if (str_empty(reason))
		return;
	if (str_empty(error))
		text_add_line(out, reason);
	else if (!str_eq(reason, error)) {
		strbuf_adds(out, " (");
		text_add_line(out, reason);
		strbuf_addc(out, ')');
	}
}
