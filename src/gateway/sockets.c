/* Taking the sockets over. */
#include "gateway/sockets.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/client.h"
#include "net/server.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOCKET_DIR_MODE 0711 /* every run's user may reach the socket by its name */

static enum err_code socket_bind(const char *path, mode_t mode, struct gateway_socket *ret, char **ret_temporary, struct error *e)
{
	AUTO_FREE char *dir = file_dirname(path);
	char *temporary = mem_printf("%s.%ld", path, (long)getpid());
	struct stat st;
	bool made = !file_is_dir(dir);
	enum err_code rc = file_mkdirs(dir, SOCKET_DIR_MODE, e);

	*ret_temporary = temporary;
	if (rc == ERR_OK && made && chmod(dir, SOCKET_DIR_MODE) != 0) /* whatever the umask is */
		rc = error_errno(e, "open the directory '%s' to the runs", dir);
	if (rc == ERR_OK)
		rc = http_listen_unix(temporary, mode, &ret->fd, e);
	if (rc != ERR_OK)
		return rc;
	ret->path = mem_strdup(path);
	if (lstat(temporary, &st) != 0)
		return error_errno(e, "look at the socket '%s'", temporary);
	ret->device = st.st_dev;
	ret->inode = st.st_ino;
	return ERR_OK;
}

static enum err_code socket_place(const char *temporary, const char *path, struct error *e)
{
	return rename(temporary, path) == 0 ? ERR_OK : error_errno(e, "put the socket '%s' in its place", path);
}

/* A second name of the old control socket, so that its owner can be spoken to when the first is ours. NULL: there is no old one. */
static char *old_keep(const char *control_path)
{
	AUTO_FREE char *old = mem_printf("%s.%ld.old", control_path, (long)getpid());

	(void)unlink(old);
	return link(control_path, old) == 0 ? TAKE_PTR(old) : NULL;
}

static void old_drain(const char *old)
{
	const struct client_config cfg = { .socket = old, .connect_timeout_ms = SOCKETS_DRAIN_CALL_MS, .timeout_ms = SOCKETS_DRAIN_CALL_MS };
	AUTO_JS struct js *body = NULL;
	struct client *c = NULL;
	struct error e = ERROR_INIT;
	int status = 0;

	if (client_open(&cfg, &c, &e) == ERR_OK && client_call(c, "POST", "/drain", NULL, &status, &body, &e) == ERR_OK)
		log_info("took over from pid=%lld active=%lld", (long long)js_i64(body, "pid", 0), (long long)js_i64(body, "active", 0));
	else if (e.code != ERR_UNREACHABLE) /* nobody there: the old one died */
		log_warn("the old gateway did not drain: %s", e.text);
	client_close(c);
	(void)unlink(old);
}

static enum err_code sockets_place(struct gateway_sockets *s, char *const temporary[2], struct error *e)
{
	AUTO_FREE char *old = old_keep(s->control.path);
	enum err_code rc = socket_place(temporary[0], s->model.path, e);

	if (rc == ERR_OK)
		rc = socket_place(temporary[1], s->control.path, e);
	if (old != NULL)
		old_drain(old);
	return rc;
}

enum err_code sockets_take(const char *model_path, const char *control_path, struct gateway_sockets *ret, struct error *e)
{
	char *temporary[2] = { NULL, NULL };
	enum err_code rc = socket_bind(model_path, 0666, &ret->model, &temporary[0], e);

	if (rc == ERR_OK)
		rc = socket_bind(control_path, 0600, &ret->control, &temporary[1], e);
	if (rc == ERR_OK)
		rc = sockets_place(ret, temporary, e);
	for (int i = 0; i < 2; i++) {
		if (rc != ERR_OK && temporary[i] != NULL)
			(void)unlink(temporary[i]);
		free(temporary[i]);
	}
	return rc;
}

static void socket_release(struct gateway_socket *s)
{
	struct stat st;

	if (s->path != NULL && lstat(s->path, &st) == 0 && st.st_dev == s->device && st.st_ino == s->inode)
		(void)unlink(s->path);
	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	s->path = NULL;
	s->fd = -1;
}

void sockets_release(struct gateway_sockets *s)
{
	socket_release(&s->model);
	socket_release(&s->control);
}
