/* Root only: a way to what lies below directories that the sandbox's uid may not pass. */
#include "sandbox/sandbox.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define EXPOSED_DIR_MODE 0755
#define EXPOSED_FILE_MODE 0644

static enum err_code target_make(const char *at, bool is_dir, struct error *e)
{
	if (is_dir)
		return file_mkdirs(at, EXPOSED_DIR_MODE, e);
	AUTO_FREE char *parent = file_dirname(at);
	enum err_code rc = file_mkdirs(parent, EXPOSED_DIR_MODE, e);
	if (rc != ERR_OK)
		return rc;
	AUTO_CLOSE int fd = open(at, O_CREAT | O_RDONLY | O_CLOEXEC | O_NOFOLLOW, EXPOSED_FILE_MODE);
	return fd < 0 ? error_errno(e, "create '%s'", at) : ERR_OK;
}

/* Each call takes a mount namespace anew: a copy that holds all earlier ones costs less than remembering whether there was one. */
enum err_code sandbox_expose(const char *host_path, const char *at, struct error *e)
{
	struct stat st;

	if (stat(host_path, &st) < 0)
		return error_errno(e, "expose '%s'", host_path);
	enum err_code rc = target_make(at, S_ISDIR(st.st_mode), e);
	if (rc != ERR_OK)
		return error_wrap(e, "expose '%s'", host_path);
	if (unshare(CLONE_NEWNS) < 0)
		return error_errno(e, "expose '%s': take a mount namespace", host_path);
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return error_errno(e, "expose '%s': make the mounts private", host_path);
	if (mount(host_path, at, NULL, MS_BIND | MS_REC, NULL) < 0)
		return error_errno(e, "expose '%s' at '%s'", host_path, at);
	return ERR_OK;
}
