/* Listing and measuring the cache; taking things out. */
#include "source/stock.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/cache.h"
#include "source/checkout.h"
#include "source/try.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define LABEL_MAX ((size_t)8 << 10)
#define WALK_FDS 16
#define BLOCK 512
#define GONE ".gone-" /* being removed */
#define COMMIT_LEN 40

const char *stock_kind_name(enum stock_kind kind)
{
	static const char *const names[STOCK_KINDS] = { [STOCK_TREE] = "tree", [STOCK_STORE] = "store", [STOCK_LEFTOVER] = "leftover" };

	return names[kind];
}

static void item_release(struct stock_item *i)
{
	free(i->path);
	free(i->what);
	free(i->store_mark);
}

void stock_release(struct stock *s)
{
	for (size_t i = 0; i < s->n; i++)
		item_release(&s->v[i]);
	free(s->v);
	*s = (struct stock){ .v = NULL };
}

/* ---- measuring ---- */

static _Thread_local int64_t walked_bytes; /* nftw takes no context */

static int add_size(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)path;
	(void)type;
	(void)where;
	walked_bytes += (int64_t)st->st_blocks * BLOCK / (S_ISDIR(st->st_mode) || st->st_nlink == 0 ? 1 : (int64_t)st->st_nlink);
	return 0;
}

static int64_t measure(const char *path)
{
	walked_bytes = 0;
	nftw(path, add_size, WALK_FDS, FTW_PHYS | FTW_MOUNT);
	return walked_bytes;
}

static int64_t time_of(const char *path)
{
	struct stat st;

	return lstat(path, &st) < 0 ? 0 : (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
}

/* ---- listing ---- */

static struct stock_item *add(struct stock *s, enum stock_kind kind, char *path_taken)
{
	if ((s->n & (s->n + 1)) == 0) /* 0, 1, 3, 7: grow to twice */
		s->v = mem_grow(s->v, (s->n * 2 + 2) * sizeof(*s->v));
	s->v[s->n] = (struct stock_item){ .kind = kind, .path = path_taken };
	return &s->v[s->n++];
}

static char *mark_of(const char *store_repo)
{
	AUTO_FREE char *key = cache_key(store_repo);

	return mem_strndup(key, CHECKOUT_HASH_SHOWN);
}

/* "<commit>-<store>-<view>" */
static void add_tree(struct stock *s, const char *trees, const char *name)
{
	AUTO_FREE char *lock = mem_printf("%s/.lock-%s", trees, name);
	const char *mark = strchr(name, '-');
	struct stock_item *item;

	if (!mark || mark - name != COMMIT_LEN)
		return;
	item = add(s, STOCK_TREE, file_join(trees, name));
	item->what = mem_strndup(name, COMMIT_LEN);
	item->store_mark = mem_strndup(mark + 1, strcspn(mark + 1, "-"));
	item->used_ms = time_of(lock);
	if (item->used_ms == 0)
		item->used_ms = time_of(item->path);
}

/* The first line of whichever label there is says what the store is of. */
static char *read_label(const char *dir)
{
	static const char *const labels[] = { "url", "dir", "archive", NULL };
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(LABEL_MAX);
	AUTO_CLOSE int fd = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	for (const char *const *l = labels; fd >= 0 && *l; l++)
		if (file_read_at(fd, *l, LABEL_MAX, &text, NULL) == ERR_OK)
			return mem_strndup(strbuf_str(&text), strcspn(strbuf_str(&text), "\n"));
	return mem_strdup("?");
}

static void add_store(struct stock *s, const char *room, const char *name)
{
	struct stock_item *item = add(s, STOCK_STORE, file_join(room, name));
	AUTO_FREE char *repo = file_join(item->path, "repo.git");
	AUTO_FREE char *lock = file_join(item->path, "lock");

	item->what = read_label(item->path);
	item->store_mark = mark_of(repo);
	item->used_ms = time_of(lock);
}

static void add_leftover(struct stock *s, const char *dir, const char *name)
{
	struct stock_item *item = add(s, STOCK_LEFTOVER, file_join(dir, name));

	item->what = mem_strdup(name);
	item->store_mark = mem_strdup("");
	item->used_ms = time_of(item->path);
}

static void add_entry(struct stock *s, const char *dir, const char *name, bool is_trees)
{
	if (str_starts(name, GONE) || str_starts(name, ".tmp-"))
		add_leftover(s, dir, name);
	else if (name[0] != '.')
		(is_trees ? add_tree : add_store)(s, dir, name);
}

static void list_room(struct stock *s, const char *cache, const char *room)
{
	AUTO_FREE char *dir = file_join(cache, room);
	DIR *d = opendir(dir);
	struct dirent *entry;

	while (d && s->n < STOCK_ITEMS_MAX && (entry = readdir(d)))
		add_entry(s, dir, entry->d_name, str_eq(room, "trees"));
	if (d)
		closedir(d);
}

/* ---- the whole ---- */

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct stock_item *)a)->path, ((const struct stock_item *)b)->path);
}

static int by_mark(const void *a, const void *b)
{
	const struct stock_item *x = a, *y = b;
	int order = strcmp(x->store_mark, y->store_mark);

	return order ? order : (x->kind > y->kind) - (x->kind < y->kind);
}

static int by_use(const void *a, const void *b)
{
	const struct stock_item *x = a, *y = b;

	if (x->used_ms != y->used_ms)
		return x->used_ms < y->used_ms ? -1 : 1;
	return (x->kind > y->kind) - (x->kind < y->kind); /* trees first */
}

/* A store was used when the last of its trees was. */
static void date_stores(struct stock *s)
{
	int64_t newest = 0;

	qsort(s->v, s->n, sizeof(*s->v), by_mark);
	for (size_t i = 0; i < s->n; i++) {
		if (i == 0 || !str_eq(s->v[i].store_mark, s->v[i - 1].store_mark))
			newest = 0;
		if (s->v[i].kind == STOCK_TREE && s->v[i].used_ms > newest)
			newest = s->v[i].used_ms;
		if (s->v[i].kind == STOCK_STORE && s->v[i].used_ms < newest)
			s->v[i].used_ms = newest;
	}
}

void stock_sort(struct stock *s)
{
	if (s->n)
		qsort(s->v, s->n, sizeof(*s->v), by_use);
}

/* Trees never change, so they are measured once. */
static void measure_all(struct stock *s, const struct stock *before)
{
	struct stock known = { .v = mem_alloc(((before ? before->n : 0) + 1) * sizeof(*known.v)) };

	for (size_t i = 0; before && i < before->n; i++)
		if (before->v[i].kind == STOCK_TREE)
			known.v[known.n++] = before->v[i];
	if (known.n)
		qsort(known.v, known.n, sizeof(*known.v), by_path);
	for (size_t i = 0; i < s->n; i++) {
		const struct stock_item *found = known.n && s->v[i].kind == STOCK_TREE ? bsearch(&s->v[i], known.v, known.n, sizeof(*known.v), by_path) : NULL;

		s->v[i].bytes = found ? found->bytes : measure(s->v[i].path);
	}
	free(known.v);
}

enum err_code stock_list(const char *cache, const struct stock *before, struct stock *ret, struct error *e)
{
	struct stock s = { .v = NULL };
	DIR *d = opendir(cache);
	struct dirent *entry;

	if (!d && errno != ENOENT)
		return error_errno(e, "read the cache '%s'", cache);
	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.')
			list_room(&s, cache, entry->d_name);
	if (d)
		closedir(d);
	if (s.n) {
		date_stores(&s);
		measure_all(&s, before);
		stock_sort(&s);
	}
	*ret = s;
	return ERR_OK;
}

bool stock_is_of(const struct stock_item *item, const char *store_repo, const char *commit)
{
	AUTO_FREE char *mark = mark_of(store_repo);

	if (item->kind == STOCK_LEFTOVER || !str_eq(item->store_mark, mark))
		return false;
	return item->kind == STOCK_STORE || !commit || str_eq(item->what, commit);
}

/* ---- out ---- */

static char *lock_of(const struct stock_item *item, const char *dir, const char *name)
{
	switch (item->kind) {
	case STOCK_TREE:
		return mem_printf("%s/.lock-%s", dir, name);
	case STOCK_STORE:
		return file_join(item->path, "lock");
	case STOCK_LEFTOVER:
		return str_starts(name, ".tmp-") ? mem_printf("%s/.lock-%s", dir, name + strlen(".tmp-")) : NULL;
	case STOCK_KINDS:
		break;
	}
	return NULL;
}

enum err_code stock_take_out(const struct stock_item *item, char **ret_gone, struct error *e)
{
	AUTO_FREE char *dir = file_dirname(item->path);
	const char *name = strrchr(item->path, '/') + 1;
	AUTO_FREE char *lock = lock_of(item, dir, name);
	AUTO_CLOSE int held = -1;
	char id[ID_SIZE];

	if (lock)
		TRY(file_lock(lock, false, &held, e));
	if (str_starts(name, GONE)) {
		*ret_gone = mem_strdup(item->path);
		return ERR_OK;
	}
	clock_new_id(id);
	AUTO_FREE char *gone = mem_printf("%s/" GONE "%s", dir, id);
	if (rename(item->path, gone) < 0)
		return error_errno(e, "take '%s' out of the cache", item->path);
	if (item->kind == STOCK_TREE)
		unlink(lock); /* whoever waits for it sees that it is another's (cache_lock) */
	*ret_gone = TAKE_PTR(gone);
	return ERR_OK;
}
