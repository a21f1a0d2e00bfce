/* The .git of a cached tree, written by hand: a dozen small files instead of git processes. */
#include "source/tree_dir.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/git.h"
#include "source/index_file.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define SMALL_FILE_MAX ((size_t)4 << 20) /* exclude, shallow */

static const char config_text[] =
	"[core]\n"
	"\trepositoryformatversion = 0\n"
	"\tfilemode = true\n"
	"\tbare = false\n"
	"\tlogallrefupdates = true\n"
	"\tcheckStat = minimal\n"
	"\ttrustctime = false\n"
	"[gc]\n"
	"\tauto = 0\n"
	"[maintenance]\n"
	"\tauto = false\n"
	"[user]\n"
	"\tname = Agent\n"
	"\temail = agent@localhost\n"
	"[advice]\n"
	"\tdetachedHead = false\n";

static enum err_code put(const char *dir, const char *name, const char *data, size_t n, struct error *e)
{
	AUTO_FREE char *path = file_join(dir, name);

	return file_replace(path, data, n, 0644, FILE_NOSYNC, e);
}

static enum err_code make_dirs(const char *dot_git, struct error *e)
{
	static const char *const dirs[] = { "refs/heads", "refs/tags", "refs/remotes", "objects/info", "objects/pack", "info" };

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		AUTO_FREE char *path = file_join(dot_git, dirs[i]);

		TRY(file_mkdirs(path, 0755, e));
	}
	return ERR_OK;
}

/* Branches of the store become remote-tracking ones; the one we stand on is the only local one. */
static enum err_code write_refs(const struct tree_dir *t, const char *dot_git, struct error *e)
{
	const struct git g = { .git_dir = t->store };
	AUTO_STRBUF struct strbuf listed = STRBUF_LIMIT(TREE_DIR_REFS_MAX);
	AUTO_STRBUF struct strbuf refs = STRBUF_LIMIT(TREE_DIR_REFS_MAX);
	static const char heads[] = "refs/heads/", tags[] = "refs/tags/";
	char *save = NULL;

	TRY(git_run(&g, (const char *const[]){ "for-each-ref", "--format=%(objectname) %(refname)", heads, tags, NULL }, NULL, 0, &listed, e));
	if (t->branch)
		strbuf_addf(&refs, "%s %s%s\n", t->head, heads, t->branch);
	for (char *line = strtok_r(listed.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *name = strchr(line, ' ');

		if (name && str_starts(name + 1, heads))
			strbuf_addf(&refs, "%.*s refs/remotes/origin/%s\n", (int)(name - line), line, name + 1 + strlen(heads));
		else
			strbuf_addf(&refs, "%s\n", line);
	}
	return put(dot_git, "packed-refs", strbuf_str(&refs), refs.len, e);
}

static enum err_code write_head(const struct tree_dir *t, const char *dot_git, struct error *e)
{
	AUTO_FREE char *text = t->branch ? mem_printf("ref: refs/heads/%s\n", t->branch) : mem_printf("%s\n", t->head);

	return put(dot_git, "HEAD", text, strlen(text), e);
}

static enum err_code copy_small(const char *store, const char *dot_git, const char *name, struct error *e)
{
	AUTO_FREE char *from = file_join(store, name);
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(SMALL_FILE_MAX);

	if (!file_exists(from))
		return ERR_OK;
	TRY(file_read(from, SMALL_FILE_MAX, &text, e));
	return put(dot_git, name, strbuf_str(&text), text.len, e);
}

enum err_code tree_dir_write(const struct tree_dir *t, const char *dir, struct error *e)
{
	AUTO_FREE char *dot_git = file_join(dir, ".git");
	static const char alternates[] = TREE_DIR_OBJECTS "\n";

	TRY(make_dirs(dot_git, e));
	TRY(write_refs(t, dot_git, e));
	TRY(write_head(t, dot_git, e));
	TRY(put(dot_git, "config", config_text, strlen(config_text), e));
	TRY(copy_small(t->store, dot_git, "shallow", e));
	TRY(copy_small(t->store, dot_git, "info/exclude", e));
	return put(dot_git, "objects/info/alternates", alternates, strlen(alternates), e);
}

/* ---- hard links ---- */

/* The index is sorted, so a directory's files come one after the other: `last` is the directory made last. */
static enum err_code make_parents(int dir, const char *name, struct strbuf *last, struct error *e)
{
	const char *slash = strrchr(name, '/');
	size_t len = slash ? (size_t)(slash - name) : 0;

	if (len == last->len && memcmp(strbuf_str(last), name, len) == 0)
		return ERR_OK;
	strbuf_reset(last);
	strbuf_add(last, name, len);
	for (size_t i = 1; i <= len; i++) {
		if (name[i] != '/')
			continue;
		AUTO_FREE char *part = mem_strndup(name, i);

		if (mkdirat(dir, part, 0755) < 0 && errno != EEXIST)
			return error_errno(e, "make the directory '%s'", part);
	}
	return ERR_OK;
}

static enum err_code link_entry(int from, int to, const struct index_entry *entry, struct strbuf *last, struct error *e)
{
	TRY(make_parents(to, entry->name, last, e));
	if (entry->mode == INDEX_MODE_GITLINK)
		return mkdirat(to, entry->name, 0755) < 0 && errno != EEXIST ? error_errno(e, "make '%s'", entry->name) : ERR_OK;
	if (linkat(from, entry->name, to, entry->name, 0) < 0)
		return error_errno(e, "link '%s'", entry->name);
	return ERR_OK;
}

enum err_code tree_dir_link(const char *old_dir, const char *old_index, const char *dir, struct error *e)
{
	AUTO(index_release) struct index_file x = { .at = 0 };
	AUTO_STRBUF struct strbuf last = STRBUF_INIT;
	AUTO_CLOSE int from = open(old_dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	AUTO_CLOSE int to = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	struct index_entry entry;

	if (from < 0 || to < 0)
		return error_errno(e, "open '%s'", from < 0 ? old_dir : dir);
	TRY(index_load(old_index, &x, e));
	while (index_next(&x, &entry))
		TRY(link_entry(from, to, &entry, &last, e));
	return index_check_end(&x, old_index, e);
}
