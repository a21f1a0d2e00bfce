/* The runner's side of the protocol: HTTP/1.0 over the server's unix socket, one connection a call (30 us here, and an answer ends where
 * the connection does).  Two calls may be under way: a batch going out, and the long poll for commands.  The server may be away for any
 * time: both are tried again with growing pauses, and the spool keeps what is not acknowledged. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LINK_BATCH_LINES 256
#define LINK_REPLY_MAX ((size_t)4 << 20)
#define LINK_CALL_TIMEOUT_MS 30000
#define LINK_POLL_WAIT_S 25
#define LINK_RETRY_FIRST_MS 50
#define LINK_RETRY_MAX_MS 2000
#define LINK_PROTOCOL 1

struct call {
	int fd; /* -1: idle */
	struct strbuf out, in;
	size_t sent;
	int64_t deadline_ms, not_before_ms, retry_ms;
};

struct link {
	const char *socket;
	struct call batch, commands;
	int64_t command_seen;
	bool want_beat, away;
	int batch_lines;
};

enum err_code link_open(const struct runner *r, struct link **ret, struct error *e)
{
	const char *socket = js_str(js_get(r->spec, "server"), "socket");
	struct sockaddr_un addr;
	if (!socket || strlen(socket) >= sizeof(addr.sun_path))
		return error_set(e, ERR_INVALID, "the spec's server socket '%s' is not usable", socket ? socket : "");
	struct link *l = NEW(struct link);
	l->socket = socket;
	l->batch = l->commands = (struct call){ .fd = -1, .retry_ms = LINK_RETRY_FIRST_MS };
	l->batch.in.max = l->commands.in.max = LINK_REPLY_MAX;
	*ret = l;
	return ERR_OK;
}

static void call_close(struct call *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	strbuf_reset(&c->out);
	strbuf_reset(&c->in);
	c->sent = 0;
}

void link_close(struct link *l)
{
	if (!l)
		return;
	call_close(&l->batch);
	call_close(&l->commands);
	strbuf_release(&l->batch.out);
	strbuf_release(&l->batch.in);
	strbuf_release(&l->commands.out);
	strbuf_release(&l->commands.in);
	free(l);
}

static void call_failed(struct call *c, int64_t now_ms)
{
	call_close(c);
	c->not_before_ms = now_ms + c->retry_ms;
	c->retry_ms = c->retry_ms * 2 < LINK_RETRY_MAX_MS ? c->retry_ms * 2 : LINK_RETRY_MAX_MS;
}

static bool call_connect(struct call *c, const char *path, int64_t now_ms, int64_t timeout_ms)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	memcpy(addr.sun_path, path, strlen(path) + 1);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	c->deadline_ms = now_ms + timeout_ms;
	if (c->fd >= 0 && connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return true;
	call_failed(c, now_ms); /* EAGAIN included: the server's backlog is full, later is better */
	return false;
}

static void request_head(struct strbuf *out, const char *method, const struct runner *r, const char *rest, size_t body)
{
	strbuf_addf(out, "%s /runner/v1/runs/%s/%s HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n", method, r->run_id, rest, r->token);
	if (body)
		strbuf_addf(out, "Content-Type: application/json\r\nContent-Length: %zu\r\n", body);
	strbuf_adds(out, "\r\n");
}

/* The lines are JSON already; they are put into the frame as they are. */
static void batch_body(struct runner *r, const struct strbuf *lines, struct strbuf *out)
{
	strbuf_addf(out, "{\"protocol\":%d,\"epoch\":%lld,\"events\":[", LINK_PROTOCOL, (long long)r->epoch);
	strbuf_add(out, strbuf_str(lines), lines->len);
	strbuf_adds(out, "],\"live\":");
	js_dump_to(r->live, out);
	if (r->link->want_beat) {
		AUTO_JS struct js *beat = beat_make(r);
		strbuf_adds(out, ",\"beat\":");
		js_dump_to(beat, out);
	}
	strbuf_addc(out, '}');
}

static void batch_start(struct runner *r, int64_t now_ms)
{
	struct link *l = r->link;
	AUTO_STRBUF struct strbuf lines = STRBUF_INIT;
	AUTO_STRBUF struct strbuf body = STRBUF_INIT;
	struct error e = ERROR_INIT;
	int64_t first = 0;
	if (l->batch.fd >= 0 || now_ms < l->batch.not_before_ms)
		return;
	if (spool_all_acked(r->spool) && !js_len(r->live) && !l->want_beat)
		return;
	if (spool_sync(r->spool, &e)) { /* what is not durable is not sent */
		log_error("%s", e.text);
		l->batch.not_before_ms = now_ms + LINK_RETRY_MAX_MS;
		return;
	}
	l->batch_lines = spool_next(r->spool, LINK_BATCH_LINES, &lines, &first);
	batch_body(r, &lines, &body);
	if (!call_connect(&l->batch, l->socket, now_ms, LINK_CALL_TIMEOUT_MS)) {
		l->away = true;
		return;
	}
	request_head(&l->batch.out, "POST", r, "events", body.len);
	strbuf_add(&l->batch.out, body.data, body.len);
	js_free(r->live);
	r->live = js_array();
	l->want_beat = false;
}

static void commands_start(struct runner *r, int64_t now_ms)
{
	struct link *l = r->link;
	if (l->commands.fd >= 0 || now_ms < l->commands.not_before_ms || r->result_spooled)
		return;
	AUTO_FREE char *rest = mem_printf("commands?after=%lld&wait=%d", (long long)l->command_seen, LINK_POLL_WAIT_S);
	l->away = !call_connect(&l->commands, l->socket, now_ms, LINK_POLL_WAIT_S * 1000 + LINK_CALL_TIMEOUT_MS);
	if (!l->away)
		request_head(&l->commands.out, "GET", r, rest, 0);
}

/* Status and body of a complete answer. */
static int parse_reply(const struct strbuf *in, struct js **ret_body)
{
	const char *text = strbuf_str(in), *body = strstr(text, "\r\n\r\n");
	int64_t status = 0;
	if (in->over || !str_starts(text, "HTTP/1.") || in->len < 12 || !body)
		return 0;
	char digits[4] = { text[9], text[10], text[11], 0 };
	if (str_to_i64(digits, "status", 100, 599, &status, NULL))
		return 0;
	body += 4;
	*ret_body = js_parse(body, in->len - (size_t)(body - text), NULL);
	return (int)status;
}

/* The server says that this runner has no business any more. */
static bool is_dismissal(int status, const struct js *body)
{
	const char *code = js_str_or(body, "code", "");
	return str_eq(code, "stale") || (status >= 400 && (str_eq(code, "not_found") || str_eq(code, "denied") || str_eq(code, "gone")));
}

static void dismissed(struct runner *r, const struct js *body)
{
	log_warn("the server refuses this runner: %s", js_str_or(body, "detail", "no reason given"));
	r->stale = true;
}

static void batch_done(struct runner *r, int64_t now_ms)
{
	struct link *l = r->link;
	AUTO_JS struct js *body = NULL;
	int status = parse_reply(&l->batch.in, &body);
	if (status == 200 && body) {
		call_close(&l->batch);
		l->batch.retry_ms = LINK_RETRY_FIRST_MS;
		l->away = false;
		spool_acked(r->spool, js_i64(body, "acked", 0));
		return;
	}
	if (is_dismissal(status, body)) {
		dismissed(r, body);
	} else if (status) {
		log_warn("the server answered %d: %s", status, js_str_or(body, "detail", ""));
	}
	l->away = true;
	call_failed(&l->batch, now_ms);
}

static void command_take(struct runner *r, const struct js *command)
{
	struct link *l = r->link;
	int64_t n = js_i64(command, "n", 0);
	if (n <= l->command_seen)
		return;
	l->command_seen = n;
	const char *kind = js_str_or(command, "kind", "");
	const struct js *data = js_get(command, "data");
	if (str_eq(kind, "cancel"))
		runner_verdict(r, PHASE_CANCELED, "canceled", "canceled by %s", js_str_or(command, "actor", "somebody"));
	else if (str_eq(kind, "decision"))
		gates_command(r, data);
	else if (str_eq(kind, "message"))
		agent_told(r, data);
	else if (str_eq(kind, "interrupt"))
		agent_end_turn(r, js_str_or(command, "actor", "somebody"));
}

static void commands_done(struct runner *r, int64_t now_ms)
{
	struct link *l = r->link;
	AUTO_JS struct js *body = NULL;
	int status = parse_reply(&l->commands.in, &body);
	if (status != 200 || !body) {
		if (is_dismissal(status, body))
			dismissed(r, body);
		call_failed(&l->commands, now_ms);
		return;
	}
	const struct js *list = js_get(body, "commands");
	for (size_t i = 0; i < js_len(list); i++)
		command_take(r, js_at(list, i));
	bool over = js_flag(body, "over", false);
	call_close(&l->commands);
	l->commands.retry_ms = LINK_RETRY_FIRST_MS;
	if (over)
		l->commands.not_before_ms = now_ms + LINK_RETRY_MAX_MS; /* the batch call will be told why */
}

/* Writes and reads what goes; true when the answer is complete (EOF), false when more is to come; on failure closes the call. */
static bool call_turn(struct call *c, short revents, int64_t now_ms)
{
	if (c->fd < 0)
		return false;
	while (c->sent < c->out.len) {
		ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
		if (n <= 0) {
			if (n < 0 && (errno == EAGAIN || errno == EINTR))
				return false;
			call_failed(c, now_ms);
			return false;
		}
		c->sent += (size_t)n;
	}
	if (!revents)
		return false;
	for (;;) {
		char *room = strbuf_reserve(&c->in, RUNNER_STEP_PIPE_READ);
		ssize_t n = room ? recv(c->fd, room, RUNNER_STEP_PIPE_READ, 0) : -1;
		if (n == 0)
			return true;
		if (n < 0 && (errno == EAGAIN || errno == EINTR) && room)
			return false;
		if (n < 0) {
			call_failed(c, now_ms);
			return false;
		}
		c->in.len += (size_t)n;
		c->in.data[c->in.len] = 0;
	}
}

int link_poll_fds(struct runner *r, struct pollfd *fds)
{
	struct call *calls[] = { &r->link->batch, &r->link->commands };
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		fds[i] = (struct pollfd){ .fd = calls[i]->fd, .events = calls[i]->sent < calls[i]->out.len ? POLLOUT | POLLIN : POLLIN };
	return (int)ARRAY_SIZE(calls);
}

void link_turn(struct runner *r, const struct pollfd *fds, int n, int64_t now_ms)
{
	struct link *l = r->link;
	if (call_turn(&l->batch, n > 0 ? fds[0].revents : 0, now_ms))
		batch_done(r, now_ms);
	if (call_turn(&l->commands, n > 1 ? fds[1].revents : 0, now_ms))
		commands_done(r, now_ms);
	struct call *calls[] = { &l->batch, &l->commands };
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i]->fd >= 0 && now_ms >= calls[i]->deadline_ms)
			call_failed(calls[i], now_ms);
	batch_start(r, now_ms);
	commands_start(r, now_ms);
	call_turn(&l->batch, 0, now_ms); /* the first bytes usually go at once */
	call_turn(&l->commands, 0, now_ms);
}

int64_t link_next_ms(const struct runner *r)
{
	const struct link *l = r->link;
	int64_t next = INT64_MAX;
	bool work = !spool_all_acked(r->spool) || js_len(r->live) || l->want_beat;
	if (l->batch.fd >= 0)
		next = l->batch.deadline_ms;
	else if (work)
		next = l->batch.not_before_ms;
	int64_t commands = l->commands.fd >= 0 ? l->commands.deadline_ms : l->commands.not_before_ms;
	if (!r->result_spooled && commands < next)
		next = commands;
	return next;
}

bool link_is_away(const struct runner *r)
{
	return r->link->away;
}

void link_want_beat(struct runner *r)
{
	r->link->want_beat = true;
}
