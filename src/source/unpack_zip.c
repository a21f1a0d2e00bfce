/* What libarchive does not tell of a zip's entries: names with a NUL in them (it takes what stands before), and types that it takes for
 * files.  Only the central directory is looked at, only as far as it is what it should be; all else is libarchive's to judge. */
#include "source/unpack_input.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include <string.h>
#include <sys/stat.h>

#define END_LEN 22
#define END_SEARCH ((int64_t)65535 + END_LEN)
#define CENTRAL_LEN 46
#define CENTRAL_MAX ((uint32_t)256 << 20) /* bytes of a central directory that is looked at */
#define SYSTEM_UNIX 3

static uint32_t u16(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32(const unsigned char *p)
{
	return u16(p) | u16(p + 2) << 16;
}

static bool read_at(int fd, void *to, size_t n, int64_t at)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = pread(fd, (char *)to + done, n - done, at + (int64_t)done);

		if (r <= 0)
			return false;
		done += (size_t)r;
	}
	return true;
}

static const unsigned char *find_end(const unsigned char *tail, size_t n)
{
	for (size_t i = n < END_LEN ? 0 : n - END_LEN + 1; i-- > 0;)
		if (memcmp(tail + i, "PK\5\6", 4) == 0)
			return tail + i;
	return NULL;
}

static enum err_code check_entry(const unsigned char *x, size_t name_len, struct error *e)
{
	static const struct { unsigned type; const char *what; } not_ours[] = {
		{ S_IFIFO, "a named pipe" }, { S_IFSOCK, "a socket" }, { S_IFCHR, "a character device" }, { S_IFBLK, "a block device" },
	};
	AUTO_FREE char *name = mem_strndup((const char *)x + CENTRAL_LEN, name_len);
	unsigned type = (u32(x + 38) >> 16) & S_IFMT;

	if (memchr(x + CENTRAL_LEN, 0, name_len))
		return unpack_refuse(e, ERR_INVALID, name, "has a name with a NUL in it");
	for (size_t i = 0; x[5] == SYSTEM_UNIX && i < ARRAY_SIZE(not_ours); i++)
		if (type == not_ours[i].type)
			return unpack_refuse(e, ERR_INVALID, name, "is %s; only files, directories and links are taken", not_ours[i].what);
	return ERR_OK;
}

static enum err_code check_directory(const unsigned char *at, size_t n, struct error *e)
{
	while (n >= CENTRAL_LEN && memcmp(at, "PK\1\2", 4) == 0) {
		size_t name_len = u16(at + 28), len = CENTRAL_LEN + name_len + u16(at + 30) + u16(at + 32);

		if (len > n)
			return ERR_OK;
		TRY(check_entry(at, name_len, e));
		at += len;
		n -= len;
	}
	return ERR_OK;
}

enum err_code unpack_zip_check(int fd, int64_t size, struct error *e)
{
	size_t tail_len = (size_t)(size < END_SEARCH ? size : END_SEARCH);
	AUTO_FREE unsigned char *tail = mem_alloc(tail_len);
	AUTO_FREE unsigned char *directory = NULL;
	const unsigned char *end;
	uint32_t len;
	int64_t at;

	if (!read_at(fd, tail, tail_len, size - (int64_t)tail_len) || !(end = find_end(tail, tail_len)))
		return ERR_OK;
	len = u32(end + 12);
	at = size - (int64_t)tail_len + (end - tail) - (int64_t)len; /* where it ends, not where it says it begins: something may stand before the zip */
	if (u32(end + 16) == UINT32_MAX || len == UINT32_MAX || len > CENTRAL_MAX || at < 0)
		return ERR_OK;
	directory = mem_alloc(len);
	return read_at(fd, directory, len, at) ? check_directory(directory, len, e) : ERR_OK;
}
