/* Makes a checkout once: in a directory of its own, renamed into place when it is whole; a new commit starts from hard links
 * to the store's newest tree. That is safe because nobody writes into a tree and git replaces files by unlink and create. */
#include "source/checkout.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/cache.h"
#include "source/git.h"
#include "source/index_file.h"
#include "source/lfs.h"
#include "source/submodule.h"
#include "source/tree_dir.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_MAX ((size_t)64 << 10)
#define SHA1_SIZE 20
#define SUBMODULES_SHOWN 20
#define LFS_MARK "lfs-" /* in the name of a tree whose files are not all what its commit holds: none begins from it */

struct tree { /* one tree in the making */
	const struct checkout_job *job;
	char *trees, *name; /* CACHE/trees and the last part of the path */
	char *path, *temp, *lock;
	char *store_mark; /* "-<store>-": what trees of one store have in common */
	int64_t files, bytes;
	struct js *warnings;
};

static void tree_release(struct tree *t)
{
	free(t->trees);
	free(t->name);
	free(t->path);
	free(t->temp);
	free(t->lock);
	free(t->store_mark);
	js_free(t->warnings);
}

static void tree_init(struct tree *t, const struct checkout_job *job)
{
	AUTO_FREE char *store = cache_key(job->store);
	AUTO_FREE char *view_text = mem_printf("%s\n%s%s", job->head ? job->head : "", job->branch ? job->branch : "", job->with_submodules ? "\nsubmodules" : "");
	AUTO_FREE char *view = cache_key(view_text);

	*t = (struct tree){ .job = job, .trees = file_join(job->cache, "trees"), .warnings = js_array() };
	t->store_mark = mem_printf("-%.*s-", CHECKOUT_HASH_SHOWN, store);
	t->name = mem_printf("%s%s%s%.*s", job->commit, t->store_mark, job->with_lfs ? LFS_MARK : "", CHECKOUT_HASH_SHOWN, view);
	t->path = file_join(t->trees, t->name);
	t->temp = mem_printf("%s/.tmp-%s", t->trees, t->name);
	t->lock = mem_printf("%s/.lock-%s", t->trees, t->name);
}

static struct git tree_git(const struct tree *t, const char *index)
{
	static const char *const config[] = { GIT_STREAMED, NULL };

	return (struct git){ .git_dir = t->job->store, .work_tree = t->temp, .index = index, .config = config };
}

/* ---- files ---- */

static void take_progress(void *ctx, const char *line)
{
	report_git_line(ctx, "checkout", line);
}

static enum err_code read_tree(const struct tree *t, const char *index, const char *from, struct error *e)
{
	const struct git g = tree_git(t, index);
	const struct git_sink sink = { .progress = take_progress, .ctx = t->job->report };
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	const char *args[] = { "read-tree", "-v", "-m", "-u", from ? from : t->job->commit, from ? t->job->commit : NULL, NULL };
	int status = 0;

	TRY(git_stream(&g, args, &sink, &err, &status, e));
	if (status == 0)
		return ERR_OK;
	git_failed("git read-tree", status, strbuf_str(&err), e);
	return error_wrap(e, "check out %s", t->job->commit);
}

/* The store's newest whole tree, or NULL. */
static char *find_previous(const struct tree *t)
{
	DIR *d = opendir(t->trees);
	struct timespec newest = { .tv_sec = 0 };
	AUTO_FREE char *best = NULL;
	struct dirent *entry;
	struct stat st;

	while (d && (entry = readdir(d))) {
		if (entry->d_name[0] == '.' || !strstr(entry->d_name, t->store_mark) || strstr(entry->d_name, "-" LFS_MARK))
			continue;
		if (fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
			continue;
		if (best && (st.st_ctim.tv_sec < newest.tv_sec || (st.st_ctim.tv_sec == newest.tv_sec && st.st_ctim.tv_nsec < newest.tv_nsec)))
			continue;
		newest = st.st_ctim;
		free(best);
		best = file_join(t->trees, entry->d_name);
	}
	if (d)
		closedir(d);
	return TAKE_PTR(best);
}

/* A directory's name begins with its commit. */
static char *commit_of(const char *path)
{
	const char *name = strrchr(path, '/') + 1;

	return mem_strndup(name, strcspn(name, "-"));
}

static enum err_code files_from_previous(const struct tree *t, const char *previous, const char *index, struct error *e)
{
	AUTO_FREE char *old_index = file_join(previous, CHECKOUT_INDEX);
	AUTO_FREE char *from = commit_of(previous);

	TRY(tree_dir_link(previous, old_index, t->temp, e));
	TRY(file_copy(old_index, index, 0644, e));
	return read_tree(t, index, from, e);
}

static enum err_code start_temp(const struct tree *t, struct error *e)
{
	AUTO_FREE char *dot_git = file_join(t->temp, ".git");

	TRY(file_remove_tree(t->temp, e));
	return file_mkdirs(dot_git, 0755, e);
}

static enum err_code make_files(const struct tree *t, const char *index, struct error *e)
{
	AUTO_FREE char *previous = find_previous(t);
	struct error ignored = ERROR_INIT;

	TRY(start_temp(t, e));
	if (previous && files_from_previous(t, previous, index, &ignored) == ERR_OK)
		return ERR_OK;
	if (previous)
		TRY(start_temp(t, e));
	return read_tree(t, index, NULL, e);
}

/* ---- the index ---- */

static bool is_filled(const struct tree *t, const char *name)
{
	const struct submodule_list *list = t->job->submodules;

	for (size_t i = 0; list && i < list->n; i++)
		if (str_eq(list->v[i].path, name))
			return true;
	return false;
}

static void note_submodule(struct tree *t, const char *name)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	if (is_filled(t, name) || js_len(t->warnings) >= SUBMODULES_SHOWN)
		return;
	strbuf_adds(&text, "the submodule '");
	str_add_printable(&text, name, strlen(name));
	strbuf_adds(&text, "' is left empty");
	js_push_str(t->warnings, strbuf_str(&text));
}

/* In a pointer's place, what it points to. */
static enum err_code put_lfs(const struct tree *t, int dir, const struct lfs_file *f, uint32_t mode, struct error *e)
{
	AUTO_FREE char *temp = file_join(t->temp, ".git/signalbox-part");

	TRY(file_copy(f->kept, temp, mode & 0111 ? 0755 : 0644, e));
	return renameat(AT_FDCWD, temp, dir, f->path) < 0 ? error_errno(e, "put '%s'", f->path) : ERR_OK;
}

/* Every file gets one old time, and its entry with it, so that nothing has to be read again to know that it is unchanged. */
static enum err_code age_files(struct tree *t, const char *index, struct error *e)
{
	AUTO(index_release) struct index_file x = { .at = 0 };
	const struct timespec times[2] = { { .tv_sec = CHECKOUT_MTIME }, { .tv_sec = CHECKOUT_MTIME } };
	AUTO_CLOSE int dir = open(t->temp, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	struct index_entry entry;
	unsigned int n;

	TRY(index_load(index, &x, e));
	while (index_next(&x, &entry)) {
		bool is_old = index_get_u32(entry.stat + 8) == CHECKOUT_MTIME;

		if (entry.mode == INDEX_MODE_GITLINK)
			note_submodule(t, entry.name);
		const struct lfs_file *lfs = S_ISREG(entry.mode) ? lfs_find(t->job->lfs, entry.name) : NULL;

		t->files++;
		t->bytes += lfs ? lfs->size : entry.size;
		if (lfs) {
			TRY(put_lfs(t, dir, lfs, entry.mode, e));
			index_put_u32(entry.stat + INDEX_STAT_SIZE, (uint32_t)lfs->size); /* so that git finds it unchanged */
		}
		if (entry.mode == INDEX_MODE_GITLINK || (is_old && !lfs))
			continue;
		if (utimensat(dir, entry.name, times, AT_SYMLINK_NOFOLLOW) < 0)
			return error_errno(e, "set the time of '%s'", entry.name);
		index_put_u32(entry.stat, CHECKOUT_MTIME);
		index_put_u32(entry.stat + 4, 0);
		index_put_u32(entry.stat + 8, CHECKOUT_MTIME);
		index_put_u32(entry.stat + 12, 0);
	}
	TRY(index_check_end(&x, index, e));
	EVP_Digest(x.data.data, x.data.len - SHA1_SIZE, (unsigned char *)x.data.data + x.data.len - SHA1_SIZE, &n, EVP_sha1(), NULL);
	return file_replace(index, x.data.data, x.data.len, 0644, FILE_NOSYNC, e);
}

/* The files alone: nobody looks at a submodule's index again. */
static enum err_code age_part(struct tree *t, int dir, const char *index, struct error *e)
{
	AUTO(index_release) struct index_file x = { .at = 0 };
	const struct timespec times[2] = { { .tv_sec = CHECKOUT_MTIME }, { .tv_sec = CHECKOUT_MTIME } };
	struct index_entry entry;

	TRY(index_load(index, &x, e));
	while (index_next(&x, &entry)) {
		t->files++;
		t->bytes += entry.size;
		if (entry.mode != INDEX_MODE_GITLINK && utimensat(dir, entry.name, times, AT_SYMLINK_NOFOLLOW) < 0)
			return error_errno(e, "set the time of '%s'", entry.name);
	}
	return index_check_end(&x, index, e);
}

/* What `git status` inside compares with: the head's tree, so that a dirty snapshot shows exactly its changes. */
static enum err_code make_head_index(const struct tree *t, const char *index, struct error *e)
{
	AUTO_FREE char *head_index = file_join(t->temp, ".git/index");
	const struct git g = tree_git(t, head_index);
	const char *head = t->job->head;

	TRY(file_copy(index, head_index, 0644, e));
	if (!head || str_eq(head, t->job->commit))
		return ERR_OK;
	return git_run(&g, (const char *const[]){ "read-tree", "-i", "-m", head, NULL }, NULL, 0, NULL, e);
}

/* ---- the record, and the whole ---- */

static enum err_code write_record(const struct tree *t, struct js *ret_facts, struct error *e)
{
	AUTO_FREE char *path = file_join(t->temp, CHECKOUT_RECORD);
	AUTO_FREE char *expression = mem_printf("%s^{tree}", t->job->commit);
	AUTO_FREE char *tree = NULL;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	const struct git g = { .git_dir = t->job->store };

	TRY(git_line(&g, (const char *const[]){ "rev-parse", "--verify", expression, NULL }, &tree, e));
	js_set_str(ret_facts, "tree", tree);
	js_set_int(ret_facts, "files", t->files);
	js_set_int(ret_facts, "bytes", t->bytes);
	js_set(ret_facts, "warnings", js_ref(t->warnings));
	js_dump_to(ret_facts, &text);
	strbuf_addc(&text, '\n');
	return file_replace(path, text.data, text.len, 0644, FILE_NOSYNC, e);
}

/* A tree that is there after a power cut is whole: its bytes reach the disk before its name does. */
static enum err_code publish(const struct tree *t, struct error *e)
{
	AUTO_CLOSE int dir = open(t->temp, O_DIRECTORY | O_RDONLY | O_CLOEXEC);

	if (dir < 0 || syncfs(dir) < 0)
		return error_errno(e, "write '%s' to disk", t->temp);
	TRY(file_remove_tree(t->path, e));
	if (rename(t->temp, t->path) < 0)
		return error_errno(e, "rename '%s'", t->temp);
	return file_sync_dir(t->trees, e);
}

/* A submodule's files, from a store and an index of their own, into the empty directory that the tree has for it. */
static enum err_code make_submodule(struct tree *t, const struct submodule *s, struct error *e)
{
	AUTO_FREE char *index = file_join(t->temp, ".git/signalbox-part");
	AUTO_FREE char *path = file_join(t->temp, s->path);
	AUTO_CLOSE int top = open(t->temp, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	AUTO_CLOSE int dir = -1;
	const struct git g = { .git_dir = s->store, .work_tree = path, .index = index };

	TRY(file_open_beneath(top, s->path, O_DIRECTORY | O_RDONLY, &dir, e));
	TRY(git_run(&g, (const char *const[]){ "read-tree", "-m", "-u", s->commit, NULL }, NULL, 0, NULL, e));
	TRY(age_part(t, dir, index, e));
	unlink(index);
	return ERR_OK;
}

static enum err_code make_submodules(struct tree *t, struct error *e)
{
	const struct submodule_list *list = t->job->submodules;

	for (size_t i = 0; list && i < list->n; i++)
		if (make_submodule(t, &list->v[i], e) != ERR_OK)
			return error_wrap(e, "check out the submodule '%s'", list->v[i].path);
	return ERR_OK;
}

static enum err_code make(struct tree *t, struct js *ret_facts, struct error *e)
{
	AUTO_FREE char *index = file_join(t->temp, CHECKOUT_INDEX);
	const struct tree_dir view = { .store = t->job->store, .head = t->job->head ? t->job->head : t->job->commit,
		.branch = t->job->branch ? t->job->branch : t->job->head ? NULL : "main" };

	report_progress(t->job->report, "checkout", 0, "checking out");
	TRY(make_files(t, index, e));
	TRY(age_files(t, index, e));
	TRY(make_submodules(t, e));
	TRY(make_head_index(t, index, e));
	TRY(tree_dir_write(&view, t->temp, e));
	TRY(write_record(t, ret_facts, e));
	return publish(t, e);
}

static bool read_record(const struct tree *t, struct js **ret_facts)
{
	AUTO_FREE char *path = file_join(t->path, CHECKOUT_RECORD);

	*ret_facts = js_load(path, RECORD_MAX, NULL);
	return *ret_facts != NULL;
}

/* Directories that a killed fetch left half-made: those whose lock nobody holds. */
static void remove_orphans(const struct tree *t)
{
	DIR *d = opendir(t->trees);
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		AUTO_CLOSE int held = -1;

		if (!str_starts(entry->d_name, ".tmp-"))
			continue;
		AUTO_FREE char *path = file_join(t->trees, entry->d_name);
		AUTO_FREE char *lock = mem_printf("%s/.lock-%s", t->trees, entry->d_name + strlen(".tmp-"));

		if (file_lock(lock, false, &held, NULL) == ERR_OK && file_remove_tree(path, NULL) != ERR_OK)
			continue;
	}
	if (d)
		closedir(d);
}

static enum err_code make_locked(struct tree *t, struct js **ret_facts, bool *ret_reused, struct error *e)
{
	AUTO_CLOSE int lock = -1;
	enum err_code code;

	TRY(file_mkdirs(t->trees, 0700, e));
	remove_orphans(t);
	TRY(cache_lock(t->lock, t->job->report, &lock, e));
	*ret_reused = read_record(t, ret_facts);
	if (*ret_reused)
		return ERR_OK;
	*ret_facts = js_object();
	code = make(t, *ret_facts, e);
	if (code != ERR_OK && file_remove_tree(t->temp, NULL) != ERR_OK)
		return code;
	return code;
}

static void tell(const struct tree *t, struct js *facts, bool reused, struct js *result)
{
	utimensat(AT_FDCWD, t->lock, NULL, 0); /* last use, for whoever makes room in the cache */
	for (size_t i = 0; i < js_len(js_get(facts, "warnings")); i++)
		js_push(js_get(result, "warnings"), js_ref(js_at(js_get(facts, "warnings"), i)));
	js_del(facts, "warnings");
	js_merge(result, facts);
	js_set_str(result, "checkout", t->path);
	js_set_bool(result, "reused", reused);
}

enum err_code checkout_make(const struct checkout_job *job, struct js *result, struct error *e)
{
	AUTO(tree_release) struct tree t = { .files = 0 };
	AUTO_JS struct js *facts = NULL;
	bool reused;

	tree_init(&t, job);
	reused = read_record(&t, &facts);
	if (!reused)
		TRY(make_locked(&t, &facts, &reused, e));
	tell(&t, facts, reused, result);
	return ERR_OK;
}

bool checkout_find(const struct checkout_job *job, struct js *result)
{
	AUTO(tree_release) struct tree t = { .files = 0 };
	AUTO_JS struct js *facts = NULL;
	bool found;

	tree_init(&t, job);
	found = read_record(&t, &facts);
	if (found)
		tell(&t, facts, true, result);
	return found;
}
