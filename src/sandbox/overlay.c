/* Mounts the layers.  The directories are named by descriptor (/proc/self/fd/N), so that no character of a path needs quoting and
 * mountinfo inside the sandbox does not show the host's paths.  index=on makes the kernel refuse a second mount of one upper, also
 * across namespaces: the fence against two runners in one workspace.  userxattr is what a user namespace needs for deletions and
 * renames of directories. */
#include "sandbox/overlay.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>

#define FENCED "userxattr,index=on"
#define UNFENCED "userxattr,index=off" /* for an upper that was made over layers that were since made anew (ESTALE with the index) */

struct layer_fds {
	int fds[SANDBOX_LOWERS_MAX + 2];
	int count;
};

static void layer_fds_close(struct layer_fds *f)
{
	while (f->count > 0)
		close(f->fds[--f->count]);
}

static enum err_code layer_open(struct layer_fds *f, const char *path, struct error *e)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return error_errno(e, "open layer '%s'", path);
	f->fds[f->count++] = fd;
	return ERR_OK;
}

static enum err_code layers_open(const struct sandbox_layers *l, struct layer_fds *ret, struct error *e)
{
	enum err_code rc = ERR_OK;

	for (int i = 0; rc == ERR_OK && i < l->lower_count; i++)
		rc = layer_open(ret, l->lower[i], e);
	if (rc == ERR_OK)
		rc = layer_open(ret, l->upper, e);
	return rc == ERR_OK ? layer_open(ret, l->work, e) : rc;
}

static char *mount_options(const struct layer_fds *f, const char *first)
{
	struct strbuf o = STRBUF_INIT;
	int lowers = f->count - 2;

	strbuf_addf(&o, "%s,lowerdir=", first);
	for (int i = 0; i < lowers; i++)
		strbuf_addf(&o, "%s/proc/self/fd/%d", i ? ":" : "", f->fds[i]);
	strbuf_addf(&o, ",upperdir=/proc/self/fd/%d,workdir=/proc/self/fd/%d", f->fds[lowers], f->fds[lowers + 1]);
	return strbuf_detach(&o);
}

static int mount_once(const struct layer_fds *f, const char *merged, const char *first)
{
	AUTO_FREE char *options = mount_options(f, first);

	return mount("workspace", merged, "overlay", MS_NODEV | MS_NOSUID, options) == 0 ? 0 : errno;
}

/* Busy may only mean that the last run's namespace is still being taken down. */
static int mount_when_free(const struct layer_fds *f, const char *merged, const char *first, int cancel_fd)
{
	int64_t until = clock_mono_ms() + OVERLAY_BUSY_WAIT_MS;
	int error;

	while ((error = mount_once(f, merged, first)) == EBUSY && clock_mono_ms() < until) {
		struct pollfd p = { .fd = cancel_fd, .events = POLLIN };

		if (poll(&p, 1, OVERLAY_BUSY_STEP_MS) > 0)
			return ECANCELED;
	}
	return error;
}

static enum err_code mount_failed(const struct sandbox_layers *l, int error, struct error *e)
{
	if (error == EBUSY)
		return error_set(e, ERR_BUSY, "workspace '%s': another run still has it mounted", l->upper);
	if (error == EPERM || error == ENODEV || error == EINVAL || error == ENOSYS) {
		enum err_code rc = error_set(e, ERR_UNSUPPORTED, "overlay mount at '%s' refused by this kernel (errno %d)", l->merged, error);
		error_hint(e, "see the kernel log; a file system without user xattrs (NFS, old overlay) cannot hold the upper layer");
		return rc;
	}
	errno = error;
	return error_errno(e, "mount the overlay at '%s'", l->merged);
}

enum err_code overlay_mount(const struct sandbox_layers *l, int cancel_fd, struct error *e)
{
	AUTO(layer_fds_close) struct layer_fds f = { .count = 0 };

	if (l->mode == LAYERS_PLAIN) {
		if (l->merged && mount(l->upper, l->merged, NULL, MS_BIND | MS_REC, NULL) < 0)
			return error_errno(e, "bind '%s' at '%s'", l->upper, l->merged);
		return ERR_OK;
	}
	enum err_code rc = layers_open(l, &f, e);
	if (rc != ERR_OK)
		return rc;
	int error = mount_when_free(&f, l->merged, FENCED, cancel_fd);
	if (error == ESTALE)
		error = mount_when_free(&f, l->merged, UNFENCED, cancel_fd);
	return error ? mount_failed(l, error, e) : ERR_OK;
}
