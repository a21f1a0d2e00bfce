/* Cleanup at the declaration: the compiler releases what a scope holds on every way out.  TAKE_PTR and TAKE_FD hand a
 * resource over and leave nothing behind to release. */
#pragma once
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *pp) { free(*(void **)pp); }
static inline void cleanup_close(const int *fd) { if (*fd >= 0) close(*fd); }

#define AUTO_FREE __attribute__((cleanup(cleanup_free)))
#define AUTO_CLOSE __attribute__((cleanup(cleanup_close)))
#define AUTO(fn) __attribute__((cleanup(fn)))
#define TAKE_PTR(p) __extension__ ({ __typeof__(p) take_ = (p); (p) = NULL; take_; })
#define TAKE_FD(fd) __extension__ ({ int take_ = (fd); (fd) = -1; take_; })
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define UNUSED __attribute__((unused))
