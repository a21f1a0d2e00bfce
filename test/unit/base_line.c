/* Lines out of a stream: any cut of the input gives the same lines, long ones are cut and counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/line.h"
#include <string.h>

static void collect(void *ctx, const char *line, size_t len, size_t full_len)
{
	assert_int_equal(line[len], 0);
	strbuf_add(ctx, line, len);
	strbuf_addf(ctx, "(%zu)", full_len);
}

static void every_split_gives_the_same_lines(void **state)
{
	static const char in[] = "one\n\ntoo long a line\ntwo\nlast";
	static const char expected[] = "one(3)(0)too long(15)two(3)last(4)";

	(void)state;
	for (size_t step = 1; step < sizeof(in); step++) {
		AUTO_STRBUF struct strbuf out = STRBUF_INIT;
		struct line_reader r;
		line_init(&r, 8);
		for (size_t at = 0; at < sizeof(in) - 1; at += step)
			line_feed(&r, in + at, at + step < sizeof(in) - 1 ? step : sizeof(in) - 1 - at, collect, &out);
		line_finish(&r, collect, &out);
		line_finish(&r, collect, &out);
		line_release(&r);
		assert_string_equal(strbuf_str(&out), expected);
	}
}

static void a_line_of_exactly_the_ceiling_is_whole(void **state)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct line_reader r;

	(void)state;
	line_init(&r, 3);
	line_feed(&r, "abc\nabcd\n", 9, collect, &out);
	line_finish(&r, collect, &out);
	line_release(&r);
	assert_string_equal(strbuf_str(&out), "abc(3)abc(4)");
}

static void bytes_of_any_value_pass(void **state)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct line_reader r;

	(void)state;
	line_init(&r, 10);
	line_feed(&r, "a\0b\r\n", 5, collect, &out);
	line_release(&r);
	assert_int_equal(out.len, 7);
	assert_memory_equal(out.data, "a\0b\r(4)", 7);
}

static void an_empty_stream_has_no_line(void **state)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	struct line_reader r;

	(void)state;
	line_init(&r, 10);
	line_feed(&r, "", 0, collect, &out);
	line_finish(&r, collect, &out);
	line_release(&r);
	assert_int_equal(out.len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_split_gives_the_same_lines),
		cmocka_unit_test(a_line_of_exactly_the_ceiling_is_whole),
		cmocka_unit_test(bytes_of_any_value_pass),
		cmocka_unit_test(an_empty_stream_has_no_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
