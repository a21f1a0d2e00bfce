/* Receiving uploads. */
#include "core/uploads.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include "core/share.h"
#include "core/uploads_inside.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MINUTE_MS 60000

struct upload {
	struct upload *next; /* in the registry */
	struct core *core;
	char id[ID_SIZE];
	int fd;
	int64_t size; /* -1: not known */
	int64_t at, written, flushed, begun_ms; /* at: with what is in the block */
	char *block;
	size_t block_len;
	bool resumable, finished;
	char *name, *who, *project;
	int64_t created_at;
};

struct uploads {
	pthread_mutex_t lock; /* guards the rest */
	struct upload *receiving;
	int64_t receiving_count;
	double starts; /* left of this minute's */
	int64_t starts_at_ms;
};

/* ---- who is receiving ---- */

static enum err_code take_start(struct uploads *r, int64_t per_minute, struct error *e)
{
	int64_t now = clock_mono_ms();
	r->starts += (double)(now - r->starts_at_ms) * (double)per_minute / MINUTE_MS;
	r->starts_at_ms = now;
	if (r->starts > (double)per_minute)
		r->starts = (double)per_minute;
	if (r->starts < 1) {
		error_set(e, ERR_LIMIT, "more than %lld uploads were begun within a minute (limits.uploads_per_minute)", (long long)per_minute);
		error_hint(e, "try again in a moment");
		return ERR_LIMIT;
	}
	r->starts -= 1;
	return ERR_OK;
}

static enum err_code enter_locked(struct uploads *r, struct upload *u, bool is_new, struct error *e)
{
	struct core *c = u->core;
	for (const struct upload *other = r->receiving; other; other = other->next)
		if (str_eq(other->id, u->id))
			return error_set(e, ERR_CONFLICT, "upload %s is being sent by another request", u->id);
	if (r->receiving_count >= conf_limit(c->config, "uploads_receiving")) {
		error_set(e, ERR_LIMIT, "%lld uploads are being received already (limits.uploads_receiving)", (long long)r->receiving_count);
		error_hint(e, "try again in a moment");
		return ERR_LIMIT;
	}
	enum err_code rc = is_new ? take_start(r, conf_limit(c->config, "uploads_per_minute"), e) : ERR_OK;
	if (rc)
		return rc;
	u->next = r->receiving;
	r->receiving = u;
	r->receiving_count++;
	return ERR_OK;
}

static enum err_code enter(struct upload *u, bool is_new, struct error *e)
{
	struct uploads *r = u->core->uploads;
	pthread_mutex_lock(&r->lock);
	enum err_code rc = enter_locked(r, u, is_new, e);
	pthread_mutex_unlock(&r->lock);
	return rc;
}

/* Its project's that are on no record yet, and so on no list: itself, and others that come in one piece. */
static int64_t coming(const struct upload *u)
{
	struct uploads *r = u->core->uploads;
	int64_t n = 1;
	pthread_mutex_lock(&r->lock);
	for (const struct upload *other = r->receiving; other; other = other->next)
		n += other != u && !other->resumable && str_eq(other->project, u->project);
	pthread_mutex_unlock(&r->lock);
	return n;
}

static void leave(struct upload *u)
{
	struct uploads *r = u->core->uploads;
	pthread_mutex_lock(&r->lock);
	for (struct upload **at = &r->receiving; *at; at = &(*at)->next)
		if (*at == u) {
			*at = u->next;
			r->receiving_count--;
			break;
		}
	pthread_mutex_unlock(&r->lock);
}

bool uploads_is_receiving(struct core *c, const char *id)
{
	struct uploads *r = c->uploads;
	bool found = false;
	pthread_mutex_lock(&r->lock);
	for (const struct upload *u = r->receiving; u; u = u->next)
		found = found || str_eq(u->id, id);
	pthread_mutex_unlock(&r->lock);
	return found;
}

enum err_code uploads_start(struct core *c, struct error *e)
{
	AUTO_FREE char *dir = file_join(c->data, "uploads");
	struct uploads *r = NEW(struct uploads);
	pthread_mutex_init(&r->lock, NULL);
	r->starts_at_ms = clock_mono_ms();
	r->starts = (double)conf_limit(c->config, "uploads_per_minute");
	c->uploads = r;
	enum err_code rc = file_mkdirs(dir, 0700, e);
	if (!rc)
		uploads_drop_torn(c);
	return rc;
}

void uploads_stop(struct core *c)
{
	if (c->uploads)
		pthread_mutex_destroy(&c->uploads->lock);
	free(TAKE_PTR(c->uploads));
}

void uploads_metrics(struct core *c, struct strbuf *out)
{
	int64_t count = 0, bytes = 0;
	uploads_count(c, &count, &bytes);
	pthread_mutex_lock(&c->uploads->lock);
	int64_t receiving = c->uploads->receiving_count;
	pthread_mutex_unlock(&c->uploads->lock);
	const struct { const char *name, *help; int64_t v; } rows[] = {
		{ "signalbox_uploads", "Uploads that are kept, half-sent ones included.", count },
		{ "signalbox_uploads_bytes", "Their bytes, announced ones included.", bytes },
		{ "signalbox_uploads_receiving", "Requests that send one now.", receiving },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		strbuf_addf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %lld\n", rows[i].name, rows[i].help, rows[i].name, rows[i].name, (long long)rows[i].v);
}

/* ---- before the first byte ---- */

static enum err_code check_size(struct core *c, int64_t size, struct error *e)
{
	int64_t max = conf_limit(c->config, "upload_bytes");
	if (size <= max)
		return ERR_OK;
	error_set(e, ERR_TOO_LARGE, "the upload has %lld bytes, at most %lld are allowed (limits.upload_bytes)", (long long)size, (long long)max);
	error_hint(e, "leave out what is not needed, or give a repository's URL instead");
	return ERR_TOO_LARGE;
}

/* How much is there already, and how much may come. */
static enum err_code check_room(struct core *c, int64_t size, struct error *e)
{
	int64_t count = 0, bytes = 0, coming = size < 0 ? 0 : size;
	int64_t max_count = conf_limit(c->config, "uploads"), max_bytes = conf_limit(c->config, "uploads_bytes");
	struct statvfs disk;
	uploads_count(c, &count, &bytes);
	if (count >= max_count || bytes > max_bytes - coming) {
		error_set(e, ERR_LIMIT, "%lld uploads with %lld bytes are kept already (limits.uploads %lld, limits.uploads_bytes %lld)", (long long)count,
			(long long)bytes, (long long)max_count, (long long)max_bytes);
		error_hint(e, "delete some (DELETE /v1/uploads/ID), or wait until they are old enough to go");
		return ERR_LIMIT;
	}
	if (statvfs(c->data, &disk) == 0 && (int64_t)(disk.f_bavail * disk.f_frsize) - UPLOAD_FREE_BYTES < coming) {
		error_set(e, ERR_FULL, "the server's disk has no room for %lld bytes more", (long long)coming);
		error_hint(e, "free some space in its data directory");
		return ERR_FULL;
	}
	return ERR_OK;
}

static struct upload *upload_new(struct core *c)
{
	struct upload *u = NEW(struct upload);
	u->core = c;
	u->fd = -1;
	u->begun_ms = clock_mono_ms();
	u->created_at = clock_wall_ms();
	return u;
}

static enum err_code write_record(const struct upload *u, int64_t size, struct error *e)
{
	AUTO_FREE char *path = uploads_path(u->core, u->id, ".json");
	AUTO_JS struct js *o = js_object();
	char at[RFC3339_SIZE];
	clock_rfc3339(u->created_at, at);
	js_set_str(o, "id", u->id);
	js_set(o, "name", js_string(u->name));
	js_set_int(o, "size", size);
	js_set_str(o, "project", u->project);
	js_set_str(o, "created_by", u->who);
	js_set_str(o, "created_at", at);
	AUTO_FREE char *text = js_dump(o);
	return file_replace(path, text, strlen(text), 0600, FILE_SYNC, e);
}

static enum err_code make_file(struct upload *u, struct error *e)
{
	AUTO_FREE char *part = uploads_path(u->core, u->id, ".part");
	u->fd = open(part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (u->fd < 0)
		return error_errno(e, "make '%s'", part);
	return u->resumable ? write_record(u, u->size, e) : ERR_OK;
}

static enum err_code check_name(const char *name, struct error *e)
{
	if (!name)
		return ERR_OK;
	bool bad = !*name || strlen(name) > UPLOAD_NAME_MAX || strchr(name, '/');
	for (const char *at = name; *at && !bad; at++)
		bad = (unsigned char)*at < 0x20 || *at == 0x7f;
	return bad ? error_set(e, ERR_INVALID, "an upload's name has 1 to %zu bytes, no slash and no control character", UPLOAD_NAME_MAX) : ERR_OK;
}

enum err_code upload_begin(struct core *c, const struct upload_ask *ask, struct upload **ret, struct error *e)
{
	enum err_code rc = check_name(ask->name, e);
	if (!rc)
		rc = check_size(c, ask->size, e);
	if (!rc)
		rc = check_room(c, ask->size, e);
	if (rc)
		return rc;
	struct upload *u = upload_new(c);
	clock_new_id(u->id);
	u->size = ask->size;
	u->resumable = ask->later;
	u->name = mem_strdup(ask->name);
	u->who = mem_strdup(ask->by.who);
	u->project = mem_strdup(ask->by.project);
	rc = enter(u, true, e);
	if (!rc)
		rc = share_check_uploads(c, ask->by, coming(u), e);
	if (!rc)
		rc = make_file(u, e);
	if (rc)
		upload_close(u);
	else
		*ret = u;
	return rc;
}

/* ---- going on ---- */

static enum err_code resume_open(struct upload *u, int64_t offset, int64_t length, struct error *e)
{
	AUTO_FREE char *part = uploads_path(u->core, u->id, ".part");
	struct stat st;
	u->fd = open(part, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (u->fd < 0 && errno == ENOENT)
		return error_set(e, ERR_CONFLICT, "upload %s is complete", u->id);
	if (u->fd < 0 || fstat(u->fd, &st) < 0)
		return error_errno(e, "open '%s'", part);
	if (offset != st.st_size) {
		error_set(e, ERR_CONFLICT, "upload %s stands at byte %lld, not at %lld", u->id, (long long)st.st_size, (long long)offset);
		error_hint(e, "go on from there: its Upload-Offset tells");
		return ERR_CONFLICT;
	}
	if (length >= 0 && length > u->size - offset)
		return error_set(e, ERR_INVALID, "upload %s has %lld bytes; %lld more than that would come", u->id, (long long)u->size, (long long)(length - (u->size - offset)));
	u->at = u->written = u->flushed = offset;
	return ERR_OK;
}

enum err_code upload_resume(struct core *c, struct caller by, const char *id, int64_t offset, int64_t length, struct upload **ret, struct error *e)
{
	AUTO_JS struct js *known = NULL;
	enum err_code rc = upload_get(c, by, id, &known, e);
	if (rc)
		return rc;
	struct upload *u = upload_new(c);
	memcpy(u->id, id, ID_SIZE);
	u->resumable = true;
	u->size = js_i64(known, "size", -1);
	rc = enter(u, false, e);
	if (!rc)
		rc = resume_open(u, offset, length, e);
	if (rc)
		upload_close(u);
	else
		*ret = u;
	return rc;
}

static enum err_code check_write(struct upload *u, size_t n, struct error *e)
{
	if (u->size >= 0 && (int64_t)n > u->size - u->at)
		return error_set(e, ERR_INVALID, "more bytes come than were announced (%lld)", (long long)u->size);
	if (clock_mono_ms() - u->begun_ms > UPLOAD_TIME_MAX_MS)
		return error_set(e, ERR_TIMEOUT, "the upload takes longer than %lld s", (long long)(UPLOAD_TIME_MAX_MS / 1000));
	return check_size(u->core, u->at + (int64_t)n, e);
}

static enum err_code write_bytes(struct upload *u, const char *data, size_t left, struct error *e)
{
	while (left) {
		ssize_t n = pwrite(u->fd, data, left, u->written);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(e, "write the upload");
		u->written += n;
		data += n;
		left -= (size_t)n;
	}
	if (u->written - u->flushed < UPLOAD_FLUSH_BYTES)
		return ERR_OK;
	(void)sync_file_range(u->fd, u->flushed, u->written - u->flushed, SYNC_FILE_RANGE_WRITE);
	u->flushed = u->written;
	return ERR_OK;
}

static enum err_code write_block(struct upload *u, struct error *e)
{
	size_t n = u->block_len;
	u->block_len = 0;
	return n ? write_bytes(u, u->block, n, e) : ERR_OK;
}

/* How many of the bytes were put into the block. */
static size_t block_add(struct upload *u, const char *data, size_t n)
{
	size_t part = n < UPLOAD_BLOCK - u->block_len ? n : UPLOAD_BLOCK - u->block_len;
	u->block = u->block ? u->block : mem_alloc(UPLOAD_BLOCK);
	memcpy(u->block + u->block_len, data, part);
	u->block_len += part;
	return part;
}

/* Small pieces are gathered; large ones need not be copied once more. */
static enum err_code take_bytes(struct upload *u, const char *data, size_t n, struct error *e)
{
	enum err_code rc = ERR_OK;
	for (size_t part; !rc && n; data += part, n -= part) {
		bool straight = !u->block_len && n >= UPLOAD_BLOCK;
		part = straight ? n : block_add(u, data, n);
		u->at += (int64_t)part;
		if (straight)
			rc = write_bytes(u, data, n, e);
		else if (u->block_len == UPLOAD_BLOCK)
			rc = write_block(u, e);
	}
	return rc;
}

enum err_code upload_write(struct upload *u, const char *data, size_t n, struct error *e)
{
	enum err_code rc = check_write(u, n, e);
	return rc ? rc : take_bytes(u, data, n, e);
}

const char *upload_id(const struct upload *u)
{
	return u->id;
}

/* ---- the end ---- */

static enum err_code make_whole(struct upload *u, struct error *e)
{
	AUTO_FREE char *part = uploads_path(u->core, u->id, ".part");
	AUTO_FREE char *data = uploads_path(u->core, u->id, ".data");
	AUTO_FREE char *dir = file_join(u->core->data, "uploads");
	enum err_code rc = u->resumable ? ERR_OK : write_record(u, u->at, e);
	if (!rc && rename(part, data) < 0)
		rc = error_errno(e, "rename '%s'", part);
	return rc ? rc : file_sync_dir(dir, e);
}

enum err_code upload_finish(struct upload *u, struct js **ret, struct error *e)
{
	bool whole = u->size < 0 || u->at == u->size;
	enum err_code rc = ERR_OK;
	if (!whole && !u->resumable)
		return error_set(e, ERR_INVALID, "%lld of %lld bytes came", (long long)u->at, (long long)u->size);
	if (whole && u->at == 0 && !u->resumable)
		return error_set(e, ERR_INVALID, "the upload is empty");
	rc = write_block(u, e);
	if (!rc && fsync(u->fd) < 0)
		rc = error_errno(e, "write the upload");
	if (!rc && whole && u->at > 0)
		rc = make_whole(u, e);
	if (rc)
		return rc;
	u->finished = true;
	return upload_get(u->core, THE_SERVER, u->id, ret, e);
}

void upload_close(struct upload *u)
{
	if (!u)
		return;
	if (u->fd >= 0 && u->resumable && write_block(u, NULL) != ERR_OK)
		log_warn("upload %s: the last of what came could not be kept", u->id);
	if (u->fd >= 0)
		close(u->fd);
	if (u->fd >= 0 && !u->finished && !u->resumable)
		uploads_unlink(u->core, u->id);
	leave(u);
	free(u->block);
	free(u->name);
	free(u->who);
	free(u->project);
	free(u);
}
