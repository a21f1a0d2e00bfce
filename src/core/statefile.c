/* The heartbeat file that others poll. */
#include "core/statefile.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATEFILE_MAX ((size_t)1 << 20)
#define STATEFILE_LOCK_WAIT_MS 2000 /* whoever holds the lock may have been stopped: nobody waits for that */
#define STATEFILE_LOCK_POLL_MS 5

/* The directory, and the one above it, belong to others (an agent's identity, a repository): neither may be a link. */
static enum err_code open_state_dir(const char *dir, int *ret_fd, struct error *e)
{
	AUTO_FREE char *above = file_dirname(dir);
	AUTO_FREE char *base = file_dirname(above);
	AUTO_CLOSE int fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *rel = dir + strlen(base);
	if (fd < 0)
		return error_errno(e, "open '%s'", base);
	return file_open_beneath(fd, rel + strspn(rel, "/"), O_RDONLY | O_DIRECTORY, ret_fd, e);
}

static enum err_code lock_soon(const char *path, int *ret_fd, struct error *e)
{
	int64_t until = clock_mono_ms() + STATEFILE_LOCK_WAIT_MS;
	enum err_code rc;
	while ((rc = file_lock(path, false, ret_fd, e)) == ERR_BUSY && clock_mono_ms() < until)
		poll(NULL, 0, STATEFILE_LOCK_POLL_MS);
	return rc;
}

const char *statefile_status(const char *status)
{
	static const char *const map[][2] = { { "QUEUED", "PENDING" }, { "PENDING", "PENDING" }, { "RUNNING", "RUNNING" }, { "WAITING", "RUNNING" },
		{ "DONE", "DONE" }, { "TIMEOUT", "TIMEOUT" } };
	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (str_eq(map[i][0], status))
			return map[i][1];
	return "ERROR";
}

struct js *statefile_result(const struct js *task_result)
{
	struct js *o = js_object(), *files = js_array();
	const struct js *changed = js_get(task_result, "files");
	for (size_t i = 0; i < js_len(changed); i++)
		js_push_str(files, js_str_or(js_at(changed, i), "path", ""));
	js_set(o, "filesChanged", files);
	js_set_int(o, "testsRun", js_i64(js_get(task_result, "claims"), "tests_run", 0));
	js_set_int(o, "testsPassed", js_i64(js_get(task_result, "claims"), "tests_passed", 0));
	return o;
}

static void set_time(struct js *o, const char *key, int64_t ms)
{
	char text[RFC3339_SIZE];
	if (ms <= 0)
		return;
	clock_rfc3339(ms, text);
	js_set_str(o, key, text);
}

static char *render(const struct statefile *s)
{
	AUTO_JS struct js *o = js_object();
	js_set_str(o, "taskId", s->task_id);
	js_set_str(o, "sessionId", s->session_id);
	js_set_str(o, "status", s->status);
	set_time(o, "startTime", s->start_ms);
	set_time(o, "lastHeartbeat", s->heartbeat_ms ? s->heartbeat_ms : clock_wall_ms());
	set_time(o, "completedTime", s->completed_ms);
	js_set_str(o, "progress", s->progress ? s->progress : "");
	if (s->result)
		js_set(o, "result", js_ref(s->result));
	js_set_str(o, "error", s->error);
	js_set_int(o, "run", s->run);
	if (s->beat)
		js_set(o, "heartbeat", js_ref(s->beat));
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	AUTO_FREE char *json = js_pretty(o);
	strbuf_addf(&text, "%s\n", json);
	return strbuf_detach(&text);
}

static int64_t run_in_file(int dir, const char *name)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(STATEFILE_MAX);
	if (file_read_at(dir, name, STATEFILE_MAX, &text, NULL))
		return 0;
	AUTO_JS struct js *o = js_parse(text.data, text.len, NULL);
	return js_i64(o, "run", 0);
}

/* The same task's file only: a name may have been used by an earlier, deleted task. */
static bool is_of_task(int dir, const char *name, const char *task)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(STATEFILE_MAX);
	if (file_read_at(dir, name, STATEFILE_MAX, &text, NULL))
		return false;
	AUTO_JS struct js *o = js_parse(text.data, text.len, NULL);
	return str_eq(js_str(o, "taskId"), task);
}

enum err_code statefile_write(const char *dir, const char *name, const char *lock_path, const struct statefile *s, struct error *e)
{
	AUTO_CLOSE int lock = -1;
	AUTO_CLOSE int fd = -1;
	enum err_code rc = open_state_dir(dir, &fd, e);
	if (!rc && lock_path)
		rc = lock_soon(lock_path, &lock, e);
	if (rc)
		return rc;
	if (is_of_task(fd, name, s->task_id) && run_in_file(fd, name) > s->run)
		return error_set(e, ERR_STALE, "'%s/%s' is a newer run's", dir, name);
	AUTO_FREE char *text = render(s);
	rc = file_replace_at(fd, name, text, strlen(text), 0644, FILE_NOSYNC, e);
	return rc ? error_wrap(e, "write '%s/%s'", dir, name) : ERR_OK;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

enum err_code statefile_prepare_mirror(const char *dir, struct error *e)
{
	AUTO_CLOSE int above_fd = -1;
	AUTO_CLOSE int fd = -1;
	AUTO_FREE char *above = file_dirname(dir);
	if (mkdir(above, 0755) < 0 && errno != EEXIST)
		return error_errno(e, "make '%s'", above);
	above_fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (above_fd < 0 || (mkdirat(above_fd, base_name(dir), 0755) < 0 && errno != EEXIST))
		return error_errno(e, "make '%s'", dir);
	fd = openat(above_fd, base_name(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return error_errno(e, "open '%s'", dir);
	if (faccessat(fd, ".gitignore", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return ERR_OK;
	return file_replace_at(fd, ".gitignore", "*\n", 2, 0644, FILE_NOSYNC, e);
}
