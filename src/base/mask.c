/* The automaton of Knuth, Morris and Pratt over one secret. */
#include "base/mask.h"
#include "base/mem.h"
#include <stdlib.h>
#include <string.h>

void mask_init(struct mask *m, const char *secret)
{
	*m = (struct mask)MASK_NONE;
	if (!secret || strlen(secret) < MASK_LEAST)
		return;
	m->secret = mem_strdup(secret);
	m->len = strlen(secret);
	m->fallback = mem_alloc(m->len * sizeof(*m->fallback));
	for (size_t i = 1, k = 0; i < m->len; i++) {
		while (k && secret[k] != secret[i])
			k = m->fallback[k - 1];
		k += secret[k] == secret[i];
		m->fallback[i] = k;
	}
}

void mask_release(struct mask *m)
{
	if (m->secret)
		explicit_bzero(m->secret, m->len);
	free(m->secret);
	free(m->fallback);
	*m = (struct mask)MASK_NONE;
}

static void add_stars(struct strbuf *out, size_t n)
{
	while (n--)
		strbuf_addc(out, '*');
}

/* One byte, while a beginning of the secret is held back. */
static void step(struct mask *m, char c, struct strbuf *out)
{
	while (m->matched && m->secret[m->matched] != c) {
		size_t less = m->fallback[m->matched - 1];
		strbuf_add(out, m->secret, m->matched - less);
		m->matched = less;
	}
	if (m->secret[m->matched] != c) {
		strbuf_addc(out, c);
	} else if (++m->matched == m->len) {
		add_stars(out, m->len);
		m->matched = 0;
	}
}

void mask_feed(struct mask *m, const char *data, size_t n, struct strbuf *out)
{
	const char *end = data + n;
	if (!m->secret) {
		strbuf_add(out, data, n);
		return;
	}
	while (data < end) {
		if (!m->matched) {
			const char *first = memchr(data, m->secret[0], (size_t)(end - data));
			strbuf_add(out, data, (size_t)((first ? first : end) - data));
			data = first ? first : end;
		}
		if (data < end)
			step(m, *data++, out);
	}
}

void mask_end(struct mask *m, struct strbuf *out)
{
	if (m->secret)
		strbuf_add(out, m->secret, m->matched);
	m->matched = 0;
}
