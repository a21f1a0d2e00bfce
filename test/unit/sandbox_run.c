/* Real sandboxes, by both roads: as root (the stage becomes the agent's uid), and as an ordinary user. */
#include "sandbox_site.h"
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static void changes_land_in_the_upper_layer_and_nowhere_else(void **state)
{
	struct site *s = *state;
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	AUTO_FREE char *out = site_run_ok(s, "cat old && echo new > fresh && rm old && pwd");
	AUTO_FREE char *fresh = file_join(s->upper, "fresh");
	AUTO_FREE char *old = file_join(s->lower, "old");
	AUTO_FREE char *gone = file_join(s->upper, "old");
	struct stat st;

	assert_string_equal(out, "old text\n/workspace\n");
	assert_int_equal(file_read(fresh, 100, &text, NULL), ERR_OK);
	assert_string_equal(strbuf_str(&text), "new\n");
	assert_true(file_exists(old));
	assert_int_equal(lstat(gone, &st), 0);
	assert_true(S_ISCHR(st.st_mode));
	assert_int_equal(stat(fresh, &st), 0);
	assert_int_equal(st.st_uid, s->uid);
}

static void a_plain_workspace_is_used_as_it_is(void **state)
{
	struct site *s = *state;
	s->plan.layers = (struct sandbox_layers){ .mode = LAYERS_PLAIN, .upper = s->upper };
	AUTO_FREE char *out = site_run_ok(s, "echo x > made; ls");

	assert_string_equal(out, "made\n");
}

static void the_agent_is_uid_1000_with_no_rights_and_only_its_own_environment(void **state)
{
	struct site *s = *state;
	AUTO_FREE char *out = site_run_ok(s, "id -u; id -g; id -G; id -un; env | sort; grep -c . /proc/self/uid_map; sed -n 's/^CapBnd:\\t//p' /proc/self/status");

	assert_string_equal(out, "1000\n1000\n1000\nagent\nHOME=/home/agent\nPATH=/usr/local/bin:/usr/bin:/bin\nPWD=/workspace\nSECRET=s3cr3t\n1\n0000000000000000\n");
}

static void the_agent_gets_three_descriptors_and_no_more(void **state)
{
	struct site *s = *state;
	AUTO_CLOSE int leaky = open("/etc", O_RDONLY | O_DIRECTORY); /* deliberately without O_CLOEXEC */
	AUTO_FREE char *out = site_run_ok(s, "cd /proc/$$/fd && for f in *; do [ $f -gt 2 ] && [ -d $f/. ] && echo leak $f; done; exit 0");

	assert_true(leaky >= 0);
	assert_string_equal(out, "");
}

static void no_host_path_shows_on_the_first_process(void **state)
{
	struct site *s = *state;
	AUTO_FREE char *out = site_run_ok(s, "tr '\\0' ' ' < /proc/1/cmdline; cat /proc/1/comm; grep ' /workspace ' /proc/self/mountinfo");

	assert_null(strstr(out, s->dir));
	assert_null(strstr(out, "s3cr3t"));
	assert_true(str_starts(out, "/run/signalbox/init -- /bin/sh -c"));
}

static void the_status_is_the_agents_exit_code_or_its_signal(void **state)
{
	static const struct { const char *script; int status; } cases[] = { { "exit 0", 0 }, { "exit 42", 42 }, { "exit 125", 125 }, { "kill -9 $$", 137 }, { "kill -TERM $$", 143 } };
	struct site *s = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int status = -1;
		AUTO_FREE UNUSED char *out = site_run(s, cases[i].script, &status);
		assert_int_equal(status, cases[i].status);
	}
}

static void expect_failure(struct site *s, enum err_code code, const char *words)
{
	struct sandbox b = SANDBOX_INIT_VALUE;
	struct error e = ERROR_INIT;
	int status = -1;
	enum err_code rc = sandbox_start(&s->plan, &b, &e);

	if (rc == ERR_OK) {
		wait_readable(b.pidfd);
		rc = sandbox_finish(&b, &status, &e);
	}
	assert_int_equal(rc, code);
	if (!strstr(e.text, words))
		fail_msg("'%s' does not say '%s'", e.text, words);
}

static void an_agent_that_cannot_be_executed_is_an_error_that_names_it(void **state)
{
	struct site *s = *state;

	s->argv[0] = "/usr/bin/no-such-agent";
	expect_failure(s, ERR_FAILED, "exec: /usr/bin/no-such-agent: No such file or directory");
}

static void a_missing_source_of_a_bind_is_an_error_in_bwraps_words(void **state)
{
	struct site *s = *state;

	site_shell(s, "true");
	s->plan.binds[s->plan.bind_count++] = (struct sandbox_bind){ "/no/such/directory", "/opt/x", false };
	expect_failure(s, ERR_FAILED, "/no/such/directory");
}

static void a_missing_layer_is_an_error_that_names_it(void **state)
{
	struct site *s = *state;

	site_shell(s, "true");
	s->plan.layers.lower[0] = "/no/such/layer";
	expect_failure(s, ERR_NOT_FOUND, "/no/such/layer");
}

static void the_error_pipe_ends_when_the_agent_runs(void **state)
{
	struct site *s = *state;
	struct sandbox b = SANDBOX_INIT_VALUE;
	char c;

	site_shell(s, "exec sleep 1000");
	site_start(s, &b);
	wait_readable(b.error_fd);
	assert_int_equal(read(b.error_fd, &c, 1), 0);
	sandbox_kill(&b);
	assert_int_equal(site_finish(&b), 137);
}

/* The script says when it is ready; then what is done must end it. */
static void start_and_wait_for_word(struct site *s, const char *script, struct sandbox *b, int *ret_out)
{
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	site_shell(s, script);
	s->plan.stdout_fd = fds[1];
	site_start(s, b);
	close(fds[1]);
	wait_readable(fds[0]);
	*ret_out = fds[0];
}

static void a_signal_reaches_the_agents_whole_group(void **state)
{
	struct site *s = *state;
	struct sandbox b = SANDBOX_INIT_VALUE;
	AUTO_CLOSE int out = -1;

	start_and_wait_for_word(s, "trap 'exit 7' TERM; sleep 1000 & echo ready; wait", &b, &out);
	sandbox_signal(&b, SIGTERM);
	assert_int_equal(site_finish(&b), 7);
}

static const char *const stubborn = "trap '' TERM INT HUP; for i in 1 2 3 4 5; do setsid -f sh -c 'trap \"\" TERM; sleep 1000'; done; (sleep 1000 &) ; echo ready; sleep 1000";

static void killing_takes_everything_and_the_workspace_is_free_at_once(void **state)
{
	struct site *s = *state;
	struct sandbox b = SANDBOX_INIT_VALUE;
	AUTO_CLOSE int out = -1;

	start_and_wait_for_word(s, stubborn, &b, &out);
	sandbox_kill(&b);
	assert_int_equal(site_finish(&b), 137);
	char left[64];
	while (read(out, left, sizeof left) > 0)
		;
	s->plan.stdout_fd = PROC_NULL;
	AUTO_FREE char *again = site_run_ok(s, "cat old");
	assert_string_equal(again, "old text\n");
}

static void the_end_of_the_death_socket_ends_everything(void **state)
{
	struct site *s = *state;
	struct sandbox b = SANDBOX_INIT_VALUE;
	AUTO_CLOSE int out = -1;

	start_and_wait_for_word(s, stubborn, &b, &out);
	close(TAKE_FD(b.death_fd));
	assert_int_equal(site_finish(&b), 137);
}

static void what_the_agent_left_running_ends_with_it(void **state)
{
	struct site *s = *state;
	AUTO_FREE char *out = site_run_ok(s, "setsid -f sleep 1000; (sleep 1000 &); echo done"); /* reading to the end proves it */

	assert_string_equal(out, "done\n");
}

static void two_sandboxes_never_share_an_upper_layer(void **state)
{
	struct site *s = *state;
	struct sandbox b = SANDBOX_INIT_VALUE;
	AUTO_CLOSE int out = -1;

	start_and_wait_for_word(s, "echo ready; sleep 1000", &b, &out);
	s->plan.stdout_fd = PROC_NULL;
	expect_failure(s, ERR_BUSY, "another run still has it mounted");
	sandbox_kill(&b);
	assert_int_equal(site_finish(&b), 137);
}

static void one_work_directory_serves_a_setup_layer_and_the_agents_layer(void **state)
{
	struct site *s = *state;
	AUTO_FREE char *setup = site_dir(s, "setup");

	s->plan.layers.upper = setup;
	free(site_run_ok(s, "echo tool > installed"));
	s->plan.layers = (struct sandbox_layers){ .mode = LAYERS_OVERLAY, .lower = { setup, s->lower }, .lower_count = 2, .upper = s->upper, .work = s->work, .merged = s->merged };
	AUTO_FREE char *out = site_run_ok(s, "cat installed old; rm installed; echo mine > own");
	AUTO_FREE char *again = site_run_ok(s, "ls");
	AUTO_FREE char *kept = file_join(setup, "installed");
	assert_string_equal(out, "tool\nold text\n");
	assert_string_equal(again, "old\nown\n");
	assert_true(file_exists(kept));
}

static char *site_work_of(const struct site *s)
{
	struct stat st;

	assert_int_equal(stat(s->upper, &st), 0);
	return mem_printf("%s/%llu", s->work, (unsigned long long)st.st_ino);
}

static void a_layer_that_was_in_use_when_the_machine_went_down_is_refused(void **state)
{
	struct site *s = *state;

	free(site_run_ok(s, "echo x > y"));
	AUTO_FREE char *work = site_work_of(s);
	assert_int_equal(setxattr(work, "user.signalbox.boot", "another boot", 12, 0), 0);
	site_shell(s, "true");
	expect_failure(s, ERR_STALE, "the machine went down");
}

static void the_root_is_read_only_and_tmp_is_sized(void **state)
{
	struct site *s = *state;
	s->plan.limits.tmp_bytes = 1 << 20;
	AUTO_FREE char *out = site_run_ok(s, "for d in / /etc /usr /dev /run /home /run/signalbox; do touch $d/x 2>/dev/null && echo wrote $d; done; stat -c %a /tmp;"
		"head -c 2000000 /dev/zero > /tmp/big 2>/dev/null || echo full; touch ~/ok /workspace/ok && echo ok");

	assert_string_equal(out, "1777\nfull\nok\n");
}

static void files_grow_to_their_limit_and_no_further(void **state)
{
	struct site *s = *state;
	s->plan.limits.file_bytes = 1 << 16;
	int status = -1;
	AUTO_FREE UNUSED char *out = site_run(s, "head -c 100000 /dev/zero > big", &status);
	AUTO_FREE char *big = file_join(s->upper, "big");
	struct stat st;

	assert_int_not_equal(status, 0);
	assert_int_equal(stat(big, &st), 0);
	assert_int_equal(st.st_size, 1 << 16);
}

static void processes_are_limited_without_a_cgroup_too(void **state)
{
	struct site *s = *state;
	s->plan.limits.pids = 20;
	int status = -1;
	AUTO_FREE char *out = site_run(s, "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done", &status);

	assert_int_not_equal(status, 0);
	assert_non_null(strstr(out, "fork"));
}

static void the_runners_signals_are_not_inherited(void **state)
{
	struct site *s = *state;
	sigset_t all, before;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	void (*old)(int) = signal(SIGPIPE, SIG_IGN);
	AUTO_FREE char *out = site_run_ok(s, "grep -E 'Sig(Blk|Ign)' /proc/self/status");
	signal(SIGPIPE, old);
	sigprocmask(SIG_SETMASK, &before, NULL);
	assert_string_equal(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

static void a_run_as_the_hosts_root_is_refused(void **state)
{
	struct site *s = *state;

	if (geteuid() != 0)
		skip();
	site_shell(s, "true");
	s->plan.uid = 0;
	expect_failure(s, ERR_DENIED, "uid or gid 0");
}

struct call {
	const struct site *site;
	int fd;
};

static int look_around(void *arg)
{
	const struct call *c = arg;
	AUTO_FREE char *old = file_join(c->site->merged, "old");
	AUTO_FREE char *made = file_join(c->site->merged, "made");

	dprintf(c->fd, "uid %u, pid %d, old %d", (unsigned)getuid(), (int)getpid() > 1, file_exists(old));
	int fd = open(made, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	return fd < 0 ? 9 : 23;
}

static void a_stage_call_sees_the_merged_layers_as_the_agents_uid(void **state)
{
	struct site *s = *state;
	struct sandbox b = SANDBOX_INIT_VALUE;
	struct error e = ERROR_INIT;
	AUTO_STRBUF struct strbuf out = STRBUF_INIT;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	struct call c = { s, fds[1] };
	if (sandbox_stage_call(&s->plan.layers, s->uid, s->gid, look_around, &c, &b, &e) != ERR_OK)
		fail_msg("%s", e.text);
	close(fds[1]);
	assert_int_equal(file_read_fd(fds[0], OUTPUT_MAX, &out, &e), ERR_OK);
	close(fds[0]);
	assert_int_equal(site_finish(&b), 23);
	AUTO_FREE char *expected = mem_printf("uid %u, pid 1, old 1", (unsigned)s->uid);
	assert_string_equal(strbuf_str(&out), expected);
	AUTO_FREE char *made = file_join(s->upper, "made");
	assert_true(file_exists(made));
	AUTO_FREE char *outside = file_join(s->merged, "old");
	assert_false(file_exists(outside));
}

static int sleep_long(void *arg UNUSED)
{
	return poll(NULL, 0, WAIT_MS * 10);
}

static void a_stage_call_ends_with_its_death_socket(void **state)
{
	struct site *s = *state;
	struct sandbox b = SANDBOX_INIT_VALUE;
	struct error e = ERROR_INIT;

	assert_int_equal(sandbox_stage_call(NULL, s->uid, s->gid, sleep_long, NULL, &b, &e), ERR_OK);
	close(TAKE_FD(b.death_fd));
	assert_int_equal(site_finish(&b), 137);
}

static void a_child_list_of_the_caller_is_not_disturbed(void **state)
{
	struct site *s = *state;
	struct sandbox b = SANDBOX_INIT_VALUE;

	site_shell(s, "exit 3");
	site_start(s, &b);
	wait_readable(b.pidfd);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* not ours to reap by accident */
	assert_int_equal(site_finish(&b), 3);
}

static void this_machine_is_probed(void **state)
{
	struct site *s = *state;
	struct sandbox_probe p;

	sandbox_probe(s->dir, s->uid, s->gid, &p);
	if (!p.userns || !p.overlay || !p.bwrap || !p.seccomp)
		fail_msg("%s", p.why);
}

#define IN_SITE(t) cmocka_unit_test_setup_teardown(t, site_setup, site_teardown)

/* There the kernel makes no user namespace, whatever is set; with a mount point of its own it says so in other words. */
static int probe_in_chroot(const struct site *s, bool mounted)
{
	struct sandbox_probe probe;
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		bool there = !mounted || (unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
						 mount(s->dir, s->dir, NULL, MS_BIND, NULL) == 0);
		if (!there || chroot(s->dir) < 0 || chdir("/") < 0)
			_exit(99);
		sandbox_probe("/", s->uid, s->gid, &probe);
		_exit(probe.userns ? 1 : strstr(probe.why, "in a chroot") ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The thread sanitizer's own locks do not survive a clone within a fork: the trial may then stand still. */
#ifdef __SANITIZE_THREAD__
#define CLONES_IN_A_FORK false
#else
#define CLONES_IN_A_FORK true
#endif

static void a_chroot_is_told_as_the_cause(void **state)
{
	const struct site *s = *state;

	if (geteuid() != 0 || !CLONES_IN_A_FORK)
		skip();
	assert_int_equal(probe_in_chroot(s, false), 0);
	assert_int_equal(probe_in_chroot(s, true), 0);
}

static const struct CMUnitTest tests[] = {
	IN_SITE(changes_land_in_the_upper_layer_and_nowhere_else),
	IN_SITE(a_plain_workspace_is_used_as_it_is),
	IN_SITE(the_agent_is_uid_1000_with_no_rights_and_only_its_own_environment),
	IN_SITE(the_agent_gets_three_descriptors_and_no_more),
	IN_SITE(no_host_path_shows_on_the_first_process),
	IN_SITE(the_status_is_the_agents_exit_code_or_its_signal),
	IN_SITE(an_agent_that_cannot_be_executed_is_an_error_that_names_it),
	IN_SITE(a_missing_source_of_a_bind_is_an_error_in_bwraps_words),
	IN_SITE(a_missing_layer_is_an_error_that_names_it),
	IN_SITE(the_error_pipe_ends_when_the_agent_runs),
	IN_SITE(a_signal_reaches_the_agents_whole_group),
	IN_SITE(killing_takes_everything_and_the_workspace_is_free_at_once),
	IN_SITE(the_end_of_the_death_socket_ends_everything),
	IN_SITE(what_the_agent_left_running_ends_with_it),
	IN_SITE(two_sandboxes_never_share_an_upper_layer),
	IN_SITE(one_work_directory_serves_a_setup_layer_and_the_agents_layer),
	IN_SITE(a_layer_that_was_in_use_when_the_machine_went_down_is_refused),
	IN_SITE(the_root_is_read_only_and_tmp_is_sized),
	IN_SITE(files_grow_to_their_limit_and_no_further),
	IN_SITE(processes_are_limited_without_a_cgroup_too),
	IN_SITE(the_runners_signals_are_not_inherited),
	IN_SITE(a_run_as_the_hosts_root_is_refused),
	IN_SITE(a_stage_call_sees_the_merged_layers_as_the_agents_uid),
	IN_SITE(a_stage_call_ends_with_its_death_socket),
	IN_SITE(a_child_list_of_the_caller_is_not_disturbed),
	IN_SITE(this_machine_is_probed),
	IN_SITE(a_chroot_is_told_as_the_cause),
};

/* A build tree below /root is out of a user's reach. */
static char *share_init(void)
{
	struct error e = ERROR_INIT;
	AUTO_FREE char *init = site_find_init();
	char *dir = NULL;

	if (file_tmpdir("/tmp", "sbinit", &dir, &e) != ERR_OK || chmod(dir, 0755) < 0)
		return dir;
	AUTO_FREE char *shared = file_join(dir, "signalbox-init");
	if (file_copy(init, shared, 0755, &e) == ERR_OK)
		setenv("SIGNALBOX_INIT", shared, 1);
	return dir;
}

static int run_group_as_a_user(void)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		if (setgroups(0, NULL) < 0 || setresgid(AGENT_UID, AGENT_UID, AGENT_UID) < 0 || setresuid(AGENT_UID, AGENT_UID, AGENT_UID) < 0)
			_exit(99);
		_exit(cmocka_run_group_tests_name("as a user", tests, NULL, NULL));
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* The user road needs a process that never was root. */
static int run_as_a_user(void)
{
	AUTO_FREE char *dir = share_init();
	int failed = run_group_as_a_user();

	if (dir)
		(void)!file_remove_tree(dir, NULL);
	return failed;
}

int main(void)
{
	int failed = cmocka_run_group_tests_name(geteuid() == 0 ? "as root" : "as a user", tests, NULL, NULL);

	if (geteuid() == 0)
		failed += run_as_a_user();
	return failed;
}
