/* git URLs: a bare mirror of each, brought up to date, and the ref found in it. One short listing tells whether there is
 * anything to fetch; it is also what proves that whoever asks may still read the repository. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/cache.h"
#include "source/checkout.h"
#include "source/fetch_kinds.h"
#include "source/git.h"
#include "source/ref_list.h"
#include "source/transport.h"
#include <string.h>

#define ABBREVIATION_MIN 4 /* hex digits */
#define WANTED_REF "refs/signalbox/wanted/"

struct mirror {
	struct fetch *fetch;
	struct source_url url;
	struct transport transport;
	struct cache_store store;
	struct ref_list remote;
	const char *ref;	    /* as asked for; NULL or "HEAD": the default branch */
	char *commit;
	const char *branch; /* into ref or remote */
};

static void mirror_release(struct mirror *m)
{
	source_url_release(&m->url);
	cache_store_close(&m->store);
	ref_list_release(&m->remote);
	free(m->commit);
}

static struct git mirror_git(const struct mirror *m)
{
	return (struct git){ .git_dir = m->store.repo };
}

/* The commit that `name` stands for in the mirror, or NULL. */
static char *find_commit(const struct mirror *m, const char *name)
{
	const struct git g = mirror_git(m);
	AUTO_FREE char *expression = mem_printf("%s^{commit}", name);
	char *commit = NULL;

	if (git_line(&g, (const char *const[]){ "rev-parse", "-q", "--verify", "--end-of-options", expression, NULL }, &commit, NULL) != ERR_OK)
		return NULL;
	return commit;
}

static bool is_hex(const char *s)
{
	return strlen(s) >= ABBREVIATION_MIN && strlen(s) <= 40 && strspn(s, "0123456789abcdefABCDEF") == strlen(s);
}

static bool wants_default(const struct mirror *m)
{
	return !m->ref || str_eq(m->ref, "HEAD");
}

/* ---- bring up to date ---- */

static enum err_code list_remote(struct mirror *m, struct error *e)
{
	const char *extra = m->ref && str_starts(m->ref, "refs/") ? m->ref : NULL;

	report_progress(&m->fetch->report, "fetch", 0, "asking for branches and tags");
	TRY(transport_list(&m->transport, extra, &m->remote.text, e));
	ref_list_parse(&m->remote);
	if (m->remote.n > 0)
		return ERR_OK;
	error_set(e, ERR_NOT_FOUND, "the repository '%s' is empty: it has no commit yet", m->url.text);
	error_hint(e, "commit something and push it first");
	return ERR_NOT_FOUND;
}

static enum err_code is_up_to_date(const struct mirror *m, bool *ret, bool *ret_is_new, struct error *e)
{
	const struct git g = mirror_git(m);
	AUTO_STRBUF struct strbuf here = STRBUF_LIMIT(TRANSPORT_LIST_MAX);
	AUTO_STRBUF struct strbuf there = STRBUF_LIMIT(TRANSPORT_LIST_MAX);

	TRY(git_run(&g, (const char *const[]){ "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/", "refs/tags/", NULL }, NULL, 0, &here, e));
	ref_list_print(&m->remote, &there);
	*ret = str_eq(strbuf_str(&here), strbuf_str(&there));
	*ret_is_new = here.len == 0;
	return ERR_OK;
}

/* One fetch from the other end, within the marks that tell a later one of a crash. */
static enum err_code fetch_refs(struct mirror *m, const char *const *options, const char *const *refspecs, struct error *e)
{
	enum err_code code;

	TRY(cache_store_begin(&m->store, e));
	code = transport_fetch(&m->transport, m->store.repo, options, refspecs, e);
	if (code == ERR_OK)
		cache_store_end(&m->store);
	return code;
}

static enum err_code update(struct mirror *m, struct error *e)
{
	bool is_current, is_new;

	TRY(is_up_to_date(m, &is_current, &is_new, e));
	if (is_current)
		return ERR_OK;
	m->transport.step = is_new ? "clone" : "fetch";
	return fetch_refs(m, (const char *const[]){ "--prune", NULL },
		(const char *const[]){ "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", NULL }, e);
}

/* What neither branch nor tag leads to: a pull request's ref, a commit that only its id names, a detached HEAD. */
static enum err_code fetch_wanted(struct mirror *m, const char *what, struct error *e)
{
	AUTO_FREE char *refspec = mem_printf("+%s:%s%s", what, WANTED_REF, what);

	return fetch_refs(m, NULL, (const char *const[]){ refspec, NULL }, e);
}

/* ---- find the ref ---- */

static enum err_code not_found(const struct mirror *m, struct error *e)
{
	AUTO_STRBUF struct strbuf names = STRBUF_INIT;

	ref_list_suggest(&m->remote, m->ref, &names);
	error_set(e, ERR_NOT_FOUND, "there is no branch, tag or commit '%s' in '%s'", m->ref, m->url.text);
	error_hint(e, "it has for example: %s", strbuf_str(&names));
	return ERR_NOT_FOUND;
}

static enum err_code resolve_default(struct mirror *m, struct error *e)
{
	if (m->remote.has_head && m->remote.head_branch) {
		AUTO_FREE char *name = mem_printf("refs/heads/%s", m->remote.head_branch);

		m->commit = find_commit(m, name);
		m->branch = m->remote.head_branch;
	} else if (m->remote.has_head) {
		const char *id = ref_list_find(&m->remote, "HEAD");

		m->commit = find_commit(m, id);
		if (!m->commit) {
			TRY(fetch_wanted(m, id, e));
			m->commit = find_commit(m, id);
		}
	}
	if (m->commit)
		return ERR_OK;
	AUTO_STRBUF struct strbuf names = STRBUF_INIT;
	ref_list_suggest(&m->remote, "main", &names);
	error_set(e, ERR_NOT_FOUND, "the repository '%s' has no default branch", m->url.text);
	error_hint(e, "name one with --ref; it has for example: %s", strbuf_str(&names));
	return ERR_NOT_FOUND;
}

static bool resolve_below(struct mirror *m, const char *prefix)
{
	AUTO_FREE char *name = mem_printf("%s%s", prefix, m->ref);

	m->commit = ref_list_find(&m->remote, name) ? find_commit(m, name) : NULL;
	if (m->commit && str_starts(name, "refs/heads/"))
		m->branch = *prefix ? m->ref : m->ref + strlen("refs/heads/");
	return m->commit != NULL;
}

static enum err_code resolve_other(struct mirror *m, struct error *e)
{
	struct error ignored = ERROR_INIT;
	bool is_full_ref = str_starts(m->ref, "refs/") && ref_list_find(&m->remote, m->ref);

	if (is_full_ref) {
		AUTO_FREE char *local = mem_printf("%s%s", WANTED_REF, m->ref);

		TRY(fetch_wanted(m, m->ref, e));
		m->commit = find_commit(m, local);
	} else if (is_hex(m->ref)) {
		m->commit = find_commit(m, m->ref);
		if (!m->commit && git_is_commit_id(m->ref) && fetch_wanted(m, m->ref, &ignored) == ERR_OK)
			m->commit = find_commit(m, m->ref);
	}
	return m->commit ? ERR_OK : not_found(m, e);
}

static enum err_code resolve(struct mirror *m, struct error *e)
{
	if (wants_default(m))
		return resolve_default(m, e);
	if (resolve_below(m, "refs/heads/") || resolve_below(m, "refs/tags/") || resolve_below(m, ""))
		return ERR_OK;
	return resolve_other(m, e);
}

/* ---- the whole ---- */

static enum err_code open_mirror(struct mirror *m, struct error *e)
{
	const struct js *job = m->fetch->job;

	m->ref = js_str(job, "ref");
	if (m->ref)
		TRY(source_ref_check(m->ref, e));
	TRY(source_url_parse(js_str(job, "url"), &m->url, e));
	m->transport = (struct transport){ .url = &m->url, .caller = m->fetch->caller, .report = &m->fetch->report, .step = "fetch" };
	if (m->url.kind == URL_FILE)
		TRY(transport_find_owner(m->url.path, &m->transport.owner, e));
	return cache_store_open(m->fetch->cache, "git", "url", m->url.text, &m->fetch->report, &m->store, e);
}

static enum err_code find_in_mirror(struct mirror *m, struct error *e)
{
	if (m->ref && git_is_commit_id(m->ref) && (m->commit = find_commit(m, m->ref)))
		return ERR_OK;
	TRY(list_remote(m, e));
	TRY(update(m, e));
	return resolve(m, e);
}

enum err_code fetch_git(struct fetch *f, struct js *result, struct error *e)
{
	AUTO(mirror_release) struct mirror m = { .fetch = f, .store = CACHE_STORE_INIT };
	struct checkout_job checkout;

	TRY(open_mirror(&m, e));
	TRY(find_in_mirror(&m, e));
	close(TAKE_FD(m.store.lock_fd));
	js_set_str(result, "store", m.store.repo);
	js_set_str(result, "commit", m.commit);
	js_set_str(result, "head", m.commit);
	js_set(result, "branch", js_string(m.branch));
	checkout = (struct checkout_job){ .store = m.store.repo, .commit = m.commit, .head = m.commit, .branch = m.branch,
		.cache = f->cache, .report = &f->report };
	return checkout_make(&checkout, result, e);
}
