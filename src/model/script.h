/* The scripted model: an OpenAI Responses API and an Anthropic Messages API that play scenarios, for the demo, for tests, for trying a set-up without a key.
 * `signalbox model --script FILE --listen ADDR`.  argv[0] is the verb; returns the exit status. */
#pragma once
#include "base/opt.h"

#define SCRIPT_HANG_MAX_MS INT64_C(600000) /* a hanging answer is given up after this */
#define SCRIPT_COUNTERS_MAX 4096	   /* conversations whose failures are counted; beyond it the oldest is forgotten */
#define SCRIPT_BODY_MAX ((size_t)32 << 20)
#define SCRIPT_KEY_MAX ((size_t)4096)
#define SCRIPT_THREADS 4

extern const struct opt model_options[];
int model_main(int argc, char **argv);
