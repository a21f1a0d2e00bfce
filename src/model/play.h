/* One response of the scripted model, made ready before its first byte: an HTTP error, or frames (bytes of the event stream,
 * waits, a cut, silence) and the whole response object for who asked without streaming. */
#pragma once
#include "base/js.h"
#include "model/scenario.h"
#include "model/turn.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAY_BYTES_PER_TOKEN 4

enum frame_kind { FRAME_DATA, FRAME_DELAY, FRAME_CUT, FRAME_HANG };

struct frame {
	enum frame_kind kind;
	char *data;
	size_t len;
	int64_t ms;
};

struct play {
	int status;		/* 200, or that of `error` */
	int64_t retry_after_s;	/* -1: none */
	struct js *error;	/* the body when status is not 200 */
	bool hang;		/* no answer at all */
	int64_t wait_ms;	/* before an error or a hang */
	struct frame *frames;
	size_t frame_count, frame_capacity;
	struct js *response;
};

/* How often a failing step was played for one conversation; the one thing that is not in the request. */
struct play_counter {
	bool (*take)(void *ctx, const char *key, int64_t times); /* true while `key` was taken fewer than `times` times */
	void *ctx;
};

/* `scenario` may be NULL: nothing matched, which is said as a 400. */
void play_make(const struct scenario *scenario, const struct turn *t, const struct play_counter *counter, struct play *ret);
void play_release(struct play *p);
#define AUTO_PLAY __attribute__((cleanup(play_release)))
/* {"error":{"message","type","code"}} */
struct js *play_error_body(const char *message, const char *type, const char *code);
