/* The way of a run: fetch -> workspace -> setup -> agent -> collect -> verify -> result. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FETCH_LINE_MAX ((size_t)1 << 20)
#define RUNNER_CREDENTIAL_FD 5 /* what the server has given for this fetch, when the spec says so */
#define FETCH_CREDENTIAL_FD 3  /* where `signalbox fetch` looks for it */

void steps_finish(struct runner *r)
{
	if (r->agent_ran && r->has_workspace && !r->changes)
		collect_begin(r);
	else
		result_hand_in(r);
}

static void keep_result(struct runner *r, const struct js *result)
{
	js_free(r->source);
	r->source = js_copy(result);
	const struct js *warnings = js_get(result, "warnings");
	for (size_t i = 0; i < js_len(warnings); i++) {
		struct js *data = js_object();
		js_set_str(data, "text", js_text(js_at(warnings, i)));
		runner_event(r, "workspace.warning", "runner", data);
	}
}

/* A host that is not there now may be there later; an unknown ref stays unknown. */
static const char *source_reason(const struct js *error)
{
	enum err_code code = err_from_name(js_str_or(error, "code", ""));
	bool later = code == ERR_UNREACHABLE || code == ERR_TIMEOUT || code == ERR_BUSY || code == ERR_IO;
	return later ? "source_unreachable" : "source_failed";
}

static void on_fetch_line(void *ctx, const char *line, size_t len, size_t full_len UNUSED)
{
	struct runner *r = ctx;
	AUTO_JS struct js *o = js_parse(line, len, NULL);
	if (js_get(o, "progress"))
		runner_live(r, "workspace.progress", js_ref(js_get(o, "progress")));
	if (js_get(o, "result"))
		keep_result(r, js_get(o, "result"));
	const struct js *error = js_get(o, "error");
	if (error)
		runner_verdict(r, PHASE_FAILED, source_reason(error), "%s%s%s", js_str_or(error, "text", "the source could not be had"),
			js_str(error, "hint") ? "; " : "", js_str_or(error, "hint", ""));
}

static void on_fetch_output(struct runner *r, const char *data, size_t n)
{
	line_feed(&r->lines, data, n, on_fetch_line, r);
}

static void fetched_event(struct runner *r)
{
	static const char *const members[] = { "commit", "tree", "head", "branch", "files", "reused", NULL };
	struct js *data = js_object();
	for (const char *const *m = members; *m; m++)
		if (js_get(r->source, *m))
			js_set(data, *m, js_ref(js_get(r->source, *m)));
	js_set_int(data, "ms", clock_mono_ms() - r->step.started_ms);
	runner_event(r, "workspace.fetched", "runner", data);
}

static void on_fetch_exit(struct runner *r, int status, const struct error *start_error)
{
	line_finish(&r->lines, on_fetch_line, r);
	line_release(&r->lines);
	if (start_error)
		runner_verdict(r, PHASE_FAILED, "source_failed", "%s", start_error->text);
	if (!r->verdict.set && (status != 0 || !js_str(r->source, "checkout"))) {
		AUTO_FREE char *last = NULL;
		step_tail_line(r, &last);
		runner_verdict(r, PHASE_FAILED, "source_failed", "`signalbox fetch` ended with status %d: %s", status, last);
	}
	if (r->verdict.set) {
		steps_finish(r);
		return;
	}
	fetched_event(r);
	workspace_begin(r);
}

/* A snapshot that was made at submit only needs its checkout; a URL is fetched. */
static struct js *fetch_job(const struct runner *r)
{
	static const char *const of_store[] = { "store", "commit", "head", "branch", NULL };
	static const char *const of_url[] = { "commit", "branch", "proven", "depth", "submodules", "lfs", NULL };
	const struct js *source = js_get(r->spec, "source"), *fetch = js_get(r->spec, "fetch");
	struct js *job = js_object();
	bool git = str_eq(js_str(source, "kind"), "git");
	js_set_str(job, "kind", git ? "git" : "checkout");
	if (git) {
		js_set_str(job, "url", js_str(source, "url"));
		js_set(job, "ref", js_get(source, "ref") ? js_ref(js_get(source, "ref")) : js_null());
		js_set_str(job, "credential", js_str(js_get(source, "credential"), "fingerprint"));
		js_merge(job, fetch); /* rules, and whether there is a secret */
	}
	for (const char *const *m = of_url; git && *m; m++)
		if (js_get(source, *m))
			js_set(job, *m, js_ref(js_get(source, *m)));
	for (const char *const *m = of_store; !git && *m; m++)
		js_set(job, *m, js_get(source, *m) ? js_ref(js_get(source, *m)) : js_null());
	js_set_str(job, "cache", js_str(r->spec, "cache"));
	js_set_int(job, "uid", (int64_t)r->uid);
	js_set_int(job, "gid", (int64_t)r->gid);
	return job;
}

/* The job goes in through a memory file: no pipe to fill, nothing on disk. */
static int job_fd(const struct runner *r)
{
	AUTO_JS struct js *job = fetch_job(r);
	AUTO_FREE char *text = js_dump(job);
	int fd = memfd_create("job", MFD_CLOEXEC);
	if (fd >= 0 && (file_write_all(fd, text, strlen(text), NULL) || lseek(fd, 0, SEEK_SET) < 0)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static enum err_code start_fetch(struct runner *r, struct error *e)
{
	const char *argv[] = { js_str(r->spec, "fetch_program"), "fetch", NULL };
	AUTO_CLOSE int in = job_fd(r);
	int out[2], err[2];
	if (!argv[0] || in < 0)
		return error_set(e, ERR_INTERNAL, "the spec names no program to fetch with");
	if (pipe2(out, O_CLOEXEC) < 0)
		return error_errno(e, "make a pipe");
	if (pipe2(err, O_CLOEXEC) < 0) {
		close(out[0]);
		close(out[1]);
		return error_errno(e, "make a pipe");
	}
	struct proc_spec spec = PROC_SPEC_INIT;
	struct proc proc = PROC_INIT;
	spec.argv = argv;
	spec.stdin_fd = in;
	spec.stdout_fd = out[1];
	spec.stderr_fd = err[1];
	spec.die_with_parent = true;
	AUTO_CLOSE int credential = js_flag(js_get(r->spec, "fetch"), "secret", false) ? RUNNER_CREDENTIAL_FD : -1; /* read by nobody here, and not kept */
	if (credential >= 0) {
		spec.fds[0].from = credential;
		spec.fds[0].to = FETCH_CREDENTIAL_FD;
		spec.fd_count = 1;
	}
	enum err_code rc = proc_start(&spec, &proc, e);
	close(out[1]);
	close(err[1]);
	if (rc) {
		close(out[0]);
		close(err[0]);
		return rc;
	}
	step_run(r, &proc, out[0], err[0]);
	return ERR_OK;
}

void steps_fetch(struct runner *r)
{
	struct error e = ERROR_INIT;
	runner_move(r, PHASE_FETCHING);
	step_begin(r, "fetch", runner_limit(r, "fetch_timeout"), "fetch_timeout");
	if (js_get(r->spec, "fetched")) { /* the server found it in the cache */
		keep_result(r, js_get(r->spec, "fetched"));
		fetched_event(r);
		workspace_begin(r);
		return;
	}
	line_init(&r->lines, FETCH_LINE_MAX);
	r->step.on_output = on_fetch_output;
	r->step.on_exit = on_fetch_exit;
	if (start_fetch(r, &e)) {
		runner_verdict(r, PHASE_FAILED, "source_failed", "%s", e.text);
		steps_finish(r);
	}
}
