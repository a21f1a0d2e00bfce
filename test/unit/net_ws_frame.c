/* WebSocket frames: messages whole and in pieces, what no client may send, and what we send. */
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "net/ws_frame.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MESSAGE_MAX ((size_t)70000)

/* "1:hello 9:ping " */
static void note(void *ctx, enum ws_opcode what, const char *data, size_t n)
{
	struct strbuf *seen = ctx;
	assert_int_equal(strlen(data), n);
	strbuf_addf(seen, "%d:%s ", (int)what, n > 100 ? "long" : data);
}

/* A client's frame: masked. */
static void add_frame(struct strbuf *out, int first, const char *data, size_t n)
{
	static const unsigned char mask[] = { 0x12, 0x34, 0x56, 0x78 };
	struct strbuf plain = STRBUF_INIT;
	ws_frame_add(&plain, WS_FRAME_TEXT, data, n);
	plain.data[0] = (char)first;
	plain.data[1] = (char)(plain.data[1] | 0x80);
	strbuf_add(out, plain.data, plain.len - n);
	strbuf_add(out, mask, sizeof(mask));
	for (size_t i = 0; i < n; i++)
		strbuf_addc(out, (char)((unsigned char)data[i] ^ mask[i % 4]));
	strbuf_release(&plain);
}

static int parse(const struct strbuf *bytes, size_t piece, struct strbuf *seen)
{
	struct ws_parser p = { .message_max = MESSAGE_MAX };
	int code = 0;
	strbuf_reset(seen);
	for (size_t at = 0; at < bytes->len && !code; at += piece)
		code = ws_parse(&p, (const unsigned char *)bytes->data + at, bytes->len - at < piece ? bytes->len - at : piece, note, seen);
	ws_parser_release(&p);
	return code;
}

static void messages_come_whole_however_their_bytes_come(void **state)
{
	AUTO_STRBUF struct strbuf bytes = STRBUF_INIT, seen = STRBUF_INIT;
	static const size_t pieces[] = { 1, 2, 3, 7, 100, 1000000 };
	char *large = malloc(MESSAGE_MAX);
	(void)state;
	memset(large, 'x', MESSAGE_MAX);
	add_frame(&bytes, 0x81, "hello", 5);
	add_frame(&bytes, 0x01, "be", 2);
	add_frame(&bytes, 0x89, "ping", 4);
	add_frame(&bytes, 0x00, "", 0);
	add_frame(&bytes, 0x80, "gun", 3);
	add_frame(&bytes, 0x82, "raw", 3);
	add_frame(&bytes, 0x81, large, 126);
	add_frame(&bytes, 0x81, large, MESSAGE_MAX);
	add_frame(&bytes, 0x8a, "", 0);
	add_frame(&bytes, 0x88, "", 0);
	add_frame(&bytes, 0x81, "after the end", 13);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		assert_int_equal(parse(&bytes, pieces[i], &seen), 0);
		assert_string_equal(strbuf_str(&seen), "1:hello 9:ping 1:begun 2:raw 1:long 1:long 10: 8: ");
	}
	free(large);
}

static void what_no_client_may_send_has_its_code(void **state)
{
	static const struct { char bytes[16]; size_t n; int code; } cases[] /* filled up with zeros: masks */ = {
		{ "\x81\x00", 2, 1002 }, { "\xc1\x80", 2, 1002 }, { "\x83\x80", 2, 1002 }, { "\x8b\x80", 2, 1002 }, { "\x80\x80", 2, 1002 }, { "\x09\x80", 2, 1002 },
		{ "\x89\xfe", 2, 1002 }, { "\x81\xfe\x00\x05", 8, 1002 }, { "\x81\xff\0\0\0\0\0\0\xff\xff", 14, 1002 }, { "\x81\xff\x80\0\0\0\0\0\0\0", 14, 1002 },
		{ "\x81\xff\0\0\0\0\0\1\x11\x71", 14, 1009 }, { "\x81\xff\x40\0\0\0\0\0\0\0", 14, 1009 }, { "\x81\x82\0\0\0\0\xff\xfe", 8, 1007 }, { "\x81\x81\0\0\0\0\xc3", 7, 1007 },
		{ "\x88\x81\0\0\0\0x", 7, 1002 }, { "\x88\x82\0\0\0\0\x03\xe7", 8, 1002 }, { "\x88\x82\0\0\0\0\x03\xed", 8, 1002 }, { "\x88\x83\0\0\0\0\x03\xe8\xff", 9, 1007 },
		{ "\x01\x81\0\0\0\0a\x81\x81\0\0\0\0b", 14, 1002 },
	};
	AUTO_STRBUF struct strbuf bytes = STRBUF_INIT, seen = STRBUF_INIT;
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		strbuf_reset(&bytes);
		strbuf_add(&bytes, cases[i].bytes, cases[i].n);
		assert_int_equal(parse(&bytes, 1, &seen), cases[i].code);
		assert_int_equal(parse(&bytes, 100, &seen), cases[i].code);
	}
}

static void fragments_together_may_not_be_longer_than_a_message(void **state)
{
	AUTO_STRBUF struct strbuf bytes = STRBUF_INIT, seen = STRBUF_INIT;
	char *half = calloc(1, MESSAGE_MAX / 2 + 1);
	(void)state;
	memset(half, 'x', MESSAGE_MAX / 2);
	add_frame(&bytes, 0x01, half, MESSAGE_MAX / 2);
	add_frame(&bytes, 0x00, half, MESSAGE_MAX / 2);
	assert_int_equal(parse(&bytes, 4096, &seen), 0);
	add_frame(&bytes, 0x80, "x", 1);
	assert_int_equal(parse(&bytes, 4096, &seen), 1009);
	assert_int_equal(seen.len, 0);
	free(half);
}

static void what_we_send_says_its_length_as_shortly_as_it_can(void **state)
{
	static const struct { size_t n; const char *head; size_t head_len; } cases[] = {
		{ 0, "\x81\x00", 2 }, { 125, "\x81\x7d", 2 }, { 126, "\x81\x7e\x00\x7e", 4 }, { 65535, "\x81\x7e\xff\xff", 4 }, { 65536, "\x81\x7f\0\0\0\0\0\1\0\0", 10 },
	};
	char *text = calloc(1, 65536);
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_STRBUF struct strbuf out = STRBUF_INIT;
		ws_frame_add(&out, WS_FRAME_TEXT, text, cases[i].n);
		assert_int_equal(out.len, cases[i].head_len + cases[i].n);
		assert_memory_equal(out.data, cases[i].head, cases[i].head_len);
	}
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_come_whole_however_their_bytes_come), cmocka_unit_test(what_no_client_may_send_has_its_code),
		cmocka_unit_test(fragments_together_may_not_be_longer_than_a_message), cmocka_unit_test(what_we_send_says_its_length_as_shortly_as_it_can),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
