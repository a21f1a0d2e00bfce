/* The source room from the command line, for the tests: `fetch` (job on stdin), `diff` and `snapshot-tree` (job on stdin, summary or
 * tree on stdout), `apply DIR PATCH`, `check-apply DIR PATCH`, `check` and `key` (source on stdin), `peek CACHE` (source on stdin). */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/js.h"
#include "base/str.h"
#include "source/apply.h"
#include "source/credential.h"
#include "source/diff.h"
#include "source/source.h"
#include <stdio.h>
#include <string.h>

#define JOB_MAX ((size_t)1 << 20)

static int fail(const struct error *e)
{
	fprintf(stderr, "%s: %s\n%s\n", err_name(e->code), e->text, e->hint);
	return 1;
}

static struct js *read_job(struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	if (file_read_fd(STDIN_FILENO, JOB_MAX, &text, e) != ERR_OK)
		return NULL;
	return js_parse(strbuf_str(&text), text.len, e);
}

static int run_diff(bool only_tree)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *in = read_job(&e);
	AUTO_JS struct js *summary = NULL;
	AUTO_FREE char *text = NULL;
	enum err_code code;
	struct diff_job job;

	if (!in)
		return fail(&e);
	job = (struct diff_job){ .store = js_str(in, "store"), .commit = js_str(in, "commit"), .checkout = js_str(in, "checkout"),
		.upper = js_str(in, "upper"), .worktree = js_str(in, "worktree"), .base_tree = js_str(in, "base_tree"),
		.scratch = js_str(in, "scratch"), .patch_path = js_str(in, "patch_path"), .max_bytes = js_i64(in, "max_bytes", 1 << 28) };
	code = only_tree ? diff_snapshot_tree(&job, &text, &e) : diff_collect(&job, &summary, &e);
	if (code != ERR_OK)
		return fail(&e);
	if (!only_tree)
		text = js_dump(summary);
	puts(text);
	return 0;
}

static int run_source(bool only_check)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *in = read_job(&e);
	AUTO_FREE char *key = NULL;

	if (!in || (only_check ? source_check(in, &e) : source_repo_key(in, &key, &e)) != ERR_OK)
		return fail(&e);
	puts(key ? key : "ok");
	return 0;
}

static int run_apply(char **argv, bool check_only)
{
	struct error e = ERROR_INIT;

	return apply_patch(argv[0], argv[1], check_only, &e) == ERR_OK ? 0 : fail(&e);
}

static int run_peek(const char *cache)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *in = read_job(&e);
	AUTO_JS struct js *result = NULL;

	if (!in)
		return fail(&e);
	if (!source_peek(in, cache, &result))
		return 1;
	AUTO_FREE char *text = js_dump(result);
	puts(text);
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (askpass_is_asked())
		return askpass_main(argc, argv);
	if (str_eq(verb, "fetch"))
		return source_fetch_main();
	if (str_eq(verb, "diff") || str_eq(verb, "snapshot-tree"))
		return run_diff(str_eq(verb, "snapshot-tree"));
	if (str_eq(verb, "check") || str_eq(verb, "key"))
		return run_source(str_eq(verb, "check"));
	if (str_eq(verb, "peek") && argc == 3)
		return run_peek(argv[2]);
	if ((str_eq(verb, "apply") || str_eq(verb, "check-apply")) && argc == 4)
		return run_apply(argv + 2, str_eq(verb, "check-apply"));
	return 2;
}
