/* sd_notify and socket activation, spoken directly. */
#include "api/systemd.h"
#include "base/str.h"
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_FD_FIRST 3

void systemd_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;
	if (!n || n >= sizeof(addr.sun_path))
		return;
	memcpy(addr.sun_path, path, n);
	if (path[0] == '@')
		addr.sun_path[0] = 0;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
	close(fd);
}

static int64_t env_number(const char *name)
{
	int64_t v = 0;
	const char *text = getenv(name);
	return text && str_to_i64(text, name, 0, INT64_MAX / 2, &v, NULL) == ERR_OK ? v : 0;
}

int64_t systemd_watchdog_interval_ms(void)
{
	int64_t pid = env_number("WATCHDOG_PID");
	return pid && pid != getpid() ? 0 : env_number("WATCHDOG_USEC") / 2000;
}

int systemd_listen_fd(void)
{
	int type = 0;
	socklen_t n = sizeof(type);
	if (env_number("LISTEN_PID") != getpid() || env_number("LISTEN_FDS") < 1)
		return -1;
	unsetenv("LISTEN_PID"); /* not for our children */
	unsetenv("LISTEN_FDS");
	fcntl(LISTEN_FD_FIRST, F_SETFD, FD_CLOEXEC);
	if (getsockopt(LISTEN_FD_FIRST, SOL_SOCKET, SO_DOMAIN, &type, &n) < 0 || type != AF_UNIX)
		return -1;
	fcntl(LISTEN_FD_FIRST, F_SETFL, fcntl(LISTEN_FD_FIRST, F_GETFL) | O_NONBLOCK);
	return LISTEN_FD_FIRST;
}
