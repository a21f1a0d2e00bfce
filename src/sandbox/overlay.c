/* Mounts the layers.  The directories are named by descriptor (/proc/self/fd/N), so that no character of a path needs quoting and
 * mountinfo inside the sandbox does not show the host's paths.  index=on makes the kernel refuse a second mount of one upper, also
 * across namespaces: the fence against two runners in one workspace.  userxattr is what a user namespace needs for deletions and
 * renames of directories.
 *
 * volatile spares a fsync for each file that is copied up and a sync of the whole file system at each unmount.  The kernel marks such a
 * layer and refuses to mount it again, since after a power cut it may hold anything.  We keep the boot's id on the work directory: of the same
 * boot, everything is still in the page cache and the mark is removed; of another, the layer is refused. */
#include "sandbox/overlay.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define BOOT_ID_MAX 64
#define BOOT_XATTR "user.signalbox.boot"
#define MARK_FILE "work/incompat/volatile/dirty"
#define FENCED "userxattr,volatile,index=on"
#define UNFENCED "userxattr,volatile,index=off" /* for an upper that was made over layers that were since made anew (ESTALE with the index) */

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

/* The kernel ties a work directory to its upper layer; callers give one work directory for several, so each gets its own below. */
static enum err_code work_make(const struct sandbox_layers *l, char **ret, struct error *e)
{
	struct stat st;

	if (stat(l->upper, &st) < 0)
		return error_errno(e, "open layer '%s'", l->upper);
	AUTO_FREE char *work = mem_printf("%s/%llu", l->work, (unsigned long long)st.st_ino);
	enum err_code rc = file_mkdirs(work, 0755, e);
	if (rc == ERR_OK)
		*ret = TAKE_PTR(work);
	return rc;
}

static void mark_remove(const char *work)
{
	AUTO_FREE char *dirty = file_join(work, MARK_FILE);
	AUTO_FREE char *kind = file_dirname(dirty);
	AUTO_FREE char *mark = file_dirname(kind);

	/* Absent when it was never mounted; what cannot be removed the kernel refuses to mount. */
	(void)unlink(dirty);
	(void)rmdir(kind);
	(void)rmdir(mark);
}

static enum err_code mark_check(const struct sandbox_layers *l, const char *work, struct error *e)
{
	AUTO_FREE char *mark = file_join(work, MARK_FILE);
	char used[BOOT_ID_MAX + 1] = "";
	const char *boot = clock_boot_id();
	ssize_t n = getxattr(work, BOOT_XATTR, used, BOOT_ID_MAX);

	if (n >= 0 && strcmp(used, boot) == 0) {
		mark_remove(work);
		return ERR_OK;
	}
	if (n >= 0 || file_exists(mark))
		return error_set(e, ERR_STALE, "workspace '%s': the machine went down after it was used, so what it holds cannot be trusted", l->upper);
	if (setxattr(work, BOOT_XATTR, boot, strlen(boot), 0) < 0)
		return error_errno(e, "note the boot on '%s'", work);
	return ERR_OK;
}

static enum err_code layers_open(const struct sandbox_layers *l, const char *work, struct layer_fds *ret, struct error *e)
{
	enum err_code rc = ERR_OK;

	for (int i = 0; rc == ERR_OK && i < l->lower_count; i++)
		rc = layer_open(ret, l->lower[i], e);
	if (rc == ERR_OK)
		rc = layer_open(ret, l->upper, e);
	return rc == ERR_OK ? layer_open(ret, work, e) : rc;
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
	AUTO_FREE char *work = NULL;
	enum err_code rc = work_make(l, &work, e);
	if (rc == ERR_OK)
		rc = mark_check(l, work, e);
	if (rc == ERR_OK)
		rc = layers_open(l, work, &f, e);
	if (rc != ERR_OK)
		return rc;
	int error = mount_when_free(&f, l->merged, FENCED, cancel_fd);
	if (error == ESTALE)
		error = mount_when_free(&f, l->merged, UNFENCED, cancel_fd);
	return error ? mount_failed(l, error, e) : ERR_OK;
}
