/* The forwarder of the model port: see forward.h.  Nothing here blocks; a connection whose upstream is not there yet is dialled
 * again until its time is up, so that a restarted gateway costs a wait and no error. */
#include "sandbox/init/forward.h"

#include "sandbox/init/sys.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define NET16(x) __builtin_bswap16(x) /* both architectures are little-endian */
#define LOOPBACK_NET __builtin_bswap32(0x7f000001u)

enum side { CLIENT, UPSTREAM, SIDES };

/* Bytes on their way from one side to the other. */
struct flow {
	char data[FORWARD_BUFFER_BYTES];
	size_t start, end;
	bool eof;  /* the source said it is done */
	bool shut; /* and the sink was told */
};

struct connection {
	bool used, open; /* used and not open: dialling */
	int fd[SIDES];
	int poll_at[SIDES]; /* index in the poll array, -1: not in it */
	int64_t dial_until_ms;
	struct flow flow[SIDES]; /* by source */
};

struct forward {
	int listener;
	int listener_at;
	const char *socket_path;
	struct connection connections[FORWARD_CONNECTIONS_MAX];
};

static void fd_close(int fd)
{
	(void)sys1(SYS_close, fd);
}

static void option_set(int fd, int level, int option, const void *value, unsigned size)
{
	(void)sys5(SYS_setsockopt, fd, level, option, value, size);
}

static void loopback_up(void)
{
	struct ifreq r = { .ifr_name = "lo" };
	long fd = sys3(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return;
	if (sys3(SYS_ioctl, fd, SIOCGIFFLAGS, &r) == 0 && !(r.ifr_flags & IFF_UP)) {
		r.ifr_flags = (short)(r.ifr_flags | IFF_UP | IFF_RUNNING);
		(void)sys3(SYS_ioctl, fd, SIOCSIFFLAGS, &r); /* without the capability the bind below tells */
	}
	fd_close((int)fd);
}

static long listener_open(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = NET16(port), .sin_addr.s_addr = LOOPBACK_NET };
	long fd = sys3(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	if (fd < 0)
		return fd;
	option_set((int)fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	long rc = sys3(SYS_bind, fd, &a, sizeof a);
	if (rc == 0)
		rc = sys2(SYS_listen, fd, FORWARD_BACKLOG);
	if (rc == 0)
		return fd;
	fd_close((int)fd);
	return rc;
}

struct forward *forward_open(uint16_t port, const char *socket_path, int *ret_error)
{
	struct forward *f = sys_pages(sizeof *f); /* untouched buffers cost no memory */

	*ret_error = ENOMEM;
	if (!f)
		return NULL;
	loopback_up();
	long fd = listener_open(port);
	*ret_error = fd < 0 ? (int)-fd : 0;
	f->socket_path = socket_path;
	f->listener = (int)fd;
	return fd < 0 ? NULL : f;
}

static void connection_close(struct connection *c)
{
	for (enum side s = CLIENT; s < SIDES; s++) {
		if (c->fd[s] >= 0)
			fd_close(c->fd[s]);
		c->fd[s] = -1;
	}
	c->used = c->open = false;
}

/* A reset instead of a clean end: the client must not take a broken answer for a whole one. */
static void connection_abort(struct connection *c)
{
	struct linger now = { .l_onoff = 1, .l_linger = 0 };

	if (c->fd[CLIENT] >= 0)
		option_set(c->fd[CLIENT], SOL_SOCKET, SO_LINGER, &now, sizeof now);
	connection_close(c);
}

static bool dial_may_be_retried(long error)
{
	return error == EAGAIN || error == ECONNREFUSED || error == ENOENT || error == EINTR;
}

static void connection_dial(struct connection *c, const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	long fd = sys3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	long rc = fd;

	for (size_t i = 0; path[i] && i < sizeof a.sun_path - 1; i++)
		a.sun_path[i] = path[i];
	if (fd >= 0)
		rc = sys3(SYS_connect, fd, &a, sizeof a);
	if (fd >= 0 && rc == 0) {
		c->fd[UPSTREAM] = (int)fd;
		c->open = true;
		return;
	}
	if (fd >= 0)
		fd_close((int)fd);
	if (!dial_may_be_retried(-rc) || sys_now_ms() >= c->dial_until_ms)
		connection_abort(c);
}

static struct connection *connection_free_slot(struct forward *f)
{
	for (int i = 0; i < FORWARD_CONNECTIONS_MAX; i++)
		if (!f->connections[i].used)
			return &f->connections[i];
	return NULL;
}

static void flow_reset(struct flow *w)
{
	w->start = w->end = 0;
	w->eof = w->shut = false;
}

static void forward_accept(struct forward *f)
{
	struct connection *c;

	while ((c = connection_free_slot(f)) != NULL) {
		int on = 1;
		int fd = (int)sys4(SYS_accept4, f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		option_set(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		c->used = true;
		c->open = false;
		c->fd[CLIENT] = fd;
		c->fd[UPSTREAM] = -1;
		c->poll_at[CLIENT] = c->poll_at[UPSTREAM] = -1;
		c->dial_until_ms = sys_now_ms() + FORWARD_DIAL_MS;
		flow_reset(&c->flow[CLIENT]);
		flow_reset(&c->flow[UPSTREAM]);
		connection_dial(c, f->socket_path);
	}
}

static short connection_events(const struct connection *c, enum side s)
{
	const struct flow *in = &c->flow[s], *out = &c->flow[s == CLIENT ? UPSTREAM : CLIENT];
	short events = 0;

	if (!in->eof && in->end < FORWARD_BUFFER_BYTES)
		events |= POLLIN;
	if (out->end > out->start)
		events |= POLLOUT;
	return events;
}

int forward_fill(struct forward *f, struct pollfd *fds, int *ret_timeout_ms)
{
	int n = 0;

	f->listener_at = -1;
	if (connection_free_slot(f)) {
		f->listener_at = n;
		fds[n++] = (struct pollfd){ .fd = f->listener, .events = POLLIN };
	}
	for (int i = 0; i < FORWARD_CONNECTIONS_MAX; i++) {
		struct connection *c = &f->connections[i];

		for (enum side s = CLIENT; s < SIDES; s++) {
			c->poll_at[s] = -1;
			if (!c->used || c->fd[s] < 0)
				continue;
			/* While dialling only the client's going away is of interest. Later, a side from which nothing is wanted now
			 * is left out, since its hang-up would be reported again and again. */
			short events = c->open ? connection_events(c, s) : 0;
			if (c->open && !events)
				continue;
			c->poll_at[s] = n;
			fds[n++] = (struct pollfd){ .fd = c->fd[s], .events = events };
		}
		if (c->used && !c->open && (*ret_timeout_ms < 0 || *ret_timeout_ms > FORWARD_REDIAL_MS))
			*ret_timeout_ms = FORWARD_REDIAL_MS;
	}
	return n;
}

static bool io_is_over(long n)
{
	return n < 0 && n != -EAGAIN && n != -EINTR;
}

static bool flow_read(struct flow *w, int source)
{
	if (w->eof || w->end == FORWARD_BUFFER_BYTES)
		return true;
	long n = sys6(SYS_recvfrom, source, SYS_ARG(w->data + w->end), SYS_ARG(FORWARD_BUFFER_BYTES - w->end), 0, 0, 0);
	if (io_is_over(n))
		return false;
	if (n == 0)
		w->eof = true;
	else if (n > 0)
		w->end += (size_t)n;
	return true;
}

static bool flow_write(struct flow *w, int sink)
{
	if (w->end > w->start) {
		long n = sys6(SYS_sendto, sink, SYS_ARG(w->data + w->start), SYS_ARG(w->end - w->start), MSG_NOSIGNAL, 0, 0);
		if (io_is_over(n))
			return false;
		if (n > 0)
			w->start += (size_t)n;
		if (w->start == w->end)
			w->start = w->end = 0;
	}
	if (w->eof && w->start == w->end && !w->shut) {
		w->shut = true;
		(void)sys2(SYS_shutdown, sink, SHUT_WR);
	}
	return true;
}

static short connection_revents(const struct connection *c, enum side s, const struct pollfd *fds, int count)
{
	int at = c->poll_at[s];

	return at >= 0 && at < count ? fds[at].revents : 0;
}

static void connection_step(struct connection *c, const struct pollfd *fds, int count)
{
	for (enum side s = CLIENT; s < SIDES; s++) {
		enum side other = s == CLIENT ? UPSTREAM : CLIENT;
		short r = connection_revents(c, s, fds, count);
		bool good = true;

		if (r & (POLLIN | POLLHUP | POLLERR))
			good = flow_read(&c->flow[s], c->fd[s]) && flow_write(&c->flow[s], c->fd[other]);
		if (good && (r & (POLLOUT | POLLERR)))
			good = flow_write(&c->flow[other], c->fd[s]);
		if (!good) {
			connection_abort(c);
			return;
		}
	}
	if (c->flow[CLIENT].shut && c->flow[UPSTREAM].shut)
		connection_close(c);
}

void forward_step(struct forward *f, const struct pollfd *fds, int count)
{
	for (int i = 0; i < FORWARD_CONNECTIONS_MAX; i++) {
		struct connection *c = &f->connections[i];

		if (!c->used)
			continue;
		if (c->open)
			connection_step(c, fds, count);
		else if (connection_revents(c, CLIENT, fds, count) & (POLLHUP | POLLERR))
			connection_close(c);
		else
			connection_dial(c, f->socket_path);
	}
	if (f->listener_at >= 0 && f->listener_at < count && fds[f->listener_at].revents)
		forward_accept(f);
}
