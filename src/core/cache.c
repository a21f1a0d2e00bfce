/* Room in the cache. */
#include "core/cache.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include "source/source.h"
#include "source/stock.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define LISTED_MAX 10000 /* things told in one answer */
#define USES_MAX 200000

static const char why_live[] = "a task that is not over needs it", why_house[] = "tasks without code begin from it", why_continuable[] = "an ended task can be gone on with from it",
	why_recent[] = "it was used a moment ago", why_young[] = "it was used within that time", why_tree[] = "a tree of it stays",
	why_locked[] = "somebody is at work on it", why_unused[] = "nothing needs it", why_limit[] = "the cache is larger than cache.max_bytes",
	why_half[] = "a fetch that was killed left it";

struct cache_keeper {
	pthread_mutex_t lock; /* guards the rest; held while things are listed and taken out, so that only one does */
	struct stock known;   /* as last listed */
	int64_t bytes[STOCK_KINDS];
	size_t count[STOCK_KINDS];
};

void cache_open(struct core *c)
{
	c->cache = NEW(struct cache_keeper);
	pthread_mutex_init(&c->cache->lock, NULL);
}

void cache_close(struct core *c)
{
	if (!c->cache)
		return;
	stock_release(&c->cache->known);
	pthread_mutex_destroy(&c->cache->lock);
	free(TAKE_PTR(c->cache));
}

/* ---- what is needed ---- */

struct use {
	char *store, *commit, *task; /* commit NULL: any of the store's; task NULL: one that is not over */
	bool house; /* no task's: the server's own */
};

struct uses {
	struct core *core;
	int64_t since;
	struct use *v;
	size_t n;
};

static void uses_release(struct uses *u)
{
	for (size_t i = 0; i < u->n; i++) {
		free(u->v[i].store);
		free(u->v[i].commit);
		free(u->v[i].task);
	}
	free(u->v);
}

static void add_use(struct uses *u, const char *project, const char *source_text, const char *task)
{
	AUTO_FREE char *cache = mem_printf("%s/cache/%s", u->core->data, project);
	AUTO_JS struct js *source = source_text ? js_parse(source_text, strlen(source_text), NULL) : NULL;
	AUTO_FREE char *mirror = source ? source_mirror_path(source, cache) : NULL;
	char *store = mirror ? file_join(mirror, "repo.git") : mem_strdup(js_str(source, "store"));
	if (!store)
		return;
	if ((u->n & (u->n + 1)) == 0) /* 0, 1, 3, 7: grow to twice */
		u->v = mem_grow(u->v, (u->n * 2 + 2) * sizeof(*u->v));
	u->v[u->n++] = (struct use){ .store = store, .commit = mem_strdup(js_str(source, "commit")), .task = mem_strdup(task) };
}

static enum err_code uses_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct uses *u = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT id, project, json_extract(spec,'$.source'), 0 FROM tasks"
		" WHERE " SQL_LIVE("phase")
		" UNION ALL SELECT id, project, json_extract(spec,'$.source'), 1 FROM tasks"
		" WHERE " SQL_OVER("phase") " AND completed_at>?1", &s, e);
	if (rc)
		return rc;
	db_bind_int(s, 1, u->since);
	while (u->n < USES_MAX && !(rc = db_step(s, &row, e)) && row)
		add_use(u, db_text(s, 1), db_text(s, 2), db_int(s, 3) ? db_text(s, 0) : NULL);
	db_done(s);
	return !rc && u->n >= USES_MAX ? error_set(e, ERR_LIMIT, "more than %d tasks need something of the cache", USES_MAX) : rc;
}

/* Its workspace was saved, or is still there. */
static bool is_continuable(struct core *c, const char *task)
{
	AUTO_FREE char *saved = mem_printf("%s/tasks/%s/agents/main/workspace/base.json", c->data, task);
	AUTO_FREE char *work = launch_work_dir(c, task, "main");
	return file_exists(saved) || file_exists(work);
}

static int by_store(const void *a, const void *b)
{
	return strcmp(((const struct use *)a)->store, ((const struct use *)b)->store);
}

/* What the ended ones need is looked at once per task. */
static void drop_finished(struct uses *u)
{
	size_t kept = 0;
	for (size_t i = 0; i < u->n; i++) {
		if (u->v[i].task && !is_continuable(u->core, u->v[i].task)) {
			free(u->v[i].store);
			free(u->v[i].commit);
			free(u->v[i].task);
			continue;
		}
		u->v[kept++] = u->v[i];
	}
	u->n = kept;
	if (u->n)
		qsort(u->v, u->n, sizeof(*u->v), by_store);
}

/* The server remembers the snapshot of nothing while it lives. */
static void add_empty(struct core *c, struct uses *u)
{
	pthread_mutex_lock(&c->sched_lock);
	AUTO_FREE char *text = c->empty_snapshot ? js_dump(c->empty_snapshot) : NULL;
	pthread_mutex_unlock(&c->sched_lock);
	size_t n = u->n;
	if (text)
		add_use(u, "default", text, NULL);
	if (u->n > n)
		u->v[n].house = true;
}

static enum err_code uses_load(struct core *c, struct uses *u, struct error *e)
{
	*u = (struct uses){ .core = c, .since = clock_wall_ms() - conf_limit(c->config, "workspace_age") };
	add_empty(c, u);
	enum err_code rc = db_read(c->db, uses_op, u, e);
	if (!rc)
		drop_finished(u);
	return rc;
}

/* The strongest reason is told. */
static const char *why_of(const struct use *u, const char *known)
{
	if (known == why_live || (!u->task && !u->house))
		return why_live;
	return known == why_house || u->house ? why_house : why_continuable;
}

/* Sorted by store, so that each store is compared with the things once. */
static void mark_uses(struct stock *s, const struct uses *u)
{
	for (size_t i = 0; i < u->n; i++) {
		if (i && str_eq(u->v[i].store, u->v[i - 1].store) && str_eq(u->v[i].commit, u->v[i - 1].commit) && !u->v[i].task == !u->v[i - 1].task && u->v[i].house == u->v[i - 1].house)
			continue;
		for (size_t k = 0; k < s->n; k++)
			if (stock_is_of(&s->v[k], u->v[i].store, u->v[i].commit)) {
				s->v[k].in_use = true;
				s->v[k].why = why_of(&u->v[i], s->v[k].why);
			}
	}
}

/* ---- what goes ---- */

struct pass {
	struct core *core;
	struct stock stock;
	int64_t older_than_ms, need_bytes; /* need_bytes < 0: everything that may */
	bool dry_run;
	char **gone;
	size_t gone_count;
	int64_t removed_bytes, kept_bytes, removed;
	struct js *list_removed, *list_kept; /* NULL: nobody asks */
};

static void pass_release(struct pass *p)
{
	stock_release(&p->stock);
	for (size_t i = 0; i < p->gone_count; i++)
		free(p->gone[i]);
	free(p->gone);
	js_free(p->list_removed);
	js_free(p->list_kept);
}

static bool store_has_tree(const struct stock *s, const struct stock_item *store)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->v[i].kind == STOCK_TREE && s->v[i].path && str_eq(s->v[i].store_mark, store->store_mark))
			return true;
	return false;
}

/* NULL: it may go. */
static const char *why_stays(const struct pass *p, const struct stock_item *i, int64_t now)
{
	if (i->kind == STOCK_LEFTOVER)
		return NULL; /* its lock decides */
	if (i->in_use)
		return i->why;
	if (i->used_ms > now - CACHE_GRACE_MS)
		return why_recent;
	if (i->used_ms > now - p->older_than_ms)
		return why_young;
	return i->kind == STOCK_STORE && store_has_tree(&p->stock, i) ? why_tree : NULL;
}

static void tell(struct js *list, const struct stock_item *i, const char *why)
{
	char at[RFC3339_SIZE];
	if (!list || js_len(list) >= LISTED_MAX)
		return;
	struct js *o = js_object();
	clock_rfc3339(i->used_ms, at);
	js_set_str(o, "kind", stock_kind_name(i->kind));
	js_set_str(o, "what", i->what);
	js_set_str(o, "path", i->path);
	js_set_int(o, "bytes", i->bytes);
	js_set_str(o, "used_at", at);
	js_set_str(o, "why", why);
	js_push(list, o);
}

static void keep(struct pass *p, const struct stock_item *i, const char *why)
{
	p->kept_bytes += i->bytes;
	tell(p->list_kept, i, why);
}

static void remove_one(struct pass *p, struct stock_item *i, const char *why)
{
	struct error e = ERROR_INIT;
	char *gone = NULL;
	enum err_code rc = p->dry_run ? ERR_OK : stock_take_out(i, &gone, &e);
	if (rc) {
		if (rc != ERR_BUSY && rc != ERR_NOT_FOUND)
			log_warn("cache: %s", e.text);
		keep(p, i, rc == ERR_BUSY ? why_locked : e.text);
		return;
	}
	if (gone) {
		p->gone = mem_grow(p->gone, (p->gone_count + 1) * sizeof(*p->gone));
		p->gone[p->gone_count++] = gone;
	}
	p->removed_bytes += i->bytes;
	p->removed++;
	tell(p->list_removed, i, why);
	free(TAKE_PTR(i->path)); /* its store need not stay for it */
}

/* The least recently used first; a tree comes before its store. */
static void choose(struct pass *p)
{
	int64_t now = clock_wall_ms();
	for (size_t k = 0; k < p->stock.n; k++) {
		struct stock_item *i = &p->stock.v[k];
		const char *stays = why_stays(p, i, now);
		bool enough = p->need_bytes >= 0 && p->removed_bytes >= p->need_bytes && i->kind != STOCK_LEFTOVER;
		if (stays || enough)
			keep(p, i, stays ? stays : why_unused);
		else
			remove_one(p, i, i->kind == STOCK_LEFTOVER ? why_half : p->need_bytes >= 0 ? why_limit : why_unused);
	}
}

/* The caches of all projects, in one list. */
static enum err_code list_all(struct core *c, struct stock *ret, struct error *e)
{
	AUTO_FREE char *above = file_join(c->data, "cache");
	struct stock all = { .v = NULL };
	DIR *d = opendir(above);
	enum err_code rc = ERR_OK;
	for (struct dirent *entry; d && !rc && (entry = readdir(d));) {
		AUTO_FREE char *cache = file_join(above, entry->d_name);
		struct stock one = { .v = NULL };
		if (entry->d_name[0] == '.' || str_eq(entry->d_name, "empty"))
			continue;
		rc = stock_list(cache, &c->cache->known, &one, e);
		if (!rc && one.n) {
			all.v = mem_grow(all.v, (all.n + one.n) * sizeof(*all.v));
			memcpy(all.v + all.n, one.v, one.n * sizeof(*one.v));
			all.n += one.n;
		}
		free(one.v); /* its items are the whole's now */
	}
	if (d)
		closedir(d);
	stock_sort(&all);
	*ret = all;
	return rc;
}

static void remember(struct cache_keeper *k, const struct stock *s)
{
	for (int i = 0; i < STOCK_KINDS; i++) {
		k->bytes[i] = 0;
		k->count[i] = 0;
	}
	for (size_t i = 0; i < s->n; i++)
		if (s->v[i].path) {
			k->bytes[s->v[i].kind] += s->v[i].bytes;
			k->count[s->v[i].kind]++;
		}
}

static int64_t total(const struct stock *s)
{
	int64_t sum = 0;
	for (size_t i = 0; i < s->n; i++)
		sum += s->v[i].bytes;
	return sum;
}

/* Between the look at the tasks and the renaming no run begins; what was submitted but has no row yet was used a moment ago. */
static enum err_code choose_under_lock(struct core *c, struct pass *p, struct error *e)
{
	AUTO(uses_release) struct uses u = { .n = 0 };
	pthread_mutex_lock(&c->launching);
	enum err_code rc = uses_load(c, &u, e);
	if (!rc) {
		mark_uses(&p->stock, &u);
		choose(p);
	}
	pthread_mutex_unlock(&c->launching);
	return rc;
}

/* With the keeper's lock. */
static enum err_code run_pass(struct core *c, struct pass *p, bool over_limit_only, struct error *e)
{
	struct cache_keeper *k = c->cache;
	enum err_code rc = list_all(c, &p->stock, e);
	if (rc)
		return rc;
	int64_t over = total(&p->stock) - conf_cache_bytes(c->config);
	if (over_limit_only)
		p->need_bytes = over > 0 ? over : 0;
	bool leftovers = false;
	for (size_t i = 0; i < p->stock.n; i++)
		leftovers = leftovers || p->stock.v[i].kind == STOCK_LEFTOVER;
	if (!over_limit_only || over > 0 || leftovers)
		rc = choose_under_lock(c, p, e);
	remember(k, &p->stock);
	if (p->removed && !p->dry_run) { /* what trees shared is shared by fewer now: measured anew next time */
		atomic_fetch_add(&c->cache_evictions, (unsigned long long)p->removed);
		atomic_fetch_add(&c->cache_evicted_bytes, (unsigned long long)p->removed_bytes);
		stock_release(&k->known);
	}
	return rc;
}

/* Trees of many files take their time: nobody waits for them under a lock. */
static void remove_gone(const struct pass *p)
{
	for (size_t i = 0; i < p->gone_count; i++) {
		struct error e = ERROR_INIT;
		if (file_remove_tree(p->gone[i], &e))
			log_warn("cache: %s", e.text);
	}
}

/* The list is worth keeping for its sizes when nothing was taken from it. */
static void keep_list(struct cache_keeper *k, struct pass *p)
{
	if (p->removed)
		return;
	stock_release(&k->known);
	k->known = p->stock;
	p->stock = (struct stock){ .v = NULL };
}

void cache_tick(struct core *c)
{
	struct pass p = { .core = c };
	struct error e = ERROR_INIT;
	pthread_mutex_lock(&c->cache->lock);
	if (run_pass(c, &p, true, &e))
		log_warn("cache: %s", e.text);
	else if (p.removed)
		log_info("cache: %lld things were removed to make room", (long long)p.removed);
	keep_list(c->cache, &p);
	pthread_mutex_unlock(&c->cache->lock);
	remove_gone(&p);
	pass_release(&p);
}

static struct js *pass_result(struct core *c, const struct pass *p)
{
	struct js *o = js_object();
	js_set(o, "removed", js_ref(p->list_removed));
	js_set(o, "kept", js_ref(p->list_kept));
	js_set_int(o, "removed_bytes", p->removed_bytes);
	js_set_int(o, "kept_bytes", p->kept_bytes);
	js_set_int(o, "limit_bytes", conf_cache_bytes(c->config));
	js_set_bool(o, "dry_run", p->dry_run);
	return o;
}

enum err_code core_prune(struct core *c, bool dry_run, int64_t older_than_ms, struct js **ret, struct error *e)
{
	struct pass p = { .core = c, .older_than_ms = older_than_ms, .need_bytes = -1, .dry_run = dry_run, .list_removed = js_array(), .list_kept = js_array() };
	pthread_mutex_lock(&c->cache->lock);
	enum err_code rc = run_pass(c, &p, false, e);
	pthread_mutex_unlock(&c->cache->lock);
	remove_gone(&p);
	if (!rc)
		*ret = pass_result(c, &p);
	pass_release(&p);
	return rc;
}

void cache_metrics(struct core *c, struct strbuf *out)
{
	struct cache_keeper *k = c->cache;
	const struct { const char *name, *help; unsigned long long v; } counters[] = {
		{ "signalbox_cache_hits_total", "Runs whose code was cached.", atomic_load(&c->cache_hits) },
		{ "signalbox_cache_misses_total", "Runs whose code had to be fetched or checked out.", atomic_load(&c->cache_misses) },
		{ "signalbox_cache_evictions_total", "Things removed from the cache.", atomic_load(&c->cache_evictions) },
		{ "signalbox_cache_evicted_bytes_total", "Their bytes.", atomic_load(&c->cache_evicted_bytes) },
	};
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
		strbuf_addf(out, "# HELP %s %s\n# TYPE %s counter\n%s %llu\n", counters[i].name, counters[i].help, counters[i].name, counters[i].name, counters[i].v);
	pthread_mutex_lock(&k->lock);
	strbuf_adds(out, "# HELP signalbox_cache_bytes What the cache holds, as last measured.\n# TYPE signalbox_cache_bytes gauge\n");
	for (int i = 0; i < STOCK_KINDS; i++)
		strbuf_addf(out, "signalbox_cache_bytes{kind=\"%s\"} %lld\n", stock_kind_name((enum stock_kind)i), (long long)k->bytes[i]);
	strbuf_adds(out, "# HELP signalbox_cache_items How many things that is.\n# TYPE signalbox_cache_items gauge\n");
	for (int i = 0; i < STOCK_KINDS; i++)
		strbuf_addf(out, "signalbox_cache_items{kind=\"%s\"} %zu\n", stock_kind_name((enum stock_kind)i), k->count[i]);
	pthread_mutex_unlock(&k->lock);
	strbuf_addf(out, "# HELP signalbox_cache_limit_bytes What it may hold (cache.max_bytes).\n# TYPE signalbox_cache_limit_bytes gauge\nsignalbox_cache_limit_bytes %lld\n",
		(long long)conf_cache_bytes(c->config));
}
