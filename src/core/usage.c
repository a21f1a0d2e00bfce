/* What the gateway counted: its file of exchanges per run, read from where we stopped, turned into usage.added events. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXCHANGES_READ_MAX ((size_t)64 << 20)

static const char *const counters[] = { "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens", NULL };

char *usage_file(struct core *c, const char *run_id)
{
	return mem_printf("%s/gateway/exchanges/%s.jsonl", c->data, run_id);
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
	int64_t offset, from; /* in the file: whole lines up to offset are on record; text begins at `from` */
	const char *text;
	struct outbox out;
};

static enum err_code pull_op(struct db_conn *c, void *arg, struct error *e)
{
	struct pull *p = arg;
	AUTO_RUN struct run_row r = { 0 };
	enum err_code rc = run_load(c, p->run_id, &r, e);
	if (rc || r.exchanges != p->from || phase_is_terminal(r.phase))
		return rc; /* somebody else was faster */
	const char *at = p->text, *newline;
	for (; !rc && (newline = strchr(at, '\n')); at = newline + 1) {
		AUTO_JS struct js *line = js_parse(at, (size_t)(newline - at), NULL);
		struct js *data = counted(line);
		if (data)
			rc = event_add(c, r.task, "usage.added", r.worker, r.n, "gateway", clock_wall_ms(), data, &p->out, e);
	}
	if (!rc)
		rc = db_exec(c, e, "UPDATE runs SET exchanges=?2 WHERE id=?1", "si", r.id, p->from + (at - p->text));
	return rc;
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

static struct js *sum_of(const char *text)
{
	struct js *total = js_object();
	for (const char *newline; (newline = strchr(text, '\n')); text = newline + 1) {
		AUTO_JS struct js *line = js_parse(text, (size_t)(newline - text), NULL);
		AUTO_JS struct js *data = counted(line);
		if (data)
			add_exchange(total, data);
		note_failure(total, line);
	}
	return total;
}

enum err_code usage_pull(struct core *c, const char *run_id, struct js **ret_total, struct error *e)
{
	AUTO_FREE char *path = usage_file(c, run_id);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return ERR_OK; /* no model was asked */
	struct pull p = { .run_id = run_id };
	enum err_code rc = db_read(c->db, offset_op, &p, e);
	if (rc || (!ret_total && st.st_size <= p.from))
		return rc;
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(EXCHANGES_READ_MAX);
	rc = file_read_fd(fd, EXCHANGES_READ_MAX, &text, e);
	if (rc)
		return error_wrap(e, "read '%s'", path);
	if (text.len > (size_t)p.from) {
		p.text = text.data + p.from;
		rc = db_write(c->db, pull_op, &p, e);
		if (!rc)
			core_publish(c, &p.out);
		outbox_release(&p.out);
	}
	if (!rc && ret_total)
		*ret_total = sum_of(strbuf_str(&text));
	return rc;
}

#define OPEN_TAIL ((size_t)256 << 10)

struct js *usage_open_request(struct core *c, const char *run_id)
{
	AUTO_FREE char *path = usage_file(c, run_id);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0 || !st.st_size)
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
