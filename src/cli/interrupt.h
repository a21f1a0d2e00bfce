/* Ctrl-C while following means: stop looking. The signal only sets a number that the waiting loops look at. */
#pragma once
#include <stdint.h>

/* From now on SIGINT and SIGTERM set *ret; before it they end the process as usual. A second SIGINT ends it at once. */
const volatile int *interrupt_watch(void);
/* Waits, but not past an interrupt. */
void interrupt_sleep(int64_t ms);
