/* Answers that wait without a thread: woken at any moment, left by their clients, waited for by a server that stops. */
#include "net_site.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define CLIENTS 48
#define REQUESTS_EACH 60

struct fixture {
	struct site site;
	pthread_mutex_t lock; /* guards from here */
	pthread_cond_t changed;
	struct waiter *waiting;
	int asked, freed, freed_asleep;
	bool by_itself; /* a thread wakes whoever waits, at once */
	bool said_all;	/* the client has closed its half */
	bool over;
	pthread_t waker;
	atomic_int answered;
};

struct waiter {
	struct fixture *f;
	struct http_request *request;
	struct waiter *next;
	bool woken; /* with the fixture's lock */
};

static void waiter_answer(struct http_request *r, void *state)
{
	struct waiter *w = state;
	assert_ptr_equal(r, w->request);
	w->f->answered++;
	http_reply(r, 200, "text/plain", "woken", strlen("woken"));
}

static void waiter_free(void *state)
{
	struct waiter *w = state;
	struct fixture *f = w->f;
	pthread_mutex_lock(&f->lock);
	f->freed_asleep += !w->woken;
	free(w);
	f->freed++;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

static const struct http_later_ops later = { waiter_answer, waiter_free };

static void end_of_words(struct fixture *f)
{
	pthread_mutex_lock(&f->lock);
	f->said_all = true;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

static void await_end_of_words(struct fixture *f)
{
	pthread_mutex_lock(&f->lock);
	while (!f->said_all)
		pthread_cond_wait(&f->changed, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

static void handle_wait(struct http_request *r, void *ctx)
{
	struct fixture *f = ctx;
	struct waiter *w = NEW(struct waiter);
	if (http_query(r, "half"))
		await_end_of_words(f);
	*w = (struct waiter){ .f = f, .request = r, .woken = http_query(r, "now") != NULL };
	http_later(r, &later, w);
	if (http_query(r, "now")) {
		http_later_wake(r);
		return;
	}
	pthread_mutex_lock(&f->lock);
	w->next = f->waiting;
	f->waiting = w;
	f->asked++;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

static void handle_plain(struct http_request *r, void *ctx)
{
	(void)ctx;
	http_reply(r, 200, "text/plain", "plain", strlen("plain"));
}

static const struct http_route routes[] = {
	{ "GET", "/wait", handle_wait, 0, 0, "wait" },
	{ "GET", "/plain", handle_plain, 0, 0, "plain" },
	{ .method = NULL },
};

static struct waiter *take_all(struct fixture *f)
{
	struct waiter *list = f->waiting;
	f->waiting = NULL;
	for (struct waiter *w = list; w; w = w->next)
		w->woken = true;
	return list;
}

static void wake_list(struct waiter *list)
{
	while (list) {
		struct waiter *next = list->next; /* it may be gone after the wake */
		http_later_wake(list->request);
		list = next;
	}
}

static void *wake_them(void *arg)
{
	struct fixture *f = arg;
	pthread_mutex_lock(&f->lock);
	while (!f->over) {
		struct waiter *list = f->by_itself ? take_all(f) : NULL;
		if (!list) {
			pthread_cond_wait(&f->changed, &f->lock);
			continue;
		}
		pthread_mutex_unlock(&f->lock);
		wake_list(list);
		pthread_mutex_lock(&f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static void wake_by_itself(struct fixture *f)
{
	pthread_mutex_lock(&f->lock);
	f->by_itself = true;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

static void await(struct fixture *f, const int *what, int n)
{
	pthread_mutex_lock(&f->lock);
	while (*what < n)
		pthread_cond_wait(&f->changed, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

static int setup(void **state)
{
	struct fixture *f = NEW(struct fixture);
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	site_init(&f->site);
	site_start(&f->site, (struct http_config){ .routes = routes, .ctx = f, .threads = 4 });
	assert_int_equal(pthread_create(&f->waker, NULL, wake_them, f), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	wake_by_itself(f);
	site_release(&f->site);
	pthread_mutex_lock(&f->lock);
	f->over = true;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
	pthread_join(f->waker, NULL);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->changed);
	free(f);
	return 0;
}

static void an_answer_woken_before_its_handler_returns_is_given(void **state)
{
	struct fixture *f = *state;
	expect(&f->site, "GET /wait?now HTTP/1.1\r\n" HEAD_END, 200, "woken");
	assert_int_equal(f->answered, 1);
}

static void a_waiting_answer_holds_no_thread(void **state)
{
	struct fixture *f = *state;
	int fds[CLIENTS];
	for (int i = 0; i < CLIENTS; i++) { /* more than there are threads */
		fds[i] = dial(&f->site);
		say(fds[i], "GET /wait HTTP/1.1\r\n" HEAD_END);
	}
	await(f, &f->asked, CLIENTS);
	expect(&f->site, "GET /plain HTTP/1.1\r\n" HEAD_END, 200, "plain");
	assert_int_equal(f->answered, 0);
	wake_by_itself(f);
	for (int i = 0; i < CLIENTS; i++) {
		AUTO_STRBUF struct strbuf in = STRBUF_INIT;
		assert_true(hear(fds[i], &in, "woken"));
		close(fds[i]);
	}
	assert_int_equal(f->answered, CLIENTS);
}

/* Each as a thread of its own; one that has something to return has failed. */
static void run_clients(struct fixture *f, void *(*client)(void *f))
{
	pthread_t threads[CLIENTS];
	for (int i = 0; i < CLIENTS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, client, f), 0);
	for (int i = 0; i < CLIENTS; i++) {
		void *failed = NULL;
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
}

static void *ask_again_and_again(void *arg)
{
	struct fixture *f = arg;
	AUTO_CLOSE int fd = dial(&f->site);
	for (int i = 0; i < REQUESTS_EACH; i++) {
		AUTO_STRBUF struct strbuf in = STRBUF_INIT;
		say(fd, i % 3 ? "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" : "GET /wait?now HTTP/1.1\r\nHost: x\r\n\r\n");
		if (!hear(fd, &in, "woken"))
			return arg;
	}
	return NULL;
}

static void wakes_at_any_moment_answer_everybody_once(void **state)
{
	struct fixture *f = *state;
	wake_by_itself(f);
	run_clients(f, ask_again_and_again);
	assert_int_equal(f->answered, CLIENTS * REQUESTS_EACH);
	await(f, &f->freed, CLIENTS * REQUESTS_EACH);
}

static void a_client_that_hung_up_leaves_nothing_behind(void **state)
{
	struct fixture *f = *state;
	for (int i = 0; i < CLIENTS; i++) {
		AUTO_CLOSE int fd = dial(&f->site);
		say(fd, "GET /wait HTTP/1.1\r\n" HEAD_END);
		await(f, &f->asked, i + 1);
	}
	assert_int_equal(f->freed, 0); /* nothing is freed under whoever will wake it */
	wake_by_itself(f);
	await(f, &f->freed, CLIENTS);
	expect(&f->site, "GET /plain HTTP/1.1\r\n" HEAD_END, 200, "plain");
}

static void *ask_and_go(void *arg)
{
	struct fixture *f = arg;
	for (int i = 0; i < REQUESTS_EACH; i++) {
		AUTO_CLOSE int fd = dial(&f->site);
		say(fd, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
		if (i % 3)
			sched_yield();
	}
	return NULL;
}

/* At any moment, also in the turn that MHD has before the connection is suspended. */
static void a_client_that_hangs_up_at_any_moment_is_freed_by_the_wake(void **state)
{
	struct fixture *f = *state;
	wake_by_itself(f);
	run_clients(f, ask_and_go);
	expect(&f->site, "GET /plain HTTP/1.1\r\n" HEAD_END, 200, "plain");
	pthread_mutex_lock(&f->lock);
	while (f->freed < f->asked)
		pthread_cond_wait(&f->changed, &f->lock);
	int asleep = f->freed_asleep;
	pthread_mutex_unlock(&f->lock);
	assert_int_equal(asleep, 0);
}

/* As many clients do that are a pipe: printf .. | nc -N */
static void a_client_that_closed_its_half_hears_its_answer(void **state)
{
	struct fixture *f = *state;
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	AUTO_CLOSE int fd = dial(&f->site);
	say(fd, "GET /wait?half HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	end_of_words(f);
	await(f, &f->asked, 1);
	wake_by_itself(f);
	assert_true(hear(fd, &in, "woken"));
}

static void clients_that_close_their_half_while_their_answers_wait_hear_them(void **state)
{
	struct fixture *f = *state;
	int fds[CLIENTS];
	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial(&f->site);
		say(fds[i], "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
	}
	await(f, &f->asked, CLIENTS);
	expect(&f->site, "GET /plain HTTP/1.1\r\n" HEAD_END, 200, "plain");
	for (int i = 0; i < CLIENTS; i++)
		assert_int_equal(shutdown(fds[i], SHUT_WR), 0);
	wake_by_itself(f);
	for (int i = 0; i < CLIENTS; i++) {
		AUTO_STRBUF struct strbuf in = STRBUF_INIT;
		assert_true(hear(fds[i], &in, "woken"));
		close(fds[i]);
	}
	await(f, &f->freed, CLIENTS);
}

static void *stop_server(void *arg)
{
	struct fixture *f = arg;
	http_server_stop(TAKE_PTR(f->site.server));
	return NULL;
}

static bool is_served(const struct site *s)
{
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	AUTO_CLOSE int fd = dial(s);
	return send(fd, "GET /plain HTTP/1.1\r\n" HEAD_END, strlen("GET /plain HTTP/1.1\r\n" HEAD_END), MSG_NOSIGNAL) > 0 && hear(fd, &in, "plain");
}

static void a_server_that_stops_waits_for_the_wakes_and_frees_all(void **state)
{
	struct fixture *f = *state;
	pthread_t stopper;
	int asleep = dial(&f->site), late = dial(&f->site);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	say(late, "GET /plain HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(hear(late, &in, "plain"));
	say(asleep, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
	await(f, &f->asked, 1);
	assert_int_equal(pthread_create(&stopper, NULL, stop_server, f), 0);
	while (is_served(&f->site))
		; /* until it has begun to stop */
	say(late, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"); /* an old connection is served still */
	await(f, &f->asked, 2);
	wake_by_itself(f);
	pthread_join(stopper, NULL);
	assert_int_equal(f->freed, 2);
	close(asleep);
	close(late);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_answer_woken_before_its_handler_returns_is_given, setup, teardown),
		cmocka_unit_test_setup_teardown(a_waiting_answer_holds_no_thread, setup, teardown),
		cmocka_unit_test_setup_teardown(wakes_at_any_moment_answer_everybody_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_client_that_hung_up_leaves_nothing_behind, setup, teardown),
		cmocka_unit_test_setup_teardown(a_client_that_hangs_up_at_any_moment_is_freed_by_the_wake, setup, teardown),
		cmocka_unit_test_setup_teardown(a_client_that_closed_its_half_hears_its_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(clients_that_close_their_half_while_their_answers_wait_hear_them, setup, teardown),
		cmocka_unit_test_setup_teardown(a_server_that_stops_waits_for_the_wakes_and_frees_all, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
