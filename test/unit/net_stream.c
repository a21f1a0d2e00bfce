/* The HTTP server's streams: suspended and woken under load, left by their clients, stalled, stopped. */
#include "net_site.h"
#include <pthread.h>
#include <stdatomic.h>

#define STREAMS 100
#define ITEMS 2000
#define WAKERS 2
#define VISITORS 16
#define VISITS 200
#define SHORT_MS 10
#define FLOOD_BYTES ((size_t)8 << 20) /* more than any socket holds */

/* A log that grows; its readers are streams. */
struct topic {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int64_t items;
	bool ended;
	int readers, freed;
	struct reader *list;
};

struct reader {
	struct topic *topic;
	struct http_stream *stream;
	int64_t sent;
	bool flood;
	struct reader *next;
};

struct fixture {
	struct site site;
	struct topic topic;
	bool crowd; /* its streams are served by threads of their own */
};

static void topic_wake(struct topic *t)
{
	pthread_mutex_lock(&t->lock);
	for (struct reader *r = t->list; r; r = r->next)
		http_stream_wake(r->stream);
	pthread_mutex_unlock(&t->lock);
}

static ssize_t reader_read(void *state, char *buf, size_t max)
{
	struct reader *r = state;
	if (r->flood) {
		memset(buf, 'x', max);
		return (ssize_t)max;
	}
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	pthread_mutex_lock(&r->topic->lock);
	int64_t items = r->topic->items;
	bool ended = r->topic->ended;
	pthread_mutex_unlock(&r->topic->lock);
	while (r->sent < items && out.len + 24 < max)
		strbuf_addf(&out, "%lld\n", (long long)++r->sent);
	if (out.len)
		memcpy(buf, out.data, out.len);
	else if (ended)
		return -1;
	return (ssize_t)out.len;
}

static void reader_free(void *state)
{
	struct reader *r = state;
	struct topic *t = r->topic;
	pthread_mutex_lock(&t->lock);
	struct reader **at = &t->list;
	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	t->readers--;
	t->freed++;
	pthread_cond_broadcast(&t->changed);
	pthread_mutex_unlock(&t->lock);
	free(r);
}

static const struct http_stream_ops reader_ops = { reader_read, reader_free };

static void handle_stream(struct http_request *r, void *ctx)
{
	struct fixture *f = ctx;
	struct reader *reader = NEW(struct reader);
	reader->topic = &f->topic;
	reader->flood = http_query(r, "flood") != NULL;
	pthread_mutex_lock(&f->topic.lock);
	if (f->crowd)
		http_stream_crowd(r, 200, "text/plain", &reader_ops, reader, &reader->stream);
	else
		http_stream(r, 200, "text/plain", &reader_ops, reader, &reader->stream);
	reader->next = f->topic.list;
	f->topic.list = reader;
	f->topic.readers++;
	pthread_cond_broadcast(&f->topic.changed);
	pthread_mutex_unlock(&f->topic.lock);
}

static void readers_await(struct topic *t, const int *count, int wanted)
{
	pthread_mutex_lock(&t->lock);
	while (*count != wanted)
		pthread_cond_wait(&t->changed, &t->lock);
	pthread_mutex_unlock(&t->lock);
}

static void handle_hello(struct http_request *r, void *ctx)
{
	(void)ctx;
	http_reply(r, 200, "text/plain", "hello", 5);
}

static const struct http_route routes[] = {
	{ "GET", "/v1/stream", handle_stream, 0, 0, "stream" },
	{ "GET", "/v1/hello", handle_hello, 0, 0, "hello" },
	{ .method = NULL },
};

static int setup_threads(void **state, unsigned threads, bool own_threads)
{
	struct fixture *f = NEW(struct fixture);
	pthread_mutex_init(&f->topic.lock, NULL);
	pthread_cond_init(&f->topic.changed, NULL);
	site_init(&f->site);
	site_start(&f->site, (struct http_config){ .routes = routes, .ctx = f, .threads = threads, .thread_per_connection = own_threads });
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_threads(state, 4, false);
}

static int setup_crowd(void **state)
{
	int rc = setup_threads(state, 1, false);
	struct fixture *f = *state;
	f->crowd = true;
	return rc;
}

static int setup_one_thread(void **state)
{
	return setup_threads(state, 1, false);
}

static int setup_own_threads(void **state)
{
	return setup_threads(state, 1, true);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	site_release(&f->site);
	assert_int_equal(f->topic.readers, 0);
	pthread_mutex_destroy(&f->topic.lock);
	pthread_cond_destroy(&f->topic.changed);
	free(f);
	return 0;
}

static void a_head_of_a_stream_reads_nothing_and_frees_it(void **state)
{
	struct fixture *f = *state;
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	ask(&f->site, "HEAD /v1/stream HTTP/1.1\r\n" HEAD_END, &in);
	assert_true(str_starts(in.data, "HTTP/1.1 200 "));
	assert_true(str_ends(in.data, "\r\n\r\n"));
	readers_await(&f->topic, &f->topic.freed, 1);
}

/* One client of a stream: checks that the numbers come in order and without gaps, until the end. */
static void *follow(void *arg)
{
	struct fixture *f = arg;
	AUTO_CLOSE int fd = dial(&f->site);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	say(fd, "GET /v1/stream HTTP/1.0\r\nHost: x\r\n\r\n"); /* 1.0: no chunk heads among the numbers */
	hear(fd, &in, NULL);
	const char *at = strstr(strbuf_str(&in), "\r\n\r\n");
	int64_t n = 0;
	for (at = at ? at + 4 : ""; *at; at = strchr(at, '\n') + 1)
		if (strtoll(at, NULL, 10) != ++n)
			return NULL;
	return (void *)(intptr_t)n;
}

struct waker { struct fixture *f; int items; };

static void *grow(void *arg)
{
	struct waker *w = arg;
	for (int i = 0; i < w->items; i++) {
		pthread_mutex_lock(&w->f->topic.lock);
		w->f->topic.items++;
		pthread_mutex_unlock(&w->f->topic.lock);
		topic_wake(&w->f->topic);
	}
	return NULL;
}

static void streams_lose_no_wake_up_under_load(void **state)
{
	struct fixture *f = *state;
	pthread_t clients[STREAMS], wakers[WAKERS];
	struct waker w = { f, ITEMS / WAKERS };
	for (int i = 0; i < STREAMS; i++)
		assert_int_equal(pthread_create(&clients[i], NULL, follow, f), 0);
	readers_await(&f->topic, &f->topic.readers, STREAMS);
	for (int i = 0; i < WAKERS; i++)
		assert_int_equal(pthread_create(&wakers[i], NULL, grow, &w), 0);
	for (int i = 0; i < WAKERS; i++)
		pthread_join(wakers[i], NULL);
	pthread_mutex_lock(&f->topic.lock);
	f->topic.ended = true;
	pthread_mutex_unlock(&f->topic.lock);
	topic_wake(&f->topic);
	for (int i = 0; i < STREAMS; i++) {
		void *n = NULL;
		pthread_join(clients[i], &n);
		assert_int_equal((intptr_t)n, ITEMS);
	}
	readers_await(&f->topic, &f->topic.freed, STREAMS);
}

static void a_client_that_left_a_suspended_stream_is_noticed_at_the_next_wakes(void **state)
{
	struct fixture *f = *state;
	int fd = dial(&f->site);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	f->topic.items = 1;
	say(fd, "GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(fd, &in, "1\n"));
	close(fd);
	struct waker w = { f, 1 };
	pthread_mutex_lock(&f->topic.lock);
	while (!f->topic.freed) {
		struct timespec soon;
		clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_nsec = (soon.tv_nsec + 1000000) % 1000000000;
		pthread_mutex_unlock(&f->topic.lock);
		grow(&w);
		pthread_mutex_lock(&f->topic.lock);
		if (!f->topic.freed)
			pthread_cond_timedwait(&f->topic.changed, &f->topic.lock, &soon);
	}
	pthread_mutex_unlock(&f->topic.lock);
}

static void a_stop_ends_suspended_streams_and_frees_each_once(void **state)
{
	struct fixture *f = *state;
	int fds[STREAMS];
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	f->topic.items = 1;
	for (int i = 0; i < STREAMS; i++) {
		fds[i] = dial(&f->site);
		say(fds[i], "GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n");
		strbuf_reset(&in);
		assert_true(hear(fds[i], &in, "1\n"));
	}
	struct http_stats stats;
	http_server_stats(f->site.server, &stats);
	assert_int_equal(stats.streams_now, STREAMS);
	assert_int_equal(stats.connections_now, STREAMS);
	http_server_stop(TAKE_PTR(f->site.server));
	assert_int_equal(f->topic.freed, STREAMS);
	for (int i = 0; i < STREAMS; i++) {
		strbuf_reset(&in);
		hear(fds[i], &in, NULL);
		assert_null(strstr(strbuf_str(&in), "0\r\n\r\n")); /* cut, not ended */
		close(fds[i]);
	}
}

static void a_stalled_reader_does_not_hold_the_only_thread(void **state)
{
	struct fixture *f = *state;
	AUTO_CLOSE int stalled = dial(&f->site);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	say(stalled, "GET /v1/stream?flood HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(stalled, &in, "xxxx"));
	for (int i = 0; i < 20; i++)
		expect(&f->site, "GET /v1/hello HTTP/1.1\r\n" HEAD_END, 200, "hello");
}

static void with_a_thread_per_connection_an_empty_read_waits_for_the_wake(void **state)
{
	struct fixture *f = *state;
	pthread_t client;
	assert_int_equal(pthread_create(&client, NULL, follow, f), 0);
	readers_await(&f->topic, &f->topic.readers, 1);
	struct waker w = { f, 100 };
	grow(&w);
	pthread_mutex_lock(&f->topic.lock);
	f->topic.ended = true;
	pthread_mutex_unlock(&f->topic.lock);
	topic_wake(&f->topic);
	void *n = NULL;
	pthread_join(client, &n);
	assert_int_equal((intptr_t)n, 100);
	expect(&f->site, "GET /v1/hello HTTP/1.1\r\n" HEAD_END, 200, "hello");
}

static void with_a_thread_per_connection_a_stop_ends_waiting_streams(void **state)
{
	struct fixture *f = *state;
	AUTO_CLOSE int fd = dial(&f->site);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	f->topic.items = 1;
	say(fd, "GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(fd, &in, "1\n"));
	http_server_stop(TAKE_PTR(f->site.server));
	assert_int_equal(f->topic.freed, 1);
}

struct visitor { struct site *site; atomic_bool *over; atomic_int *visits; bool streams; };

/* Comes again and again, until the server is gone. */
static void *visit(void *arg)
{
	struct visitor *v = arg;
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	memcpy(a.sun_path, v->site->path, strlen(v->site->path));
	while (!atomic_load(v->over)) {
		char buf[512];
		AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		const char *text = v->streams ? "GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n" : "GET /v1/hello HTTP/1.1\r\nHost: x\r\n\r\n";
		if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
			return NULL;
		(void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
		struct pollfd p = { .fd = fd, .events = POLLIN };
		/* The first word is waited for: who gave up on a slow server would only keep it busy.  The rest may not come. */
		for (int i = 0; i < 3 && poll(&p, 1, i ? SHORT_MS : WAIT_MS) == 1 && read(fd, buf, sizeof(buf)) > 0; i++)
			(*v->visits)++;
	}
	return NULL;
}

static void a_stop_in_the_middle_of_traffic_hangs_nothing_and_frees_all(void **state)
{
	struct fixture *f = *state;
	struct visitor visitors[VISITORS];
	pthread_t threads[VISITORS], waker;
	atomic_bool over = false;
	atomic_int visits = 0;
	struct waker w = { f, ITEMS };
	for (int i = 0; i < VISITORS; i++) {
		visitors[i] = (struct visitor){ &f->site, &over, &visits, i % 2 == 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, visit, &visitors[i]), 0);
	}
	assert_int_equal(pthread_create(&waker, NULL, grow, &w), 0);
	while (visits < VISITS)
		sched_yield();
	http_server_stop(TAKE_PTR(f->site.server));
	close(TAKE_FD(f->site.fd)); /* who waits in the backlog is told */
	atomic_store(&over, true);
	for (int i = 0; i < VISITORS; i++)
		pthread_join(threads[i], NULL);
	pthread_join(waker, NULL);
	assert_int_equal(f->topic.readers, 0);
}

static void a_stream_of_a_crowd_is_chunked_and_its_connection_ends_with_it(void **state)
{
	struct fixture *f = *state;
	AUTO_CLOSE int fd = dial(&f->site);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	f->topic.items = 2;
	f->topic.ended = true;
	say(fd, "GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n");
	hear(fd, &in, NULL); /* till the end */
	assert_true(str_starts(in.data, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(in.data, "\r\nConnection: close\r\n"));
	assert_non_null(strstr(in.data, "\r\nContent-Type: text/plain\r\n"));
	assert_true(str_ends(in.data, "\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1\n2\n\r\n0\r\n\r\n"));
}

static void a_reader_that_is_slow_gets_all_of_it(void **state)
{
	struct fixture *f = *state;
	AUTO_CLOSE int fd = dial(&f->site);
	char buf[1000]; /* much less than comes at a time */
	say(fd, "GET /v1/stream?flood HTTP/1.0\r\nHost: x\r\n\r\n");
	for (size_t got = 0, others = 0; got < FLOOD_BYTES;) {
		ssize_t n = read(fd, buf, sizeof(buf));
		assert_true(n > 0);
		if (got > sizeof(buf))
			for (ssize_t i = 0; i < n; i++)
				others += buf[i] != 'x';
		assert_int_equal(others, 0);
		got += (size_t)n;
	}
}

static void a_client_that_left_a_stream_of_a_crowd_is_noticed_without_a_wake(void **state)
{
	struct fixture *f = *state;
	int fd = dial(&f->site);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	f->topic.items = 1;
	say(fd, "GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(fd, &in, "1\n"));
	close(fd);
	readers_await(&f->topic, &f->topic.freed, 1);
}

#define IN_A_CROWD(test) { "in_a_crowd_" #test, test, setup_crowd, teardown, NULL }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_head_of_a_stream_reads_nothing_and_frees_it, setup, teardown),
		cmocka_unit_test_setup_teardown(streams_lose_no_wake_up_under_load, setup, teardown),
		cmocka_unit_test_setup_teardown(a_client_that_left_a_suspended_stream_is_noticed_at_the_next_wakes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stop_ends_suspended_streams_and_frees_each_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stalled_reader_does_not_hold_the_only_thread, setup_one_thread, teardown),
		cmocka_unit_test_setup_teardown(with_a_thread_per_connection_an_empty_read_waits_for_the_wake, setup_own_threads, teardown),
		cmocka_unit_test_setup_teardown(with_a_thread_per_connection_a_stop_ends_waiting_streams, setup_own_threads, teardown),
		cmocka_unit_test_setup_teardown(a_stop_in_the_middle_of_traffic_hangs_nothing_and_frees_all, setup, teardown),
		IN_A_CROWD(a_head_of_a_stream_reads_nothing_and_frees_it),
		IN_A_CROWD(streams_lose_no_wake_up_under_load),
		IN_A_CROWD(a_stop_ends_suspended_streams_and_frees_each_once),
		IN_A_CROWD(a_stalled_reader_does_not_hold_the_only_thread),
		IN_A_CROWD(a_stop_in_the_middle_of_traffic_hangs_nothing_and_frees_all),
		cmocka_unit_test_setup_teardown(a_stream_of_a_crowd_is_chunked_and_its_connection_ends_with_it, setup_crowd, teardown),
		cmocka_unit_test_setup_teardown(a_reader_that_is_slow_gets_all_of_it, setup_crowd, teardown),
		cmocka_unit_test_setup_teardown(a_client_that_left_a_stream_of_a_crowd_is_noticed_without_a_wake, setup_crowd, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
