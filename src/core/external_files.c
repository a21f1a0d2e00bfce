/* State files of other programs: .codex/tasks/<name>.json in the repositories that our tasks came from.  A thread of its own looks at them
 * (a file system may hang), follows what changed, and never writes there.  A file whose taskId is an id of ours was written by a Signalbox. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/external_inside.h"
#include "source/source.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TASKS_LOOKED_AT 500 /* the newest, for their directories */
#define FILES_PER_DIR (EXTERNAL_FILES_MAX / 4)
#define SETTLE_MS 2000 /* a file younger than this may be half written */

struct seen {
	struct seen *next;
	char *path;
	ino_t inode;
	struct timespec changed;
	off_t size;
	bool bad; /* its finding was told */
};

struct external_files {
	struct core *core;
	pthread_t thread;
	pthread_mutex_t lock; /* guards asked and stop */
	pthread_cond_t wake;
	bool asked, stop, running;
	/* the thread's own: */
	char *dirs[EXTERNAL_DIRS_MAX];
	size_t dir_count;
	struct seen *seen;
	size_t seen_count;
	char newest[ID_SIZE]; /* task whose directories are known */
	bool full_told;
};

/* What a file says. */
struct told {
	const char *path, *dir, *name;
	const char *session, *status, *progress, *error;
	const struct js *result;
	int64_t start_ms, beat_ms, done_ms, changed_ms;
	char *repo;
	char id[ID_SIZE];
	bool full;    /* no further task may live */
	bool ended, known_over, foreign, on_channel;
	struct outbox out;
};

static const struct {
	const char *status;
	bool over, pending;
	enum phase to;
	const char *reason;
} statuses[] = {
	{ "PENDING", false, true, PHASE_CLAIMED, NULL },     { "RUNNING", false, false, PHASE_RUNNING, NULL },
	{ "DONE", true, false, PHASE_SUCCEEDED, NULL },	     { "ERROR", true, false, PHASE_FAILED, "agent_failed" },
	{ "TIMEOUT", true, false, PHASE_TIMED_OUT, "timeout" },
};

static int status_of(const char *status)
{
	int i = (int)ARRAY_SIZE(statuses) - 1;
	while (i >= 0 && !str_eq(statuses[i].status, status))
		i--;
	return i;
}

static int64_t ms_of(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- one file */

static enum err_code want_time(const struct js *o, const char *member, int64_t *ret, struct error *e)
{
	const char *text = NULL;
	enum err_code rc = js_type(js_get(o, member)) == JS_NULL ? ERR_OK : js_want_str(o, "", member, &text, e);
	if (rc || str_empty(text))
		return rc;
	*ret = clock_parse_rfc3339(text);
	return *ret < 0 ? error_set(e, ERR_INVALID, "%s: '%.40s' is not a time with a zone", member, text) : ERR_OK;
}

static enum err_code want_text(const struct js *o, const char *member, size_t max, const char **ret, struct error *e)
{
	enum err_code rc = js_type(js_get(o, member)) == JS_NULL ? ERR_OK : js_want_str(o, "", member, ret, e);
	return !rc && *ret && strlen(*ret) > max ? error_set(e, ERR_LIMIT, "%s: longer than %zu bytes", member, max) : rc;
}

static enum err_code read_told(const struct js *o, struct told *t, struct error *e)
{
	enum err_code rc = want_text(o, "sessionId", EXTERNAL_ID_MAX, &t->session, e);
	if (!rc)
		rc = want_text(o, "status", EXTERNAL_ID_MAX, &t->status, e);
	if (!rc)
		rc = want_text(o, "progress", EXTERNAL_PROGRESS_MAX, &t->progress, e);
	if (!rc)
		rc = want_text(o, "error", EXTERNAL_TEXT_MAX, &t->error, e);
	if (!rc)
		rc = want_time(o, "startTime", &t->start_ms, e);
	if (!rc)
		rc = want_time(o, "lastHeartbeat", &t->beat_ms, e);
	if (!rc)
		rc = want_time(o, "completedTime", &t->done_ms, e);
	t->result = js_type(js_get(o, "result")) == JS_NULL ? NULL : js_get(o, "result");
	if (!rc && t->result)
		rc = external_check_result(t->result, "result", e);
	if (!rc && status_of(t->status) < 0)
		rc = error_set(e, ERR_INVALID, "status: expected PENDING, RUNNING, DONE, ERROR or TIMEOUT");
	return rc;
}

/* The task's own name, or the file's when that is no name for us. */
static enum err_code read_name(const struct js *o, const char *file, char **ret, struct error *e)
{
	const char *task = js_str(o, "taskId");
	if (str_empty(task))
		return error_set(e, ERR_INVALID, "taskId: expected a string");
	AUTO_FREE char *stem = mem_strndup(file, strlen(file) - strlen(".json"));
	if (!str_is_name(task) && !str_is_name(stem))
		return error_set(e, ERR_INVALID, "neither taskId nor the file's name is a name for a task");
	*ret = mem_strdup(str_is_name(task) ? task : stem);
	return ERR_OK;
}

static enum err_code find_or_make(struct db_conn *c, struct told *t, struct error *e)
{
	AUTO_TASK struct task_row row = { 0 };
	enum err_code rc = task_find(c, PROJECT_DEFAULT, t->name, t->repo, t->id, e);
	if (rc == ERR_NOT_FOUND && t->full && !statuses[status_of(t->status)].over)
		return error_set(e, ERR_LIMIT, "%d external tasks live already, the limit", EXTERNAL_LIVE_MAX);
	if (rc == ERR_NOT_FOUND) {
		AUTO_JS struct js *source = js_object();
		js_set_str(source, "kind", "local");
		js_set_str(source, "dir", t->dir);
		struct external_birth b = { .project = PROJECT_DEFAULT, .name = t->name, .session_id = t->session ? t->session : t->name, .who = EXTERNAL_ACTOR_FILE, .source = source,
			.repo = t->repo, .file = t->path, .start_ms = t->start_ms, .pending = statuses[status_of(t->status)].pending };
		error_clear(e);
		return external_insert(c, &b, t->id, &t->out, e);
	}
	if (!rc)
		rc = task_load(c, t->id, &row, e);
	if (rc)
		return rc;
	t->known_over = phase_is_terminal(row.phase);
	t->on_channel = external_is(&row) && !js_str(js_get(row.spec, "external"), "file"); /* it speaks for itself */
	t->foreign = !external_is(&row) || !str_eq(js_str(js_get(row.spec, "external"), "file"), t->path);
	if (!t->foreign && !t->known_over && row.phase == PHASE_CLAIMED && statuses[status_of(t->status)].to == PHASE_RUNNING)
		rc = external_begin(c, t->id, EXTERNAL_ACTOR_FILE, &t->out, e);
	return rc;
}

static enum err_code follow_op(struct db_conn *c, void *arg, struct error *e)
{
	struct told *t = arg;
	int s = status_of(t->status);
	enum err_code rc = find_or_make(c, t, e);
	if (rc || t->foreign || t->known_over)
		return rc;
	if (t->progress)
		rc = external_progress(c, t->id, t->progress, EXTERNAL_ACTOR_FILE, &t->out, e);
	if (!rc)
		rc = db_exec(c, e, "UPDATE tasks SET beat_at=?2 WHERE id=?1", "si", t->id, t->beat_ms);
	if (rc || !statuses[s].over)
		return rc;
	struct external_end end = { .to = statuses[s].to, .reason = statuses[s].reason, .error = t->error, .result = t->result, .at = t->done_ms };
	t->ended = true;
	return external_finish(c, t->id, &end, EXTERNAL_ACTOR_FILE, &t->out, e);
}

/* The table follows the rows. Beats are dated by the file; one from the future counts from now. */
static void follow_in_table(struct core *c, struct told *t)
{
	int64_t age = clock_wall_ms() - t->beat_ms;
	age = age > 0 ? age : 0;
	if (t->ended)
		external_forget(c, t->id);
	else if (external_is_known(c, t->id))
		external_beat(c, t->id, age);
	else
		external_know(c, PROJECT_DEFAULT, t->id, t->name, t->session ? t->session : t->name, t->path, age);
}

static enum err_code follow(struct core *c, struct told *t, struct error *e)
{
	bool live = !statuses[status_of(t->status)].over;
	AUTO_JS struct js *source = js_object();
	js_set_str(source, "kind", "local");
	js_set_str(source, "dir", t->dir);
	t->full = external_count(c) >= EXTERNAL_LIVE_MAX;
	enum err_code rc = source_repo_key(source, &t->repo, e);
	if (!rc)
		rc = db_write(c->db, follow_op, t, e);
	if (!rc && t->foreign && !t->on_channel)
		error_set(e, ERR_CONFLICT, "the name '%s' is another task's (%s)", t->name, t->id);
	else if (!rc && t->known_over && live && t->beat_ms > clock_wall_ms() - conf_limit(c->config, "heartbeat_timeout"))
		error_set(e, ERR_CONFLICT, "task %s has ended, and its file goes on", t->id);
	if (!rc && !t->foreign && !t->known_over) {
		follow_in_table(c, t);
		core_publish(c, &t->out);
		taskdir_dirty(c, t->id);
	}
	outbox_release(&t->out);
	return rc ? rc : e->code;
}

static enum err_code read_file(struct external_files *f, int fd, const char *dir, const char *file, const char *path, const struct stat *st, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(EXTERNAL_FILE_BYTES);
	AUTO_FREE char *name = NULL;
	struct told t = { .path = path, .dir = dir, .changed_ms = ms_of(st->st_mtim) };
	enum err_code rc = file_read_at(fd, file, EXTERNAL_FILE_BYTES, &text, e);
	AUTO_JS struct js *o = rc ? NULL : js_parse(strbuf_str(&text), text.len, e);
	if (!o)
		return e->code;
	if (js_type(o) != JS_OBJECT)
		return error_set(e, ERR_INVALID, "not a JSON object");
	if (clock_is_id(js_str_or(o, "taskId", "")))
		return ERR_OK; /* written by a Signalbox */
	rc = read_name(o, file, &name, e);
	if (!rc)
		rc = read_told(o, &t, e);
	t.name = name;
	t.beat_ms = t.beat_ms ? t.beat_ms : t.changed_ms;
	t.start_ms = t.start_ms && t.start_ms <= clock_wall_ms() ? t.start_ms : 0;
	if (!rc)
		rc = follow(f->core, &t, e);
	free(t.repo);
	return rc;
}

/* --- what was seen */

static struct seen *seen_find(struct external_files *f, const char *path)
{
	struct seen *s = f->seen;
	while (s && !str_eq(s->path, path))
		s = s->next;
	return s;
}

static bool is_unchanged(const struct seen *s, const struct stat *st)
{
	return s && s->inode == st->st_ino && s->size == st->st_size && s->changed.tv_sec == st->st_mtim.tv_sec && s->changed.tv_nsec == st->st_mtim.tv_nsec;
}

static struct seen *seen_add(struct external_files *f, const char *path)
{
	if (f->seen_count == EXTERNAL_FILES_MAX) {
		if (!f->full_told)
			external_found(f->core, path, "too many state files are followed already; this and further ones are not");
		f->full_told = true;
		return NULL;
	}
	struct seen *s = NEW(struct seen);
	s->path = mem_strdup(path);
	s->next = f->seen;
	f->seen = s;
	f->seen_count++;
	return s;
}

static void look_at_file(struct external_files *f, int fd, const char *dir, const char *file)
{
	AUTO_FREE char *path = mem_printf("%s/.codex/tasks/%s", dir, file);
	struct error e = ERROR_INIT;
	struct stat st;
	struct seen *s = seen_find(f, path);
	if (fstatat(fd, file, &st, AT_SYMLINK_NOFOLLOW) || is_unchanged(s, &st))
		return;
	if (!s && clock_wall_ms() - ms_of(st.st_mtim) > EXTERNAL_FILE_AGE_MS)
		return;
	enum err_code rc = read_file(f, fd, dir, file, path, &st, &e);
	if (rc && rc != ERR_CONFLICT && clock_wall_ms() - ms_of(st.st_mtim) < SETTLE_MS)
		return; /* looked at again when it is whole */
	s = s ? s : seen_add(f, path);
	if (!s)
		return;
	s->inode = st.st_ino;
	s->changed = st.st_mtim;
	s->size = st.st_size;
	if (rc && !s->bad)
		external_found(f->core, path, e.text);
	s->bad = rc != ERR_OK;
}

static void look_at_dir(struct external_files *f, const char *dir)
{
	AUTO_CLOSE int top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSE int tasks = -1;
	if (top < 0 || file_open_beneath(top, ".codex/tasks", O_RDONLY | O_DIRECTORY | O_CLOEXEC, &tasks, NULL))
		return;
	int copy = fcntl(tasks, F_DUPFD_CLOEXEC, 3);
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
	int n = 0;
	for (struct dirent *entry; d && n < FILES_PER_DIR && (entry = readdir(d));)
		if (entry->d_name[0] != '.' && str_ends(entry->d_name, ".json")) {
			look_at_file(f, tasks, dir, entry->d_name);
			n++;
		}
	if (d)
		closedir(d);
	else if (copy >= 0)
		close(copy);
}

/* --- the thread */

static void dir_add(struct external_files *f, const char *dir)
{
	for (size_t i = 0; i < f->dir_count; i++)
		if (str_eq(f->dirs[i], dir))
			return;
	if (f->dir_count < EXTERNAL_DIRS_MAX)
		f->dirs[f->dir_count++] = mem_strdup(dir);
}

/* Tasks on a local directory stand for that directory and for its repository. */
static enum err_code dirs_op(struct db_conn *c, void *arg, struct error *e)
{
	struct external_files *f = arg;
	struct db_stmt *s;
	bool row = false;
	int n = 0;
	char newest[ID_SIZE] = "";
	enum err_code rc = db_prepare(c, "SELECT repo, spec, id FROM tasks ORDER BY id DESC", &s, e);
	if (rc)
		return rc;
	while (n++ < TASKS_LOOKED_AT && !(rc = db_step(s, &row, e)) && row) {
		const char *text = db_text(s, 1);
		if (str_eq(db_text(s, 2), f->newest))
			break;
		if (!newest[0])
			snprintf(newest, sizeof(newest), "%s", db_text(s, 2));
		AUTO_JS struct js *spec = strstr(text, "\"dir\":") ? js_parse(text, strlen(text), NULL) : NULL; /* few have one, and it costs as much as a submit */
		const char *dir = js_str(js_get(spec, "source"), "dir");
		if (!dir)
			continue;
		dir_add(f, db_text(s, 0));
		dir_add(f, dir);
	}
	db_done(s);
	if (newest[0])
		memcpy(f->newest, newest, sizeof(newest));
	return rc;
}

static bool wait_until_asked(struct external_files *f)
{
	pthread_mutex_lock(&f->lock);
	while (!f->asked && !f->stop)
		pthread_cond_wait(&f->wake, &f->lock);
	f->asked = false;
	bool go = !f->stop;
	pthread_mutex_unlock(&f->lock);
	return go;
}

static void *files_main(void *arg)
{
	struct external_files *f = arg;
	while (wait_until_asked(f)) {
		struct error e = ERROR_INIT;
		if (db_read(f->core->db, dirs_op, f, &e))
			log_warn("state files: %s", e.text);
		for (size_t i = 0; i < f->dir_count; i++)
			look_at_dir(f, f->dirs[i]);
	}
	return NULL;
}

void external_files_look(struct external_files *f)
{
	pthread_mutex_lock(&f->lock);
	f->asked = true;
	pthread_cond_signal(&f->wake);
	pthread_mutex_unlock(&f->lock);
}

enum err_code external_files_start(struct core *c, struct external_files **ret, struct error *e)
{
	struct external_files *f = NEW(struct external_files);
	f->core = c;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->wake, NULL);
	int rc = pthread_create(&f->thread, NULL, files_main, f);
	f->running = !rc;
	*ret = f;
	return rc ? error_set(e, ERR_IO, "start the state files' thread: %s", strerror(rc)) : ERR_OK;
}

void external_files_stop(struct external_files *f)
{
	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	f->stop = true;
	pthread_cond_signal(&f->wake);
	pthread_mutex_unlock(&f->lock);
	if (f->running)
		pthread_join(f->thread, NULL);
	for (size_t i = 0; i < f->dir_count; i++)
		free(f->dirs[i]);
	while (f->seen) {
		struct seen *s = f->seen;
		f->seen = s->next;
		free(s->path);
		free(s);
	}
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->wake);
	free(f);
}
