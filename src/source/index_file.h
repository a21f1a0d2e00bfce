/* git's index file (version 2 and 3) as a list of names, for indexes that our own git wrote: reading 30 000 names this way
 * takes a millisecond instead of a process. Nothing from an agent is ever parsed here. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include <stdbool.h>
#include <stdint.h>

#define INDEX_FILE_MAX ((size_t)512 << 20) /* bytes: about 5 million files */
#define INDEX_MODE_LINK 0120000u
#define INDEX_MODE_GITLINK 0160000u
#define INDEX_STAT_SIZE 36 /* where in an entry's stat the size is */

struct index_file {
	struct strbuf data;
	size_t at; /* of the next entry */
	uint32_t left;
};

struct index_entry {
	const char *name; /* NUL-terminated, within the data */
	size_t name_len;
	uint32_t mode, size;
	const unsigned char *id; /* 20 bytes */
	unsigned char *stat; /* ctime, mtime (seconds, nanoseconds), dev, ino, mode, uid, gid, size: big-endian 32-bit words */
};

MUST_USE enum err_code index_load(const char *path, struct index_file *ret, struct error *e);
void index_release(struct index_file *x);
/* false at the end, or when the file is not what it should be: then x->left is not 0. */
bool index_next(struct index_file *x, struct index_entry *ret);
void index_rewind(struct index_file *x);
/* All of it was walked. */
MUST_USE enum err_code index_check_end(const struct index_file *x, const char *path, struct error *e);

uint32_t index_get_u32(const unsigned char *p);
void index_put_u32(unsigned char *p, uint32_t v);
