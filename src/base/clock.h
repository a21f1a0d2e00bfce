/* Time, randomness and identifiers from one place, so that tests own them (clock_test_set).
 * Wall time is ms since 1970 UTC, for people; monotonic time is ms for every deadline. */
#pragma once
#include "base/strbuf.h"
#include <stdbool.h>
#include <stdint.h>

#define RFC3339_SIZE 25 /* 2026-11-20T10:11:12.123Z and NUL */
#define ID_SIZE 27	/* 26 characters and NUL */

int64_t clock_wall_ms(void);
int64_t clock_mono_ms(void);
int64_t clock_mono_us(void);
const char *clock_boot_id(void); /* of this boot; "" where the kernel does not say */
void clock_rfc3339(int64_t wall_ms, char ret[RFC3339_SIZE]);
int64_t clock_parse_rfc3339(const char *s); /* -1 when it is not one */
void clock_random(void *buf, size_t n);
/* Time-ordered global identifier: 48 bits of ms, 80 random bits, Crockford base32 in lower case (the layout of ULID);
 * monotonic within the process. Thread-safe. */
void clock_new_id(char ret[ID_SIZE]);
bool clock_is_id(const char *s);
void clock_test_set(int64_t (*wall_ms)(void), int64_t (*mono_ms)(void)); /* NULL: the real one */
