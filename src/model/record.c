/* The record of model traffic: state folded from the run's file under its lock, then one appended line. */
#include "model/record.h"
#include "base/clock.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define RECORD_READ_BYTES ((size_t)64 << 10)

struct chain {
	unsigned char bytes[RECORD_CHAIN_BYTES];
};

/* What the lines of a run's file add up to, as far as `folded` bytes into it. */
struct run_state {
	struct run_state *next; /* most recently used first */
	char *run;
	ino_t inode;
	off_t folded;
	int64_t n;
	int64_t requests;
	int64_t tokens;
	int64_t input_items;
	struct chain input_chain;
	size_t answered; /* items of the last reply, which the agent will send back */
};

/* What must not be written of a task's runs. */
struct hidden {
	struct hidden *next; /* most recently used first */
	char *task;
	struct scrub scrub;
};

struct recorder {
	int dir_fd;
	bool expects_files;
	pthread_mutex_t lock; /* guards all below; held while a start line is written: starts are rare and short */
	struct hidden *hidden;
	size_t hidden_count;
	struct run_state *runs;
	size_t run_count;
};

enum err_code recorder_open(const char *dir, struct recorder **ret, struct error *e)
{
	struct recorder *r;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return error_errno(e, "open the record directory '%s'", dir);
	r = NEW(struct recorder);
	r->dir_fd = fd;
	pthread_mutex_init(&r->lock, NULL);
	*ret = r;
	return ERR_OK;
}

void recorder_expect_files(struct recorder *r)
{
	r->expects_files = true;
}

static void run_state_free(struct run_state *s)
{
	free(s->run);
	free(s);
}

static void hidden_free(struct hidden *h)
{
	scrub_release(&h->scrub);
	free(h->task);
	free(h);
}

void recorder_free(struct recorder *r)
{
	if (r == NULL)
		return;
	while (r->hidden != NULL) {
		struct hidden *h = r->hidden;

		r->hidden = h->next;
		hidden_free(h);
	}
	while (r->runs != NULL) {
		struct run_state *s = r->runs;

		r->runs = s->next;
		run_state_free(s);
	}
	close(r->dir_fd);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static void recorder_forget_oldest(struct recorder *r)
{
	struct run_state **at = &r->runs;

	while ((*at)->next != NULL)
		at = &(*at)->next;
	run_state_free(*at);
	*at = NULL;
	r->run_count--;
}

/* The state of a run, moved to the front; a new one is empty. */
static struct run_state *recorder_state(struct recorder *r, const char *run)
{
	struct run_state *s = NULL;

	for (struct run_state **at = &r->runs; *at != NULL; at = &(*at)->next) {
		if (!str_eq((*at)->run, run))
			continue;
		s = *at;
		*at = s->next;
		break;
	}
	if (s == NULL) {
		if (r->run_count >= RECORD_RUNS_MAX)
			recorder_forget_oldest(r);
		s = NEW(struct run_state);
		s->run = mem_strdup(run);
		r->run_count++;
	}
	s->next = r->runs;
	r->runs = s;
	return s;
}

/* Of the task whose name `id` is, or begins with as a run's does; moved to the front. NULL: nothing is hidden. */
static struct hidden *recorder_hidden(struct recorder *r, const char *id)
{
	size_t len = strcspn(id, ".");

	for (struct hidden **at = &r->hidden; *at != NULL; at = &(*at)->next) {
		struct hidden *h = *at;

		if (strlen(h->task) != len || memcmp(h->task, id, len) != 0)
			continue;
		*at = h->next;
		h->next = r->hidden;
		r->hidden = h;
		return h;
	}
	return NULL;
}

static struct hidden *hidden_add(struct recorder *r, const char *task)
{
	struct hidden *h = NEW(struct hidden), **last = &r->hidden;

	while (r->hidden_count == RECORD_HIDE_TASKS_MAX && (*last)->next != NULL)
		last = &(*last)->next;
	if (r->hidden_count == RECORD_HIDE_TASKS_MAX)
		hidden_free(TAKE_PTR(*last));
	else
		r->hidden_count++;
	h->task = mem_strdup(task);
	h->next = r->hidden;
	r->hidden = h;
	return h;
}

enum err_code record_hide(struct recorder *r, const char *task, const struct js *texts, struct error *e)
{
	struct hidden *h;
	enum err_code rc;

	pthread_mutex_lock(&r->lock);
	h = recorder_hidden(r, task);
	rc = scrub_add_all(h != NULL ? &h->scrub : &hidden_add(r, task)->scrub, texts, e);
	pthread_mutex_unlock(&r->lock);
	return rc != ERR_OK ? error_wrap(e, "task %s", task) : ERR_OK;
}

static void chain_from_hex(const char *hex, struct chain *ret)
{
	size_t n = 0;

	if (hex == NULL || sodium_hex2bin(ret->bytes, sizeof(ret->bytes), hex, strlen(hex), NULL, &n, NULL) != 0 || n != sizeof(ret->bytes))
		memset(ret, 0, sizeof(*ret));
}

static void fold_line(void *ctx, const char *line, size_t len, UNUSED size_t full_len)
{
	struct run_state *s = ctx;
	AUTO_JS struct js *o = js_parse(line, len, NULL);
	const char *phase = js_str_or(o, "phase", "");

	if (str_eq(phase, "start")) {
		int64_t n = js_i64(o, "n", 0);

		s->n = n > s->n ? n : s->n;
		s->requests++;
		s->input_items = js_i64(o, "input_items", 0);
		chain_from_hex(js_str(o, "input_chain"), &s->input_chain);
		s->answered = 0;
	} else if (str_eq(phase, "end")) {
		s->tokens += js_i64(js_get(o, "usage"), "total_tokens", 0);
		s->answered = js_len(js_get(o, "output"));
	}
}

static void state_restart(struct run_state *s, ino_t inode)
{
	s->inode = inode;
	s->folded = 0;
	s->n = s->requests = s->tokens = s->input_items = 0;
	s->answered = 0;
	memset(&s->input_chain, 0, sizeof(s->input_chain));
}

/* Finds where the last whole line ends: everything behind it was torn by a crash and was never acknowledged. */
static off_t whole_lines_end(int fd, off_t from, off_t size)
{
	char c;

	while (size > from && (pread(fd, &c, 1, size - 1) != 1 || c != '\n'))
		size--;
	return size;
}

/* Brings the state up to the file.  The caller holds the file's lock. */
static enum err_code state_fold(struct run_state *s, int fd, struct error *e)
{
	struct line_reader lines;
	AUTO_FREE char *buf = NULL;
	struct stat st;
	off_t end;

	if (fstat(fd, &st) != 0)
		return error_errno(e, "look at the record of run '%s'", s->run);
	if (st.st_ino != s->inode || st.st_size < s->folded)
		state_restart(s, st.st_ino);
	end = whole_lines_end(fd, s->folded, st.st_size);
	if (end != st.st_size && ftruncate(fd, end) != 0)
		return error_errno(e, "cut the torn line of the record of run '%s'", s->run);
	if (end == s->folded)
		return ERR_OK;
	buf = mem_alloc(RECORD_READ_BYTES);
	line_init(&lines, RECORD_LINE_MAX);
	while (s->folded < end) {
		size_t want = (size_t)(end - s->folded) < RECORD_READ_BYTES ? (size_t)(end - s->folded) : RECORD_READ_BYTES;
		ssize_t got = pread(fd, buf, want, s->folded);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		line_feed(&lines, buf, (size_t)got, fold_line, s);
		s->folded += got;
	}
	line_release(&lines);
	return s->folded == end ? ERR_OK : error_errno(e, "read the record of run '%s'", s->run);
}

static enum err_code line_append(int fd, struct js *line, bool durable, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	js_dump_to(line, &text);
	strbuf_addc(&text, '\n');
	if (file_write_all(fd, text.data, text.len, e) != ERR_OK)
		return error_wrap(e, "write the record");
	if (durable && fdatasync(fd) != 0)
		return error_errno(e, "make the record durable");
	return ERR_OK;
}

static void chain_add(struct chain *c, const char *text)
{
	crypto_generichash_state h;

	crypto_generichash_init(&h, NULL, 0, sizeof(c->bytes));
	crypto_generichash_update(&h, c->bytes, sizeof(c->bytes));
	crypto_generichash_update(&h, (const unsigned char *)text, strlen(text));
	crypto_generichash_final(&h, c->bytes, sizeof(c->bytes));
}

/* Hashes the items one after the other; where the previous request's end is met unchanged, the new part begins. */
static int64_t input_common(const struct js *items, const struct run_state *s, struct chain *ret_chain)
{
	struct chain c = { { 0 } };
	int64_t from = 0;

	for (size_t i = 0; i < js_len(items); i++) {
		AUTO_FREE char *text = js_dump(js_at(items, i));

		chain_add(&c, text);
		if ((int64_t)i + 1 == s->input_items && memcmp(&c, &s->input_chain, sizeof(c)) == 0)
			from = s->input_items;
	}
	*ret_chain = c;
	return from;
}

static bool item_is_answer(const struct js *item)
{
	const char *type = js_str_or(item, "type", "message");

	return str_eq(js_str(item, "role"), "assistant") || str_eq(type, "reasoning") || str_ends(type, "_call");
}

/* What the model said comes back with the next request; it is on record as that reply's output. */
static size_t input_echo(const struct js *items, size_t from, const struct run_state *s)
{
	size_t n = 0;

	while (from > 0 && n < s->answered && item_is_answer(js_at(items, from + n)))
		n++;
	return n;
}

static void line_add_delta(struct js *line, const struct js *items, size_t from)
{
	struct js *delta = js_array();
	size_t bytes = 0, i;

	for (i = from; i < js_len(items); i++) {
		struct js *cut = item_cut(js_at(items, i), METER_ITEM_MAX);
		AUTO_FREE char *text = js_dump(cut);

		bytes += strlen(text);
		if (bytes > RECORD_DELTA_MAX) {
			js_free(cut);
			break;
		}
		js_push(delta, cut);
	}
	js_set(line, "input_delta", delta);
	if (i < js_len(items))
		js_set_int(line, "input_left_out", (int64_t)(js_len(items) - i));
}

static void line_begin(struct js *line, int64_t n, const char *phase)
{
	char at[RFC3339_SIZE];

	clock_rfc3339(clock_wall_ms(), at);
	js_set_int(line, "n", n);
	js_set_str(line, "phase", phase);
	js_set_str(line, "at", at);
}

/* The secrets go first: neither a cut item nor the chain, which could be guessed from, tells of them. */
static struct js *start_line(const struct run_state *s, const struct record_request *rq, const struct scrub *scrub)
{
	AUTO_JS struct js *alone = NULL;
	AUTO_JS struct js *input = scrub_js(scrub, rq->input);
	const struct js *items = input;
	struct js *line = js_object();
	char hex[RECORD_CHAIN_BYTES * 2 + 1];
	struct chain chain;
	int64_t from;
	size_t echo;

	if (js_type(items) == JS_STRING) {
		alone = js_array();
		js_push(alone, js_copy(items));
		items = alone;
	}
	from = input_common(items, s, &chain);
	line_begin(line, s->n + 1, "start");
	js_set_str(line, "request_id", rq->request_id);
	js_set_str(line, "provider", rq->provider);
	js_set_str(line, "model", rq->model);
	js_set_bool(line, "stream", rq->stream);
	js_set_int(line, "bytes", (int64_t)rq->bytes);
	js_set_int(line, "input_items", (int64_t)js_len(items));
	js_set_int(line, "input_from", from);
	js_set_str(line, "input_chain", sodium_bin2hex(hex, sizeof(hex), chain.bytes, sizeof(chain.bytes)));
	echo = input_echo(items, (size_t)from, s);
	if (echo > 0)
		js_set_int(line, "input_echoed", (int64_t)echo);
	line_add_delta(line, items, (size_t)from + echo);
	return line;
}

static enum err_code limits_check(const struct run_state *s, const struct token_claims *c, struct error *e)
{
	if (c->limit_requests > 0 && s->requests >= c->limit_requests)
		return error_set(e, ERR_LIMIT, "run '%s' has made the %lld model requests it may make", c->run, (long long)c->limit_requests);
	if (c->limit_tokens > 0 && s->tokens >= c->limit_tokens)
		return error_set(e, ERR_LIMIT, "run '%s' has used %lld of the %lld tokens it may use", c->run, (long long)s->tokens, (long long)c->limit_tokens);
	if (s->folded >= RECORD_FILE_MAX)
		return error_set(e, ERR_LIMIT, "the record of run '%s' has reached its %lld bytes", c->run, (long long)RECORD_FILE_MAX);
	return ERR_OK;
}

static enum err_code run_file_open(struct recorder *r, const char *run, int *ret_fd, struct error *e)
{
	AUTO_FREE char *name = mem_printf("%s.jsonl", run);
	AUTO_CLOSE int fd = openat(r->dir_fd, name, O_RDWR | O_APPEND | (r->expects_files ? 0 : O_CREAT) | O_NOFOLLOW | O_CLOEXEC, 0600);
	bool ended = r->expects_files && fd < 0 && (errno == ENOENT || errno == EACCES);
	struct stat st;

	if (fd < 0 && !ended)
		return error_errno(e, "open the record '%s'", name);
	if (ended || (fstat(fd, &st) == 0 && !(st.st_mode & S_IWUSR))) /* root may write whatever the mode says */
		return error_set(e, ERR_DENIED, "the run '%s' has ended, and its token with it", run);
	*ret_fd = TAKE_FD(fd);
	return ERR_OK;
}

static enum err_code start_locked(struct recorder *r, int fd, const struct token_claims *claims, const struct record_request *rq, struct record_ticket *t, struct error *e)
{
	struct run_state *s = recorder_state(r, claims->run);
	struct hidden *hidden = recorder_hidden(r, claims->run);
	AUTO_JS struct js *line = NULL;
	enum err_code rc = state_fold(s, fd, e);

	if (rc != ERR_OK)
		return rc;
	rc = limits_check(s, claims, e);
	if (rc != ERR_OK)
		return rc;
	if (hidden != NULL)
		scrub_copy(&t->scrub, &hidden->scrub);
	line = start_line(s, rq, &t->scrub);
	t->n = s->n + 1;
	return line_append(fd, line, false, e); /* folded like any other line, by the next request */
}

enum err_code record_start(struct recorder *r, const struct token_claims *claims, const struct record_request *rq, struct record_ticket *ret, struct error *e)
{
	AUTO_CLOSE int fd = -1;
	enum err_code rc = run_file_open(r, claims->run, &fd, e);

	if (rc != ERR_OK)
		return rc;
	flock(fd, LOCK_EX); /* before our own lock: another process may hold it for a moment */
	pthread_mutex_lock(&r->lock);
	rc = start_locked(r, fd, claims, rq, ret, e);
	pthread_mutex_unlock(&r->lock);
	flock(fd, LOCK_UN);
	if (rc != ERR_OK) {
		scrub_release(&ret->scrub);
		return rc;
	}
	ret->started_mono_ms = clock_mono_ms();
	ret->fd = TAKE_FD(fd);
	return ERR_OK;
}

static struct js *end_line(const struct record_ticket *t, const struct record_result *res)
{
	const struct meter *m = res->meter;
	AUTO_JS struct js *error = js_string(res->error);
	struct js *line = js_object();

	line_begin(line, t->n, "end");
	js_set_int(line, "ms", clock_mono_ms() - t->started_mono_ms);
	js_set_int(line, "status", res->status);
	js_set(line, "usage", m != NULL && m->has_usage ? usage_to_js(&m->usage) : js_null());
	js_set_int(line, "bytes_out", res->bytes_out);
	js_set(line, "error", scrub_js(&t->scrub, error));
	js_set(line, "output", m != NULL ? scrub_js(&t->scrub, m->output) : js_array());
	if (m != NULL && m->overflow)
		js_set_bool(line, "output_incomplete", true);
	return line;
}

enum err_code record_end(UNUSED struct recorder *r, struct record_ticket *ticket, const struct record_result *res, struct error *e)
{
	AUTO_CLOSE int fd = TAKE_FD(ticket->fd);
	AUTO_JS struct js *line = end_line(ticket, res);
	enum err_code rc;

	flock(fd, LOCK_EX);
	rc = line_append(fd, line, true, e);
	flock(fd, LOCK_UN);
	scrub_release(&ticket->scrub);
	return rc;
}
