/* WebSockets inside the server: pings, stalled peers, wakes from many threads, and a stop in the middle of it all. */
#include "net_site.h"
#include "net/ws.h"
#include <pthread.h>
#include <stdatomic.h>

#define WAKERS 4
#define WAKES 5000
#define PEERS 20
#define SHORT_MS 40
#define READ_BYTES 65536
#define ON_THE_WAY_MAX (8 << 20) /* bytes: more than all buffers between two ends hold */
#define HANDSHAKE "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" \
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: test.v1\r\n\r\n"

/* What the server's side of all connections does, and what became of it. */
struct house {
	struct site site;
	struct ws_config config;
	bool flood;	/* says as much as there is room for */
	pthread_mutex_t lock; /* guards the list */
	struct guest *guests;
	atomic_int opened, closed, heard;
};

struct guest {
	struct house *house;
	struct ws *ws;
	struct guest *next;
	atomic_int news; /* made by the wakers, told by ready */
	int told;
};

static void guest_open(void *state, struct ws *w)
{
	struct guest *g = state;
	g->ws = w;
	pthread_mutex_lock(&g->house->lock);
	g->next = g->house->guests;
	g->house->guests = g;
	pthread_mutex_unlock(&g->house->lock);
	atomic_fetch_add(&g->house->opened, 1);
	if (g->house->flood)
		ws_wake(w);
}

static void guest_text(void *state, const char *text, size_t len)
{
	struct guest *g = state;
	atomic_fetch_add(&g->house->heard, 1);
	ws_send(g->ws, text, len);
}

static void guest_ready(void *state)
{
	char chunk[4096];
	memset(chunk, 'x', sizeof(chunk));
	struct guest *g = state;
	while (g->house->flood && ws_has_room(g->ws))
		ws_send(g->ws, chunk, sizeof(chunk));
	if (!g->house->flood && g->told < atomic_load(&g->news)) {
		g->told = atomic_load(&g->news);
		AUTO_FREE char *text = mem_printf("[%d]", g->told);
		ws_send(g->ws, text, strlen(text));
	}
}

static void guest_closed(void *state)
{
	struct guest *g = state;
	struct house *h = g->house;
	pthread_mutex_lock(&h->lock);
	for (struct guest **at = &h->guests; *at; at = &(*at)->next)
		if (*at == g) {
			*at = g->next;
			break;
		}
	pthread_mutex_unlock(&h->lock);
	free(g);
	atomic_fetch_add(&h->closed, 1);
}

static void handle(struct http_request *r, void *ctx)
{
	static const struct ws_ops ops = { guest_open, guest_text, guest_ready, guest_closed };
	struct house *h = ctx;
	struct guest *g = NEW(struct guest);
	g->house = h;
	http_upgrade_ws(r, &h->config, &ops, g);
}

static const struct http_route routes[] = { { "GET", "/ws", handle, 0, 0, "" }, { 0 } };

static void house_open(struct house *h)
{
	pthread_mutex_init(&h->lock, NULL);
	h->config.protocol = "test.v1";
	site_init(&h->site);
	site_start(&h->site, (struct http_config){ .routes = routes, .ctx = h, .threads = 4 });
}

static void house_close(struct house *h)
{
	site_release(&h->site);
	pthread_mutex_destroy(&h->lock);
}

static int enter(const struct house *h, struct strbuf *in)
{
	int fd = dial(&h->site);
	say(fd, HANDSHAKE);
	assert_true(hear(fd, in, "\r\n\r\n"));
	assert_non_null(strstr(in->data, "HTTP/1.1 101 "));
	assert_non_null(strstr(in->data, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")); /* the RFC's own example */
	strbuf_cut(in, (size_t)(strstr(in->data, "\r\n\r\n") + 4 - in->data));
	return fd;
}

/* Reads to the end; whether the bytes came on the way. */
static bool ends_with_bytes(int fd, struct strbuf *in, const void *bytes, size_t n)
{
	hear(fd, in, NULL);
	return memmem(strbuf_str(in), in->len, bytes, n) != NULL;
}

static void wait_until(atomic_int *what, int value)
{
	for (int i = 0; i < WAIT_MS && atomic_load(what) != value; i++)
		poll(NULL, 0, 1);
	assert_int_equal(atomic_load(what), value);
}

static void a_peer_that_does_not_answer_pings_is_cut(void **state)
{
	(void)state;
	struct house h = { .config = { .ping_ms = SHORT_MS, .pong_ms = SHORT_MS } };
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	house_open(&h);
	AUTO_CLOSE int fd = enter(&h, &in);
	assert_true(ends_with_bytes(fd, &in, "\x89\x00", 2)); /* pinged, then the end */
	wait_until(&h.closed, 1);
	house_close(&h);
}

static void a_peer_that_answers_pings_stays(void **state)
{
	(void)state;
	struct house h = { .config = { .ping_ms = SHORT_MS, .pong_ms = WAIT_MS } };
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	house_open(&h);
	AUTO_CLOSE int fd = enter(&h, &in);
	for (int i = 0; i < 5; i++) {
		assert_true(hear(fd, &in, "\x89"));
		strbuf_reset(&in);
		say(fd, "\x8a\x80" "abcd");
	}
	say(fd, "\x81\x82" "\x01\x01\x01\x01" "ij"); /* masked "hk" */
	assert_true(hear(fd, &in, "hk"));
	assert_int_equal(atomic_load(&h.closed), 0);
	house_close(&h);
	assert_int_equal(atomic_load(&h.closed), 1);
}

/* Takes nothing for a while, then all until the bytes have come.  How long a silence a busy server needs to notice nobody knows: when it has
 * gone on talking, the next is longer. */
static void hear_after_silence(int fd, const char *bytes, size_t n)
{
	char window[READ_BYTES + 16];
	size_t kept = 0, taken = 0;
	for (int silence_ms = 3 * SHORT_MS; silence_ms < WAIT_MS; silence_ms *= 2, taken = 0) {
		poll(NULL, 0, silence_ms);
		while (taken < ON_THE_WAY_MAX) {
			ssize_t got = read(fd, window + kept, READ_BYTES);
			assert_true(got > 0);
			taken += (size_t)got;
			kept += (size_t)got;
			if (memmem(window, kept, bytes, n))
				return;
			size_t tail = kept < n ? kept : n;
			memmove(window, window + kept - tail, tail);
			kept = tail;
		}
	}
	fail_msg("it was never told");
}

static void a_peer_that_takes_nothing_is_closed_as_lagged(void **state)
{
	(void)state;
	struct house h = { .config = { .stall_ms = SHORT_MS, .close_ms = WAIT_MS }, .flood = true };
	house_open(&h);
	AUTO_CLOSE int fd = dial(&h.site);
	say(fd, HANDSHAKE);
	wait_until(&h.opened, 1);
	hear_after_silence(fd, "\x88\x08\x03\xf5" "lagged", 10); /* it listens again: it is told why */
	say(fd, "\x88\x80" "abcd");
	wait_until(&h.closed, 1);
	house_close(&h);
}

static void a_close_that_is_not_answered_is_cut_after_its_time(void **state)
{
	(void)state;
	struct house h = { .config = { .close_ms = SHORT_MS } };
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	house_open(&h);
	AUTO_CLOSE int fd = enter(&h, &in);
	say(fd, "\x82\x80" "abcd"); /* binary: refused with 1003 */
	wait_until(&h.closed, 1);
	assert_true(ends_with_bytes(fd, &in, "\x03\xeb", 2));
	house_close(&h);
}

static void *wake_all(void *arg)
{
	struct house *h = arg;
	for (int i = 0; i < WAKES; i++) {
		pthread_mutex_lock(&h->lock);
		for (struct guest *g = h->guests; g; g = g->next) {
			atomic_fetch_add(&g->news, 1);
			ws_wake(g->ws);
		}
		pthread_mutex_unlock(&h->lock);
	}
	return NULL;
}

static void wakes_from_many_threads_are_not_lost(void **state)
{
	(void)state;
	struct house h = { .flood = false };
	int fds[PEERS];
	struct strbuf in[PEERS];
	pthread_t threads[WAKERS];
	AUTO_FREE char *last = mem_printf("[%d]", WAKERS * WAKES);
	house_open(&h);
	for (int i = 0; i < PEERS; i++) {
		in[i] = (struct strbuf)STRBUF_INIT;
		fds[i] = enter(&h, &in[i]);
	}
	wait_until(&h.opened, PEERS);
	for (int i = 0; i < WAKERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, wake_all, &h), 0);
	for (int i = 0; i < PEERS; i++) {
		while (!memmem(strbuf_str(&in[i]), in[i].len, last, strlen(last))) {
			char buf[65536];
			ssize_t n = read(fds[i], buf, sizeof(buf));
			assert_true(n > 0);
			strbuf_add(&in[i], buf, (size_t)n);
		}
		strbuf_release(&in[i]);
		close(fds[i]);
	}
	for (int i = 0; i < WAKERS; i++)
		pthread_join(threads[i], NULL);
	wait_until(&h.closed, PEERS);
	house_close(&h);
}

/* Some have entered, some are just entering, some flood; each state is given back once. */
static void a_stop_in_the_middle_gives_everybody_back_once(void **state)
{
	(void)state;
	struct house h = { .flood = true };
	int fds[PEERS];
	house_open(&h);
	for (int i = 0; i < PEERS; i++) {
		fds[i] = dial(&h.site);
		say(fds[i], HANDSHAKE);
	}
	while (!atomic_load(&h.opened))
		poll(NULL, 0, 1);
	pthread_t waker;
	assert_int_equal(pthread_create(&waker, NULL, wake_all, &h), 0);
	http_server_stop(h.site.server);
	h.site.server = NULL;
	pthread_join(waker, NULL);
	assert_null(h.guests);
	assert_true(atomic_load(&h.closed) >= atomic_load(&h.opened));
	for (int i = 0; i < PEERS; i++)
		close(fds[i]);
	house_close(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_peer_that_does_not_answer_pings_is_cut),
		cmocka_unit_test(a_peer_that_answers_pings_stays),
		cmocka_unit_test(a_peer_that_takes_nothing_is_closed_as_lagged),
		cmocka_unit_test(a_close_that_is_not_answered_is_cut_after_its_time),
		cmocka_unit_test(wakes_from_many_threads_are_not_lost),
		cmocka_unit_test(a_stop_in_the_middle_gives_everybody_back_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
