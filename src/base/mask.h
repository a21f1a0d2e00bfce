/* Cuts a secret out of a stream, wherever the pieces fall: each of its bytes becomes a star.  What may be the beginning of one is held back
 * until more comes, at most the secret's length. */
#pragma once
#include "base/strbuf.h"

#define MASK_LEAST ((size_t)8) /* a shorter one would star ordinary words: nothing is masked */

struct mask {
	char *secret; /* NULL: there is none */
	size_t len, matched;
	size_t *fallback; /* how much is still matched when the byte behind [i] is another */
};
#define MASK_NONE { .secret = NULL }

void mask_init(struct mask *m, const char *secret); /* copied; NULL is fine */
void mask_release(struct mask *m);		    /* and wiped */
void mask_feed(struct mask *m, const char *data, size_t n, struct strbuf *out);
void mask_end(struct mask *m, struct strbuf *out); /* nothing more comes: what was held back was none */
