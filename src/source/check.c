/* A source at the door, and the key under which tasks of one repository are counted together. */
#include "source/source.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/try.h"
#include "source/url.h"
#include <string.h>

static enum err_code check_git(const struct js *source, struct error *e)
{
	AUTO(source_url_release) struct source_url url = { .text = NULL };
	const char *ref = NULL;
	bool flag = false;
	int64_t depth = 0;

	if (!js_str(source, "url"))
		return error_set(e, ERR_INVALID, "source.url is missing");
	TRY(js_want_bool(source, "source", "submodules", &flag, e));
	TRY(js_want_bool(source, "source", "lfs", &flag, e));
	TRY(js_want_i64(source, "source", "depth", 0, SOURCE_DEPTH_MAX, &depth, e));
	TRY(source_url_parse(js_str(source, "url"), &url, e));
	if (js_type(js_get(source, "ref")) != JS_NULL)
		TRY(js_want_str(source, "source", "ref", &ref, e));
	return ref ? source_ref_check(ref, e) : ERR_OK;
}

static enum err_code check_local(const struct js *source, struct error *e)
{
	const char *dir = js_str(source, "dir"), *ref = NULL;

	if (!dir)
		return error_set(e, ERR_INVALID, "source.dir is missing");
	TRY(source_path_check(dir, e));
	if (js_type(js_get(source, "ref")) != JS_NULL)
		TRY(js_want_str(source, "source", "ref", &ref, e));
	if (ref)
		TRY(source_ref_check(ref, e));
	if (file_is_dir(dir))
		return ERR_OK;
	if (file_exists(dir))
		return error_set(e, ERR_INVALID, "'%s' is not a directory", dir);
	return error_set(e, ERR_NOT_FOUND, "the directory '%s' does not exist", dir);
}

static enum err_code check_archive(const struct js *source, struct error *e)
{
	bool keep_top = false;

	if (!clock_is_id(js_str(source, "upload"))) {
		error_set(e, ERR_INVALID, "source.upload is missing or no upload's id");
		error_hint(e, "POST the archive to /v1/uploads; its reply has the id");
		return ERR_INVALID;
	}
	return js_want_bool(source, "source", "keep_top", &keep_top, e);
}

static enum err_code check_none(const struct js *source, struct error *e)
{
	(void)source;
	(void)e;
	return ERR_OK;
}

/* A directory inside a repository stands for the whole repository. */
static char *repository_root(const char *real)
{
	AUTO_FREE char *at = mem_strdup(real);

	while (strlen(at) > 1) {
		AUTO_FREE char *git = file_join(at, ".git");
		AUTO_FREE char *up = NULL;

		if (file_exists(git))
			return TAKE_PTR(at);
		up = file_dirname(at);
		free(at);
		at = TAKE_PTR(up);
	}
	return mem_strdup(real);
}

static enum err_code local_key(const char *path, char **ret, struct error *e)
{
	AUTO_FREE char *real = NULL;

	TRY(file_realpath(path, &real, e));
	*ret = repository_root(real);
	return ERR_OK;
}

static enum err_code key_git(const struct js *source, char **ret, struct error *e)
{
	AUTO(source_url_release) struct source_url url = { .text = NULL };
	AUTO_FREE char *key = NULL;

	TRY(source_url_parse(js_str(source, "url"), &url, e));
	key = source_url_key(&url);
	if (url.kind == URL_FILE && file_exists(key))
		return local_key(key, ret, e);
	*ret = TAKE_PTR(key);
	return ERR_OK;
}

static enum err_code key_local(const struct js *source, char **ret, struct error *e)
{
	const char *dir = js_str(source, "dir");

	return dir ? local_key(dir, ret, e) : error_set(e, ERR_INVALID, "source.dir is missing");
}

/* An upload is a repository of its own, however many tasks begin from it. */
static enum err_code key_archive(const struct js *source, char **ret, struct error *e)
{
	const char *upload = js_str(source, "upload");

	if (!upload)
		return error_set(e, ERR_INVALID, "source.upload is missing");
	*ret = mem_printf("upload:%s", upload);
	return ERR_OK;
}

static enum err_code key_none(const struct js *source, char **ret, struct error *e)
{
	(void)source;
	(void)e;
	*ret = mem_strdup("none");
	return ERR_OK;
}

static const struct source_kind {
	const char *name;
	const char *members[8];
	enum err_code (*check)(const struct js *source, struct error *e);
	enum err_code (*key)(const struct js *source, char **ret, struct error *e);
} kinds[] = {
	{ "git", { "kind", "url", "ref", "submodules", "lfs", "depth", NULL }, check_git, key_git },
	{ "archive", { "kind", "upload", "keep_top", NULL }, check_archive, key_archive },
	{ "local", { "kind", "dir", "ref", NULL }, check_local, key_local },
	{ "none", { "kind", NULL }, check_none, key_none },
};

static enum err_code find_kind(const struct js *source, const struct source_kind **ret, struct error *e)
{
	const char *kind = js_str(source, "kind");

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (str_eq(kind, kinds[i].name)) {
			*ret = &kinds[i];
			return ERR_OK;
		}
	error_set(e, ERR_INVALID, "source.kind '%s' is not known", kind ? kind : "");
	error_hint(e, "expected git, archive, local or none");
	return ERR_INVALID;
}

enum err_code source_check(const struct js *source, struct error *e)
{
	const struct source_kind *kind;

	TRY(find_kind(source, &kind, e));
	TRY(js_check_members(source, "source", kind->members, e));
	return kind->check(source, e);
}

enum err_code source_repo_key(const struct js *source, char **ret, struct error *e)
{
	const struct source_kind *kind;

	TRY(find_kind(source, &kind, e));
	return kind->key(source, ret, e);
}

bool source_is_local(const struct js *source)
{
	AUTO(source_url_release) struct source_url url = { .text = NULL };

	if (str_eq(js_str(source, "kind"), "local") || js_get(source, "dir"))
		return true;
	return js_str(source, "url") && source_url_parse(js_str(source, "url"), &url, NULL) == ERR_OK && url.kind == URL_FILE;
}

void source_make_repository(struct js *source)
{
	js_set_str(source, "kind", "git");
	js_set_str(source, "url", js_str(source, "dir")); /* an absolute path */
	js_set_bool(source, "local", true);
	js_del(source, "dir");
}
