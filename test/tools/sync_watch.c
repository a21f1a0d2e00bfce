/* Loaded before a program (LD_PRELOAD), writes to the file SYNC_WATCH what it syncs and which names it gives, so that a test can see the order of both:
 *
 *   sync DEV:INO SIZE MTIME_NS PATH      a file or directory is on disk now
 *   name DEV:INO SIZE MTIME_NS PATH      it bears this name now (renamed or linked) */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_MAX_BYTES (2 * PATH_MAX + 128)

int fsync(int fd);
int fdatasync(int fd);
int rename(const char *from, const char *to);
int renameat(int from_dir, const char *from, int to_dir, const char *to);
int link(const char *from, const char *to);
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags);

static void tell(const char *what, const struct stat *st, const char *dir, const char *name)
{
	char line[LINE_MAX_BYTES];
	const char *to = getenv("SYNC_WATCH");
	int fd = to ? open(to, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
	if (fd < 0)
		return;
	long long at = (long long)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
	int n = snprintf(line, sizeof(line), "%s %llu:%llu %lld %lld %s%s%s\n", what, (unsigned long long)st->st_dev, (unsigned long long)st->st_ino,
		(long long)st->st_size, at, dir, *dir && *name ? "/" : "", name);
	if (write(fd, line, (size_t)n) != n)
		abort();
	close(fd);
}

static const char *path_of(int fd, char path[PATH_MAX])
{
	char link_path[64];
	snprintf(link_path, sizeof(link_path), "/proc/self/fd/%d", fd);
	ssize_t n = fd == AT_FDCWD ? 0 : readlink(link_path, path, PATH_MAX - 1);
	path[n > 0 ? n : 0] = '\0';
	return path;
}

static int synced(int rc, int fd)
{
	struct stat st;
	char path[PATH_MAX];
	if (!rc && !fstat(fd, &st))
		tell("sync", &st, path_of(fd, path), "");
	return rc;
}

static int named(int rc, int dir, const char *name)
{
	struct stat st;
	char path[PATH_MAX];
	if (!rc && !fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		tell("name", &st, name[0] == '/' ? "" : path_of(dir, path), name);
	return rc;
}

static void find(void *ret_function, const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);
	memcpy(ret_function, &p, sizeof(p));
}

int fsync(int fd)
{
	int (*real)(int);
	find(&real, "fsync");
	return synced(real(fd), fd);
}

int fdatasync(int fd)
{
	int (*real)(int);
	find(&real, "fdatasync");
	return synced(real(fd), fd);
}

int rename(const char *from, const char *to)
{
	int (*real)(const char *, const char *);
	find(&real, "rename");
	return named(real(from, to), AT_FDCWD, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	int (*real)(int, const char *, int, const char *);
	find(&real, "renameat");
	return named(real(from_dir, from, to_dir, to), to_dir, to);
}

int link(const char *from, const char *to)
{
	int (*real)(const char *, const char *);
	find(&real, "link");
	return named(real(from, to), AT_FDCWD, to);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	int (*real)(int, const char *, int, const char *, int);
	find(&real, "linkat");
	return named(real(from_dir, from, to_dir, to, flags), to_dir, to);
}
