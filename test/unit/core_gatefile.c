/* Gates as files: however many settle one, one wins and all see it; no link is followed; the inbox gives each file its fate. */
#include "core/gatefile.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/yaml.h"
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define THREADS 16
#define PROCESSES 4
#define OLD_S 60 /* seconds: nobody is still at it */

struct site {
	char *dir, *elsewhere;
	char gate[ID_SIZE];
};

static int site_make(void **state)
{
	struct site *s = NEW(struct site);
	assert_int_equal(file_tmpdir("/tmp", "gatefile-", &s->dir, NULL), ERR_OK);
	assert_int_equal(file_tmpdir("/tmp", "elsewhere-", &s->elsewhere, NULL), ERR_OK);
	clock_new_id(s->gate);
	*state = s;
	return 0;
}

static int site_drop(void **state)
{
	struct site *s = *state;
	assert_int_equal(file_remove_tree(s->dir, NULL), ERR_OK);
	assert_int_equal(file_remove_tree(s->elsewhere, NULL), ERR_OK);
	free(s->dir);
	free(s->elsewhere);
	free(s);
	return 0;
}

static void dirs(const struct site *s)
{
	assert_int_equal(gatefile_dirs(s->dir, (uid_t)-1, 0, NULL), ERR_OK);
}

static void put(const struct site *s, const char *rel, const char *text, int age_s)
{
	AUTO_FREE char *path = file_join(s->dir, rel);
	struct timespec at[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = clock_wall_ms() / 1000 - age_s } };
	assert_int_equal(file_replace(path, text, strlen(text), 0644, FILE_NOSYNC, NULL), ERR_OK);
	assert_int_equal(utimensat(AT_FDCWD, path, at, 0), 0);
}

static bool is_there(const struct site *s, const char *rel)
{
	AUTO_FREE char *path = file_join(s->dir, rel);
	struct stat st;
	return lstat(path, &st) == 0;
}

static void link_to(const struct site *s, const char *target, const char *rel)
{
	AUTO_FREE char *path = file_join(s->dir, rel);
	assert_int_equal(symlink(target, path), 0);
}

/* ---- settling */

struct settler {
	const struct site *site;
	int number;
	pthread_barrier_t *start;
	enum err_code rc;
	bool won;
	int64_t seen; /* whose decision it was told */
};

static void settle(struct settler *w)
{
	AUTO_JS struct js *decision = js_object();
	struct js *winner = NULL;
	js_set_str(decision, "decision", "approve");
	js_set_int(decision, "by", w->number);
	w->rc = gatefile_settle(w->site->dir, w->site->gate, decision, &winner, &w->won, NULL);
	w->seen = js_i64(winner, "by", -1);
	js_free(winner);
}

static void *settle_thread(void *arg)
{
	struct settler *w = arg;
	pthread_barrier_wait(w->start);
	settle(w);
	return NULL;
}

/* In a child: the byte on its pipe is the winner it saw, | 0x80 when it won itself. */
static void settle_process(const struct site *s, int number, int start, int out)
{
	struct settler w = { .site = s, .number = number };
	char byte;
	(void)!read(start, &byte, 1);
	settle(&w);
	byte = w.rc ? 0x7f : (char)(w.seen | (w.won ? 0x80 : 0));
	(void)!write(out, &byte, 1);
	_exit(0);
}

static size_t files_in_gates(const struct site *s)
{
	AUTO_FREE char *command = mem_printf("test $(ls -A %s/gates | wc -l) = 1", s->dir);
	return system(command) == 0 ? 1 : 2;
}

static void of_many_threads_and_processes_one_wins_and_all_see_it(void **state)
{
	const struct site *s = *state;
	struct settler workers[THREADS];
	pthread_t threads[THREADS];
	pthread_barrier_t start;
	int go[2], said[2], won = 0;
	unsigned char bytes[PROCESSES];
	dirs(s);
	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(said), 0);
	pthread_barrier_init(&start, NULL, THREADS + 1);
	for (int i = 0; i < PROCESSES; i++)
		if (fork() == 0) {
			close(go[1]);
			settle_process(s, THREADS + i, go[0], said[1]);
		}
	for (int i = 0; i < THREADS; i++) {
		workers[i] = (struct settler){ .site = s, .number = i, .start = &start };
		assert_int_equal(pthread_create(&threads[i], NULL, settle_thread, &workers[i]), 0);
	}
	close(go[1]); /* EOF starts the processes, the barrier the threads */
	pthread_barrier_wait(&start);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < PROCESSES; i++) {
		assert_int_equal(read(said[0], &bytes[i], 1), 1);
		assert_true(wait(NULL) > 0);
	}
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(workers[i].rc, ERR_OK);
		assert_int_equal(workers[i].seen, workers[0].seen);
		won += workers[i].won;
	}
	for (int i = 0; i < PROCESSES; i++) {
		assert_int_equal(bytes[i] & 0x7f, workers[0].seen);
		won += bytes[i] >> 7;
	}
	assert_int_equal(won, 1);
	assert_int_equal(files_in_gates(s), 1); /* no candidate is left */
	pthread_barrier_destroy(&start);
	close(go[0]);
	close(said[0]);
	close(said[1]);
}

static void a_torn_candidate_of_a_dead_process_changes_nothing(void **state)
{
	const struct site *s = *state;
	struct js *winner = NULL;
	bool won = false;
	AUTO_JS struct js *decision = js_object();
	AUTO_FREE char *candidate = mem_printf("gates/.%s.%s", s->gate, s->gate);
	dirs(s);
	put(s, candidate, "{\"decision\":\"rej", OLD_S);
	assert_int_equal(gatefile_decision(s->dir, s->gate, &winner, NULL), ERR_NOT_FOUND);
	js_set_str(decision, "decision", "approve");
	assert_int_equal(gatefile_settle(s->dir, s->gate, decision, &winner, &won, NULL), ERR_OK);
	assert_true(won);
	js_free(winner);
	winner = NULL;
	assert_int_equal(gatefile_decision(s->dir, s->gate, &winner, NULL), ERR_OK);
	assert_string_equal(js_str(winner, "decision"), "approve");
	js_free(winner);
}

static void what_is_settled_stays_though_another_comes(void **state)
{
	struct site *s = *state;
	struct settler first = { .site = s, .number = 1 }, second = { .site = s, .number = 2 };
	dirs(s);
	settle(&first);
	settle(&second);
	assert_true(first.won);
	assert_false(second.won);
	assert_int_equal(second.seen, 1);
	clock_new_id(s->gate); /* another gate */
	settle(&second);
	assert_true(second.won);
}

/* ---- links */

static void directories_that_are_links_are_not_followed(void **state)
{
	static const char *const names[] = { "gates", "inbox" };
	const struct site *s = *state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		AUTO_FREE char *path = file_join(s->dir, names[i]);
		link_to(s, s->elsewhere, names[i]);
		assert_int_not_equal(gatefile_dirs(s->dir, (uid_t)-1, 0, NULL), ERR_OK);
		assert_int_equal(unlink(path), 0);
	}
	assert_int_equal(rmdir(s->elsewhere), 0); /* nothing was put into it */
	assert_int_equal(mkdir(s->elsewhere, 0755), 0);
	struct settler w = { .site = s };
	AUTO_JS struct js *gate = js_object();
	AUTO_FREE char *gates = file_join(s->dir, "gates");
	dirs(s);
	assert_int_equal(rmdir(gates), 0);
	link_to(s, s->elsewhere, "gates");
	settle(&w);
	assert_int_not_equal(w.rc, ERR_OK);
	js_set_str(gate, "id", s->gate);
	assert_int_not_equal(gatefile_write(s->dir, gate, NULL), ERR_OK);
	assert_int_equal(rmdir(s->elsewhere), 0);
	assert_int_equal(mkdir(s->elsewhere, 0755), 0);
}

static void a_decision_that_is_a_link_is_not_read(void **state)
{
	const struct site *s = *state;
	struct settler w = { .site = s, .number = 1 };
	struct js *winner = NULL;
	AUTO_FREE char *target = file_join(s->elsewhere, "decision");
	AUTO_FREE char *name = mem_printf("gates/%s.decision", s->gate);
	dirs(s);
	assert_int_equal(file_replace(target, "{\"by\":9}", 8, 0644, FILE_NOSYNC, NULL), ERR_OK);
	link_to(s, target, name);
	settle(&w);
	assert_int_not_equal(w.rc, ERR_OK);
	assert_false(w.won);
	assert_int_not_equal(gatefile_decision(s->dir, s->gate, &winner, NULL), ERR_OK);
	assert_null(winner);
}

/* ---- the inbox */

struct seen {
	const char *wanted;
	enum inbox_fate fate;
	int files, problems, fresh;
	char text[64];
};

static enum inbox_fate note(void *ctx, const struct inbox_file *file)
{
	struct seen *n = ctx;
	n->files++;
	n->problems += file->problem != NULL;
	n->fresh += file->fresh;
	assert_true(!file->text == !!file->problem);
	if (file->text)
		snprintf(n->text, sizeof(n->text), "%s", file->text);
	return !n->wanted || str_eq(n->wanted, file->name) ? n->fate : INBOX_LEAVE;
}

static struct seen look(const struct site *s, const char *wanted, enum inbox_fate fate)
{
	struct seen n = { .wanted = wanted, .fate = fate };
	gatefile_inbox(s->dir, note, &n);
	return n;
}

static void each_file_gets_its_fate(void **state)
{
	static const struct { enum inbox_fate fate; bool stays; const char *done; } fates[] = {
		{ INBOX_LEAVE, true, NULL }, { INBOX_DONE, false, "inbox/done/a.yaml" }, { INBOX_REFUSED, false, "inbox/done/a.yaml.refused" }, { INBOX_REMOVE, false, NULL },
	};
	const struct site *s = *state;
	dirs(s);
	for (size_t i = 0; i < ARRAY_SIZE(fates); i++) {
		put(s, "inbox/a.yaml", "x: 1\n", OLD_S);
		struct seen n = look(s, "a.yaml", fates[i].fate);
		assert_int_equal(n.files, 1);
		assert_string_equal(n.text, "x: 1\n");
		assert_int_equal(is_there(s, "inbox/a.yaml"), fates[i].stays);
		assert_true(!fates[i].done || is_there(s, fates[i].done));
	}
	assert_int_equal(look(s, NULL, INBOX_LEAVE).files, 0);
}

/* Whoever has the runs' identity may put a link there, and the server that looks may be root. */
static void nothing_is_moved_through_a_link(void **state)
{
	const struct site *s = *state;
	AUTO_FREE char *done = file_join(s->dir, "inbox/done");
	dirs(s);
	assert_int_equal(rmdir(done), 0);
	link_to(s, s->elsewhere, "inbox/done");
	for (enum inbox_fate fate = INBOX_DONE; fate <= INBOX_REFUSED; fate++) {
		put(s, "inbox/a.yaml", "x", OLD_S);
		look(s, NULL, fate);
		assert_false(is_there(s, "inbox/a.yaml")); /* nor is it taken again and again */
	}
	assert_int_equal(rmdir(s->elsewhere), 0);
	assert_int_equal(mkdir(s->elsewhere, 0755), 0);
}

static void a_name_that_leaves_no_room_for_a_suffix_goes_too(void **state)
{
	const struct site *s = *state;
	char name[256];
	dirs(s);
	memset(name, 'n', 255);
	name[255] = 0;
	AUTO_FREE char *rel = file_join("inbox", name);
	AUTO_FREE char *path = file_join(s->dir, rel);
	int fd = open(path, O_WRONLY | O_CREAT, 0644);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(look(s, NULL, INBOX_REFUSED).files, 1);
	assert_int_equal(look(s, NULL, INBOX_REFUSED).files, 0);
}

static void a_decision_that_there_is_not_is_none(void **state)
{
	static const char *const texts[] = { "{\"decision\":\"approved\"}", "{}", "[]", "\"approve\"", "{\"decision\":7}" };
	const struct site *s = *state;
	AUTO_FREE char *name = mem_printf("gates/%s.decision", s->gate);
	dirs(s);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct js *winner = NULL;
		struct settler w = { .site = s, .number = 1 };
		put(s, name, texts[i], OLD_S);
		assert_int_equal(gatefile_decision(s->dir, s->gate, &winner, NULL), ERR_INVALID);
		assert_null(winner);
		settle(&w);
		assert_int_equal(w.rc, ERR_INVALID);
	}
}

static void what_editors_leave_is_passed_over_however_much_it_is(void **state)
{
	const struct site *s = *state;
	dirs(s);
	for (int i = 0; i < GATEFILE_INBOX_MAX * 2; i++) {
		AUTO_FREE char *name = mem_printf(i % 2 ? "inbox/.a%d.swp" : "inbox/a%d~", i);
		put(s, name, "", OLD_S);
	}
	put(s, "inbox/a.yaml", "x", OLD_S);
	assert_int_equal(look(s, NULL, INBOX_LEAVE).files, 1);
}

static void in_one_scan_so_many_are_looked_at_and_no_more(void **state)
{
	const struct site *s = *state;
	int taken = 0;
	dirs(s);
	for (int i = 0; i < GATEFILE_INBOX_MAX + 5; i++) {
		AUTO_FREE char *name = mem_printf("inbox/a%d.yaml", i);
		put(s, name, "x", OLD_S);
	}
	assert_int_equal(look(s, NULL, INBOX_LEAVE).files, GATEFILE_INBOX_MAX);
	for (int scans = 0; scans < 2; scans++)
		taken += look(s, NULL, INBOX_DONE).files;
	assert_int_equal(taken, GATEFILE_INBOX_MAX + 5);
}

static void links_pipes_and_giants_are_problems_not_read(void **state)
{
	const struct site *s = *state;
	AUTO_FREE char *target = file_join(s->elsewhere, "secret");
	AUTO_FREE char *pipe_path = file_join(s->dir, "inbox/pipe.yaml");
	AUTO_FREE char *giant = mem_alloc(GATEFILE_MAX + 2);
	dirs(s);
	assert_int_equal(file_replace(target, "secret", 6, 0644, FILE_NOSYNC, NULL), ERR_OK);
	link_to(s, target, "inbox/link.yaml");
	assert_int_equal(mkfifo(pipe_path, 0644), 0);
	memset(giant, 'x', GATEFILE_MAX + 1);
	put(s, "inbox/giant.yaml", giant, OLD_S);
	struct seen n = look(s, NULL, INBOX_REFUSED);
	assert_int_equal(n.files, 3);
	assert_int_equal(n.problems, 3);
	assert_true(is_there(s, "inbox/done/link.yaml.refused") && is_there(s, "inbox/done/pipe.yaml.refused"));
	assert_true(file_exists(target));
}

static int64_t stopped_clock(void)
{
	return INT64_C(1795169472123);
}

static void fresh_is_what_was_written_just_now_not_in_some_future(void **state)
{
	static const struct { int age_s, fresh; } cases[] = { { 0, 1 }, { OLD_S, 0 }, { -OLD_S, 0 } };
	const struct site *s = *state;
	clock_test_set(stopped_clock, NULL); /* however long it takes us to look */
	dirs(s);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		put(s, "inbox/a.yaml", "x", cases[i].age_s);
		assert_int_equal(look(s, NULL, INBOX_LEAVE).fresh, cases[i].fresh);
	}
	clock_test_set(NULL, NULL);
}

static void names_of_gates_are_ids(void **state)
{
	const struct site *s = *state;
	static const char *const no[] = { "message.md", "x.yaml", "..yaml", ".yaml", "yaml", "../../../../../../../../../etc/passwd.yaml" };
	char id[ID_SIZE + 8];
	AUTO_FREE char *yaml = mem_printf("%s.yaml", s->gate);
	AUTO_FREE char *yml = mem_printf("%s.yml", s->gate);
	AUTO_FREE char *other = mem_printf("%s.json", s->gate);
	AUTO_FREE char *longer = mem_printf("%sx.yaml", s->gate);
	assert_true(gatefile_inbox_gate(yaml, id, sizeof(id)));
	assert_string_equal(id, s->gate);
	assert_true(gatefile_inbox_gate(yml, id, sizeof(id)));
	assert_false(gatefile_inbox_gate(other, id, sizeof(id)));
	assert_false(gatefile_inbox_gate(longer, id, sizeof(id)));
	for (size_t i = 0; i < ARRAY_SIZE(no); i++)
		assert_false(gatefile_inbox_gate(no[i], id, sizeof(id)));
}

static void a_form_filled_in_becomes_a_decision(void **state)
{
	static const struct { const char *text, *body; } cases[] = {
		{ "decision: approve\n", "{\"decision\":\"approve\"}" },
		{ "decision: approve\nscope: session\nnote: \"\"\n", "{\"decision\":\"approve\",\"scope\":\"session\"}" },
		{ "decision: answer\nanswer:\n  q1: \"blue\"\n", "{\"decision\":\"answer\",\"answer\":{\"q1\":\"blue\"}}" },
		{ "id: x\nkind: command\ndata:\n  command: ls\ndecision: reject\nnote: no\n", "{\"decision\":\"reject\",\"note\":\"no\"}" },
		{ "decision: approve\nscope:\nanswer: ~\n", "{\"decision\":\"approve\"}" },
		{ "{\"decision\": \"abort\"}", "{\"decision\":\"abort\"}" },
	};
	static const char *const bad[] = { "", "approve", "decision:\n", "decision: [approve]\n", "a: b: c", "\t", "- decision: approve\n", "\xff\xfe" };
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_JS struct js *body = NULL;
		assert_int_equal(gatefile_parse(cases[i].text, strlen(cases[i].text), &body, NULL), ERR_OK);
		AUTO_FREE char *dump = js_dump(body);
		assert_string_equal(dump, cases[i].body);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		AUTO_JS struct js *body = NULL;
		struct error e = ERROR_INIT;
		assert_int_not_equal(gatefile_parse(bad[i], strlen(bad[i]), &body, &e), ERR_OK);
		assert_true(e.text[0] && !body);
	}
}

/* The form in the gate's own file, with the marks taken away, is what the inbox takes. */
static void the_form_of_a_gate_can_be_copied(void **state)
{
	static const char data[] = "{\"title\":\"Which?\",\"choices\":[\"answer\",\"reject\"],\"questions\":[{\"id\":\"q1\",\"text\":\"Which?\"}]}";
	const struct site *s = *state;
	AUTO_JS struct js *gate = js_object();
	AUTO_FREE char *rel = mem_printf("gates/%s.yaml", s->gate);
	AUTO_FREE char *path = file_join(s->dir, rel);
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	dirs(s);
	js_set_str(gate, "id", s->gate);
	js_set_str(gate, "kind", "question");
	js_set(gate, "data", js_parse(data, strlen(data), NULL));
	assert_int_equal(gatefile_write(s->dir, gate, NULL), ERR_OK);
	assert_int_equal(file_read(path, GATEFILE_MAX, &text, NULL), ERR_OK);
	AUTO_JS struct js *read = yaml_parse(strbuf_str(&text), text.len, NULL);
	assert_string_equal(js_str(js_get(read, "data"), "title"), "Which?");
	assert_non_null(strstr(strbuf_str(&text), "\n# decision: reject\n"));
	assert_non_null(strstr(strbuf_str(&text), "\n# decision: answer\n# answer:\n#   q1: \"...\"\n"));
}

int main(void)
{
#define ON_SITE(test) cmocka_unit_test_setup_teardown(test, site_make, site_drop)
	const struct CMUnitTest tests[] = {
		ON_SITE(of_many_threads_and_processes_one_wins_and_all_see_it),
		ON_SITE(a_torn_candidate_of_a_dead_process_changes_nothing),
		ON_SITE(what_is_settled_stays_though_another_comes),
		ON_SITE(directories_that_are_links_are_not_followed),
		ON_SITE(a_decision_that_is_a_link_is_not_read),
		ON_SITE(each_file_gets_its_fate),
		ON_SITE(a_decision_that_there_is_not_is_none),
		ON_SITE(nothing_is_moved_through_a_link),
		ON_SITE(a_name_that_leaves_no_room_for_a_suffix_goes_too),
		ON_SITE(what_editors_leave_is_passed_over_however_much_it_is),
		ON_SITE(in_one_scan_so_many_are_looked_at_and_no_more),
		ON_SITE(links_pipes_and_giants_are_problems_not_read),
		ON_SITE(fresh_is_what_was_written_just_now_not_in_some_future),
		ON_SITE(names_of_gates_are_ids),
		cmocka_unit_test(a_form_filled_in_becomes_a_decision),
		ON_SITE(the_form_of_a_gate_can_be_copied),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
