/* What the tests of the HTTP server share: a server on a unix socket in a directory of its own, and clients that speak byte by byte. */
#pragma once
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/server.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WAIT_MS 120000 /* for what must come; a test that gets there has failed */
#define HEAD_END "Host: x\r\nConnection: close\r\n\r\n"

struct site {
	char *dir, *path;
	int fd;
	struct http_server *server;
};

static inline void site_init(struct site *s)
{
	struct error e = ERROR_INIT;
	assert_int_equal(file_tmpdir("/tmp", "sbnet", &s->dir, &e), ERR_OK);
	s->path = file_join(s->dir, "s");
	s->fd = -1;
}

static inline void site_start(struct site *s, struct http_config cfg)
{
	struct error e = ERROR_INIT;
	assert_int_equal(http_listen_unix(s->path, 0600, &s->fd, &e), ERR_OK);
	cfg.unix_fd = s->fd;
	cfg.tcp_fd = -1;
	cfg.server_name = "signalbox";
	assert_int_equal(http_server_start(&cfg, &s->server, &e), ERR_OK);
}

static inline void site_release(struct site *s)
{
	struct error e = ERROR_INIT;
	http_server_stop(s->server);
	if (s->fd >= 0)
		close(s->fd);
	assert_int_equal(file_remove_tree(s->dir, &e), ERR_OK);
	free(s->dir);
	free(s->path);
}

static inline int dial(const struct site *s)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	memcpy(a.sun_path, s->path, strlen(s->path));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static inline void say(int fd, const char *text)
{
	size_t n = strlen(text);
	assert_int_equal(send(fd, text, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* Reads until the wanted text is there, or the end.  Frames hold NULs: what stands behind one counts too. */
static inline bool hear(int fd, struct strbuf *in, const char *wanted)
{
	char buf[4096];
	while (!wanted || !memmem(strbuf_str(in), in->len, wanted, strlen(wanted))) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		ssize_t n = read(fd, buf, sizeof(buf));
		if (n <= 0)
			return false;
		strbuf_add(in, buf, (size_t)n);
	}
	return true;
}

/* One request on a connection of its own; the answer, head and all. */
static inline void ask(const struct site *s, const char *text, struct strbuf *ret)
{
	AUTO_CLOSE int fd = dial(s);
	say(fd, text);
	hear(fd, ret, NULL);
}

static inline void expect(const struct site *s, const char *request, int status, const char *part)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	AUTO_FREE char *first = mem_printf("HTTP/1.1 %d ", status);
	ask(s, request, &in);
	if (!str_starts(strbuf_str(&in), first) || !strstr(strbuf_str(&in), part))
		fail_msg("asked:\n%s\nwanted %d and '%s', got:\n%s", request, status, part, strbuf_str(&in));
}
