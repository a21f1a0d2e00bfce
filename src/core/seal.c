/* Sealing with the data directory's own key. */
#include "core/seal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(SEAL_KEY_SIZE == crypto_secretbox_KEYBYTES, "the key is a secretbox's");

enum err_code seal_open_key(const char *data_dir, unsigned char ret_key[SEAL_KEY_SIZE], struct error *e)
{
	AUTO_FREE char *path = file_join(data_dir, "seal.key");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(SEAL_KEY_SIZE);
	enum err_code rc = file_read(path, SEAL_KEY_SIZE, &text, e);
	if (!rc && text.len != SEAL_KEY_SIZE)
		return error_set(e, ERR_INVALID, "'%s' is not a key of %d bytes", path, SEAL_KEY_SIZE);
	if (!rc) {
		memcpy(ret_key, text.data, SEAL_KEY_SIZE);
		sodium_memzero(text.data, text.len);
		return ERR_OK;
	}
	if (rc != ERR_NOT_FOUND)
		return rc;
	error_clear(e);
	clock_random(ret_key, SEAL_KEY_SIZE);
	return file_replace(path, ret_key, SEAL_KEY_SIZE, 0600, FILE_SYNC, e);
}

char *seal_text(const unsigned char key[SEAL_KEY_SIZE], const char *text)
{
	size_t len = strlen(text), size = crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES + len;
	AUTO_FREE unsigned char *box = mem_alloc(size);
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	clock_random(box, crypto_secretbox_NONCEBYTES);
	CHECK(crypto_secretbox_easy(box + crypto_secretbox_NONCEBYTES, (const unsigned char *)text, len, box, key) == 0);
	str_add_base64url(&out, box, size);
	return strbuf_detach(&out);
}

enum err_code seal_reveal(const unsigned char key[SEAL_KEY_SIZE], const char *sealed, char **ret_text, struct error *e)
{
	AUTO_STRBUF struct strbuf box = STRBUF_INIT;
	size_t over = crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES;
	if (!str_from_base64url(sealed, strlen(sealed), &box) || box.len < over)
		return error_set(e, ERR_INVALID, "a sealed secret is damaged");
	const unsigned char *at = (const unsigned char *)box.data;
	char *text = mem_alloc(box.len - over + 1);
	text[box.len - over] = 0;
	if (crypto_secretbox_open_easy((unsigned char *)text, at + crypto_secretbox_NONCEBYTES, box.len - crypto_secretbox_NONCEBYTES, at, key) == 0) {
		*ret_text = text;
		return ERR_OK;
	}
	free(text);
	return error_set(e, ERR_INVALID, "a sealed secret does not open with the key of this data directory");
}

void seal_forget(char *text)
{
	if (text)
		sodium_memzero(text, strlen(text));
	free(text);
}
