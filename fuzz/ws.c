/* libFuzzer: what a WebSocket peer may send.  The first byte says how much of the rest came with the handshake; the whole road from the
 * socket through the frames to the message is the real one, only MHD's part of the end is played here. */
#include "base/cleanup.h"
#include "base/js.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/ws_loop.h"
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_MAX ((size_t)60000) /* fits a socket's buffer, so that nobody waits for a reader */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct peer {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool closed;
	struct ws *ws;
};

/* MHD's: the handle is the descriptor itself. */
enum MHD_Result MHD_upgrade_action(struct MHD_UpgradeResponseHandle *handle, enum MHD_UpgradeAction action, ...)
{
	(void)action;
	close((int)(intptr_t)handle);
	return MHD_YES;
}

static void peer_open(void *state, struct ws *w)
{
	((struct peer *)state)->ws = w;
}

static void peer_text(void *state, const char *text, size_t len)
{
	struct peer *p = state;
	AUTO_JS struct js *m = js_parse(text, len, NULL);
	if (m)
		ws_send(p->ws, text, len);
	if (len > 3 && memcmp(text, "bye", 3) == 0)
		ws_close(p->ws, WS_NORMAL, "bye");
}

static void peer_ready(void *state)
{
	(void)state;
}

static void peer_closed(void *state)
{
	struct peer *p = state;
	pthread_mutex_lock(&p->lock);
	p->closed = true;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static void play(struct ws_loop *loop, struct http_server *server, const uint8_t *data, size_t n, size_t early)
{
	static const struct ws_ops ops = { peer_open, peer_text, peer_ready, peer_closed };
	static const struct ws_config config = { .protocol = "fuzz", .message_max = 4096, .queue_max = 8192, .close_ms = 20, .stall_ms = 20 };
	struct peer p = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
	int fds[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return;
	(void)!write(fds[1], data + early, n - early);
	shutdown(fds[1], SHUT_WR);
	ws_attach(ws_new(loop, server, &config, &ops, &p), fds[0], (struct MHD_UpgradeResponseHandle *)(intptr_t)fds[0], (const char *)data, early);
	pthread_mutex_lock(&p.lock);
	while (!p.closed)
		pthread_cond_wait(&p.changed, &p.lock);
	pthread_mutex_unlock(&p.lock);
	close(fds[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct ws_loop *loop;
	static struct http_server server;
	if ((!loop && ws_loop_start(&loop, NULL)) || n < 2 || n > INPUT_MAX)
		return 0;
	play(loop, &server, data + 1, n - 1, (size_t)data[0] * (n - 1) / 255);
	return 0;
}
