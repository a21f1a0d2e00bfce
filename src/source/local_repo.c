/* Finding what is where in a user's repository, and the scratch beside it. */
#include "source/local_repo.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/transport.h"
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#define FACTS 9 /* lines of the rev-parse below */

struct git local_repo_git(const struct local_repo *r)
{
	static const char *const no_modes[] = { "core.fileMode=false", NULL };

	return (struct git){ .git_dir = r->scratch, .work_tree = r->top, .index = r->scratch_index, .as = &r->owner,
		.config = r->ignores_modes ? no_modes : NULL };
}

static size_t cut_lines(char *text, char **lines, size_t max)
{
	size_t n = 0;
	char *newline;

	while (text && *text && n < max && (newline = strchr(text, '\n'))) {
		*newline = '\0';
		lines[n++] = text;
		text = newline + 1;
	}
	return n;
}

static enum err_code not_a_work_tree(const char *dir, struct error *e)
{
	error_set(e, ERR_INVALID, "'%s' is inside a bare repository or a .git directory, which has no files of its own", dir);
	error_hint(e, "give its URL instead: file://%s", dir);
	return ERR_INVALID;
}

static enum err_code take_facts(struct local_repo *r, const char *dir, struct strbuf *out, struct error *e)
{
	char *line[FACTS];

	if (cut_lines(out->data, line, FACTS) != FACTS)
		return error_set(e, ERR_FAILED, "git does not say where the repository of '%s' is", dir);
	if (!str_eq(line[1], "sha1"))
		return error_set(e, ERR_UNSUPPORTED, "the repository of '%s' uses %s object names; only sha1 is supported", dir, line[1]);
	r->has_git = true;
	r->prefix = mem_strdup(line[2]);
	r->top = mem_strdup(line[3]);
	r->objects = mem_strdup(line[4]);
	r->index = mem_strdup(line[5]);
	r->shallow = mem_strdup(line[6]);
	r->exclude = mem_strdup(line[7]);
	r->config = mem_strdup(line[8]);
	return ERR_OK;
}

static enum err_code find_git(struct local_repo *r, const char *dir, struct error *e)
{
	const struct git g = { .cwd = dir, .as = &r->owner };
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	int status = 0;

	TRY(git_try(&g, (const char *const[]){ "rev-parse", "--is-inside-work-tree", "--show-object-format", "--show-prefix", "--show-toplevel",
		"--path-format=absolute", "--git-path", "objects", "--git-path", "index", "--git-path", "shallow", "--git-path", "info/exclude",
		"--git-path", "config", NULL }, NULL, 0, &out, &err, &status, e));
	if (str_starts(strbuf_str(&out), "false"))
		return not_a_work_tree(dir, e);
	if (status == 0)
		return take_facts(r, dir, &out, e);
	if (!strstr(strbuf_str(&err), "not a git repository")) {
		git_failed("git", status, strbuf_str(&err), e);
		return error_wrap(e, "look for the repository of '%s'", dir);
	}
	r->top = mem_strdup(dir);
	r->prefix = mem_strdup("");
	return ERR_OK;
}

static enum err_code find_head(struct local_repo *r, struct error *e)
{
	const struct git g = { .cwd = r->top, .as = &r->owner };
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	AUTO_STRBUF struct strbuf ref = STRBUF_INIT;
	char *line[2];
	int status = 0;

	TRY(git_try(&g, (const char *const[]){ "rev-parse", "HEAD^{commit}", "HEAD^{tree}", NULL }, NULL, 0, &out, NULL, &status, e));
	if (status == 0 && cut_lines(out.data, line, 2) == 2) {
		r->head = mem_strdup(line[0]);
		r->head_tree = mem_strdup(line[1]);
	}
	TRY(git_try(&g, (const char *const[]){ "symbolic-ref", "-q", "HEAD", NULL }, NULL, 0, &ref, NULL, &status, e));
	if (status == 0 && str_starts(strbuf_str(&ref), "refs/heads/") && cut_lines(ref.data, line, 1) == 1)
		r->branch = mem_strdup(line[0] + strlen("refs/heads/"));
	return ERR_OK;
}

static bool exists_for(const struct identity *who, const char *path)
{
	struct identity before;
	bool exists;

	if (identity_enter(who, &before, NULL) != ERR_OK)
		return false;
	exists = file_exists(path);
	identity_return(&before);
	return exists;
}

/* The two settings of the user's that change what the tree means; all others are left unread. */
static enum err_code read_settings(struct local_repo *r, const char *config, const char *home, struct error *e)
{
	const struct git g = { .cwd = r->top, .as = &r->owner, .home = home };
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	int status = 0;

	if (!exists_for(&r->owner, config))
		return ERR_OK;
	TRY(git_try(&g, (const char *const[]){ "config", "--file", config, "-z", "--get-regexp", "^core\\.(filemode|excludesfile)$", NULL },
		NULL, 0, &out, NULL, &status, e));
	for (const char *at = strbuf_str(&out); status == 0 && *at; at += strlen(at) + 1) {
		const char *value = strchr(at, '\n');

		if (value && str_starts(at, "core.filemode"))
			r->ignores_modes = str_eq(value + 1, "false") || str_eq(value + 1, "0") || str_eq(value + 1, "no");
		if (!value || !str_starts(at, "core.excludesfile"))
			continue;
		free(r->excludes_file);
		r->excludes_file = str_starts(value + 1, "~/") ? file_join(home, value + 3) : mem_strdup(value + 1);
	}
	return ERR_OK;
}

static char *owner_home(const struct local_repo *r)
{
	struct passwd *pw = getpwuid(r->owner.set ? r->owner.uid : geteuid());

	return mem_strdup(pw && pw->pw_dir ? pw->pw_dir : "/nonexistent");
}

enum err_code local_repo_find(const char *dir, struct local_repo *ret, struct error *e)
{
	struct identity before;
	AUTO_FREE char *real = NULL;
	enum err_code code;

	TRY(transport_find_owner(dir, &ret->owner, e));
	if (!identity_is_root())
		ret->owner.set = false;
	ret->is_ours = !ret->owner.set || ret->owner.uid == geteuid();
	TRY(identity_enter(&ret->owner, &before, e));
	code = file_realpath(dir, &real, e);
	if (code == ERR_OK && !file_is_dir(real))
		code = error_set(e, ERR_INVALID, "'%s' is not a directory", dir);
	identity_return(&before);
	if (code != ERR_OK)
		return code;
	TRY(find_git(ret, real, e));
	return ret->has_git ? find_head(ret, e) : ERR_OK;
}

/* ---- the scratch; all of it as the owner ---- */

enum err_code local_repo_copy_index(const char *from, const char *to, struct error *e)
{
	struct stat st;
	struct timespec times[2];

	if (stat(from, &st) < 0)
		return errno == ENOENT ? ERR_OK : error_errno(e, "open '%s'", from);
	TRY(file_copy(from, to, 0600, e));
	times[0] = times[1] = st.st_mtim;
	return utimensat(AT_FDCWD, to, times, 0) < 0 ? error_errno(e, "set the time of '%s'", to) : ERR_OK;
}

static void add_file(struct strbuf *out, const char *path, size_t max)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	if (!path || file_read(path, max, &text, NULL) != ERR_OK)
		return;
	strbuf_add(out, strbuf_str(&text), text.len);
	strbuf_addc(out, '\n');
}

static void collect_excludes(struct local_repo *r, const char *home, struct strbuf *out)
{
	const char *xdg = r->owner.set ? NULL : getenv("XDG_CONFIG_HOME");
	AUTO_FREE char *config = str_empty(xdg) ? file_join(home, ".config") : mem_strdup(xdg);
	AUTO_FREE char *usual = file_join(config, "git/ignore");

	add_file(out, r->excludes_file ? r->excludes_file : usual, LOCAL_EXCLUDE_MAX);
	add_file(out, r->exclude, LOCAL_EXCLUDE_MAX);
}

static enum err_code put(const char *dir, const char *name, const char *data, size_t n, struct error *e)
{
	AUTO_FREE char *path = file_join(dir, name);

	return file_replace(path, data, n, 0600, FILE_NOSYNC, e);
}

static enum err_code fill_scratch(struct local_repo *r, const char *more_objects, const struct strbuf *exclude, struct error *e)
{
	static const char *const dirs[] = { "refs", "objects/info", "objects/pack", "info" };
	AUTO_STRBUF struct strbuf alternates = STRBUF_INIT;
	AUTO_STRBUF struct strbuf shallow = STRBUF_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		AUTO_FREE char *path = file_join(r->scratch, dirs[i]);

		TRY(file_mkdirs(path, 0700, e));
	}
	if (r->objects)
		strbuf_addf(&alternates, "%s\n", r->objects);
	if (more_objects)
		strbuf_addf(&alternates, "%s\n", more_objects);
	TRY(put(r->scratch, "objects/info/alternates", strbuf_str(&alternates), alternates.len, e));
	TRY(put(r->scratch, "HEAD", "ref: refs/heads/main\n", strlen("ref: refs/heads/main\n"), e));
	TRY(put(r->scratch, "info/exclude", strbuf_str(exclude), exclude->len, e));
	add_file(&shallow, r->shallow, LOCAL_SHALLOW_MAX);
	if (shallow.len > 1)
		TRY(put(r->scratch, "shallow", strbuf_str(&shallow), shallow.len - 1, e));
	return r->index ? local_repo_copy_index(r->index, r->scratch_index, e) : ERR_OK;
}

static enum err_code open_scratch(struct local_repo *r, const char *parent, struct error *e)
{
	if (parent) {
		r->scratch = file_join(parent, "scratch");
		TRY(file_remove_tree(r->scratch, e));
		TRY(file_mkdirs(r->scratch, 0700, e));
	} else {
		TRY(file_tmpdir(NULL, "signalbox-scratch", &r->scratch, e));
	}
	r->scratch_index = file_join(r->scratch, "index");
	return ERR_OK;
}

enum err_code local_repo_make_scratch(struct local_repo *r, const char *parent, const char *more_objects, struct strbuf *ret_exclude, struct error *e)
{
	AUTO_FREE char *home = owner_home(r);
	AUTO_FREE char *user_config = file_join(home, ".gitconfig");
	struct identity before;
	enum err_code code;

	TRY(read_settings(r, user_config, home, e));
	if (r->config)
		TRY(read_settings(r, r->config, home, e));
	TRY(identity_enter(&r->owner, &before, e));
	collect_excludes(r, home, ret_exclude);
	code = open_scratch(r, parent, e);
	if (code == ERR_OK)
		code = fill_scratch(r, more_objects, ret_exclude, e);
	identity_return(&before);
	return code;
}

static void remove_scratch(struct local_repo *r)
{
	struct identity before;

	if (identity_enter(&r->owner, &before, NULL) != ERR_OK)
		return;
	if (file_remove_tree(r->scratch, NULL) == ERR_OK)
		free(TAKE_PTR(r->scratch));
	identity_return(&before);
}

void local_repo_release(struct local_repo *r)
{
	char *owned[] = { r->top, r->prefix, r->objects, r->index, r->shallow, r->exclude, r->config, r->head, r->head_tree, r->branch,
		r->excludes_file, r->scratch_index };

	if (r->scratch)
		remove_scratch(r);
	free(r->scratch);
	for (size_t i = 0; i < ARRAY_SIZE(owned); i++)
		free(owned[i]);
}
