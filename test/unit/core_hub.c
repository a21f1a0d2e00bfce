/* The streams' tails in memory: order, gaps, live lines, wakes. */
#include "base/strbuf.h"
#include "core/hub.h"
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
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
	strbuf_addf(&s->text, "%lld=%s ", (long long)seq, line ? line : "-");
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

static void a_line_that_overtook_another_waits_for_it(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	bool gap = false;
	(void)state;
	hub_publish(h, "t", 3, "c");
	hub_publish(h, "t", 6, "f"); /* 4 and 5 were committed before it and come later */
	hub_publish(h, "t", 5, "e");
	assert_int_equal(hub_read(sub, 3, 10, take, &s, &gap), 3);
	assert_false(gap);
	hub_publish(h, "t", 4, "d");
	assert_int_equal(hub_read(sub, 3, 10, take, &s, &gap), 6);
	assert_string_equal(strbuf_str(&s.text), "4=d 5=e 6=f ");
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

static void a_line_that_never_comes_is_a_gap_after_two_ticks(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	bool gap = false;
	(void)state;
	hub_publish(h, "t", 3, "c");
	hub_publish(h, "t", 5, "e");
	hub_publish(h, "t", 7, "g");
	hub_tick(h);
	assert_int_equal(hub_read(sub, 3, 10, take, &s, &gap), 3);
	assert_false(gap);
	hub_tick(h);
	assert_int_equal(hub_read(sub, 3, 10, take, &s, &gap), 3);
	assert_true(gap);
	assert_int_equal(hub_read(sub, 4, 10, take, &s, &gap), 5);
	assert_string_equal(strbuf_str(&s.text), "5=e ");
	hub_publish(h, "t", 6, "f");
	assert_int_equal(hub_read(sub, 5, 10, take, &s, &gap), 7);
	assert_int_equal(hub_read(sub, 3, 10, take, &s, &gap), 3);
	assert_true(gap);
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

static void what_came_before_the_first_line_or_far_before_it_is_a_gap(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	bool gap = false;
	(void)state;
	hub_publish(h, "t", 5, "e");
	hub_publish(h, "t", 4, "d");
	assert_int_equal(hub_read(sub, 3, 10, take, &s, &gap), 3);
	assert_true(gap);
	assert_int_equal(hub_read(sub, 4, 10, take, &s, &gap), 5);
	assert_false(gap);
	hub_publish(h, "t", 6 + HUB_AHEAD, "x");
	assert_int_equal(hub_read(sub, 5, 10, take, &s, &gap), 5);
	assert_true(gap);
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

static void the_ring_is_bounded_in_bytes_and_keeps_its_newest_line(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	size_t half = HUB_RING_BYTES / 2 + 1;
	char *text = malloc(2 * half + 1);
	bool gap = false;
	(void)state;
	memset(text, 'x', 2 * half);
	text[2 * half] = 0;
	hub_publish(h, "t", 1, text + half);
	hub_publish(h, "t", 2, text + half);
	assert_int_equal(hub_read(sub, 0, 10, take, &s, &gap), 0);
	assert_true(gap);
	assert_int_equal(hub_read(sub, 1, 10, take, &s, &gap), 2);
	hub_publish(h, "t", 3, text);
	assert_int_equal(hub_read(sub, 1, 10, take, &s, &gap), 1);
	assert_true(gap);
	assert_int_equal(hub_read(sub, 2, 10, take, &s, &gap), 3);
	free(text);
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

static void who_only_waits_to_be_woken_has_no_lines_kept(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT }, other = { .text = STRBUF_INIT };
	struct hub_sub *watcher = hub_watch(h, "t", count_wake, &other);
	bool gap = true;
	(void)state;
	hub_publish(h, "t", 1, "a");
	assert_int_equal(other.wakes, 1);
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	assert_int_equal(hub_head(sub), 0); /* it did not look for the first line and says so: the reader looks in the database */
	hub_publish(h, "t", 2, "b");
	assert_int_equal(hub_read(sub, 0, 10, take, &s, &gap), 0);
	assert_true(gap);
	assert_int_equal(hub_read(sub, 1, 10, take, &s, &gap), 2);
	hub_unsubscribe(sub);
	hub_unsubscribe(watcher);
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
	hub_publish_live(h, "default", "t", "before");
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	hub_publish_live(h, "default", "t", "now");
	hub_read_live(sub, take_live, &s);
	assert_string_equal(strbuf_str(&s.text), "now ");
	strbuf_reset(&s.text);
	for (int i = 0; i < HUB_LIVE_RING * 3; i++)
		hub_publish_live(h, "default", "t", "x");
	hub_read_live(sub, take_live, &s);
	assert_int_equal(s.text.len, HUB_LIVE_RING * 2);
	assert_int_equal(hub_subscribers(h), 1);
	hub_unsubscribe(sub);
	assert_int_equal(hub_subscribers(h), 0);
	strbuf_release(&s.text);
	hub_free(h);
}

/* What one call gives, as text. */
static int64_t copy(struct hub_sub *sub, int64_t after, enum hub_form form, size_t max, struct strbuf *out, struct strbuf *rest, bool *last)
{
	char buf[4096];
	const struct hub_out to = { .form = form, .buf = buf, .max = max, .rest = rest };
	size_t n = 0;
	bool gap = true;
	int64_t at = hub_copy(sub, after, &to, &n, last, &gap);
	assert_false(gap);
	strbuf_reset(out);
	strbuf_add(out, buf, n);
	return at;
}

static void lines_go_out_as_sse_or_json_lines_and_the_last_one_is_known(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct strbuf rest = STRBUF_INIT;
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	bool last = false;
	(void)state;
	hub_publish(h, "t", 1, "{\"seq\":1}");
	hub_publish(h, "t", 2, "{\"seq\":2}");
	assert_int_equal(copy(sub, 0, HUB_SSE, 4096, &s.text, &rest, &last), 2);
	assert_string_equal(strbuf_str(&s.text), "id: 1\ndata: {\"seq\":1}\n\nid: 2\ndata: {\"seq\":2}\n\n");
	assert_int_equal(copy(sub, 0, HUB_JSONL, 4096, &s.text, &rest, &last), 2);
	assert_string_equal(strbuf_str(&s.text), "{\"seq\":1}\n{\"seq\":2}\n");
	assert_false(last);
	hub_publish(h, "t", 3, "{\"type\":\"task.done\"}");
	assert_int_equal(copy(sub, 2, HUB_SSE, 4096, &s.text, &rest, &last), 3);
	assert_true(last);
	hub_publish(h, "t", 4, "{\"type\":\"task.retried\"}");
	assert_int_equal(copy(sub, 3, HUB_SSE, 4096, &s.text, &rest, &last), 4);
	assert_false(last);
	assert_int_equal(rest.len, 0);
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

static void a_line_longer_than_the_buffer_is_left_to_its_reader(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct strbuf rest = STRBUF_INIT;
	struct hub_sub *sub = hub_subscribe(h, "t", count_wake, &s);
	bool last = false;
	(void)state;
	hub_publish(h, "t", 1, "short");
	hub_publish(h, "t", 2, "a longer one");
	assert_int_equal(copy(sub, 0, HUB_JSONL, 8, &s.text, &rest, &last), 1);
	assert_string_equal(strbuf_str(&s.text), "short\n");
	assert_int_equal(rest.len, 0);
	assert_int_equal(copy(sub, 1, HUB_JSONL, 8, &s.text, &rest, &last), 2);
	assert_int_equal(s.text.len, 0);
	assert_string_equal(strbuf_str(&rest), "a longer one\n");
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	strbuf_release(&rest);
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

static void a_reader_of_all_gets_every_tasks_lines_in_the_order_of_their_commits(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct strbuf rest = STRBUF_INIT;
	bool gap = true, last = false;
	(void)state;
	hub_seed_all(h, 40);
	hub_publish_all(h, 41, &(struct hub_mark){ "AAAAAA", "default" }, "{\"before\":1}");
	struct hub_sub *sub = hub_subscribe_all(h, "default", count_wake, &s);
	assert_int_equal(hub_head(sub), 41);
	hub_publish_all(h, 43, &(struct hub_mark){ "BBBBBB", "default" }, "{\"b\":1}");
	hub_publish_all(h, 42, &(struct hub_mark){ "AAAAAA", "default" }, "{\"a\":2}");
	hub_publish(h, "b", 2, "not for all");
	hub_publish_live(h, "default", "b", "live");
	assert_int_equal(hub_head(sub), 43);
	assert_int_equal(hub_read(sub, 41, 10, take, &s, &gap), 43);
	assert_false(gap);
	hub_read_live(sub, take_live, &s);
	assert_string_equal(strbuf_str(&s.text), "42={\"a\":2} 43={\"b\":1} live ");
	assert_int_equal(copy(sub, 41, HUB_SSE, 4096, &s.text, &rest, &last), 43);
	assert_string_equal(strbuf_str(&s.text), "id: 42-AAAAAA\ndata: {\"cursor\":\"42-AAAAAA\",\"a\":2}\n\nid: 43-BBBBBB\ndata: {\"cursor\":\"43-BBBBBB\",\"b\":1}\n\n");
	for (int64_t n = 44; n <= 44 + HUB_RING; n++)
		hub_publish_all(h, n, &(struct hub_mark){ "AAAAAA", "default" }, "{}");
	assert_int_equal(hub_read(sub, 43, 10, take, &s, &gap), 43);
	assert_true(gap);
	hub_unsubscribe(sub);
	strbuf_release(&s.text);
	hub_free(h);
}

static void a_reader_of_all_gets_nothing_of_other_projects_but_their_numbers(void **state)
{
	struct hub *h = hub_new();
	struct seen s = { .text = STRBUF_INIT };
	struct strbuf rest = STRBUF_INIT;
	bool gap = true, last = false;
	(void)state;
	hub_seed_all(h, 40);
	struct hub_sub *mine = hub_subscribe_all(h, "mine", count_wake, &s), *nobody = hub_subscribe(h, HUB_ALL, count_wake, &s);
	hub_publish_all(h, 41, &(struct hub_mark){ "AAAAAA", "other" }, "{\"a\":1}");
	hub_publish_all(h, 42, &(struct hub_mark){ "BBBBBB", "mine" }, "{\"b\":1}");
	hub_publish_all(h, 43, &(struct hub_mark){ "AAAAAA", "other" }, "{\"a\":2}");
	hub_publish_live(h, "other", "a", "live of a");
	hub_publish_live(h, "mine", "b", "live of b");
	assert_int_equal(copy(mine, 40, HUB_JSONL, 4096, &s.text, &rest, &last), 43);
	assert_string_equal(strbuf_str(&s.text), "{\"cursor\":\"42-BBBBBB\",\"b\":1}\n");
	strbuf_reset(&s.text);
	assert_int_equal(hub_read(mine, 40, 10, take, &s, &gap), 43);
	hub_read_live(mine, take_live, &s);
	assert_string_equal(strbuf_str(&s.text), "41=- 42={\"b\":1} 43=- live of b ");
	strbuf_reset(&s.text);
	assert_int_equal(copy(nobody, 40, HUB_SSE, 4096, &s.text, &rest, &last), 43);
	hub_read_live(nobody, take_live, &s);
	assert_int_equal(s.text.len, 0);
	hub_unsubscribe(mine);
	hub_unsubscribe(nobody);
	strbuf_release(&s.text);
	hub_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_go_out_as_sse_or_json_lines_and_the_last_one_is_known), cmocka_unit_test(a_line_longer_than_the_buffer_is_left_to_its_reader),
		cmocka_unit_test(everybody_in_a_crowd_is_woken), cmocka_unit_test(a_reader_of_all_gets_every_tasks_lines_in_the_order_of_their_commits),
		cmocka_unit_test(a_reader_of_all_gets_nothing_of_other_projects_but_their_numbers),
		cmocka_unit_test(a_subscriber_reads_what_was_published_after_its_cursor), cmocka_unit_test(a_line_that_overtook_another_waits_for_it),
		cmocka_unit_test(a_line_that_never_comes_is_a_gap_after_two_ticks), cmocka_unit_test(what_came_before_the_first_line_or_far_before_it_is_a_gap),
		cmocka_unit_test(the_ring_is_bounded_in_bytes_and_keeps_its_newest_line), cmocka_unit_test(who_only_waits_to_be_woken_has_no_lines_kept),
		cmocka_unit_test(a_reader_behind_the_ring_is_sent_to_the_database), cmocka_unit_test(live_lines_are_kept_for_nobody_and_dropped_for_the_slow),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
