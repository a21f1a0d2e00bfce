/* Strings from outside: strict numbers, names, UTF-8, encodings, and text for people and terminals. */
#include "base/str.h"
#include "base/cleanup.h"
#include <inttypes.h>
#include <string.h>

bool str_eq(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

bool str_starts(const char *s, const char *prefix)
{
	return s && prefix && strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
	if (!s || !suffix)
		return false;
	size_t n = strlen(s), m = strlen(suffix);
	return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

bool str_empty(const char *s)
{
	return !s || !*s;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Reads digits with an optional minus; `*rest` is what follows.  False: no digits, or more than 64 bits hold. */
static bool read_number(const char *s, int64_t *ret, const char **rest)
{
	bool minus = *s == '-';
	int64_t v = 0;

	s += minus;
	if (!is_digit(*s))
		return false;
	for (; is_digit(*s); s++) {
		int digit = minus ? '0' - *s : *s - '0';
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, digit, &v))
			return false;
	}
	*ret = v;
	*rest = s;
	return true;
}

struct unit {
	const char *name;
	int64_t factor;
};

static const struct unit no_units[] = { { "", 1 }, { NULL, 0 } };
static const struct unit duration_units[] = { { "", 1000 },	{ "ms", 1 },	     { "s", 1000 },  { "m", 60 * 1000 },
					      { "h", 3600 * 1000 }, { "d", 86400 * 1000 }, { NULL, 0 } };
static const struct unit size_units[] = { { "", 1 },		     { "K", 1 << 10 },	       { "k", 1 << 10 },
					  { "M", 1 << 20 },	     { "m", 1 << 20 },	       { "G", 1 << 30 },
					  { "g", 1 << 30 },	     { "T", (int64_t)1 << 40 }, { "t", (int64_t)1 << 40 },
					  { NULL, 0 } };

static const struct unit *find_unit(const struct unit *units, const char *name)
{
	for (; units->name; units++)
		if (strcmp(units->name, name) == 0)
			return units;
	return NULL;
}

/* What one kind of number looks like, for its error message. */
struct number_kind {
	const struct unit *units;
	const char *expected;
	const char *unit; /* in which a range is told */
};

static const struct number_kind whole_number = { no_units, "a whole number", "" };
static const struct number_kind duration = { duration_units, "a duration such as 90s, 5m or 1h", " ms" };
static const struct number_kind size = { size_units, "a size such as 64K, 512M or 2G", " bytes" };

static enum err_code parse(const struct number_kind *kind, const char *s, const char *what, int64_t min, int64_t max,
			   int64_t *ret, struct error *e)
{
	const char *rest = "";
	int64_t v = 0;

	if (str_empty(s))
		return error_set(e, ERR_INVALID, "%s: empty, expected %s", what, kind->expected);
	bool read = read_number(s, &v, &rest);
	const struct unit *unit = read ? find_unit(kind->units, rest) : NULL;
	if (!unit || __builtin_mul_overflow(v, unit->factor, &v)) {
		AUTO_STRBUF struct strbuf shown = STRBUF_LIMIT(200);
		str_add_printable(&shown, s, strlen(s));
		return error_set(e, ERR_INVALID, "%s: '%s' is not %s", what, strbuf_str(&shown), kind->expected);
	}
	if (v < min)
		return error_set(e, ERR_INVALID, "%s: %s is less than %" PRId64 "%s", what, s, min, kind->unit);
	if (v > max)
		return error_set(e, ERR_INVALID, "%s: %s is more than %" PRId64 "%s", what, s, max, kind->unit);
	*ret = v;
	return ERR_OK;
}

enum err_code str_to_i64(const char *s, const char *what, int64_t min, int64_t max, int64_t *ret, struct error *e)
{
	return parse(&whole_number, s, what, min, max, ret, e);
}

enum err_code str_to_duration_ms(const char *s, const char *what, int64_t min_ms, int64_t max_ms, int64_t *ret_ms,
				 struct error *e)
{
	return parse(&duration, s, what, min_ms, max_ms, ret_ms, e);
}

enum err_code str_to_size(const char *s, const char *what, int64_t min, int64_t max, int64_t *ret, struct error *e)
{
	return parse(&size, s, what, min, max, ret, e);
}

bool str_is_name(const char *s)
{
	size_t n = 0;

	if (!s || !is_alnum(s[0]))
		return false;
	for (; s[n]; n++)
		if (n >= 64 || !(is_alnum(s[n]) || s[n] == '.' || s[n] == '_' || s[n] == '-'))
			return false;
	return true;
}

/* Length of the character at s (1..4) and its code point; 0 when the bytes are not strict UTF-8. */
static size_t utf8_next(const unsigned char *s, size_t n, uint32_t *ret)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

	if (len == 0 || len > n)
		return 0;
	uint32_t c = len == 1 ? s[0] : s[0] & (0xffu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*ret = c;
	return len;
}

bool str_is_utf8(const char *s, size_t n)
{
	uint32_t c;

	while (n) {
		uint64_t eight = 0;
		if (n >= sizeof(eight)) /* most texts are ASCII from end to end */
			memcpy(&eight, s, sizeof(eight));
		size_t len = n >= sizeof(eight) && !(eight & 0x8080808080808080u) ? sizeof(eight) : !(*s & 0x80) ? 1 : utf8_next((const unsigned char *)s, n, &c);
		if (!len)
			return false;
		s += len;
		n -= len;
	}
	return true;
}

bool str_const_time_eq(const char *a, const char *b)
{
	if (!a || !b)
		return false;
	size_t n = strlen(a), m = strlen(b);
	volatile unsigned char differ = n != m;

	for (size_t i = 0; i < n; i++)
		differ = (unsigned char)(differ | (a[i] ^ b[m ? i % m : 0]));
	return differ == 0;
}

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char hex[] = "0123456789abcdef";

static void add_base64(struct strbuf *out, const unsigned char *p, size_t n, const char *alphabet, bool pad)
{
	for (; n; p += n < 3 ? n : 3, n -= n < 3 ? n : 3) {
		uint32_t v = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);
		size_t digits = n < 3 ? n + 1 : 4;
		for (size_t i = 0; i < 4; i++) {
			if (i < digits)
				strbuf_addc(out, alphabet[v >> (18 - 6 * i) & 63]);
			else if (pad)
				strbuf_addc(out, '=');
		}
	}
}

void str_add_base64(struct strbuf *out, const void *data, size_t n)
{
	add_base64(out, data, n, base64, true);
}

void str_add_base64url(struct strbuf *out, const void *data, size_t n)
{
	add_base64(out, data, n, base64url, false);
}

bool str_from_base64url(const char *s, size_t n, struct strbuf *out)
{
	uint32_t bits = 0;
	unsigned have = 0;
	size_t start = out->len;

	for (size_t i = 0; i < n; i++) {
		const char *at = s[i] ? strchr(base64url, s[i]) : NULL;
		if (!at)
			goto bad;
		bits = bits << 6 | (uint32_t)(at - base64url);
		have += 6;
		if (have >= 8) {
			have -= 8;
			strbuf_addc(out, (char)(bits >> have & 0xff));
		}
	}
	/* One text for one value: no lone digit, no leftover bits. */
	if (n % 4 != 1 && (bits & ((1u << have) - 1)) == 0)
		return true;
bad:
	if (out->data)
		out->data[out->len = start] = 0;
	return false;
}

void str_add_hex(struct strbuf *out, const void *data, size_t n)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < n; i++) {
		strbuf_addc(out, hex[p[i] >> 4]);
		strbuf_addc(out, hex[p[i] & 15]);
	}
}

/* Characters that change how the rest of a terminal's line is shown, or hide text from the reader. */
static bool is_deceptive(uint32_t c)
{
	return (c >= 0x80 && c <= 0x9f) || c == 0x061c || c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2066 && c <= 0x2069) || (c >= 0xe0000 && c <= 0xe007f);
}

size_t str_deceptive(const char *s, size_t n, uint32_t *ret_c)
{
	size_t len = utf8_next((const unsigned char *)s, n, ret_c);

	return len && is_deceptive(*ret_c) ? len : 0;
}

void str_add_printable(struct strbuf *out, const char *s, size_t n)
{
	uint32_t c = 0;

	while (n) {
		size_t len = utf8_next((const unsigned char *)s, n, &c);
		if (!len || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
			len = 1;
			strbuf_addf(out, "\\x%02x", (unsigned char)*s);
		} else if (is_deceptive(c)) {
			strbuf_addf(out, "\\u%04" PRIx32, c);
		} else {
			strbuf_add(out, s, len);
		}
		s += len;
		n -= len;
	}
}

void str_add_urlenc(struct strbuf *out, const char *s)
{
	for (; *s; s++) {
		if (is_alnum(*s) || strchr("-._~", *s)) {
			strbuf_addc(out, *s);
			continue;
		}
		strbuf_addc(out, '%');
		strbuf_addc(out, "0123456789ABCDEF"[(unsigned char)*s >> 4]);
		strbuf_addc(out, "0123456789ABCDEF"[(unsigned char)*s & 15]);
	}
}

static int hex_digit(char c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool str_add_urldec(struct strbuf *out, const char *s, size_t n, bool plus_is_space)
{
	size_t start = out->len;

	for (size_t i = 0; i < n; i++) {
		char c = s[i];
		if (c == '%') {
			int hi = n - i > 2 ? hex_digit(s[i + 1]) : -1;
			int lo = n - i > 2 ? hex_digit(s[i + 2]) : -1;
			c = (char)(hi < 0 || lo < 0 ? 0 : hi << 4 | lo);
			i += 2;
		} else if (c == '+' && plus_is_space) {
			c = ' ';
		}
		if (!c) {
			if (out->data)
				out->data[out->len = start] = 0;
			return false;
		}
		strbuf_addc(out, c);
	}
	return true;
}

void str_add_size(struct strbuf *out, int64_t bytes)
{
	static const char units[][4] = { "B", "kB", "MB", "GB", "TB", "PB" };
	size_t unit = 0;
	int64_t scale = 1;

	if (bytes < 0)
		bytes = 0;
	while (bytes / scale >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		scale *= 1024;
		unit++;
	}
	int64_t whole = bytes / scale, tenth = bytes % scale * 10 / scale;
	if (unit == 0 || tenth == 0 || whole >= 100)
		strbuf_addf(out, "%" PRId64 " %s", whole, units[unit]);
	else
		strbuf_addf(out, "%" PRId64 ".%" PRId64 " %s", whole, tenth, units[unit]);
}

void str_add_duration(struct strbuf *out, int64_t ms)
{
	int64_t s = ms < 0 ? 0 : ms / 1000;

	if (ms < 1000)
		strbuf_addf(out, "%" PRId64 " ms", ms < 0 ? 0 : ms);
	else if (s < 60)
		strbuf_addf(out, "%" PRId64 ".%" PRId64 " s", s, ms % 1000 / 100);
	else if (s < 3600)
		strbuf_addf(out, "%" PRId64 " m %02" PRId64 " s", s / 60, s % 60);
	else if (s < 86400)
		strbuf_addf(out, "%" PRId64 " h %02" PRId64 " m", s / 3600, s / 60 % 60);
	else
		strbuf_addf(out, "%" PRId64 " d %02" PRId64 " h", s / 86400, s / 3600 % 24);
}
