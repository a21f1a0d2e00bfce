/* The archive's bytes, before libarchive. */
#pragma once
#include "source/unpack.h"
#include <sys/types.h>
#include <unistd.h>

#define UNPACK_BLOCK ((size_t)256 << 10)

struct gunzip; /* of standard input */
bool gunzip_is_gzip(const unsigned char *head, size_t n);
struct gunzip *gunzip_new(void);
/* 0 at the end, -1 with the reason. */
ssize_t gunzip_read(struct gunzip *g, const void **ret, const char **ret_why);
/* Reads what is left: only then the checksum is known to be right. */
MUST_USE enum err_code gunzip_finish(struct gunzip *g, const char *last_entry, struct error *e);

MUST_USE enum err_code unpack_zip_check(int fd, int64_t size, struct error *e);
