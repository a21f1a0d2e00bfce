/* Answers that take long.  A stream without news holds no thread: its connection is suspended until somebody wakes it.
 *
 *            read > 0                 read == 0, no wake since the read began
 *   RUNNING ----------> RUNNING      RUNNING ---------------------------------> SUSPENDED
 *            read == 0, woken                        wake: resume
 *   RUNNING ----------> read again   SUSPENDED -------------------------------> RUNNING
 *
 * `lock` guards woken and suspended and is held across MHD's suspend and resume, which therefore alternate strictly: a wake that
 * comes before the suspend is remembered in `woken`, one that comes after it resumes.  It is not held across the owner's read
 * and free, so the owner may wake under a lock that its own read and free take too. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "net/stream_loop.h"
#include <stdlib.h>
#include <string.h>

static bool stopping(const struct http_stream *s)
{
	return atomic_load(&s->server->stopping);
}

/* Nothing to say: sleep until woken.  True when there may be news already, so read again; false when suspended. */
static bool stream_rest(struct http_stream *s)
{
	bool own_thread = s->server->cfg.thread_per_connection;
	pthread_mutex_lock(&s->lock);
	while (own_thread && !s->woken && !stopping(s))
		pthread_cond_wait(&s->changed, &s->lock);
	bool again = s->woken || stopping(s);
	if (!again) {
		s->suspended = true;
		MHD_suspend_connection(s->connection);
	}
	pthread_mutex_unlock(&s->lock);
	return again;
}

static void woken_forget(struct http_stream *s)
{
	pthread_mutex_lock(&s->lock);
	s->woken = false;
	pthread_mutex_unlock(&s->lock);
}

static ssize_t stream_read(void *arg, uint64_t pos, char *buf, size_t max)
{
	(void)pos;
	struct http_stream *s = arg;
	do {
		if (stopping(s))
			return MHD_CONTENT_READER_END_WITH_ERROR;
		woken_forget(s);
		ssize_t n = s->ops->read(s->state, buf, max);
		if (n == -1)
			return MHD_CONTENT_READER_END_OF_STREAM;
		if (n < 0)
			return MHD_CONTENT_READER_END_WITH_ERROR;
		if (n > 0) {
			atomic_fetch_add_explicit(&s->server->bytes_out, (uint64_t)n, memory_order_relaxed);
			return n;
		}
	} while (stream_rest(s));
	return 0;
}

static void list_add(struct http_stream *s)
{
	struct http_server *server = s->server;
	pthread_mutex_lock(&server->streams_lock);
	s->next = server->streams;
	if (s->next)
		s->next->prev = s;
	server->streams = s;
	pthread_mutex_unlock(&server->streams_lock);
}

static void list_remove(struct http_stream *s)
{
	struct http_server *server = s->server;
	pthread_mutex_lock(&server->streams_lock);
	if (s->prev)
		s->prev->next = s->next;
	else
		server->streams = s->next;
	if (s->next)
		s->next->prev = s->prev;
	pthread_mutex_unlock(&server->streams_lock);
}

void stream_release(struct http_stream *s)
{
	list_remove(s);
	atomic_fetch_sub_explicit(&s->server->streams_now, 1, memory_order_relaxed);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s->content_type);
	free(s);
}

static void stream_free(void *arg)
{
	struct http_stream *s = arg;
	s->ops->free(s->state); /* after it nobody wakes us */
	stream_release(s);
}

static void begin(struct http_request *r, int status, const char *content_type, const struct http_stream_ops *ops, void *state, struct stream_loop *loop,
	struct http_stream **ret_stream)
{
	struct http_stream *s = NEW(struct http_stream);
	s->server = r->server;
	s->connection = r->connection;
	s->ops = ops;
	s->state = state;
	s->status = status;
	s->content_type = mem_strdup(content_type);
	s->loop = loop;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	atomic_fetch_add_explicit(&r->server->streams_now, 1, memory_order_relaxed);
	list_add(s);
	reply_begin(r);
	r->stream = s;
	if (ret_stream)
		*ret_stream = s;
}

void http_stream(struct http_request *r, int status, const char *content_type, const struct http_stream_ops *ops, void *state, struct http_stream **ret_stream)
{
	begin(r, status, content_type, ops, state, NULL, ret_stream);
}

void http_stream_crowd(struct http_request *r, int status, const char *content_type, const struct http_stream_ops *ops, void *state, struct http_stream **ret_stream)
{
	bool fits = !r->server->cfg.thread_per_connection && strcmp(r->method, "GET") == 0; /* a HEAD is answered without a stream */
	begin(r, status, content_type, ops, state, fits ? stream_loop_choose(r->server) : NULL, ret_stream);
}

/* False: the server is being stopped, and MHD may tell the client so. */
static bool loop_takes(struct http_stream *s, struct http_request *r, const char *content_type)
{
	AUTO_STRBUF struct strbuf head = STRBUF_INIT;
	reply_head_write(r, s->status, content_type, &head);
	strbuf_adds(&head, r->http10 ? "\r\n" : "Transfer-Encoding: chunked\r\n\r\n");
	r->taken = stream_loop_attach(s, r, &head);
	return r->taken;
}

/* Only after the handler: MHD locks the response here and across each read, so an owner who held a lock of his around
 * http_stream that his read takes too would have two orders of locks; and a server that is being stopped may free at once. */
void stream_queue(struct http_request *r)
{
	struct http_stream *s = r->stream;
	AUTO_FREE char *content_type = TAKE_PTR(s->content_type);
	r->stream = NULL;
	if (s->loop && loop_takes(s, r, content_type))
		return;
	reply_queue(r, s->status, content_type, MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, r->http10 ? HTTP_STREAM_BLOCK : 1, stream_read, s, stream_free));
}

void http_stream_wake(struct http_stream *s)
{
	if (s->loop) {
		stream_loop_wake(s);
		return;
	}
	pthread_mutex_lock(&s->lock);
	s->woken = true;
	if (s->suspended) {
		s->suspended = false;
		MHD_resume_connection(s->connection);
	}
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

void streams_cut(struct http_server *server)
{
	pthread_mutex_lock(&server->streams_lock);
	for (struct http_stream *s = server->streams; s; s = s->next)
		http_stream_wake(s);
	pthread_mutex_unlock(&server->streams_lock);
}
