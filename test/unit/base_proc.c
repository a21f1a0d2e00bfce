/* Children: what they inherit, which step failed, limits that hold, and who a process is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define LONG_MS 120000

static struct error e;

static enum err_code run(const char *script, struct proc_spec spec, const char *in, struct strbuf *out, struct strbuf *err, int *ret)
{
	const char *const argv[] = { "sh", "-c", script, NULL };

	spec.argv = argv;
	error_clear(&e);
	return proc_run(&spec, in, in ? strlen(in) : 0, LONG_MS, out, err, ret, &e);
}

static void assert_prints(const char *script, struct proc_spec spec, const char *in, const char *expected)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	int status = -1;

	if (run(script, spec, in, &out, NULL, &status) != ERR_OK)
		fail_msg("%s", e.text);
	assert_string_equal(strbuf_str(&out), expected);
	assert_int_equal(status, 0);
}

static const struct proc_spec plain = PROC_SPEC_INIT;

static void output_input_and_status_are_carried(void **state)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT, err = STRBUF_INIT;
	int status;

	(void)state;
	assert_int_equal(run("cat; echo problem >&2; exit 3", plain, "hello", &out, &err, &status), ERR_OK);
	assert_string_equal(strbuf_str(&out), "hello");
	assert_string_equal(strbuf_str(&err), "problem\n");
	assert_int_equal(status, 3);
	assert_prints("cat", plain, NULL, "");
	assert_prints("cat /dev/stdin", plain, "x", "x");
}

static void a_death_by_signal_is_128_and_the_signal(void **state)
{
	int status;

	(void)state;
	assert_int_equal(run("kill -TERM $$", plain, NULL, NULL, NULL, &status), ERR_OK);
	assert_int_equal(status, 128 + SIGTERM);
}

static void much_in_both_directions_does_not_deadlock(void **state)
{
	AUTO_FREE char *text = mem_alloc(2000001);
	AUTO_STRBUF struct strbuf out = STRBUF_INIT, err = STRBUF_INIT;
	int status;

	(void)state;
	memset(text, 'x', 2000000);
	assert_int_equal(run("tee /dev/stderr", plain, text, &out, &err, &status), ERR_OK);
	assert_int_equal(out.len, 2000000);
	assert_int_equal(err.len, 2000000);
	assert_int_equal(run("exit 0", plain, text, NULL, NULL, &status), ERR_OK);
}

static void both_streams_may_go_to_one_buffer(void **state)
{
	AUTO_STRBUF struct strbuf both = STRBUF_INIT;
	int status;

	(void)state;
	assert_int_equal(run("echo a; echo b >&2", plain, NULL, &both, &both, &status), ERR_OK);
	assert_int_equal(both.len, 4);
}

static void too_much_output_ends_the_run(void **state)
{
	AUTO_STRBUF struct strbuf out = STRBUF_LIMIT(1000);
	int status = 77;

	(void)state;
	assert_int_equal(run("while :; do echo xxxxxxxxxxxxxxxxxxxx; done", plain, NULL, &out, NULL, &status), ERR_LIMIT);
	assert_string_equal(e.text, "'sh' wrote more than 1000 bytes");
	assert_int_equal(status, 77);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

/* Both hold the pipe's other end: its end of file is the proof that both are gone. */
static void a_timeout_kills_the_whole_session(void **state)
{
	static const char *const argv[] = { "sh", "-c", "sleep 1000 & sleep 1000", NULL };
	struct proc_spec spec = PROC_SPEC_INIT;
	int status, ends[2];
	char c;

	(void)state;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	spec.argv = argv;
	spec.new_session = true;
	spec.fds[0].from = ends[1];
	spec.fds[0].to = 3;
	spec.fd_count = 1;
	assert_int_equal(proc_run(&spec, NULL, 0, 100, NULL, NULL, &status, &e), ERR_TIMEOUT);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	close(ends[1]);
	struct pollfd fd = { .fd = ends[0], .events = POLLIN };
	assert_int_equal(poll(&fd, 1, LONG_MS), 1);
	assert_int_equal(read(ends[0], &c, 1), 0);
	close(ends[0]);
}

static void what_is_left_running_does_not_hold_us_up(void **state)
{
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	int status;

	(void)state;
	assert_int_equal(run("sleep 1000 & echo $!", plain, NULL, &out, NULL, &status), ERR_OK);
	pid_t left = (pid_t)atoi(strbuf_str(&out));
	assert_true(left > 0);
	kill(left, SIGKILL);
}

static void the_failed_step_is_told_in_words(void **state)
{
	static const char *const none[] = { "no-such-program-here", NULL }, *const path[] = { "/no/such", NULL }, *const self[] = { "/dev/null", NULL },
			  *const sh[] = { "sh", "-c", "exit 0", NULL };
	struct proc_spec spec = PROC_SPEC_INIT;
	struct proc p = PROC_INIT;

	(void)state;
	spec.argv = none;
	assert_int_equal(proc_start(&spec, &p, &e), ERR_NOT_FOUND);
	assert_string_equal(e.text, "start 'no-such-program-here': not found in PATH");
	spec.argv = path;
	assert_int_equal(proc_start(&spec, &p, &e), ERR_NOT_FOUND);
	assert_string_equal(e.text, "start '/no/such': execute '/no/such': No such file or directory");
	spec.argv = self;
	assert_int_equal(proc_start(&spec, &p, &e), ERR_DENIED);
	spec.argv = sh;
	spec.cwd = "/no/such";
	assert_int_equal(proc_start(&spec, &p, &e), ERR_NOT_FOUND);
	assert_string_equal(e.text, "start 'sh': change the directory to '/no/such': No such file or directory");
	spec.cwd = NULL;
	spec.stdin_fd = 999;
	assert_int_equal(proc_start(&spec, &p, &e), ERR_IO);
	assert_string_equal(e.text, "start 'sh': pass on a file descriptor: Bad file descriptor");
	assert_int_equal(p.pidfd, -1);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void directory_and_environment_are_as_asked(void **state)
{
	static const char *const env[] = { "A=1", "PATH=/nowhere", NULL };
	struct proc_spec spec = PROC_SPEC_INIT;

	(void)state;
	spec.cwd = "/usr";
	assert_prints("pwd", spec, NULL, "/usr\n");
	spec.env = env;
	assert_prints("echo $A $HOME $PATH", spec, NULL, "1 /nowhere\n");
}

static void only_the_descriptors_asked_for_are_passed(void **state)
{
	int leak = open("/dev/null", O_RDONLY), pass[2], other[2]; /* on purpose without CLOEXEC */
	struct proc_spec spec = PROC_SPEC_INIT;

	(void)state;
	assert_int_equal(pipe(pass), 0);
	assert_int_equal(pipe(other), 0);
	assert_int_equal(write(pass[1], "first\n", 6), 6);
	assert_int_equal(write(other[1], "second\n", 7), 7);
	/* Crossed on purpose: each source is the other's target. */
	spec.fds[0].from = pass[0];
	spec.fds[0].to = other[0];
	spec.fds[1].from = other[0];
	spec.fds[1].to = pass[0];
	spec.fd_count = 2;
	AUTO_FREE char *script = mem_printf("read a <&%d; read b <&%d; echo $a $b; [ -e /proc/self/fd/%d ] || echo closed", pass[0], other[0], leak);
	assert_prints(script, spec, NULL, "second first\nclosed\n");
	for (int i = 0; i < 2; i++) {
		close(pass[i]);
		close(other[i]);
	}
	close(leak);
}

static void signals_and_session_are_fresh(void **state)
{
	struct proc_spec spec = PROC_SPEC_INIT;
	sigset_t set, old;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	spec.new_session = true;
	assert_prints("grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\\t'; set -- $(cat /proc/$$/stat); [ $6 = $$ ] && echo own", spec, NULL,
		      "SigBlk:0000000000000000\nSigIgn:0000000000000000\nown\n");
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	signal(SIGPIPE, SIG_DFL);
}

static void another_user_has_no_groups_left(void **state)
{
	struct proc_spec spec = PROC_SPEC_INIT;

	(void)state;
	if (getuid() != 0)
		skip();
	spec.set_ids = true;
	spec.uid = 4321;
	spec.gid = 4322;
	spec.die_with_parent = true;
	assert_prints("grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -d '\\t '", spec, NULL, "Uid:4321432143214321\nGid:4322432243224322\nGroups:\n");
	assert_int_equal(getuid(), 0);
}

static void waiting_has_an_end_and_a_signal_arrives(void **state)
{
	static const char *const argv[] = { "sleep", "1000", NULL };
	struct proc_spec spec = PROC_SPEC_INIT;
	struct proc p = PROC_INIT;
	struct proc_id id, other;
	int status = 0;

	(void)state;
	spec.argv = argv;
	assert_int_equal(proc_start(&spec, &p, &e), ERR_OK);
	assert_int_equal(proc_wait(&p, 0, &status, &e), ERR_TIMEOUT);
	assert_int_equal(proc_identify(p.pid, &id, &e), ERR_OK);
	assert_true(proc_is_alive(&id));
	other = id;
	other.start_ticks++;
	assert_false(proc_is_alive(&other));
	assert_int_equal(proc_open(&other), -1);
	other = id;
	other.boot[0] = 'x';
	assert_false(proc_is_alive(&other));
	AUTO_CLOSE int fd = proc_open(&id);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	proc_signal(&p, SIGKILL);
	assert_int_equal(proc_wait(&p, LONG_MS, &status, &e), ERR_OK);
	assert_int_equal(status, 128 + SIGKILL);
	assert_false(proc_is_alive(&id));
	assert_int_equal(proc_open(&id), -1);
	assert_int_equal(proc_wait(&p, 0, &status, &e), ERR_INTERNAL);
	proc_signal(&p, SIGKILL);
	proc_release(&p);
}

static void a_zombie_is_not_alive(void **state)
{
	static const char *const argv[] = { "true", NULL };
	struct proc_spec spec = PROC_SPEC_INIT;
	struct proc p = PROC_INIT;
	struct proc_id id;
	siginfo_t info;
	int status;

	(void)state;
	spec.argv = argv;
	assert_int_equal(proc_start(&spec, &p, &e), ERR_OK);
	assert_int_equal(proc_identify(p.pid, &id, &e), ERR_OK);
	assert_int_equal(waitid(P_PID, (id_t)p.pid, &info, WEXITED | WNOWAIT), 0);
	assert_false(proc_is_alive(&id));
	assert_int_equal(proc_wait(&p, LONG_MS, &status, &e), ERR_OK);
	assert_int_equal(status, 0);
}

static void *run_many(void *failures)
{
	static const char *const argv[] = { "sh", "-c", "cat", NULL };
	struct proc_spec spec = PROC_SPEC_INIT;

	spec.argv = argv;
	for (int i = 0; i < 20; i++) {
		AUTO_STRBUF struct strbuf out = STRBUF_INIT;
		int status = -1;
		if (proc_run(&spec, "text", 4, LONG_MS, &out, NULL, &status, NULL) != ERR_OK || status || strcmp(strbuf_str(&out), "text"))
			++*(int *)failures;
	}
	return NULL;
}

static void threads_may_start_children_at_once(void **state)
{
	pthread_t threads[4];
	int failures[4] = { 0 };

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_many, &failures[i]), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(failures[i], 0);
	}
}

static void this_executable_knows_itself_and_its_neighbours(void **state)
{
	AUTO_FREE char *self = proc_self_path();
	AUTO_FREE char *helper = proc_helper_path(strrchr(self, '/') + 1);
	AUTO_FREE char *none = proc_helper_path("no-such-helper");
	struct proc_id id;

	(void)state;
	assert_true(file_is_executable(self));
	assert_string_equal(helper, self);
	assert_null(none);
	assert_int_equal(proc_identify(getpid(), &id, &e), ERR_OK);
	assert_true(proc_is_alive(&id));
	assert_int_equal(proc_identify(-5, &id, &e), ERR_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output_input_and_status_are_carried),
		cmocka_unit_test(a_death_by_signal_is_128_and_the_signal),
		cmocka_unit_test(much_in_both_directions_does_not_deadlock),
		cmocka_unit_test(both_streams_may_go_to_one_buffer),
		cmocka_unit_test(too_much_output_ends_the_run),
		cmocka_unit_test(a_timeout_kills_the_whole_session),
		cmocka_unit_test(what_is_left_running_does_not_hold_us_up),
		cmocka_unit_test(the_failed_step_is_told_in_words),
		cmocka_unit_test(directory_and_environment_are_as_asked),
		cmocka_unit_test(only_the_descriptors_asked_for_are_passed),
		cmocka_unit_test(signals_and_session_are_fresh),
		cmocka_unit_test(another_user_has_no_groups_left),
		cmocka_unit_test(waiting_has_an_end_and_a_signal_arrives),
		cmocka_unit_test(a_zombie_is_not_alive),
		cmocka_unit_test(threads_may_start_children_at_once),
		cmocka_unit_test(this_executable_knows_itself_and_its_neighbours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
