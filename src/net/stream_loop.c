/* Crowds of streams.  MHD wakes a suspended connection by a message to its thread, looks through all that sleep there, and puts it in and out
 * of an epoll set: five system calls for each line and reader.  So the connections of streams that may have many readers are taken from it for
 * good (they stay suspended), and a few threads of our own serve them: a wake is a place in a queue, a line is one send.
 *
 *   wake --> queue --> turn: read .. send ..     the socket is full: what is left waits in `rest` for EPOLLOUT
 *
 * A stream's end is the connection's: MHD gets it back only to close it. */
#include "net/stream_loop.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOP_EVENTS 64
#define LOOP_STACK_BYTES ((size_t)512 << 10)
#define LOOP_TICK_MS 1000
#define LOOP_BLOCK ((size_t)16 << 10) /* read at a time; what a reader that stops reading costs at most */
#define LOOP_ROUNDS 4		      /* of read and send before the others' turn */
#define CHUNK_HEAD ((size_t)10)	      /* "4000\r\n", and room */
#define CHUNK_TAIL ((size_t)2)

struct stream_loop {
	int epoll, event;
	pthread_t thread;
	struct http_stream *all; /* the thread's own */
	int64_t ticked_ms;
	char *block;
	pthread_mutex_t lock; /* guards the rest */
	struct http_stream *queue, **queue_end;
	bool stop, signalled;
};

struct stream_loops {
	struct stream_loop loops[HTTP_STREAM_LOOPS];
	unsigned n, next;
};

/* ---- wakes */

/* With the lock. */
static void queue_add(struct stream_loop *l, struct http_stream *s)
{
	uint64_t one = 1;
	if (s->queued || !s->attached || s->dead)
		return;
	s->queued = true;
	s->queue_next = NULL;
	*l->queue_end = s;
	l->queue_end = &s->queue_next;
	if (!l->signalled && write(l->event, &one, sizeof(one)) == sizeof(one))
		l->signalled = true;
}

void stream_loop_wake(struct http_stream *s)
{
	struct stream_loop *l = s->loop;
	pthread_mutex_lock(&l->lock);
	queue_add(l, s);
	pthread_mutex_unlock(&l->lock);
}

bool stream_loop_attach(struct http_stream *s, struct http_request *r, struct strbuf *head_taken)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct stream_loop *l = s->loop;
	int one = 1;
	s->fd = info ? info->connect_fd : -1;
	s->chunked = !r->http10;
	pthread_mutex_lock(&l->lock);
	bool ok = info && !l->stop;
	if (ok) {
		MHD_suspend_connection(r->connection);
		if (!r->listener->is_unix)
			(void)setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		s->rest = *head_taken;
		*head_taken = (struct strbuf)STRBUF_INIT;
		s->attached = true;
		queue_add(l, s);
	}
	pthread_mutex_unlock(&l->lock);
	return ok;
}

/* ---- sending */

static void interest_set(struct http_stream *s, uint32_t events)
{
	struct epoll_event ev = { .events = events | EPOLLET, .data = { .ptr = s } };
	(void)epoll_ctl(s->loop->epoll, EPOLL_CTL_MOD, s->fd, &ev);
}

/* How much of it the socket has taken. */
static size_t send_some(struct http_stream *s, const char *data, size_t n)
{
	size_t sent = 0;
	while (sent < n && !s->gone) {
		ssize_t done = send(s->fd, data + sent, n - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (done < 0 && errno == EAGAIN)
			break;
		if (done < 0 && errno == EINTR)
			continue;
		s->gone = done < 0;
		sent += done > 0 ? (size_t)done : 0;
	}
	atomic_fetch_add_explicit(&s->server->bytes_out, sent, memory_order_relaxed);
	return sent;
}

/* The socket is full: we are told when it is not. */
static void stick(struct http_stream *s)
{
	s->stuck_since_ms = clock_mono_ms();
	interest_set(s, EPOLLOUT);
}

/* True: the socket has all that was read. */
static bool rest_send(struct http_stream *s)
{
	if (!s->rest.len)
		return true;
	size_t n = send_some(s, s->rest.data + s->rest_sent, s->rest.len - s->rest_sent);
	s->rest_sent += n;
	if (s->rest_sent < s->rest.len) {
		if (n || !s->stuck_since_ms)
			stick(s);
		return false;
	}
	if (s->stuck_since_ms)
		interest_set(s, 0);
	s->stuck_since_ms = 0;
	s->rest_sent = 0;
	strbuf_release(&s->rest);
	return true;
}

/* The n bytes behind `data` as they go out; there is room before and after them. */
static void send_piece(struct http_stream *s, char *data, size_t n)
{
	if (s->chunked) {
		char head[CHUNK_HEAD + 1];
		int len = snprintf(head, sizeof(head), "%zx\r\n", n);
		data -= len;
		memcpy(data, head, (size_t)len);
		memcpy(data + (size_t)len + n, "\r\n", CHUNK_TAIL);
		n += (size_t)len + CHUNK_TAIL;
	}
	size_t sent = send_some(s, data, n);
	if (s->gone || sent == n)
		return;
	strbuf_add(&s->rest, data + sent, n - sent);
	stick(s);
}

/* ---- a turn */

static void connection_end(struct http_stream *s)
{
	struct stream_loop *l = s->loop;
	struct MHD_Connection *connection = s->connection;
	(void)epoll_ctl(l->epoll, EPOLL_CTL_DEL, s->fd, NULL);
	if (s->loop_prev)
		s->loop_prev->loop_next = s->loop_next;
	else
		l->all = s->loop_next;
	if (s->loop_next)
		s->loop_next->loop_prev = s->loop_prev;
	shutdown(s->fd, SHUT_RDWR);
	strbuf_release(&s->rest);
	s->ops->free(s->state); /* after it nobody wakes us */
	MHD_resume_connection(connection);
	pthread_mutex_lock(&l->lock);
	s->dead = true;
	bool queued = s->queued;
	pthread_mutex_unlock(&l->lock);
	if (!queued)
		stream_release(s);
}

/* True: there may be more to say. */
static bool read_and_send(struct http_stream *s)
{
	char *data = s->loop->block + CHUNK_HEAD;
	ssize_t n = s->ops->read(s->state, data, LOOP_BLOCK);
	if (n > 0)
		send_piece(s, data, (size_t)n);
	if (n == -1) {
		s->closing = true;
		if (s->chunked)
			strbuf_adds(&s->rest, "0\r\n\r\n");
	}
	s->gone = s->gone || n < -1;
	return n != 0;
}

/* `told`: by the socket; without that nothing is tried on one that was full. */
static void turn(struct http_stream *s, bool told)
{
	bool more = told || !s->stuck_since_ms;
	s->gone = s->gone || atomic_load(&s->server->stopping);
	for (int i = 0; i < LOOP_ROUNDS && more && !s->gone; i++)
		if (!rest_send(s))
			more = false;
		else if (s->closing)
			s->gone = true;
		else
			more = read_and_send(s);
	if (s->gone)
		connection_end(s);
	else if (more)
		stream_loop_wake(s); /* the others' turn first */
}

static void connection_begin(struct stream_loop *l, struct http_stream *s)
{
	struct epoll_event ev = { .events = EPOLLET, .data = { .ptr = s } }; /* errors and hangups are told in any case */
	s->in_loop = true;
	s->loop_next = l->all;
	if (s->loop_next)
		s->loop_next->loop_prev = s;
	l->all = s;
	s->gone = epoll_ctl(l->epoll, EPOLL_CTL_ADD, s->fd, &ev) != 0;
}

/* ---- the thread */

static void queue_serve(struct stream_loop *l)
{
	pthread_mutex_lock(&l->lock);
	struct http_stream *s = l->queue;
	l->queue = NULL;
	l->queue_end = &l->queue;
	pthread_mutex_unlock(&l->lock);
	for (struct http_stream *next; s; s = next) {
		pthread_mutex_lock(&l->lock);
		next = s->queue_next;
		s->queued = false;
		bool dead = s->dead;
		pthread_mutex_unlock(&l->lock);
		if (dead) {
			stream_release(s);
			continue;
		}
		if (!s->in_loop)
			connection_begin(l, s);
		turn(s, false);
	}
}

/* Who takes nothing at all keeps its place no longer than an idle connection. */
static void tick(struct stream_loop *l)
{
	int64_t now = clock_mono_ms();
	if (now - l->ticked_ms < LOOP_TICK_MS)
		return;
	l->ticked_ms = now;
	for (struct http_stream *s = l->all, *next; s; s = next) {
		next = s->loop_next;
		if (s->stuck_since_ms && now - s->stuck_since_ms >= (int64_t)HTTP_IDLE_TIMEOUT_S * 1000)
			connection_end(s);
	}
}

static bool events_serve(struct stream_loop *l)
{
	struct epoll_event events[LOOP_EVENTS];
	int n = epoll_wait(l->epoll, events, LOOP_EVENTS, LOOP_TICK_MS);
	for (int i = 0; i < n; i++) {
		struct http_stream *s = events[i].data.ptr;
		if (!s)
			continue;
		s->gone = s->gone || (events[i].events & (EPOLLHUP | EPOLLERR));
		turn(s, true);
	}
	uint64_t count;
	pthread_mutex_lock(&l->lock);
	if (l->signalled && read(l->event, &count, sizeof(count)) == sizeof(count))
		l->signalled = false;
	bool go_on = !l->stop;
	pthread_mutex_unlock(&l->lock);
	return go_on;
}

static void *loop_main(void *arg)
{
	struct stream_loop *l = arg;
	l->block = mem_alloc(CHUNK_HEAD + LOOP_BLOCK + CHUNK_TAIL);
	while (events_serve(l)) {
		queue_serve(l);
		tick(l);
	}
	queue_serve(l); /* with server->stopping set each turn is the last */
	while (l->all)
		connection_end(l->all);
	queue_serve(l); /* the dead */
	free(l->block);
	return NULL;
}

/* ---- all loops of a server */

static bool loop_open(struct stream_loop *l)
{
	struct epoll_event ev = { .events = EPOLLIN, .data = { .ptr = NULL } };
	pthread_mutex_init(&l->lock, NULL);
	l->queue_end = &l->queue;
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	l->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	bool ok = l->epoll >= 0 && l->event >= 0 && epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->event, &ev) == 0;
	return ok && thread_start(&l->thread, LOOP_STACK_BYTES, loop_main, l) == 0;
}

static void loop_close(struct stream_loop *l)
{
	if (l->epoll >= 0)
		close(l->epoll);
	if (l->event >= 0)
		close(l->event);
	pthread_mutex_destroy(&l->lock);
}

static struct stream_loops *loops_open(void)
{
	struct stream_loops *all = NEW(struct stream_loops);
	while (all->n < HTTP_STREAM_LOOPS && loop_open(&all->loops[all->n]))
		all->n++;
	if (all->n < HTTP_STREAM_LOOPS)
		loop_close(&all->loops[all->n]);
	return all;
}

struct stream_loop *stream_loop_choose(struct http_server *server)
{
	pthread_mutex_lock(&server->streams_lock);
	if (!server->loops && !atomic_load(&server->stopping))
		server->loops = loops_open();
	struct stream_loops *all = server->loops;
	struct stream_loop *l = all && all->n ? &all->loops[all->next++ % all->n] : NULL;
	pthread_mutex_unlock(&server->streams_lock);
	return l;
}

void stream_loops_stop(struct stream_loops *all)
{
	uint64_t one = 1;
	for (unsigned i = 0; all && i < all->n; i++) {
		struct stream_loop *l = &all->loops[i];
		pthread_mutex_lock(&l->lock);
		l->stop = true;
		l->signalled = write(l->event, &one, sizeof(one)) == sizeof(one) || l->signalled;
		pthread_mutex_unlock(&l->lock);
		pthread_join(l->thread, NULL);
	}
}

void stream_loops_free(struct stream_loops *all)
{
	for (unsigned i = 0; all && i < all->n; i++)
		loop_close(&all->loops[i]);
	free(all);
}
