/* Long bodies.  MHD reads a body through the connection's own memory, which is small (a watcher shall cost little): some 5 KiB a turn, on a
 * thread that others wait for while the disk is written.  So the rest of a long body is hauled by a thread of its own, in large pieces:
 *
 *   head, first piece (MHD) --suspend--> haul: recv .. take .. handler .. answer --shutdown, resume--> MHD sees the end and closes
 *
 * MHD still believes that the body is to come, so the answer is written here, and the connection ends with it (`Connection: close`). */
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"
#include "net/http.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HAUL_MIN ((uint64_t)1 << 20)	/* bytes still to come that are worth a thread */
#define HAULS_MAX 32			/* at once; further ones are taken by MHD */
#define HAUL_BUFFER ((size_t)256 << 10)
#define HAUL_STACK_BYTES ((size_t)512 << 10) /* as MHD's, since the same handlers run here */
#define HAUL_ANSWER_MS 10000		/* a client may take so long to read its answer */
#define SPIN_US 100			/* a quick client's next bytes come sooner than a thread that sleeps is woken */
#define SPIN_AGAIN 16			/* waits that are slept through after one that was spun in vain */

struct haul {
	struct haul *prev, *next; /* with the lock */
	struct hauls *all;
	struct http_request *request;
	int fd; /* with the lock: -1 when the connection is not ours any more */
	uint64_t left;
	char *buf;
	size_t have;
	int to_sleep; /* waits, before it is worth spinning again */
};

struct hauls {
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t fewer;
	struct haul *list;
	int n;
	bool stop;
};

struct hauls *hauls_new(void)
{
	struct hauls *all = NEW(struct hauls);
	pthread_mutex_init(&all->lock, NULL);
	pthread_cond_init(&all->fewer, NULL);
	return all;
}

void hauls_stop(struct hauls *all)
{
	if (!all)
		return;
	pthread_mutex_lock(&all->lock);
	all->stop = true;
	for (struct haul *h = all->list; h; h = h->next)
		if (h->fd >= 0)
			shutdown(h->fd, SHUT_RDWR);
	while (all->n)
		pthread_cond_wait(&all->fewer, &all->lock);
	pthread_mutex_unlock(&all->lock);
}

void hauls_free(struct hauls *all)
{
	if (!all)
		return;
	CHECK(!all->n);
	pthread_mutex_destroy(&all->lock);
	pthread_cond_destroy(&all->fewer);
	free(all);
}

static bool list_add(struct hauls *all, struct haul *h)
{
	pthread_mutex_lock(&all->lock);
	bool ok = !all->stop && all->n < HAULS_MAX;
	if (ok) {
		all->n++;
		h->next = all->list;
		if (h->next)
			h->next->prev = h;
		all->list = h;
	}
	pthread_mutex_unlock(&all->lock);
	return ok;
}

static void list_remove(struct hauls *all, struct haul *h)
{
	pthread_mutex_lock(&all->lock);
	if (h->prev)
		h->prev->next = h->next;
	else
		all->list = h->next;
	if (h->next)
		h->next->prev = h->prev;
	all->n--;
	pthread_cond_broadcast(&all->fewer);
	pthread_mutex_unlock(&all->lock);
}

/* ---- the body */

/* A client on this machine fills a socket faster than this thread can be put to sleep and woken, and sleeps itself whenever it is full: both would
 * hand it to and fro and wait for each other half of the time. */
static bool spin(struct haul *h)
{
	int64_t until = clock_mono_us() + SPIN_US;
	char c;
	if (h->to_sleep > 0) {
		h->to_sleep--;
		return false;
	}
	while (clock_mono_us() < until)
		if (recv(h->fd, &c, 1, MSG_DONTWAIT | MSG_PEEK) >= 0)
			return true;
	h->to_sleep = SPIN_AGAIN;
	return false;
}

/* False: nothing came within the time that a client may be silent. */
static bool wait_more(struct haul *h)
{
	struct pollfd more = { .fd = h->fd, .events = POLLIN };
	return spin(h) || poll(&more, 1, HTTP_IDLE_TIMEOUT_S * 1000) != 0;
}

/* The buffer full, or the rest of the body.  False: the client has gone (what came before is in the buffer). */
static bool fill(struct haul *h)
{
	size_t want = h->left < HAUL_BUFFER ? (size_t)h->left : HAUL_BUFFER;
	for (h->have = 0; h->have < want;) {
		ssize_t n = recv(h->fd, h->buf + h->have, want - h->have, MSG_DONTWAIT);
		if (n > 0) {
			h->have += (size_t)n;
			pace_progress(h->request->client, (size_t)n);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR) || (errno == EAGAIN && !wait_more(h))) {
			return false;
		}
	}
	return true;
}

/* True: all of it was taken, or refused and read off; there is somebody to answer. */
static bool body_haul(struct haul *h)
{
	h->buf = mem_alloc(HAUL_BUFFER);
	bool here = true, within = true;
	while (here && within && h->left) {
		here = fill(h);
		h->left -= h->have;
		within = h->have == 0 || request_take(h->request, h->buf, h->have);
	}
	free(TAKE_PTR(h->buf));
	return here && within;
}

/* ---- the answer */

static bool send_all(int fd, const char *data, size_t n)
{
	int64_t until = clock_mono_ms() + HAUL_ANSWER_MS;
	while (n) {
		ssize_t done = send(fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		struct pollfd room = { .fd = fd, .events = POLLOUT };
		int64_t left = until - clock_mono_ms();
		if (done > 0) {
			data += done;
			n -= (size_t)done;
		} else if ((errno != EAGAIN && errno != EINTR) || left <= 0 || (errno == EAGAIN && poll(&room, 1, (int)left) == 0)) {
			return false;
		}
	}
	return true;
}

void haul_answer(struct http_request *r, int status, const char *content_type, const char *data, size_t len)
{
	AUTO_STRBUF struct strbuf head = STRBUF_INIT;
	reply_head_write(r, status, content_type, &head);
	strbuf_addf(&head, "Content-Length: %zu\r\n\r\n", len);
	if (send_all(r->haul->fd, head.data, head.len))
		(void)!send_all(r->haul->fd, data, len);
}

/* ---- the thread */

/* The socket's end is what makes MHD close it; after the resume neither request nor socket are ours. */
static void give_back(struct haul *h)
{
	struct hauls *all = h->all;
	pthread_mutex_lock(&all->lock);
	shutdown(h->fd, SHUT_RDWR);
	h->fd = -1;
	pthread_mutex_unlock(&all->lock);
	MHD_resume_connection(h->request->connection);
	list_remove(all, h);
	free(h);
}

static void *haul_main(void *arg)
{
	struct haul *h = arg;
	if (body_haul(h))
		request_whole(h->request);
	give_back(h);
	return NULL;
}

/* With a thread for each connection nobody waits for it; of a chunked body only MHD knows where it ends. */
static bool is_worth_it(const struct http_request *r)
{
	return !r->server->cfg.thread_per_connection && r->declared != UINT64_MAX && r->declared - r->body_seen >= HAUL_MIN;
}

void haul_begin(struct http_request *r)
{
	const union MHD_ConnectionInfo *info = is_worth_it(r) ? MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD) : NULL;
	if (!info)
		return;
	struct haul *h = NEW(struct haul);
	*h = (struct haul){ .all = r->server->hauls, .request = r, .fd = info->connect_fd, .left = r->declared - r->body_seen };
	if (!list_add(h->all, h)) {
		free(h);
		return;
	}
	r->haul = h;
	MHD_suspend_connection(r->connection); /* first: the thread may be done with it at once */
	pthread_t thread;
	if (!thread_start(&thread, HAUL_STACK_BYTES, haul_main, h)) {
		pthread_detach(thread);
		return;
	}
	MHD_resume_connection(r->connection);
	r->haul = NULL;
	list_remove(h->all, h);
	free(h);
}
