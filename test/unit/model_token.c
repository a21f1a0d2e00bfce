/* Run tokens: what is signed is read back, and nothing else is let in. */
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/token.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static const unsigned char key[TOKEN_KEY_BYTES] = "thirty-two bytes of a test's key";

static struct token_claims sample(void)
{
	return (struct token_claims){ .run = mem_strdup("run-1"), .project = mem_strdup("default"), .provider = mem_strdup("openai"),
		.model = mem_strdup("gpt"), .exp_s = 2000, .limit_requests = 7, .limit_tokens = 9000 };
}

static void sign(struct strbuf *out)
{
	AUTO_CLAIMS struct token_claims c = sample();

	assert_int_equal(token_sign(key, &c, out, NULL), ERR_OK);
}

static void what_was_signed_is_read_back(void **state)
{
	AUTO_STRBUF struct strbuf token = STRBUF_INIT;
	AUTO_CLAIMS struct token_claims c = { .run = NULL };

	(void)state;
	sign(&token);
	assert_int_equal(strncmp(token.data, "sbx1.", 5), 0);
	assert_int_equal(token_verify(key, token.data, 1999, &c, NULL), ERR_OK);
	assert_string_equal(c.run, "run-1");
	assert_string_equal(c.project, "default");
	assert_string_equal(c.provider, "openai");
	assert_string_equal(c.model, "gpt");
	assert_int_equal(c.limit_requests, 7);
	assert_int_equal(c.limit_tokens, 9000);
}

static void a_token_is_void_from_its_expiry_on(void **state)
{
	AUTO_STRBUF struct strbuf token = STRBUF_INIT;
	AUTO_CLAIMS struct token_claims c = { .run = NULL };
	struct error e = ERROR_INIT;

	(void)state;
	sign(&token);
	assert_int_equal(token_verify(key, token.data, 2000, &c, &e), ERR_DENIED);
	assert_non_null(strstr(e.text, "expired"));
	assert_null(c.run);
}

static void any_changed_byte_is_refused(void **state)
{
	AUTO_STRBUF struct strbuf token = STRBUF_INIT;

	(void)state;
	sign(&token);
	for (size_t i = 0; i < token.len; i++) {
		AUTO_CLAIMS struct token_claims c = { .run = NULL };
		char was = token.data[i];

		/* The last character of base64 has spare bits; a change to another value of its significant ones is a change. */
		token.data[i] = was == 'A' ? 'Q' : 'A';
		assert_int_equal(token_verify(key, token.data, 0, &c, NULL), ERR_DENIED);
		token.data[i] = was;
	}
}

static void another_key_is_refused(void **state)
{
	AUTO_STRBUF struct strbuf token = STRBUF_INIT;
	AUTO_CLAIMS struct token_claims c = { .run = NULL };
	unsigned char other[TOKEN_KEY_BYTES] = { 0 };

	(void)state;
	sign(&token);
	assert_int_equal(token_verify(other, token.data, 0, &c, NULL), ERR_DENIED);
}

static void what_is_no_token_is_refused(void **state)
{
	static const char *const bad[] = { NULL, "", "sbx1.", "sbx1..", "sbx1.e30", "sbx1.e30.", "sbx1.e30.AAAA", "sbx2.e30.AAAA", "sk-live-123", "sbx1.\xff.\xff" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		AUTO_CLAIMS struct token_claims c = { .run = NULL };

		assert_int_equal(token_verify(key, bad[i], 0, &c, NULL), ERR_DENIED);
	}
}

static void a_run_that_is_no_file_name_is_not_signed(void **state)
{
	static const char *const bad[] = { "", "../x", "a/b", ".hidden", "a\nb" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		AUTO_STRBUF struct strbuf token = STRBUF_INIT;
		struct token_claims c = { .run = mem_strdup(bad[i]), .exp_s = 10 };

		assert_int_equal(token_sign(key, &c, &token, NULL), ERR_INVALID);
		assert_int_equal(token.len, 0);
		token_claims_release(&c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_signed_is_read_back), cmocka_unit_test(a_token_is_void_from_its_expiry_on),
		cmocka_unit_test(any_changed_byte_is_refused), cmocka_unit_test(another_key_is_refused),
		cmocka_unit_test(what_is_no_token_is_refused), cmocka_unit_test(a_run_that_is_no_file_name_is_not_signed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
