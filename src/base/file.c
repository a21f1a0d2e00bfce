/* Files: whole reads with a ceiling, atomic replacement, locking, opening below a directory, and work on whole trees that
 * somebody hostile may have left behind. */
#include "base/file.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define READ_CHUNK ((size_t)64 << 10)
#define TMP_NAME_SIZE 32
#define NAME_INSIDE_MAX 4096
#define OPEN_TRIES 32
#define REMOVE_DEPTH 32

static ssize_t read_some(int fd, void *to, size_t n)
{
	ssize_t got;

	do
		got = read(fd, to, n);
	while (got < 0 && errno == EINTR);
	return got;
}

static enum err_code too_large(size_t max, struct error *e)
{
	return error_set(e, ERR_LIMIT, "larger than %zu bytes", max);
}

/* Reads until the end or until `max`, then one byte more to know which of the two it was. */
enum err_code file_read_fd(int fd, size_t max, struct strbuf *ret, struct error *e)
{
	size_t got = 0;
	char probe;

	if (!ret->max && max > STRBUF_DEFAULT_MAX - ret->len)
		ret->max = ret->len + max;
	for (;;) {
		size_t want = max - got < READ_CHUNK ? max - got : READ_CHUNK;
		char *to = want ? strbuf_reserve(ret, want) : &probe;
		if (!to)
			return too_large(max, e);
		ssize_t n = read_some(fd, to, want ? want : 1);
		if (n < 0)
			return error_errno(e, "read");
		if (n > 0 && !want)
			return too_large(max, e);
		ret->len += (size_t)n;
		if (want)
			ret->data[ret->len] = 0;
		if (n == 0)
			return ERR_OK;
		got += (size_t)n;
	}
}

enum err_code file_read(const char *path, size_t max, struct strbuf *ret, struct error *e)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return error_errno(e, "open '%s'", path);
	enum err_code r = file_read_fd(fd, max, ret, e);
	if (r != ERR_OK)
		error_wrap(e, "'%s'", path);
	return r;
}

enum err_code file_read_at(int dirfd, const char *name, size_t max, struct strbuf *ret, struct error *e)
{
	/* O_NONBLOCK: a FIFO that somebody put there must not hold us up before we see that it is one. */
	AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(e, "open '%s'", name);
	if (!S_ISREG(st.st_mode))
		return error_set(e, ERR_INVALID, "'%s' is not a regular file", name);
	enum err_code r = file_read_fd(fd, max, ret, e);
	if (r != ERR_OK)
		error_wrap(e, "'%s'", name);
	return r;
}

enum err_code file_write_all(int fd, const void *data, size_t n, struct error *e)
{
	const char *p = data;

	while (n) {
		ssize_t done = write(fd, p, n);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return error_errno(e, "write");
		p += done;
		n -= (size_t)done;
	}
	return ERR_OK;
}

/* A file being made beside its final name; `fd` < 0 once it is in place. */
struct fresh {
	int dirfd, fd;
	char name[TMP_NAME_SIZE];
};

static enum err_code fresh_open(struct fresh *f, int dirfd, struct error *e)
{
	uint64_t number;

	clock_random(&number, sizeof(number));
	snprintf(f->name, sizeof(f->name), ".tmp-%016llx", (unsigned long long)number);
	f->dirfd = dirfd;
	f->fd = openat(dirfd, f->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return f->fd < 0 ? error_errno(e, "create '%s'", f->name) : ERR_OK;
}

static void fresh_drop(struct fresh *f)
{
	if (f->fd < 0)
		return;
	close(f->fd);
	unlinkat(f->dirfd, f->name, 0);
}

static enum err_code fresh_commit(struct fresh *f, const char *name, mode_t mode, enum file_sync sync, struct error *e)
{
	if (fchmod(f->fd, mode) < 0)
		return error_errno(e, "set the mode of '%s'", name);
	if (sync == FILE_SYNC && fsync(f->fd) < 0)
		return error_errno(e, "sync '%s'", name);
	if (renameat(f->dirfd, f->name, f->dirfd, name) < 0)
		return error_errno(e, "replace '%s'", name);
	close(TAKE_FD(f->fd));
	if (sync == FILE_SYNC && fsync(f->dirfd) < 0)
		return error_errno(e, "sync the directory of '%s'", name);
	return ERR_OK;
}

enum err_code file_replace_at(int dirfd, const char *name, const void *data, size_t n, mode_t mode, enum file_sync sync,
			      struct error *e)
{
	/* `dirfd` may be O_PATH or AT_FDCWD; fsync wants a real one */
	AUTO_CLOSE int dir = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO(fresh_drop) struct fresh f = { .fd = -1 };

	if (dir < 0)
		return error_errno(e, "open the directory of '%s'", name);
	enum err_code r = fresh_open(&f, dir, e);
	if (r == ERR_OK)
		r = file_write_all(f.fd, data, n, e);
	if (r != ERR_OK) {
		error_wrap(e, "write '%s'", name);
		return r;
	}
	return fresh_commit(&f, name, mode, sync, e);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int open_dir_of(const char *path)
{
	AUTO_FREE char *dir = file_dirname(path);

	return open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

enum err_code file_replace(const char *path, const void *data, size_t n, mode_t mode, enum file_sync sync, struct error *e)
{
	AUTO_CLOSE int dir = open_dir_of(path);

	if (dir < 0)
		return error_errno(e, "open the directory of '%s'", path);
	enum err_code r = file_replace_at(dir, base_name(path), data, n, mode, sync, e);
	if (r != ERR_OK)
		error_wrap(e, "'%s'", path);
	return r;
}

/* In the kernel where it can (and by reference where the file system can), by hand for the rest. */
static enum err_code copy_bytes(int from, int to, struct error *e)
{
	AUTO_FREE char *buf = NULL;
	ssize_t n;

	do
		n = copy_file_range(from, NULL, to, NULL, (size_t)1 << 30, 0);
	while (n > 0 || (n < 0 && errno == EINTR));
	if (n < 0 && errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP && errno != EPERM)
		return error_errno(e, "copy");
	buf = mem_grow(NULL, READ_CHUNK);
	while ((n = read_some(from, buf, READ_CHUNK)) > 0) {
		enum err_code r = file_write_all(to, buf, (size_t)n, e);
		if (r != ERR_OK)
			return r;
	}
	return n < 0 ? error_errno(e, "read") : ERR_OK;
}

enum err_code file_copy(const char *from, const char *to, mode_t mode, struct error *e)
{
	AUTO_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	AUTO_CLOSE int dir = open_dir_of(to);
	AUTO(fresh_drop) struct fresh f = { .fd = -1 };

	if (in < 0)
		return error_errno(e, "open '%s'", from);
	if (dir < 0)
		return error_errno(e, "open the directory of '%s'", to);
	enum err_code r = fresh_open(&f, dir, e);
	if (r == ERR_OK)
		r = copy_bytes(in, f.fd, e);
	if (r == ERR_OK)
		r = fresh_commit(&f, base_name(to), mode, FILE_NOSYNC, e);
	if (r != ERR_OK)
		error_wrap(e, "copy '%s' to '%s'", from, to);
	return r;
}

enum err_code file_sync_dir(const char *path, struct error *e)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? error_errno(e, "sync '%s'", path) : ERR_OK;
}

/* The lock is on the open file; when the name meanwhile belongs to another file, two holders would not see each other. */
static bool still_named(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

enum err_code file_lock(const char *path, bool wait, int *ret_fd, struct error *e)
{
	for (;;) {
		AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
		int r;
		if (fd < 0)
			return error_errno(e, "open '%s'", path);
		do
			r = flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
		while (r < 0 && errno == EINTR);
		if (r < 0 && errno == EWOULDBLOCK)
			return error_set(e, ERR_BUSY, "'%s' is locked by another process", path);
		if (r < 0)
			return error_errno(e, "lock '%s'", path);
		if (still_named(fd, path)) {
			*ret_fd = TAKE_FD(fd);
			return ERR_OK;
		}
	}
}

bool file_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

bool file_is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool file_is_executable(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

char *file_join(const char *dir, const char *name)
{
	return mem_printf("%s%s%s", dir, str_empty(dir) || str_ends(dir, "/") ? "" : "/", name);
}

char *file_dirname(const char *path)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	while (n && path[n - 1] != '/')
		n--;
	while (n > 1 && path[n - 1] == '/')
		n--;
	return n ? mem_strndup(path, n) : mem_strdup(".");
}

enum err_code file_realpath(const char *path, char **ret, struct error *e)
{
	char *real = realpath(path, NULL);

	if (!real)
		return error_errno(e, "'%s'", path);
	*ret = real;
	return ERR_OK;
}

bool file_name_is_inside(const char *rel)
{
	if (str_empty(rel) || strlen(rel) > NAME_INSIDE_MAX)
		return false;
	for (;;) {
		size_t n = strcspn(rel, "/");
		if (n == 0 || (n == 1 && rel[0] == '.') || (n == 2 && rel[0] == '.' && rel[1] == '.'))
			return false;
		if (!rel[n])
			return true;
		rel += n + 1;
	}
}

static int open_how(int dirfd, const char *name, int flags, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)flags | O_CLOEXEC | (flags & O_PATH ? 0 : O_NOCTTY), /* openat2 refuses the pair */
		.mode = flags & O_CREAT ? 0600 : 0,
		.resolve = resolve | RESOLVE_NO_SYMLINKS,
	};
	long fd;
	int tries = OPEN_TRIES;

	do
		fd = syscall(SYS_openat2, dirfd, name, &how, sizeof(how));
	while (fd < 0 && (errno == EINTR || errno == EAGAIN) && --tries); /* EAGAIN: a rename raced with the walk */
	return (int)fd;
}

enum err_code file_open_beneath(int dirfd, const char *rel, int flags, int *ret_fd, struct error *e)
{
	if (!file_name_is_inside(rel))
		return error_set(e, ERR_INVALID, "'%s' is not a name inside a directory", rel ? rel : "");
	int fd = open_how(dirfd, rel, flags, RESOLVE_BENEATH);
	if (fd < 0)
		return error_errno(e, "open '%s'", rel);
	*ret_fd = fd;
	return ERR_OK;
}

enum err_code file_mkdirs(const char *path, mode_t mode, struct error *e)
{
	int rc = mkdir(path, mode);

	if (rc < 0 && errno == ENOENT) { /* from the top */
		AUTO_FREE char *part = mem_strdup(path);
		for (char *slash = part; (slash = strchr(slash + 1, '/')); *slash = '/') {
			*slash = 0;
			if (mkdir(part, mode) < 0 && errno != EEXIST)
				return error_errno(e, "create directory '%s'", part);
		}
		rc = mkdir(path, mode);
	}
	if (rc < 0 && errno != EEXIST)
		return error_errno(e, "create directory '%s'", path);
	if (file_is_dir(path))
		return ERR_OK;
	return error_set(e, ERR_CONFLICT, "create directory '%s': something else has that name", path);
}

enum err_code file_tmpdir(const char *parent, const char *prefix, char **ret_path, struct error *e)
{
	const char *tmp = getenv("TMPDIR");

	if (!parent)
		parent = str_empty(tmp) ? "/tmp" : tmp;
	AUTO_FREE char *dir = file_join(parent, prefix);
	AUTO_FREE char *path = mem_printf("%s.XXXXXX", dir);
	if (!mkdtemp(path))
		return error_errno(e, "create a directory in '%s'", parent);
	*ret_path = TAKE_PTR(path);
	return ERR_OK;
}

/* Removing a tree.  Every step is relative to an open directory, so nothing that moves meanwhile leads us elsewhere.
 * A tree deeper than REMOVE_DEPTH is folded: the deep part is renamed into the top directory and meets us there again,
 * so that depth costs neither stack nor descriptors. */
struct removal {
	int top;	 /* the tree's own directory; -1 until it is open */
	unsigned folded; /* names given so far */
	size_t gone;	 /* progress, in entries */
};

static enum err_code remove_entry(struct removal *r, int dirfd, const char *name, int depth, struct error *e);

static void cleanup_closedir(DIR **d)
{
	if (*d)
		closedir(*d);
}
#define AUTO_DIR __attribute__((cleanup(cleanup_closedir)))

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* The next entry but "." and ".."; NULL at the end (errno 0) and on an error. */
static struct dirent *next_entry(DIR *d)
{
	struct dirent *entry;

	do {
		errno = 0;
		entry = readdir(d);
	} while (entry && is_dots(entry->d_name));
	return entry;
}

/* Takes the descriptor. */
static enum err_code remove_contents(struct removal *r, int fd, int depth, struct error *e)
{
	AUTO_DIR DIR *d = fdopendir(fd);
	struct dirent *entry;

	if (!d) {
		close(fd);
		return error_errno(e, "read directory");
	}
	while ((entry = next_entry(d))) {
		enum err_code code = remove_entry(r, dirfd(d), entry->d_name, depth, e);
		if (code != ERR_OK)
			return code;
	}
	return errno ? error_errno(e, "read directory") : ERR_OK;
}

/* A directory of ours that nobody may enter (overlayfs leaves such) is opened to ourselves first. */
static int open_to_empty(int dirfd, const char *name)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) && (st.st_mode & 0700) != 0700)
		(void)!fchmodat(dirfd, name, 0700, AT_SYMLINK_NOFOLLOW); /* a failure shows at the next step */
	return open_how(dirfd, name, O_RDONLY | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
}

static enum err_code fold(struct removal *r, int dirfd, const char *name, struct error *e)
{
	for (;;) {
		AUTO_FREE char *shallow = mem_printf(".fold-%u", r->folded++);
		if (renameat2(dirfd, name, r->top, shallow, RENAME_NOREPLACE) == 0) {
			r->gone++;
			return ERR_OK;
		}
		if (errno != EEXIST)
			return error_errno(e, "move '%s'", name);
	}
}

/* Again while there is something left and the last pass removed something: folding fills the top anew. */
static enum err_code remove_dir(struct removal *r, int dirfd, const char *name, int depth, struct error *e)
{
	size_t before;

	do {
		AUTO_CLOSE int fd = open_to_empty(dirfd, name);
		if (fd < 0)
			return error_errno(e, errno == EXDEV ? "'%s' is a mount point" : "open '%s'", name);
		if (depth >= REMOVE_DEPTH)
			return fold(r, dirfd, name, e);
		if (depth == 0)
			r->top = fd;
		before = r->gone;
		enum err_code code = remove_contents(r, depth == 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : TAKE_FD(fd), depth + 1, e);
		if (code != ERR_OK)
			return code;
		if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT) {
			r->gone++;
			return ERR_OK;
		}
	} while (errno == ENOTEMPTY && r->gone != before);
	return error_errno(e, "remove '%s'", name);
}

static enum err_code remove_entry(struct removal *r, int dirfd, const char *name, int depth, struct error *e)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT) {
		r->gone++;
		return ERR_OK;
	}
	if (errno == EISDIR)
		return remove_dir(r, dirfd, name, depth, e);
	return error_errno(e, "remove '%s'", name);
}

enum err_code file_remove_tree(const char *path, struct error *e)
{
	AUTO_FREE char *clean = mem_strdup(path);
	struct removal removal = { .top = -1 };

	for (size_t n = strlen(clean); n > 1 && clean[n - 1] == '/'; n--)
		clean[n - 1] = 0;
	AUTO_CLOSE int parent = open_dir_of(clean);
	if (parent < 0)
		return errno == ENOENT ? ERR_OK : error_errno(e, "remove '%s'", path);
	if (!file_name_is_inside(base_name(clean)))
		return error_set(e, ERR_INVALID, "remove '%s': not the name of a directory", path);
	enum err_code r = remove_entry(&removal, parent, base_name(clean), 0, e);
	if (r != ERR_OK)
		error_wrap(e, "remove '%s'", path);
	return r;
}

/* Directories still to be visited, as names below the root: depth costs memory, not descriptors. */
struct pending {
	char **names;
	size_t len, cap;
};

static void pending_release(struct pending *p)
{
	while (p->len)
		free(p->names[--p->len]);
	free(p->names);
}

static enum err_code pending_push(struct pending *p, char *taken, struct error *e)
{
	if (p->len >= PATHS_MAX) {
		free(taken);
		return error_set(e, ERR_LIMIT, "more than %zu directories", PATHS_MAX);
	}
	if (p->len == p->cap) {
		p->cap = p->cap ? p->cap * 2 : 64;
		p->names = mem_grow(p->names, p->cap * sizeof(*p->names));
	}
	p->names[p->len++] = taken;
	return ERR_OK;
}

static enum err_code chown_entry(int dirfd, const char *name, uid_t uid, gid_t gid, bool *ret_is_dir, struct error *e)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || fchownat(dirfd, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
		return error_errno(e, "change the owner of '%s'", name);
	*ret_is_dir = S_ISDIR(st.st_mode);
	return ERR_OK;
}

/* Hands over what is in the directory `rel` of `root`, and queues its subdirectories. */
static enum err_code chown_contents(int root, const char *rel, uid_t uid, gid_t gid, struct pending *p, struct error *e)
{
	int fd = open_how(root, rel, O_RDONLY | O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
	AUTO_DIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	enum err_code code = ERR_OK;
	struct dirent *entry;
	bool is_dir;

	if (!d)
		return error_errno(e, "open '%s'", rel);
	while (code == ERR_OK && (entry = next_entry(d))) {
		code = chown_entry(fd, entry->d_name, uid, gid, &is_dir, e);
		if (code == ERR_OK && is_dir)
			code = pending_push(p, file_join(strcmp(rel, ".") ? rel : "", entry->d_name), e);
	}
	return code;
}

enum err_code file_chown_tree(const char *path, uid_t uid, gid_t gid, struct error *e)
{
	AUTO_CLOSE int root = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	AUTO(pending_release) struct pending p = { .len = 0 };

	if (root < 0 && errno == ENOTDIR && lchown(path, uid, gid) == 0)
		return ERR_OK; /* a file or a link, not a tree */
	if (root < 0 || fchown(root, uid, gid) < 0)
		return error_errno(e, "change the owner of '%s'", path);
	enum err_code r = pending_push(&p, mem_strdup("."), e);
	while (r == ERR_OK && p.len) {
		AUTO_FREE char *rel = p.names[--p.len];
		r = chown_contents(root, rel, uid, gid, &p, e);
	}
	if (r != ERR_OK)
		error_wrap(e, "'%s'", path);
	return r;
}
