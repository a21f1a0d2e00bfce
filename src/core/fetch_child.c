/* Running `signalbox fetch` to its end. */
#include "core/fetch_child.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/proc.h"
#include "core/inside.h"
#include "source/credential.h"
#include <string.h>

#define OUTPUT_MAX ((size_t)4 << 20) /* bytes of progress and result */

/* Its last line decides. */
static enum err_code read_answer(const struct strbuf *out, int status, struct js **ret, struct error *e)
{
	const char *end = strbuf_str(out) + out->len;
	while (end > strbuf_str(out) && end[-1] == '\n')
		end--;
	const char *line = end;
	while (line > strbuf_str(out) && line[-1] != '\n')
		line--;
	AUTO_JS struct js *last = js_parse(line, (size_t)(end - line), NULL);
	const struct js *failed = js_get(last, "error");
	if (failed) {
		enum err_code code = err_from_name(js_str_or(failed, "code", "failed"));
		error_set(e, code, "%s", js_str_or(failed, "text", "the source could not be had"));
		if (js_str(failed, "hint"))
			error_hint(e, "%s", js_str(failed, "hint"));
		return code;
	}
	if (!js_get(last, "result"))
		return error_set(e, ERR_FAILED, "`signalbox fetch` ended with status %d and no result", status);
	*ret = js_ref(js_get(last, "result"));
	return ERR_OK;
}

static enum err_code run(struct core *c, const char *project, struct js *job, int fd, int as_fd, const char *const *env, int64_t timeout_ms, struct js **ret,
	struct error *e)
{
	AUTO_FREE char *cache = mem_printf("%s/cache/%s", c->data, project);
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(OUTPUT_MAX);
	const char *argv[] = { c->exe, "fetch", NULL };
	struct proc_spec spec = PROC_SPEC_INIT;
	int status = 0;
	js_set_str(job, "cache", cache);
	js_set_int(job, "uid", (int64_t)c->uid);
	js_set_int(job, "gid", (int64_t)c->gid);
	AUTO_FREE char *text = js_dump(job);
	spec.argv = argv;
	spec.env = env;
	if (fd >= 0) {
		spec.fds[0].from = fd;
		spec.fds[0].to = as_fd;
		spec.fd_count = 1;
	}
	enum err_code rc = proc_run(&spec, text, strlen(text), timeout_ms, &out, NULL, &status, e);
	return rc ? rc : read_answer(&out, status, ret, e);
}

enum err_code fetch_child_run(struct core *c, const char *project, struct js *job, int credential_fd, int64_t timeout_ms, struct js **ret, struct error *e)
{
	return run(c, project, job, credential_fd, CREDENTIAL_FD, NULL, timeout_ms, ret, e);
}

/* What reads an archive gets nothing of ours: no variable, no descriptor but the file's. */
enum err_code fetch_child_unpack(struct core *c, const char *project, struct js *job, int archive_fd, int64_t timeout_ms, struct js **ret, struct error *e)
{
	static const char *const nothing[] = { "PATH=/usr/local/bin:/usr/bin:/bin", NULL };
	js_set_int(job, "fd", FETCH_ARCHIVE_FD);
	return run(c, project, job, archive_fd, FETCH_ARCHIVE_FD, nothing, timeout_ms, ret, e);
}
