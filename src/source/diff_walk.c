/* Walking a layer, or a whole workspace, without recursion and without following a link. */
#include "source/diff_walk.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/try.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/xattr.h>

/* ---- lists ---- */

void name_list_add(struct name_list *l, const char *name)
{
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 64;
		l->v = mem_grow(l->v, l->cap * sizeof(*l->v));
	}
	l->v[l->n++] = mem_strdup(name);
	l->bytes += strlen(name) + 1;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void name_list_sort(struct name_list *l)
{
	size_t kept = 0;

	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), compare_names);
	for (size_t i = 0; i < l->n; i++) {
		if (kept && str_eq(l->v[kept - 1], l->v[i]))
			free(l->v[i]);
		else
			l->v[kept++] = l->v[i];
	}
	l->n = kept;
}

bool name_list_has(const struct name_list *l, const char *name)
{
	return l->n && bsearch(&name, l->v, l->n, sizeof(*l->v), compare_names);
}

void name_list_release(struct name_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = (struct name_list){ .v = NULL };
}

enum err_code base_list_load(struct base_list *b, const char *index_path, struct error *e)
{
	struct index_entry entry;

	TRY(index_load(index_path, &b->index, e));
	b->v = mem_alloc((b->index.left + 1) * sizeof(*b->v));
	while (index_next(&b->index, &entry))
		b->v[b->n++] = (struct base_entry){ .name = entry.name, .mode = entry.mode };
	return index_check_end(&b->index, index_path, e);
}

void base_list_release(struct base_list *b)
{
	index_release(&b->index);
	free(b->v);
}

/* The first entry not before `name`. */
static size_t lower_bound(const struct base_list *b, const char *name)
{
	size_t low = 0, high = b->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(b->v[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct base_entry *base_list_find(const struct base_list *b, const char *name)
{
	size_t i = lower_bound(b, name);

	return i < b->n && str_eq(b->v[i].name, name) ? &b->v[i] : NULL;
}

static void add_if_missing(const struct base_entry *entry, const struct name_list *present, struct name_list *out)
{
	if (entry->mode != INDEX_MODE_GITLINK && !name_list_has(present, entry->name))
		name_list_add(out, entry->name);
}

void base_list_add_missing(const struct base_list *b, const char *name, const struct name_list *present, struct name_list *out)
{
	AUTO_FREE char *below = mem_printf("%s/", name);
	const struct base_entry *exact = base_list_find(b, name);

	if (exact)
		add_if_missing(exact, present, out);
	for (size_t i = lower_bound(b, below); i < b->n && str_starts(b->v[i].name, below); i++)
		add_if_missing(&b->v[i], present, out);
}

/* ---- names for people ---- */

void diff_set_path(struct js *o, const char *name, const char *path)
{
	AUTO_STRBUF struct strbuf encoded = STRBUF_INIT;
	AUTO_STRBUF struct strbuf member = STRBUF_INIT;

	js_set_str(o, name, path);
	if (str_is_utf8(path, strlen(path)))
		return;
	str_add_base64(&encoded, path, strlen(path));
	strbuf_addf(&member, "%s_base64", name);
	js_set_str(o, strbuf_str(&member), strbuf_str(&encoded));
}

void diff_skip(struct js *skipped, const char *path, const char *reason)
{
	struct js *o;

	if (js_len(skipped) >= DIFF_SKIPPED_MAX)
		return;
	o = js_object();
	diff_set_path(o, "path", path);
	js_set_str(o, "reason", reason);
	js_push(skipped, o);
}

/* ---- the walk ---- */

struct todo_dir { /* a directory still to be read */
	char *path;
	bool whole; /* read from the worktree: it is all the agent's, without overlay's marks */
};

struct walker {
	struct diff_walk *w;
	int upper_fd, worktree_fd;
	struct todo_dir *todo;
	size_t n, cap;
};

static void walker_release(struct walker *k)
{
	for (size_t i = 0; i < k->n; i++)
		free(k->todo[i].path);
	free(k->todo);
	if (k->upper_fd >= 0)
		close(k->upper_fd);
	if (k->worktree_fd >= 0)
		close(k->worktree_fd);
}

static void push_dir(struct walker *k, const char *path, bool whole)
{
	if (k->n == k->cap) {
		k->cap = k->cap ? k->cap * 2 : 32;
		k->todo = mem_grow(k->todo, k->cap * sizeof(*k->todo));
	}
	k->todo[k->n++] = (struct todo_dir){ .path = mem_strdup(path), .whole = whole };
}

static bool has_mark(int fd, const char *name, const char *wanted)
{
	char value[8];
	AUTO_FREE char *user = mem_printf("user.overlay.%s", name);
	AUTO_FREE char *trusted = mem_printf("trusted.overlay.%s", name);
	ssize_t n = fgetxattr(fd, user, value, sizeof(value));

	if (n < 0 && errno != ERANGE)
		n = fgetxattr(fd, trusted, value, sizeof(value));
	if (!wanted)
		return n >= 0 || errno == ERANGE;
	return n == (ssize_t)strlen(wanted) && memcmp(value, wanted, (size_t)n) == 0;
}

/* The agent may have taken its own rights away; in the merged view they are ours to give back. */
static bool unlock_path(const struct walker *k, const char *path, mode_t mode, mode_t wanted)
{
	AUTO_CLOSE int fd = -1;
	AUTO_FREE char *proc_path = NULL;

	if (file_open_beneath(k->worktree_fd, *path ? path : ".", O_PATH | O_NOFOLLOW | O_CLOEXEC, &fd, NULL) != ERR_OK)
		return false;
	proc_path = mem_printf("/proc/self/fd/%d", fd);
	return chmod(proc_path, (mode & 07777) | wanted) == 0;
}

/* By the mode and not by trying: we may have capabilities here that git's process will not have. */
static bool can_read(const struct walker *k, int dir, const char *name, const char *path, const struct stat *st)
{
	if (!(st->st_mode & 0400) && !unlock_path(k, path, st->st_mode, 0400))
		return false;
	return faccessat(dir, name, R_OK, AT_EACCESS) == 0;
}

static bool is_since(const struct timespec *t, const struct timespec *since)
{
	return t->tv_sec > since->tv_sec || (t->tv_sec == since->tv_sec && t->tv_nsec >= since->tv_nsec);
}

static enum err_code take_file(struct walker *k, int dir, const char *name, const char *path, const struct stat *st, struct error *e)
{
	struct diff_walk *w = k->w;

	if (S_ISREG(st->st_mode) && st->st_size > DIFF_FILE_MAX) {
		diff_skip(w->skipped, path, "larger than a diff may hold");
		return ERR_OK;
	}
	if (S_ISREG(st->st_mode) && !can_read(k, dir, name, path, st)) {
		diff_skip(w->skipped, path, "not readable");
		return ERR_OK;
	}
	if (w->upper) /* the whole worktree is mostly unchanged: no limit on that */
		w->bytes += st->st_size;
	name_list_add(&w->present, path);
	if (w->changed_since && is_since(&st->st_ctim, w->changed_since))
		name_list_add(&w->changed, path);
	if (w->bytes > DIFF_FILES_MAX || w->present.n > DIFF_PATHS_MAX || w->present.bytes > DIFF_NAMES_MAX)
		return error_set(e, ERR_LIMIT, "the agent changed more files than a diff may hold (%zu, %lld bytes)", w->present.n, (long long)w->bytes);
	return ERR_OK;
}

static void take_dir(struct walker *k, const char *path, const struct stat *st, bool whole)
{
	const struct base_entry *base = base_list_find(k->w->base, path);
	bool can_enter = (st->st_mode & 0500) == 0500 || unlock_path(k, path, st->st_mode, 0500);

	if (!can_enter)
		diff_skip(k->w->skipped, path, "not readable");
	else if (base && base->mode == INDEX_MODE_GITLINK)
		diff_skip(k->w->skipped, path, "inside a submodule");
	else
		push_dir(k, path, whole);
	if (base) /* a directory now, whatever it was */
		name_list_add(&k->w->gone, path);
}

static enum err_code take_entry(struct walker *k, const struct todo_dir *in, int dir, const char *name, struct error *e)
{
	AUTO_FREE char *path = *in->path ? file_join(in->path, name) : mem_strdup(name);
	struct stat st;

	if (strcasecmp(name, ".git") == 0) {
		if (!str_eq(name, ".git"))
			diff_skip(k->w->skipped, path, "a name that git refuses");
		return ERR_OK;
	}
	if (strlen(path) >= DIFF_NAME_MAX) {
		diff_skip(k->w->skipped, in->path, "holds a path longer than git allows");
		return ERR_OK;
	}
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return error_errno(e, "look at '%s'", path);
	if (S_ISDIR(st.st_mode))
		take_dir(k, path, &st, in->whole);
	else if (S_ISREG(st.st_mode) || S_ISLNK(st.st_mode))
		return take_file(k, dir, name, path, &st, e);
	else
		name_list_add(&k->w->gone, path);
	if (!S_ISDIR(st.st_mode) && !(S_ISCHR(st.st_mode) && st.st_rdev == 0 && !in->whole))
		diff_skip(k->w->skipped, path, "neither a file nor a link");
	return k->w->gone.n > DIFF_PATHS_MAX ? error_set(e, ERR_LIMIT, "the agent removed more files than a diff may hold") : ERR_OK;
}

static int open_dir(const struct walker *k, const struct todo_dir *d)
{
	int root = d->whole ? k->worktree_fd : k->upper_fd, fd = -1;
	const char *path = *d->path ? d->path : ".";
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

	if (!*d->path)
		return openat(root, path, flags);
	return file_open_beneath(root, path, flags, &fd, NULL) == ERR_OK ? fd : -1;
}

static enum err_code read_dir(struct walker *k, struct todo_dir *d, struct error *e)
{
	int fd = open_dir(k, d);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	enum err_code code = ERR_OK;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		diff_skip(k->w->skipped, d->path, "not readable");
		return ERR_OK;
	}
	if (!d->whole && has_mark(fd, "opaque", "y"))
		name_list_add(&k->w->gone, d->path);
	while (code == ERR_OK && (entry = readdir(dir)))
		if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
			code = take_entry(k, d, fd, entry->d_name, e);
	closedir(dir);
	return code;
}

/* A directory that overlay has renamed as a whole (redirect) holds files that its upper layer does not: read what one sees. */
static void see_redirect(const struct walker *k, struct todo_dir *d)
{
	AUTO_CLOSE int fd = -1;

	if (d->whole || !*d->path || file_open_beneath(k->upper_fd, d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, &fd, NULL) != ERR_OK)
		return;
	if (!has_mark(fd, "redirect", NULL))
		return;
	d->whole = true;
	name_list_add(&k->w->gone, d->path);
}

enum err_code diff_walk_run(struct diff_walk *w, struct error *e)
{
	AUTO(walker_release) struct walker k = { .w = w, .upper_fd = -1, .worktree_fd = -1 };
	enum err_code code = ERR_OK;

	k.worktree_fd = open(w->worktree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (k.worktree_fd < 0)
		return error_errno(e, "open the workspace '%s'", w->worktree);
	k.upper_fd = w->upper ? open(w->upper, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (w->upper && k.upper_fd < 0)
		return error_errno(e, "open the layer '%s'", w->upper);
	push_dir(&k, "", !w->upper);
	while (code == ERR_OK && k.n > 0) {
		struct todo_dir d = k.todo[--k.n];

		see_redirect(&k, &d);
		code = read_dir(&k, &d, e);
		free(d.path);
	}
	name_list_sort(&w->present);
	name_list_sort(&w->gone);
	return code;
}

void diff_walk_release(struct diff_walk *w)
{
	name_list_release(&w->present);
	name_list_release(&w->changed);
	name_list_release(&w->gone);
}
