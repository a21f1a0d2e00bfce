/* The lock that says who is there. */
#include "gateway/users.h"
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#define LOOKS_PER_LINGER 8
#define LOOK_MIN_MS 50
#define LOOK_MAX_MS 5000

enum err_code users_open(const char *path, int64_t linger_ms, struct users *ret, struct error *e)
{
	*ret = (struct users)USERS_INIT;
	if (path == NULL)
		return ERR_OK;
	ret->linger_ms = linger_ms;
	ret->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return ret->fd < 0 ? error_errno(e, "open '%s'", path) : ERR_OK;
}

void users_release(struct users *u)
{
	if (u->fd >= 0)
		close(u->fd);
	u->fd = -1;
}

int64_t users_next_ms(const struct users *u)
{
	return u->fd < 0 ? INT64_MAX : u->look_ms;
}

bool users_are_gone(struct users *u, int64_t now_ms)
{
	int64_t pause = u->linger_ms / LOOKS_PER_LINGER;

	if (u->fd < 0 || now_ms < u->look_ms)
		return false;
	u->look_ms = now_ms + (pause < LOOK_MIN_MS ? LOOK_MIN_MS : pause > LOOK_MAX_MS ? LOOK_MAX_MS : pause);
	if (flock(u->fd, LOCK_EX | LOCK_NB) != 0) {
		u->alone_since_ms = 0;
		return false;
	}
	if (u->alone_since_ms == 0)
		u->alone_since_ms = now_ms;
	if (now_ms - u->alone_since_ms >= u->linger_ms)
		return true;
	(void)flock(u->fd, LOCK_UN);
	return false;
}
