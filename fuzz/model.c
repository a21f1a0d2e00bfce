/* libFuzzer: what the model room reads from outside.  The first byte chooses the reader: run token, reply stream (cut in two), plain
 * reply, Responses request played by a scenario, both of them from outside (divided by a NUL), Messages request, scenario file. */
#include "base/cleanup.h"
#include "base/js.h"
#include "base/mem.h"
#include "model/messages.h"
#include "model/meter.h"
#include "model/play.h"
#include "model/scenario.h"
#include "model/token.h"
#include "model/turn.h"
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void fuzz_token(const char *text)
{
	static const unsigned char key[TOKEN_KEY_BYTES];
	AUTO_CLAIMS struct token_claims c = { .run = NULL };

	(void)!token_verify(key, text, 1, &c, NULL);
}

static void fuzz_meter(const char *data, size_t n, bool sse)
{
	struct meter m;

	meter_init(&m, sse);
	meter_feed(&m, data, n / 3);
	meter_feed(&m, data + n / 3, n - n / 3);
	meter_finish(&m);
	meter_release(&m);
}

static bool always(void *ctx, const char *key, int64_t times)
{
	(void)ctx, (void)key;
	return times > 1;
}

static const char some_scenario[] = "scenarios: [{default: true, steps: [{say: a}, {shell: b}, {expect: c}, {patch: d}, {plan: []}, {final: {e: f}}]}]";

static void fuzz_turn(const char *yaml, const char *data, size_t n)
{
	AUTO_JS struct js *request = js_parse(data, n, NULL);
	AUTO_SCRIPT struct script s = { .doc = NULL };
	AUTO_TURN struct turn t = { .request = NULL };
	AUTO_PLAY struct play p = { .status = 0 };
	const struct play_counter counter = { always, NULL };

	if (request == NULL || turn_read(request, &t, NULL) != ERR_OK || script_parse(yaml, strlen(yaml), &s, NULL) != ERR_OK)
		return;
	play_make(script_find(&s, t.prompt), &t, &counter, &p);
}

static void fuzz_both(const char *data, size_t n)
{
	const char *nul = memchr(data, '\0', n);

	if (nul)
		fuzz_turn(data, nul + 1, n - (size_t)(nul + 1 - data));
}

static void fuzz_messages(const char *data, size_t n)
{
	AUTO_JS struct js *request = js_parse(data, n, NULL);
	AUTO_SCRIPT struct script s = { .doc = NULL };
	AUTO_TURN struct turn t = { .request = NULL };
	AUTO_PLAY struct play p = { .status = 0 };
	const struct play_counter counter = { always, NULL };

	if (request)
		js_free(messages_for_record(js_get(request, "messages")));
	if (request == NULL || turn_read_messages(request, &t, NULL) != ERR_OK || script_parse(some_scenario, strlen(some_scenario), &s, NULL) != ERR_OK)
		return;
	play_make(script_find(&s, t.prompt), &t, &counter, &p);
}

static void fuzz_script(const char *data, size_t n)
{
	AUTO_SCRIPT struct script s = { .doc = NULL };

	(void)!script_parse(data, n, &s, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	AUTO_FREE char *text = NULL;

	if (n == 0)
		return 0;
	text = mem_strndup((const char *)data + 1, n - 1);
	switch (data[0] % 7) {
	case 0: fuzz_token(text); break;
	case 1: fuzz_meter((const char *)data + 1, n - 1, true); break;
	case 2: fuzz_meter((const char *)data + 1, n - 1, false); break;
	case 3: fuzz_turn(some_scenario, (const char *)data + 1, n - 1); break;
	case 4: fuzz_both((const char *)data + 1, n - 1); break;
	case 5: fuzz_messages((const char *)data + 1, n - 1); break;
	default: fuzz_script((const char *)data + 1, n - 1); break;
	}
	return 0;
}
