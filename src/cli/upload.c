/* Sending an archive. */
#include "cli/upload.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/text.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define TRIES_MAX 5	      /* of a connection that breaks */
#define TRY_PAUSE_MS 500      /* before the second, doubled each time */
#define TELL_EVERY_MS 200

struct sender {
	struct cli *c;
	struct live live;
	const char *name;
	int fd;
	int64_t size, begun_at; /* size -1: a pipe; begun_at: where the request at hand began */
	int64_t told_ms;
};

static void on_sent(void *ctx, int64_t sent)
{
	struct sender *s = ctx;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	int64_t now = clock_mono_ms(), at = s->begun_at + sent;
	if (now < s->told_ms + TELL_EVERY_MS)
		return;
	s->told_ms = now;
	strbuf_adds(&text, "sending ");
	text_add_line(&text, s->name);
	strbuf_adds(&text, "  ");
	str_add_size(&text, at);
	if (s->size > 0)
		strbuf_addf(&text, "  %lld %%", (long long)(at * 100 / s->size));
	live_text(&s->live, strbuf_str(&text));
}

static enum err_code take_id(const struct js *upload, char **ret, struct error *e)
{
	if (!js_str(upload, "id"))
		return error_set(e, ERR_INTERNAL, "the server took the archive but told no id");
	*ret = mem_strdup(js_str(upload, "id"));
	return ERR_OK;
}

static char *path_of(const char *id, const char *query)
{
	AUTO_STRBUF struct strbuf path = STRBUF_INIT;
	strbuf_adds(&path, "/v1/uploads");
	if (id)
		strbuf_addc(&path, '/');
	if (id)
		str_add_urlenc(&path, id);
	strbuf_adds(&path, query);
	return strbuf_detach(&path);
}

/* A pipe cannot be read twice: one request, all or nothing. */
static enum err_code send_pipe(struct sender *s, const char *query, char **ret_id, struct error *e)
{
	AUTO_FREE char *path = path_of(NULL, query);
	AUTO_JS struct js *upload = NULL;
	const struct client_file file = { .fd = s->fd, .length = -1, .progress = on_sent, .ctx = s };
	enum err_code rc = client_send_file(s->c->stream, "POST", path, &file, NULL, &upload, e);
	return rc ? rc : take_id(upload, ret_id, e);
}

static enum err_code announce(struct sender *s, const char *query, char **ret_id, struct error *e)
{
	AUTO_FREE char *more = mem_printf("%s&size=%lld", query, (long long)s->size);
	AUTO_FREE char *path = path_of(NULL, more);
	AUTO_JS struct js *upload = NULL;
	int status = 0;
	enum err_code rc = client_call(s->c->client, "POST", path, NULL, &status, &upload, e);
	return rc ? rc : take_id(upload, ret_id, e);
}

static enum err_code send_from(struct sender *s, const char *id, int64_t offset, struct error *e)
{
	AUTO_FREE char *query = mem_printf("?offset=%lld", (long long)offset);
	AUTO_FREE char *path = path_of(id, query);
	AUTO_JS struct js *upload = NULL;
	const struct client_file file = { .fd = s->fd, .offset = offset, .length = s->size - offset, .progress = on_sent, .ctx = s };
	s->begun_at = offset;
	enum err_code rc = client_send_file(s->c->stream, "PATCH", path, &file, NULL, &upload, e);
	if (!rc && !str_eq(js_str(upload, "state"), "complete"))
		return error_set(e, ERR_INTERNAL, "the server says that the archive is not complete");
	return rc;
}

static enum err_code ask_offset(struct sender *s, const char *id, int64_t *ret, struct error *e)
{
	AUTO_FREE char *path = path_of(id, "");
	AUTO_JS struct js *upload = NULL;
	int status = 0;
	enum err_code rc = client_call(s->c->client, "GET", path, NULL, &status, &upload, e);
	*ret = js_i64(upload, "received", 0);
	return rc;
}

/* A broken connection, or a server that is being started again. */
static bool is_worth_a_try(enum err_code rc)
{
	return rc == ERR_UNREACHABLE || rc == ERR_BUSY || rc == ERR_TIMEOUT || rc == ERR_CONFLICT;
}

static enum err_code send_pieces(struct sender *s, const char *id, struct error *e)
{
	int64_t offset = 0, pause_ms = TRY_PAUSE_MS;
	enum err_code rc = send_from(s, id, 0, e);
	for (int i = 1; is_worth_a_try(rc) && i < TRIES_MAX; i++, pause_ms *= 2) {
		const struct timespec pause = { .tv_sec = pause_ms / 1000, .tv_nsec = pause_ms % 1000 * 1000000 };
		live_text(&s->live, "connection lost; trying again");
		nanosleep(&pause, NULL);
		error_clear(e);
		rc = ask_offset(s, id, &offset, e);
		if (!rc && offset == s->size)
			return ERR_OK; /* it was the answer that got lost */
		if (!rc)
			rc = send_from(s, id, offset, e);
	}
	return rc;
}

static enum err_code send_file(struct sender *s, const char *query, char **ret_id, struct error *e)
{
	AUTO_FREE char *id = NULL;
	enum err_code rc = announce(s, query, &id, e);
	if (!rc)
		rc = send_pieces(s, id, e);
	if (!rc)
		*ret_id = TAKE_PTR(id);
	return rc;
}

static enum err_code open_archive(const char *path, struct sender *s, struct error *e)
{
	struct stat st;
	s->fd = str_eq(path, "-") ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC);
	if (s->fd < 0 || fstat(s->fd, &st) < 0)
		return error_errno(e, "open '%s'", path);
	if (S_ISDIR(st.st_mode)) {
		error_set(e, ERR_USAGE, "--archive '%s' is a directory", path);
		error_hint(e, "--repo %s takes it as it is", path);
		return ERR_USAGE;
	}
	bool whole = S_ISREG(st.st_mode) && !str_eq(path, "-"); /* stdin may stand anywhere in its file */
	if (whole && st.st_size == 0)
		return error_set(e, ERR_INVALID, "the archive '%s' is empty", path);
	s->size = whole ? st.st_size : -1;
	return ERR_OK;
}

enum err_code upload_archive(struct cli *c, const char *path, char **ret_id, struct error *e)
{
	const char *slash = strrchr(path, '/');
	struct sender s = { .c = c, .fd = -1, .name = str_eq(path, "-") ? "stdin" : slash ? slash + 1 : path };
	AUTO_STRBUF struct strbuf query = STRBUF_INIT;
	enum err_code rc = open_archive(path, &s, e);
	if (!rc) {
		strbuf_adds(&query, "?name=");
		str_add_urlenc(&query, s.name);
		live_start(&s.live, &c->err, !c->quiet, clock_wall_ms());
		rc = s.size < 0 ? send_pipe(&s, strbuf_str(&query), ret_id, e) : send_file(&s, strbuf_str(&query), ret_id, e);
		live_stop(&s.live);
	}
	if (s.fd >= 0)
		close(s.fd);
	return rc ? error_wrap(e, "send the archive '%s'", path) : ERR_OK;
}
