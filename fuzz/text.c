/* The small readers and writers of text that stand behind all others. */
#include "fuzz.h"
#include "base/clock.h"
#include "base/line.h"
#include "base/mask.h"
#include "base/str.h"

/* What a terminal is given has no control byte but newline and tab, and is UTF-8. */
static void printable(const char *s, size_t n)
{
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT((size_t)64 << 20);
	str_add_printable(&out, s, n);
	CHECK(str_is_utf8(strbuf_str(&out), out.len));
	for (size_t i = 0; i < out.len; i++) {
		unsigned char c = (unsigned char)out.data[i];
		CHECK((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t');
		CHECK(!(c == 0xc2 && (unsigned char)out.data[i + 1] < 0xa0)); /* C1 */
	}
}

static void encodings(const char *s, size_t n)
{
	AUTO_STRBUF struct strbuf url = STRBUF_INIT;
	AUTO_STRBUF struct strbuf plain = STRBUF_INIT;
	AUTO_STRBUF struct strbuf b64 = STRBUF_INIT;
	AUTO_STRBUF struct strbuf back = STRBUF_INIT;
	if (!memchr(s, 0, n)) {
		AUTO_FREE char *text = mem_strndup(s, n);
		str_add_urlenc(&url, text);
		CHECK(str_add_urldec(&plain, strbuf_str(&url), url.len, true) && plain.len == n && memcmp(strbuf_str(&plain), s, n) == 0);
	}
	str_add_base64url(&b64, s, n);
	CHECK(str_from_base64url(strbuf_str(&b64), b64.len, &back) && back.len == n && memcmp(strbuf_str(&back), s, n) == 0);
	strbuf_reset(&back);
	(void)!str_from_base64url(s, n, &back);
	strbuf_reset(&plain);
	(void)!str_add_urldec(&plain, s, n, false);
}

/* However a text is cut, the same of it is masked; and nothing of the secret is left. */
static void mask(const char *s, size_t n)
{
	static const char secret[] = "abababac";
	AUTO_STRBUF struct strbuf once = STRBUF_INIT;
	AUTO_STRBUF struct strbuf pieces = STRBUF_INIT;
	struct mask m;
	mask_init(&m, secret);
	mask_feed(&m, s, n, &once);
	mask_end(&m, &once);
	for (size_t at = 0; at < n; at += 3)
		mask_feed(&m, s + at, n - at < 3 ? n - at : 3, &pieces);
	mask_end(&m, &pieces);
	mask_release(&m);
	CHECK(once.len == n && pieces.len == n && (n == 0 || memcmp(once.data, pieces.data, n) == 0));
	CHECK(n == 0 || !memmem(once.data, n, secret, strlen(secret)));
}

static void numbers(const char *text)
{
	int64_t v = 0;
	char when[RFC3339_SIZE];
	(void)!str_to_i64(text, "x", INT64_MIN, INT64_MAX, &v, NULL);
	(void)!str_to_duration_ms(text, "x", 0, INT64_MAX, &v, NULL);
	(void)!str_to_size(text, "x", 0, INT64_MAX, &v, NULL);
	v = clock_parse_rfc3339(text);
	CHECK(v >= -1);
	if (v >= 0)
		clock_rfc3339(v, when);
	clock_is_id(text);
	str_is_name(text);
}

static void count_line(void *ctx, const char *line, size_t len, size_t full_len)
{
	size_t *sum = ctx;
	CHECK(len <= full_len && len <= 64 && line[len] == 0);
	*sum += full_len + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const char *s = (const char *)data;
	AUTO_FREE char *text = mem_strndup(s, n);
	struct line_reader lines;
	size_t sum = 0;

	printable(s, n);
	encodings(s, n);
	mask(s, n);
	numbers(text);
	line_init(&lines, 64);
	line_feed(&lines, s, n / 2, count_line, &sum);
	line_feed(&lines, s + n / 2, n - n / 2, count_line, &sum);
	line_finish(&lines, count_line, &sum);
	line_release(&lines);
	CHECK(sum == n || sum == n + 1);
	return 0;
}
