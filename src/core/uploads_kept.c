/* Uploads that are kept: what is known of them, their use and their end. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include "core/uploads_inside.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_MAX ((size_t)64 << 10)

static const char *const suffixes[] = { ".part", ".data", ".json" }; /* the record goes last: with it the rest can be found */

char *uploads_path(struct core *c, const char *id, const char *suffix)
{
	return mem_printf("%s/uploads/%s%s", c->data, id, suffix);
}

void uploads_unlink(struct core *c, const char *id)
{
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		AUTO_FREE char *path = uploads_path(c, id, suffixes[i]);
		if (unlink(path) < 0 && errno != ENOENT)
			log_warn("upload %s: remove '%s': %s", id, path, strerror(errno));
	}
}

static enum err_code unknown(const char *id, struct error *e)
{
	AUTO_STRBUF struct strbuf shown = STRBUF_INIT;
	size_t n = strlen(id);
	str_add_printable(&shown, id, n > ID_SIZE * 2 ? ID_SIZE * 2 : n);
	error_set(e, ERR_NOT_FOUND, "there is no upload '%s'", strbuf_str(&shown));
	error_hint(e, "it was never made, or nobody used it for as long as limits.upload_age; send the archive again");
	return ERR_NOT_FOUND;
}

/* The file with the bytes, whole or not. */
static bool look(struct core *c, const char *id, bool *ret_whole, struct stat *ret)
{
	AUTO_FREE char *data = uploads_path(c, id, ".data");
	AUTO_FREE char *part = uploads_path(c, id, ".part");
	*ret_whole = lstat(data, ret) == 0;
	return *ret_whole || lstat(part, ret) == 0;
}

static int64_t ms_of(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000 + t->tv_nsec / 1000000;
}

enum err_code upload_get(struct core *c, struct caller by, const char *id, struct js **ret, struct error *e)
{
	struct stat st;
	bool whole;
	char until[RFC3339_SIZE];
	if (!clock_is_id(id) || !look(c, id, &whole, &st))
		return unknown(id, e);
	AUTO_FREE char *path = uploads_path(c, id, ".json");
	AUTO_JS struct js *o = file_exists(path) ? js_load(path, RECORD_MAX, e) : NULL;
	if (!o || !project_has(by.project, js_str_or(o, "project", PROJECT_DEFAULT))) /* it comes in one piece, which is not whole yet; or it is somebody else's */
		return unknown(id, e);
	js_set_int(o, "received", (int64_t)st.st_size);
	js_set_str(o, "state", whole ? "complete" : "partial");
	clock_rfc3339(ms_of(&st.st_mtim) + conf_limit(c->config, "upload_age"), until);
	js_set_str(o, "expires_at", until);
	*ret = js_ref(o);
	return ERR_OK;
}

static void each(struct core *c, void (*fn)(struct core *, const char *id, const char *suffix, void *), void *ctx)
{
	AUTO_FREE char *path = file_join(c->data, "uploads");
	DIR *d = opendir(path);
	for (struct dirent *entry; d && (entry = readdir(d));) {
		AUTO_FREE char *id = mem_strndup(entry->d_name, strcspn(entry->d_name, "."));
		if (clock_is_id(id))
			fn(c, id, entry->d_name + strlen(id), ctx);
	}
	if (d)
		closedir(d);
}

struct listing {
	struct caller by;
	struct js *list;
};

static void add_to_list(struct core *c, const char *id, const char *suffix, void *ctx)
{
	struct listing *l = ctx;
	struct js *o = NULL;
	if (str_eq(suffix, ".json") && upload_get(c, l->by, id, &o, NULL) == ERR_OK)
		js_push(l->list, o);
}

enum err_code upload_list(struct core *c, struct caller by, struct js **ret, struct error *e UNUSED)
{
	struct listing l = { .by = by, .list = js_array() };
	struct js *o = js_object();
	each(c, add_to_list, &l);
	js_set(o, "data", l.list);
	js_set(o, "next_cursor", js_null());
	*ret = o;
	return ERR_OK;
}

enum err_code upload_delete(struct core *c, struct caller by, const char *id, struct error *e)
{
	AUTO_JS struct js *known = NULL;
	enum err_code rc = upload_get(c, by, id, &known, e);
	if (rc)
		return rc;
	if (uploads_is_receiving(c, id))
		return error_set(e, ERR_CONFLICT, "upload %s is being sent", id);
	uploads_unlink(c, id);
	return ERR_OK;
}

enum err_code upload_open(struct core *c, struct caller by, const char *id, int *ret_fd, struct js **ret, struct error *e)
{
	AUTO_JS struct js *known = NULL;
	AUTO_FREE char *path = uploads_path(c, id, ".data");
	enum err_code rc = upload_get(c, by, id, &known, e);
	if (rc)
		return rc;
	if (!str_eq(js_str(known, "state"), "complete")) {
		error_set(e, ERR_CONFLICT, "upload %s is not complete: %lld of %lld bytes have come", id, (long long)js_i64(known, "received", 0),
			(long long)js_i64(known, "size", 0));
		error_hint(e, "send the rest: PATCH /v1/uploads/%s from that offset", id);
		return ERR_CONFLICT;
	}
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return error_errno(e, "open '%s'", path);
	(void)utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW); /* its last use: age counts from here */
	*ret_fd = TAKE_FD(fd);
	*ret = js_ref(known);
	return ERR_OK;
}

/* ---- counting, sweeping ---- */

struct sum {
	int64_t count, bytes;
};

static void add_to_sum(struct core *c, const char *id, const char *suffix, void *ctx)
{
	struct sum *sum = ctx;
	AUTO_FREE char *path = uploads_path(c, id, suffix);
	struct stat st;
	if (str_eq(suffix, ".json")) { /* what was announced and has not come yet is spoken for */
		AUTO_FREE char *part = uploads_path(c, id, ".part");
		AUTO_JS struct js *o = file_exists(part) ? js_load(path, RECORD_MAX, NULL) : NULL;
		if (o && lstat(part, &st) == 0 && js_i64(o, "size", 0) > st.st_size)
			sum->bytes += js_i64(o, "size", 0) - st.st_size;
	} else if (lstat(path, &st) == 0) {
		sum->count++;
		sum->bytes += st.st_size;
	}
}

void uploads_count(struct core *c, int64_t *ret_count, int64_t *ret_bytes)
{
	struct sum sum = { 0 };
	each(c, add_to_sum, &sum);
	*ret_count = sum.count;
	*ret_bytes = sum.bytes;
}

static void drop_torn(struct core *c, const char *id, const char *suffix, void *ctx UNUSED)
{
	AUTO_FREE char *record = uploads_path(c, id, ".json");
	if (str_eq(suffix, ".part") && !file_exists(record))
		uploads_unlink(c, id);
}

void uploads_drop_torn(struct core *c)
{
	each(c, drop_torn, NULL);
}

struct use {
	const char *id;
	bool used;
};

static enum err_code use_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct use *u = arg;
	return db_has(conn, e, &u->used, "SELECT 1 FROM tasks WHERE " SQL_LIVE("phase")
		" AND json_extract(spec, '$.source.upload')=?1 LIMIT 1", "s", u->id);
}

static void sweep(struct core *c, const char *id, const char *suffix, void *ctx UNUSED)
{
	AUTO_FREE char *path = uploads_path(c, id, suffix);
	struct use use = { .id = id };
	struct stat st;
	struct error e = ERROR_INIT;
	if (str_eq(suffix, ".json") || lstat(path, &st) < 0 || uploads_is_receiving(c, id))
		return;
	if (ms_of(&st.st_mtim) + conf_limit(c->config, "upload_age") > clock_wall_ms())
		return;
	if (db_read(c->db, use_op, &use, &e)) {
		log_warn("upload %s: %s", id, e.text);
		return;
	}
	if (use.used)
		return;
	uploads_unlink(c, id);
	log_info("upload %s: removed, nobody used it for as long as limits.upload_age", id);
}

void uploads_sweep(struct core *c)
{
	each(c, sweep, NULL);
}
