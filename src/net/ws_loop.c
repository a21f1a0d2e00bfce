/* The WebSocket thread: one epoll loop over all upgraded connections.
 *
 *   socket --> [what came with the handshake] --> frames --> text op           ops --> frames --> out --> socket
 *
 * A connection is read only while its queue is not full, so that a peer that talks and never listens costs a bounded amount; it is
 * closed with 1013 when it takes nothing for stall_ms.  The end: close frames both ways, or what is left is cut after close_ms. */
#include "net/ws_loop.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/thread.h"
#include "net/http.h"
#include "net/ws_frame.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOP_EVENTS 64
#define LOOP_STACK ((size_t)512 << 10)
#define TICK_MAX_MS 1000
#define TICK_MIN_MS 5
#define READ_BUDGET ((size_t)16 << 10)	/* of one connection before the others' turn; bounds the pongs of one turn too */
#define READ_BLOCK ((size_t)4 << 10)
#define OUT_BLOCK ((size_t)32 << 10)	/* what was sent of a longer queue is cut off its front */
#define PUMP_ROUNDS 8			/* of send and refill before the others' turn */

struct ws_loop {
	int epoll, event;
	pthread_t thread;
	struct ws *all; /* the thread's own */
	int64_t tick_ms;
	pthread_mutex_t lock; /* guards the rest */
	struct ws *incoming, *woken;
	bool stopped, signalled;
};

struct ws {
	struct ws_loop *loop;
	struct http_server *server;
	const struct ws_ops *ops;
	void *state;
	struct ws_config cfg;
	int fd;
	struct MHD_UpgradeResponseHandle *handle;
	struct strbuf extra; /* came with the handshake */
	size_t extra_taken;
	struct ws_parser parser;
	struct strbuf out; /* frames */
	size_t out_sent, read_budget;
	uint32_t interest;
	bool wants_room, gone, shut;
	bool close_queued, close_received, breached; /* after each of the last two nothing is read but thrown away */
	int64_t heard_at, pinged_at, next_ping, moved_at, close_at; /* monotonic ms; 0: not set */
	struct ws *prev, *next;		/* in loop->all, or next in loop->incoming */
	bool is_woken;			/* loop->lock guards it and the next two */
	struct ws *woken_prev, *woken_next;
};

static int64_t or_default(int64_t v, int64_t def)
{
	return v ? v : def;
}

struct ws *ws_new(struct ws_loop *l, struct http_server *s, const struct ws_config *cfg, const struct ws_ops *ops, void *state)
{
	struct ws *w = NEW(struct ws);
	w->loop = l;
	w->server = s;
	w->ops = ops;
	w->state = state;
	w->fd = -1;
	w->cfg = (struct ws_config){ .protocol = cfg->protocol, .message_max = cfg->message_max ? cfg->message_max : WS_MESSAGE_MAX,
		.queue_max = cfg->queue_max ? cfg->queue_max : WS_QUEUE_MAX, .ping_ms = or_default(cfg->ping_ms, WS_PING_MS),
		.pong_ms = or_default(cfg->pong_ms, WS_PONG_MS), .stall_ms = or_default(cfg->stall_ms, WS_STALL_MS),
		.close_ms = or_default(cfg->close_ms, WS_CLOSE_MS) };
	return w;
}

static void woken_remove(struct ws *w)
{
	struct ws_loop *l = w->loop;
	if (!w->is_woken)
		return;
	if (w->woken_prev)
		w->woken_prev->woken_next = w->woken_next;
	else
		l->woken = w->woken_next;
	if (w->woken_next)
		w->woken_next->woken_prev = w->woken_prev;
	w->woken_prev = w->woken_next = NULL;
	w->is_woken = false;
}

void ws_abandon(struct ws *w)
{
	w->ops->closed(w->state); /* after it nobody wakes us */
	pthread_mutex_lock(&w->loop->lock);
	woken_remove(w);
	pthread_mutex_unlock(&w->loop->lock);
	ws_parser_release(&w->parser);
	strbuf_release(&w->extra);
	strbuf_release(&w->out);
	free(w);
}

/* With the lock held. */
static void loop_signal(struct ws_loop *l)
{
	uint64_t one = 1;
	if (!l->signalled && write(l->event, &one, sizeof(one)) == sizeof(one))
		l->signalled = true;
}

void ws_attach(struct ws *w, int fd, struct MHD_UpgradeResponseHandle *handle, const char *extra, size_t n)
{
	struct ws_loop *l = w->loop;
	w->fd = fd;
	w->handle = handle;
	strbuf_add(&w->extra, extra, n);
	pthread_mutex_lock(&l->lock);
	bool late = l->stopped;
	if (!late) {
		w->next = l->incoming;
		l->incoming = w;
		loop_signal(l);
	}
	pthread_mutex_unlock(&l->lock);
	if (late) {
		ws_abandon(w);
		MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
	}
}

void ws_wake(struct ws *w)
{
	struct ws_loop *l = w->loop;
	pthread_mutex_lock(&l->lock);
	if (!w->is_woken) {
		w->is_woken = true;
		w->woken_prev = NULL;
		w->woken_next = l->woken;
		if (l->woken)
			l->woken->woken_prev = w;
		l->woken = w;
		loop_signal(l);
	}
	pthread_mutex_unlock(&l->lock);
}

/* --- frames */

static ssize_t take_bytes(struct ws *w, uint8_t *buf, size_t n)
{
	size_t left = w->extra.len - w->extra_taken;
	n = n < w->read_budget ? n : w->read_budget;
	if (!left)
		return recv(w->fd, buf, n, MSG_DONTWAIT);
	n = n < left ? n : left;
	memcpy(buf, w->extra.data + w->extra_taken, n);
	w->extra_taken += n;
	if (w->extra_taken == w->extra.len)
		strbuf_release(&w->extra);
	if (!w->extra.len)
		w->extra_taken = 0;
	return (ssize_t)n;
}

/* Bytes, or 0: no more now. */
static size_t read_some(struct ws *w, uint8_t *buf, size_t len)
{
	if (!w->read_budget)
		return 0;
	ssize_t n = take_bytes(w, buf, len);
	if (n > 0) {
		w->heard_at = clock_mono_ms();
		w->read_budget -= (size_t)n;
		atomic_fetch_add_explicit(&w->server->bytes_in, (uint64_t)n, memory_order_relaxed);
		return (size_t)n;
	}
	w->gone = w->gone || n == 0 || (errno != EAGAIN && errno != EINTR);
	return 0;
}

static bool reads(const struct ws *w)
{
	return !w->close_received && !w->breached;
}

static void out_flush(struct ws *w)
{
	while (w->out_sent < w->out.len && !w->gone) {
		ssize_t n = send(w->fd, w->out.data + w->out_sent, w->out.len - w->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN) {
			if (w->out_sent >= OUT_BLOCK) {
				strbuf_cut(&w->out, w->out_sent);
				w->out_sent = 0;
			}
			return;
		}
		if (n < 0 && errno == EINTR)
			continue;
		w->gone = n < 0;
		if (n > 0) {
			w->out_sent += (size_t)n;
			w->moved_at = clock_mono_ms();
			atomic_fetch_add_explicit(&w->server->bytes_out, (uint64_t)n, memory_order_relaxed);
		}
	}
	strbuf_release(&w->out);
	w->out_sent = 0;
}

static void queue(struct ws *w, enum ws_opcode what, const void *data, size_t n)
{
	if (w->close_queued)
		return;
	if (!w->out.len)
		w->moved_at = clock_mono_ms();
	ws_frame_add(&w->out, what, data, n);
	w->close_queued = what == WS_FRAME_CLOSE;
}

static void queue_close(struct ws *w, int code, const char *reason)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(WS_CONTROL_MAX);
	strbuf_addc(&text, (char)(code >> 8));
	strbuf_addc(&text, (char)(code & 0xff));
	strbuf_adds(&text, reason);
	queue(w, WS_FRAME_CLOSE, text.data, text.len);
	if (!w->close_at)
		w->close_at = clock_mono_ms() + w->cfg.close_ms;
}

static void on_message(void *arg, enum ws_opcode what, const char *data, size_t n)
{
	struct ws *w = arg;
	if (what == WS_FRAME_BINARY) {
		ws_close(w, WS_UNSUPPORTED_DATA, "text only");
	} else if (what == WS_FRAME_TEXT && !w->close_at) {
		w->ops->text(w->state, data, n);
	} else if (what == WS_FRAME_PING) {
		queue(w, WS_FRAME_PONG, data, n);
	} else if (what == WS_FRAME_CLOSE) {
		w->close_received = true;
		queue(w, WS_FRAME_CLOSE, data, n < 2 ? 0 : 2); /* its code comes back */
		if (!w->close_at)
			w->close_at = clock_mono_ms() + w->cfg.close_ms;
	}
}

bool ws_has_room(struct ws *w)
{
	bool room = !w->gone && w->out.len - w->out_sent < w->cfg.queue_max;
	w->wants_room = w->wants_room || !room;
	return room;
}

void ws_send(struct ws *w, const char *text, size_t len)
{
	queue(w, WS_FRAME_TEXT, text, len);
}

void ws_close(struct ws *w, enum ws_code code, const char *reason)
{
	if (!w->close_at)
		queue_close(w, (int)code, reason);
}

/* --- one connection's turn */

static void interest_set(struct ws *w, uint32_t want)
{
	struct epoll_event ev = { .events = want, .data = { .ptr = w } };
	if (want != w->interest && !epoll_ctl(w->loop->epoll, EPOLL_CTL_MOD, w->fd, &ev))
		w->interest = want;
}

static bool all_sent(struct ws *w)
{
	return !w->out.len;
}

/* Our side is done and nothing is read any more: the peer is told, and what it still says is thrown away until it has gone too, since a
 * socket closed with unread bytes would take back what we said last. */
static void discard(struct ws *w)
{
	char buf[4096];
	ssize_t n;
	if (!w->shut && all_sent(w)) {
		w->shut = true;
		shutdown(w->fd, SHUT_WR);
	}
	size_t budget = READ_BUDGET;
	do {
		n = recv(w->fd, buf, sizeof(buf), MSG_DONTWAIT);
		budget -= sizeof(buf);
	} while (n > 0 && budget);
	w->gone = w->gone || n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static void receive(struct ws *w)
{
	uint8_t buf[READ_BLOCK];
	size_t n;
	w->read_budget = READ_BUDGET;
	if (!reads(w)) {
		discard(w);
		return;
	}
	if (!ws_has_room(w))
		return;
	while (reads(w) && (n = read_some(w, buf, sizeof(buf)))) {
		int code = ws_parse(&w->parser, buf, n, on_message, w);
		w->breached = code != 0;
		if (code)
			queue_close(w, code, "");
	}
}

static void settle(struct ws *w)
{
	bool done = all_sent(w) && w->close_queued && w->close_received;
	w->gone = w->gone || done;
	if (w->gone)
		return;
	if (!reads(w))
		discard(w);
	uint32_t in = !reads(w) || ws_has_room(w) ? EPOLLIN : 0;
	interest_set(w, in | (all_sent(w) ? 0 : (uint32_t)EPOLLOUT));
	if (w->wants_room && all_sent(w))
		ws_wake(w); /* the others' turn first */
}

static void pump(struct ws *w, bool told)
{
	for (int i = 0; i < PUMP_ROUNDS && !w->gone; i++) {
		if (told && !w->close_at) {
			w->wants_room = false;
			w->ops->ready(w->state);
		}
		out_flush(w);
		told = w->wants_room && ws_has_room(w);
		if (!told)
			break;
	}
	settle(w);
}

static void connection_end(struct ws *w)
{
	struct ws_loop *l = w->loop;
	struct MHD_UpgradeResponseHandle *handle = w->handle;
	epoll_ctl(l->epoll, EPOLL_CTL_DEL, w->fd, NULL);
	if (w->prev)
		w->prev->next = w->next;
	else
		l->all = w->next;
	if (w->next)
		w->next->prev = w->prev;
	atomic_fetch_sub_explicit(&w->server->streams_now, 1, memory_order_relaxed);
	ws_abandon(w);
	MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

static void turn(struct ws *w, bool readable, bool told)
{
	if (readable)
		receive(w);
	pump(w, told);
	if (w->gone)
		connection_end(w);
}

static void tick_adapt(struct ws_loop *l, const struct ws_config *cfg)
{
	const int64_t spans[] = { cfg->ping_ms, cfg->pong_ms, cfg->stall_ms, cfg->close_ms };
	for (size_t i = 0; i < ARRAY_SIZE(spans); i++)
		if (spans[i] / 4 < l->tick_ms)
			l->tick_ms = spans[i] / 4 > TICK_MIN_MS ? spans[i] / 4 : TICK_MIN_MS;
}

static void connection_begin(struct ws_loop *l, struct ws *w)
{
	struct epoll_event ev = { .events = EPOLLIN, .data = { .ptr = w } };
	w->interest = EPOLLIN;
	w->heard_at = clock_mono_ms();
	w->next_ping = w->heard_at + w->cfg.ping_ms;
	w->parser.message_max = w->cfg.message_max;
	w->parser.message.max = w->cfg.message_max;
	w->prev = NULL;
	w->next = l->all;
	if (w->next)
		w->next->prev = w;
	l->all = w;
	atomic_fetch_add_explicit(&w->server->streams_now, 1, memory_order_relaxed);
	tick_adapt(l, &w->cfg);
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, w->fd, &ev)) {
		connection_end(w);
		return;
	}
	w->ops->open(w->state, w);
	turn(w, true, false);
}

/* --- deadlines */

static void look_at_clock(struct ws *w, int64_t now)
{
	if (w->close_at) {
		w->gone = now >= w->close_at;
		return;
	}
	if (w->out.len && now - w->moved_at >= w->cfg.stall_ms) {
		ws_close(w, WS_TRY_LATER, "lagged");
	} else if (w->pinged_at && w->heard_at < w->pinged_at && !w->out.len && now - w->pinged_at >= w->cfg.pong_ms) {
		w->gone = true;
	} else if (now >= w->next_ping) {
		queue(w, WS_FRAME_PING, NULL, 0);
		if (w->heard_at >= w->pinged_at)
			w->pinged_at = now; /* the first that was not answered counts */
		w->next_ping = now + w->cfg.ping_ms;
	}
}

static void look_at_clocks(struct ws_loop *l)
{
	int64_t now = clock_mono_ms();
	for (struct ws *w = l->all, *next; w; w = next) {
		next = w->next;
		look_at_clock(w, now);
		if (w->gone)
			connection_end(w);
		else if (!all_sent(w))
			turn(w, false, false);
	}
}

/* --- the thread */

static struct ws *take_incoming(struct ws_loop *l)
{
	pthread_mutex_lock(&l->lock);
	struct ws *w = l->incoming;
	if (w)
		l->incoming = w->next;
	pthread_mutex_unlock(&l->lock);
	return w;
}

static struct ws *take_woken(struct ws_loop *l)
{
	pthread_mutex_lock(&l->lock);
	struct ws *w = l->woken;
	if (w)
		woken_remove(w);
	pthread_mutex_unlock(&l->lock);
	return w;
}

static bool hear_signal(struct ws_loop *l)
{
	uint64_t n;
	pthread_mutex_lock(&l->lock);
	if (l->signalled && read(l->event, &n, sizeof(n)) == sizeof(n))
		l->signalled = false;
	bool stopped = l->stopped;
	pthread_mutex_unlock(&l->lock);
	return stopped;
}

/* Those that were woken before this turn; who is woken again by its own turn comes in the next. */
static void serve_woken(struct ws_loop *l)
{
	size_t n = 0;
	pthread_mutex_lock(&l->lock);
	for (struct ws *w = l->woken; w; w = w->woken_next)
		n++;
	pthread_mutex_unlock(&l->lock);
	for (struct ws *w; n && (w = take_woken(l)); n--)
		turn(w, false, true);
}

static void goodbye(struct ws_loop *l)
{
	for (struct ws *w; (w = take_incoming(l));) {
		struct MHD_UpgradeResponseHandle *handle = w->handle;
		ws_abandon(w);
		MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
	}
	while (l->all) {
		struct ws *w = l->all;
		ws_close(w, WS_GOING_AWAY, "the server stops");
		out_flush(w);
		connection_end(w);
	}
}

static void *loop_main(void *arg)
{
	struct ws_loop *l = arg;
	struct epoll_event events[LOOP_EVENTS];
	int64_t next_look = 0;
	while (!hear_signal(l)) {
		for (struct ws *w; (w = take_incoming(l));)
			connection_begin(l, w);
		serve_woken(l);
		if (l->all && clock_mono_ms() >= next_look) {
			look_at_clocks(l);
			next_look = clock_mono_ms() + l->tick_ms;
		}
		int n = epoll_wait(l->epoll, events, LOOP_EVENTS, l->all ? (int)l->tick_ms : -1);
		for (int i = 0; i < n; i++)
			if (events[i].data.ptr)
				turn(events[i].data.ptr, events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR), false);
	}
	goodbye(l);
	return NULL;
}

enum err_code ws_loop_start(struct ws_loop **ret, struct error *e)
{
	struct ws_loop *l = NEW(struct ws_loop);
	struct epoll_event ev = { .events = EPOLLIN, .data = { .ptr = NULL } };
	l->tick_ms = TICK_MAX_MS;
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	l->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&l->lock, NULL);
	int failed = l->epoll < 0 || l->event < 0 || epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->event, &ev) ? errno : 0;
	if (!failed)
		failed = thread_start(&l->thread, LOOP_STACK, loop_main, l);
	if (failed) {
		ws_loop_free(l);
		return error_set(e, ERR_IO, "start the WebSocket thread: %s", strerror(failed));
	}
	*ret = l;
	return ERR_OK;
}

void ws_loop_stop(struct ws_loop *l)
{
	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	l->stopped = true;
	loop_signal(l);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
}

void ws_loop_free(struct ws_loop *l)
{
	if (!l)
		return;
	if (l->epoll >= 0)
		close(l->epoll);
	if (l->event >= 0)
		close(l->event);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
