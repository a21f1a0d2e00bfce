/* `signalbox fetch`: one job in, one result or error out. */
#include "source/source.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/cache.h"
#include "source/checkout.h"
#include "source/fetch_kinds.h"
#include "source/git.h"
#include "source/try.h"
#include "source/url.h"
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define JOB_MAX ((size_t)1 << 20) /* bytes of the job on stdin */

static const struct {
	const char *name;
	const char *members[18];
	enum err_code (*run)(struct fetch *f, struct js *result, struct error *e);
} kinds[] = {
	{ "git", { "kind", "url", "ref", "commit", "branch", "proven", "depth", "submodules", "lfs", "rules", "credential", "scope", "secret", "cache", "uid", "gid", NULL }, fetch_git },
	{ "prove", { "kind", "url", "ref", "rules", "credential", "scope", "secret", "cache", "uid", "gid", NULL }, fetch_prove },
	{ "snapshot", { "kind", "dir", "cache", "uid", "gid", NULL }, fetch_snapshot },
	{ "archive", { "kind", "fd", "limits", "cache", "uid", "gid", NULL }, fetch_archive },
	{ "checkout", { "kind", "store", "commit", "head", "branch", "cache", "uid", "gid", NULL }, fetch_checkout },
};

enum err_code fetch_checkout(struct fetch *f, struct js *result, struct error *e)
{
	const char *head = js_str(f->job, "head"), *branch = js_str(f->job, "branch");
	const struct checkout_job job = { .store = js_str(f->job, "store"), .commit = js_str(f->job, "commit"),
		.head = head, .branch = branch, .cache = f->cache, .report = &f->report };

	if (!job.store || !git_is_commit_id(job.commit) || (head && !git_is_commit_id(head)))
		return error_set(e, ERR_INVALID, "a checkout needs a store and full commit ids");
	if (branch)
		TRY(source_ref_check(branch, e));
	if (!file_is_dir(job.store))
		return error_set(e, ERR_NOT_FOUND, "the store '%s' does not exist", job.store);
	js_set_str(result, "store", job.store);
	js_set_str(result, "commit", job.commit);
	js_set(result, "head", js_string(head ? head : job.commit));
	js_set(result, "branch", js_string(branch));
	return checkout_make(&job, result, e);
}

static enum err_code read_job(struct js **ret, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(JOB_MAX);

	TRY(file_read_fd(STDIN_FILENO, JOB_MAX, &text, e));
	*ret = js_parse(strbuf_str(&text), text.len, e);
	return *ret ? ERR_OK : e->code;
}

static enum err_code open_cache(struct fetch *f, struct error *e)
{
	int64_t uid = (int64_t)geteuid(), gid = (int64_t)getegid();

	f->cache = js_str(f->job, "cache");
	if (str_empty(f->cache) || f->cache[0] != '/')
		return error_set(e, ERR_INVALID, "the job's cache is not an absolute path");
	TRY(js_want_i64(f->job, "job", "uid", 0, UINT32_MAX - 1, &uid, e));
	TRY(js_want_i64(f->job, "job", "gid", 0, UINT32_MAX - 1, &gid, e));
	return cache_prepare(f->cache, (uid_t)uid, (gid_t)gid, e);
}

const struct credential *fetch_credential(const struct fetch *f)
{
	return f->credential.secret ? &f->credential : NULL;
}

/* What else is started inherits nothing of it. */
static enum err_code take_credential(struct fetch *f, struct error *e)
{
	enum err_code code;

	if (!js_flag(f->job, "secret", false))
		return ERR_OK;
	code = credential_read(CREDENTIAL_FD, &f->credential, e);
	close(CREDENTIAL_FD);
	return code;
}

static enum err_code run_job(struct fetch *f, struct js *result, struct error *e)
{
	const char *kind = js_str(f->job, "kind");

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (str_eq(kind, kinds[i].name)) {
			TRY(js_check_members(f->job, "job", kinds[i].members, e));
			TRY(take_credential(f, e));
			TRY(open_cache(f, e));
			js_set(result, "warnings", js_array());
			return kinds[i].run(f, result, e);
		}
	return error_set(e, ERR_INVALID, "the job's kind '%s' is not known", kind ? kind : "");
}

int source_fetch_main(void)
{
	AUTO_JS struct js *job = NULL;
	AUTO_JS struct js *result = js_object();
	struct fetch f = { .caller = { .set = true, .uid = geteuid(), .gid = getegid() }, .report = { .percent = -1 } };
	struct error e = ERROR_INIT;
	enum err_code code;

	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_DUMPABLE, 0); /* a credential may come */
	umask(022);
	code = read_job(&job, &e);
	f.job = job;
	if (code == ERR_OK)
		code = run_job(&f, result, &e);
	credential_release(&f.credential);
	if (code != ERR_OK) {
		report_error(&e);
		return 1;
	}
	report_result(TAKE_PTR(result));
	return 0;
}
