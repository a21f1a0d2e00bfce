/* Starting threads; what they do with signals is their starters' business. */
#include "base/thread.h"

int thread_start(pthread_t *ret, size_t stack_bytes, void *(*run)(void *arg), void *arg)
{
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, stack_bytes);
	int rc = pthread_create(ret, &attr, run, arg);
	pthread_attr_destroy(&attr);
	return rc;
}
