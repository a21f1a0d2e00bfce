/* Time, randomness and identifiers.  The test hooks are atomics, so that a test may own time while threads read it. */
#include "base/clock.h"
#include "base/check.h"
#include "base/err.h"
#include "base/file.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

typedef int64_t clock_fn(void);

static _Atomic(clock_fn *) test_wall, test_mono;

static int64_t read_us(clockid_t id)
{
	struct timespec t;

	CHECK(clock_gettime(id, &t) == 0);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_wall_ms(void)
{
	clock_fn *test = atomic_load(&test_wall);

	return test ? test() : read_us(CLOCK_REALTIME) / 1000;
}

int64_t clock_mono_us(void)
{
	clock_fn *test = atomic_load(&test_mono);

	return test ? test() * 1000 : read_us(CLOCK_MONOTONIC);
}

int64_t clock_mono_ms(void)
{
	return clock_mono_us() / 1000;
}

void clock_test_set(int64_t (*wall_ms)(void), int64_t (*mono_ms)(void))
{
	atomic_store(&test_wall, wall_ms);
	atomic_store(&test_mono, mono_ms);
}

static char boot_id[40];
static pthread_once_t boot_id_once = PTHREAD_ONCE_INIT;

static void read_boot_id(void)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(sizeof(boot_id) - 1);

	if (file_read("/proc/sys/kernel/random/boot_id", sizeof(boot_id) - 1, &text, NULL) != ERR_OK)
		return;
	size_t n = strcspn(strbuf_str(&text), "\n");
	memcpy(boot_id, strbuf_str(&text), n);
}

const char *clock_boot_id(void)
{
	pthread_once(&boot_id_once, read_boot_id);
	return boot_id;
}

static void put(char *at, int width, int value)
{
	while (width-- > 0) {
		at[width] = (char)('0' + value % 10);
		value /= 10;
	}
}

void clock_rfc3339(int64_t wall_ms, char ret[RFC3339_SIZE])
{
	const int64_t latest = 253402300799999; /* the end of the year 9999: four digits are all there is */
	struct tm t;

	wall_ms = wall_ms < 0 ? 0 : wall_ms > latest ? latest : wall_ms;
	time_t s = (time_t)(wall_ms / 1000);
	CHECK(gmtime_r(&s, &t));
	memcpy(ret, "0000-00-00T00:00:00.000Z", RFC3339_SIZE);
	put(ret, 4, t.tm_year + 1900);
	put(ret + 5, 2, t.tm_mon + 1);
	put(ret + 8, 2, t.tm_mday);
	put(ret + 11, 2, t.tm_hour);
	put(ret + 14, 2, t.tm_min);
	put(ret + 17, 2, t.tm_sec);
	put(ret + 20, 3, (int)(wall_ms % 1000));
}

/* Exactly `width` digits between min and max; -1 otherwise.  Moves *s on. */
static int take(const char **s, int width, int min, int max)
{
	int v = 0;

	for (; width > 0; width--, (*s)++) {
		if (**s < '0' || **s > '9')
			return -1;
		v = v * 10 + (**s - '0');
	}
	return v < min || v > max ? -1 : v;
}

static bool take_char(const char **s, char c)
{
	bool same = **s == c || (c >= 'A' && c <= 'Z' && **s == (c | 0x20));

	*s += same;
	return same;
}

static int days_in_month(int year, int month)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap);
}

/* Days since 1970-01-01 of a date in 1970 or later. */
static int64_t days_since_epoch(int year, int month, int day)
{
	int y = year - 1;
	int64_t days = (int64_t)y * 365 + y / 4 - y / 100 + y / 400 - 719162;

	for (int m = 1; m < month; m++)
		days += days_in_month(year, m);
	return days + day - 1;
}

/* ".123456" in ms, "" is 0; -1 for a point without digits. */
static int take_fraction(const char **s)
{
	int ms = 0, digits = 0;

	if (!take_char(s, '.'))
		return 0;
	for (; **s >= '0' && **s <= '9'; (*s)++, digits++)
		if (digits < 3)
			ms = ms * 10 + (**s - '0');
	for (int i = digits; i < 3; i++)
		ms *= 10;
	return digits ? ms : -1;
}

/* "Z" or "+02:00" in minutes; false when it is neither or something follows. */
static bool take_zone(const char *s, int *ret)
{
	*ret = 0;
	if (take_char(&s, 'Z'))
		return !*s;
	int sign = *s == '+' ? 1 : *s == '-' ? -1 : 0;
	s += sign != 0;
	int hours = sign ? take(&s, 2, 0, 23) : -1;
	int minutes = hours >= 0 && take_char(&s, ':') ? take(&s, 2, 0, 59) : -1;
	*ret = sign * (hours * 60 + minutes);
	return minutes >= 0 && !*s;
}

int64_t clock_parse_rfc3339(const char *s)
{
	int month, day, hour, minute, second, ms, zone;

	if (!s)
		return -1;
	int year = take(&s, 4, 1970, 9999);
	if (year < 0 || !take_char(&s, '-') || (month = take(&s, 2, 1, 12)) < 0 || !take_char(&s, '-') ||
	    (day = take(&s, 2, 1, days_in_month(year, month))) < 0)
		return -1;
	if (!take_char(&s, 'T') || (hour = take(&s, 2, 0, 23)) < 0 || !take_char(&s, ':') ||
	    (minute = take(&s, 2, 0, 59)) < 0 || !take_char(&s, ':') || (second = take(&s, 2, 0, 59)) < 0 ||
	    (ms = take_fraction(&s)) < 0 || !take_zone(s, &zone))
		return -1;
	int64_t minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - zone;
	return minutes < 0 ? -1 : (minutes * 60 + second) * 1000 + ms;
}

void clock_random(void *buf, size_t n)
{
	char *p = buf;

	while (n) {
		ssize_t got = getrandom(p, n, 0);
		CHECK(got > 0 || errno == EINTR); /* a guessable identifier or token is worse than none */
		if (got > 0) {
			p += got;
			n -= (size_t)got;
		}
	}
}

static const char crockford[] = "0123456789abcdefghjkmnpqrstvwxyz";
#define ID_BYTES 16
#define ID_TIME_BYTES 6

/* The last identifier given out; guarded by id_lock. */
static unsigned char id_last[ID_BYTES];
static pthread_mutex_t id_lock = PTHREAD_MUTEX_INITIALIZER;

/* Within one millisecond, or when the wall clock steps back, order is kept by counting the last one up. */
static void id_count_up(void)
{
	for (int i = ID_BYTES - 1; i >= 0; i--)
		if (++id_last[i])
			return;
}

static void id_next(unsigned char ret[ID_BYTES])
{
	unsigned char now[ID_TIME_BYTES];
	int64_t ms = clock_wall_ms();

	for (int i = 0; i < ID_TIME_BYTES; i++)
		now[i] = (unsigned char)(ms >> (8 * (ID_TIME_BYTES - 1 - i)));
	pthread_mutex_lock(&id_lock);
	if (memcmp(now, id_last, ID_TIME_BYTES) > 0) {
		memcpy(id_last, now, ID_TIME_BYTES);
		clock_random(id_last + ID_TIME_BYTES, ID_BYTES - ID_TIME_BYTES);
	} else {
		id_count_up();
	}
	memcpy(ret, id_last, ID_BYTES);
	pthread_mutex_unlock(&id_lock);
}

void clock_new_id(char ret[ID_SIZE])
{
	unsigned char id[ID_BYTES];
	unsigned bits = 0, have = 2; /* 130 bits in 26 characters: two leading zero bits */
	int n = 0;

	id_next(id);
	for (int i = 0; i < ID_BYTES; i++) {
		bits = bits << 8 | id[i];
		for (have += 8; have >= 5; have -= 5)
			ret[n++] = crockford[bits >> (have - 5) & 31];
	}
	ret[n] = 0;
	CHECK(n == ID_SIZE - 1);
}

bool clock_is_id(const char *s)
{
	if (!s || strlen(s) != ID_SIZE - 1 || s[0] > '7')
		return false;
	return strspn(s, crockford) == ID_SIZE - 1;
}
