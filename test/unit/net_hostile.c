/* Clients that mean no good: heads that can be read in two ways, clients that take their time. */
#include "net_site.h"
#include <stdlib.h>

#define SLOW_MS 2000	/* a head's and a body's time in the tests that wait for its end: their beginning must come in time */
#define PATIENT_MS 4000 /* ... and in the one that must not see it, on a machine that does other things too */

static void handle(struct http_request *r, void *ctx)
{
	(void)ctx;
	size_t n = 0;
	http_body(r, &n);
	struct js *o = js_object();
	js_set_int(o, "bytes", (int64_t)n);
	http_reply_js(r, 200, o);
}

#define LARGE ((size_t)100 << 20)

static void handle_large(struct http_request *r, void *ctx)
{
	(void)ctx;
	AUTO_FREE char *data = mem_alloc(LARGE);
	http_reply(r, 200, "application/octet-stream", data, LARGE);
}

static const struct http_route routes[] = {
	{ "GET", "/large", handle_large, 0, 0, NULL },
	{ "GET", "/a", handle, 0, 0, NULL },
	{ "POST", "/a", handle, 0, 1 << 20, NULL },
	{ 0 },
};

static int setup_with(void **state, int64_t head_timeout_ms)
{
	struct site *s = calloc(1, sizeof(*s));
	site_init(s);
	site_start(s, (struct http_config){ .routes = routes, .threads = 2, .head_timeout_ms = head_timeout_ms });
	*state = s;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, 0);
}

static int setup_impatient(void **state)
{
	return setup_with(state, SLOW_MS);
}

static int setup_patient(void **state)
{
	return setup_with(state, PATIENT_MS);
}

static int teardown(void **state)
{
	site_release(*state);
	free(*state);
	return 0;
}

static void say_bytes(int fd, const char *data, size_t n)
{
	assert_int_equal(send(fd, data, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* One refusal, and nothing that stood behind it was taken for a request. */
static void expect_refused(const struct site *s, const char *request, size_t n)
{
	AUTO_CLOSE int fd = dial(s);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	strbuf_add(&out, request, n);
	strbuf_adds(&out, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
	say_bytes(fd, out.data, out.len); /* at once: it hangs up early */
	hear(fd, &in, NULL);
	if (!str_starts(strbuf_str(&in), "HTTP/1.1 4") || strstr(in.data + 1, "HTTP/1.1 2"))
		fail_msg("asked:\n%.*s\ngot:\n%s", (int)n, request, strbuf_str(&in));
}

#define REFUSED(s, text) expect_refused(s, text, sizeof(text) - 1)
#define HEAD "POST /a HTTP/1.1\r\nHost: x\r\n"

static void folded_lines_are_refused_whatever_they_fold(void **state)
{
	REFUSED(*state, HEAD "X: a\r\n b\r\n\r\n");
	REFUSED(*state, HEAD "X: a\r\n\tb\r\n\r\n");
	REFUSED(*state, HEAD "X:\r\n b\r\nY: c\r\n\r\n");
	REFUSED(*state, HEAD "Content-Length:\r\n 3\r\n\r\nabc");
	REFUSED(*state, HEAD "Content-Length: 3\r\n 4\r\n\r\nabc");
	REFUSED(*state, HEAD "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n");
	REFUSED(*state, "POST /a HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n");
}

static void control_characters_are_refused_in_every_part_of_a_head(void **state)
{
	REFUSED(*state, HEAD "X: a\0b\r\n\r\n");
	REFUSED(*state, HEAD "X\0: b\r\n\r\n");
	REFUSED(*state, HEAD "X: a\rY: b\r\n\r\n");
	REFUSED(*state, HEAD "X: a\r\r\n\r\n");
	REFUSED(*state, HEAD "X: \x01\r\n\r\n");
	REFUSED(*state, HEAD "X: \x7f\r\n\r\n");
	REFUSED(*state, "POST /a\0b HTTP/1.1\r\nHost: x\r\n\r\n");
	REFUSED(*state, "POST /a?q=\0b HTTP/1.1\r\nHost: x\r\n\r\n");
	REFUSED(*state, "P\0OST /a HTTP/1.1\r\nHost: x\r\n\r\n");
	REFUSED(*state, HEAD "Content-Length: 3\0 4\r\n\r\nabc");
}

static void header_names_that_are_none_are_refused(void **state)
{
	REFUSED(*state, HEAD "Content-Length : 3\r\n\r\nabc");
	REFUSED(*state, HEAD "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n");
	REFUSED(*state, HEAD "X(y): a\r\n\r\n");
	REFUSED(*state, HEAD "X y: a\r\n\r\n");
	REFUSED(*state, HEAD ": a\r\n\r\n");
	REFUSED(*state, HEAD "\xc3\xa4: a\r\n\r\n");
}

static void lengths_that_are_none_are_refused(void **state)
{
	REFUSED(*state, HEAD "Content-Length: 18446744073709551615\r\n\r\nabc");
	REFUSED(*state, HEAD "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc");
	REFUSED(*state, HEAD "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
	REFUSED(*state, HEAD "Content-Length: +3\r\n\r\nabc");
	REFUSED(*state, HEAD "Content-Length: 3, 3\r\n\r\nabc");
	REFUSED(*state, HEAD "Content-Length: 0x3\r\n\r\nabc");
}

static void a_second_host_or_a_target_elsewhere_is_refused(void **state)
{
	REFUSED(*state, HEAD "Host: y\r\n\r\n");
	REFUSED(*state, HEAD "Host: x\r\n\r\n");
	REFUSED(*state, "GET http://y/a HTTP/1.1\r\nHost: x\r\n\r\n");
	REFUSED(*state, "GET http://x:1/a HTTP/1.1\r\nHost: x\r\n\r\n");
	REFUSED(*state, "GET http://u@x/a HTTP/1.1\r\nHost: x\r\n\r\n");
}

static void what_is_only_unusual_is_served(void **state)
{
	static const char *const good[] = { "X:a\r\n", "X:   a  \r\n", "X:\ta\t\r\n", "X:\r\nY: \r\n", "X: a:b:c\r\n", "X: a\r\nX: b\r\n", "X: \xff\xfe\r\n", "x!#$%&'*+-.^_`|~: a\r\n" };
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		AUTO_FREE char *text = mem_printf("POST /a?q=1&b&c=&=d&&x=a+%%41 HTTP/1.1\r\n%sContent-Length: 003\r\n" HEAD_END "abc", good[i]);
		expect(*state, text, 200, "{\"bytes\":3}");
	}
	expect(*state, "\r\n\r\nGET http://x/a? HTTP/1.1\r\n" HEAD_END, 200, "{\"bytes\":0}");
	expect(*state, "GET /a??&&= HTTP/1.1\nHost: x\nConnection: close\n\n", 200, "{\"bytes\":0}");
}

/* Says a byte again and again; true when the server has hung up before we had said all. */
static bool dribble(int fd, const char *byte, int times)
{
	for (int i = 0; i < times; i++) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (send(fd, byte, 1, MSG_NOSIGNAL) != 1 || poll(&p, 1, SLOW_MS / 8) == 1)
			return true;
	}
	return false;
}

static void a_head_that_does_not_end_is_cut_however_often_it_goes_on(void **state)
{
	AUTO_CLOSE int fd = dial(*state);
	say(fd, "GET /a HTTP/1.1\r\nHost: x\r\nX: ");
	assert_true(dribble(fd, "a", WAIT_MS / (SLOW_MS / 8)));
}

static void a_body_that_drips_is_cut(void **state)
{
	AUTO_CLOSE int fd = dial(*state);
	say(fd, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
	assert_true(dribble(fd, "a", WAIT_MS / (SLOW_MS / 8)));
}

static void a_connection_that_says_nothing_more_is_let_go(void **state)
{
	AUTO_CLOSE int fd = dial(*state);
	AUTO_CLOSE int mute = dial(*state);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	say(fd, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(fd, &in, "{\"bytes\":0}"));
	assert_false(hear(fd, &in, "never")); /* the end, not a time-out of ours */
	assert_false(hear(mute, &in, "never"));
}

static void a_body_at_a_good_speed_is_taken_however_long_it_lasts(void **state)
{
	AUTO_CLOSE int fd = dial(*state);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	char part[1000];
	int parts = 50;
	memset(part, 'x', sizeof(part));
	say(fd, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n");
	while (--parts) { /* in the end longer than a head may take, and nothing is said or hung up before the last part */
		say_bytes(fd, part, sizeof(part));
		assert_int_equal(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, PATIENT_MS / 40), 0);
	}
	say_bytes(fd, part, sizeof(part));
	assert_true(hear(fd, &in, "{\"bytes\":50000}"));
}

#define SOME ((size_t)1 << 20) /* more than a socket holds: the server goes on with what it holds */

/* The server lets go whoever takes nothing for a minute, in which a busy machine does not come far with so much. */
static void take_some(int fd)
{
	static char buf[65536];
	for (size_t got = 0; got < SOME;) {
		ssize_t n = read(fd, buf, sizeof(buf));
		assert_true(n > 0);
		got += (size_t)n;
	}
}

static void answers_that_nobody_reads_have_a_limit_together(void **state)
{
	int fds[HTTP_REPLIES_MAX / LARGE];
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial(*state);
		say(fds[i], "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
		assert_true(hear(fds[i], &in, "HTTP/1.1 200 "));
		strbuf_reset(&in);
	}
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		take_some(fds[i]);
	expect(*state, "GET /large HTTP/1.1\r\n" HEAD_END, 503, "\r\nRetry-After: ");
	expect(*state, "GET /a HTTP/1.1\r\n" HEAD_END, 200, "{\"bytes\":0}");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	for (bool again = true; again;) { /* the server sees the ends when it sees them */
		AUTO_CLOSE int fd = dial(*state);
		say(fd, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
		strbuf_reset(&in);
		assert_true(hear(fd, &in, "\r\n\r\n"));
		again = !str_starts(in.data, "HTTP/1.1 200 ");
	}
}

#define WITH(set, test) cmocka_unit_test_setup_teardown(test, set, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(setup, folded_lines_are_refused_whatever_they_fold),
		WITH(setup, control_characters_are_refused_in_every_part_of_a_head),
		WITH(setup, header_names_that_are_none_are_refused),
		WITH(setup, lengths_that_are_none_are_refused),
		WITH(setup, a_second_host_or_a_target_elsewhere_is_refused),
		WITH(setup, what_is_only_unusual_is_served),
		WITH(setup, answers_that_nobody_reads_have_a_limit_together),
		WITH(setup_impatient, a_head_that_does_not_end_is_cut_however_often_it_goes_on),
		WITH(setup_impatient, a_body_that_drips_is_cut),
		WITH(setup_impatient, a_connection_that_says_nothing_more_is_let_go),
		WITH(setup_patient, a_body_at_a_good_speed_is_taken_however_long_it_lasts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
