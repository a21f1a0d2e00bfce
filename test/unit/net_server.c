/* The HTTP server's requests: routes, encodings, bodies, limits, answers; spoken to byte by byte over a unix socket. */
#include "net_site.h"
#include <fcntl.h>

#define BODY_LIMIT 1000
#define BIG_LIMIT ((size_t)4 << 20)

/* Says back what it understood. */
static void handle_echo(struct http_request *r, void *ctx)
{
	(void)ctx;
	struct js *o = js_object();
	size_t len = 0;
	const char *body = http_body(r, &len);
	uid_t uid = 0;
	js_set_str(o, "method", http_method(r));
	js_set_str(o, "task", http_param(r, "task"));
	js_set_str(o, "path", http_param(r, "path"));
	js_set_str(o, "q", http_query(r, "q"));
	js_set_str(o, "flag", http_query(r, "flag"));
	js_set_str(o, "principal", http_principal(r));
	js_set_int(o, "body_len", (int64_t)len);
	js_set_int(o, "last_byte", len ? body[len - 1] : -1);
	js_set_bool(o, "unix", http_is_unix(r));
	js_set_int(o, "uid", http_peer_uid(r, &uid) ? (int64_t)uid : -1);
	http_reply_js(r, 200, o);
}

static void handle_json(struct http_request *r, void *ctx)
{
	(void)ctx;
	struct error e = ERROR_INIT;
	int64_t n = 7;
	struct js *body = http_body_js(r, &e);
	if (!body || http_query_i64(r, "n", 1, 100, &n, &e)) {
		http_reply_error(r, &e);
		return;
	}
	js_set_int(body, "n", n);
	http_reply_js(r, 201, js_ref(body));
}

static void handle_error(struct http_request *r, void *ctx)
{
	(void)ctx;
	struct error e = ERROR_INIT;
	error_set(&e, err_from_name(http_param(r, "code")), "it is so");
	error_hint(&e, "do this");
	http_reply_error(r, &e);
}

static void handle_nothing(struct http_request *r, void *ctx)
{
	(void)r, (void)ctx;
}

static void handle_headers(struct http_request *r, void *ctx)
{
	(void)ctx;
	http_reply_header(r, "X-Good", "yes");
	http_reply_header(r, "X-Evil", "a\r\nX-Injected: b");
	http_reply(r, 200, "text/plain", "ok", 2);
}

static void handle_file(struct http_request *r, void *ctx)
{
	struct site *f = ctx;
	AUTO_FREE char *name = file_join(f->dir, "file");
	struct error e = ERROR_INIT;
	AUTO_FREE char *data = mem_alloc(BIG_LIMIT);
	memset(data, 'f', BIG_LIMIT);
	assert_int_equal(file_replace(name, data, BIG_LIMIT, 0600, FILE_NOSYNC, &e), ERR_OK);
	http_reply_fd(r, "text/x-file", open(name, O_RDONLY | O_CLOEXEC), BIG_LIMIT);
}

static enum err_code authorize(struct http_request *r, void *ctx, struct error *e)
{
	(void)ctx;
	if (!(http_route_of(r)->flags & 1)) {
		http_set_principal(r, "local");
		return ERR_OK;
	}
	http_deny_status(r, 401);
	return error_set(e, ERR_DENIED, "%s needs a token", http_path(r));
}

static const struct http_route routes[] = {
	{ "GET", "/v1/tasks", handle_echo, 0, 0, "list" },
	{ "POST", "/v1/tasks", handle_echo, 0, BODY_LIMIT, "submit" },
	{ "GET", "/v1/tasks/{task}", handle_echo, 0, 0, "one" },
	{ "DELETE", "/v1/tasks/{task}", handle_echo, 0, 0, "remove" },
	{ "POST", "/v1/tasks/{task}/files:move", handle_echo, 0, BODY_LIMIT, "move" },
	{ "GET", "/v1/tasks/{task}/files/{path*}", handle_echo, 0, 0, "file" },
	{ "POST", "/v1/big", handle_echo, 0, BIG_LIMIT, "big" },
	{ "POST", "/v1/json", handle_json, 0, SIZE_MAX, "json" },
	{ "POST", "/v1/secret", handle_echo, 1, BIG_LIMIT, "secret" },
	{ "GET", "/v1/error/{code}", handle_error, 0, 0, "error" },
	{ "GET", "/v1/nothing", handle_nothing, 0, 0, "nothing" },
	{ "GET", "/v1/headers", handle_headers, 0, 0, "headers" },
	{ "GET", "/v1/file", handle_file, 0, 0, "file" },
	{ .method = NULL },
};

static int setup_threads(void **state, unsigned threads)
{
	struct site *f = NEW(struct site);
	site_init(f);
	site_start(f, (struct http_config){ .routes = routes, .ctx = f, .authorize = authorize, .threads = threads });
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_threads(state, 4);
}

static int setup_one_thread(void **state)
{
	return setup_threads(state, 1);
}

static int teardown(void **state)
{
	site_release(*state);
	free(*state);
	return 0;
}

static void a_parameter_is_decoded_and_an_encoded_slash_does_not_separate(void **state)
{
	expect(*state, "GET /v1/tasks/a%2Fb%20c HTTP/1.1\r\n" HEAD_END, 200, "\"task\":\"a/b c\"");
	expect(*state, "GET /v1/tasks/%C3%A9 HTTP/1.1\r\n" HEAD_END, 200, "\"task\":\"\xc3\xa9\"");
	expect(*state, "GET /v1/t%61sks/x HTTP/1.1\r\n" HEAD_END, 200, "\"task\":\"x\"");
	expect(*state, "GET http://x/v1/tasks/x HTTP/1.1\r\n" HEAD_END, 200, "\"task\":\"x\"");
}

static void a_rest_parameter_takes_all_segments_and_not_none(void **state)
{
	expect(*state, "GET /v1/tasks/t/files/a/b%20/c.txt HTTP/1.1\r\n" HEAD_END, 200, "\"path\":\"a/b /c.txt\"");
	expect(*state, "GET /v1/tasks/t/files/ HTTP/1.1\r\n" HEAD_END, 404, "\"not_found\"");
	expect(*state, "GET /v1/tasks/t/files HTTP/1.1\r\n" HEAD_END, 404, "\"not_found\"");
}

static void queries_are_decoded(void **state)
{
	expect(*state, "GET /v1/tasks?q=a+b%2B%26c&flag HTTP/1.1\r\n" HEAD_END, 200, "\"q\":\"a b+&c\",\"flag\":\"\"");
	expect(*state, "GET /v1/tasks?%71=1 HTTP/1.1\r\n" HEAD_END, 200, "\"q\":\"1\"");
}

static void bad_encodings_are_400(void **state)
{
	expect(*state, "GET /v1/tasks/%zz HTTP/1.1\r\n" HEAD_END, 400, "not well encoded");
	expect(*state, "GET /v1/tasks/a%00b HTTP/1.1\r\n" HEAD_END, 400, "not well encoded");
	expect(*state, "GET /v1/tasks/%ff HTTP/1.1\r\n" HEAD_END, 400, "not well encoded");
	expect(*state, "GET /v1/tasks/%c0%af HTTP/1.1\r\n" HEAD_END, 400, "not well encoded");
	expect(*state, "GET /v1/tasks?q=%4 HTTP/1.1\r\n" HEAD_END, 400, "'q' is not well encoded");
	expect(*state, "GET /v1/tasks?q=%ff HTTP/1.1\r\n" HEAD_END, 400, "'q' is not well encoded");
}

static void a_query_with_too_many_parameters_is_400(void **state)
{
	AUTO_STRBUF struct strbuf s = STRBUF_INIT;
	strbuf_adds(&s, "GET /v1/tasks?a=1");
	for (int i = 0; i < HTTP_QUERY_MAX; i++)
		strbuf_adds(&s, "&a=1");
	strbuf_adds(&s, " HTTP/1.1\r\n" HEAD_END);
	expect(*state, s.data, 400, "\"limit\"");
}

static void an_unknown_path_is_404_as_a_problem(void **state)
{
	expect(*state, "GET /nowhere HTTP/1.1\r\n" HEAD_END, 404, "Content-Type: application/problem+json");
	expect(*state, "GET /nowhere HTTP/1.1\r\n" HEAD_END, 404, "{\"type\":\"about:blank\",\"title\":\"Not Found\",\"status\":404,\"code\":\"not_found\",\"detail\":");
	expect(*state, "GET /v1/tasks/ HTTP/1.1\r\n" HEAD_END, 404, "not_found");
	expect(*state, "GET /v1//tasks HTTP/1.1\r\n" HEAD_END, 404, "not_found");
	expect(*state, "GET /v1/tasks/../tasks HTTP/1.1\r\n" HEAD_END, 404, "not_found");
	expect(*state, "OPTIONS * HTTP/1.1\r\n" HEAD_END, 404, "not_found");
}

static void another_method_is_405_with_allow(void **state)
{
	expect(*state, "PUT /v1/tasks HTTP/1.1\r\n" HEAD_END, 405, "Allow: GET, HEAD, POST");
	expect(*state, "DELETE /v1/file HTTP/1.1\r\n" HEAD_END, 405, "Allow: GET, HEAD\r\n");
	expect(*state, "BREW /v1/json HTTP/1.1\r\n" HEAD_END, 405, "Allow: POST\r\n");
}

static void head_has_the_length_and_no_body(void **state)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	ask(*state, "HEAD /v1/tasks HTTP/1.1\r\n" HEAD_END, &in);
	assert_true(str_starts(in.data, "HTTP/1.1 200 "));
	assert_non_null(strstr(in.data, "Content-Length: "));
	assert_true(str_ends(in.data, "\r\n\r\n"));
}

static void a_body_arrives_whole(void **state)
{
	expect(*state, "POST /v1/tasks HTTP/1.1\r\nContent-Length: 5\r\n" HEAD_END "hallo", 200, "\"body_len\":5,\"last_byte\":111");
	expect(*state, "POST /v1/tasks HTTP/1.1\r\n" HEAD_END, 200, "\"body_len\":0");
	expect(*state, "POST /v1/tasks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" HEAD_END "3\r\nhal\r\n2\r\nlo\r\n0\r\n\r\n", 200, "\"body_len\":5,\"last_byte\":111");
}

static void a_large_body_arrives_whole(void **state)
{
	AUTO_STRBUF struct strbuf s = STRBUF_INIT;
	AUTO_FREE char *data = mem_alloc(BIG_LIMIT + 1);
	memset(data, 'b', BIG_LIMIT);
	strbuf_addf(&s, "POST /v1/big HTTP/1.1\r\nContent-Length: %zu\r\n" HEAD_END "%s", BIG_LIMIT, data);
	AUTO_FREE char *wanted = mem_printf("\"body_len\":%zu,\"last_byte\":98", BIG_LIMIT);
	expect(*state, s.data, 200, wanted);
}

static void a_declared_length_over_the_limit_is_refused_before_the_body(void **state)
{
	struct site *f = *state;
	AUTO_CLOSE int fd = dial(f);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	say(fd, "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"); /* and no byte of it */
	hear(fd, &in, NULL);
	assert_true(str_starts(in.data, "HTTP/1.1 413 "));
	assert_non_null(strstr(in.data, "the limit of 1000 bytes"));
	strbuf_reset(&in);
	AUTO_CLOSE int expecting = dial(f);
	say(expecting, "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n");
	hear(expecting, &in, "413 ");
	assert_true(str_starts(in.data, "HTTP/1.1 413 "));
}

static void a_chunked_body_over_the_limit_is_413(void **state)
{
	AUTO_STRBUF struct strbuf s = STRBUF_INIT;
	strbuf_adds(&s, "POST /v1/tasks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" HEAD_END);
	for (int i = 0; i <= BODY_LIMIT; i++)
		strbuf_adds(&s, "1\r\nx\r\n");
	strbuf_adds(&s, "0\r\n\r\n");
	expect(*state, s.data, 413, "the limit of 1000 bytes");
	AUTO_STRBUF struct strbuf fits = STRBUF_INIT;
	strbuf_adds(&fits, "POST /v1/tasks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" HEAD_END);
	for (int i = 0; i < BODY_LIMIT; i++)
		strbuf_adds(&fits, "1\r\nx\r\n");
	strbuf_adds(&fits, "0\r\n\r\n");
	expect(*state, fits.data, 200, "\"body_len\":1000");
}

static void a_chunked_body_without_end_is_cut(void **state)
{
	struct site *f = *state;
	AUTO_CLOSE int fd = dial(f);
	AUTO_STRBUF struct strbuf chunk = STRBUF_INIT;
	say(fd, "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	AUTO_FREE char *data = mem_alloc((1 << 16) + 1);
	memset(data, 'c', 1 << 16);
	strbuf_addf(&chunk, "10000\r\n%s\r\n", data);
	size_t sent = 0;
	while (sent < 4 * HTTP_DISCARD_MAX) {
		ssize_t n = send(fd, chunk.data, chunk.len, MSG_NOSIGNAL);
		if (n != (ssize_t)chunk.len)
			break;
		sent += chunk.len;
	}
	assert_true(sent < 2 * HTTP_DISCARD_MAX);
}

static void a_body_where_none_is_taken_is_400(void **state)
{
	expect(*state, "DELETE /v1/tasks/x HTTP/1.1\r\nContent-Length: 2\r\n" HEAD_END "{}", 400, "takes no body");
	expect(*state, "GET /v1/tasks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" HEAD_END "1\r\nx\r\n0\r\n\r\n", 400, "takes no body");
}

static void messages_with_two_lengths_are_refused(void **state)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	ask(*state, "POST /v1/tasks HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n" HEAD_END "0\r\n\r\n", &in);
	assert_true(str_starts(in.data, "HTTP/1.1 400 "));
	strbuf_reset(&in);
	ask(*state, "POST /v1/tasks HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n" HEAD_END "abcde", &in);
	assert_true(str_starts(in.data, "HTTP/1.1 400 "));
	strbuf_reset(&in);
	ask(*state, "POST /v1/tasks HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n" HEAD_END "0\r\n\r\n", &in);
	assert_false(str_starts(in.data, "HTTP/1.1 2"));
	strbuf_reset(&in);
	ask(*state, "POST /v1/tasks HTTP/1.1\r\nContent-Length: -1\r\n" HEAD_END, &in);
	assert_true(str_starts(in.data, "HTTP/1.1 400 "));
}

static void a_head_over_the_limit_is_refused(void **state)
{
	static const struct { size_t len; int status; const char *part; } heads[] = {
		{ HTTP_HEAD_MAX - 200, 200, "local" }, { HTTP_HEAD_MAX, 431, "the limit of 8192" }, { 2 * HTTP_HEADER_MEMORY, 431, "" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
		AUTO_STRBUF struct strbuf s = STRBUF_INIT;
		AUTO_FREE char *line = mem_alloc(heads[i].len + 1);
		memset(line, 'h', heads[i].len);
		strbuf_addf(&s, "GET /v1/tasks HTTP/1.1\r\nX-Long: %s\r\n" HEAD_END, line);
		expect(*state, s.data, heads[i].status, heads[i].part);
	}
}

static void who_is_refused_is_refused_before_the_body_and_may_ask_on(void **state)
{
	struct site *f = *state;
	AUTO_CLOSE int fd = dial(f);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	say(fd, "POST /v1/secret HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhallo");
	assert_true(hear(fd, &in, "needs a token"));
	assert_true(str_starts(in.data, "HTTP/1.1 401 "));
	assert_non_null(strstr(in.data, "WWW-Authenticate: Bearer"));
	strbuf_reset(&in);
	say(fd, "GET /v1/tasks HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(fd, &in, "\"principal\":\"local\""));
	strbuf_reset(&in);
	AUTO_CLOSE int longer = dial(f);
	say(longer, "POST /v1/secret HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
	assert_true(hear(longer, &in, "needs a token"));
}

static void errors_become_problems_with_code_and_hint(void **state)
{
	expect(*state, "GET /v1/error/conflict HTTP/1.1\r\n" HEAD_END, 409, "\"code\":\"conflict\",\"detail\":\"it is so\",\"hint\":\"do this\"");
	expect(*state, "GET /v1/error/not_found HTTP/1.1\r\n" HEAD_END, 404, "\"code\":\"not_found\"");
}

static void a_handler_that_forgets_to_answer_gives_500(void **state)
{
	expect(*state, "GET /v1/nothing HTTP/1.1\r\n" HEAD_END, 500, "\"internal\"");
}

static void json_bodies_are_checked(void **state)
{
	expect(*state, "POST /v1/json?n=9 HTTP/1.1\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 7\r\n" HEAD_END "{\"a\":1}", 201, "{\"a\":1,\"n\":9}");
	expect(*state, "POST /v1/json?n=101 HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 7\r\n" HEAD_END "{\"a\":1}", 400, "n: 101 is more than 100");
	expect(*state, "POST /v1/json HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 3\r\n" HEAD_END "[1]", 400, "not an object");
	expect(*state, "POST /v1/json HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 3\r\n" HEAD_END "{a}", 400, "request body");
	expect(*state, "POST /v1/json HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n" HEAD_END "a=b", 415, "Content-Type");
	expect(*state, "POST /v1/json HTTP/1.1\r\n" HEAD_END, 415, "Content-Type");
}

static void a_header_that_would_split_the_answer_is_not_sent(void **state)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	ask(*state, "GET /v1/headers HTTP/1.1\r\n" HEAD_END, &in);
	assert_non_null(strstr(in.data, "X-Good: yes"));
	assert_non_null(strstr(in.data, "Server: signalbox"));
	assert_null(strstr(in.data, "X-Injected"));
}

static void a_file_is_sent_whole(void **state)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	ask(*state, "GET /v1/file HTTP/1.1\r\n" HEAD_END, &in);
	assert_non_null(strstr(in.data, "Content-Type: text/x-file"));
	const char *body = strstr(in.data, "\r\n\r\n") + 4;
	assert_int_equal(strspn(body, "f"), BIG_LIMIT);
	assert_int_equal(in.len - (size_t)(body - in.data), BIG_LIMIT);
}

static void the_peer_of_a_unix_socket_is_known(void **state)
{
	AUTO_FREE char *uid = mem_printf("\"unix\":true,\"uid\":%u", (unsigned)getuid());
	expect(*state, "GET /v1/tasks HTTP/1.1\r\n" HEAD_END, 200, uid);
}

static void a_half_sent_request_does_not_hold_the_only_thread(void **state)
{
	struct site *f = *state;
	AUTO_CLOSE int slow = dial(f);
	AUTO_CLOSE int slower = dial(f);
	say(slow, "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nha");
	say(slower, "GET /v1/ta");
	expect(f, "GET /v1/tasks HTTP/1.1\r\n" HEAD_END, 200, "local");
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	say(slow, "llo");
	assert_true(hear(slow, &in, "\"body_len\":5"));
}

static void requests_in_one_packet_are_answered_in_order(void **state)
{
	struct site *f = *state;
	AUTO_CLOSE int fd = dial(f);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	say(fd, "GET /v1/tasks/one HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/tasks/two HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(fd, &in, "\"task\":\"two\""));
	assert_true(strstr(in.data, "\"task\":\"one\"") < strstr(in.data, "\"task\":\"two\""));
}

static void after_quiesce_old_connections_are_served_and_new_ones_not(void **state)
{
	struct site *f = *state;
	AUTO_CLOSE int old = dial(f);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	say(old, "GET /v1/tasks/one HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(old, &in, "\"task\":\"one\""));
	http_server_quiesce(f->server);
	strbuf_reset(&in);
	say(old, "GET /v1/tasks/two HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(old, &in, "\"task\":\"two\""));
	AUTO_CLOSE int fresh = dial(f);
	AUTO_STRBUF struct strbuf nothing = STRBUF_INIT;
	assert_false(hear(fresh, &nothing, "HTTP"));
	struct http_stats stats;
	http_server_stats(f->server, &stats);
	assert_int_equal(stats.connections_now, 1);
	assert_int_equal(stats.requests, 2);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(a_parameter_is_decoded_and_an_encoded_slash_does_not_separate),
		WITH_SERVER(a_rest_parameter_takes_all_segments_and_not_none),
		WITH_SERVER(queries_are_decoded),
		WITH_SERVER(bad_encodings_are_400),
		WITH_SERVER(a_query_with_too_many_parameters_is_400),
		WITH_SERVER(an_unknown_path_is_404_as_a_problem),
		WITH_SERVER(another_method_is_405_with_allow),
		WITH_SERVER(head_has_the_length_and_no_body),
		WITH_SERVER(a_body_arrives_whole),
		WITH_SERVER(a_large_body_arrives_whole),
		WITH_SERVER(a_declared_length_over_the_limit_is_refused_before_the_body),
		WITH_SERVER(a_chunked_body_over_the_limit_is_413),
		WITH_SERVER(a_chunked_body_without_end_is_cut),
		WITH_SERVER(a_body_where_none_is_taken_is_400),
		WITH_SERVER(messages_with_two_lengths_are_refused),
		WITH_SERVER(a_head_over_the_limit_is_refused),
		WITH_SERVER(who_is_refused_is_refused_before_the_body_and_may_ask_on),
		WITH_SERVER(errors_become_problems_with_code_and_hint),
		WITH_SERVER(a_handler_that_forgets_to_answer_gives_500),
		WITH_SERVER(json_bodies_are_checked),
		WITH_SERVER(a_header_that_would_split_the_answer_is_not_sent),
		WITH_SERVER(a_file_is_sent_whole),
		WITH_SERVER(the_peer_of_a_unix_socket_is_known),
		cmocka_unit_test_setup_teardown(a_half_sent_request_does_not_hold_the_only_thread, setup_one_thread, teardown),
		WITH_SERVER(requests_in_one_packet_are_answered_in_order),
		WITH_SERVER(after_quiesce_old_connections_are_served_and_new_ones_not),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
