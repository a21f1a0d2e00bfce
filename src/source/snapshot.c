/* A local directory as a commit: its HEAD's history and, when something is not committed, one commit on top, made in a
 * scratch git directory as the directory's owner and fetched from there into a store of ours. The same state gives the
 * same commit id, so that its checkout is found again. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/cache.h"
#include "source/fetch_kinds.h"
#include "source/git.h"
#include "source/local_repo.h"
#include "source/transport.h"
#include "source/url.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define SNAPSHOT_DATE "946684800 +0000" /* fixed, so that the same state is the same commit */
#define TASKS_DIR ".codex/tasks/"	/* our own state files; never part of a source */
#define SNAPSHOT_REF "refs/signalbox/snapshot"
#define HEAD_REF "refs/signalbox/head"
#define WARNINGS_MAX 20

struct snapshot {
	struct fetch *fetch;
	struct local_repo repo;
	struct cache_store store;
	struct strbuf exclude;
	struct strbuf update, gone; /* NUL-ended names for update-index */
	char *tree, *commit;
	struct js *warnings; /* borrowed */
};

static void snapshot_release(struct snapshot *s)
{
	local_repo_release(&s->repo);
	cache_store_close(&s->store);
	strbuf_release(&s->exclude);
	strbuf_release(&s->update);
	strbuf_release(&s->gone);
	free(s->tree);
	free(s->commit);
}

static void warn(struct snapshot *s, const char *fmt, const char *name)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	const char *mark = strstr(fmt, "%s");

	if (js_len(s->warnings) >= WARNINGS_MAX)
		return;
	strbuf_add(&text, fmt, (size_t)(mark - fmt));
	str_add_printable(&text, name, strlen(name));
	strbuf_adds(&text, mark + 2);
	js_push_str(s->warnings, strbuf_str(&text));
}

/* ---- what differs from the index ---- */

static bool is_ours(const char *name)
{
	return str_starts(name, TASKS_DIR) || strstr(name, "/" TASKS_DIR);
}

static enum err_code cannot_read(const char *name, struct error *e)
{
	AUTO_STRBUF struct strbuf shown = STRBUF_INIT;
	int saved = errno;

	str_add_printable(&shown, name, strlen(name));
	errno = saved;
	error_errno(e, "read '%s'", strbuf_str(&shown));
	error_hint(e, "make it readable, or have it ignored (.gitignore, .git/info/exclude)");
	return e ? e->code : ERR_IO;
}

/* Into the list it belongs to. A name that is gone, lies behind a symbolic link now, or is no file any more, is gone. */
static enum err_code sort_name(struct snapshot *s, int top, const char *name, struct error *e)
{
	AUTO_CLOSE int fd = -1;
	struct stat st;
	size_t n = strlen(name);

	if (n && name[n - 1] == '/') {
		warn(s, "the repository inside this one, '%s', is not part of the snapshot", name);
		return ERR_OK;
	}
	if (is_ours(name))
		return ERR_OK;
	if (file_open_beneath(top, name, O_PATH | O_NOFOLLOW | O_CLOEXEC, &fd, NULL) != ERR_OK || fstat(fd, &st) < 0 ||
	    !(S_ISREG(st.st_mode) || S_ISLNK(st.st_mode) || S_ISDIR(st.st_mode))) {
		strbuf_add(&s->gone, name, n + 1);
		return ERR_OK;
	}
	if (S_ISDIR(st.st_mode)) { /* a submodule stays as it was committed; a directory in a file's place has files of its own in the list */
		AUTO_FREE char *dot_git = file_join(name, ".git");

		if (faccessat(top, dot_git, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
			strbuf_add(&s->gone, name, n + 1);
		return ERR_OK;
	}
	if (S_ISREG(st.st_mode) && faccessat(top, name, R_OK, AT_EACCESS) < 0)
		return cannot_read(name, e);
	strbuf_add(&s->update, name, n + 1);
	return ERR_OK;
}

/* `ls-files -t`: a letter, a space, a name. */
static enum err_code sort_names(struct snapshot *s, const struct strbuf *listed, struct error *e)
{
	AUTO_CLOSE int top = open(s->repo.top, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	const char *end = strbuf_str(listed) + listed->len;

	if (top < 0)
		return error_errno(e, "open '%s'", s->repo.top);
	for (const char *at = strbuf_str(listed); at < end; at += strlen(at) + 1)
		if (strlen(at) > 2)
			TRY(sort_name(s, top, at + 2, e));
	return ERR_OK;
}

static enum err_code sort_names_as_owner(struct snapshot *s, const struct strbuf *listed, struct error *e)
{
	struct identity before;
	enum err_code code;

	s->update.max = s->gone.max = GIT_OUTPUT_MAX;
	TRY(identity_enter(&s->repo.owner, &before, e));
	code = sort_names(s, listed, e);
	identity_return(&before);
	return code;
}

static enum err_code list_once(struct snapshot *s, struct strbuf *out, struct strbuf *err, int *ret_status, struct error *e)
{
	const struct git g = local_repo_git(&s->repo);

	strbuf_reset(out);
	strbuf_reset(err);
	return git_try(&g, (const char *const[]){ "ls-files", "-z", "-t", "-m", "-d", "-o", "--exclude-standard", NULL }, NULL, 0, out, err, ret_status, e);
}

/* The user's index cannot be used away from its home (split, or damaged): from the last commit, then, which costs more reading. */
static enum err_code start_from_head(struct snapshot *s, struct error *e)
{
	const struct git g = local_repo_git(&s->repo);
	struct identity before;

	TRY(identity_enter(&s->repo.owner, &before, e));
	unlink(s->repo.scratch_index);
	identity_return(&before);
	if (!s->repo.head)
		return ERR_OK;
	return git_run(&g, (const char *const[]){ "read-tree", s->repo.head, NULL }, NULL, 0, NULL, e);
}

static enum err_code check_listing(const char *messages, struct error *e)
{
	static const char says[] = "could not open directory '";
	const char *at = strstr(messages, says), *end;

	if (!at)
		return ERR_OK;
	at += strlen(says);
	end = strchr(at, '\'');
	AUTO_FREE char *name = mem_strndup(at, end ? (size_t)(end - at) : strlen(at));
	errno = EACCES;
	return cannot_read(name, e);
}

static enum err_code find_changes(struct snapshot *s, struct error *e)
{
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(GIT_OUTPUT_MAX);
	AUTO_STRBUF struct strbuf err = STRBUF_LIMIT(GIT_STDERR_MAX);
	int status = 0;

	TRY(list_once(s, &out, &err, &status, e));
	if (status != 0 && strstr(strbuf_str(&err), "index")) {
		TRY(start_from_head(s, e));
		TRY(list_once(s, &out, &err, &status, e));
	}
	if (status != 0)
		return git_failed("git ls-files", status, strbuf_str(&err), e);
	TRY(check_listing(strbuf_str(&err), e));
	return sort_names_as_owner(s, &out, e);
}

/* ---- the commit ---- */

static enum err_code update_index(struct snapshot *s, struct error *e)
{
	const struct git g = local_repo_git(&s->repo);

	if (s->gone.len)
		TRY(git_run(&g, (const char *const[]){ "update-index", "-z", "--force-remove", "--stdin", NULL }, s->gone.data, s->gone.len, NULL, e));
	if (s->update.len)
		TRY(git_run(&g, (const char *const[]){ "update-index", "-z", "--add", "--remove", "--replace", "--stdin", NULL },
			s->update.data, s->update.len, NULL, e));
	return git_line(&g, (const char *const[]){ "write-tree", "--missing-ok", NULL }, &s->tree, e);
}

static enum err_code make_commit(struct snapshot *s, struct error *e)
{
	const struct git g = local_repo_git(&s->repo);
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;

	if (s->repo.head && str_eq(s->tree, s->repo.head_tree)) {
		s->commit = mem_strdup(s->repo.head);
		return ERR_OK;
	}
	strbuf_addf(&text, "tree %s\n", s->tree);
	if (s->repo.head)
		strbuf_addf(&text, "parent %s\n", s->repo.head);
	strbuf_adds(&text, "author Signalbox <signalbox@localhost> " SNAPSHOT_DATE "\ncommitter Signalbox <signalbox@localhost> " SNAPSHOT_DATE "\n\n");
	strbuf_adds(&text, s->repo.head ? "The directory with its uncommitted changes\n" : "The directory as it is\n");
	TRY(git_run(&g, (const char *const[]){ "hash-object", "-t", "commit", "-w", "--stdin", NULL }, text.data, text.len, &out, e));
	s->commit = mem_strndup(strbuf_str(&out), strcspn(strbuf_str(&out), "\n"));
	return git_is_commit_id(s->commit) ? ERR_OK : error_set(e, ERR_INTERNAL, "git gave no commit id");
}

/* ---- into the store ---- */

static bool store_has(const struct snapshot *s)
{
	const struct git g = { .git_dir = s->store.repo };
	AUTO_FREE char *expression = mem_printf("%s^{commit}", s->commit);
	int status = 1;

	return git_try(&g, (const char *const[]){ "cat-file", "-e", expression, NULL }, NULL, 0, NULL, NULL, &status, NULL) == ERR_OK && status == 0;
}

/* One small file of the scratch directory, as its owner. */
static enum err_code put_in_scratch(const struct snapshot *s, const char *name, const char *text, struct error *e)
{
	AUTO_FREE char *path = file_join(s->repo.scratch, name);
	struct identity before;
	enum err_code code;

	TRY(identity_enter(&s->repo.owner, &before, e));
	code = file_replace(path, text, strlen(text), 0600, FILE_NOSYNC, e);
	identity_return(&before);
	return code;
}

static enum err_code offer_refs(const struct snapshot *s, struct error *e)
{
	AUTO_FREE char *refs = s->repo.head ? mem_printf("%s " HEAD_REF "\n%s " SNAPSHOT_REF "\n", s->repo.head, s->commit)
					    : mem_printf("%s " SNAPSHOT_REF "\n", s->commit);

	return put_in_scratch(s, "packed-refs", refs, e);
}

static enum err_code fetch_once(struct snapshot *s, struct error *e)
{
	const struct source_url url = { .kind = URL_FILE, .text = s->repo.top, .path = s->repo.scratch };
	const struct transport t = { .url = &url, .owner = s->repo.owner, .report = &s->fetch->report, .step = "snapshot" };

	return transport_fetch(&t, s->store.repo, (const char *const[]){ "--update-shallow", NULL },
		(const char *const[]){ "+" SNAPSHOT_REF ":" SNAPSHOT_REF, s->repo.head ? "+" HEAD_REF ":" HEAD_REF : NULL, NULL }, e);
}

/* A partial or damaged clone cannot give its history; the head commit alone is enough to work on. */
static enum err_code cut_history(const struct snapshot *s, struct error *e)
{
	AUTO_FREE char *line = mem_printf("%s\n", s->repo.head);

	return put_in_scratch(s, "shallow", line, e);
}

static enum err_code fetch_into_store(struct snapshot *s, struct error *e)
{
	struct error first = ERROR_INIT;
	enum err_code code;

	if (store_has(s))
		return ERR_OK;
	TRY(offer_refs(s, e));
	TRY(cache_store_begin(&s->store, e));
	code = fetch_once(s, &first);
	if (code != ERR_OK && s->repo.head) {
		TRY(cut_history(s, e));
		code = fetch_once(s, e);
		if (code == ERR_OK)
			warn(s, "the history of '%s' cannot be read in full; the snapshot has its last commit only", s->repo.top);
	}
	if (code == ERR_OK)
		cache_store_end(&s->store);
	else if (e)
		*e = first;
	return code;
}

/* The rules go with the store, so that what the user ignores is ignored inside and in the diff too. */
static enum err_code keep_exclude(const struct snapshot *s, struct error *e)
{
	AUTO_FREE char *dir = file_join(s->store.repo, "info");
	AUTO_FREE char *path = file_join(dir, "exclude");

	TRY(file_mkdirs(dir, 0700, e));
	return file_replace(path, strbuf_str(&s->exclude), s->exclude.len, 0600, FILE_NOSYNC, e);
}

/* ---- the whole ---- */

/* Where there is no git, the last snapshot's index saves reading every file again. */
static enum err_code open_scratch(struct snapshot *s, const char *kept_index, struct error *e)
{
	AUTO_FREE char *objects = file_join(s->store.repo, "objects");
	bool reuse = !s->repo.has_git && s->repo.is_ours;

	TRY(local_repo_make_scratch(&s->repo, s->repo.is_ours ? s->store.dir : NULL, reuse ? objects : NULL, &s->exclude, e));
	return reuse ? local_repo_copy_index(kept_index, s->repo.scratch_index, e) : ERR_OK;
}

static enum err_code take(struct snapshot *s, struct error *e)
{
	AUTO_FREE char *kept_index = NULL;

	TRY(cache_store_open(s->fetch->cache, "local", "dir", s->repo.top, &s->fetch->report, &s->store, e));
	kept_index = file_join(s->store.dir, "index");
	report_progress(&s->fetch->report, "snapshot", 0, "looking for changes");
	TRY(open_scratch(s, kept_index, e));
	TRY(find_changes(s, e));
	TRY(update_index(s, e));
	TRY(make_commit(s, e));
	TRY(fetch_into_store(s, e));
	TRY(keep_exclude(s, e));
	return s->repo.has_git || !s->repo.is_ours ? ERR_OK : local_repo_copy_index(s->repo.scratch_index, kept_index, e);
}

enum err_code fetch_snapshot(struct fetch *f, struct js *result, struct error *e)
{
	AUTO(snapshot_release) struct snapshot s = { .fetch = f, .store = CACHE_STORE_INIT, .warnings = js_get(result, "warnings") };
	const char *dir = js_str(f->job, "dir");

	TRY(source_path_check(dir, e));
	TRY(local_repo_find(dir, &s.repo, e));
	TRY(take(&s, e));
	js_set_str(result, "store", s.store.repo);
	js_set_str(result, "commit", s.commit);
	js_set_str(result, "tree", s.tree);
	js_set(result, "head", js_string(s.repo.head));
	js_set(result, "branch", js_string(s.repo.branch));
	js_set_str(result, "dir", s.repo.top);
	js_set_str(result, "prefix", s.repo.prefix);
	return ERR_OK;
}
