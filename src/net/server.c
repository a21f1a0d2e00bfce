/* The daemons: one MHD daemon per listener, all with the same routes. */
#include "base/check.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/ws_loop.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define THREAD_STACK_BYTES ((size_t)512 << 10) /* of which only what is used costs memory */
#define OPTIONS_MAX 16

/* Escapes are ours to decode: MHD takes bad ones for text. */
static size_t unescape_nothing(void *cls, struct MHD_Connection *c, char *s)
{
	(void)cls, (void)c;
	return strlen(s);
}

/* MHD_quiesce_daemon of 0.9.75 takes the listening socket out of a worker's epoll set while the worker does the same, and aborts the
 * process when it loses that race; so a quiet server accepts and closes at once. */
static enum MHD_Result on_accept(void *arg, const struct sockaddr *address, socklen_t n)
{
	(void)address, (void)n;
	struct listener *l = arg;
	return atomic_load_explicit(&l->server->quiet, memory_order_relaxed) ? MHD_NO : MHD_YES;
}

static void connection_begins(struct listener *l, struct MHD_Connection *c, void **state)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	atomic_fetch_add_explicit(&l->server->connections_now, 1, memory_order_relaxed);
	if (!info)
		return;
	struct pace_client *client = *state = pace_join(l->server->pace, info->connect_fd);
	if (l->is_unix && !share_take(l->server->share, info->connect_fd, pace_holder(client)))
		shutdown(info->connect_fd, SHUT_RDWR);
}

static void connection_ends(struct listener *l, struct pace_client *client)
{
	atomic_fetch_sub_explicit(&l->server->connections_now, 1, memory_order_relaxed);
	if (!client)
		return;
	share_give_back(l->server->share, *pace_holder(client));
	pace_leave(l->server->pace, client);
}

static void on_connection(void *arg, struct MHD_Connection *c, void **state, enum MHD_ConnectionNotificationCode what)
{
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		connection_begins(arg, c, state);
	else
		connection_ends(arg, *state);
}

__attribute__((format(printf, 2, 0))) static void on_log(void *arg, const char *fmt, va_list ap)
{
	(void)arg;
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT((size_t)4 << 10);
	strbuf_vaddf(&text, fmt, ap);
	while (text.len && text.data[text.len - 1] == '\n')
		text.data[--text.len] = '\0';
	log_debug("http %s", strbuf_str(&text));
}

static unsigned flags_of(const struct http_config *cfg)
{
	unsigned flags = MHD_USE_ERROR_LOG | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;
	if (cfg->thread_per_connection)
		return flags | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL_INTERNAL_THREAD;
	return flags | MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_UPGRADE;
}

static enum err_code listener_start(struct http_server *s, struct listener *l, int fd, bool is_unix, struct error *e)
{
	l->server = s;
	l->is_unix = is_unix;
	l->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (l->fd < 0)
		return error_errno(e, "start the HTTP server: copy its socket");
	bool pool = !s->cfg.thread_per_connection && s->cfg.threads > 1;
	struct MHD_OptionItem options[] = {
		{ MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)request_on_completed, l },
		{ MHD_OPTION_NOTIFY_CONNECTION, (intptr_t)on_connection, l },
		{ MHD_OPTION_UNESCAPE_CALLBACK, (intptr_t)unescape_nothing, l },
		{ MHD_OPTION_LISTEN_SOCKET, l->fd, NULL },
		{ MHD_OPTION_CONNECTION_LIMIT, HTTP_CONNECTIONS_MAX, NULL },
		{ MHD_OPTION_CONNECTION_TIMEOUT, HTTP_IDLE_TIMEOUT_S, NULL },
		{ MHD_OPTION_CONNECTION_MEMORY_LIMIT, (intptr_t)HTTP_HEADER_MEMORY, NULL },
		{ MHD_OPTION_THREAD_STACK_SIZE, (intptr_t)THREAD_STACK_BYTES, NULL },
		{ MHD_OPTION_STRICT_FOR_CLIENT, 1, NULL },
		{ pool ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, (intptr_t)s->cfg.threads, NULL },
		{ MHD_OPTION_END, 0, NULL },
	};
	l->daemon = MHD_start_daemon(flags_of(&s->cfg), 0, on_accept, l, request_on_access, l, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
		MHD_OPTION_ARRAY, options, MHD_OPTION_END);
	if (l->daemon)
		return ERR_OK;
	close(l->fd);
	error_set(e, ERR_IO, "start the HTTP server: its threads or descriptors were refused");
	error_hint(e, "look at `ulimit -n` and `ulimit -u`");
	return ERR_IO;
}

enum err_code http_server_start(const struct http_config *cfg, struct http_server **ret, struct error *e)
{
	CHECK(cfg->threads >= 1 && cfg->threads <= HTTP_THREADS_MAX);
	struct http_server *s = NEW(struct http_server);
	s->cfg = *cfg;
	s->server_name = mem_strdup(cfg->server_name);
	pthread_mutex_init(&s->streams_lock, NULL);
	pthread_mutex_init(&s->laters_lock, NULL);
	pthread_cond_init(&s->laters_changed, NULL);
	routes_compile(s);
	int64_t limit_ms = cfg->head_timeout_ms ? cfg->head_timeout_ms : (int64_t)HTTP_HEAD_TIMEOUT_S * 1000;
	s->pace = pace_start(HTTP_CONNECTIONS_MAX, limit_ms, (int64_t)HTTP_CROWDED_TIMEOUT_S * 1000);
	s->share = share_new(cfg->sandbox_connections_max);
	s->hauls = hauls_new();
	enum err_code rc = s->pace ? ERR_OK : error_set(e, ERR_IO, "start the HTTP server: its threads were refused");
	if (!rc && cfg->unix_fd >= 0)
		rc = listener_start(s, &s->listeners[0], cfg->unix_fd, true, e);
	if (!rc && cfg->tcp_fd >= 0)
		rc = listener_start(s, &s->listeners[1], cfg->tcp_fd, false, e);
	if (rc)
		http_server_stop(s);
	else
		*ret = s;
	return rc;
}

void http_server_quiesce(struct http_server *s)
{
	atomic_store(&s->quiet, true);
}

void http_server_stop(struct http_server *s)
{
	if (!s)
		return;
	http_server_quiesce(s);
	atomic_store(&s->stopping, true);
	laters_await(s);
	streams_cut(s); /* MHD stops only when nothing is suspended any more, and has its upgraded sockets back */
	pthread_mutex_lock(&s->streams_lock);
	struct ws_loop *ws = s->ws; /* none is made any more */
	struct stream_loops *loops = s->loops;
	pthread_mutex_unlock(&s->streams_lock);
	ws_loop_stop(ws);
	stream_loops_stop(loops);
	hauls_stop(s->hauls);
	pace_stop(s->pace);
	for (int i = 0; i < 2; i++)
		if (s->listeners[i].daemon)
			MHD_stop_daemon(s->listeners[i].daemon);
	ws_loop_free(ws);
	stream_loops_free(loops);
	pace_free(s->pace);
	share_free(s->share);
	hauls_free(s->hauls);
	pthread_mutex_destroy(&s->streams_lock);
	pthread_mutex_destroy(&s->laters_lock);
	pthread_cond_destroy(&s->laters_changed);
	free(s->patterns);
	free(s->server_name);
	free(s);
}

void http_server_stats(struct http_server *s, struct http_stats *ret)
{
	*ret = (struct http_stats){
		.requests = atomic_load(&s->requests),
		.connections_now = atomic_load(&s->connections_now),
		.streams_now = atomic_load(&s->streams_now),
		.bytes_in = atomic_load(&s->bytes_in),
		.bytes_out = atomic_load(&s->bytes_out),
	};
}
