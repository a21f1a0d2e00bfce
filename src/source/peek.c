/* What the cache has already, found without a process: the checkout of a commit that is named in full.  A branch or a tag has to be asked
 * for at its origin, so those are for `signalbox fetch`. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/cache.h"
#include "source/checkout.h"
#include "source/git.h"
#include "source/source.h"
#include "source/url.h"

static char *mirror_of(const char *cache, const char *url)
{
	AUTO(source_url_release) struct source_url u = { .text = NULL };
	struct error ignored = ERROR_INIT;

	if (!url || source_url_parse(url, &u, &ignored) != ERR_OK)
		return NULL;
	AUTO_FREE char *key = cache_key(u.text);
	return mem_printf("%s/git/%s/repo.git", cache, key);
}

bool source_peek(const struct js *source, const char *cache, struct js **ret_result)
{
	bool is_git = str_eq(js_str(source, "kind"), "git");
	const char *commit = js_str(source, is_git ? "ref" : "commit"), *given = js_str(source, "head");
	AUTO_FREE char *store = is_git ? mirror_of(cache, js_str(source, "url")) : mem_strdup(js_str(source, "store"));
	const char *head = is_git ? commit : given, *branch = is_git ? NULL : js_str(source, "branch");
	struct report report = { .percent = -1 };
	const struct checkout_job job = { .store = store, .commit = commit, .head = head, .branch = branch, .cache = cache, .report = &report };

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
