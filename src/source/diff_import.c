/* The stream: one commit, from the base or with the base's tree as its own, then D lines, then M lines, then `ls ""` which answers with
 * the id of the whole tree. */
#include "source/diff_import.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/index_file.h"
#include <string.h>

#define ID_SIZE_BYTES 20
#define ANSWER "040000 tree "

static void add_quoted(struct strbuf *out, const char *path)
{
	strbuf_addc(out, '"');
	for (; *path; path++) {
		if (*path == '\n')
			strbuf_adds(out, "\\n");
		else if (*path == '"' || *path == '\\')
			strbuf_addf(out, "\\%c", *path);
		else
			strbuf_addc(out, *path);
	}
	strbuf_adds(out, "\"\n");
}

static void begin(struct strbuf *out, const char *base, bool base_is_tree)
{
	strbuf_adds(out, "feature done\ncommit refs/heads/result\ncommitter Signalbox <signalbox@localhost> 0 +0000\ndata 0\n");
	if (base_is_tree)
		strbuf_addf(out, "M 040000 %s \"\"\n", base);
	else
		strbuf_addf(out, "from %s\n", base);
}

static enum err_code add_entries(struct strbuf *out, const char *index_path, struct error *e)
{
	AUTO(index_release) struct index_file x = { .at = 0 };
	struct index_entry entry;

	TRY(index_load(index_path, &x, e));
	while (index_next(&x, &entry)) {
		strbuf_addf(out, "M %06o ", (unsigned)entry.mode);
		str_add_hex(out, entry.id, ID_SIZE_BYTES);
		strbuf_addc(out, ' ');
		add_quoted(out, entry.name);
	}
	return index_check_end(&x, index_path, e);
}

enum err_code diff_import(const struct git *g, const char *base, bool base_is_tree, const struct name_list *remove,
	const char *index_path, char **ret_tree, struct error *e)
{
	AUTO_STRBUF struct strbuf in = STRBUF_LIMIT(DIFF_NAMES_MAX * 2);
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	AUTO_FREE char *tree = NULL;

	begin(&in, base, base_is_tree);
	for (size_t i = 0; i < remove->n; i++) {
		strbuf_adds(&in, "D ");
		add_quoted(&in, remove->v[i]);
	}
	if (index_path)
		TRY(add_entries(&in, index_path, e));
	strbuf_adds(&in, "ls \"\"\ndone\n");
	if (in.over)
		return error_set(e, ERR_LIMIT, "the agent changed more files than a diff may hold");
	TRY(git_run(g, (const char *const[]){ "fast-import", "--quiet", "--force", NULL }, in.data, in.len, &out, e));
	if (!str_starts(strbuf_str(&out), ANSWER))
		return error_set(e, ERR_INTERNAL, "git fast-import named no tree");
	tree = mem_strndup(strbuf_str(&out) + strlen(ANSWER), ID_SIZE_BYTES * 2);
	if (!git_is_commit_id(tree))
		return error_set(e, ERR_INTERNAL, "git fast-import named no tree");
	*ret_tree = TAKE_PTR(tree);
	return ERR_OK;
}
