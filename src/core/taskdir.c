/* Task directories follow the rows: one thread appends events.jsonl and rewrites task.yaml, README.md and the heartbeat file after commits.
 * It derives everything from the database and from the files' own ends, so a crash between commit and append costs nothing. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/yaml.h"
#include "core/behind.h"
#include "core/external.h"
#include "core/gate.h"
#include "core/inside.h"
#include "core/statefile.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TAIL_READ ((size_t)256 << 10)
#define APPEND_PAGE 100
#define STATE_READ_MAX ((size_t)1 << 20)
#define END_READ 16384 /* more than a line that tells an end has */
#define ENDED_LATELY_MS ((int64_t)600000) /* looked at again at start; older ones are the reconciler's */

struct taskdirs {
	struct core *core;
	pthread_t thread;
	pthread_mutex_t writing; /* held while a task's files are written */
	struct behind *behind;
	int64_t next_beats_ms; /* the scheduler's thread alone */
};

void taskdir_dirty(struct core *c, const char *task_id)
{
	behind_add(c->taskdirs->behind, task_id, 0);
}

void taskdir_dirty_ended(struct core *c, const char *task_id)
{
	behind_add(c->taskdirs->behind, task_id, BEHIND_ENDED);
}

void taskdir_dirty_whole(struct core *c, const char *task_id)
{
	behind_add(c->taskdirs->behind, task_id, BEHIND_WHOLE);
}

void taskdir_hold(struct core *c, bool hold)
{
	if (hold)
		pthread_mutex_lock(&c->taskdirs->writing);
	else
		pthread_mutex_unlock(&c->taskdirs->writing);
}

/* task.yaml is written last: when it is younger than the task's end, the record is whole. */
bool taskdir_is_whole(const char *dir, int64_t completed_at)
{
	AUTO_FREE char *path = file_join(dir, "task.yaml");
	struct stat st;
	return lstat(path, &st) == 0 && (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000 >= completed_at;
}

/* In the file's last bytes: where the last whole line begins and ends. False when not even one whole line is among them. */
static bool last_line(const char *tail, ssize_t len, bool is_start, ssize_t *ret_start, ssize_t *ret_end)
{
	ssize_t end = len;
	while (end > 0 && tail[end - 1] != '\n')
		end--;
	ssize_t start = end > 0 ? end - 1 : 0;
	while (start > 0 && tail[start - 1] != '\n')
		start--;
	*ret_start = start;
	*ret_end = end;
	return is_start || start > 0;
}

/* The seq of the last whole line; what follows it was torn by a crash and is cut.  A line may be longer than what is read at first. */
static enum err_code last_seq(int fd, int64_t *ret, struct error *e)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return error_errno(e, "look at events.jsonl");
	for (off_t size = (off_t)TAIL_READ;; size *= 4) {
		off_t from = st.st_size > size ? st.st_size - size : 0;
		size_t len = (size_t)(st.st_size - from);
		AUTO_FREE char *tail = mem_alloc(len + 1);
		ssize_t got = pread(fd, tail, len, from), start, end;
		if (got < 0 || (size_t)got != len)
			return error_errno(e, "read events.jsonl");
		if (!last_line(tail, got, from == 0, &start, &end))
			continue;
		if (from + end < st.st_size && ftruncate(fd, from + end) < 0)
			return error_errno(e, "cut the torn end of events.jsonl");
		AUTO_JS struct js *line = end > start ? js_parse(tail + start, (size_t)(end - start), NULL) : NULL;
		*ret = js_i64(line, "seq", 0);
		if (!end || *ret > 0)
			return ERR_OK;
		if (ftruncate(fd, from + start) < 0 || fstat(fd, &st) < 0) /* a power cut left something else: the rows have it */
			return error_errno(e, "cut the bad end of events.jsonl");
	}
}

bool core_record_is_whole(struct core *c, const struct js *task)
{
	const char *id = js_str_or(task, "id", "");
	if (js_type(js_get(task, "run")) != JS_OBJECT)
		return true; /* it never ran: there is nothing in it that anybody waits for */
	AUTO_FREE char *dir = core_task_dir(c, id);
	AUTO_FREE char *path = file_join(dir, "events.jsonl");
	AUTO_FREE char *tail = mem_alloc(END_READ);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return false;
	off_t from = st.st_size > END_READ ? st.st_size - END_READ : 0;
	ssize_t got = pread(fd, tail, END_READ, from), start, end;
	if (got <= 0 || !last_line(tail, got, from == 0, &start, &end) || end <= start)
		return false;
	AUTO_JS struct js *line = js_parse(tail + start, (size_t)(end - start), NULL);
	/* The log is written first: when it has the end, the rest was written after it, unless that is being done or still to come. */
	return js_i64(line, "seq", 0) >= js_i64(task, "last_seq", INT64_MAX) && !behind_has(c->taskdirs->behind, id, BEHIND_ENDED);
}

struct append {
	struct strbuf text;
	int64_t seq;
	bool state_changed;
};

static void append_line(void *ctx, int64_t seq, const char *line)
{
	struct append *a = ctx;
	static const char *const moves[] = { "task.", "run.", "gate.", "todo." };
	for (size_t i = 0; i < ARRAY_SIZE(moves) && !a->state_changed; i++)
		a->state_changed = core_line_is(line, moves[i]);
	strbuf_adds(&a->text, line);
	strbuf_addc(&a->text, '\n');
	a->seq = seq;
}

static enum err_code append_events(struct core *c, const char *id, const char *dir, bool *ret_changed, int64_t *ret_seq, struct error *e)
{
	AUTO_FREE char *path = file_join(dir, "events.jsonl");
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
	struct append a = { .text = STRBUF_INIT };
	int64_t head = 0;
	bool over;
	if (fd < 0)
		return error_errno(e, "open '%s'", path);
	enum err_code rc = last_seq(fd, &a.seq, e);
	do {
		strbuf_reset(&a.text);
		if (!rc)
			rc = core_events(c, THE_SERVER, id, a.seq, APPEND_PAGE, append_line, &a, &head, &over, e);
		if (!rc && a.text.over)
			rc = error_set(e, ERR_LIMIT, "%d lines of the log are larger than %zu bytes", APPEND_PAGE, a.text.len);
		if (!rc && a.text.len)
			rc = file_write_all(fd, a.text.data, a.text.len, e);
	} while (!rc && a.text.len && a.seq < head);
	strbuf_release(&a.text);
	*ret_changed = a.state_changed;
	*ret_seq = a.seq;
	return rc;
}

struct view {
	const char *id;
	struct task_row task;
	struct run_row run;
	struct gate_list gates; /* the open ones */
};

static enum err_code view_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct view *v = arg;
	enum err_code rc = task_load(conn, v->id, &v->task, e);
	if (!rc)
		rc = gate_list_open(conn, v->id, &v->gates, e);
	if (rc || !v->task.run_n)
		return rc;
	AUTO_FREE char *run = mem_printf("%s.main.%lld", v->id, (long long)v->task.run_n);
	return run_load(conn, run, &v->run, e);
}

static struct js *gates_shown(const struct gate_list *open)
{
	struct js *list = js_array();
	for (size_t i = 0; i < open->n; i++) {
		struct js *o = js_object();
		js_set_str(o, "id", open->rows[i].id);
		js_set_str(o, "kind", open->rows[i].kind);
		js_set_str(o, "state", open->rows[i].state);
		js_set(o, "title", js_string(js_str(open->rows[i].data, "title")));
		js_push(list, o);
	}
	return list;
}

static enum err_code write_yaml(const struct view *v, const char *dir, struct error *e)
{
	AUTO_JS struct js *o = task_to_js(&v->task, dir);
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	AUTO_FREE char *path = file_join(dir, "task.yaml");
	js_set(o, "limits", js_ref(js_get(v->task.spec, "limits")));
	js_set(o, "environment", js_ref(js_get(v->task.spec, "environment")));
	struct js *workers = js_object();
	if (v->run.id)
		js_set(workers, v->run.worker, run_to_js(&v->run));
	js_set(o, "workers", workers);
	js_set(o, "gates", gates_shown(&v->gates));
	yaml_dump(o, &text);
	return file_replace(path, text.data, text.len, 0644, FILE_NOSYNC, e);
}

/* Whoever stands in the directory learns here how to reply, with an editor alone. */
static void add_open_gates(const struct gate_list *open, struct strbuf *b)
{
	strbuf_adds(b, open->n ? "\n\n## Waits for you\n" : "");
	for (size_t i = 0; i < open->n; i++)
		strbuf_addf(b, "\n- %s (%s): copy the form at the end of `gates/%s.yaml` into `inbox/%s.yaml`, or `signalbox gates %s`",
			js_str_or(open->rows[i].data, "title", "a question"), open->rows[i].kind, open->rows[i].id, open->rows[i].id, open->rows[i].id);
}

static enum err_code write_readme(const struct view *v, const char *dir, struct error *e)
{
	const struct task_row *t = &v->task;
	AUTO_FREE char *path = file_join(dir, "README.md");
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;
	strbuf_addf(&b, "# Task %s\n\nStatus: **%s**", t->name ? t->name : t->id, phase_status(t->phase));
	if (t->reason)
		strbuf_addf(&b, " (%s)", t->reason);
	if (t->error)
		strbuf_addf(&b, "\n\n> %s", t->error);
	add_open_gates(&v->gates, &b);
	strbuf_adds(&b, "\n\n## Request\n\n");
	strbuf_adds(&b, js_str_or(t->spec, "prompt", ""));
	if (js_str(t->result, "summary"))
		strbuf_addf(&b, "\n\n## Summary (the agent's words)\n\n%s", js_str(t->result, "summary"));
	strbuf_adds(&b, "\n\n## Where to look\n\n"
		"- `task.yaml`: request and state. `events.jsonl`: everything that happened, one line an event.\n"
		"- `artifacts/diff.patch`: the changes; `git apply` takes it. `agents/main/runs/N/diff.patch`: those of run N alone.\n"
		"- `agents/main/artifacts/`: final.json, llm_response.txt, prompt.txt, exchanges.jsonl.\n"
		"- `agents/main/runtime/`: the agent's own lines (events.jsonl), stderr.log.\n"
		"- `gates/`: what was asked, and `<gate>.decision` what was decided. `inbox/`: put `<gate>.yaml` there to decide, `message.md` to say something.\n"
		"- `agents/main/state.json`: the heartbeat. `agents/main/runs/N/setup.log`: the setup.\n"
		"- `shared/human-notes.md`: write here what the next run of the agent shall know.\n");
	return file_replace(path, b.data, b.len, 0644, FILE_NOSYNC, e);
}

/* Waiting for a human with no runner that could say so. */
static bool waits_alone(const struct view *v)
{
	return v->task.phase == PHASE_WAITING_HUMAN && (!v->run.id || phase_is_terminal(v->run.phase));
}

static void state_of(const struct view *v, struct statefile *s)
{
	const struct task_row *t = &v->task;
	*s = (struct statefile){ .task_id = t->id, .session_id = t->session_id, .status = statefile_status(phase_status(t->phase)), .progress = t->progress,
		.error = t->error, .start_ms = t->started_at ? t->started_at : t->created_at, .completed_ms = t->completed_at, .run = t->run_n, .beat = v->run.beat };
	if (t->started_at && !phase_is_terminal(t->phase) && t->phase != PHASE_QUEUED && !waits_alone(v))
		s->heartbeat_ms = t->beat_at ? t->beat_at : t->started_at; /* the runner's sign of life, not ours: a moment of ours could be after its first */
	if (phase_is_terminal(t->phase))
		s->progress = phase_name(t->phase);
	if (t->phase == PHASE_CANCELED)
		s->error = "canceled";
	if (t->phase == PHASE_TIMED_OUT && !s->error)
		s->error = t->reason;
}

/* Before and after a run the file is ours; during it the runner's, but for a root server's mirror, which the runner may not write. */
static void write_state(struct core *c, const struct view *v, const char *dir)
{
	struct statefile s;
	struct error e = ERROR_INIT;
	bool ours = v->task.phase == PHASE_QUEUED || phase_is_terminal(v->task.phase) || waits_alone(v);
	AUTO_JS struct js *result = phase_is_terminal(v->task.phase) ? statefile_result(v->task.result) : NULL;
	AUTO_FREE char *lock = file_join(dir, "agents/main/state.lock");
	AUTO_JS struct js *waits = waits_alone(v) ? js_object() : NULL;
	const char *repo = js_str(js_get(v->task.spec, "source"), "dir");
	state_of(v, &s);
	s.result = result;
	if (waits) { /* what its runner last did is past */
		js_set_str(waits, "cause", "waiting on human");
		js_set_str(waits, "phase", phase_name(v->task.phase));
		s.beat = waits;
	}
	if (ours && v->run.id) {
		AUTO_FREE char *run = launch_run_dir(c, v->id, v->run.worker, v->run.n);
		if (statefile_write(run, "state.json", lock, &s, &e))
			log_warn("task %s: %s", v->id, e.text);
	}
	if (!repo || !(ours || c->root))
		return;
	AUTO_FREE char *mirror = mem_printf("%s/.codex/tasks", repo);
	AUTO_FREE char *name = mem_printf("%s.json", v->task.name ? v->task.name : v->id);
	if (statefile_prepare_mirror(mirror, &e) || statefile_write(mirror, name, v->run.id ? lock : NULL, &s, &e))
		log_debug("task %s: %s", v->id, e.text);
}

/* A runner that was killed left its last heartbeat, which must not say RUNNING for ever; the next run has a file of its own. */
void taskdir_end_run(struct core *c, const struct task_row *t, const struct run_row *r)
{
	struct error e = ERROR_INIT;
	AUTO_CLOSE int dir = -1;
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(STATE_READ_MAX);
	if (!phase_is_terminal(r->phase) || t->phase == PHASE_WAITING_HUMAN || launch_open_run_dir(c, r->task, r->worker, r->n, &dir, &e) ||
		file_read_at(dir, "state.json", STATE_READ_MAX, &text, &e))
		return;
	AUTO_JS struct js *said = js_parse(strbuf_str(&text), text.len, NULL);
	if (!str_eq(js_str(said, "status"), "RUNNING"))
		return;
	AUTO_JS struct js *result = statefile_result(r->result);
	AUTO_FREE char *run = launch_run_dir(c, r->task, r->worker, r->n);
	AUTO_FREE char *lock = mem_printf("%s/tasks/%s/agents/%s/state.lock", c->data, r->task, r->worker);
	struct statefile s = { .task_id = t->id, .session_id = t->session_id, .status = statefile_status(phase_status(r->phase)),
		.error = r->phase == PHASE_CANCELED ? "canceled" : r->error, .start_ms = t->started_at ? t->started_at : t->created_at,
		.completed_ms = r->ended_at, .heartbeat_ms = r->beat_at, .run = r->n, .result = result, .beat = r->beat };
	if (statefile_write(run, "state.json", lock, &s, &e))
		log_warn("run %s: %s", r->id, e.text);
}

/* From an open file into an open directory: the names on the way may belong to somebody who changes them. */
static enum err_code copy_open(int from, int dir, const char *name, mode_t mode, struct error *e)
{
	struct stat st;
	AUTO_FREE char *source = mem_printf("/proc/self/fd/%d", from);
	AUTO_FREE char *to = mem_printf("/proc/self/fd/%d/%s", dir, name);
	if (fstat(from, &st) < 0 || !S_ISREG(st.st_mode))
		return error_set(e, ERR_INVALID, "'%s' is not a regular file", name);
	return file_copy(source, to, mode, e);
}

static enum err_code copy_diff(int run, int task, struct error *e)
{
	AUTO_CLOSE int from = -1;
	AUTO_CLOSE int to = -1;
	enum err_code rc = file_open_beneath(run, "task.patch", O_RDONLY | O_NONBLOCK, &from, e);
	if (rc == ERR_NOT_FOUND) /* of a release whose runs had one diff */
		rc = file_open_beneath(run, "diff.patch", O_RDONLY | O_NONBLOCK, &from, e);
	if (!rc)
		rc = file_open_beneath(task, "artifacts", O_RDONLY | O_DIRECTORY, &to, e);
	return rc ? rc : copy_open(from, to, "diff.patch", 0644, e);
}

static enum err_code copy_exchanges(const char *path, int run, struct error *e)
{
	AUTO_CLOSE int from = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	AUTO_CLOSE int to = -1;
	struct stat st;
	if (from < 0 || fstat(from, &st) < 0)
		return error_errno(e, "open '%s'", path);
	if (!st.st_size)
		return error_set(e, ERR_NOT_FOUND, "no model was asked");
	enum err_code rc = file_open_beneath(run, "artifacts", O_RDONLY | O_DIRECTORY, &to, e);
	return rc ? rc : copy_open(from, to, "exchanges.jsonl", 0600, e);
}

/* What the run leaves for the task: the diff, and the model's traffic that the gateway wrote. */
static void collect_artifacts(struct core *c, const struct view *v, const char *dir)
{
	AUTO_CLOSE int task = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	AUTO_CLOSE int run = -1;
	AUTO_FREE char *exchanges = v->run.id ? usage_file(c, v->run.id) : NULL;
	struct error e = ERROR_INIT;
	if (!v->run.id || task < 0)
		return;
	enum err_code rc = launch_open_run_dir(c, v->id, v->run.worker, v->run.n, &run, &e);
	if (!rc)
		rc = copy_diff(run, task, &e);
	if (rc && rc != ERR_NOT_FOUND)
		log_warn("task %s: %s", v->id, e.text);
	rc = run < 0 ? ERR_NOT_FOUND : copy_exchanges(exchanges, run, &e);
	if (rc && rc != ERR_NOT_FOUND)
		log_warn("task %s: %s", v->id, e.text);
}

static void view_release(struct view *v)
{
	task_row_release(&v->task);
	run_row_release(&v->run);
	gate_list_release(&v->gates);
	*v = (struct view){ .id = v->id };
}

/* Appends to the log.  The view is then as new: what is written from an older one would stay, as the next look finds nothing new in the log. */
static enum err_code sync_log(struct core *c, struct view *v, const char *dir, bool *ret_changed, struct error *e)
{
	int64_t seq = 0;
	enum err_code rc = append_events(c, v->id, dir, ret_changed, &seq, e);
	if (rc || seq <= v->task.last_seq)
		return rc;
	view_release(v);
	return db_read(c->db, view_op, v, e);
}

/* What changed is written so that task.yaml comes last: a crash on the way shows in its age. */
static enum err_code sync_task(struct core *c, const char *id, bool whole, bool *ret_over, struct error *e)
{
	struct view v = { .id = id };
	AUTO_FREE char *dir = core_task_dir(c, id);
	bool changed = false;
	enum err_code rc = db_read(c->db, view_op, &v, e);
	bool over = !rc && phase_is_terminal(v.task.phase);
	bool external = !rc && external_is(&v.task);
	if (!rc && (v.task.run_n || over || external)) {
		AUTO_FREE char *artifacts = file_join(dir, "artifacts");
		rc = file_mkdirs(artifacts, 0711, e);
		if (!rc)
			rc = sync_log(c, &v, dir, &changed, e);
		over = !rc && phase_is_terminal(v.task.phase);
		changed = changed || whole || (over && !taskdir_is_whole(dir, v.task.completed_at));
		if (!rc && changed && v.run.id)
			launch_complete_record(c, &v.run);
		if (!rc && changed && (over || waits_alone(&v)))
			collect_artifacts(c, &v, dir);
		if (!rc && changed)
			gate_record_open(c, dir, &v.gates);
		if (!rc && (whole || (changed && over)))
			gate_record_settled(c, id);
		if (!rc && changed)
			rc = write_readme(&v, dir, e);
	}
	if (external && !rc)
		external_write_state(c, &v.task, dir);
	else if (!rc)
		write_state(c, &v, dir);
	if (!rc && changed)
		rc = write_yaml(&v, dir, e);
	view_release(&v);
	*ret_over = over;
	return rc == ERR_NOT_FOUND ? ERR_OK : rc; /* deleted meanwhile */
}

static void *taskdir_main(void *arg)
{
	struct taskdirs *r = arg;
	char id[ID_SIZE];
	unsigned flags;
	while (behind_take(r->behind, id, &flags)) {
		struct error e = ERROR_INIT;
		bool over = false;
		pthread_mutex_lock(&r->writing);
		enum err_code rc = sync_task(r->core, id, flags & BEHIND_WHOLE, &over, &e);
		pthread_mutex_unlock(&r->writing);
		if (rc)
			log_error("record of task %s: %s", id, e.text);
		behind_done(r->behind, !rc); /* no room, no descriptors: tried again at the next tick */
		if (over)
			hub_touch(r->core->hub, id); /* who waits for its end waits for its record too */
	}
	return NULL;
}

static enum err_code live_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct core *c = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT id FROM tasks WHERE " SQL_LIVE("phase") " OR completed_at>?1", &s, e);
	if (rc)
		return rc;
	db_bind_int(s, 1, clock_wall_ms() - ENDED_LATELY_MS);
	while (!(rc = db_step(s, &row, e)) && row)
		taskdir_dirty_whole(c, db_text(s, 0));
	db_done(s);
	return rc;
}

static enum err_code waiting_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct core *c = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT id FROM tasks WHERE phase='waiting_human'", &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row)
		taskdir_dirty(c, db_text(s, 0));
	db_done(s);
	return rc;
}

/* Who waits for a human has no runner that writes its heartbeat: it is shown as running, and must not look dead. */
void taskdir_tick(struct core *c)
{
	struct taskdirs *r = c->taskdirs;
	struct error e = ERROR_INIT;
	behind_again(r->behind);
	if (clock_mono_ms() < r->next_beats_ms)
		return;
	r->next_beats_ms = clock_mono_ms() + BEAT_INTERVAL_MS;
	if (db_read(c->db, waiting_op, c, &e))
		log_warn("record: %s", e.text);
}

enum err_code taskdir_start(struct core *c, struct error *e)
{
	struct taskdirs *r = NEW(struct taskdirs);
	c->taskdirs = r;
	r->core = c;
	r->behind = behind_new();
	pthread_mutex_init(&r->writing, NULL);
	enum err_code rc = db_read(c->db, live_op, c, e); /* what an earlier server committed and had not written yet */
	if (rc)
		return rc;
	int err = pthread_create(&r->thread, NULL, taskdir_main, r);
	return err ? error_set(e, ERR_IO, "start the record's thread: %s", strerror(err)) : ERR_OK;
}

void taskdir_stop(struct core *c)
{
	struct taskdirs *r = c->taskdirs;
	if (!r)
		return;
	behind_stop(r->behind);
	if (r->thread)
		pthread_join(r->thread, NULL);
	behind_free(r->behind);
	free(r);
	c->taskdirs = NULL;
}
