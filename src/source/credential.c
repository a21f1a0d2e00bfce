/* Packing and unpacking a credential: its parts one after the other, each ended by a NUL byte. */
#include "source/credential.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/try.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define PARTS 4

static const char kind_key[] = "ssh", kind_password[] = "http";

enum err_code credential_pack(const struct credential *c, int *ret_fd, struct error *e)
{
	const char *parts[PARTS] = { c->is_key ? kind_key : kind_password, c->user ? c->user : "", c->secret, c->known_hosts ? c->known_hosts : "" };
	AUTO_CLOSE int fd = memfd_create("credential", MFD_CLOEXEC);
	size_t total = 0;

	if (fd < 0)
		return error_errno(e, "make a memory file");
	for (size_t i = 0; i < PARTS; i++) {
		total += strlen(parts[i]) + 1;
		TRY(file_write_all(fd, parts[i], strlen(parts[i]) + 1, e));
	}
	if (total > CREDENTIAL_MAX)
		return error_set(e, ERR_LIMIT, "the credential is larger than %zu bytes", CREDENTIAL_MAX);
	if (lseek(fd, 0, SEEK_SET) < 0)
		return error_errno(e, "rewind a memory file");
	*ret_fd = TAKE_FD(fd);
	return ERR_OK;
}

/* Into memory of its final size: a buffer that grows would leave copies behind. */
static enum err_code read_whole(int fd, char *memory, size_t *ret_len, struct error *e)
{
	size_t len = 0;
	ssize_t n;

	while (len < CREDENTIAL_MAX && (n = read(fd, memory + len, CREDENTIAL_MAX - len)) != 0) {
		if (n < 0 && errno != EINTR)
			return error_errno(e, "read the credential");
		len += n > 0 ? (size_t)n : 0;
	}
	if (ftruncate(fd, 0) < 0 && errno != EINVAL) /* a memory file's other descriptors see nothing any more */
		return error_errno(e, "wipe the credential");
	*ret_len = len;
	return ERR_OK;
}

static enum err_code take_apart(struct credential *c, size_t len, struct error *e)
{
	const char *parts[PARTS], *at = c->memory, *end = c->memory + len;

	for (size_t i = 0; i < PARTS; i++) {
		const char *nul = memchr(at, '\0', (size_t)(end - at));

		if (!nul)
			return error_set(e, ERR_INVALID, "descriptor %d gives no whole credential", CREDENTIAL_FD);
		parts[i] = at;
		at = nul + 1;
	}
	c->is_key = str_eq(parts[0], kind_key);
	c->user = parts[1];
	c->secret = parts[2];
	c->known_hosts = parts[3];
	return ERR_OK;
}

enum err_code credential_read(int fd, struct credential *ret, struct error *e)
{
	struct credential c = { .memory = mem_alloc(CREDENTIAL_MAX + 1) };
	size_t len = 0;
	enum err_code code = read_whole(fd, c.memory, &len, e);

	if (code == ERR_OK)
		code = take_apart(&c, len, e);
	if (code == ERR_OK)
		*ret = c;
	else
		credential_release(&c);
	return code;
}

void credential_release(struct credential *c)
{
	if (c->memory)
		explicit_bzero(c->memory, CREDENTIAL_MAX);
	free(c->memory);
	*c = (struct credential){ .memory = NULL };
}

bool credential_fits(const struct credential *c, enum url_kind kind)
{
	return c && c->secret && (c->is_key ? kind == URL_SSH : kind == URL_HTTP || kind == URL_HTTPS);
}
