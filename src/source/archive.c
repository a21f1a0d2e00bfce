/* The job kind `archive`: a file that was uploaded, as a commit.  The same bytes are unpacked once; the same files give the same tree,
 * and the same commit, as a directory of them. */
#include "source/archive.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/fetch_kinds.h"
#include "source/git.h"
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define HASH_BLOCK ((size_t)1 << 20)
#define RESULT_MAX ((size_t)1 << 20)
#define RESULT_FILE "result.json" /* in the store's directory, written last: what it has is whole */
#define COMMIT_HEAD "author Signalbox <signalbox@localhost> 946684800 +0000\ncommitter Signalbox <signalbox@localhost> 946684800 +0000\n\nThe directory as it is\n"
#define SNAPSHOT_REF "refs/signalbox/snapshot"
/* Above all that a .gitattributes says: files as they are. */
#define NEUTRAL_ATTRIBUTES "* -text -crlf -eol -ident -filter -working-tree-encoding\n"

struct unpacked {
	struct fetch *fetch;
	struct archive_job job;
	struct cache_store store;
	struct js *limits;
	char *key, *result_path;
	struct js *done;
	char *tree, *commit;
};

static void unpacked_release(struct unpacked *a)
{
	cache_store_close(&a->store);
	js_free(a->limits);
	js_free(a->done);
	free(a->key);
	free(a->result_path);
	free(a->tree);
	free(a->commit);
	if (a->job.fd >= 0)
		close(a->job.fd);
}

/* ---- which store ---- */

static enum err_code hash_file(int fd, struct strbuf *out, struct error *e)
{
	AUTO_FREE char *block = mem_alloc(HASH_BLOCK);
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int digest_len = 0;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
	off_t at = 0;
	ssize_t n = 0;

	while (ok && (n = pread(fd, block, HASH_BLOCK, at)) > 0) {
		ok = EVP_DigestUpdate(ctx, block, (size_t)n);
		at += n;
	}
	ok = ok && EVP_DigestFinal_ex(ctx, digest, &digest_len);
	EVP_MD_CTX_free(ctx);
	if (n < 0)
		return error_errno(e, "read the archive");
	if (!ok)
		return error_set(e, ERR_INTERNAL, "the archive's hash could not be made");
	str_add_hex(out, digest, digest_len);
	return ERR_OK;
}

static enum err_code make_key(struct unpacked *a, struct error *e)
{
	struct strbuf key = STRBUF_INIT;
	enum err_code rc = hash_file(a->job.fd, &key, e);

	if (js_flag(a->limits, "keep_top", false))
		strbuf_adds(&key, " with its top");
	a->key = strbuf_detach(&key);
	return rc;
}

static struct js *known_result(const struct unpacked *a)
{
	struct error ignored = ERROR_INIT;
	struct js *known = file_exists(a->result_path) ? js_load(a->result_path, RESULT_MAX, &ignored) : NULL;

	if (known && git_is_commit_id(js_str(known, "commit")))
		return known;
	js_free(known);
	return NULL;
}

/* What an earlier attempt has left is not worth keeping: its pack may be a part. */
static enum err_code open_store(struct unpacked *a, struct js **ret_known, struct error *e)
{
	const char *cache = a->fetch->cache;

	TRY(cache_store_open(cache, "archive", "archive", a->key, &a->fetch->report, &a->store, e));
	a->result_path = file_join(a->store.dir, RESULT_FILE);
	*ret_known = known_result(a);
	if (*ret_known)
		return ERR_OK;
	TRY(file_remove_tree(a->store.repo, e));
	cache_store_close(&a->store);
	TRY(cache_store_open(cache, "archive", "archive", a->key, &a->fetch->report, &a->store, e));
	*ret_known = known_result(a); /* somebody may have been faster */
	return ERR_OK;
}

/* ---- as git would have taken the directory ---- */

/* Files whose attributes have git store them otherwise than they lie there (line ends, encodings), and those that an ignore rule beside
 * a repository keeps out: git decides, over the files themselves. */
static enum err_code add_files(const struct git *laid, const struct git *added, bool with_ignored, struct error *e)
{
	AUTO_STRBUF struct strbuf names = STRBUF_LIMIT(GIT_OUTPUT_MAX);

	if (with_ignored)
		TRY(git_run(laid, (const char *const[]){ "ls-files", "-z", NULL }, NULL, 0, &names, e));
	else
		TRY(git_run(added, (const char *const[]){ "ls-files", "-z", "-o", "--exclude-standard", NULL }, NULL, 0, &names, e));
	return git_run(added, (const char *const[]){ "update-index", "-z", "--add", "--stdin", NULL }, strbuf_str(&names), names.len, NULL, e);
}

static enum err_code take_again(struct unpacked *a, const char *tree_dir, const char *attributes, bool with_ignored, struct error *e)
{
	AUTO_FREE char *laid_index = file_join(tree_dir, "../laid.index");
	AUTO_FREE char *added_index = file_join(tree_dir, "../added.index");
	const struct git laid = { .git_dir = a->store.repo, .work_tree = tree_dir, .index = laid_index };
	const struct git added = { .git_dir = a->store.repo, .work_tree = tree_dir, .index = added_index, .cwd = tree_dir };

	(void)unlink(laid_index);
	(void)unlink(added_index);
	TRY(git_run(&laid, (const char *const[]){ "read-tree", a->tree, NULL }, NULL, 0, NULL, e));
	TRY(file_replace(attributes, NEUTRAL_ATTRIBUTES, strlen(NEUTRAL_ATTRIBUTES), 0600, FILE_NOSYNC, e));
	TRY(git_run(&laid, (const char *const[]){ "checkout-index", "-a", "-q", NULL }, NULL, 0, NULL, e));
	if (unlink(attributes) < 0)
		return error_errno(e, "remove '%s'", attributes);
	TRY(add_files(&laid, &added, with_ignored, e));
	free(a->tree);
	a->tree = NULL;
	TRY(git_line(&added, (const char *const[]){ "write-tree", NULL }, &a->tree, e));
	(void)unlink(laid_index);
	(void)unlink(added_index);
	return ERR_OK;
}

static enum err_code normalise(struct unpacked *a, struct error *e)
{
	bool without_ignored = js_flag(a->done, "has_git", false) && js_flag(a->done, "has_ignore", false);
	AUTO_FREE char *tree_dir = file_join(a->store.dir, "tree");
	AUTO_FREE char *info = file_join(a->store.repo, "info");
	AUTO_FREE char *attributes = file_join(info, "attributes");
	enum err_code rc;

	if (!without_ignored && !js_flag(a->done, "has_attributes", false))
		return ERR_OK;
	TRY(file_remove_tree(tree_dir, e));
	TRY(file_mkdirs(tree_dir, 0700, e));
	TRY(file_mkdirs(info, 0700, e));
	rc = take_again(a, tree_dir, attributes, !without_ignored, e);
	if (file_remove_tree(tree_dir, rc ? NULL : e) != ERR_OK && !rc)
		return e->code;
	return rc;
}

/* ---- the commit ---- */

static enum err_code make_commit(struct unpacked *a, struct error *e)
{
	const struct git g = { .git_dir = a->store.repo, .cwd = "/" };
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	strbuf_addf(&text, "tree %s\n" COMMIT_HEAD, a->tree);
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	TRY(git_run(&g, (const char *const[]){ "hash-object", "-t", "commit", "-w", "--stdin", NULL }, text.data, text.len, &out, e));
	a->commit = mem_strndup(strbuf_str(&out), strcspn(strbuf_str(&out), "\n"));
	if (!git_is_commit_id(a->commit))
		return error_set(e, ERR_INTERNAL, "git gave no commit id");
	TRY(git_run(&g, (const char *const[]){ "update-ref", SNAPSHOT_REF, a->commit, NULL }, NULL, 0, NULL, e));
	return git_run(&g, (const char *const[]){ "update-ref", "-d", "refs/signalbox/unpacked", NULL }, NULL, 0, NULL, e);
}

static void add_warnings(const struct unpacked *a, struct js *warnings)
{
	const char *top = js_str(a->done, "top"), *first = js_str(a->done, "first_left_out");
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	if (top) {
		strbuf_adds(&text, "all of the archive lies in '");
		str_add_printable(&text, top, strlen(top));
		strbuf_adds(&text, "/': that directory was taken as the top (keep_top: true keeps it)");
		js_push_str(warnings, strbuf_str(&text));
		strbuf_reset(&text);
	}
	if (first) {
		strbuf_addf(&text, "%lld entries are no part of a source and were left out (.git, .codex/tasks, __MACOSX); the first is '",
			(long long)js_i64(a->done, "left_out", 0));
		str_add_printable(&text, first, strlen(first) > UINT8_MAX ? UINT8_MAX : strlen(first));
		strbuf_adds(&text, "'");
		js_push_str(warnings, strbuf_str(&text));
	}
}

static enum err_code keep_result(const struct unpacked *a, const struct js *result, struct error *e)
{
	AUTO_FREE char *text = js_dump(result);

	return file_replace(a->result_path, text, strlen(text), 0600, FILE_NOSYNC, e);
}

static enum err_code make(struct unpacked *a, struct js *result, struct error *e)
{
	TRY(cache_store_begin(&a->store, e));
	TRY(archive_import(&a->job, &a->store, &a->done, &a->tree, e));
	TRY(normalise(a, e));
	TRY(make_commit(a, e));
	cache_store_end(&a->store);
	add_warnings(a, js_get(result, "warnings"));
	js_set_str(result, "store", a->store.repo);
	js_set_str(result, "commit", a->commit);
	js_set_str(result, "tree", a->tree);
	js_set(result, "head", js_null());
	js_set(result, "branch", js_null());
	js_set(result, "top", js_string(js_str(a->done, "top")));
	js_set_int(result, "files", js_i64(a->done, "files", 0));
	js_set_int(result, "bytes", js_i64(a->done, "bytes", 0));
	return keep_result(a, result, e);
}

static enum err_code take_job(struct unpacked *a, struct error *e)
{
	static const char *const members[] = { "files", "bytes", "file_bytes", "ratio", "keep_top", NULL };
	int64_t fd = -1;

	TRY(js_want_i64(a->fetch->job, "job", "fd", 0, INT32_MAX, &fd, e));
	if (fd <= STDERR_FILENO)
		return error_set(e, ERR_INVALID, "an archive job needs the descriptor of its file");
	a->job.fd = (int)fd;
	if (js_type(js_get(a->fetch->job, "limits")) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "an archive job needs limits");
	TRY(js_check_members(js_get(a->fetch->job, "limits"), "job.limits", members, e));
	a->limits = js_copy(js_get(a->fetch->job, "limits"));
	a->job.limits = a->limits;
	a->job.report = &a->fetch->report;
	a->job.uid = geteuid();
	a->job.gid = getegid();
	return lseek(a->job.fd, 0, SEEK_SET) < 0 ? error_errno(e, "read the archive from its start") : ERR_OK;
}

enum err_code fetch_archive(struct fetch *f, struct js *result, struct error *e)
{
	AUTO(unpacked_release) struct unpacked a = { .fetch = f, .store = CACHE_STORE_INIT, .job = { .fd = -1 } };
	AUTO_JS struct js *known = NULL;

	TRY(take_job(&a, e));
	TRY(archive_leave_network(e));
	TRY(make_key(&a, e));
	TRY(open_store(&a, &known, e));
	if (known) {
		js_merge(result, known);
		return ERR_OK;
	}
	return make(&a, result, e);
}
