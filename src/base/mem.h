/* Memory that is always there: small allocations that fail end the process (a supervisor out of memory is restarted and
 * goes on from the record).  Sizes that come from outside are checked against a named limit before they get here. */
#pragma once
#include <stddef.h>

void *mem_alloc(size_t n);		 /* zeroed; never NULL; n may be 0 */
void *mem_grow(void *p, size_t n);	 /* realloc; never NULL */
char *mem_strdup(const char *s);	 /* NULL gives NULL */
char *mem_strndup(const char *s, size_t n);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* for names and paths only: never SQL, JSON or shell */
#define NEW(type) ((type *)mem_alloc(sizeof(type)))
