/* Listening sockets: who may connect is settled before anybody can. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/server.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024

static enum err_code address_of(const char *path, struct sockaddr_un *ret, struct error *e)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	size_t n = strlen(path);
	if (n == 0 || n > HTTP_SOCKET_PATH_MAX) {
		error_set(e, ERR_INVALID, "the socket path '%s' has %zu bytes; the system's limit is %d", path, n, HTTP_SOCKET_PATH_MAX);
		error_hint(e, "choose a shorter runtime directory");
		return ERR_INVALID;
	}
	memcpy(ret->sun_path, path, n);
	return ERR_OK;
}

/* A socket file outlives its server; whether one is dead only a connect can tell. */
static enum err_code dead_remove(const char *path, const struct sockaddr_un *address, struct error *e)
{
	struct stat st;
	if (lstat(path, &st))
		return errno == ENOENT ? ERR_OK : error_errno(e, "look at the socket '%s'", path);
	if (!S_ISSOCK(st.st_mode))
		return error_set(e, ERR_CONFLICT, "'%s' exists and is not a socket", path);
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_errno(e, "make a socket");
	bool lives = !connect(fd, (const struct sockaddr *)address, sizeof(*address)) || errno == EAGAIN || errno == EINPROGRESS;
	if (lives) {
		error_set(e, ERR_CONFLICT, "another server listens on '%s'", path);
		error_hint(e, "use that one, or stop it first");
		return ERR_CONFLICT;
	}
	if (errno != ECONNREFUSED && errno != ENOENT)
		return error_errno(e, "try the socket '%s'", path);
	return unlink(path) && errno != ENOENT ? error_errno(e, "remove the dead socket '%s'", path) : ERR_OK;
}

enum err_code http_listen_unix(const char *path, mode_t mode, int *ret_fd, struct error *e)
{
	struct sockaddr_un address;
	enum err_code rc = address_of(path, &address, e);
	if (!rc)
		rc = dead_remove(path, &address, e);
	if (rc)
		return rc;
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_errno(e, "make a socket");
	/* The file takes its mode from the socket's, less the umask (which is the whole process's, so left alone). */
	if (fchmod(fd, mode) || bind(fd, (const struct sockaddr *)&address, sizeof(address)))
		return error_errno(e, "make the socket '%s'", path);
	if (chmod(path, mode) || listen(fd, BACKLOG)) {
		rc = error_errno(e, "listen on '%s'", address.sun_path);
		(void)unlink(path);
		return rc;
	}
	*ret_fd = TAKE_FD(fd);
	return ERR_OK;
}

/* "host:port", "[v6]:port" -> host without brackets, port. */
static enum err_code address_split(const char *addr, char **ret_host, const char **ret_port, struct error *e)
{
	const char *colon = strrchr(addr, ':');
	size_t n = colon ? (size_t)(colon - addr) : 0;
	bool brackets = n > 2 && addr[0] == '[' && addr[n - 1] == ']';
	int64_t port;
	if (!colon || n == 0 || (!brackets && memchr(addr, ':', n))) {
		error_set(e, ERR_INVALID, "'%s' is not an address to listen on", addr);
		error_hint(e, "write it as 127.0.0.1:8080 or [::1]:8080");
		return ERR_INVALID;
	}
	enum err_code rc = str_to_i64(colon + 1, "port", 0, UINT16_MAX, &port, e);
	if (rc)
		return error_wrap(e, "listen on '%s'", addr);
	*ret_host = brackets ? mem_strndup(addr + 1, n - 2) : mem_strndup(addr, n);
	*ret_port = colon + 1;
	return ERR_OK;
}

static int socket_open(const struct addrinfo *a)
{
	int one = 1;
	AUTO_CLOSE int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) || bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, BACKLOG))
		return -1;
	return TAKE_FD(fd);
}

static int port_of(int fd)
{
	struct sockaddr_storage at = { 0 };
	socklen_t n = sizeof(at);
	if (getsockname(fd, (struct sockaddr *)&at, &n))
		return -1;
	return ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port : ((struct sockaddr_in *)&at)->sin_port);
}

enum err_code http_listen_tcp(const char *addr, int *ret_fd, int *ret_port, struct error *e)
{
	AUTO_FREE char *host = NULL;
	const char *port = NULL;
	enum err_code rc = address_split(addr, &host, &port, e);
	if (rc)
		return rc;
	struct addrinfo want = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV }, *found = NULL;
	int no = getaddrinfo(host, port, &want, &found);
	if (no)
		return error_set(e, ERR_INVALID, "listen on '%s': %s", addr, gai_strerror(no));
	int fd = socket_open(found);
	if (fd < 0)
		rc = error_errno(e, "listen on '%s'", addr);
	freeaddrinfo(found);
	if (rc)
		return rc;
	*ret_fd = fd;
	*ret_port = port_of(fd);
	return ERR_OK;
}
