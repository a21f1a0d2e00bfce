/* WebSocket connections: the handshake, and the one thread that serves them all. */
#include "net/ws.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/http.h"
#include "net/ws_loop.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define WS_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455, 1.3 */
#define WS_KEY_CHARS 24				       /* 16 bytes in base64 */
#define WS_SHA1_BYTES 20
#define WS_VERSION "13"

/* Whether a comma-separated header value names the token. */
static bool list_has(const char *list, const char *token)
{
	size_t want = strlen(token);
	while (list && *list) {
		list += strspn(list, " \t,");
		size_t n = strcspn(list, ","), len = n;
		while (len && (list[len - 1] == ' ' || list[len - 1] == '\t'))
			len--;
		if (len == want && strncasecmp(list, token, len) == 0)
			return true;
		list += n;
	}
	return false;
}

static bool is_key(const char *key)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	return key && strlen(key) == WS_KEY_CHARS && strspn(key, alphabet) == WS_KEY_CHARS - 2 && str_ends(key, "==");
}

static int refuse(struct error *e, int status, const char *text, const char *hint)
{
	error_set(e, ERR_INVALID, "%s", text);
	error_hint(e, "%s", hint);
	return status;
}

/* 0 when it is a handshake that we take, else the status of the refusal. */
static int handshake_check(struct http_request *r, const struct ws_config *cfg, struct error *e)
{
	if (r->server->cfg.thread_per_connection || !str_eq(http_method(r), "GET"))
		return refuse(e, 400, "a WebSocket begins with GET", "use GET");
	if (!list_has(http_header(r, "Upgrade"), "websocket") || !list_has(http_header(r, "Connection"), "upgrade")) {
		http_reply_header(r, "Upgrade", "websocket");
		return refuse(e, 426, "this is a WebSocket; the request does not ask for one", "send Upgrade: websocket and Connection: Upgrade");
	}
	if (!str_eq(http_header(r, "Sec-WebSocket-Version"), WS_VERSION)) {
		http_reply_header(r, "Sec-WebSocket-Version", WS_VERSION);
		return refuse(e, 426, "the WebSocket version is not " WS_VERSION, "send Sec-WebSocket-Version: " WS_VERSION);
	}
	if (!is_key(http_header(r, "Sec-WebSocket-Key")))
		return refuse(e, 400, "Sec-WebSocket-Key is not 16 bytes in base64", "let a WebSocket library make the handshake");
	if (!list_has(http_header(r, "Sec-WebSocket-Protocol"), cfg->protocol)) {
		error_set(e, ERR_INVALID, "the subprotocol must be %s", cfg->protocol);
		error_hint(e, "send Sec-WebSocket-Protocol: %s", cfg->protocol);
		return 400;
	}
	return 0;
}

static void add_accept(struct MHD_Response *response, const char *key)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	AUTO_FREE char *text = mem_printf("%s" WS_GUID, key);
	AUTO_STRBUF struct strbuf accept = STRBUF_INIT;
	CHECK(EVP_Digest(text, strlen(text), digest, &n, EVP_sha1(), NULL) == 1 && n == WS_SHA1_BYTES);
	str_add_base64(&accept, digest, n);
	MHD_add_response_header(response, "Sec-WebSocket-Accept", strbuf_str(&accept));
}

/* The loop's thread is started by the first connection that needs it. */
static struct ws_loop *loop_of(struct http_server *s, struct error *e)
{
	pthread_mutex_lock(&s->streams_lock);
	bool stopping = atomic_load(&s->stopping);
	if (stopping)
		error_set(e, ERR_BUSY, "the server is stopping");
	else if (!s->ws && ws_loop_start(&s->ws, e))
		log_warn("%s", e->text);
	struct ws_loop *l = stopping ? NULL : s->ws;
	pthread_mutex_unlock(&s->streams_lock);
	return l;
}

static void on_upgrade(void *arg, struct MHD_Connection *c, void *request, const char *extra, size_t n, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
	(void)c;
	struct ws *w = arg;
	struct http_request *r = request;
	int one = 1;
	r->ws = NULL;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* refused by a unix socket, which needs none */
	ws_attach(w, fd, handle, extra, n);
}

static bool upgrade_queue(struct http_request *r, struct ws *w, const struct ws_config *cfg)
{
	struct MHD_Response *response = MHD_create_response_for_upgrade(on_upgrade, w);
	if (!response)
		return false;
	MHD_add_response_header(response, "Upgrade", "websocket");
	MHD_add_response_header(response, "Sec-WebSocket-Protocol", cfg->protocol);
	add_accept(response, http_header(r, "Sec-WebSocket-Key"));
	bool queued = MHD_queue_response(r->connection, MHD_HTTP_SWITCHING_PROTOCOLS, response) == MHD_YES;
	MHD_destroy_response(response);
	return queued;
}

void http_upgrade_ws(struct http_request *r, const struct ws_config *cfg, const struct ws_ops *ops, void *state_taken)
{
	struct error e = ERROR_INIT;
	int status = handshake_check(r, cfg, &e);
	struct ws_loop *loop = status ? NULL : loop_of(r->server, &e);
	if (!loop) {
		ops->closed(state_taken);
		http_reply_error_status(r, status ? status : err_http_status(e.code), &e);
		return;
	}
	struct ws *w = ws_new(loop, r->server, cfg, ops, state_taken);
	r->ws = w; /* until MHD has sent the 101: a client that goes away before costs nothing */
	if (upgrade_queue(r, w, cfg)) {
		reply_begin(r);
		return;
	}
	r->ws = NULL;
	ws_abandon(w);
	error_set(&e, ERR_INVALID, "a WebSocket needs HTTP/1.1 and a connection of its own");
	http_reply_error_status(r, 400, &e);
}
