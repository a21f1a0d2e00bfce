/* The streams' tails in memory: order, gaps, live lines, wakes. */
#include "base/strbuf.h"
#include "core/hub.h"
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

struct seen {
	struct strbuf text;
	int wakes;
};

static void count_wake(void *arg)
{
	struct seen *s = arg;
	s->wakes++;
}

static void take(void *ctx, int64_t seq, const char *line)
{
	struct seen *s = ctx;
	strbuf_addf(&s->text, "%lld=%s ", (long long)seq, line);
}

static void take_live(void *ctx, const char *line)
{
	struct seen *s = ctx;
	strbuf_addf(&s->text, "%s ", line);
}

static void a_subscriber_reads_what_was_published_after_its_cursor(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	bool gap = true;
	(void)state;
	hub_publish(h, "t", 1, "a");
	hub_publish(h, "t", 2, "b");
	hub_publish(h, "other", 3, "x");
	assert_int_equal(hub_read(sub, 1, 10, take, &s, &gap), 2);
	assert_false(gap);
	assert_string_equal(strbuf_str(&s.text), "2=b ");
	assert_int_equal(s.wakes, 2);
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

static void lines_out_of_order_are_a_gap_and_not_a_lie(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	bool gap = false;
	(void)state;
	hub_publish(h, "t", 5, "e"); /* 4 was committed before it and comes later */
	hub_publish(h, "t", 4, "d");
	assert_int_equal(hub_read(sub, 3, 10, take, &s, &gap), 3);
	assert_true(gap);
	assert_int_equal(s.text.len, 0);
	assert_int_equal(hub_read(sub, 4, 10, take, &s, &gap), 5);
	assert_false(gap);
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

static void a_reader_behind_the_ring_is_sent_to_the_database(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	bool gap = false;
	(void)state;
	for (int i = 1; i <= HUB_RING + 10; i++)
		hub_publish(h, "t", i, "x");
	assert_int_equal(hub_read(sub, 5, 10, take, &s, &gap), 5);
	assert_true(gap);
	assert_int_equal(hub_read(sub, 10, HUB_RING, take, &s, &gap), HUB_RING + 10);
	assert_false(gap);
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

static void live_lines_are_kept_for_nobody_and_dropped_for_the_slow(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	(void)state;
	hub_publish_live(h, "t", "before");
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	hub_publish_live(h, "t", "now");
	hub_read_live(sub, take_live, &s);
	assert_string_equal(strbuf_str(&s.text), "now ");
	strbuf_reset(&s.text);
	for (int i = 0; i < HUB_LIVE_RING * 3; i++)
		hub_publish_live(h, "t", "x");
	hub_read_live(sub, take_live, &s);
	assert_int_equal(s.text.len, HUB_LIVE_RING * 2);
	assert_int_equal(hub_subscribers(h), 1);
	hub_unsubscribe(sub);
	assert_int_equal(hub_subscribers(h), 0);
	strbuf_release(&s.text);
	hub_free(h);
}

static void frames_are_the_lines_as_sse_and_the_last_one_is_known(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	bool gap = true, last = false;
	(void)state;
	hub_publish(h, "t", 1, "{\"seq\":1}");
	hub_publish(h, "t", 2, "{\"seq\":2}");
	assert_int_equal(hub_read_frames(sub, 0, 10, &s.text, &last, &gap), 2);
	assert_false(gap || last);
	assert_string_equal(strbuf_str(&s.text), "id: 1\ndata: {\"seq\":1}\n\nid: 2\ndata: {\"seq\":2}\n\n");
	hub_publish(h, "t", 3, "{\"type\":\"task.done\"}");
	assert_int_equal(hub_read_frames(sub, 2, 10, &s.text, &last, &gap), 3);
	assert_true(last);
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

#define CROWD (HUB_CROWD * 2)

static void post_wake(void *arg)
{
	sem_post(arg);
}

static void everybody_in_a_crowd_is_woken(void **state)
{
	struct hub *h = hub_new();
	struct hub_sub *subs[CROWD];
	sem_t woken;
	(void)state;
	sem_init(&woken, 0, 0);
	for (int i = 0; i < CROWD; i++)
		subs[i] = hub_subscribe(h, "t", post_wake, &woken);
	for (int64_t seq = 1; seq <= 3; seq++) {
		hub_publish(h, "t", seq, "x");
		for (int i = 0; i < CROWD; i++)
			assert_int_equal(sem_wait(&woken), 0);
	}
	for (int i = 0; i < CROWD; i++)
		hub_unsubscribe(subs[i]);
	hub_publish(h, "t", 4, "x");
	assert_int_equal(sem_trywait(&woken), -1);
	hub_free(h);
	sem_destroy(&woken);
}

static void a_reader_of_all_gets_every_tasks_lines_in_the_order_of_their_publication(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	bool gap = true;
	(void)state;
	hub_publish(h, "a", 1, "before");
	struct hub_sub *sub = hub_subscribe(h, HUB_ALL, count_wake, &s);
	assert_int_equal(hub_head(sub), 0);
	hub_publish(h, "a", 2, "a2");
	hub_announce(h, "b1");
	hub_publish(h, "b", 2, "b2");
	hub_publish(h, "a", 2, "a2 again");
	hub_publish_live(h, "b", "live");
	assert_int_equal(hub_head(sub), 4);
	assert_int_equal(hub_read(sub, 0, 10, take, &s, &gap), 4);
	assert_false(gap);
	hub_read_live(sub, take_live, &s);
	assert_string_equal(strbuf_str(&s.text), "1=a2 2=b1 3=b2 4=a2 again live ");
	for (int i = 0; i < HUB_RING; i++)
		hub_announce(h, "more");
	assert_int_equal(hub_read(sub, 3, 10, take, &s, &gap), 3);
	assert_true(gap);
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_are_the_lines_as_sse_and_the_last_one_is_known), cmocka_unit_test(everybody_in_a_crowd_is_woken),
		cmocka_unit_test(a_reader_of_all_gets_every_tasks_lines_in_the_order_of_their_publication),
		cmocka_unit_test(a_subscriber_reads_what_was_published_after_its_cursor), cmocka_unit_test(lines_out_of_order_are_a_gap_and_not_a_lie),
		cmocka_unit_test(a_reader_behind_the_ring_is_sent_to_the_database), cmocka_unit_test(live_lines_are_kept_for_nobody_and_dropped_for_the_slow),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
