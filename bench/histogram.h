/* Latencies of a load generator: counted, not kept. */
#pragma once
#include <stdint.h>

/* Log-linear histogram of microseconds: 64 steps per power of two, so within 1.6 %. */
#define STEPS 64
#define POWERS 32
struct histogram { uint64_t count[POWERS][STEPS], n; };

static void histogram_add(struct histogram *h, int64_t us)
{
	uint64_t v = us < 0 ? 0 : (uint64_t)us;
	int power = v < STEPS ? 0 : 63 - __builtin_clzll(v) - 5;
	if (power >= POWERS)
		power = POWERS - 1;
	uint64_t step = power ? (v >> power) : v;
	h->count[power][step < STEPS ? step : STEPS - 1]++;
	h->n++;
}

static void histogram_merge(struct histogram *to, const struct histogram *from)
{
	for (int p = 0; p < POWERS; p++)
		for (int s = 0; s < STEPS; s++)
			to->count[p][s] += from->count[p][s];
	to->n += from->n;
}

static double histogram_ms(const struct histogram *h, double share)
{
	uint64_t left = (uint64_t)((double)h->n * share);
	for (int p = 0; p < POWERS; p++)
		for (uint64_t s = 0; s < STEPS; s++) {
			if (left < h->count[p][s])
				return (double)(s << p) / 1000.0;
			left -= h->count[p][s];
		}
	return 0;
}
