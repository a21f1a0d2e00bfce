/* `git apply` with a neutral git directory, so that only the files and their attributes count. git checks the whole patch
 * before it writes; what it then cannot write (a full disk) is put back from copies. */
#include "source/apply.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/git.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define REASONS_MAX 5 /* lines of git's that are repeated to people */

struct application {
	char *dir, *patch;
	char *temp;    /* holds the git directory and the copies */
	char *git_dir;
	struct strbuf names; /* NUL-ended, of every file the patch touches */
};

static void application_release(struct application *a)
{
	if (a->temp && file_remove_tree(a->temp, NULL) == ERR_OK)
		free(TAKE_PTR(a->temp));
	free(a->temp);
	free(a->dir);
	free(a->patch);
	free(a->git_dir);
	strbuf_release(&a->names);
}

static enum err_code application_open(struct application *a, const char *dir, const char *patch_path, struct error *e)
{
	AUTO_FREE char *head = NULL;
	static const char *const dirs[] = { "refs", "objects" };

	TRY(file_realpath(dir, &a->dir, e));
	TRY(file_realpath(patch_path, &a->patch, e));
	TRY(file_tmpdir(NULL, "signalbox-apply", &a->temp, e));
	a->git_dir = file_join(a->temp, "repo");
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		AUTO_FREE char *path = file_join(a->git_dir, dirs[i]);

		TRY(file_mkdirs(path, 0700, e));
	}
	head = file_join(a->git_dir, "HEAD");
	return file_replace(head, "ref: refs/heads/main\n", strlen("ref: refs/heads/main\n"), 0600, FILE_NOSYNC, e);
}

/* "error: a.c: patch does not apply" -> "a.c: patch does not apply" */
static void collect_reasons(const char *text, struct strbuf *out)
{
	int n = 0;

	for (const char *line = text, *end; *line && n < REASONS_MAX; line = *end ? end + 1 : end) {
		end = line + strcspn(line, "\n");
		if (!str_starts(line, "error: ") || str_starts(line, "error: patch failed: "))
			continue;
		line += strlen("error: ");
		strbuf_adds(out, n++ ? "; " : "");
		str_add_printable(out, line, (size_t)(end - line));
	}
}

static enum err_code run_apply(const struct application *a, const char *how, bool reverse, struct strbuf *ret_out, struct error *e)
{
	const struct git g = { .git_dir = a->git_dir, .work_tree = a->dir };
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	AUTO_STRBUF struct strbuf reasons = STRBUF_INIT;
	int status = 0;

	TRY(git_try(&g, (const char *const[]){ "apply", "--whitespace=nowarn", "--allow-empty", "-z", how, reverse ? "-R" : "--no-reverse", "--", a->patch, NULL },
		NULL, 0, ret_out, &err, &status, e));
	if (status == 0)
		return ERR_OK;
	collect_reasons(strbuf_str(&err), &reasons);
	if (reasons.len == 0)
		return git_failed("git apply", status, strbuf_str(&err), e);
	error_set(e, ERR_CONFLICT, "the diff does not fit '%s': %s", a->dir, strbuf_str(&reasons));
	error_hint(e, "nothing was changed; commit or set aside what was edited since, or apply it by hand with git apply --3way");
	return ERR_CONFLICT;
}

/* "added TAB deleted TAB name" NUL: the new names, and with -R the old ones. */
static enum err_code collect_names(struct application *a, bool reverse, struct error *e)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;

	TRY(run_apply(a, "--numstat", reverse, &out, e));
	a->names.max = GIT_OUTPUT_MAX;
	for (const char *at = strbuf_str(&out); at < strbuf_str(&out) + out.len; at += strlen(at) + 1) {
		const char *tab = strchr(at, '\t'), *name = tab ? strchr(tab + 1, '\t') : NULL;

		if (name)
			strbuf_add(&a->names, name + 1, strlen(name + 1) + 1);
	}
	return ERR_OK;
}

/* ---- copies, for the case that writing fails in the middle ---- */

typedef enum err_code copy_fn(const char *path, const char *copy, struct error *e);

static enum err_code save_one(const char *path, const char *copy, struct error *e)
{
	char target[PATH_MAX];
	struct stat st;
	ssize_t n;

	if (lstat(path, &st) < 0)
		return errno == ENOENT || errno == ENOTDIR ? ERR_OK : error_errno(e, "look at '%s'", path);
	if (S_ISREG(st.st_mode))
		return file_copy(path, copy, st.st_mode & 07777, e);
	if (!S_ISLNK(st.st_mode))
		return ERR_OK;
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return error_errno(e, "read the link '%s'", path);
	target[n] = '\0';
	return symlink(target, copy) < 0 ? error_errno(e, "copy the link '%s'", path) : ERR_OK;
}

/* Whatever the patch put there goes, with directories that only it needed, before anything is put back: names may have
 * changed between file and directory. */
static enum err_code clear_one(const char *path, const char *copy, struct error *e)
{
	AUTO_FREE char *parent = file_dirname(path);
	struct stat st;

	(void)copy;
	(void)e;
	if (lstat(path, &st) == 0 && !S_ISDIR(st.st_mode))
		unlink(path);
	while (strlen(parent) > 1 && rmdir(parent) == 0) {
		AUTO_FREE char *up = file_dirname(parent);

		free(parent);
		parent = TAKE_PTR(up);
	}
	return ERR_OK;
}

static enum err_code restore_one(const char *path, const char *copy, struct error *e)
{
	AUTO_FREE char *parent = file_dirname(path);
	struct stat st;

	if (lstat(copy, &st) < 0 || lstat(path, &st) == 0) /* it was not there; or it could not be removed, and so was not changed */
		return ERR_OK;
	TRY(file_mkdirs(parent, 0777, e));
	return save_one(copy, path, e);
}

/* To the end, whatever happens on the way; the first error is the answer. */
static enum err_code for_each_name(const struct application *a, copy_fn *fn, struct error *e)
{
	enum err_code first = ERR_OK;
	const char *end = strbuf_str(&a->names) + a->names.len;
	size_t i = 0;

	for (const char *at = strbuf_str(&a->names); at < end; at += strlen(at) + 1, i++) {
		AUTO_FREE char *path = file_join(a->dir, at);
		AUTO_FREE char *copy = mem_printf("%s/copy.%zu", a->temp, i);

		if (fn(path, copy, first == ERR_OK ? e : NULL) != ERR_OK && first == ERR_OK)
			first = e ? e->code : ERR_IO;
	}
	return first;
}

static enum err_code write_files(struct application *a, struct error *e)
{
	struct error ignored = ERROR_INIT;
	enum err_code code;

	TRY(collect_names(a, false, e));
	TRY(collect_names(a, true, e));
	TRY(for_each_name(a, save_one, e));
	code = run_apply(a, "--apply", false, NULL, e);
	if (code == ERR_OK)
		return ERR_OK;
	if (for_each_name(a, clear_one, &ignored) != ERR_OK || for_each_name(a, restore_one, &ignored) != ERR_OK)
		return error_wrap(e, "'%s' may be half changed (%s)", a->dir, ignored.text);
	return code;
}

enum err_code apply_patch(const char *dir, const char *patch_path, bool check_only, struct error *e)
{
	AUTO(application_release) struct application a = { .dir = NULL };

	TRY(application_open(&a, dir, patch_path, e));
	TRY(run_apply(&a, "--check", false, NULL, e));
	return check_only ? ERR_OK : write_files(&a, e);
}
