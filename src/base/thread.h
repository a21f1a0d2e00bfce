/* A thread with a stack of a stated size: the default of 8 MB is address space that limits count, and most of ours need little. */
#pragma once
#include <pthread.h>
#include <stddef.h>

int thread_start(pthread_t *ret, size_t stack_bytes, void *(*run)(void *arg), void *arg); /* 0, or an errno; the caller joins or detaches it */
