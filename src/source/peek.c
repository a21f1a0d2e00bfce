/* What the cache has already, found without a process: the checkout of a commit that is named in full.  A branch or a tag has to be asked
 * for at its origin, so those are for `signalbox fetch`. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/cache.h"
#include "source/checkout.h"
#include "source/git.h"
#include "source/policy.h"
#include "source/source.h"
#include "source/try.h"
#include "source/url.h"

char *source_mirror_path(const struct js *source, const char *cache)
{
	AUTO(source_url_release) struct source_url u = { .text = NULL };
	const char *url = js_str(source, "url");

	if (!str_eq(js_str(source, "kind"), "git") || !url || source_url_parse(url, &u, NULL) != ERR_OK)
		return NULL;
	AUTO_FREE char *name = cache_mirror_name(u.text, js_str(js_get(source, "credential"), "fingerprint"), js_i64(source, "depth", 0));
	AUTO_FREE char *key = cache_key(name);
	return mem_printf("%s/git/%s", cache, key);
}

bool source_needs_proof(const struct js *source)
{
	AUTO(source_url_release) struct source_url u = { .text = NULL };
	const char *url = js_str(source, "url");

	return str_eq(js_str(source, "kind"), "git") && url && source_url_parse(url, &u, NULL) == ERR_OK && u.kind != URL_FILE;
}

enum err_code source_check_rules(const struct js *source, const struct js *rules, struct error *e)
{
	AUTO(source_url_release) struct source_url u = { .text = NULL };

	if (!str_eq(js_str(source, "kind"), "git"))
		return ERR_OK;
	TRY(source_url_parse(js_str(source, "url"), &u, e));
	return policy_check_url(rules, &u, e);
}

/* Which commit may be looked for, and as which branch it is seen. A name on another host is only what its proof said it is. */
static const char *commit_of(const struct js *source, const char **ret_branch)
{
	bool is_git = str_eq(js_str(source, "kind"), "git");

	*ret_branch = js_str(source, "branch");
	if (!is_git || js_flag(source, "proven", false))
		return js_str(source, "commit");
	*ret_branch = NULL;
	return source_needs_proof(source) ? NULL : js_str(source, "ref");
}

static char *store_of(const struct js *source, const char *cache)
{
	AUTO_FREE char *mirror = source_mirror_path(source, cache);

	return mirror ? file_join(mirror, "repo.git") : mem_strdup(js_str(source, "store"));
}

bool source_peek(const struct js *source, const char *cache, struct js **ret_result)
{
	const char *branch = NULL, *commit = commit_of(source, &branch), *given = js_str(source, "head");
	AUTO_FREE char *store = store_of(source, cache);
	const char *head = str_eq(js_str(source, "kind"), "git") ? commit : given;
	struct report report = { .percent = -1 };
	const struct checkout_job job = { .store = store, .commit = commit, .head = head, .branch = branch, .cache = cache, .report = &report,
		.with_submodules = str_eq(js_str(source, "kind"), "git") && js_flag(source, "submodules", false),
		.with_lfs = str_eq(js_str(source, "kind"), "git") && js_flag(source, "lfs", false) };

	if (!store || !commit || !git_is_commit_id(commit) || !file_is_dir(store))
		return false;
	AUTO_JS struct js *result = js_object();
	js_set(result, "warnings", js_array());
	js_set_str(result, "store", store);
	js_set_str(result, "commit", commit);
	js_set_str(result, "head", head ? head : commit);
	js_set(result, "branch", js_string(branch));
	if (!checkout_find(&job, result))
		return false;
	*ret_result = js_ref(result);
	return true;
}
