/* With -z, git prints in one go: `:modes ids S` NUL path NUL [path NUL] for each file, then `added TAB deleted TAB path` NUL (a rename:
 * `added TAB deleted TAB` NUL old NUL new NUL) for each file in the same order, then an empty token, then the patch. */
#include "source/diff_read.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/diff_walk.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define TOKEN_MAX ((size_t)64 << 10)
#define COUNT_MAX ((int64_t)1 << 40)

enum part { PART_RAW, PART_RAW_PATH, PART_RAW_NEW_PATH, PART_COUNTS, PART_COUNTS_OLD, PART_COUNTS_NEW, PART_PATCH };

struct reader {
	enum part part;
	struct strbuf token;
	struct js *files; /* in git's order */
	struct js *file;  /* the one being read; borrowed from files */
	size_t counted;
	int64_t added, deleted, bytes, max_bytes;
	bool renamed_link;
	int fd;
};

static void reader_release(struct reader *r)
{
	strbuf_release(&r->token);
	js_free(r->files);
	if (r->fd >= 0)
		close(r->fd);
}

/* ":100644 100755 ID ID R087" */
static void begin_file(struct reader *r, const char *token)
{
	const char *status = strrchr(token, ' ');
	const char letter[] = { status ? status[1] : 'M', '\0' };

	r->file = js_object();
	js_set_str(r->file, "path", "");
	js_set_str(r->file, "status", letter);
	if (letter[0] == 'R' && str_starts(token, ":120000"))
		r->renamed_link = true;
	js_push(r->files, r->file);
	r->part = PART_RAW_PATH;
}

static void take_path(struct reader *r, const char *token)
{
	bool is_rename = str_eq(js_str(r->file, "status"), "R");

	if (r->part == PART_RAW_PATH && is_rename) {
		diff_set_path(r->file, "old_path", token);
		r->part = PART_RAW_NEW_PATH;
		return;
	}
	diff_set_path(r->file, "path", token);
	r->part = PART_RAW;
}

/* "12 TAB 3 TAB path", or "- TAB - TAB path" for a binary file */
static bool take_counts(struct reader *r, const char *token)
{
	const char *second = strchr(token, '\t'), *third = second ? strchr(second + 1, '\t') : NULL;
	struct js *file = js_at(r->files, r->counted++);
	bool is_binary = token[0] == '-';
	int64_t added = 0, deleted = 0;

	if (!third || !file)
		return false;
	if (!is_binary) {
		AUTO_FREE char *a = mem_strndup(token, (size_t)(second - token));
		AUTO_FREE char *d = mem_strndup(second + 1, (size_t)(third - second - 1));

		if (str_to_i64(a, "added", 0, COUNT_MAX, &added, NULL) != ERR_OK || str_to_i64(d, "deleted", 0, COUNT_MAX, &deleted, NULL) != ERR_OK)
			return false;
	}
	js_set(file, "added", is_binary ? js_null() : js_int(added));
	js_set(file, "deleted", is_binary ? js_null() : js_int(deleted));
	js_set_bool(file, "binary", is_binary);
	r->added += added;
	r->deleted += deleted;
	r->part = third[1] ? PART_COUNTS : PART_COUNTS_OLD;
	return true;
}

static bool take_token(struct reader *r)
{
	const char *token = strbuf_str(&r->token);

	if (r->token.over)
		return false;
	switch (r->part) {
	case PART_RAW_PATH:
	case PART_RAW_NEW_PATH:
		take_path(r, token);
		return true;
	case PART_COUNTS_OLD:
		r->part = PART_COUNTS_NEW;
		return true;
	case PART_COUNTS_NEW:
		r->part = PART_COUNTS;
		return true;
	case PART_RAW:
		if (token[0] == ':') {
			begin_file(r, token);
			return true;
		}
		return take_counts(r, token);
	case PART_COUNTS:
		if (token[0])
			return take_counts(r, token);
		r->part = PART_PATCH;
		return true;
	case PART_PATCH:
		break;
	}
	return false;
}

static bool write_patch(struct reader *r, const char *data, size_t n, struct error *e)
{
	r->bytes += (int64_t)n;
	if (r->max_bytes > 0 && r->bytes > r->max_bytes) {
		error_set(e, ERR_LIMIT, "the diff is larger than its limit of %lld bytes", (long long)r->max_bytes);
		error_hint(e, "have generated files ignored (.gitignore), or raise the limit");
		return false;
	}
	return file_write_all(r->fd, data, n, e) == ERR_OK;
}

static bool take_output(void *ctx, const char *data, size_t n, struct error *e)
{
	struct reader *r = ctx;

	while (n > 0 && r->part != PART_PATCH) {
		const char *nul = memchr(data, '\0', n);
		size_t len = nul ? (size_t)(nul - data) : n;

		strbuf_add(&r->token, data, len);
		data += len;
		n -= len;
		if (!nul)
			continue;
		data++;
		n--;
		if (!take_token(r)) {
			error_set(e, ERR_INTERNAL, "git diff-tree said something unexpected");
			return false;
		}
		strbuf_reset(&r->token);
	}
	return n == 0 || write_patch(r, data, n, e);
}

static enum err_code run(const struct git *g, const char *renames, const char *from, const char *to, struct reader *r, struct error *e)
{
	const struct git_sink sink = { .out = take_output, .ctx = r };
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	int status = 0;

	TRY(git_stream(g, (const char *const[]){ "diff-tree", "-r", "-z", "--raw", "--numstat", "-p", "--binary", "--full-index", renames, "--no-ext-diff",
		"--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/", from, to, NULL }, &sink, &err, &status, e));
	return status == 0 ? ERR_OK : git_failed("git diff-tree", status, strbuf_str(&err), e);
}

static enum err_code start_again(struct reader *r, struct error *e)
{
	int fd = TAKE_FD(r->fd);
	int64_t max_bytes = r->max_bytes;

	reader_release(r);
	*r = (struct reader){ .token = STRBUF_LIMIT(TOKEN_MAX), .files = js_array(), .max_bytes = max_bytes, .fd = fd };
	return ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0 ? error_errno(e, "empty the diff") : ERR_OK;
}

/* `git apply` does not see that a symbolic link goes away when it is renamed whole, and then refuses what comes in its place:
 * such a diff is made without renames. */
static enum err_code run_applicable(const struct git *g, const char *from, const char *to, struct reader *r, struct error *e)
{
	TRY(run(g, "-M", from, to, r, e));
	if (!r->renamed_link)
		return ERR_OK;
	TRY(start_again(r, e));
	return run(g, "--no-renames", from, to, r, e);
}

enum err_code diff_read(const struct git *g, const char *from, const char *to, const char *patch_path, int64_t max_bytes,
	struct js *summary, struct error *e)
{
	AUTO(reader_release) struct reader r = { .token = STRBUF_LIMIT(TOKEN_MAX), .files = js_array(), .max_bytes = max_bytes, .fd = -1 };
	AUTO_FREE char *temp = mem_printf("%s.tmp", patch_path);
	enum err_code code;

	r.fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (r.fd < 0)
		return error_errno(e, "create '%s'", temp);
	code = run_applicable(g, from, to, &r, e);
	if (code == ERR_OK && rename(temp, patch_path) < 0)
		code = error_errno(e, "rename '%s'", temp);
	if (code != ERR_OK) {
		unlink(temp);
		return code;
	}
	js_set(summary, "files", js_ref(r.files));
	js_set_int(summary, "added", r.added);
	js_set_int(summary, "deleted", r.deleted);
	js_set_int(summary, "bytes", r.bytes);
	return ERR_OK;
}
