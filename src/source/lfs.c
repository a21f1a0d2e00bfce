/* Finding the pointers of a commit, and asking the server where their contents are. */
#include "source/lfs.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/git.h"
#include "source/lfs_get.h"
#include "source/url.h"
#include <string.h>

#define POINTER_MARK "version https://git-lfs.github.com/spec/v1"
#define POINTER_MAX 1024 /* bytes; a larger file is no pointer */
#define OID_LEN 64
#define BATCH_MAX 100 /* objects in one question */

void lfs_list_release(struct lfs_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->v[i].path);
		free(l->v[i].oid);
		free(l->v[i].kept);
	}
	free(l->v);
	*l = (struct lfs_list){ .v = NULL };
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct lfs_file *)a)->path, ((const struct lfs_file *)b)->path);
}

const struct lfs_file *lfs_find(const struct lfs_list *l, const char *path)
{
	const struct lfs_file key = { .path = (char *)(uintptr_t)path };

	return l && l->n ? bsearch(&key, l->v, l->n, sizeof(*l->v), by_path) : NULL;
}

/* ---- pointers ---- */

/* "oid sha256:<64>\nsize <n>\n" after the mark's line. */
static bool parse_pointer(const char *text, struct lfs_file *ret)
{
	const char *oid = strstr(text, "\noid sha256:"), *size = strstr(text, "\nsize ");
	int64_t n = 0;

	if (!str_starts(text, POINTER_MARK "\n") || !oid || !size)
		return false;
	oid += strlen("\noid sha256:");
	size += strlen("\nsize ");
	AUTO_FREE char *number = mem_strndup(size, strcspn(size, "\n"));
	if (strspn(oid, "0123456789abcdef") != OID_LEN || str_to_i64(number, "size", 0, LFS_BYTES_MAX, &n, NULL) != ERR_OK)
		return false;
	ret->oid = mem_strndup(oid, OID_LEN);
	ret->size = n;
	return true;
}

/* Names of the files that hold the mark: one process, whatever their number. */
static enum err_code grep(const char *store, const char *commit, struct strbuf *ret, struct error *e)
{
	const struct git g = { .git_dir = store };
	int status = 0;

	TRY(git_try(&g, (const char *const[]){ "grep", "-l", "-z", "--full-name", "--no-color", "-I", "-F", "-e", POINTER_MARK, commit, "--", NULL }, NULL, 0, ret, NULL, &status, e));
	return status <= 1 ? ERR_OK : error_set(e, ERR_FAILED, "look for the files of git-lfs: git grep ended with status %d", status);
}

static enum err_code read_pointer(const char *store, const char *commit, const char *path, struct lfs_list *list, struct error *e)
{
	const struct git g = { .git_dir = store };
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(POINTER_MAX);
	AUTO_FREE char *blob = mem_printf("%s:%s", commit, path);
	struct lfs_file file = { .path = NULL };
	int status = 0;
	struct error ignored = ERROR_INIT;

	if (git_try(&g, (const char *const[]){ "cat-file", "blob", blob, NULL }, NULL, 0, &text, NULL, &status, &ignored) != ERR_OK || status != 0 ||
	    text.over || !parse_pointer(strbuf_str(&text), &file))
		return ERR_OK; /* it only speaks of them */
	if (list->n >= LFS_FILES_MAX) {
		free(file.oid);
		return error_set(e, ERR_LIMIT, "git-lfs keeps more than %d files of it", LFS_FILES_MAX);
	}
	if ((list->n & (list->n + 1)) == 0) /* 0, 1, 3, 7: grow to twice */
		list->v = mem_grow(list->v, (list->n * 2 + 2) * sizeof(*list->v));
	file.path = mem_strdup(path);
	list->v[list->n++] = file;
	return ERR_OK;
}

static enum err_code find_pointers(const struct mirror_found *found, struct lfs_list *list, struct error *e)
{
	AUTO_STRBUF struct strbuf names = STRBUF_LIMIT(GIT_OUTPUT_MAX);
	size_t prefix = strlen(found->commit) + 1; /* "<commit>:path" */
	int64_t total = 0;

	TRY(grep(found->store, found->commit, &names, e));
	for (const char *at = strbuf_str(&names), *end = at + names.len; at < end; at += strlen(at) + 1)
		if (strlen(at) > prefix)
			TRY(read_pointer(found->store, found->commit, at + prefix, list, e));
	for (size_t i = 0; i < list->n; i++) {
		list->v[i].kept = mem_printf("%s/lfs/%s", found->store_dir, list->v[i].oid);
		total += list->v[i].size;
	}
	if (total > LFS_BYTES_MAX)
		return error_set(e, ERR_LIMIT, "git-lfs keeps %lld bytes of it, at most %lld are fetched", (long long)total, (long long)LFS_BYTES_MAX);
	if (list->n)
		qsort(list->v, list->n, sizeof(*list->v), by_path);
	return ERR_OK;
}

/* ---- the server ---- */

static struct js *make_question(const struct lfs_file *const *files, size_t n)
{
	struct js *o = js_object(), *objects = js_array(), *transfers = js_array();

	for (size_t i = 0; i < n; i++) {
		struct js *one = js_object();

		js_set_str(one, "oid", files[i]->oid);
		js_set_int(one, "size", files[i]->size);
		js_push(objects, one);
	}
	js_push_str(transfers, "basic");
	js_set_str(o, "operation", "download");
	js_set(o, "transfers", transfers);
	js_set(o, "objects", objects);
	js_set_str(o, "hash_algo", "sha256");
	return o;
}

static const struct js *answer_for(const struct js *answer, const char *oid)
{
	const struct js *objects = js_get(answer, "objects");

	for (size_t i = 0; i < js_len(objects); i++)
		if (str_eq(js_str(js_at(objects, i), "oid"), oid))
			return js_at(objects, i);
	return NULL;
}

static enum err_code get_one(struct lfs_road *road, const struct lfs_file *file, const struct js *answer, struct error *e)
{
	const struct js *one = answer_for(answer, file->oid), *action = js_path(one, "actions.download");

	if (js_get(one, "error"))
		return error_set(e, ERR_NOT_FOUND, "'%s': the server does not have it: %.200s", file->path, js_str_or(js_get(one, "error"), "message", "no reason given"));
	if (!js_str(action, "href"))
		return error_set(e, ERR_NOT_FOUND, "'%s': the server does not say where it is", file->path);
	if (lfs_get_file(road, js_str(action, "href"), js_get(action, "header"), file, e) != ERR_OK)
		return error_wrap(e, "'%s'", file->path);
	return ERR_OK;
}

static enum err_code get_batch(struct lfs_road *road, const struct lfs_file *const *files, size_t n, struct error *e)
{
	AUTO_JS struct js *question = make_question(files, n);
	AUTO_JS struct js *answer = NULL;

	TRY(lfs_ask(road, question, &answer, e));
	for (size_t i = 0; i < n; i++)
		if (!file_exists(files[i]->kept)) /* two paths may have one content */
			TRY(get_one(road, files[i], answer, e));
	return ERR_OK;
}

static enum err_code get_missing(struct lfs_road *road, const struct lfs_list *list, struct report *report, struct error *e)
{
	const struct lfs_file *batch[BATCH_MAX];
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++) {
		if (!file_exists(list->v[i].kept))
			batch[n++] = &list->v[i];
		if (n && (n == BATCH_MAX || i + 1 == list->n)) {
			report_progress(report, "lfs", (int)(i * 100 / list->n), "fetching what git-lfs keeps");
			TRY(get_batch(road, batch, n, e));
			n = 0;
		}
	}
	return ERR_OK;
}

enum err_code lfs_fetch(struct fetch *f, const struct mirror_want *of, const struct mirror_found *found, struct lfs_list *ret, struct error *e)
{
	AUTO(lfs_road_close) struct lfs_road *road = NULL;
	AUTO_FREE char *dir = file_join(found->store_dir, "lfs");

	TRY(find_pointers(found, ret, e));
	if (ret->n == 0)
		return ERR_OK;
	TRY(file_mkdirs(dir, 0700, e));
	TRY(lfs_road_open(f, of, &road, e));
	if (get_missing(road, ret, &f->report, e) != ERR_OK)
		return error_wrap(e, "git-lfs files of '%s'", of->url);
	return ERR_OK;
}
