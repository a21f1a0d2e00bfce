/* The seal: what is sealed opens with its own key only, tells nothing, and the key is made once. */
#include "core/seal.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

static int dir_make(void **state)
{
	char *dir = NULL;
	assert_true(sodium_init() >= 0);
	assert_int_equal(file_tmpdir("/tmp", "seal-", &dir, NULL), ERR_OK);
	*state = dir;
	return 0;
}

static int dir_drop(void **state)
{
	assert_int_equal(file_remove_tree(*state, NULL), ERR_OK);
	free(*state);
	return 0;
}

static void the_key_is_made_once_for_its_owner_alone(void **state)
{
	unsigned char key[SEAL_KEY_SIZE], again[SEAL_KEY_SIZE];
	AUTO_FREE char *path = file_join(*state, "seal.key");
	struct stat st;
	assert_int_equal(seal_open_key(*state, key, NULL), ERR_OK);
	assert_int_equal(seal_open_key(*state, again, NULL), ERR_OK);
	assert_memory_equal(key, again, SEAL_KEY_SIZE);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
}

static void a_key_file_of_another_length_is_refused_not_replaced(void **state)
{
	static const char *const bad[] = { "", "short", "0123456789012345678901234567890123456789" };
	unsigned char key[SEAL_KEY_SIZE];
	AUTO_FREE char *path = file_join(*state, "seal.key");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		AUTO_STRBUF struct strbuf text = STRBUF_INIT;
		assert_int_equal(file_replace(path, bad[i], strlen(bad[i]), 0600, FILE_NOSYNC, NULL), ERR_OK);
		assert_int_not_equal(seal_open_key(*state, key, NULL), ERR_OK);
		assert_int_equal(file_read(path, 100, &text, NULL), ERR_OK);
		assert_string_equal(strbuf_str(&text), bad[i]);
	}
}

static void what_is_sealed_opens_again_and_never_looks_the_same(void **state)
{
	static const char *const texts[] = { "", "x", "open \"sesame\"", "Zwölf Boxkämpfer\n\tjagen" };
	unsigned char key[SEAL_KEY_SIZE];
	assert_int_equal(seal_open_key(*state, key, NULL), ERR_OK);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		AUTO_FREE char *sealed = seal_text(key, texts[i]);
		AUTO_FREE char *other = seal_text(key, texts[i]);
		char *open = NULL;
		assert_string_not_equal(sealed, other);
		assert_true(strlen(texts[i]) < 2 || !strstr(sealed, texts[i]));
		assert_int_equal(seal_reveal(key, sealed, &open, NULL), ERR_OK);
		assert_string_equal(open, texts[i]);
		seal_forget(open);
	}
	seal_forget(NULL);
}

static void what_was_changed_or_is_of_another_key_does_not_open(void **state)
{
	unsigned char key[SEAL_KEY_SIZE], other[SEAL_KEY_SIZE] = { 1 };
	char *open = NULL;
	assert_int_equal(seal_open_key(*state, key, NULL), ERR_OK);
	AUTO_FREE char *sealed = seal_text(key, "sesame");
	assert_int_equal(seal_reveal(other, sealed, &open, NULL), ERR_INVALID);
	for (size_t i = 0; i < strlen(sealed) - 1; i++) { /* the last character has bits that mean nothing */
		AUTO_FREE char *changed = mem_strdup(sealed);
		changed[i] = changed[i] == 'A' ? 'B' : 'A';
		assert_int_equal(seal_reveal(key, changed, &open, NULL), ERR_INVALID);
		changed[i] = 0;
		assert_int_equal(seal_reveal(key, changed, &open, NULL), ERR_INVALID);
	}
	assert_int_equal(seal_reveal(key, "not base64 at all!", &open, NULL), ERR_INVALID);
	assert_null(open);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_key_is_made_once_for_its_owner_alone, dir_make, dir_drop),
		cmocka_unit_test_setup_teardown(a_key_file_of_another_length_is_refused_not_replaced, dir_make, dir_drop),
		cmocka_unit_test_setup_teardown(what_is_sealed_opens_again_and_never_looks_the_same, dir_make, dir_drop),
		cmocka_unit_test_setup_teardown(what_was_changed_or_is_of_another_key_does_not_open, dir_make, dir_drop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
