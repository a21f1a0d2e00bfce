/* Shares of a unix socket that stands in many sandboxes: so many connections for each, so that none takes them from the others.
 *
 * A sandbox is known by the process at our own level that the caller descends from (its runner): the kernel says who connected, and nobody
 * inside a PID namespace can change whose child its first process is.  A caller who is gone when we look has a share with all such. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/http.h"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define STATUS_MAX ((size_t)16 << 10) /* bytes of /proc/PID/status */
#define ANCESTORS_MAX 256
#define GONE ((pid_t)-1)

struct share_holder {
	pid_t who;
	unsigned n;
};

struct share {
	pthread_mutex_t lock; /* guards the holders */
	struct share_holder *holders;
	size_t count;
	unsigned max;
	int depth; /* of the PID namespace that we are in */
};

/* How deep its PID namespace is below the one whose /proc we see, and its parent there; 0 when it is gone. */
static int process_look(const char *pid, pid_t *ret_parent)
{
	AUTO_FREE char *path = mem_printf("/proc/%s/status", pid);
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(STATUS_MAX);
	if (file_read(path, STATUS_MAX, &text, NULL))
		return 0;
	const char *parent = strstr(strbuf_str(&text), "\nPPid:\t"), *ids = strstr(strbuf_str(&text), "\nNSpid:\t");
	int depth = 0;
	*ret_parent = parent ? (pid_t)strtol(parent + strlen("\nPPid:\t"), NULL, 10) : 0;
	for (const char *c = ids ? ids + strlen("\nNSpid:") : ""; *c == '\t'; c += 1 + strcspn(c + 1, "\t\n"))
		depth++;
	return depth;
}

/* 0: at our own level, which has no limit. */
static pid_t holder_of(const struct share *s, pid_t pid)
{
	pid_t parent = 0;
	for (int hops = 0; hops < ANCESTORS_MAX && pid > 0; hops++) {
		AUTO_FREE char *text = mem_printf("%d", (int)pid);
		int depth = process_look(text, &parent);
		if (depth == 0)
			return GONE;
		if (depth <= s->depth)
			return hops ? pid : 0;
		pid = parent;
	}
	return GONE;
}

static struct share_holder *find(struct share *s, pid_t who)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->holders[i].who == who)
			return &s->holders[i];
	return NULL;
}

struct share *share_new(unsigned max)
{
	pid_t parent;
	int depth = max ? process_look("self", &parent) : 0;
	if (!depth || !process_look("1", &parent))
		return NULL; /* a /proc that hides processes: nobody can be told from another */
	struct share *s = NEW(struct share);
	pthread_mutex_init(&s->lock, NULL);
	s->max = max;
	s->depth = depth;
	return s;
}

void share_free(struct share *s)
{
	if (!s)
		return;
	pthread_mutex_destroy(&s->lock);
	free(s->holders);
	free(s);
}

bool share_take(struct share *s, int fd, pid_t *ret_who)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);
	*ret_who = 0;
	pid_t who = !s || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) ? 0 : holder_of(s, peer.pid);
	if (!who)
		return true;
	pthread_mutex_lock(&s->lock);
	struct share_holder *h = find(s, who);
	if (!h) {
		s->holders = mem_grow(s->holders, (s->count + 1) * sizeof(*s->holders));
		h = &s->holders[s->count++];
		*h = (struct share_holder){ who, 0 };
	}
	bool ok = h->n < s->max;
	if (ok) {
		h->n++;
		*ret_who = who;
	}
	pthread_mutex_unlock(&s->lock);
	return ok;
}

void share_give_back(struct share *s, pid_t who)
{
	if (!s || !who)
		return;
	pthread_mutex_lock(&s->lock);
	struct share_holder *h = find(s, who);
	if (h && --h->n == 0)
		*h = s->holders[--s->count];
	pthread_mutex_unlock(&s->lock);
}
