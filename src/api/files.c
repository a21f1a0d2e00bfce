/* What a task handed in, over HTTP.  Paths from outside are opened below the task's directory without following any link. */
#include "api/api.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARTIFACTS_MAX 1000
#define AGENT_ARTIFACTS "agents/main/artifacts"

static const char *mime_of(const char *name)
{
	static const char *const types[][2] = { { ".json", "application/json" }, { ".jsonl", "application/jsonl" }, { ".patch", "text/x-diff; charset=utf-8" },
		{ ".txt", "text/plain; charset=utf-8" }, { ".log", "text/plain; charset=utf-8" }, { ".md", "text/plain; charset=utf-8" },
		{ ".yaml", "text/plain; charset=utf-8" } };
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (str_ends(name, types[i][0]))
			return types[i][1];
	return "application/octet-stream";
}

static int64_t newest_run(struct http_request *r, struct api *a, const char *task)
{
	AUTO_JS struct js *o = NULL;
	struct error e = ERROR_INIT;
	return core_task(a->core, api_caller(r), task, NULL, &o, &e) ? 0 : js_i64(o, "run_n", 0);
}

/* Below the task's; our own links are not followed either, so the number is asked for. */
static char *run_dir(int64_t n)
{
	return n ? mem_printf("agents/main/runs/%lld", (long long)n) : NULL;
}

static void reply_file(struct http_request *r, int dir, const char *rel, const char *what)
{
	struct error e = ERROR_INIT;
	struct stat st;
	int fd = -1;
	if (!file_name_is_inside(rel) || file_open_beneath(dir, rel, O_RDONLY | O_NONBLOCK, &fd, &e) || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		if (fd >= 0)
			close(fd);
		error_set(&e, ERR_NOT_FOUND, "the task has no %s", what);
		error_hint(&e, "`signalbox show` tells how far it is");
		http_reply_error(r, &e);
		return;
	}
	http_reply_header(r, "X-Content-Type-Options", "nosniff");
	http_reply_header(r, "Content-Security-Policy", "sandbox");
	http_reply_fd(r, mime_of(rel), fd, (uint64_t)st.st_size);
}

static int open_task_dir(struct http_request *r, struct api *a, char task[27])
{
	if (!api_task_id(r, a, task))
		return -1;
	AUTO_FREE char *path = core_task_dir(a->core, task);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		struct error e = ERROR_INIT;
		error_set(&e, ERR_NOT_FOUND, "task %s has no files yet", task);
		http_reply_error(r, &e);
	}
	return fd;
}

static bool has_file(int dir, const char *run, const char *name)
{
	AUTO_FREE char *path = mem_printf("%s/%s", run ? run : "-", name);
	AUTO_CLOSE int fd = -1;
	return file_open_beneath(dir, path, O_RDONLY | O_NONBLOCK, &fd, NULL) == ERR_OK;
}

/* The task's diff, or one run's own part of it; while it runs or when it was never collected there is none. */
void api_get_diff(struct http_request *r, void *ctx)
{
	char task[27];
	struct error e = ERROR_INIT;
	int64_t n = 0;
	if (http_query_i64(r, "run", 1, INT32_MAX, &n, &e)) {
		http_reply_error(r, &e);
		return;
	}
	AUTO_CLOSE int dir = open_task_dir(r, ctx, task);
	if (dir < 0)
		return;
	int64_t newest = newest_run(r, ctx, task);
	AUTO_FREE char *run = run_dir(n ? n : newest);
	if (n > newest) {
		error_set(&e, ERR_NOT_FOUND, "task %s has no run %lld", task, (long long)n);
		error_hint(&e, "GET /v1/tasks/%s/runs lists them", task);
		http_reply_error(r, &e);
		return;
	}
	AUTO_FREE char *path = mem_printf("%s/%s", run ? run : "-", n || !has_file(dir, run, "task.patch") ? "diff.patch" : "task.patch");
	reply_file(r, dir, path, "diff");
}

void api_get_log(struct http_request *r, void *ctx)
{
	static const char *const names[][2] = { { "prompt.txt", "artifacts/prompt.txt" }, { "llm_response.txt", "artifacts/llm_response.txt" },
		{ "diff.patch", "task.patch" }, { "setup.log", "setup.log" }, { "verify.log", "verify.log" } };
	char task[27];
	const char *name = http_param(r, "name");
	AUTO_CLOSE int dir = open_task_dir(r, ctx, task);
	if (dir < 0)
		return;
	AUTO_FREE char *run = run_dir(newest_run(r, ctx, task));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (str_eq(names[i][0], name)) {
			AUTO_FREE char *path = mem_printf("%s/%s", run ? run : "-", names[i][1]);
			reply_file(r, dir, path, name);
			return;
		}
	struct error e = ERROR_INIT;
	error_set(&e, ERR_NOT_FOUND, "no log '%.80s'", name);
	error_hint(&e, "prompt.txt, llm_response.txt, diff.patch, setup.log or verify.log");
	http_reply_error(r, &e);
}

static void list_dir(int dir, const char *rel, const char *prefix, struct js *list)
{
	int fd = -1;
	if (file_open_beneath(dir, rel, O_RDONLY | O_DIRECTORY, &fd, NULL))
		return;
	DIR *d = fdopendir(fd);
	struct stat st;
	if (!d)
		close(fd);
	for (struct dirent *entry; d && (entry = readdir(d)) && js_len(list) < ARTIFACTS_MAX;) {
		if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
			continue;
		AUTO_FREE char *path = mem_printf("%s%s", prefix, entry->d_name);
		struct js *o = js_object();
		js_set_str(o, "path", path);
		js_set_int(o, "size", st.st_size);
		js_set_str(o, "mime", mime_of(path));
		js_push(list, o);
	}
	if (d)
		closedir(d);
}

void api_list_artifacts(struct http_request *r, void *ctx)
{
	char task[27];
	AUTO_CLOSE int dir = open_task_dir(r, ctx, task);
	if (dir < 0)
		return;
	AUTO_FREE char *run = run_dir(newest_run(r, ctx, task));
	AUTO_FREE char *artifacts = mem_printf("%s/artifacts", run ? run : "-");
	struct js *list = js_array(), *o = js_object();
	list_dir(dir, "artifacts", "", list);
	list_dir(dir, artifacts, "", list);
	js_set(o, "data", list);
	js_set(o, "next_cursor", js_null());
	http_reply_js(r, 200, o);
}

void api_get_artifact(struct http_request *r, void *ctx)
{
	char task[27];
	const char *path = http_param(r, "path");
	AUTO_CLOSE int dir = open_task_dir(r, ctx, task);
	if (dir < 0)
		return;
	AUTO_FREE char *run = run_dir(newest_run(r, ctx, task));
	AUTO_FREE char *of_run = mem_printf("%s/artifacts/%s", run ? run : "-", path);
	AUTO_FREE char *of_task = mem_printf("artifacts/%s", path);
	AUTO_CLOSE int there = -1;
	bool in_task = file_name_is_inside(of_task) && file_open_beneath(dir, of_task, O_RDONLY | O_NONBLOCK, &there, NULL) == ERR_OK;
	AUTO_FREE char *what = mem_printf("artifact '%.200s'", path);
	reply_file(r, dir, in_task ? of_task : of_run, what);
}
