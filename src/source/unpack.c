/* signalbox-unpack: reads an archive with libarchive, checks each entry, writes the stream; see unpack.h. */
#include "source/unpack_input.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define READ_BLOCK UNPACK_BLOCK
#define WRITE_BLOCK ((size_t)256 << 10)
#define FILTERS_MAX 2 /* compression, and the bottom */
#define HEAD_LEN 4
#define EOF_MARK 512  /* bytes of zeros that end a tar */
#define REASON_MAX ((size_t)300)

struct unpack {
	struct unpack_limits limits;
	struct unpack_list list;
	struct archive *archive;
	struct gunzip *gunzip; /* NULL: it is no gzip */
	int64_t archive_bytes, entries;
	int64_t taken, skipped; /* bytes of content so far */
	uint32_t marks;
	int64_t left_out;
	bool has_git;
	char *first_left_out, *last; /* names; last: of the entry before */
	struct strbuf out;
	unsigned char block[READ_BLOCK];
};

/* ---- in and out ---- */

static la_ssize_t on_read(struct archive *a, void *ctx, const void **ret)
{
	struct unpack *u = ctx;
	const char *why = NULL;
	ssize_t n;

	if (u->gunzip) {
		n = gunzip_read(u->gunzip, ret, &why);
		if (n < 0)
			archive_set_error(a, EILSEQ, "%s", why);
		return n;
	}
	do
		n = read(STDIN_FILENO, u->block, sizeof(u->block));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		archive_set_error(a, errno, "the file cannot be read");
	*ret = u->block;
	return n;
}

static la_int64_t on_seek(struct archive *a, void *ctx, la_int64_t offset, int whence)
{
	off_t at = lseek(STDIN_FILENO, offset, whence);

	(void)ctx;
	if (at < 0)
		archive_set_error(a, errno, "the file cannot be read at %lld", (long long)offset);
	return at < 0 ? ARCHIVE_FATAL : at;
}

static la_int64_t on_skip(struct archive *a, void *ctx, la_int64_t request)
{
	(void)a, (void)ctx;
	return lseek(STDIN_FILENO, request, SEEK_CUR) < 0 ? 0 : request;
}

static enum err_code flush(struct unpack *u, struct error *e)
{
	enum err_code rc = u->out.len ? file_write_all(STDOUT_FILENO, u->out.data, u->out.len, e) : ERR_OK;

	strbuf_reset(&u->out);
	return rc ? error_wrap(e, "write the stream") : ERR_OK;
}

static enum err_code put(struct unpack *u, const void *data, size_t n, struct error *e)
{
	if (n >= WRITE_BLOCK) {
		TRY(flush(u, e));
		return file_write_all(STDOUT_FILENO, data, n, e);
	}
	strbuf_add(&u->out, data, n);
	return u->out.len >= WRITE_BLOCK ? flush(u, e) : ERR_OK;
}

static void say(const char *name, struct js *taken)
{
	AUTO_JS struct js *line = js_object();
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	js_set(line, name, taken);
	js_dump_to(line, &text);
	strbuf_addc(&text, '\n');
	if (file_write_all(UNPACK_REPORT_FD, text.data, text.len, NULL) != ERR_OK)
		return; /* nobody listens any more */
}

/* ---- errors ---- */

static void add_reason(struct unpack *u, struct strbuf *out)
{
	const char *why = archive_error_string(u->archive);

	unpack_add_shown(out, why && *why ? why : "it is damaged", REASON_MAX);
}

static enum err_code damaged_header(struct unpack *u, struct error *e)
{
	AUTO_STRBUF struct strbuf why = STRBUF_INIT;

	add_reason(u, &why);
	if (u->last) {
		unpack_refuse(e, ERR_INVALID, u->last, "is the last that can be read; what follows is damaged or cut short: %s", strbuf_str(&why));
	} else {
		error_set(e, ERR_INVALID, "the file is no archive that can be read: %s", strbuf_str(&why));
		error_hint(e, "expected zip, tar, tar.gz, tar.zst or tar.xz, whole");
	}
	return ERR_INVALID;
}

static enum err_code damaged_entry(struct unpack *u, const char *name, struct error *e)
{
	AUTO_STRBUF struct strbuf why = STRBUF_INIT;

	add_reason(u, &why);
	return unpack_refuse(e, ERR_INVALID, name, "is damaged or cut short: %s", strbuf_str(&why));
}

/* ---- limits ---- */

static enum err_code check_growth(struct unpack *u, const char *name, int64_t size, struct error *e)
{
	int64_t all = u->taken + u->skipped;

	if (size > u->limits.file_bytes)
		return unpack_refuse(e, ERR_TOO_LARGE, name, "has %lld bytes, at most %lld are allowed (limits.archive_file)", (long long)size, (long long)u->limits.file_bytes);
	if (size > u->limits.bytes || all > u->limits.bytes - size)
		return unpack_refuse(e, ERR_TOO_LARGE, name, "goes over the limit: all files together have more than %lld bytes (limits.archive_bytes)", (long long)u->limits.bytes);
	if (all + size > UNPACK_RATIO_FREE && (all + size - UNPACK_RATIO_FREE) / u->limits.ratio > u->archive_bytes)
		return unpack_refuse(e, ERR_TOO_LARGE, name, "makes the archive grow to more than %lld times its size (limits.archive_ratio)", (long long)u->limits.ratio);
	return ERR_OK;
}

static enum err_code check_counts(struct unpack *u, const char *name, struct error *e)
{
	u->entries++;
	if ((int64_t)u->marks > u->limits.files || u->entries > u->limits.files * UNPACK_ENTRIES_PER_FILE)
		return unpack_refuse(e, ERR_TOO_LARGE, name, "is one too many: at most %lld files are allowed (limits.archive_files)", (long long)u->limits.files);
	return ERR_OK;
}

/* ---- contents ---- */

static enum err_code begin_blob(struct unpack *u, int64_t size, uint32_t *ret_mark, struct error *e)
{
	AUTO_STRBUF struct strbuf head = STRBUF_INIT;

	*ret_mark = ++u->marks;
	strbuf_addf(&head, "blob\nmark :%u\ndata %lld\n", (unsigned)*ret_mark, (long long)size);
	return put(u, head.data, head.len, e);
}

static enum err_code copy_data(struct unpack *u, const char *name, int64_t size, struct error *e)
{
	AUTO_FREE char *buffer = mem_alloc(READ_BLOCK);
	int64_t left = size;
	la_ssize_t n;

	while ((n = archive_read_data(u->archive, buffer, READ_BLOCK)) > 0) {
		if (n > left)
			return unpack_refuse(e, ERR_INVALID, name, "is longer than it says: %lld bytes", (long long)size);
		TRY(put(u, buffer, (size_t)n, e));
		left -= n;
	}
	if (n < 0)
		return damaged_entry(u, name, e);
	if (left)
		return unpack_refuse(e, ERR_INVALID, name, "is damaged or cut short: %lld of its %lld bytes are not there", (long long)left, (long long)size);
	return ERR_OK;
}

static enum err_code take_file(struct unpack *u, struct archive_entry *x, const char *name, struct unpack_entry *ret, struct error *e)
{
	int64_t size = archive_entry_size(x);

	if (!archive_entry_size_is_set(x) || size < 0)
		return unpack_refuse(e, ERR_INVALID, name, "does not say how long it is");
	TRY(check_growth(u, name, size, e));
	ret->kind = UNPACK_FILE;
	ret->size = size;
	ret->executable = archive_entry_perm(x) & S_IXUSR;
	TRY(begin_blob(u, size, &ret->mark, e));
	TRY(copy_data(u, name, size, e));
	u->taken += size;
	return put(u, "\n", 1, e);
}

static enum err_code take_link(struct unpack *u, struct archive_entry *x, struct unpack_entry *ret, struct error *e)
{
	const char *target = archive_entry_symlink(x);

	ret->kind = UNPACK_LINK;
	ret->target = mem_strdup(target ? target : "");
	TRY(unpack_target_check(ret->path, ret->target, e));
	ret->size = (int64_t)strlen(ret->target);
	TRY(begin_blob(u, ret->size, &ret->mark, e));
	TRY(put(u, ret->target, strlen(ret->target), e));
	return put(u, "\n", 1, e);
}

static enum err_code take_hard_link(struct archive_entry *x, const char *name, struct unpack_entry *ret, struct error *e)
{
	enum unpack_verdict verdict = UNPACK_TAKE;
	struct error inner = ERROR_INIT;

	ret->kind = UNPACK_HARD;
	if (unpack_name_check(archive_entry_hardlink(x), &ret->target, &verdict, &inner) != ERR_OK)
		return unpack_refuse(e, ERR_INVALID, name, "is a hard link that leads out or nowhere: %s", inner.text);
	if (verdict != UNPACK_TAKE)
		return unpack_refuse(e, ERR_INVALID, name, "is a hard link to '%.*s', which is not taken", (int)UNPACK_SHOWN_MAX, ret->target);
	return ERR_OK;
}

/* ---- entries ---- */

static enum err_code check_type(struct archive_entry *x, const char *name, struct error *e)
{
	static const struct { unsigned type; const char *what; } not_ours[] = {
		{ AE_IFCHR, "a character device" }, { AE_IFBLK, "a block device" }, { AE_IFIFO, "a named pipe" }, { AE_IFSOCK, "a socket" },
	};
	unsigned type = archive_entry_filetype(x);

	if (archive_entry_is_encrypted(x))
		return unpack_refuse(e, ERR_INVALID, name, "is encrypted");
	for (size_t i = 0; i < ARRAY_SIZE(not_ours); i++)
		if (type == not_ours[i].type)
			return unpack_refuse(e, ERR_INVALID, name, "is %s; only files, directories and links are taken", not_ours[i].what);
	if (archive_entry_hardlink(x) || type == AE_IFREG || type == AE_IFDIR || type == AE_IFLNK)
		return ERR_OK;
	return unpack_refuse(e, ERR_INVALID, name, "is of an unknown type");
}

static enum err_code take_content(struct unpack *u, struct archive_entry *x, const char *name, struct unpack_entry *ret, struct error *e)
{
	TRY(check_type(x, name, e));
	if (archive_entry_hardlink(x))
		return take_hard_link(x, name, ret, e);
	if (archive_entry_filetype(x) == AE_IFLNK)
		return take_link(u, x, ret, e);
	if (archive_entry_filetype(x) == AE_IFREG)
		return take_file(u, x, name, ret, e);
	ret->kind = UNPACK_DIR;
	return ERR_OK;
}

static enum err_code leave_out(struct unpack *u, struct archive_entry *x, const char *name, enum unpack_verdict why, struct error *e)
{
	int64_t size = archive_entry_size_is_set(x) && archive_entry_size(x) > 0 ? archive_entry_size(x) : 0;

	TRY(check_growth(u, name, size, e));
	u->skipped += size;
	u->left_out++;
	u->has_git = u->has_git || why == UNPACK_LEAVE_GIT;
	if (!u->first_left_out)
		u->first_left_out = mem_strdup(name);
	return ERR_OK;
}

static enum err_code take_named(struct unpack *u, struct archive_entry *x, const char *name, struct error *e)
{
	struct unpack_entry taken = { .path = NULL };
	enum unpack_verdict verdict = UNPACK_TAKE;
	enum err_code rc = unpack_name_check(name, &taken.path, &verdict, e);

	if (!rc && verdict == UNPACK_TAKE)
		rc = take_content(u, x, name, &taken, e);
	else if (!rc && verdict == UNPACK_IS_TOP && archive_entry_filetype(x) != AE_IFDIR)
		rc = unpack_refuse(e, ERR_INVALID, name, "names the top directory, and is none");
	else if (!rc && verdict != UNPACK_IS_TOP)
		rc = leave_out(u, x, name, verdict, e);
	if (!rc)
		rc = check_counts(u, name, e);
	if (!rc && verdict == UNPACK_TAKE)
		return unpack_list_add(&u->list, &taken, e);
	free(taken.path);
	free(taken.target);
	return rc;
}

static enum err_code take_entry(struct unpack *u, struct archive_entry *x, struct error *e)
{
	const char *name = archive_entry_pathname(x);

	if (!name)
		name = archive_entry_pathname_utf8(x);
	if (!name)
		return unpack_refuse(e, ERR_INVALID, u->last ? u->last : "", "is followed by one whose name is no valid text");
	TRY(take_named(u, x, name, e));
	free(u->last);
	u->last = mem_strdup(name);
	return ERR_OK;
}

/* libarchive takes the end of the file for the end of a tar; a tar says so itself. */
static enum err_code check_end(struct unpack *u, int64_t content_end, struct error *e)
{
	bool is_tar = (archive_format(u->archive) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR;

	if (!is_tar || archive_filter_bytes(u->archive, 0) - content_end >= EOF_MARK)
		return ERR_OK;
	return unpack_refuse(e, ERR_INVALID, u->last ? u->last : "", "is the last that is there; the archive is cut short: its end mark is missing");
}

static enum err_code read_all(struct unpack *u, struct error *e)
{
	struct archive_entry *x;
	int64_t content_end = 0;
	int r;

	while ((r = archive_read_next_header(u->archive, &x)) != ARCHIVE_EOF) {
		if (r < ARCHIVE_WARN)
			return damaged_header(u, e);
		if (archive_filter_count(u->archive) + (u->gunzip != NULL) > FILTERS_MAX)
			return error_set(e, ERR_INVALID, "the archive is compressed more than once");
		TRY(take_entry(u, x, e));
		if (archive_read_data_skip(u->archive) < ARCHIVE_WARN)
			return damaged_entry(u, u->last, e);
		content_end = archive_filter_bytes(u->archive, 0);
	}
	TRY(check_end(u, content_end, e));
	return u->gunzip ? gunzip_finish(u->gunzip, u->last ? u->last : "", e) : ERR_OK;
}

/* ---- the tree ---- */

static void add_path(struct strbuf *out, const char *path)
{
	strbuf_addc(out, '"');
	for (; *path; path++) {
		if (*path == '"' || *path == '\\')
			strbuf_addc(out, '\\');
		strbuf_addc(out, *path);
	}
	strbuf_adds(out, "\"\n");
}

static enum err_code write_tree(struct unpack *u, struct error *e)
{
	static const char head[] = "commit refs/signalbox/unpacked\ncommitter Signalbox <signalbox@localhost> 0 +0000\ndata 0\n";
	static const char end[] = "ls \"\"\ndone\n";

	TRY(put(u, head, strlen(head), e));
	for (size_t i = 0; i < u->list.n; i++) {
		const struct unpack_entry *x = &u->list.v[i];
		AUTO_STRBUF struct strbuf line = STRBUF_INIT;

		if (x->kind == UNPACK_DIR)
			continue;
		strbuf_addf(&line, "M %s :%u ", x->kind == UNPACK_LINK ? "120000" : x->executable ? "100755" : "100644", (unsigned)x->mark);
		add_path(&line, x->path);
		TRY(put(u, line.data, line.len, e));
	}
	TRY(put(u, end, strlen(end), e));
	return flush(u, e);
}

static enum err_code open_archive(struct unpack *u, struct error *e)
{
	struct archive *a = u->archive = archive_read_new();

	CHECK(a);
	archive_read_support_filter_gzip(a); /* of a gzip within: refused by name */
	archive_read_support_filter_zstd(a);
	archive_read_support_filter_xz(a);
	archive_read_support_format_tar(a);
	archive_read_set_read_callback(a, on_read);
	if (!u->gunzip) {
		archive_read_support_format_zip_seekable(a);
		archive_read_set_seek_callback(a, on_seek);
		archive_read_set_skip_callback(a, on_skip);
	}
	archive_read_set_callback_data(a, u);
	return archive_read_open1(a) == ARCHIVE_OK ? ERR_OK : damaged_header(u, e);
}

static enum err_code look_at_head(struct unpack *u, struct error *e)
{
	unsigned char head[HEAD_LEN];
	ssize_t n = pread(STDIN_FILENO, head, sizeof(head), 0);

	if (n < 0)
		return error_errno(e, "read the archive");
	if (gunzip_is_gzip(head, (size_t)n))
		u->gunzip = gunzip_new();
	else
		TRY(unpack_zip_check(STDIN_FILENO, u->archive_bytes, e));
	return ERR_OK;
}

static enum err_code work(struct unpack *u, struct error *e)
{
	static const char feature[] = "feature done\n";

	TRY(look_at_head(u, e));
	TRY(open_archive(u, e));
	TRY(put(u, feature, strlen(feature), e));
	TRY(read_all(u, e));
	TRY(unpack_list_settle(&u->list, &u->limits, e));
	return write_tree(u, e);
}

static struct js *done(const struct unpack *u)
{
	struct js *o = js_object();

	js_set_int(o, "files", (int64_t)u->list.files);
	js_set_int(o, "bytes", u->list.bytes);
	js_set(o, "top", js_string(u->list.top));
	js_set_bool(o, "has_git", u->has_git);
	js_set_bool(o, "has_attributes", unpack_list_has_name(&u->list, ".gitattributes"));
	js_set_bool(o, "has_ignore", unpack_list_has_name(&u->list, ".gitignore"));
	js_set_int(o, "left_out", u->left_out);
	js_set(o, "first_left_out", js_string(u->first_left_out));
	return o;
}

static enum err_code read_limits(struct unpack *u, const char *text, struct error *e)
{
	struct stat st;
	AUTO_JS struct js *o = js_parse(text, strlen(text), e);

	if (!o)
		return e->code;
	TRY(js_want_i64(o, "limits", "files", 1, INT32_MAX, &u->limits.files, e));
	TRY(js_want_i64(o, "limits", "bytes", 1, INT64_MAX / 4, &u->limits.bytes, e));
	TRY(js_want_i64(o, "limits", "file_bytes", 1, INT64_MAX / 4, &u->limits.file_bytes, e));
	TRY(js_want_i64(o, "limits", "ratio", 1, INT32_MAX, &u->limits.ratio, e));
	u->limits.keep_top = js_flag(o, "keep_top", false);
	if (fstat(STDIN_FILENO, &st) < 0 || !S_ISREG(st.st_mode))
		return error_set(e, ERR_INVALID, "the archive is no file");
	u->archive_bytes = st.st_size;
	u->out.max = WRITE_BLOCK * 4;
	return ERR_OK;
}

int main(int argc, char **argv)
{
	struct unpack *u = NEW(struct unpack);
	struct error e = ERROR_INIT;
	enum err_code rc = argc == 2 ? read_limits(u, argv[1], &e) : error_set(&e, ERR_USAGE, "signalbox-unpack is started by `signalbox fetch`");

	setlocale(LC_CTYPE, "C.UTF-8"); /* names are UTF-8, whoever started us */
	if (rc == ERR_OK)
		rc = unpack_walls_close(&e);
	if (rc == ERR_OK)
		rc = work(u, &e);
	if (rc == ERR_OK) {
		say("done", done(u));
	} else {
		struct js *o = js_object();
		js_set_str(o, "code", err_name(e.code));
		js_set_str(o, "text", e.text);
		js_set_str(o, "hint", e.hint);
		say("error", o);
	}
	_exit(rc == ERR_OK ? 0 : 1); /* nothing is to be flushed, and the walls leave nothing to clean up with */
}
