/* A small load generator for HTTP over a unix socket or TCP: N keep-alive connections that ask and ask again, or M subscribers of
 * an event stream that count what arrives.  Prints one JSON line.  It is no HTTP client: it understands what a well-behaved server
 * sends, and counts everything else as a failure.
 *
 *   http_load --unix PATH --path /v1/tasks --method POST --body '{"name":"b-{n}"}' --header 'Idempotency-Key: b-{n}' -c 64 -s 5
 *   http_load --tcp 127.0.0.1:8080 --path /v1/events --subscribe -c 1000 -s 5
 *
 *   http_load --tcp ... --path / --subscribe --ws '{"type":"subscribe","tasks":["T"]}' -c 1000 -s 5     the same over WebSocket
 *   http_load --unix ... --path '/v1/tasks/T/events?after={n}' --subscribe --gapless --stalled 100 -c 2000 -s 60
 *
 * {n} in path, header and body is a number that no other request of the run has (it starts at --first). */
#include "histogram.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/opt.h"
#include "base/str.h"
#include "base/strbuf.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS_MAX 20000
#define THREADS_MAX 16
#define SECONDS_MAX 3600
#define BODY_MAX ((size_t)16 << 20)
#define REPLY_MAX ((size_t)64 << 20)
#define READ_BYTES ((size_t)64 << 10)
#define EVENTS_AT_ONCE 256
#define TICK_MS 50
#define SAMPLE_EVERY 16 /* of a subscriber's events, one has its latency measured */

enum { OPT_UNIX, OPT_TCP, OPT_PATH, OPT_METHOD, OPT_BODY, OPT_BODY_FILE, OPT_HEADER, OPT_CONNECTIONS, OPT_THREADS, OPT_SECONDS, OPT_FIRST, OPT_SUBSCRIBE, OPT_WS, OPT_GAPLESS, OPT_STALLED, OPT_REQUESTS, OPT_MARK, OPT_COUNT };

static const struct opt options[] = {
	[OPT_UNIX] = { "unix", 0, OPT_STRING, "PATH", "unix socket of the server" },
	[OPT_TCP] = { "tcp", 0, OPT_STRING, "HOST:PORT", "address of the server" },
	[OPT_PATH] = { "path", 'p', OPT_STRING, "PATH", "what to ask for" },
	[OPT_METHOD] = { "method", 'X', OPT_STRING, "METHOD", "GET unless said otherwise" },
	[OPT_BODY] = { "body", 'd', OPT_STRING, "TEXT", "JSON body" },
	[OPT_BODY_FILE] = { "body-file", 0, OPT_STRING, "FILE", "JSON body from a file" },
	[OPT_HEADER] = { "header", 'H', OPT_LIST, "LINE", "one more header" },
	[OPT_CONNECTIONS] = { "connections", 'c', OPT_INT, "N", "at once (64)" },
	[OPT_THREADS] = { "threads", 't', OPT_INT, "N", "of the generator (1)" },
	[OPT_SECONDS] = { "seconds", 's', OPT_INT, "N", "how long (5)" },
	[OPT_FIRST] = { "first", 0, OPT_INT, "N", "first value of {n} (1)" },
	[OPT_SUBSCRIBE] = { "subscribe", 0, OPT_FLAG, NULL, "follow an event stream and count its lines" },
	[OPT_WS] = { "ws", 0, OPT_STRING, "TEXT", "subscribe by WebSocket, saying TEXT first (nothing when empty)" },
	[OPT_GAPLESS] = { "gapless", 0, OPT_FLAG, NULL, "of subscribers: ids must follow on each other; done when all have been told the end" },
	[OPT_STALLED] = { "stalled", 0, OPT_INT, "N", "of the connections, so many stop reading after their first bytes" },
	[OPT_REQUESTS] = { "count", 0, OPT_INT, "N", "end after about so many requests" },
	[OPT_MARK] = { "mark", 0, OPT_STRING, "TEXT", "of subscribers: what is counted is how often it comes, not lines" },
	[OPT_COUNT] = { .name = NULL },
};

struct load {
	struct sockaddr_storage address;
	socklen_t address_len;
	struct strbuf request; /* with {n} in it */
	bool has_counter, subscribe;
	const char *mark;
	const char *ws; /* what is said on a WebSocket; NULL: no WebSocket */
	bool gapless; /* ids are looked at, and the end is waited for */
	int connections, threads, stalled;
	int64_t seconds, requests;
	atomic_int unfinished; /* subscribers that have not been told the end */
	atomic_uint_fast64_t counter;
	atomic_bool stop;
};

struct connection {
	int fd;
	struct strbuf out, in;
	size_t sent;
	int64_t began_us;
	bool head_seen, stalled, said, ended;
	int64_t last_id; /* of an SSE stream; -1: none yet */
	size_t partial; /* subscriber: bytes of the unfinished line in `in` */
	uint64_t lines;
};

struct worker {
	struct load *load;
	pthread_t thread;
	int epoll;
	struct connection *connections;
	int n;
	struct histogram latency, first;
	uint64_t done, failed, lines, least_lines, gaps;
	int64_t least_id; /* the least of those that were seen last */
	int64_t first_us, last_us; /* of all lines that count */
	char *buf;
};

static void request_fill(struct load *l, struct strbuf *out)
{
	strbuf_reset(out);
	if (!l->has_counter) {
		strbuf_add(out, l->request.data, l->request.len);
		return;
	}
	unsigned long long n = (unsigned long long)atomic_fetch_add(&l->counter, 1);
	const char *at = l->request.data, *next;
	while ((next = strstr(at, "{n}"))) {
		strbuf_add(out, at, (size_t)(next - at));
		strbuf_addf(out, "%012llu", n); /* of one width, so that Content-Length is known */
		at = next + 3;
	}
	strbuf_adds(out, at);
}

static int dial(const struct load *l, bool stalled)
{
	int one = 1, small = 4096;
	AUTO_CLOSE int fd = socket(l->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && stalled)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	if (fd < 0 || connect(fd, (const struct sockaddr *)&l->address, l->address_len))
		return -1;
	if (l->address.ss_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return TAKE_FD(fd);
}

static void connection_send(struct connection *c)
{
	while (c->sent < c->out.len) {
		ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n <= 0)
			return;
		c->sent += (size_t)n;
	}
}

static void connection_ask(struct worker *w, struct connection *c)
{
	request_fill(w->load, &c->out);
	c->sent = 0;
	c->head_seen = false;
	strbuf_reset(&c->in);
	c->began_us = clock_mono_us();
	connection_send(c);
}

static bool connection_open(struct worker *w, struct connection *c)
{
	c->fd = dial(w->load, c->stalled);
	c->last_id = -1;
	c->said = false;
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
	if (c->fd < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, c->fd, &ev))
		return false;
	connection_ask(w, c);
	return true;
}

static void connection_close(struct connection *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static void connection_fail(struct worker *w, struct connection *c)
{
	if (w->failed++ == 0)
		fprintf(stderr, "http_load: first failure: %.300s\n", c->in.len ? c->in.data : strerror(errno));
	connection_close(c);
	if (!w->load->subscribe && !atomic_load(&w->load->stop))
		(void)connection_open(w, c);
}

/* Bytes of the whole reply, 0 while it is not known or not all here. */
static size_t reply_len(const struct strbuf *in)
{
	const char *end = in->len ? strstr(in->data, "\r\n\r\n") : NULL;
	if (!end)
		return 0;
	size_t head = (size_t)(end - in->data) + 4;
	const char *length = strcasestr(in->data, "\r\nContent-Length:");
	if (length && length < end)
		return in->len >= head + strtoul(length + 17, NULL, 10) ? head + strtoul(length + 17, NULL, 10) : 0;
	return in->len >= head + 5 && memcmp(in->data + in->len - 5, "0\r\n\r\n", 5) == 0 ? in->len : 0;
}

static bool reply_take(struct worker *w, struct connection *c)
{
	if (!reply_len(&c->in))
		return true;
	bool good = c->in.len > 12 && c->in.data[9] == '2';
	if (!good)
		return false;
	histogram_add(&w->latency, clock_mono_us() - c->began_us);
	w->done++;
	w->last_us = clock_mono_us();
	if (!atomic_load_explicit(&w->load->stop, memory_order_relaxed) && (int64_t)atomic_load(&w->load->counter) < w->load->requests)
		connection_ask(w, c);
	return true;
}

/* The event's own time, "at":"2026-11-20T10:11:12.123Z", against ours. */
static void line_measure(struct worker *w, const char *line, size_t len)
{
	const char *at = memmem(line, len, "\"at\":\"", 6);
	if (!at || len - (size_t)(at - line) < 6 + RFC3339_SIZE - 1)
		return;
	char when[RFC3339_SIZE];
	memcpy(when, at + 6, RFC3339_SIZE - 1);
	when[RFC3339_SIZE - 1] = '\0';
	int64_t then_ms = clock_parse_rfc3339(when);
	if (then_ms >= 0)
		histogram_add(&w->latency, (clock_wall_ms() - then_ms) * 1000);
}

/* "id: 17": the next after the one before. */
static void id_check(struct worker *w, struct connection *c, const char *line, size_t len)
{
	char number[24];
	if (len == 10 && memcmp(line, "event: end", 10) == 0 && !c->ended) {
		c->ended = true;
		atomic_fetch_sub(&w->load->unfinished, 1);
	}
	if (len < 5 || len >= sizeof(number) || memcmp(line, "id: ", 4) != 0)
		return;
	memcpy(number, line + 4, len - 4);
	number[len - 4] = '\0';
	int64_t id = strtoll(number, NULL, 10);
	w->gaps += c->last_id >= 0 && id != c->last_id + 1;
	c->last_id = id;
}

static uint64_t marks_in(const char *line, size_t len, const char *mark)
{
	uint64_t n = 0;
	const char *at, *end = line + len;
	for (size_t size = strlen(mark); (at = memmem(line, (size_t)(end - line), mark, size)); line = at + size)
		n++;
	return n;
}

static void line_count(struct worker *w, struct connection *c, const char *line, size_t len)
{
	bool event = len > 5 && (memcmp(line, "data:", 5) == 0 || line[0] == '{');
	if (w->load->gapless)
		id_check(w, c, line, len);
	if (!event)
		return;
	uint64_t n = w->load->mark ? marks_in(line, len, w->load->mark) : 1;
	w->lines += n;
	w->last_us = n ? clock_mono_us() : w->last_us;
	w->first_us = w->first_us ? w->first_us : w->last_us;
	if (c->lines++ == 0)
		histogram_add(&w->first, clock_mono_us() - c->began_us);
	if (c->lines % SAMPLE_EVERY == 1)
		line_measure(w, line, len);
}

/* Takes the frames of the chunked coding out of what came, so that lines are whole.  What may be the beginning of one stays: how much is before it. */
static size_t chunks_join(struct strbuf *in)
{
	char *to = in->data, *at = in->data, *end = in->data + in->len, *whole = NULL;
	while (at < end) {
		char *cr = memchr(at, '\r', (size_t)(end - at)), *stop = cr ? cr : end;
		memmove(to, at, (size_t)(stop - at));
		to += stop - at;
		at = stop;
		char *size_end = cr ? memchr(cr + 2 < end ? cr + 2 : end, '\n', (size_t)(cr + 2 < end ? end - cr - 2 : 0)) : NULL;
		if (cr && !size_end) {
			whole = to;
			memmove(to, at, (size_t)(end - at));
			to += end - at;
			break;
		}
		at = cr ? size_end + 1 : end;
	}
	in->len = (size_t)(to - in->data);
	in->data[in->len] = '\0';
	return (size_t)((whole ? whole : to) - in->data);
}

/* Unmasked frames of a server. */
static bool frames_take(struct worker *w, struct connection *c)
{
	size_t at = 0;
	if (!c->said && w->load->ws[0]) {
		size_t n = strlen(w->load->ws);
		const unsigned char size[] = { 0x81, n < 126 ? (unsigned char)(0x80 | n) : 0xfe, (unsigned char)(n >> 8), (unsigned char)n }, mask[4] = { 0 };
		strbuf_reset(&c->out);
		strbuf_add(&c->out, size, n < 126 ? 2 : 4);
		strbuf_add(&c->out, mask, sizeof(mask));
		strbuf_add(&c->out, w->load->ws, n);
		c->sent = 0;
		connection_send(c);
	}
	c->said = true;
	while (c->in.len - at >= 2) {
		const unsigned char *p = (const unsigned char *)c->in.data + at;
		size_t n = p[1] & 127, head = n == 127 ? 10 : n == 126 ? 4 : 2;
		if (c->in.len - at < head)
			break;
		for (size_t i = 2, long_n = 0; n >= 126 && i < head; i++) {
			long_n = long_n << 8 | p[i];
			if (i == head - 1) {
				n = long_n;
				break;
			}
		}
		if (c->in.len - at < head + n)
			break;
		if ((p[0] & 15) == 1)
			line_count(w, c, c->in.data + at + head, n);
		else if ((p[0] & 15) == 8)
			return false;
		at += head + n;
	}
	strbuf_cut(&c->in, at);
	return true;
}

static bool subscriber_take(struct worker *w, struct connection *c)
{
	if (!c->head_seen) {
		const char *end = c->in.len ? strstr(c->in.data, "\r\n\r\n") : NULL;
		if (!end)
			return true;
		if (c->in.len < 12 || (c->in.data[9] != '2' && !(w->load->ws && memcmp(c->in.data + 9, "101", 3) == 0)))
			return false;
		c->head_seen = true;
		strbuf_cut(&c->in, (size_t)(end - c->in.data) + (w->load->gapless ? 2 : 4)); /* a chunk begins after an empty line */
		if (c->stalled)
			return true;
	}
	if (w->load->ws)
		return frames_take(w, c);
	size_t whole = w->load->gapless ? chunks_join(&c->in) : c->in.len;
	const char *at = strbuf_str(&c->in), *all_end = at + whole, *end;
	while ((end = memchr(at, '\n', (size_t)(all_end - at)))) {
		line_count(w, c, at, (size_t)(end - at));
		at = end + 1;
	}
	strbuf_cut(&c->in, (size_t)(at - strbuf_str(&c->in)));
	return true;
}

static void connection_read(struct worker *w, struct connection *c)
{
	while (!(c->stalled && c->head_seen)) {
		ssize_t n = recv(c->fd, w->buf, READ_BYTES, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n > 0)
			strbuf_add(&c->in, w->buf, (size_t)n);
		bool good = n > 0 && !c->in.over && (w->load->subscribe ? subscriber_take(w, c) : reply_take(w, c));
		if (good)
			continue;
		if (n == 0 && (c->ended || atomic_load(&w->load->stop)))
			connection_close(c);
		else
			connection_fail(w, c);
		return;
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct epoll_event events[EVENTS_AT_ONCE];
	for (int i = 0; i < w->n; i++)
		if (!connection_open(w, &w->connections[i]))
			connection_fail(w, &w->connections[i]);
	while (!atomic_load_explicit(&w->load->stop, memory_order_relaxed)) {
		int n = epoll_wait(w->epoll, events, EVENTS_AT_ONCE, TICK_MS);
		for (int i = 0; i < n; i++) {
			struct connection *c = events[i].data.ptr;
			if (c->fd >= 0 && c->sent < c->out.len)
				connection_send(c);
			if (c->fd >= 0 && c->stalled && c->head_seen)
				continue;
			if (c->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
				connection_read(w, c);
		}
	}
	w->least_lines = UINT64_MAX;
	w->least_id = INT64_MAX;
	for (int i = 0; i < w->n; i++) {
		struct connection *c = &w->connections[i];
		if (!c->stalled && c->lines < w->least_lines)
			w->least_lines = c->lines;
		if (!c->stalled && c->last_id < w->least_id)
			w->least_id = c->last_id;
		connection_close(c);
		strbuf_release(&c->in);
		strbuf_release(&c->out);
	}
	return NULL;
}

static void worker_init(struct worker *workers, struct worker *w, struct load *l, int n)
{
	w->load = l;
	w->n = n;
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->connections = mem_alloc((size_t)n * sizeof(*w->connections));
	w->buf = mem_alloc(READ_BYTES);
	for (int i = 0; i < n; i++) {
		w->connections[i].fd = -1;
		w->connections[i].in.max = REPLY_MAX;
		w->connections[i].stalled = w == workers && i < l->stalled;
	}
}

static void report(struct load *l, const struct worker *workers, double took_s)
{
	struct worker *sum = NEW(struct worker);
	sum->least_lines = UINT64_MAX;
	sum->least_id = INT64_MAX;
	for (int i = 0; i < l->threads; i++) {
		const struct worker *w = &workers[i];
		histogram_merge(&sum->latency, &w->latency);
		histogram_merge(&sum->first, &w->first);
		sum->done += w->done;
		sum->failed += w->failed;
		sum->lines += w->lines;
		sum->gaps += w->gaps;
		sum->least_id = w->least_id < sum->least_id ? w->least_id : sum->least_id;
		sum->first_us = !sum->first_us || (w->first_us && w->first_us < sum->first_us) ? w->first_us : sum->first_us;
		sum->last_us = w->last_us > sum->last_us ? w->last_us : sum->last_us;
		if (w->least_lines < sum->least_lines)
			sum->least_lines = w->least_lines;
	}
	printf("{\"connections\":%d,\"seconds\":%.2f,\"failed\":%llu,", l->connections, took_s, (unsigned long long)sum->failed);
	if (l->subscribe)
		printf("\"span_s\":%.3f,\"gaps\":%llu,\"unfinished\":%d,\"least_id\":%lld,", (double)(sum->last_us - sum->first_us) / 1e6,
			(unsigned long long)sum->gaps, atomic_load(&l->unfinished), (long long)sum->least_id);
	if (l->subscribe)
		printf("\"deliveries\":%llu,\"per_s\":%.0f,\"least\":%llu,\"first_p99_ms\":%.2f,", (unsigned long long)sum->lines, (double)sum->lines / took_s,
			(unsigned long long)sum->least_lines, histogram_ms(&sum->first, 0.99));
	else
		printf("\"requests\":%llu,\"per_s\":%.0f,", (unsigned long long)sum->done, (double)sum->done / took_s);
	printf("\"p50_ms\":%.3f,\"p99_ms\":%.3f}\n", histogram_ms(&sum->latency, 0.5), histogram_ms(&sum->latency, 0.99));
	free(sum);
}

static void load_run(struct load *l)
{
	struct worker *workers = mem_alloc((size_t)l->threads * sizeof(*workers));
	int64_t from = clock_mono_us();
	l->unfinished = l->gapless ? l->connections - l->stalled : 0;
	for (int i = 0; i < l->threads; i++) {
		worker_init(workers, &workers[i], l, l->connections / l->threads + (i < l->connections % l->threads));
		pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
	}
	while (clock_mono_us() - from < l->seconds * 1000000 && !(l->gapless && atomic_load(&l->unfinished) == 0) &&
		(int64_t)atomic_load(&l->counter) < l->requests) {
		struct timespec pause = { .tv_nsec = TICK_MS * 1000000L };
		nanosleep(&pause, NULL);
	}
	int64_t until = clock_mono_us(), last = 0;
	atomic_store(&l->stop, true);
	for (int i = 0; i < l->threads; i++) {
		pthread_join(workers[i].thread, NULL);
		last = workers[i].last_us > last ? workers[i].last_us : last;
	}
	double took_s = (double)((l->requests < INT64_MAX && last ? last : until) - from) / 1e6;
	report(l, workers, took_s);
	for (int i = 0; i < l->threads; i++) {
		close(workers[i].epoll);
		free(workers[i].connections);
		free(workers[i].buf);
	}
	free(workers);
}

static enum err_code address_unix(struct load *l, const char *path, struct error *e)
{
	struct sockaddr_un *a = (struct sockaddr_un *)&l->address;
	if (strlen(path) >= sizeof(a->sun_path))
		return error_set(e, ERR_USAGE, "the socket path '%s' is too long", path);
	a->sun_family = AF_UNIX;
	memcpy(a->sun_path, path, strlen(path));
	l->address_len = sizeof(*a);
	return ERR_OK;
}

static enum err_code address_tcp(struct load *l, const char *address, struct error *e)
{
	const char *colon = strrchr(address, ':');
	struct addrinfo want = { .ai_socktype = SOCK_STREAM }, *found = NULL;
	if (!colon)
		return error_set(e, ERR_USAGE, "'%s' is not HOST:PORT", address);
	AUTO_FREE char *host = mem_strndup(address, (size_t)(colon - address));
	int rc = getaddrinfo(host, colon + 1, &want, &found);
	if (rc)
		return error_set(e, ERR_USAGE, "'%s': %s", address, gai_strerror(rc));
	memcpy(&l->address, found->ai_addr, found->ai_addrlen);
	l->address_len = found->ai_addrlen;
	freeaddrinfo(found);
	return ERR_OK;
}

static size_t filled_len(const char *text)
{
	size_t n = strlen(text);
	for (const char *at = text; (at = strstr(at, "{n}")); at += 3)
		n += 12 - 3;
	return n;
}

static enum err_code request_build(struct load *l, const struct opt_value *v, struct error *e)
{
	AUTO_STRBUF struct strbuf body = STRBUF_LIMIT(BODY_MAX);
	if (v[OPT_BODY].set)
		strbuf_adds(&body, v[OPT_BODY].text);
	if (v[OPT_BODY_FILE].set && file_read(v[OPT_BODY_FILE].text, BODY_MAX, &body, e))
		return e->code;
	const char *method = v[OPT_METHOD].set ? v[OPT_METHOD].text : body.len ? "POST" : "GET";
	strbuf_addf(&l->request, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, v[OPT_PATH].set ? v[OPT_PATH].text : "/");
	if (l->ws)
		strbuf_adds(&l->request, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
	else if (l->subscribe)
		strbuf_adds(&l->request, "Accept: text/event-stream\r\n");
	for (int i = 0; i < v[OPT_HEADER].list_len; i++)
		strbuf_addf(&l->request, "%s\r\n", v[OPT_HEADER].list[i]);
	if (body.len)
		strbuf_addf(&l->request, "Content-Type: application/json\r\nContent-Length: %zu\r\n", filled_len(body.data));
	strbuf_addf(&l->request, "\r\n%s", strbuf_str(&body));
	l->has_counter = strstr(l->request.data, "{n}") != NULL;
	return ERR_OK;
}

static enum err_code number(const struct opt_value *v, const char *what, int64_t def, int64_t max, int64_t *ret, struct error *e)
{
	*ret = v->set ? v->number : def;
	return *ret >= 1 && *ret <= max ? ERR_OK : error_set(e, ERR_USAGE, "%s: from 1 to %lld", what, (long long)max);
}

static enum err_code load_configure(struct load *l, const struct opt_value *v, struct error *e)
{
	int64_t connections, threads, first;
	if (v[OPT_UNIX].set == v[OPT_TCP].set)
		return error_set(e, ERR_USAGE, "say either --unix or --tcp");
	if ((v[OPT_UNIX].set ? address_unix(l, v[OPT_UNIX].text, e) : address_tcp(l, v[OPT_TCP].text, e)) ||
		number(&v[OPT_CONNECTIONS], "--connections", 64, CONNECTIONS_MAX, &connections, e) || number(&v[OPT_THREADS], "--threads", 1, THREADS_MAX, &threads, e) ||
		number(&v[OPT_SECONDS], "--seconds", 5, SECONDS_MAX, &l->seconds, e) || number(&v[OPT_FIRST], "--first", 1, INT64_MAX, &first, e))
		return e->code;
	l->connections = (int)connections;
	l->threads = (int)(threads < connections ? threads : connections);
	l->subscribe = v[OPT_SUBSCRIBE].flag;
	l->requests = v[OPT_REQUESTS].set ? v[OPT_REQUESTS].number + first : INT64_MAX;
	l->mark = v[OPT_MARK].set ? v[OPT_MARK].text : NULL;
	l->ws = v[OPT_WS].set ? v[OPT_WS].text : NULL;
	l->gapless = v[OPT_GAPLESS].flag;
	l->stalled = v[OPT_STALLED].set ? (int)v[OPT_STALLED].number : 0;
	l->counter = (uint_fast64_t)first;
	return request_build(l, v, e);
}

int main(int argc, char **argv)
{
	struct error e = ERROR_INIT;
	struct load l = { .request = { .max = BODY_MAX + REPLY_MAX } };
	struct opt_value *values = mem_alloc(OPT_COUNT * sizeof(*values));
	AUTO_FREE char **rest = mem_alloc((size_t)argc * sizeof(*rest));
	int n_rest = 0;
	struct rlimit files;
	if (opt_parse(options, argc - 1, argv + 1, values, rest, &n_rest, &e) || load_configure(&l, values, &e)) {
		fprintf(stderr, "http_load: %s\n", e.text);
		return 2;
	}
	free(values);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	load_run(&l);
	strbuf_release(&l.request);
	return 0;
}
