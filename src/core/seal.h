/* Secrets at rest: sealed with a key of the data directory (seal.key, 0600, made once), so that a copied database or task directory tells nothing.
 * libsodium's secretbox; what was sealed says nothing of what it is. */
#pragma once
#include "base/err.h"
#include <stddef.h>

#define SEAL_KEY_SIZE 32

/* Reads or makes <data>/seal.key. */
MUST_USE enum err_code seal_open_key(const char *data_dir, unsigned char ret_key[SEAL_KEY_SIZE], struct error *e);
char *seal_text(const unsigned char key[SEAL_KEY_SIZE], const char *text); /* base64url; the caller frees */
/* ERR_INVALID: it was not sealed with this key. The caller wipes and frees (seal_forget). */
MUST_USE enum err_code seal_reveal(const unsigned char key[SEAL_KEY_SIZE], const char *sealed, char **ret_text, struct error *e);
void seal_forget(char *text); /* wipes and frees; NULL is fine */
