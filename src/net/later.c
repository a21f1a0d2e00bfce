/* Answers that wait for something without a thread: the connection is suspended until it is woken, and is then answered by a thread of the
 * server, which sends what has become ready at once.
 *
 *   ASKED --the handler has returned, MHD has had a turn--> SLEEPS --wake: resume--> WOKEN --> answered
 *   ASKED --wake-------------------------------------------------------------------> WOKEN --> answered by the handler's thread, never suspended
 *   ASKED --the client has gone, MHD closes------------------------------------------> LEFT --wake--> freed
 *
 * A client that goes away in between is noticed after the wake; so the request lives until then.  MHD does with a resumed connection what it had last
 * made up its mind to do.  Suspended by the handler's first call that is to read, and a client that has closed its half meanwhile, and listens still, would
 * be taken for one that has gone.  So MHD is let go round once: a request that is whole and has no answer yet makes it call again, and read no more. */
#include "base/check.h"
#include "net/http.h"

void http_later(struct http_request *r, const struct http_later_ops *ops, void *state)
{
	struct http_server *s = r->server;
	CHECK(!r->later && !r->replied && !s->cfg.thread_per_connection);
	r->later = ops;
	r->later_state = state;
	r->later_due = true;
	atomic_store(&r->later_phase, LATER_ASKED);
	pthread_mutex_lock(&s->laters_lock);
	s->laters++;
	r->later_stays = atomic_load(&s->stopping) || r->haul; /* a hauled one has a thread of its own, and its connection sleeps already */
	pthread_mutex_unlock(&s->laters_lock);
}

/* A server that is being stopped may not have suspended connections; its threads, and those that haul, may be held. */
static void stay(struct http_request *r)
{
	struct http_server *s = r->server;
	pthread_mutex_lock(&s->laters_lock);
	s->laters_staying++;
	while (atomic_load(&r->later_phase) != LATER_WOKEN)
		pthread_cond_wait(&s->laters_changed, &s->laters_lock);
	s->laters_staying--;
	pthread_mutex_unlock(&s->laters_lock);
}

bool later_waits(struct http_request *r)
{
	int asked = LATER_ASKED;
	if (r->later_stays)
		stay(r);
	if (atomic_load(&r->later_phase) == LATER_WOKEN)
		return false;
	if (!r->later_turned) {
		r->later_turned = true;
		return true;
	}
	MHD_suspend_connection(r->connection);
	if (!atomic_compare_exchange_strong(&r->later_phase, &asked, LATER_SLEEPS))
		MHD_resume_connection(r->connection); /* woken in this very moment */
	return true;
}

void later_answer(struct http_request *r)
{
	r->later_due = false;
	r->later->answer(r, r->later_state);
}

/* In the turn that MHD has before the suspension it may find that the client has gone; whoever shall wake us has our state still. */
bool later_keeps(struct http_request *r)
{
	int asked = LATER_ASKED;
	return r->later && atomic_compare_exchange_strong(&r->later_phase, &asked, LATER_LEFT);
}

void http_later_wake(struct http_request *r)
{
	struct http_server *s = r->server;
	int before = atomic_exchange(&r->later_phase, LATER_WOKEN);
	if (before == LATER_SLEEPS)
		MHD_resume_connection(r->connection); /* from here on it may be gone */
	else if (before == LATER_LEFT)
		request_free(r);
	pthread_mutex_lock(&s->laters_lock);
	s->laters--;
	if (s->laters_staying || atomic_load(&s->stopping))
		pthread_cond_broadcast(&s->laters_changed);
	pthread_mutex_unlock(&s->laters_lock);
}

/* With s->stopping set: none sleeps any more, and none will. */
void laters_await(struct http_server *s)
{
	pthread_mutex_lock(&s->laters_lock);
	while (s->laters)
		pthread_cond_wait(&s->laters_changed, &s->laters_lock);
	pthread_mutex_unlock(&s->laters_lock);
}
