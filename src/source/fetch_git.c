/* The job "git": everything that comes over a network first, then the credential is forgotten, then the files. */
#include "base/cleanup.h"
#include "source/cache.h"
#include "source/checkout.h"
#include "source/fetch_kinds.h"
#include "source/git.h"
#include "source/lfs.h"
#include "source/mirror.h"
#include "source/source.h"
#include "source/submodule.h"

struct parts {
	struct mirror_found found;
	struct submodule_list submodules;
	struct lfs_list lfs;
};

static void parts_release(struct parts *p)
{
	mirror_found_release(&p->found);
	submodule_list_release(&p->submodules);
	lfs_list_release(&p->lfs);
}

static enum err_code get_all(struct fetch *f, struct parts *p, struct error *e)
{
	const struct js *job = f->job;
	struct mirror_want want = { .url = js_str(job, "url"), .ref = js_str(job, "ref"), .commit = js_str(job, "commit"), .branch = js_str(job, "branch"),
		.proven = js_flag(job, "proven", false), .credential = fetch_credential(f), .fingerprint = js_str(job, "credential") };

	TRY(js_want_i64(job, "job", "depth", 0, SOURCE_DEPTH_MAX, &want.depth, e));
	TRY(mirror_find(f, &want, &p->found, e));
	if (js_flag(job, "submodules", false))
		TRY(submodule_fetch(f, &want, &p->found, &p->submodules, e));
	if (js_flag(job, "lfs", false))
		TRY(lfs_fetch(f, &want, &p->found, &p->lfs, e));
	return ERR_OK;
}

/* A store that a checkout cannot be made from is looked through when it is opened again. */
static enum err_code suspect(const struct parts *p, enum err_code code)
{
	const struct cache_store s = { .dir = p->found.store_dir, .repo = p->found.store, .lock_fd = -1 };

	return code == ERR_FAILED && cache_store_begin(&s, NULL) != ERR_OK ? code : code;
}

enum err_code fetch_git(struct fetch *f, struct js *result, struct error *e)
{
	AUTO(parts_release) struct parts p = { .found = { .store = NULL } };
	enum err_code code = get_all(f, &p, e);

	credential_release(&f->credential); /* what follows works on hostile files */
	if (code != ERR_OK)
		return code;
	js_set_str(result, "store", p.found.store);
	js_set_str(result, "commit", p.found.commit);
	js_set_str(result, "head", p.found.commit);
	js_set(result, "branch", js_string(p.found.branch));
	const struct checkout_job checkout = { .store = p.found.store, .commit = p.found.commit, .head = p.found.commit, .branch = p.found.branch,
		.cache = f->cache, .report = &f->report, .with_submodules = js_flag(f->job, "submodules", false), .submodules = &p.submodules,
		.with_lfs = js_flag(f->job, "lfs", false), .lfs = &p.lfs };
	return suspect(&p, checkout_make(&checkout, result, e));
}
