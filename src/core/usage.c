/* What the gateway counted: its file of exchanges per run, read from where we stopped, turned into usage.added events. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/line.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXCHANGES_PART ((size_t)1 << 20)     /* of the file, turned into events in one transaction */
#define EXCHANGE_LINE_MAX ((size_t)16 << 20) /* a longer one is not counted */

static const char *const counters[] = { "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens", NULL };

char *usage_file(struct core *c, const char *run_id)
{
	return mem_printf("%s/gateway/exchanges/%s.jsonl", c->data, run_id);
}

enum err_code usage_begin(struct core *c, const char *run_id, struct error *e)
{
	AUTO_FREE char *path = usage_file(c, run_id);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0 || (c->root && fchown(fd, c->uid + 1, c->gid + 1) < 0)) /* the gateway's own identity */
		return error_errno(e, "make '%s'", path);
	return ERR_OK;
}

void usage_end(struct core *c, const char *run_id)
{
	AUTO_FREE char *path = usage_file(c, run_id);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 ? errno != ENOENT : fchmod(fd, 0400) < 0)
		log_warn("run %s: its model token opens the gateway still: %s: %s", run_id, path, strerror(errno));
}

static void add_exchange(struct js *total, const struct js *usage)
{
	js_set_int(total, "requests", js_i64(total, "requests", 0) + 1);
	for (const char *const *k = counters; *k; k++)
		js_set_int(total, *k, js_i64(total, *k, 0) + js_i64(usage, *k, 0));
}

/* One line of the file; NULL when it is not the end of an exchange that was counted. */
static struct js *counted(const struct js *line)
{
	if (!str_eq(js_str(line, "phase"), "end") || !js_get(line, "usage"))
		return NULL;
	struct js *data = js_object();
	for (const char *const *k = counters; *k; k++)
		js_set_int(data, *k, js_i64(js_get(line, "usage"), *k, 0));
	js_set_int(data, "exchange", js_i64(line, "n", 0));
	js_set_str(data, "model", js_str(line, "model"));
	js_set_int(data, "ms", js_i64(line, "ms", 0));
	return data;
}

struct pull {
	const char *run_id;
	int64_t from, next; /* in the file: what was before `from` is on record; `next` will be */
	const char *text;   /* whole lines from `from` on */
	bool lost_race;	    /* somebody else was faster, or the run is over */
	struct outbox out;
};

static enum err_code pull_op(struct db_conn *c, void *arg, struct error *e)
{
	struct pull *p = arg;
	AUTO_RUN struct run_row r = { 0 };
	enum err_code rc = run_load(c, p->run_id, &r, e);
	p->lost_race = r.exchanges != p->from || phase_is_terminal(r.phase);
	if (rc || p->lost_race)
		return rc;
	const char *at = p->text, *newline;
	for (; !rc && (newline = strchr(at, '\n')); at = newline + 1) {
		AUTO_JS struct js *line = js_parse(at, (size_t)(newline - at), NULL);
		struct js *data = counted(line);
		if (data)
			rc = event_add(c, r.task, "usage.added", r.worker, r.n, "gateway", clock_wall_ms(), data, &p->out, e);
	}
	return rc ? rc : db_exec(c, e, "UPDATE runs SET exchanges=?2 WHERE id=?1", "si", r.id, p->next);
}

static enum err_code offset_op(struct db_conn *c, void *arg, struct error *e)
{
	struct pull *p = arg;
	AUTO_RUN struct run_row r = { 0 };
	enum err_code rc = run_load(c, p->run_id, &r, e);
	p->from = r.exchanges;
	return rc;
}

/* How the last exchange failed, as the gateway saw it: agents tell it in words of their own, or not at all. */
static void note_failure(struct js *total, const struct js *line)
{
	int64_t status = js_i64(line, "status", 0);
	const char *error = js_str(line, "error");
	if (!str_eq(js_str(line, "phase"), "end"))
		return;
	js_set(total, "failure", js_string(error));
	js_set_int(total, "failure_status", error ? status : 0);
}

static void sum_line(void *ctx, const char *text, size_t len, size_t full_len UNUSED)
{
	struct js *total = ctx;
	AUTO_JS struct js *line = js_parse(text, len, NULL);
	AUTO_JS struct js *data = counted(line);
	if (data)
		add_exchange(total, data);
	note_failure(total, line);
}

static enum err_code sum_file(int fd, char *buf, struct js **ret_total, struct error *e)
{
	AUTO_JS struct js *total = js_object();
	struct line_reader lines;
	off_t at = 0;
	ssize_t n;
	line_init(&lines, EXCHANGE_LINE_MAX);
	for (; (n = pread(fd, buf, EXCHANGES_PART, at)) > 0; at += n)
		line_feed(&lines, buf, (size_t)n, sum_line, total);
	line_release(&lines);
	if (n < 0)
		return error_errno(e, "read");
	*ret_total = js_ref(total);
	return ERR_OK;
}

/* Whole lines from p->from on into buf; a line that is longer than one part is passed over. False when there is none yet. */
static bool read_part(int fd, struct pull *p, char *buf)
{
	ssize_t n = pread(fd, buf, EXCHANGES_PART, p->from);
	const char *end = n > 0 ? memrchr(buf, '\n', (size_t)n) : NULL;
	p->next = p->from;
	if (n <= 0 || (!end && (size_t)n < EXCHANGES_PART))
		return false;
	size_t len = end ? (size_t)(end + 1 - buf) : 0;
	buf[len] = 0;
	p->text = buf;
	p->next = p->from + (int64_t)(end ? len : (size_t)n);
	return true;
}

static enum err_code pull_all(struct core *c, int fd, struct pull *p, char *buf, struct error *e)
{
	enum err_code rc = ERR_OK;
	while (!rc && !p->lost_race && read_part(fd, p, buf)) {
		rc = db_write(c->db, pull_op, p, e);
		if (!rc)
			core_publish(c, &p->out);
		outbox_release(&p->out);
		p->from = p->next;
	}
	return rc;
}

enum err_code usage_pull(struct core *c, const char *run_id, struct js **ret_total, struct error *e)
{
	AUTO_FREE char *path = usage_file(c, run_id);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return ERR_OK; /* no model was asked */
	struct pull p = { .run_id = run_id };
	enum err_code rc = db_read(c->db, offset_op, &p, e);
	if (rc || (!ret_total && st.st_size <= p.from))
		return rc;
	AUTO_FREE char *buf = mem_alloc(EXCHANGES_PART + 1);
	rc = pull_all(c, fd, &p, buf, e);
	if (!rc && ret_total)
		rc = sum_file(fd, buf, ret_total, e);
	return rc ? error_wrap(e, "read '%s'", path) : ERR_OK;
}

#define OPEN_TAIL ((size_t)256 << 10)

struct js *usage_open_request(struct core *c, const char *run_id)
{
	AUTO_FREE char *path = usage_file(c, run_id);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !st.st_size)
		return NULL;
	off_t from = st.st_size > (off_t)OPEN_TAIL ? st.st_size - (off_t)OPEN_TAIL : 0;
	AUTO_FREE char *tail = mem_alloc(OPEN_TAIL + 1);
	ssize_t n = pread(fd, tail, OPEN_TAIL, from);
	while (n > 0 && tail[n - 1] == '\n')
		tail[--n] = 0;
	const char *line = n > 0 ? memrchr(tail, '\n', (size_t)n) : NULL;
	line = line ? line + 1 : tail;
	AUTO_JS struct js *last = n > 0 ? js_parse(line, strlen(line), NULL) : NULL;
	if (!str_eq(js_str(last, "phase"), "start"))
		return NULL;
	struct js *o = js_object();
	js_set_str(o, "request_id", js_str(last, "request_id"));
	js_set_str(o, "since", js_str(last, "at"));
	js_set_str(o, "model", js_str(last, "model"));
	return o;
}
