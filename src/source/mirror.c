/* git URLs: a bare mirror of each, brought up to date, and the ref found in it. One short listing tells whether there is
 * anything to fetch; it is also what proves that whoever asks may still read the repository. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/cache.h"
#include "source/fetch_kinds.h"
#include "source/git.h"
#include "source/mirror.h"
#include "source/policy.h"
#include "source/ref_list.h"
#include "source/transport.h"
#include <string.h>

#define ABBREVIATION_MIN 4 /* hex digits */
#define WANTED_REF "refs/signalbox/wanted/"
#define DEPTH_TEXT_MAX 32

struct mirror {
	struct fetch *fetch;
	const struct mirror_want *want;
	struct source_url url;
	struct transport transport;
	struct pin pin;
	struct cache_store store;
	struct ref_list remote;
	const char *ref; /* the want's; NULL or "HEAD": the default branch */
	char *commit;
	const char *branch; /* into ref, remote or the want */
};

static void mirror_release(struct mirror *m)
{
	source_url_release(&m->url);
	pin_release(&m->pin);
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
	AUTO_FREE char *depth = mem_printf("--depth=%lld", (long long)m->want->depth);

	TRY(is_up_to_date(m, &is_current, &is_new, e));
	if (is_current)
		return ERR_OK;
	m->transport.step = is_new ? "clone" : "fetch";
	return fetch_refs(m, (const char *const[]){ "--prune", m->want->depth ? depth : NULL, NULL },
		(const char *const[]){ "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", NULL }, e);
}

/* What neither branch nor tag leads to: a pull request's ref, a commit that only its id names, a detached HEAD. */
static enum err_code fetch_wanted(struct mirror *m, const char *what, struct error *e)
{
	AUTO_FREE char *refspec = mem_printf("+%s:%s%s", what, WANTED_REF, what);
	AUTO_FREE char *depth = mem_printf("--depth=%lld", (long long)m->want->depth);

	return fetch_refs(m, (const char *const[]){ m->want->depth ? depth : NULL, NULL }, (const char *const[]){ refspec, NULL }, e);
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

static enum err_code open_transport(struct mirror *m, struct error *e)
{
	const struct mirror_want *w = m->want;

	m->ref = w->ref;
	if (m->ref)
		TRY(source_ref_check(m->ref, e));
	TRY(source_url_parse(w->url, &m->url, e));
	m->transport = (struct transport){ .url = &m->url, .caller = m->fetch->caller, .report = &m->fetch->report, .step = "fetch",
		.rules = js_get(m->fetch->job, "rules"), .credential = w->credential };
	m->transport.pin = &m->pin;
	TRY(transport_resolve(&m->transport, &m->pin, e));
	if (m->url.kind != URL_FILE)
		return ERR_OK;
	TRY(transport_find_owner(m->url.path, &m->transport.owner, e));
	if (w->owner && m->transport.owner.uid != w->owner->uid)
		return error_set(e, ERR_DENIED, "'%s' belongs to somebody else", m->url.path);
	return ERR_OK;
}

static enum err_code open_mirror(struct mirror *m, struct error *e)
{
	AUTO_FREE char *name = NULL;

	TRY(open_transport(m, e));
	name = cache_mirror_name(m->url.text, m->want->fingerprint, m->want->depth);
	return cache_store_open(m->fetch->cache, "git", "url", name, &m->fetch->report, &m->store, e);
}

/* The commit that a proof has found needs nobody's word any more; nor does a directory of this machine, whose owner's rights we have. */
static bool find_without_asking(struct mirror *m)
{
	const struct mirror_want *w = m->want;
	const char *commit = w->proven ? w->commit : m->url.kind == URL_FILE ? m->ref : NULL;

	if (!git_is_commit_id(commit) || !(m->commit = find_commit(m, commit)))
		return false;
	m->branch = w->proven ? w->branch : NULL;
	return true;
}

/* What was found at submit is what the agent gets, also when the branch has moved since. */
static enum err_code find_proven(struct mirror *m, struct error *e)
{
	const char *commit = m->want->commit;
	struct error ignored = ERROR_INIT;

	m->branch = m->want->branch;
	m->commit = find_commit(m, commit);
	if (!m->commit && fetch_wanted(m, commit, &ignored) == ERR_OK)
		m->commit = find_commit(m, commit);
	if (m->commit)
		return ERR_OK;
	error_set(e, ERR_NOT_FOUND, "the commit %s, which was '%s' at submit, is not in '%s' any more", commit, m->ref ? m->ref : "HEAD", m->url.text);
	error_hint(e, "submit the task again");
	return ERR_NOT_FOUND;
}

static enum err_code find_in_mirror(struct mirror *m, struct error *e)
{
	if (find_without_asking(m))
		return ERR_OK;
	TRY(list_remote(m, e));
	TRY(update(m, e));
	return m->want->proven && git_is_commit_id(m->want->commit) ? find_proven(m, e) : resolve(m, e);
}

/* A mirror that git itself cannot use any more (a disk that lied, a crash in the wrong moment) is made anew, once. */
static enum err_code find_or_rebuild(struct mirror *m, struct error *e)
{
	enum err_code code = find_in_mirror(m, e);

	if (code != ERR_FAILED || m->store.is_new)
		return code;
	report_progress(&m->fetch->report, "fetch", 0, "the cached copy is damaged and is made anew");
	TRY(cache_store_empty(&m->store, e));
	ref_list_release(&m->remote);
	m->remote = (struct ref_list){ .n = 0 };
	free(TAKE_PTR(m->commit));
	error_clear(e);
	return find_in_mirror(m, e);
}

enum err_code mirror_find(struct fetch *f, const struct mirror_want *w, struct mirror_found *ret, struct error *e)
{
	AUTO(mirror_release) struct mirror m = { .fetch = f, .want = w, .store = CACHE_STORE_INIT };

	TRY(open_mirror(&m, e));
	TRY(find_or_rebuild(&m, e));
	ret->store_dir = mem_strdup(m.store.dir);
	ret->store = mem_strdup(m.store.repo);
	ret->commit = TAKE_PTR(m.commit);
	ret->branch = mem_strdup(m.branch);
	ret->owner = m.transport.owner;
	return ERR_OK;
}

void mirror_found_release(struct mirror_found *f)
{
	free(f->store_dir);
	free(f->store);
	free(f->commit);
	free(f->branch);
}

/* ---- the proof ---- */

/* From the listing alone; a short commit id or a commit that no ref names stays open until it is fetched. */
static enum err_code resolve_listed(struct mirror *m, const char **ret_commit, struct error *e)
{
	static const char *const below[] = { "refs/heads/", "refs/tags/", "" };
	AUTO_FREE char *default_name = m->remote.head_branch ? mem_printf("refs/heads/%s", m->remote.head_branch) : NULL;

	if (wants_default(m)) {
		m->branch = m->remote.head_branch;
		*ret_commit = m->remote.has_head ? ref_list_find(&m->remote, default_name ? default_name : "HEAD") : NULL;
		return ERR_OK;
	}
	for (size_t i = 0; i < ARRAY_SIZE(below); i++) {
		AUTO_FREE char *name = mem_printf("%s%s", below[i], m->ref);

		*ret_commit = ref_list_commit(&m->remote, name);
		if (*ret_commit && str_starts(name, "refs/heads/"))
			m->branch = *below[i] ? m->ref : m->ref + strlen("refs/heads/");
		if (*ret_commit)
			return ERR_OK;
	}
	if (git_is_commit_id(m->ref))
		*ret_commit = m->ref;
	return is_hex(m->ref) ? ERR_OK : not_found(m, e);
}

enum err_code fetch_prove(struct fetch *f, struct js *result, struct error *e)
{
	const struct mirror_want want = { .url = js_str(f->job, "url"), .ref = js_str(f->job, "ref"), .credential = fetch_credential(f) };
	AUTO(mirror_release) struct mirror m = { .fetch = f, .want = &want, .store = CACHE_STORE_INIT };
	const char *commit = NULL;

	TRY(open_transport(&m, e));
	TRY(list_remote(&m, e));
	TRY(resolve_listed(&m, &commit, e));
	js_set_bool(result, "proven", true);
	js_set(result, "commit", js_string(commit));
	js_set(result, "branch", js_string(m.branch));
	return ERR_OK;
}
