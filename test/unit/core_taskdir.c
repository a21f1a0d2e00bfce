/* The record on disk follows the rows, whatever a crash, a long line or somebody's link left there. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/hub.h"
#include "core/inside.h"
#include "core/migrations.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define LONG_TEXT ((size_t)600 << 10) /* longer than what is read of the log's end at first */
#define LOG_MAX ((size_t)16 << 20)

struct site {
	struct core core;
	char id[ID_SIZE];
	char *dir;
};

static enum err_code born_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct site *s = arg;
	struct task_row row = { .phase = PHASE_QUEUED, .project = "default", .repo = "r", .created_by = "me", .session_id = "s", .created_at = clock_wall_ms() };
	AUTO_JS struct js *spec = js_object();
	AUTO_JS struct js *labels = js_object();
	struct task_birth birth;
	row.spec = spec;
	row.labels = labels;
	memcpy(row.id, s->id, ID_SIZE);
	task_birth_make(&birth, &row);
	enum err_code rc = task_insert(conn, &birth, e);
	if (!rc)
		rc = db_exec(conn, e, "INSERT INTO runs(id,task,worker,n,turn,attempt,project,repo,phase,token_hash,created_at)"
			" VALUES(?1||'.main.1',?1,'main',1,1,1,'default','r','claimed','',1)", "s", s->id);
	if (!rc)
		rc = db_exec(conn, e, "UPDATE tasks SET run_n=1, phase='claimed' WHERE id=?1", "s", s->id);
	task_birth_release(&birth);
	return rc;
}

static enum err_code long_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct site *s = arg;
	struct outbox out = { 0 };
	AUTO_FREE char *text = mem_alloc(LONG_TEXT + 1);
	memset(text, 'x', LONG_TEXT);
	struct js *data = js_object();
	js_set_str(data, "text", text);
	enum err_code rc = event_add(conn, s->id, "message.done", "main", 1, "agent", 1, data, &out, e);
	outbox_release(&out);
	return rc;
}

static enum err_code end_op(struct db_conn *conn, void *arg, struct error *e)
{
	struct site *s = arg;
	struct outbox out = { 0 };
	struct move m = { .to = PHASE_FAILED, .reason = "r", .error = "e", .actor = SERVER_ACTOR };
	enum err_code rc = task_move(conn, s->id, &m, &out, e);
	outbox_release(&out);
	return rc;
}

static void record_all(struct site *s)
{
	assert_int_equal(taskdir_start(&s->core, NULL), ERR_OK);
	taskdir_dirty(&s->core, s->id);
	taskdir_stop(&s->core); /* writes what is left */
}

static int site_make(void **state)
{
	struct site *s = NEW(struct site);
	assert_int_equal(file_tmpdir("/tmp", "taskdir-", &s->core.data, NULL), ERR_OK);
	AUTO_FREE char *path = file_join(s->core.data, "db");
	assert_int_equal(db_open(path, migrations, migration_count, &s->core.db, NULL), ERR_OK);
	s->core.hub = hub_new();
	clock_new_id(s->id);
	s->dir = core_task_dir(&s->core, s->id);
	AUTO_FREE char *artifacts = mem_printf("%s/agents/main/runs/1/artifacts", s->dir);
	assert_int_equal(file_mkdirs(artifacts, 0755, NULL), ERR_OK);
	assert_int_equal(db_write(s->core.db, born_op, s, NULL), ERR_OK);
	*state = s;
	return 0;
}

static int site_drop(void **state)
{
	struct site *s = *state;
	db_close(s->core.db);
	hub_free(s->core.hub);
	assert_int_equal(file_remove_tree(s->core.data, NULL), ERR_OK);
	free(s->core.data);
	free(s->dir);
	free(s);
	return 0;
}

/* "1 2 3 ": the numbers in events.jsonl; -1 for a line that is none. */
static void numbers(struct site *s, struct strbuf *ret)
{
	AUTO_STRBUF struct strbuf log = STRBUF_LIMIT(LOG_MAX);
	AUTO_FREE char *path = file_join(s->dir, "events.jsonl");
	char *save = NULL;
	assert_int_equal(file_read(path, LOG_MAX, &log, NULL), ERR_OK);
	for (char *line = strtok_r(log.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		AUTO_JS struct js *event = js_parse(line, strlen(line), NULL);
		strbuf_addf(ret, "%lld ", (long long)js_i64(event, "seq", -1));
	}
}

static void append(struct site *s, const char *text)
{
	AUTO_STRBUF struct strbuf log = STRBUF_LIMIT(LOG_MAX);
	AUTO_FREE char *path = file_join(s->dir, "events.jsonl");
	assert_int_equal(file_read(path, LOG_MAX, &log, NULL), ERR_OK);
	strbuf_adds(&log, text);
	assert_int_equal(file_replace(path, log.data, log.len, 0644, FILE_NOSYNC, NULL), ERR_OK);
}

static void a_line_longer_than_the_look_at_the_end_is_not_written_twice(void **state)
{
	struct site *s = *state;
	AUTO_STRBUF struct strbuf seen = STRBUF_INIT;
	assert_int_equal(db_write(s->core.db, long_op, s, NULL), ERR_OK);
	record_all(s);
	record_all(s);
	assert_int_equal(db_write(s->core.db, long_op, s, NULL), ERR_OK);
	record_all(s);
	numbers(s, &seen);
	assert_string_equal(strbuf_str(&seen), "1 2 3 ");
}

static void a_torn_end_and_a_bad_line_are_cut_and_written_again(void **state)
{
	struct site *s = *state;
	AUTO_STRBUF struct strbuf seen = STRBUF_INIT;
	record_all(s);
	append(s, "{\"seq\":2,\"at\":");
	record_all(s);
	append(s, "not an event\n");
	assert_int_equal(db_write(s->core.db, long_op, s, NULL), ERR_OK);
	record_all(s);
	numbers(s, &seen);
	assert_string_equal(strbuf_str(&seen), "1 2 ");
}

static void an_end_that_was_committed_and_not_written_is_written_at_the_next_start(void **state)
{
	struct site *s = *state;
	AUTO_STRBUF struct strbuf yaml = STRBUF_LIMIT(LOG_MAX);
	AUTO_FREE char *path = file_join(s->dir, "task.yaml");
	record_all(s);
	assert_int_equal(db_write(s->core.db, end_op, s, NULL), ERR_OK); /* and the server is killed */
	assert_int_equal(taskdir_start(&s->core, NULL), ERR_OK);
	taskdir_stop(&s->core);
	assert_int_equal(file_read(path, LOG_MAX, &yaml, NULL), ERR_OK);
	assert_non_null(strstr(strbuf_str(&yaml), "status: ERROR"));
	assert_true(taskdir_is_whole(s->dir, 1));
	assert_false(taskdir_is_whole(s->dir, clock_wall_ms() + 60000));
}

/* Whoever opens the log to write waits until the lease is given back: the task ends while its record is being written, after its row was read. */
static void an_end_in_the_middle_of_a_look_is_on_record(void **state)
{
	struct site *s = *state;
	AUTO_STRBUF struct strbuf yaml = STRBUF_LIMIT(LOG_MAX);
	AUTO_FREE char *path = file_join(s->dir, "task.yaml");
	AUTO_FREE char *log = file_join(s->dir, "events.jsonl");
	record_all(s);
	AUTO_CLOSE int fd = open(log, O_RDONLY | O_CLOEXEC);
	assert_int_not_equal(signal(SIGIO, SIG_IGN), SIG_ERR);
	assert_int_equal(fcntl(fd, F_SETLEASE, F_RDLCK), 0);
	assert_int_equal(taskdir_start(&s->core, NULL), ERR_OK);
	while (fcntl(fd, F_GETLEASE) == F_RDLCK)
		poll(NULL, 0, 1);
	assert_int_equal(db_write(s->core.db, end_op, s, NULL), ERR_OK);
	assert_int_equal(fcntl(fd, F_SETLEASE, F_UNLCK), 0);
	taskdir_dirty(&s->core, s->id);
	taskdir_stop(&s->core);
	assert_int_equal(file_read(path, LOG_MAX, &yaml, NULL), ERR_OK);
	assert_non_null(strstr(strbuf_str(&yaml), "status: ERROR"));
}

static void the_links_to_the_newest_run_are_made_where_a_kill_left_them_out(void **state)
{
	struct site *s = *state;
	AUTO_FREE char *link = mem_printf("%s/agents/main/state.json", s->dir);
	char target[64] = "";
	record_all(s);
	assert_true(readlink(link, target, sizeof(target) - 1) > 0);
	assert_string_equal(target, "runs/1/state.json");
}

static void a_link_in_place_of_the_diff_is_not_followed(void **state)
{
	struct site *s = *state;
	AUTO_FREE char *secret = file_join(s->core.data, "secret");
	AUTO_FREE char *diff = mem_printf("%s/agents/main/runs/1/task.patch", s->dir);
	AUTO_FREE char *copy = file_join(s->dir, "artifacts/diff.patch");
	assert_int_equal(file_replace(secret, "s", 1, 0600, FILE_NOSYNC, NULL), ERR_OK);
	assert_int_equal(symlink(secret, diff), 0);
	assert_int_equal(db_write(s->core.db, end_op, s, NULL), ERR_OK);
	record_all(s);
	assert_false(file_exists(copy));
	assert_int_equal(unlink(diff), 0);
	assert_int_equal(mkfifo(diff, 0600), 0); /* nor waited for */
	record_all(s);
	assert_false(file_exists(copy));
	assert_int_equal(unlink(diff), 0);
	assert_int_equal(file_replace(diff, "d", 1, 0600, FILE_NOSYNC, NULL), ERR_OK);
	record_all(s);
	assert_true(file_exists(copy));
}

static void a_run_directory_behind_a_link_is_not_opened(void **state)
{
	struct site *s = *state;
	AUTO_FREE char *runs = mem_printf("%s/agents/main/runs", s->dir);
	AUTO_FREE char *moved = file_join(s->core.data, "moved");
	int fd = -1;
	assert_int_equal(launch_open_run_dir(&s->core, s->id, "main", 1, &fd, NULL), ERR_OK);
	close(fd);
	fd = -1;
	assert_int_equal(rename(runs, moved), 0);
	assert_int_equal(symlink(moved, runs), 0);
	assert_int_not_equal(launch_open_run_dir(&s->core, s->id, "main", 1, &fd, NULL), ERR_OK);
	assert_int_equal(fd, -1);
}

static void the_type_of_a_line_is_its_own_and_not_its_datas(void **state)
{
	static const char line[] = "{\"seq\":1,\"at\":\"x\",\"type\":\"tool.started\",\"data\":{\"type\":\"task.done\"}}";
	(void)state;
	assert_true(core_line_is(line, "tool."));
	assert_true(core_line_is(line, "tool.started\""));
	assert_false(core_line_is(line, "tool.start\""));
	assert_false(core_line_is(line, "task.done\""));
	assert_false(core_line_is("{}", "task."));
}

#define ON_SITE(name) cmocka_unit_test_setup_teardown(name, site_make, site_drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_SITE(a_line_longer_than_the_look_at_the_end_is_not_written_twice),
		ON_SITE(a_torn_end_and_a_bad_line_are_cut_and_written_again),
		ON_SITE(an_end_that_was_committed_and_not_written_is_written_at_the_next_start),
		ON_SITE(an_end_in_the_middle_of_a_look_is_on_record),
		ON_SITE(the_links_to_the_newest_run_are_made_where_a_kill_left_them_out),
		ON_SITE(a_link_in_place_of_the_diff_is_not_followed),
		ON_SITE(a_run_directory_behind_a_link_is_not_opened),
		cmocka_unit_test(the_type_of_a_line_is_its_own_and_not_its_datas),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
