/* Files: whole reads with a ceiling, atomic durable writes, directories, trees.  Paths given as (dirfd, name) never follow a
 * final symbolic link.  No global state; any thread. */
#pragma once
#include "base/err.h"
#include "base/strbuf.h"
#include <stdbool.h>
#include <sys/types.h>

#define PATHS_MAX ((size_t)1 << 20)

MUST_USE enum err_code file_read(const char *path, size_t max, struct strbuf *ret, struct error *e); /* over max: ERR_LIMIT */
MUST_USE enum err_code file_read_at(int dirfd, const char *name, size_t max, struct strbuf *ret, struct error *e); /* O_NOFOLLOW, regular files only */
MUST_USE enum err_code file_read_fd(int fd, size_t max, struct strbuf *ret, struct error *e); /* to EOF */
MUST_USE enum err_code file_write_all(int fd, const void *data, size_t n, struct error *e);   /* EINTR and short writes handled */

enum file_sync { FILE_NOSYNC, FILE_SYNC }; /* FILE_SYNC: file and directory are on disk when it returns */
/* Temporary file in the same directory, renamed over `name`: a reader sees the old whole file or the new whole file. */
MUST_USE enum err_code file_replace(const char *path, const void *data, size_t n, mode_t mode, enum file_sync sync, struct error *e);
MUST_USE enum err_code file_replace_at(int dirfd, const char *name, const void *data, size_t n, mode_t mode, enum file_sync sync, struct error *e);

MUST_USE enum err_code file_mkdirs(const char *path, mode_t mode, struct error *e); /* like mkdir -p; existing is fine */
MUST_USE enum err_code file_remove_tree(const char *path, struct error *e);	 /* absent is fine; chmods what overlay left at 000; never follows links or crosses mounts */
MUST_USE enum err_code file_copy(const char *from, const char *to, mode_t mode, struct error *e);
MUST_USE enum err_code file_chown_tree(const char *path, uid_t uid, gid_t gid, struct error *e); /* lchown, never follows */
MUST_USE enum err_code file_tmpdir(const char *parent, const char *prefix, char **ret_path, struct error *e);
MUST_USE enum err_code file_sync_dir(const char *path, struct error *e);
/* Exclusive flock on a file that is created 0600; *ret_fd holds it until closed. ERR_BUSY when somebody has it and wait is false. */
MUST_USE enum err_code file_lock(const char *path, bool wait, int *ret_fd, struct error *e);
bool file_exists(const char *path);
bool file_is_dir(const char *path);
bool file_is_executable(const char *path);
char *file_join(const char *dir, const char *name);	/* the caller frees */
char *file_dirname(const char *path);			/* the caller frees */
MUST_USE enum err_code file_realpath(const char *path, char **ret, struct error *e);
/* Relative, no empty, "." or ".." part, no NUL, at most 4096 bytes: safe to open below a directory. */
bool file_name_is_inside(const char *rel);
/* Opens below dirfd without following any symbolic link on the way (openat2 RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS). */
MUST_USE enum err_code file_open_beneath(int dirfd, const char *rel, int flags, int *ret_fd, struct error *e);
