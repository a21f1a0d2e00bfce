/* Bodies that go somewhere else than memory: their pieces, refusals, clients that go away; and forms in parts. */
#include "net_site.h"
#include <pthread.h>
#include <stdatomic.h>

#define LIMIT 1000000
#define LONG 5000000 /* is hauled: taken by a thread of its own */
#define HAULED_MAX ((size_t)256 << 10)
#define PIECES_MAX ((size_t)64 << 10) /* what may be in memory of a body at a time */

struct counts {
	atomic_int begun, freed, largest;
	atomic_llong taken;
};

struct body {
	struct counts *counts;
	struct http_parts *parts;
	struct strbuf seen;
};

static struct counts counts;

static enum err_code on_part(void *ctx, const char *name, const char *filename, bool begins, const char *data, size_t n, struct error *e)
{
	struct body *b = ctx;
	if (str_eq(name, "evil"))
		return error_set(e, ERR_INVALID, "the part 'evil' is not wanted");
	if (begins)
		strbuf_addf(&b->seen, "[%s %s]", name, filename ? filename : "-");
	strbuf_add(&b->seen, data, n);
	return ERR_OK;
}

static enum err_code begin(struct http_request *r, void *ctx, uint64_t declared, void **ret, struct error *e)
{
	(void)ctx;
	if (http_query(r, "plain"))
		return ERR_OK;
	if (declared != UINT64_MAX && declared > LONG) {
		http_deny_status(r, 413);
		return error_set(e, ERR_LIMIT, "too long");
	}
	struct body *b = NEW(struct body);
	b->counts = &counts;
	if (http_is_multipart(r) && http_parts_open(r, on_part, b, &b->parts, e)) {
		free(b);
		return e->code;
	}
	atomic_fetch_add(&counts.begun, 1);
	*ret = b;
	return ERR_OK;
}

static enum err_code take(void *state, const char *data, size_t n, struct error *e)
{
	struct body *b = state;
	if (b->parts)
		return http_parts_feed(b->parts, data, n, e);
	if ((int)n > atomic_load(&counts.largest))
		atomic_store(&counts.largest, (int)n);
	if (memchr(data, '!', n))
		return error_set(e, ERR_CONFLICT, "there is a '!' in it");
	atomic_fetch_add(&counts.taken, (long long)n);
	return ERR_OK;
}

static void body_free(void *state)
{
	struct body *b = state;
	http_parts_close(b->parts);
	strbuf_release(&b->seen);
	free(b);
	atomic_fetch_add(&counts.freed, 1);
}

static void *wake_later(void *arg)
{
	http_later_wake(arg);
	return NULL;
}

static void later_answer(struct http_request *r, void *state)
{
	(void)state;
	http_reply(r, 200, "text/plain", "later", 5);
}

static void later_free(void *state)
{
	pthread_t *waker = state;
	pthread_join(*waker, NULL);
	free(waker);
}

static void handle_later(struct http_request *r)
{
	static const struct http_later_ops ops = { later_answer, later_free };
	pthread_t *waker = NEW(pthread_t);
	http_later(r, &ops, waker);
	assert_int_equal(pthread_create(waker, NULL, wake_later, r), 0);
}

static void handle(struct http_request *r, void *ctx)
{
	(void)ctx;
	if (http_query(r, "later")) {
		handle_later(r);
		return;
	}
	struct body *b = http_intake_state(r);
	struct error e = ERROR_INIT;
	size_t len = 0;
	if (b && b->parts && http_parts_finish(b->parts, &e)) {
		http_reply_error(r, &e);
		return;
	}
	http_body(r, &len);
	AUTO_FREE char *text = b && b->parts ? mem_strdup(strbuf_str(&b->seen)) : mem_printf("%s %zu %lld", b ? "streamed" : "held", len, atomic_load(&counts.taken));
	http_reply(r, 200, "text/plain", text, strlen(text));
}

static const struct http_intake intakes[] = { { handle, begin, take, body_free }, { .handle = NULL } };
static const struct http_route routes[] = { { "POST", "/in", handle, 0, 10, "takes" }, { .method = NULL } };

static int setup_within(void **state, int64_t head_timeout_ms)
{
	struct site *s = NEW(struct site);
	counts = (struct counts){ 0 };
	site_init(s);
	site_start(s, (struct http_config){ .routes = routes, .intakes = intakes, .threads = 2, .head_timeout_ms = head_timeout_ms });
	*state = s;
	return 0;
}

static int setup(void **state)
{
	return setup_within(state, 0);
}

static int setup_hasty(void **state)
{
	return setup_within(state, 4000); /* its beginning comes in that time on a busy machine too */
}

static int teardown(void **state)
{
	site_release(*state);
	free(*state);
	return 0;
}

static void wait_for_freed(int n)
{
	for (int i = 0; i < WAIT_MS && atomic_load(&counts.freed) < n; i++)
		poll(NULL, 0, 1);
	assert_int_equal(atomic_load(&counts.freed), n);
}

static void say_all(int fd, const char *data, size_t n)
{
	while (n) {
		ssize_t done = send(fd, data, n, MSG_NOSIGNAL);
		if (done <= 0)
			return; /* refused: the answer tells */
		data += done;
		n -= (size_t)done;
	}
}

static void a_long_body_comes_in_pieces(void **state)
{
	struct site *s = *state;
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	AUTO_FREE char *data = mem_alloc(LIMIT);
	AUTO_CLOSE int fd = dial(s);
	memset(data, 'x', LIMIT);
	say(fd, "POST /in HTTP/1.1\r\nContent-Length: 1000000\r\n" HEAD_END);
	say_all(fd, data, LIMIT);
	hear(fd, &in, NULL);
	assert_non_null(strstr(strbuf_str(&in), "streamed 0 1000000"));
	assert_true(atomic_load(&counts.largest) < (int)PIECES_MAX);
	wait_for_freed(1);
}

static void a_chunked_body_and_an_empty_one_are_bodies_too(void **state)
{
	expect(*state, "POST /in HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" HEAD_END "5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n", 200, "streamed 0 8");
	expect(*state, "POST /in HTTP/1.1\r\nContent-Length: 0\r\n" HEAD_END, 200, "streamed 0 8");
	wait_for_freed(2);
}

static void an_ordinary_body_of_the_same_route_keeps_its_limit(void **state)
{
	expect(*state, "POST /in?plain HTTP/1.1\r\nContent-Length: 5\r\n" HEAD_END "hello", 200, "held 5 0");
	expect(*state, "POST /in?plain HTTP/1.1\r\nContent-Length: 11\r\n" HEAD_END "hello world", 413, "limit of 10 bytes");
	assert_int_equal(atomic_load(&counts.begun), 0);
}

static void what_is_too_long_is_refused_before_it_comes(void **state)
{
	expect(*state, "POST /in HTTP/1.1\r\nContent-Length: 99000000\r\n" HEAD_END, 413, "too long");
	assert_int_equal(atomic_load(&counts.begun), 0);
}

static void a_refusal_in_the_middle_is_answered_at_the_end(void **state)
{
	struct site *s = *state;
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	AUTO_FREE char *data = mem_alloc(LIMIT);
	AUTO_CLOSE int fd = dial(s);
	memset(data, 'x', LIMIT);
	data[LIMIT / 2] = '!';
	say(fd, "POST /in HTTP/1.1\r\nContent-Length: 1000000\r\n" HEAD_END);
	say_all(fd, data, LIMIT);
	hear(fd, &in, NULL);
	assert_non_null(strstr(strbuf_str(&in), "409"));
	assert_non_null(strstr(strbuf_str(&in), "there is a '!' in it"));
	assert_true(atomic_load(&counts.taken) < LIMIT / 2 + 1);
	wait_for_freed(1);
}

static void a_client_that_goes_away_leaves_nothing(void **state)
{
	struct site *s = *state;
	int fd = dial(s);
	say(fd, "POST /in HTTP/1.1\r\nContent-Length: 500000\r\n" HEAD_END "the beginning");
	for (int i = 0; i < WAIT_MS && atomic_load(&counts.taken) < 13; i++)
		poll(NULL, 0, 1);
	close(fd);
	wait_for_freed(1);
}

#define FORM "Content-Type: multipart/form-data; boundary=XX\r\n"

static void form(struct site *s, const char *body, int status, const char *part)
{
	AUTO_FREE char *request = mem_printf("POST /in HTTP/1.1\r\n" FORM "Content-Length: %zu\r\n" HEAD_END "%s", strlen(body), body);
	expect(s, request, status, part);
}

#define PART(name, more, text) "--XX\r\nContent-Disposition: form-data; name=\"" name "\"" more "\r\n\r\n" text "\r\n"

static void a_form_comes_in_parts(void **state)
{
	form(*state, PART("a", "", "one") PART("b", "; filename=\"f.zip\"", "two\r\n--X not a boundary") "--XX--\r\n", 200, "[a -]one[b f.zip]two\r\n--X not a boundary");
}

static void a_form_that_is_not_whole_is_refused(void **state)
{
	form(*state, PART("a", "", "one") "--XX\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\ntw", 400, "");
	form(*state, PART("evil", "", "one") "--XX--\r\n", 400, "not wanted");
	expect(*state, "POST /in HTTP/1.1\r\nContent-Type: multipart/form-data\r\nContent-Length: 3\r\n" HEAD_END "abc", 400, "boundary");
}

/* ---- long ones */

static void wait_for_taken(long long n)
{
	for (int i = 0; i < WAIT_MS && atomic_load(&counts.taken) < n; i++)
		poll(NULL, 0, 1);
	assert_true(atomic_load(&counts.taken) >= n);
}

/* The answer to a body of LONG bytes, all 'x' but for the one in its middle. */
static void send_long(struct site *s, const char *target, char middle, struct strbuf *ret_answer)
{
	AUTO_FREE char *data = mem_alloc(LONG);
	AUTO_FREE char *head = mem_printf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", target, LONG);
	AUTO_CLOSE int fd = dial(s);
	memset(data, 'x', LONG);
	data[LONG / 2] = middle;
	say(fd, head);
	say_all(fd, data, LONG);
	hear(fd, ret_answer, NULL);
}

static void a_very_long_body_comes_in_large_pieces_and_ends_its_connection(void **state)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	send_long(*state, "/in", 'x', &in);
	assert_true(str_starts(strbuf_str(&in), "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(in.data, "\r\nConnection: close\r\n"));
	assert_true(str_ends(in.data, "streamed 0 5000000"));
	assert_true(atomic_load(&counts.largest) <= (int)HAULED_MAX);
	wait_for_freed(1);
}

static void a_refusal_in_the_middle_of_a_very_long_body_is_answered_at_the_end(void **state)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	send_long(*state, "/in", '!', &in);
	assert_true(str_starts(strbuf_str(&in), "HTTP/1.1 409 Conflict\r\n"));
	assert_non_null(strstr(in.data, "there is a '!' in it"));
	assert_true(atomic_load(&counts.taken) < LONG / 2 + 1);
	wait_for_freed(1);
}

static void an_answer_to_a_very_long_body_may_come_later(void **state)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	send_long(*state, "/in?later=1", 'x', &in);
	assert_true(str_ends(strbuf_str(&in), "\r\n\r\nlater"));
	wait_for_freed(1);
}

static int begin_long(struct site *s, size_t sent)
{
	AUTO_FREE char *data = mem_alloc(sent);
	int fd = dial(s);
	memset(data, 'x', sent);
	say(fd, "POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n");
	say_all(fd, data, sent);
	return fd;
}

static void of_a_very_long_body_whose_client_goes_away_all_that_came_was_taken(void **state)
{
	int fd = begin_long(*state, LONG - 1);
	close(fd);
	wait_for_freed(1);
	assert_int_equal(atomic_load(&counts.taken), LONG - 1);
}

static void a_very_long_body_that_stands_still_is_cut(void **state)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	AUTO_CLOSE int fd = begin_long(*state, LONG / 2);
	hear(fd, &in, NULL);
	assert_int_equal(in.len, 0);
	wait_for_freed(1);
}

static void a_stop_in_the_middle_of_a_very_long_body_hangs_nothing(void **state)
{
	struct site *s = *state;
	int fd = begin_long(s, LONG / 2);
	wait_for_taken(LIMIT);
	http_server_stop(TAKE_PTR(s->server));
	assert_int_equal(atomic_load(&counts.freed), 1);
	close(fd);
}

static void a_very_long_form_comes_in_parts(void **state)
{
	AUTO_STRBUF struct strbuf body = STRBUF_INIT, in = STRBUF_INIT;
	AUTO_FREE char *text = mem_alloc(LONG / 2);
	AUTO_CLOSE int fd = dial(*state);
	memset(text, 'y', LONG / 2);
	strbuf_adds(&body, "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n");
	strbuf_add(&body, text, LONG / 2);
	strbuf_adds(&body, "\r\n" PART("b", "", "two") "--XX--\r\n");
	AUTO_FREE char *head = mem_printf("POST /in HTTP/1.1\r\n" FORM "Content-Length: %zu\r\n" HEAD_END, body.len);
	say(fd, head);
	say_all(fd, body.data, body.len);
	hear(fd, &in, NULL);
	assert_true(str_ends(strbuf_str(&in), "yyy[b -]two"));
	assert_true(in.len > LONG / 2);
	wait_for_freed(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_long_body_comes_in_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(a_chunked_body_and_an_empty_one_are_bodies_too, setup, teardown),
		cmocka_unit_test_setup_teardown(an_ordinary_body_of_the_same_route_keeps_its_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_too_long_is_refused_before_it_comes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refusal_in_the_middle_is_answered_at_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(a_client_that_goes_away_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_form_comes_in_parts, setup, teardown),
		cmocka_unit_test_setup_teardown(a_form_that_is_not_whole_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(a_very_long_body_comes_in_large_pieces_and_ends_its_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refusal_in_the_middle_of_a_very_long_body_is_answered_at_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(an_answer_to_a_very_long_body_may_come_later, setup, teardown),
		cmocka_unit_test_setup_teardown(of_a_very_long_body_whose_client_goes_away_all_that_came_was_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(a_very_long_body_that_stands_still_is_cut, setup_hasty, teardown),
		cmocka_unit_test_setup_teardown(a_stop_in_the_middle_of_a_very_long_body_hangs_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_very_long_form_comes_in_parts, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
