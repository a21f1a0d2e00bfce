/* An archive's entries, together: none twice, none below a file or a link, hard links to files that came before, no link that leads
 * out however many others lie on its way. */
#include "source/unpack.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdlib.h>
#include <string.h>

static void entry_release(struct unpack_entry *x)
{
	free(x->path);
	free(x->target);
}

void unpack_list_release(struct unpack_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		entry_release(&l->v[i]);
	free(l->v);
	free(l->top);
}

enum err_code unpack_list_add(struct unpack_list *l, struct unpack_entry *taken, struct error *e)
{
	l->names_bytes += strlen(taken->path) + (taken->target ? strlen(taken->target) : 0);
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 1024;
		l->v = mem_grow(l->v, l->cap * sizeof(*l->v));
	}
	l->v[l->n] = *taken;
	l->v[l->n].order = (uint32_t)l->n;
	l->n++;
	*taken = (struct unpack_entry){ .path = NULL };
	if (l->names_bytes > UNPACK_NAMES_MAX)
		return unpack_refuse(e, ERR_TOO_LARGE, l->v[l->n - 1].path, "is one too many: all names together are longer than %zu bytes", UNPACK_NAMES_MAX);
	return ERR_OK;
}

/* The slash sorts first, so that what lies below a name follows it directly. */
static int compare_paths(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	int x = *a == '/' ? 1 : (unsigned char)*a + (*a != '\0'), y = *b == '/' ? 1 : (unsigned char)*b + (*b != '\0');
	return (x > y) - (x < y);
}

static int by_path(const void *a, const void *b)
{
	const struct unpack_entry *x = a, *y = b;
	int c = compare_paths(x->path, y->path);

	return c ? c : (x->order > y->order) - (x->order < y->order);
}

static struct unpack_entry *find(const struct unpack_list *l, const char *path)
{
	size_t low = 0, high = l->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int c = compare_paths(l->v[middle].path, path);

		if (c == 0)
			return &l->v[middle];
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static bool lies_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && path[n] == '/';
}

static enum err_code check_pair(const struct unpack_entry *a, const struct unpack_entry *b, struct error *e)
{
	if (str_eq(a->path, b->path)) {
		if (a->kind == UNPACK_DIR && b->kind == UNPACK_DIR)
			return ERR_OK;
		if (a->kind == UNPACK_DIR || b->kind == UNPACK_DIR)
			return unpack_refuse(e, ERR_INVALID, b->path, "is there as a directory and as something else");
		return unpack_refuse(e, ERR_INVALID, b->path, "is there twice");
	}
	if (a->kind != UNPACK_DIR && lies_below(b->path, a->path))
		return unpack_refuse(e, ERR_INVALID, b->path, "lies below '%.*s', which is %s", (int)UNPACK_SHOWN_MAX, a->path,
			a->kind == UNPACK_LINK ? "a link" : "a file");
	return ERR_OK;
}

static enum err_code check_order(struct unpack_list *l, struct error *e)
{
	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), by_path);
	for (size_t i = 1; i < l->n; i++)
		TRY(check_pair(&l->v[i - 1], &l->v[i], e));
	return ERR_OK;
}

static int by_order(const void *a, const void *b)
{
	const struct unpack_entry *const *x = a, *const *y = b;

	return ((*x)->order > (*y)->order) - ((*x)->order < (*y)->order);
}

static enum err_code hard_link_take(const struct unpack_list *l, struct unpack_entry *x, struct error *e)
{
	const struct unpack_entry *to = find(l, x->target);

	if (!to || to->order > x->order || to->kind == UNPACK_HARD || to->kind == UNPACK_DIR) /* a hard link before this one has become what it links */
		return unpack_refuse(e, ERR_INVALID, x->path, "is a hard link to '%.*s', which is no file that came before it", (int)UNPACK_SHOWN_MAX, x->target);
	x->kind = to->kind;
	x->mark = to->mark;
	x->size = to->size;
	x->executable = to->executable;
	free(x->target);
	x->target = mem_strdup(to->target);
	return to->kind == UNPACK_LINK ? unpack_target_check(x->path, x->target, e) : ERR_OK;
}

static enum err_code take_hard_links(struct unpack_list *l, struct error *e)
{
	AUTO_FREE struct unpack_entry **hard = NULL;
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		n += l->v[i].kind == UNPACK_HARD;
	if (!n)
		return ERR_OK;
	hard = mem_alloc(n * sizeof(struct unpack_entry *));
	n = 0;
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].kind == UNPACK_HARD)
			hard[n++] = &l->v[i];
	qsort(hard, n, sizeof(struct unpack_entry *), by_order);
	for (size_t i = 0; i < n; i++)
		TRY(hard_link_take(l, hard[i], e));
	return ERR_OK;
}

static enum err_code check_sums(struct unpack_list *l, const struct unpack_limits *limits, struct error *e)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->v[i].kind == UNPACK_DIR)
			continue;
		l->files++;
		l->bytes += l->v[i].size; /* of a hard link too: it becomes a file of its own */
		if (l->bytes > limits->bytes)
			return unpack_refuse(e, ERR_TOO_LARGE, l->v[i].path, "goes over the limit: all files together have more than %lld bytes (limits.archive_bytes)",
				(long long)limits->bytes);
	}
	if (l->files)
		return ERR_OK;
	error_set(e, ERR_INVALID, "the archive holds no files");
	return ERR_INVALID;
}

/* ---- the top ---- */

/* "name/" that all paths have; NULL when there is none, or when it is a file. */
static char *common_top(const struct unpack_list *l)
{
	size_t n = strcspn(l->v[0].path, "/");

	for (size_t i = 0; i < l->n; i++) {
		const char *path = l->v[i].path;
		bool inside = strncmp(path, l->v[0].path, n) == 0 && (path[n] == '/' || (!path[n] && l->v[i].kind == UNPACK_DIR));

		if (!inside)
			return NULL;
	}
	return mem_strndup(l->v[0].path, n);
}

/* Archives as people have them (git hosts, `tar czf x.tgz project/`) hold one directory: the project is what is in it. */
static void take_top_off(struct unpack_list *l)
{
	size_t n, kept = 0;

	l->top = common_top(l);
	if (!l->top)
		return;
	n = strlen(l->top);
	for (size_t i = 0; i < l->n; i++) {
		struct unpack_entry *x = &l->v[i];

		if (!x->path[n]) { /* the directory itself */
			entry_release(x);
			continue;
		}
		memmove(x->path, x->path + n + 1, strlen(x->path + n + 1) + 1);
		l->v[kept++] = *x;
	}
	l->n = kept;
}

/* ---- links ---- */

struct walk {
	const struct unpack_list *list;
	struct strbuf at; /* where we are, as a path in the archive; "" is the top */
	int hops;
	int steps; /* that may still be made; below 0: they did not suffice */
};

static void walk_up(struct walk *w)
{
	size_t n = w->at.len;

	while (n && w->at.data[n - 1] != '/')
		n--;
	w->at.len = n ? n - 1 : 0;
	if (w->at.data)
		w->at.data[w->at.len] = '\0';
}

static bool walk_target(struct walk *w, const char *target);

/* false: it leads out. */
static bool walk_part(struct walk *w, const char *part, size_t n)
{
	const struct unpack_entry *x;

	if (n == 0 || (n == 1 && part[0] == '.'))
		return true;
	if (n == 2 && part[0] == '.' && part[1] == '.') {
		if (!w->at.len)
			return false;
		walk_up(w);
		return true;
	}
	if (w->at.len)
		strbuf_addc(&w->at, '/');
	strbuf_add(&w->at, part, n);
	x = find(w->list, strbuf_str(&w->at));
	if (!x || x->kind != UNPACK_LINK)
		return true;
	if (w->hops++ >= UNPACK_HOPS_MAX)
		return true; /* nobody comes further */
	walk_up(w);
	return walk_target(w, x->target);
}

static bool walk_target(struct walk *w, const char *target)
{
	for (const char *at = target; *at && w->hops <= UNPACK_HOPS_MAX && w->steps-- > 0;) {
		size_t n = strcspn(at, "/\\");

		if (!walk_part(w, at, n))
			return false;
		at += n + (at[n] != '\0');
	}
	return true;
}

static enum err_code check_link(const struct unpack_list *l, const struct unpack_entry *x, int *steps, struct error *e)
{
	struct walk w = { .list = l, .steps = *steps };
	bool inside;

	strbuf_adds(&w.at, x->path);
	walk_up(&w);
	inside = walk_target(&w, x->target);
	strbuf_release(&w.at);
	*steps = w.steps;
	if (inside && w.steps < 0)
		return unpack_refuse(e, ERR_TOO_LARGE, x->path, "is one link too many: all of them together are too long to follow");
	return inside ? ERR_OK : unpack_refuse(e, ERR_INVALID, x->path, "is a link that leads out: to '%.*s'", (int)UNPACK_SHOWN_MAX, x->target);
}

enum err_code unpack_list_settle(struct unpack_list *l, const struct unpack_limits *limits, struct error *e)
{
	TRY(check_order(l, e));
	TRY(take_hard_links(l, e));
	TRY(check_sums(l, limits, e));
	int steps = UNPACK_STEPS_MAX;

	if (!limits->keep_top)
		take_top_off(l);
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].kind == UNPACK_LINK)
			TRY(check_link(l, &l->v[i], &steps, e));
	return ERR_OK;
}

bool unpack_list_has_name(const struct unpack_list *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++) {
		const char *slash = strrchr(l->v[i].path, '/');

		if (l->v[i].kind != UNPACK_DIR && str_eq(slash ? slash + 1 : l->v[i].path, name))
			return true;
	}
	return false;
}
