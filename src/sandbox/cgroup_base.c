/* See cgroup_base.h.  The order: our own cgroup (a delegated service: its processes are moved into a leaf first, since v2 wants
 * processes in leaves only); as root, the top of the hierarchy; else a directory that can at least kill. */
#include "sandbox/cgroup_base.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define CONTROL_TEXT_MAX 4096
#define MOVE_ROUNDS_MAX 8 /* new processes may come up while the old ones are moved */

bool cgroup_text_write(const char *dir, const char *name, const char *text)
{
	AUTO_FREE char *path = file_join(dir, name);
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

bool cgroup_text_read(const char *dir, const char *name, char *ret, unsigned long size)
{
	AUTO_FREE char *path = file_join(dir, name);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

	ret[n > 0 ? n : 0] = '\0';
	return n >= 0;
}

static bool word_in(const char *text, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = text; (p = strstr(p, word)) != NULL; p += n)
		if ((p == text || p[-1] == ' ') && strchr(" \n", p[n]))
			return true;
	return false;
}

void cgroup_base_enable(const char *dir, struct cgroup_base *ret)
{
	char on[CONTROL_TEXT_MAX];

	(void)cgroup_text_write(dir, "cgroup.subtree_control", "+memory");
	(void)cgroup_text_write(dir, "cgroup.subtree_control", "+pids");
	(void)cgroup_text_write(dir, "cgroup.subtree_control", "+cpu");
	if (!cgroup_text_read(dir, "cgroup.subtree_control", on, sizeof on))
		return;
	ret->memory = word_in(on, "memory");
	ret->pids = word_in(on, "pids");
	ret->cpu = word_in(on, "cpu");
}

/* systemd marks what it has handed over; a container's top is ours by itself; for others the file modes decide. */
static bool is_delegated(const char *dir, const char *mount)
{
	char mark[2] = { 0 };

	if (geteuid() != 0 || strcmp(dir, mount) == 0)
		return true;
	return (getxattr(dir, "trusted.delegate", mark, 1) == 1 || getxattr(dir, "user.delegate", mark, 1) == 1) && mark[0] == '1';
}

static bool move_processes(const char *dir, const char *leaf)
{
	for (int round = 0; round < MOVE_ROUNDS_MAX; round++) {
		char pids[CONTROL_TEXT_MAX];
		char *save = NULL;

		if (!cgroup_text_read(dir, "cgroup.procs", pids, sizeof pids))
			return false;
		if (!*pids)
			return true;
		for (char *pid = strtok_r(pids, "\n", &save); pid; pid = strtok_r(NULL, "\n", &save))
			if (!cgroup_text_write(leaf, "cgroup.procs", pid) && errno == EACCES)
				return false;
	}
	return false;
}

static void enable_after_moving(const char *dir, struct cgroup_base *ret)
{
	AUTO_FREE char *leaf = file_join(dir, CGROUP_LEAF);

	if ((mkdir(leaf, 0755) == 0 || errno == EEXIST) && move_processes(dir, leaf))
		cgroup_base_enable(dir, ret);
}

static bool has_controllers(const char *dir)
{
	char can[CONTROL_TEXT_MAX];

	return cgroup_text_read(dir, "cgroup.controllers", can, sizeof can) && word_in(can, "memory") && word_in(can, "pids");
}

void cgroup_base_find(const struct cgroup_place *v2, struct cgroup_base *ret)
{
	*ret = (struct cgroup_base){ .dir = NULL };
	if (!v2->own)
		return;
	AUTO_FREE char *own = str_ends(v2->own, "/" CGROUP_LEAF) ? file_dirname(v2->own) : mem_strdup(v2->own);
	if (has_controllers(own)) {
		cgroup_base_enable(own, ret);
		if (!ret->memory && is_delegated(own, v2->mount))
			enable_after_moving(own, ret);
	}
	if (!ret->memory && geteuid() == 0 && has_controllers(v2->mount)) {
		cgroup_base_enable(v2->mount, ret);
		ret->dir = mem_strdup(v2->mount);
		return;
	}
	ret->dir = TAKE_PTR(own);
}
