/* diff: what the task changed; coloured and paged on a terminal, byte for byte in a pipe. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/summary.h"
#include "cli/remote.h"
#include "source/git.h"
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define DIFF_MAX ((size_t)256 << 20)

const struct opt diff_options[] = {
	{ "stat", 0, OPT_FLAG, NULL, "only which files, and how much" },
	{ "run", 0, OPT_INT, "N", "only what run N of the task changed" },
	{ "output", 'o', OPT_STRING, "FILE", "write it to a file" },
	{ .name = NULL },
};

static enum colour line_colour(const char *line, size_t n)
{
	static const struct { const char *prefix; enum colour colour; } looks[] = {
		{ "+++ ", COLOUR_BOLD }, { "--- ", COLOUR_BOLD }, { "diff ", COLOUR_BOLD }, { "index ", COLOUR_BOLD }, { "@@ ", COLOUR_CYAN },
		{ "+", COLOUR_GREEN },	 { "-", COLOUR_RED },
	};
	for (size_t i = 0; i < ARRAY_SIZE(looks); i++)
		if (n >= strlen(looks[i].prefix) && memcmp(line, looks[i].prefix, strlen(looks[i].prefix)) == 0)
			return looks[i].colour;
	return COLOUR_NONE;
}

static void add_coloured(const struct term *t, struct strbuf *out, const struct strbuf *patch)
{
	const char *p = strbuf_str(patch);
	for (size_t left = patch->len; left;) {
		const char *nl = memchr(p, '\n', left);
		size_t n = nl ? (size_t)(nl - p) : left;
		AUTO_STRBUF struct strbuf line = STRBUF_INIT;
		str_add_printable(&line, p, n);
		term_add(t, out, line_colour(p, n), strbuf_str(&line));
		strbuf_addc(out, '\n');
		n += nl != NULL;
		p += n;
		left -= n;
	}
}

/* False when no pager could be started. */
static bool page(const struct cli *c, const struct strbuf *text)
{
	int ends[2];
	int status = 0;
	const char *argv[] = { "/bin/sh", "-c", cli_setting(c, SET_PAGER), NULL };
	struct proc_spec spec = PROC_SPEC_INIT;
	struct proc pager = PROC_INIT;
	if (pipe2(ends, O_CLOEXEC))
		return false;
	spec.argv = argv;
	spec.stdin_fd = ends[0];
	enum err_code rc = proc_start(&spec, &pager, NULL);
	close(ends[0]);
	if (!rc) {
		signal(SIGPIPE, SIG_IGN); /* the reader may stop before the end */
		signal(SIGINT, SIG_IGN);  /* Ctrl-C is the pager's */
		if (file_write_all(ends[1], strbuf_str(text), text->len, NULL)) {
			/* it has seen enough */
		}
	}
	close(ends[1]);
	if (!rc && proc_wait(&pager, -1, &status, NULL))
		status = 0;
	proc_release(&pager);
	return !rc && status != 127;
}

static void show(const struct cli *c, const struct strbuf *patch)
{
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(DIFF_MAX * 2);
	if (!c->out.tty && !c->out.colour) {
		term_write(&c->out, patch);
		return;
	}
	add_coloured(&c->out, &out, patch);
	if (!c->out.tty || str_eq(cli_setting(c, SET_PAGER), "cat") || !page(c, &out))
		term_write(&c->out, &out);
}

static enum err_code fetch(struct cli *c, const struct js *task, struct strbuf *ret, struct error *e)
{
	int status = 0;
	AUTO_FREE char *rest = cli_opt(c, "run")->set ? mem_printf("/diff?run=%lld", (long long)cli_opt(c, "run")->number) : mem_strdup("/diff");
	AUTO_FREE char *path = remote_path(remote_id(task), rest);
	enum err_code rc = client_get(c->client, path, "text/x-diff", &status, ret, e);
	if (rc == ERR_NOT_FOUND && !remote_is_over(task)) {
		error_set(e, ERR_CONFLICT, "task '%s' is %s: its diff is made when it ends", remote_label(task), remote_status(task));
		error_hint(e, "signalbox wait %s", remote_label(task));
	}
	return rc ? e->code : rc;
}

/* "3\t1\tNAME", "-\t-\tNAME" for bytes that are no text. */
static void add_count(struct js *stat, const char *line)
{
	char *rest = NULL;
	struct js *file = js_object();
	int64_t added = strtoll(line, &rest, 10), deleted = 0;
	bool binary = line[0] == '-';
	if (!binary)
		deleted = strtoll(rest, NULL, 10);
	const char *tab = strchr(line, '\t');
	const char *name = tab ? strchr(tab + 1, '\t') : NULL;
	js_set_str(file, "path", name ? name + 1 : "?");
	js_set_int(file, "added", binary ? 0 : added);
	js_set_int(file, "deleted", deleted);
	js_set_bool(file, "binary", binary);
	js_set_int(stat, "added", js_i64(stat, "added", 0) + (binary ? 0 : added));
	js_set_int(stat, "deleted", js_i64(stat, "deleted", 0) + deleted);
	js_push((struct js *)(uintptr_t)js_get(stat, "files"), file);
}

/* One run's part is kept as a patch and nowhere counted: git counts it, as it would when it takes it. */
static enum err_code count_run(struct cli *c, const struct js *task, struct js *stat, struct error *e)
{
	AUTO_STRBUF struct strbuf patch = STRBUF_LIMIT(DIFF_MAX), out = STRBUF_LIMIT(DIFF_MAX);
	struct git g = { .cwd = "/" };
	js_set(stat, "files", js_array());
	js_set_int(stat, "added", 0);
	js_set_int(stat, "deleted", 0);
	TRY(fetch(c, task, &patch, e));
	if (patch.len)
		TRY(git_run(&g, (const char *const[]){ "apply", "--numstat", "-z", NULL }, strbuf_str(&patch), patch.len, &out, e));
	for (size_t i = 0; i < out.len; i += strlen(strbuf_str(&out) + i) + 1)
		add_count(stat, strbuf_str(&out) + i);
	js_set_int(stat, "patch_bytes", (int64_t)patch.len);
	return ERR_OK;
}

static enum err_code print_run_stat(struct cli *c, const struct js *task, struct error *e)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	AUTO_JS struct js *stat = js_object();
	TRY(count_run(c, task, stat, e));
	if (c->json) {
		cli_json(c, stat);
		return ERR_OK;
	}
	if (!js_len(js_get(stat, "files")))
		cli_say(c, "that run of task %s changed nothing", remote_label(task));
	diffstat_add(&c->out, &out, stat);
	term_write(&c->out, &out);
	return ERR_OK;
}

static enum err_code print_stat(struct cli *c, const struct js *task, struct error *e)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	const struct js *result = js_get(task, "result");
	if (js_type(result) != JS_OBJECT) {
		error_set(e, ERR_CONFLICT, "task '%s' is %s: it has no result yet", remote_label(task), remote_status(task));
		error_hint(e, "signalbox wait %s", remote_label(task));
		return ERR_CONFLICT;
	}
	if (c->json) {
		AUTO_JS struct js *stat = js_object();
		static const char *const members[] = { "files", "added", "deleted", "patch_bytes" };
		for (size_t i = 0; i < ARRAY_SIZE(members); i++)
			js_set(stat, members[i], js_ref(js_get(result, members[i])));
		cli_json(c, stat);
		return ERR_OK;
	}
	diffstat_add(&c->out, &out, result);
	term_write(&c->out, &out);
	return ERR_OK;
}

static enum err_code print_patch(struct cli *c, const struct js *task, struct error *e)
{
	AUTO_STRBUF struct strbuf patch = STRBUF_LIMIT(DIFF_MAX);
	const char *file = cli_opt_text(c, "output");
	enum err_code rc = fetch(c, task, &patch, e);
	if (rc)
		return rc;
	if (file)
		return file_replace(file, strbuf_str(&patch), patch.len, 0644, FILE_NOSYNC, e);
	if (c->json) {
		AUTO_JS struct js *answer = js_object();
		js_set_str(answer, "id", remote_id(task));
		js_set(answer, "diff", js_string_n(strbuf_str(&patch), patch.len));
		cli_json(c, answer);
		return ERR_OK;
	}
	if (!patch.len)
		cli_say(c, cli_opt(c, "run")->set ? "that run of task %s changed nothing" : "task %s changed nothing", remote_label(task));
	show(c, &patch);
	return ERR_OK;
}

enum err_code cmd_diff(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (rc)
		return rc;
	if (!cli_flag(c, "stat"))
		return print_patch(c, task, e);
	return cli_opt(c, "run")->set ? print_run_stat(c, task, e) : print_stat(c, task, e);
}
