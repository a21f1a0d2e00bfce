/* ls: tasks, newest first. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "cli/server.h"
#include "cli/table.h"
#include "cli/remote.h"
#include "cli/text.h"
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#define LIST_DEFAULT 50
#define LIST_MAX 100000
#define PAGE_MAX 200
#define NARROW_COLUMNS 100 /* below: name or id, no agent */
#define TINY_COLUMNS 80	   /* below: no phase either */

const struct opt ls_options[] = {
	{ "state", 's', OPT_LIST, "STATUS", "only these: RUNNING, QUEUED, WAITING, DONE, ERROR, TIMEOUT, CANCELED" },
	{ "label", 'l', OPT_LIST, "K=V", "only those with this label; several: with all of them; K alone: whatever its value" },
	{ "search", 0, OPT_STRING, "WORDS", "only those with these words in their prompt; \"a phrase\", begin*" },
	{ "name", 0, OPT_STRING, "NAME", "only those of this name, in all repositories" },
	{ "here", 0, OPT_FLAG, NULL, "only those of the repository we stand in" },
	{ "limit", 'n', OPT_INT, "N", "at most so many (default 50)" },
	{ .name = NULL },
};

static void add_param(struct strbuf *path, const char *name, const char *value)
{
	strbuf_addf(path, "&%s=", name);
	str_add_urlenc(path, value);
}

static void make_query(const struct cli *c, int64_t limit, const char *here, const char *cursor, struct strbuf *path)
{
	const struct opt_value *states = cli_opt(c, "state");
	AUTO_STRBUF struct strbuf list = STRBUF_INIT;
	strbuf_addf(path, "/v1/tasks?limit=%" PRId64, limit < PAGE_MAX ? limit : PAGE_MAX);
	for (int i = 0; i < states->list_len; i++) {
		strbuf_adds(&list, i ? "," : "");
		for (const char *p = states->list[i]; *p; p++)
			strbuf_addc(&list, *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p);
	}
	if (list.len)
		add_param(path, "state", strbuf_str(&list));
	const struct opt_value *labels = cli_opt(c, "label");
	for (int i = 0; i < labels->list_len; i++)
		add_param(path, "label", labels->list[i]);
	if (cli_opt_text(c, "search"))
		add_param(path, "q", cli_opt_text(c, "search"));
	if (cli_opt_text(c, "name"))
		add_param(path, "name", cli_opt_text(c, "name"));
	if (here)
		add_param(path, "repo", here);
	if (cursor)
		add_param(path, "after", cursor);
}

/* What a row says last: what the task is doing, or what came of it, or what was asked. */
static const char *task_gist(const struct js *task)
{
	const char *summary = js_str(js_get(task, "result"), "summary");
	const char *progress = remote_is_over(task) ? NULL : js_str(task, "progress");
	/* A word that the phase says already, or that says nothing, does not tell what the task is about. */
	if (!str_empty(progress) && !str_eq(progress, js_str(task, "phase")) && !str_eq(progress, "working"))
		return progress;
	return !str_empty(summary) ? summary : js_str_or(task, "prompt", "");
}

static bool is_narrow(const struct cli *c)
{
	return c->out.tty && term_width(&c->out) < NARROW_COLUMNS;
}

/* The status says it already: QUEUED queued, RUNNING running. */
static const char *phase_word(const struct cli *c, const struct js *task)
{
	const char *word = remote_is_over(task) ? js_str(task, "reason") : js_str(task, "phase");
	bool tiny = c->out.tty && term_width(&c->out) < TINY_COLUMNS;
	return tiny || (c->out.tty && word && strcasecmp(word, remote_status(task)) == 0) ? NULL : word;
}

static void add_row(const struct cli *c, struct table *t, const struct js *task)
{
	const char *created = js_str_or(task, "created_at", "");
	int64_t at = clock_parse_rfc3339(created);
	AUTO_STRBUF struct strbuf age = STRBUF_INIT;
	/* People read how long ago, programs when. */
	if (c->out.tty && at >= 0)
		text_add_age(&age, clock_wall_ms() - at);
	else
		strbuf_adds(&age, created);
	/* On a narrow terminal a name stands for the id, and the rest of the line is for what it is about. */
	bool narrow = is_narrow(c);
	table_add(t, COLOUR_NONE, narrow ? remote_label(task) : remote_id(task));
	table_add(t, COLOUR_BOLD, narrow ? NULL : js_str(task, "name"));
	table_add(t, remote_colour(task), remote_status(task));
	table_add(t, COLOUR_DIM, phase_word(c, task));
	table_add(t, COLOUR_DIM, strbuf_str(&age));
	table_add(t, COLOUR_NONE, narrow ? NULL : js_str(task, "agent"));
	table_add(t, COLOUR_NONE, task_gist(task));
}

static enum err_code read_pages(struct cli *c, int64_t limit, const char *here, struct js *all, struct error *e)
{
	AUTO_JS struct js *page = NULL;
	const char *cursor = NULL;
	do {
		AUTO_STRBUF struct strbuf path = STRBUF_INIT;
		int status = 0;
		make_query(c, limit - (int64_t)js_len(all), here, cursor, &path);
		js_free(page);
		page = NULL;
		enum err_code rc = client_call(c->client, "GET", strbuf_str(&path), NULL, &status, &page, e);
		if (rc)
			return rc;
		const struct js *data = js_get(page, "data");
		for (size_t i = 0; i < js_len(data); i++)
			js_push(all, js_ref(js_at(data, i)));
		cursor = js_str(page, "next_cursor"); /* a page may be empty and not the last */
	} while (cursor && (int64_t)js_len(all) < limit);
	return ERR_OK;
}

static void print_list(const struct cli *c, const struct js *all)
{
	static const char *const titles[] = { "ID", "NAME", "STATUS", "PHASE", "AGE", "AGENT", "WHAT", NULL };
	static const char *const narrow[] = { "TASK", "", "STATUS", "PHASE", "AGE", "", "WHAT", NULL };
	struct table t;
	table_init(&t, is_narrow(c) ? narrow : titles);
	for (size_t i = 0; i < js_len(all); i++)
		add_row(c, &t, js_at(all, i));
	table_print(&t, &c->out);
	table_release(&t);
	if (!js_len(all) && c->err.tty)
		cli_say(c, "no tasks\n  try: signalbox run \"what should be done\"");
}

enum err_code cmd_ls(struct cli *c, struct error *e)
{
	AUTO_JS struct js *all = js_array();
	int64_t limit = cli_opt(c, "limit")->set ? cli_opt(c, "limit")->number : LIST_DEFAULT;
	if (limit < 1 || limit > LIST_MAX)
		return error_set(e, ERR_USAGE, "--limit must be within 1 and %d", LIST_MAX);
	AUTO_FREE char *here = cli_flag(c, "here") ? remote_repo_here() : NULL;
	if (cli_flag(c, "here") && !here)
		return error_set(e, ERR_USAGE, "--here means nothing outside a repository");
	enum err_code rc = server_connect(c, e);
	if (!rc)
		rc = read_pages(c, limit, here, all, e);
	if (rc)
		return rc;
	if (!c->json) {
		print_list(c, all);
		return ERR_OK;
	}
	AUTO_JS struct js *list = js_object();
	js_set(list, "data", js_ref(all));
	cli_json(c, list);
	return ERR_OK;
}
