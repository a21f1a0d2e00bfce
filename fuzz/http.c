/* Bytes of an HTTP client against the real server on a socket: heads, bodies, pipelines; the handlers give back what they were given. */
#include "fuzz.h"
#include "base/str.h"
#include "net/server.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ANSWER_MS 2000
#define INPUT_MAX ((size_t)64 << 10)

static void echo(struct http_request *r, void *ctx UNUSED)
{
	struct error e = ERROR_INIT;
	struct js *body = http_body_js(r, &e);
	if (!body) {
		http_reply_error(r, &e);
		return;
	}
	http_reply_js(r, 200, js_copy(body));
}

static void show(struct http_request *r, void *ctx UNUSED)
{
	struct js *o = js_object();
	struct error e = ERROR_INIT;
	int64_t n = 0;
	const char *path = http_param(r, "path"), *q = http_query(r, "q");
	CHECK(!path || str_is_utf8(path, strlen(path)));
	CHECK(!q || str_is_utf8(q, strlen(q)));
	js_set_str(o, "path", path);
	js_set_str(o, "q", q);
	js_set_str(o, "agent", http_header(r, "User-Agent"));
	(void)!http_query_i64(r, "n", 0, 100, &n, &e);
	http_reply_js(r, 200, o);
}

static const struct http_route routes[] = {
	{ "POST", "/echo", echo, 0, 4096, NULL },
	{ "GET", "/show/{path*}", show, 0, 0, NULL },
	{ "GET", "/one/{path}/tail", show, 0, 0, NULL },
	{ 0 },
};

static struct sockaddr_un the_server(void)
{
	static struct sockaddr_un address = { .sun_family = AF_UNIX };
	static struct http_server *server;
	struct error e = ERROR_INIT;
	if (server)
		return address;
	AUTO_FREE char *path = file_join(fuzz_tmpdir(), "s");
	struct http_config cfg = { .routes = routes, .unix_fd = -1, .tcp_fd = -1, /* Its poll loop sees every end of a stream; epoll's edges in MHD lose one that comes with the last bytes, until the idle timeout. */
		.threads = 1, .thread_per_connection = true, .server_name = "fuzz" };
	CHECK(strlen(path) < sizeof(address.sun_path));
	memcpy(address.sun_path, path, strlen(path) + 1);
	CHECK(http_listen_unix(path, 0600, &cfg.unix_fd, &e) == ERR_OK && http_server_start(&cfg, &server, &e) == ERR_OK);
	return address;
}

/* Every answer is one that we would give. */
static void check_answer(const char *text, size_t n)
{
	if (n)
		CHECK(n > 12 && memcmp(text, "HTTP/1.", 7) == 0 && text[9] >= '1' && text[9] <= '5');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct sockaddr_un address = the_server();
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	AUTO_STRBUF struct strbuf in = STRBUF_LIMIT((size_t)16 << 20);

	if (n > INPUT_MAX)
		return 0;
	CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	(void)!send(fd, data, n, MSG_NOSIGNAL);
	shutdown(fd, SHUT_WR);
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		char *room = strbuf_reserve(&in, 4096);
		CHECK(poll(&p, 1, ANSWER_MS) == 1); /* a client that has said all that it will is let go */
		ssize_t got = room ? recv(fd, room, 4096, 0) : 0;
		if (got <= 0)
			break;
		in.len += (size_t)got;
	}
	check_answer(in.data, in.len);
	return 0;
}
