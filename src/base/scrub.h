/* Secrets that are cut out of what is kept.  Each is looked for as it is and as JSON writes it, once and twice: a tool's output within a
 * message within a line.  A value (struct js) stays one whatever the secret is; a text may lose its form when a secret is a letter or a quote.
 * Not thread-safe; the caller owns the struct, and releasing it wipes the secrets. */
#pragma once
#include "base/err.h"
#include "base/js.h"
#include "base/strbuf.h"
#include <stdbool.h>
#include <stddef.h>

#define SCRUB_STARS "***"
#define SCRUB_TEXTS_MAX 1024		   /* secrets of one struct scrub */
#define SCRUB_BYTES_MAX ((size_t)4 << 20) /* of all their forms together */
#define SCRUB_NUMBER_MIN 4		   /* digits of a secret that is found as a number, too */
#define SCRUB_LINE_MIN 8		   /* bytes of a line of a longer secret that is looked for by itself, too: texts are shown by lines */

struct scrub_form;
struct scrub {
	struct scrub_form *forms; /* the longest first: one may be a part of another */
	size_t count, texts, bytes;
};
#define SCRUB_INIT { .forms = NULL }

void scrub_release(struct scrub *s);
/* One that is there already, or empty, is fine. ERR_LIMIT: too many, nothing was added. */
MUST_USE enum err_code scrub_add(struct scrub *s, const char *secret, struct error *e);
MUST_USE enum err_code scrub_add_all(struct scrub *s, const struct js *texts, struct error *e); /* what is no text is passed over */
void scrub_copy(struct scrub *s, const struct scrub *from); /* s is empty before */

bool scrub_text(const struct scrub *s, struct strbuf *text); /* stars in the place of each; true when there was one */
/* Of a text whose end was cut off, after scrub_text: the secret that may have begun there. */
void scrub_cut_end(const struct scrub *s, struct strbuf *text);
/* A new reference: to v itself when nothing was in it, else to one with stars in its texts, member names and numbers. */
struct js *scrub_js(const struct scrub *s, const struct js *v);
