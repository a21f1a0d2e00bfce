/* The HTTP client against our own server, over a unix socket and over TCP. */
#include "net/client.h"
#include "net_site.h"
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>

#define LINES 1000

struct fixture {
	struct site site;
	struct http_server *tcp_server;
	int tcp_fd, port;
	struct client *client;
	atomic_int streams_freed;
	volatile int interrupted; /* as a signal handler would raise it */
};

struct feed {
	struct fixture *f;
	int sent;
	bool endless;
};

static void handle_echo(struct http_request *r, void *ctx)
{
	(void)ctx;
	size_t len = 0;
	struct js *o = js_object();
	js_set_str(o, "method", http_method(r));
	js_set_str(o, "q", http_query(r, "q"));
	js_set_str(o, "type", http_header(r, "Content-Type"));
	js_set_str(o, "accept", http_header(r, "Accept"));
	js_set_str(o, "authorization", http_header(r, "Authorization"));
	js_set_str(o, "key", http_header(r, "Idempotency-Key"));
	js_set_str(o, "body", http_body(r, &len));
	js_set_int(o, "len", (int64_t)len);
	http_reply_js(r, 200, o);
}

static void handle_empty(struct http_request *r, void *ctx)
{
	(void)ctx;
	http_reply(r, 204, NULL, NULL, 0);
}

static void handle_problem(struct http_request *r, void *ctx)
{
	(void)ctx;
	struct error e = ERROR_INIT;
	error_set(&e, err_from_name(http_param(r, "code")), "task 'T-001' is settled");
	error_hint(&e, "look at `show T-001`");
	http_reply_error(r, &e);
}

static void handle_page(struct http_request *r, void *ctx)
{
	(void)ctx;
	http_reply(r, 502, "text/html", "<h1>nginx</h1>", 14);
}

static void handle_text(struct http_request *r, void *ctx)
{
	(void)ctx;
	http_reply(r, 200, "text/plain", "not JSON", 8);
}

static ssize_t feed_read(void *state, char *buf, size_t max)
{
	struct feed *feed = state;
	if (feed->endless && feed->sent > 2) {
		__atomic_store_n(&feed->f->interrupted, 1, __ATOMIC_RELEASE); /* the client has its lines, and now nothing comes any more */
		return 0;
	}
	if (feed->sent == LINES)
		return -1;
	AUTO_STRBUF struct strbuf line = STRBUF_INIT;
	feed->sent++;
	strbuf_addf(&line, "line %d%s", feed->sent, feed->sent == LINES ? "" : "\n"); /* the last one has no end */
	assert_true(line.len <= max);
	memcpy(buf, line.data, line.len);
	return (ssize_t)line.len;
}

static void feed_free(void *state)
{
	struct feed *feed = state;
	feed->f->streams_freed++;
	free(feed);
}

static const struct http_stream_ops feed_ops = { feed_read, feed_free };

static void handle_lines(struct http_request *r, void *ctx)
{
	struct feed *feed = NEW(struct feed);
	feed->f = ctx;
	feed->endless = http_query(r, "endless") != NULL;
	http_stream(r, 200, "application/jsonl", &feed_ops, feed, NULL);
}

static const struct http_route routes[] = {
	{ "GET", "/echo", handle_echo, 0, 0, "" },
	{ "DELETE", "/echo", handle_echo, 0, 0, "" },
	{ "POST", "/echo", handle_echo, 0, SIZE_MAX, "" },
	{ "PUT", "/echo", handle_echo, 0, SIZE_MAX, "" },
	{ "PATCH", "/echo", handle_echo, 0, SIZE_MAX, "" },
	{ "GET", "/empty", handle_empty, 0, 0, "" },
	{ "GET", "/problem/{code}", handle_problem, 0, 0, "" },
	{ "POST", "/problem/{code}", handle_problem, 0, 10, "" },
	{ "GET", "/page", handle_page, 0, 0, "" },
	{ "GET", "/text", handle_text, 0, 0, "" },
	{ "GET", "/lines", handle_lines, 0, 0, "" },
	{ .method = NULL },
};

static int setup(void **state)
{
	struct fixture *f = NEW(struct fixture);
	struct error e = ERROR_INIT;
	site_init(&f->site);
	site_start(&f->site, (struct http_config){ .routes = routes, .ctx = f, .threads = 2 });
	struct client_config cfg = { .socket = f->site.path, .timeout_ms = WAIT_MS };
	assert_int_equal(client_open(&cfg, &f->client, &e), ERR_OK);
	f->tcp_fd = -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	client_close(f->client);
	http_server_stop(f->tcp_server);
	if (f->tcp_fd >= 0)
		close(f->tcp_fd);
	site_release(&f->site);
	free(f);
	return 0;
}

static struct js *call_ok(struct client *c, const char *method, const char *path, const struct js *body)
{
	struct error e = ERROR_INIT;
	struct js *reply = NULL;
	int status = 0;
	if (client_call(c, method, path, body, &status, &reply, &e))
		fail_msg("%s %s: %s", method, path, e.text);
	assert_int_equal(status, 200);
	assert_non_null(reply);
	return reply;
}

static void a_call_sends_and_brings_json(void **state)
{
	struct fixture *f = *state;
	static const char *const methods[] = { "POST", "PUT", "PATCH" };
	AUTO_JS struct js *body = js_object();
	js_set_str(body, "a", "b");
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		AUTO_JS struct js *reply = call_ok(f->client, methods[i], "/echo?q=1%202", body);
		assert_string_equal(js_str(reply, "method"), methods[i]);
		assert_string_equal(js_str(reply, "q"), "1 2");
		assert_string_equal(js_str(reply, "type"), "application/json");
		assert_string_equal(js_str(reply, "body"), "{\"a\":\"b\"}");
		AUTO_JS struct js *empty = call_ok(f->client, methods[i], "/echo", NULL);
		assert_int_equal(js_i64(empty, "len", -1), 0);
		AUTO_JS struct js *get = call_ok(f->client, "GET", "/echo", NULL);
		assert_string_equal(js_str(get, "method"), "GET");
		AUTO_JS struct js *gone = call_ok(f->client, "DELETE", "/echo", NULL);
		assert_string_equal(js_str(gone, "method"), "DELETE");
	}
	struct http_stats stats;
	http_server_stats(f->site.server, &stats);
	assert_int_equal(stats.connections_now, 1); /* all of it over one connection */
}

static void a_header_is_for_one_call_only(void **state)
{
	struct fixture *f = *state;
	client_header(f->client, "Idempotency-Key: k1");
	client_header(f->client, "X-Evil: a\r\nX-Injected: b");
	AUTO_JS struct js *first = call_ok(f->client, "POST", "/echo", NULL);
	AUTO_JS struct js *second = call_ok(f->client, "POST", "/echo", NULL);
	assert_string_equal(js_str(first, "key"), "k1");
	assert_null(js_str(second, "key"));
	assert_null(js_str(second, "authorization"));
}

static void an_empty_reply_is_no_json(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct js *reply = NULL;
	int status = 0;
	assert_int_equal(client_call(f->client, "GET", "/empty", NULL, &status, &reply, &e), ERR_OK);
	assert_int_equal(status, 204);
	assert_null(reply);
}

static void a_problem_becomes_an_error_with_code_text_and_hint(void **state)
{
	struct fixture *f = *state;
	static const struct { const char *name; enum err_code code; } codes[] = {
		{ "conflict", ERR_CONFLICT }, { "not_found", ERR_NOT_FOUND }, { "gone", ERR_GONE }, { "denied", ERR_DENIED }, { "busy", ERR_BUSY }, { "stale", ERR_STALE },
	};
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		struct error e = ERROR_INIT;
		struct js *reply = NULL;
		int status = 0;
		AUTO_FREE char *path = mem_printf("/problem/%s", codes[i].name);
		assert_int_equal(client_call(f->client, "GET", path, NULL, &status, &reply, &e), codes[i].code);
		assert_int_equal(status, err_http_status(codes[i].code));
		assert_int_equal(e.code, codes[i].code);
		assert_string_equal(e.text, "task 'T-001' is settled");
		assert_string_equal(e.hint, "look at `show T-001`");
		assert_null(reply);
	}
}

static void a_body_over_the_servers_limit_is_told_as_the_limit(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	AUTO_JS struct js *body = js_object();
	AUTO_FREE char *big = mem_alloc((4 << 20) + 1);
	memset(big, 'b', 4 << 20);
	js_set_str(body, "big", big);
	int status = 0;
	assert_int_equal(client_call(f->client, "POST", "/problem/conflict", body, &status, NULL, &e), ERR_LIMIT);
	assert_int_equal(status, 413);
	assert_non_null(strstr(e.text, "10 bytes"));
}

static void what_is_no_problem_json_is_told_by_its_status(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	int status = 0;
	assert_int_not_equal(client_call(f->client, "GET", "/page", NULL, &status, NULL, &e), ERR_OK);
	assert_int_equal(status, 502);
	assert_non_null(strstr(e.text, "502"));
	struct js *reply = NULL;
	error_clear(&e);
	assert_int_not_equal(client_call(f->client, "GET", "/text", NULL, &status, &reply, &e), ERR_OK);
	assert_non_null(strstr(e.text, "/text"));
}

static void nobody_there_is_unreachable_with_the_place(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct client *c = NULL;
	AUTO_FREE char *absent = file_join(f->site.dir, "absent");
	struct client_config cfg = { .socket = absent };
	assert_int_equal(client_open(&cfg, &c, &e), ERR_OK);
	assert_int_equal(client_call(c, "GET", "/echo", NULL, NULL, NULL, &e), ERR_UNREACHABLE);
	assert_non_null(strstr(e.text, absent));
	assert_true(e.hint[0]);
	client_close(c);
	cfg = (struct client_config){ .url = "ftp://example" };
	assert_int_equal(client_open(&cfg, &c, &e), ERR_INVALID);
	cfg = (struct client_config){ .url = "http://127.0.0.1", .token = "a\r\nX: b" };
	assert_int_equal(client_open(&cfg, &c, &e), ERR_INVALID);
}

static void a_get_is_bounded_by_its_buffer(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	int status = 0;
	AUTO_STRBUF struct strbuf out = STRBUF_INIT, small = STRBUF_LIMIT(4);
	assert_int_equal(client_get(f->client, "/text", "text/plain", &status, &out, &e), ERR_OK);
	assert_string_equal(strbuf_str(&out), "not JSON");
	assert_int_equal(client_get(f->client, "/text", "text/plain", &status, &small, &e), ERR_LIMIT);
}

struct seen { int n, stop_at; bool in_order; };

static bool see_line(void *ctx, const char *line, size_t len)
{
	struct seen *s = ctx;
	AUTO_FREE char *wanted = mem_printf("line %d", ++s->n);
	s->in_order = s->in_order && len == strlen(wanted) && memcmp(line, wanted, len) == 0;
	return s->n != s->stop_at;
}

static void lines_come_one_by_one_the_last_without_its_end_too(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct seen seen = { .in_order = true };
	assert_int_equal(client_lines(f->client, "/lines", "application/jsonl", see_line, &seen, NULL, &e), ERR_OK);
	assert_int_equal(seen.n, LINES);
	assert_true(seen.in_order);
}

static void the_callback_stops_the_lines_and_the_client_goes_on(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct seen seen = { .in_order = true, .stop_at = 10 };
	assert_int_equal(client_lines(f->client, "/lines", "application/jsonl", see_line, &seen, NULL, &e), ERR_OK);
	assert_int_equal(seen.n, 10);
	AUTO_JS struct js *reply = call_ok(f->client, "GET", "/echo", NULL);
	assert_string_equal(js_str(reply, "method"), "GET");
}

static void an_interrupt_ends_the_lines(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct seen seen = { .in_order = true };
	assert_int_equal(client_lines(f->client, "/lines?endless", "application/jsonl", see_line, &seen, &f->interrupted, &e), ERR_CANCELED);
	assert_true(seen.in_order);
}

static void an_error_instead_of_lines_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct seen seen = { .in_order = true };
	assert_int_equal(client_lines(f->client, "/problem/gone", "application/jsonl", see_line, &seen, NULL, &e), ERR_GONE);
	assert_string_equal(e.text, "task 'T-001' is settled");
	assert_int_equal(seen.n, 0);
}

static void *stop_server(void *arg)
{
	struct fixture *f = arg;
	while (!__atomic_load_n(&f->interrupted, __ATOMIC_ACQUIRE)) /* the stream is at rest */
		sched_yield();
	http_server_stop(TAKE_PTR(f->site.server));
	return NULL;
}

static void lines_that_are_cut_by_the_server_are_an_error(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct seen seen = { .in_order = true };
	pthread_t stopper;
	assert_int_equal(pthread_create(&stopper, NULL, stop_server, f), 0);
	assert_int_equal(client_lines(f->client, "/lines?endless", "application/jsonl", see_line, &seen, NULL, &e), ERR_UNREACHABLE);
	assert_int_equal(seen.n, 3);
	pthread_join(stopper, NULL);
	assert_int_equal(f->streams_freed, 1);
}

static void a_url_and_a_token_work_over_tcp(void **state)
{
	struct fixture *f = *state;
	struct error e = ERROR_INIT;
	struct client *c = NULL;
	assert_int_equal(http_listen_tcp("127.0.0.1:0", &f->tcp_fd, &f->port, &e), ERR_OK);
	struct http_config cfg = { .routes = routes, .ctx = f, .unix_fd = -1, .tcp_fd = f->tcp_fd, .threads = 2 };
	assert_int_equal(http_server_start(&cfg, &f->tcp_server, &e), ERR_OK);
	AUTO_FREE char *url = mem_printf("http://127.0.0.1:%d/", f->port);
	struct client_config to = { .url = url, .token = "secret", .timeout_ms = WAIT_MS };
	assert_int_equal(client_open(&to, &c, &e), ERR_OK);
	AUTO_JS struct js *reply = call_ok(c, "GET", "/echo", NULL);
	assert_string_equal(js_str(reply, "authorization"), "Bearer secret");
	client_close(c);
}

#define FULL 8 /* connections: more than a queue of length 0 holds */

/* As behind a name server that does not answer: there is no connection, and that is told by its own limit, not by the whole call's. */
static void who_takes_no_connection_is_unreachable_and_not_late(void **state)
{
	(void)state;
	struct error e = ERROR_INIT;
	struct client *c = NULL;
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(at);
	int fds[FULL];
	AUTO_CLOSE int busy = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(busy, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(busy, 0), 0);
	assert_int_equal(getsockname(busy, (struct sockaddr *)&at, &n), 0);
	for (int i = 0; i < FULL; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)!connect(fds[i], (struct sockaddr *)&at, sizeof(at));
	}
	AUTO_FREE char *url = mem_printf("http://127.0.0.1:%d/", ntohs(at.sin_port));
	struct client_config to = { .url = url, .connect_timeout_ms = 100, .timeout_ms = WAIT_MS };
	assert_int_equal(client_open(&to, &c, &e), ERR_OK);
	assert_int_equal(client_call(c, "GET", "/echo", NULL, NULL, NULL, &e), ERR_UNREACHABLE);
	assert_non_null(strstr(e.text, "cannot reach"));
	assert_non_null(strstr(e.hint, "is the name right?"));
	client_close(c);
	for (int i = 0; i < FULL; i++)
		close(fds[i]);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(a_call_sends_and_brings_json),
		WITH_SERVER(a_header_is_for_one_call_only),
		WITH_SERVER(an_empty_reply_is_no_json),
		WITH_SERVER(a_problem_becomes_an_error_with_code_text_and_hint),
		WITH_SERVER(a_body_over_the_servers_limit_is_told_as_the_limit),
		WITH_SERVER(what_is_no_problem_json_is_told_by_its_status),
		WITH_SERVER(nobody_there_is_unreachable_with_the_place),
		WITH_SERVER(a_get_is_bounded_by_its_buffer),
		WITH_SERVER(lines_come_one_by_one_the_last_without_its_end_too),
		WITH_SERVER(the_callback_stops_the_lines_and_the_client_goes_on),
		WITH_SERVER(an_interrupt_ends_the_lines),
		WITH_SERVER(an_error_instead_of_lines_is_an_error),
		WITH_SERVER(lines_that_are_cut_by_the_server_are_an_error),
		WITH_SERVER(a_url_and_a_token_work_over_tcp),
		cmocka_unit_test(who_takes_no_connection_is_unreachable_and_not_late),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
