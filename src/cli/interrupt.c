/* The one place of the command line that handles signals. */
#include "cli/interrupt.h"
#include "base/clock.h"
#include <poll.h>
#include <signal.h>
#include <stddef.h>

#define LOOK_MS 100 /* how late an interrupt may be seen when it arrives between the look and the wait */

static volatile int interrupted; /* a signal handler has no context: this is the program's only mutable global */

static void on_signal(int sig)
{
	interrupted = sig;
}

const volatile int *interrupt_watch(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	return &interrupted;
}

void interrupt_sleep(int64_t ms)
{
	int64_t until = clock_mono_ms() + ms;
	for (int64_t left = ms; left > 0 && !interrupted; left = until - clock_mono_ms())
		poll(NULL, 0, (int)(left < LOOK_MS ? left : LOOK_MS));
}
