/* From touched paths to a patch, in a git directory of our own in `scratch`. With an overlay only what the layer holds is ever looked at:
 * its files go into an index that is otherwise empty, and git fast-import makes the result tree out of the snapshot's and those entries,
 * so that the size of the repository does not matter. Without one (plain) the index is a copy of the whole tree's.
 * The two trees are then compared. The walk is in diff_walk.c, git's answer is read in diff_read.c. */
#include "source/diff.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/diff_import.h"
#include "source/diff_read.h"
#include "source/diff_walk.h"
#include "source/git.h"
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#define EXCLUDE_MAX ((size_t)4 << 20)

struct collection {
	const struct diff_job *job;
	char *git_dir, *index;
	struct base_list base;
	struct diff_walk walk;
	struct name_list remove; /* from the index */
	struct name_list add;	 /* to the index */
	struct js *skipped;
	bool trusts_times; /* whoever wrote the workspace had no reason to deceive: setup, not the agent */
	struct timespec index_time;
};

static void collection_release(struct collection *c)
{
	base_list_release(&c->base);
	diff_walk_release(&c->walk);
	name_list_release(&c->remove);
	name_list_release(&c->add);
	js_free(c->skipped);
	free(c->git_dir);
	free(c->index);
}

static struct git collection_git(const struct collection *c)
{
	/* The scratch is thrown away: nothing in it has to reach the disk. */
	static const char *const config[] = { "core.fsync=none", "fastimport.unpackLimit=0", NULL };

	return (struct git){ .git_dir = c->git_dir, .work_tree = c->job->worktree, .index = c->index, .config = config };
}

/* The commit or tree that the agent's work is compared with. */
static const char *base_name(const struct collection *c)
{
	return c->job->base_tree ? c->job->base_tree : c->job->commit;
}

/* ---- our git directory ---- */

static enum err_code put(const struct collection *c, const char *name, const char *data, size_t n, struct error *e)
{
	AUTO_FREE char *path = file_join(c->git_dir, name);

	return file_replace(path, data, n, 0600, FILE_NOSYNC, e);
}

static enum err_code copy_exclude(const struct collection *c, struct error *e)
{
	AUTO_FREE char *from = file_join(c->job->store, "info/exclude");
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;

	if (!file_exists(from))
		return ERR_OK;
	TRY(file_read(from, EXCLUDE_MAX, &text, e));
	return put(c, "info/exclude", strbuf_str(&text), text.len, e);
}

static enum err_code make_git_dir(const struct collection *c, struct error *e)
{
	static const char *const dirs[] = { "refs", "objects/info", "objects/pack", "info" };
	static const char head[] = "ref: refs/heads/main\n";
	AUTO_FREE char *alternates = mem_printf("%s/objects\n", c->job->store);

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		AUTO_FREE char *path = file_join(c->git_dir, dirs[i]);

		TRY(file_mkdirs(path, 0700, e));
	}
	TRY(put(c, "HEAD", head, strlen(head), e));
	TRY(put(c, "objects/info/alternates", alternates, strlen(alternates), e));
	return copy_exclude(c, e);
}

/* With its time, or git would look at every file of the tree again. */
static enum err_code copy_checkout_index(const struct collection *c, const char *from, struct error *e)
{
	struct stat st;
	struct timespec times[2];

	TRY(file_copy(from, c->index, 0600, e));
	if (stat(from, &st) < 0)
		return error_errno(e, "open '%s'", from);
	times[0] = times[1] = st.st_mtim;
	return utimensat(AT_FDCWD, c->index, times, 0) < 0 ? error_errno(e, "set the time of '%s'", c->index) : ERR_OK;
}

/* Plain: the index of diff_snapshot_tree, where that came before in the same scratch; else the checkout's; else one made from the tree.
 * Overlay: only for its names, so the checkout's own will do. */
static enum err_code start_index(const struct collection *c, char **ret_base, struct error *e)
{
	AUTO_FREE char *cached = c->job->checkout ? file_join(c->job->checkout, ".git/signalbox-index") : NULL;
	AUTO_FREE char *base = c->job->upper ? file_join(c->job->scratch, "base-index") : mem_strdup(c->index);
	struct git g = collection_git(c);

	g.index = base;
	if (c->job->upper && cached && file_exists(cached)) {
		*ret_base = TAKE_PTR(cached);
		return ERR_OK;
	}
	if (!c->job->base_tree && cached && file_exists(cached))
		TRY(copy_checkout_index(c, cached, e));
	else if (!c->job->base_tree || !file_exists(base))
		TRY(git_run(&g, (const char *const[]){ "read-tree", base_name(c), NULL }, NULL, 0, NULL, e));
	*ret_base = TAKE_PTR(base);
	return ERR_OK;
}

static enum err_code collection_open(struct collection *c, struct error *e)
{
	const struct diff_job *job = c->job;
	AUTO_FREE char *base = NULL;
	struct stat st;

	c->skipped = js_array();
	c->git_dir = file_join(job->scratch, "repo");
	c->index = file_join(job->scratch, "index");
	TRY(make_git_dir(c, e));
	TRY(start_index(c, &base, e));
	TRY(base_list_load(&c->base, base, e));
	if (stat(base, &st) < 0)
		return error_errno(e, "open '%s'", base);
	c->index_time = st.st_mtim;
	c->walk = (struct diff_walk){ .upper = job->upper, .worktree = job->worktree, .base = &c->base, .skipped = c->skipped,
		.changed_since = job->upper || c->trusts_times ? NULL : &c->index_time };
	return diff_walk_run(&c->walk, e);
}

/* ---- what goes out of the index, what comes in ---- */

static void add_names(struct strbuf *out, const struct name_list *names, const char *prefix)
{
	out->max = DIFF_NAMES_MAX * 2;
	for (size_t i = 0; i < names->n; i++) {
		strbuf_adds(out, prefix);
		strbuf_add(out, names->v[i], strlen(names->v[i]) + 1);
	}
}

static void find_removed(struct collection *c)
{
	const struct name_list *present = &c->walk.present, *touched = c->job->upper ? present : &c->walk.changed;

	if (!c->job->upper)
		for (size_t i = 0; i < c->base.n; i++)
			if (c->base.v[i].mode != INDEX_MODE_GITLINK && !name_list_has(present, c->base.v[i].name))
				name_list_add(&c->remove, c->base.v[i].name);
	for (size_t i = 0; i < c->walk.gone.n; i++)
		base_list_add_missing(&c->base, c->walk.gone.v[i], present, &c->remove);
	for (size_t i = 0; i < present->n; i++)
		base_list_add_missing(&c->base, present->v[i], present, &c->remove);
	/* What the agent touched is read again whatever its size and time say: those are the agent's to set. */
	for (size_t i = 0; i < touched->n; i++)
		if (base_list_find(&c->base, touched->v[i]))
			name_list_add(&c->remove, touched->v[i]);
	name_list_sort(&c->remove);
}

/* `./` keeps a name that begins with a colon from being read as a pattern. */
static enum err_code find_ignored(const struct collection *c, const struct name_list *names, struct name_list *ignored, struct error *e)
{
	const struct git g = collection_git(c);
	AUTO_STRBUF struct strbuf in = STRBUF_INIT;
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(DIFF_NAMES_MAX * 2);
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	int status = 0;

	if (names->n == 0)
		return ERR_OK;
	add_names(&in, names, "./");
	TRY(git_try(&g, (const char *const[]){ "check-ignore", "-z", "--stdin", "--no-index", NULL }, in.data, in.len, &out, &err, &status, e));
	if (status > 1)
		return git_failed("git check-ignore", status, strbuf_str(&err), e);
	for (const char *at = strbuf_str(&out); at < strbuf_str(&out) + out.len; at += strlen(at) + 1)
		if (str_starts(at, "./"))
			name_list_add(ignored, at + 2);
	name_list_sort(ignored);
	return ERR_OK;
}

static enum err_code find_added(struct collection *c, struct error *e)
{
	AUTO(name_list_release) struct name_list fresh = { .v = NULL };
	AUTO(name_list_release) struct name_list ignored = { .v = NULL };
	const struct name_list *present = &c->walk.present;

	for (size_t i = 0; i < present->n; i++)
		if (!base_list_find(&c->base, present->v[i]))
			name_list_add(&fresh, present->v[i]);
	TRY(find_ignored(c, &fresh, &ignored, e));
	for (size_t i = 0; i < present->n; i++)
		if (!name_list_has(&ignored, present->v[i]))
			name_list_add(&c->add, present->v[i]);
	return ERR_OK;
}

/* git says so of names like `git~1` that other systems would take for `.git`. */
static void note_refused(const struct collection *c, const char *messages)
{
	static const char says[] = "Ignoring path ";

	for (const char *at = strstr(messages, says); at; at = strstr(at, says)) {
		at += strlen(says);
		AUTO_FREE char *path = mem_strndup(at, strcspn(at, "\n"));

		diff_skip(c->skipped, path, "a name that git refuses");
	}
}

static enum err_code remove_from_index(const struct collection *c, struct error *e)
{
	const struct git g = collection_git(c);
	AUTO_STRBUF struct strbuf names = STRBUF_INIT;

	add_names(&names, &c->remove, "");
	if (names.len == 0)
		return ERR_OK;
	return git_run(&g, (const char *const[]){ "update-index", "-z", "--force-remove", "--stdin", NULL }, names.data, names.len, NULL, e);
}

static enum err_code add_to_index(const struct collection *c, struct error *e)
{
	const struct git g = collection_git(c);
	AUTO_STRBUF struct strbuf names = STRBUF_INIT;
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	int status = 0;

	add_names(&names, &c->add, "");
	if (names.len == 0)
		return ERR_OK;
	TRY(git_try(&g, (const char *const[]){ "update-index", "-z", "--add", "--replace", "--stdin", NULL }, names.data, names.len, NULL, &err, &status, e));
	if (status != 0)
		return git_failed("git update-index", status, strbuf_str(&err), e);
	note_refused(c, strbuf_str(&err));
	return ERR_OK;
}

static enum err_code make_tree_plain(const struct collection *c, char **ret_tree, struct error *e)
{
	const struct git g = collection_git(c);

	TRY(remove_from_index(c, e));
	TRY(add_to_index(c, e));
	return git_line(&g, (const char *const[]){ "write-tree", "--missing-ok", NULL }, ret_tree, e);
}

static enum err_code make_tree_overlay(const struct collection *c, char **ret_tree, struct error *e)
{
	struct git g = collection_git(c);

	if (c->add.n)
		TRY(add_to_index(c, e));
	g.work_tree = NULL;
	return diff_import(&g, base_name(c), c->job->base_tree != NULL, &c->remove, c->add.n ? c->index : NULL, ret_tree, e);
}

static enum err_code make_tree(struct collection *c, char **ret_tree, struct error *e)
{
	TRY(collection_open(c, e));
	find_removed(c);
	TRY(find_added(c, e));
	return (c->job->upper ? make_tree_overlay : make_tree_plain)(c, ret_tree, e);
}

/* ---- plain: without the setup's noise ---- */

/* ":OLDMODE NEWMODE OLDID NEWID S" NUL path NUL -> "NEWMODE NEWID TAB path" NUL; a mode of zeros takes the path out. */
static enum err_code raw_to_index_info(const struct strbuf *raw, struct strbuf *out, struct error *e)
{
	const char *at = strbuf_str(raw), *end = at + raw->len;

	out->max = DIFF_NAMES_MAX * 2;
	while (at < end) {
		const char *mode = strchr(at, ' '), *old_id = mode ? strchr(mode + 1, ' ') : NULL, *id = old_id ? strchr(old_id + 1, ' ') : NULL;
		const char *path = at + strlen(at) + 1;

		if (*at != ':' || !id || path >= end)
			return error_set(e, ERR_INTERNAL, "git diff-tree said something unexpected");
		strbuf_add(out, mode + 1, (size_t)(old_id - mode));
		strbuf_add(out, id + 1, strcspn(id + 1, " "));
		strbuf_addc(out, '\t');
		strbuf_add(out, path, strlen(path) + 1);
		at = path + strlen(path) + 1;
	}
	return ERR_OK;
}

/* The workspace's tree holds what the setup left too. What changed since the setup is put onto the snapshot, so that the diff applies there. */
static enum err_code move_onto_snapshot(const struct collection *c, char **tree, struct error *e)
{
	struct git g = collection_git(c);
	AUTO_FREE char *index = file_join(c->job->scratch, "result-index");
	AUTO_FREE char *result = NULL;
	AUTO_STRBUF struct strbuf raw = STRBUF_LIMIT(DIFF_NAMES_MAX * 2);
	AUTO_STRBUF struct strbuf info = STRBUF_INIT;

	g.index = index;
	g.work_tree = NULL;
	TRY(git_run(&g, (const char *const[]){ "diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", c->job->base_tree, *tree, NULL }, NULL, 0, &raw, e));
	TRY(raw_to_index_info(&raw, &info, e));
	TRY(git_run(&g, (const char *const[]){ "read-tree", c->job->commit, NULL }, NULL, 0, NULL, e));
	if (info.len)
		TRY(git_run(&g, (const char *const[]){ "update-index", "-z", "--index-info", NULL }, info.data, info.len, NULL, e));
	TRY(git_line(&g, (const char *const[]){ "write-tree", "--missing-ok", NULL }, &result, e));
	free(*tree);
	*tree = TAKE_PTR(result);
	return ERR_OK;
}

/* ---- the two doors ---- */

enum err_code diff_snapshot_tree(const struct diff_job *job, char **ret_tree, struct error *e)
{
	AUTO(collection_release) struct collection c = { .job = job, .trusts_times = true };

	return make_tree(&c, ret_tree, e);
}

/* The tree that an earlier run left: its diff put onto the base again. */
static enum err_code tree_before(const struct collection *c, const char *base, char **ret_tree, struct error *e)
{
	AUTO_FREE char *index = file_join(c->job->scratch, "before-index");
	struct git g = collection_git(c);
	struct stat st;

	g.index = index;
	g.work_tree = NULL;
	if (stat(c->job->before, &st) < 0)
		return error_errno(e, "open '%s'", c->job->before);
	TRY(git_run(&g, (const char *const[]){ "read-tree", base, NULL }, NULL, 0, NULL, e));
	if (st.st_size) /* git takes an empty patch for a mistake */
		TRY(git_run(&g, (const char *const[]){ "apply", "--cached", "--whitespace=nowarn", c->job->before, NULL }, NULL, 0, NULL, e));
	return git_line(&g, (const char *const[]){ "write-tree", "--missing-ok", NULL }, ret_tree, e);
}

static enum err_code own_changes(const struct collection *c, const char *base, const char *tree, struct js *own, struct error *e)
{
	const struct git g = { .git_dir = c->git_dir, .cwd = c->job->scratch };
	AUTO_FREE char *before = NULL;

	if (!c->job->before) {
		unlink(c->job->own_path);
		return link(c->job->patch_path, c->job->own_path) < 0 ? error_errno(e, "make '%s'", c->job->own_path) : ERR_OK;
	}
	TRY(tree_before(c, base, &before, e));
	return diff_read(&g, before, tree, c->job->own_path, c->job->max_bytes, own, e);
}

/* A run whose own part cannot be told apart has its whole diff all the same. */
static void add_own(const struct collection *c, const char *base, const char *tree, struct js *summary)
{
	static const char *const members[] = { "added", "deleted", "bytes" };
	AUTO_JS struct js *own = js_object();
	struct error e = ERROR_INIT;
	struct js *told = js_object();
	if (own_changes(c, base, tree, own, &e))
		js_set_str(told, "missing", e.text);
	const struct js *from = c->job->before ? own : summary;
	for (size_t i = 0; !e.text[0] && i < ARRAY_SIZE(members); i++)
		if (js_get(from, members[i]))
			js_set(told, members[i], js_ref(js_get(from, members[i])));
	if (!e.text[0])
		js_set_int(told, "files", (int64_t)js_len(js_get(from, "files")));
	js_set(summary, "own", told);
}

enum err_code diff_collect(const struct diff_job *job, struct js **ret_summary, struct error *e)
{
	AUTO(collection_release) struct collection c = { .job = job };
	AUTO_FREE char *tree = NULL;
	AUTO_JS struct js *summary = js_object();
	bool has_noise = !job->upper && job->base_tree;

	TRY(make_tree(&c, &tree, e));
	if (has_noise)
		TRY(move_onto_snapshot(&c, &tree, e));
	/* Without a work tree: the agent's .gitattributes have no say in how its changes are shown. */
	const struct git g = { .git_dir = c.git_dir, .cwd = job->scratch };
	const char *base = has_noise ? job->commit : base_name(&c);
	TRY(diff_read(&g, base, tree, job->patch_path, job->max_bytes, summary, e));
	if (job->own_path)
		add_own(&c, base, tree, summary);
	js_set_str(summary, "tree", tree);
	js_set(summary, "skipped", js_ref(c.skipped));
	*ret_summary = TAKE_PTR(summary);
	return ERR_OK;
}
