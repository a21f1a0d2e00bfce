/* Task directories follow the rows: one thread appends events.jsonl and rewrites task.yaml, README.md and the heartbeat file after commits.
 * It derives everything from the database and from the files' own ends, so a crash between commit and append costs nothing. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/yaml.h"
#include "core/inside.h"
#include "core/statefile.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TAIL_READ ((size_t)256 << 10)
#define APPEND_PAGE 500
#define BUCKETS 4096

struct dirty {
	struct dirty *next, *same; /* in order; in the same bucket */
	char id[ID_SIZE];
};

struct taskdirs {
	struct core *core;
	pthread_t thread;
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t wake;
	struct dirty *first, **last;
	struct dirty *buckets[BUCKETS];
	bool stop;
};

static struct dirty **bucket_of(struct taskdirs *r, const char *id)
{
	unsigned h = 5381;
	for (; *id; id++)
		h = h * 33 + (unsigned char)*id;
	return &r->buckets[h % BUCKETS];
}

void taskdir_dirty(struct core *c, const char *task_id)
{
	struct taskdirs *r = c->taskdirs;
	pthread_mutex_lock(&r->lock);
	struct dirty **bucket = bucket_of(r, task_id), *d = *bucket;
	while (d && !str_eq(d->id, task_id))
		d = d->same;
	if (!d) {
		d = NEW(struct dirty);
		snprintf(d->id, sizeof(d->id), "%s", task_id);
		d->same = *bucket;
		*bucket = d;
		*r->last = d;
		r->last = &d->next;
		pthread_cond_signal(&r->wake);
	}
	pthread_mutex_unlock(&r->lock);
}

/* The seq of the last whole line; what follows it was torn by a crash and is cut. */
static enum err_code last_seq(int fd, int64_t *ret, struct error *e)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return error_errno(e, "look at events.jsonl");
	off_t from = st.st_size > (off_t)TAIL_READ ? st.st_size - (off_t)TAIL_READ : 0;
	size_t len = (size_t)(st.st_size - from);
	AUTO_FREE char *tail = mem_alloc(len + 1);
	ssize_t got = pread(fd, tail, len, from);
	*ret = 0;
	if (got <= 0)
		return ERR_OK;
	while (got > 0 && tail[got - 1] != '\n')
		got--;
	if (from + got < st.st_size && ftruncate(fd, from + got) < 0)
		return error_errno(e, "cut the torn end of events.jsonl");
	ssize_t start = got - 1;
	while (start > 0 && tail[start - 1] != '\n')
		start--;
	AUTO_JS struct js *line = got > 0 ? js_parse(tail + start, (size_t)(got - start), NULL) : NULL;
	*ret = js_i64(line, "seq", 0);
	return ERR_OK;
}

struct append {
	struct strbuf text;
	int64_t seq;
	bool state_changed;
};

static void append_line(void *ctx, int64_t seq, const char *line)
{
	struct append *a = ctx;
	static const char *const moves[] = { "\"type\":\"task.", "\"type\":\"run.", "\"type\":\"gate.", "\"type\":\"todo." };
	for (size_t i = 0; i < ARRAY_SIZE(moves) && !a->state_changed; i++)
		a->state_changed = strstr(line, moves[i]) != NULL;
	strbuf_adds(&a->text, line);
	strbuf_addc(&a->text, '\n');
	a->seq = seq;
}

static enum err_code append_events(struct core *c, const char *id, const char *dir, bool *ret_changed, struct error *e)
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
			rc = core_events(c, id, a.seq, APPEND_PAGE, append_line, &a, &head, &over, e);
		if (!rc && a.text.len)
			rc = file_write_all(fd, a.text.data, a.text.len, e);
	} while (!rc && a.text.len && a.seq < head);
	strbuf_release(&a.text);
	*ret_changed = a.state_changed;
	return rc;
}

struct view {
	const char *id;
	struct task_row task;
	struct run_row run;
};

static enum err_code view_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct view *v = arg;
	enum err_code rc = task_load(conn, v->id, &v->task, e);
	if (rc || !v->task.run_n)
		return rc;
	AUTO_FREE char *run = mem_printf("%s.main.%lld", v->id, (long long)v->task.run_n);
	return run_load(conn, run, &v->run, e);
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
	yaml_dump(o, &text);
	return file_replace(path, text.data, text.len, 0644, FILE_NOSYNC, e);
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
	strbuf_adds(&b, "\n\n## Request\n\n");
	strbuf_adds(&b, js_str_or(t->spec, "prompt", ""));
	if (js_str(t->result, "summary"))
		strbuf_addf(&b, "\n\n## Summary (the agent's words)\n\n%s", js_str(t->result, "summary"));
	strbuf_adds(&b, "\n\n## Where to look\n\n"
		"- `task.yaml`: request and state. `events.jsonl`: everything that happened, one line an event.\n"
		"- `artifacts/diff.patch`: the changes; `git apply` takes it.\n"
		"- `agents/main/artifacts/`: final.json, llm_response.txt, prompt.txt, exchanges.jsonl.\n"
		"- `agents/main/runtime/`: the agent's own lines (events.jsonl), stderr.log.\n"
		"- `agents/main/state.json`: the heartbeat. `agents/main/runs/N/setup.log`: the setup.\n"
		"- `shared/human-notes.md`: write here what the next run of the agent shall know.\n");
	return file_replace(path, b.data, b.len, 0644, FILE_NOSYNC, e);
}

static void state_of(const struct view *v, struct statefile *s)
{
	const struct task_row *t = &v->task;
	*s = (struct statefile){ .task_id = t->id, .session_id = t->session_id, .status = statefile_status(phase_status(t->phase)), .progress = t->progress,
		.error = t->error, .start_ms = t->started_at ? t->started_at : t->created_at, .completed_ms = t->completed_at, .run = t->run_n, .beat = v->run.beat };
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
	bool ours = v->task.phase == PHASE_QUEUED || phase_is_terminal(v->task.phase) || v->task.phase == PHASE_WAITING_HUMAN;
	AUTO_JS struct js *result = phase_is_terminal(v->task.phase) ? statefile_result(v->task.result) : NULL;
	AUTO_FREE char *lock = file_join(dir, "agents/main/state.lock");
	const char *repo = js_str(js_get(v->task.spec, "source"), "dir");
	state_of(v, &s);
	s.result = result;
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

/* What the run leaves for the task: the diff, and the model's traffic that the gateway wrote. */
static void collect_artifacts(struct core *c, const struct view *v, const char *dir)
{
	if (!v->run.id)
		return;
	AUTO_FREE char *run = launch_run_dir(c, v->id, v->run.worker, v->run.n);
	AUTO_FREE char *from = file_join(run, "diff.patch");
	AUTO_FREE char *to = file_join(dir, "artifacts/diff.patch");
	AUTO_FREE char *exchanges = usage_file(c, v->run.id);
	AUTO_FREE char *kept = file_join(run, "artifacts/exchanges.jsonl");
	struct error e = ERROR_INIT;
	if (file_exists(from) && file_copy(from, to, 0644, &e))
		log_warn("task %s: %s", v->id, e.text);
	if (file_exists(exchanges) && file_copy(exchanges, kept, 0600, &e))
		log_warn("task %s: %s", v->id, e.text);
}

static enum err_code sync_task(struct core *c, const char *id, struct error *e)
{
	struct view v = { .id = id };
	AUTO_FREE char *dir = core_task_dir(c, id);
	bool changed = false;
	enum err_code rc = db_read(c->db, view_op, &v, e);
	bool over = !rc && phase_is_terminal(v.task.phase);
	if (!rc && (v.task.run_n || over)) {
		AUTO_FREE char *artifacts = file_join(dir, "artifacts");
		rc = file_mkdirs(artifacts, 0711, e);
		if (!rc)
			rc = append_events(c, id, dir, &changed, e);
		if (!rc && (over || v.task.phase == PHASE_WAITING_HUMAN))
			collect_artifacts(c, &v, dir);
		if (!rc && changed)
			rc = write_yaml(&v, dir, e);
		if (!rc && changed)
			rc = write_readme(&v, dir, e);
	}
	if (!rc)
		write_state(c, &v, dir);
	task_row_release(&v.task);
	run_row_release(&v.run);
	return rc == ERR_NOT_FOUND ? ERR_OK : rc; /* deleted meanwhile */
}

static struct dirty *next_dirty(struct taskdirs *r)
{
	pthread_mutex_lock(&r->lock);
	while (!r->first && !r->stop)
		pthread_cond_wait(&r->wake, &r->lock);
	struct dirty *d = r->first;
	if (d) {
		struct dirty **at = bucket_of(r, d->id);
		while (*at != d)
			at = &(*at)->same;
		*at = d->same;
		r->first = d->next;
		if (!r->first)
			r->last = &r->first;
	}
	pthread_mutex_unlock(&r->lock);
	return d;
}

static void *taskdir_main(void *arg)
{
	struct taskdirs *r = arg;
	for (struct dirty *d; (d = next_dirty(r)); free(d)) {
		struct error e = ERROR_INIT;
		if (sync_task(r->core, d->id, &e))
			log_error("record of task %s: %s", d->id, e.text);
	}
	return NULL;
}

static enum err_code live_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct core *c = arg;
	struct db_stmt *s;
	bool row = false;
	enum err_code rc = db_prepare(conn, "SELECT id FROM tasks WHERE phase NOT IN ('succeeded','failed','canceled','timed_out','lost') AND run_n>0", &s, e);
	if (rc)
		return rc;
	while (!(rc = db_step(s, &row, e)) && row)
		taskdir_dirty(c, db_text(s, 0));
	db_done(s);
	return rc;
}

enum err_code taskdir_start(struct core *c, struct error *e)
{
	struct taskdirs *r = NEW(struct taskdirs);
	c->taskdirs = r;
	r->core = c;
	r->last = &r->first;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->wake, NULL);
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
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
	if (r->thread)
		pthread_join(r->thread, NULL);
	free(r);
	c->taskdirs = NULL;
}
