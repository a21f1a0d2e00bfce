/* Finding the hierarchies in texts of several kinds of machine, and real cgroups where this machine lets us. */
#include "sandbox_site.h"
#include "sandbox/cgroup_base.h"
#include <grp.h>
#include <stdio.h>
#include <sys/wait.h>

static void place_is(const struct cgroup_place *p, const char *mount, const char *own)
{
	assert_true(str_eq(p->mount, mount));
	assert_true(str_eq(p->own, own));
}

static void a_pure_v2_machine_has_one_place(void **state UNUSED)
{
	struct cgroup_places p;

	cgroup_places_parse("29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
			    "30 23 0:27 / /proc rw - proc proc rw\n",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n", &p);
	place_is(&p.at[TREE_V2], "/sys/fs/cgroup", "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope");
	place_is(&p.at[TREE_MEMORY], NULL, NULL);
	cgroup_places_release(&p);
}

static void a_hybrid_machine_has_one_place_for_each_controller(void **state UNUSED)
{
	struct cgroup_places p;

	cgroup_places_parse("41 40 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
			    "42 40 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
			    "43 40 0:32 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
			    "44 40 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
		"5:pids:/\n4:memory:/lab/x\n3:cpu,cpuacct:/lab\n1:name=systemd:/\n0::/u\n", &p);
	place_is(&p.at[TREE_V2], "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/u");
	place_is(&p.at[TREE_MEMORY], "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/lab/x");
	place_is(&p.at[TREE_PIDS], "/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids");
	place_is(&p.at[TREE_CPU], "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/lab");
	cgroup_places_release(&p);
}

static void the_mounts_root_is_cut_off_in_a_container(void **state UNUSED)
{
	struct cgroup_places p;

	cgroup_places_parse("29 23 0:26 /docker/abc /sys/fs/my\\040cgroup rw - cgroup2 cgroup rw\n", "0::/docker/abc/inner\n", &p);
	place_is(&p.at[TREE_V2], "/sys/fs/my cgroup", "/sys/fs/my cgroup/inner");
	cgroup_places_release(&p);
	cgroup_places_parse("29 23 0:26 /docker/abc /c rw - cgroup2 cgroup rw\n", "0::/docker/abcdef\n", &p);
	place_is(&p.at[TREE_V2], "/c", "/c");
	cgroup_places_release(&p);
	cgroup_places_parse("29 23 0:26 / /c rw - cgroup2 cgroup rw\n", "0::/../../above\n", &p);
	place_is(&p.at[TREE_V2], "/c", "/c");
	cgroup_places_release(&p);
}

static void odd_lines_are_passed_over(void **state UNUSED)
{
	static const char *const texts[] = { "", "\n\n", "1 2 3\n", "a b c d e f - cgroup2\n", "1 2 3 / /x rw - cgroup2 cgroup", "- - - - - - - - - -\n" };
	struct cgroup_places p;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		cgroup_places_parse(texts[i], "0:\n:::\n4:memory\n", &p);
		assert_null(p.at[TREE_V2].mount);
		cgroup_places_release(&p);
	}
}

static pid_t program; /* the first process's: its children use its names */

/* The groups are the whole machine's: another copy of this program has other names. */
static const char *own(const char *name)
{
	static char id[64];

	snprintf(id, sizeof(id), "unit-%s-%d", name, (int)program);
	return id;
}

static const struct sandbox_limits small = { .memory_bytes = 64 << 20, .pids = 12, .cpu_percent = 100 };

static struct cgroup *open_group(const struct site *s, const char *id)
{
	struct cgroup *g = NULL;
	struct error e = ERROR_INIT;

	if (cgroup_open(id, &small, s->uid, &g, &e) != ERR_OK)
		fail_msg("%s", e.text);
	return g;
}

static bool holds_limits(struct cgroup *g)
{
	return cgroup_kind(g) != CONFINED_BY_RLIMITS;
}

static void a_group_always_opens_and_says_what_holds(void **state)
{
	struct site *s = *state;
	struct cgroup *g = open_group(s, own("a"));

	assert_true(strlen(cgroup_why(g)) > 10);
	assert_non_null(sandbox_confinement_name(cgroup_kind(g)));
	cgroup_close(g);
	cgroup_close(NULL);
	assert_int_equal(cgroup_kind(NULL), CONFINED_BY_RLIMITS);
}

static void a_name_with_a_slash_is_refused(void **state)
{
	struct site *s = *state;
	struct cgroup *g = NULL;
	struct error e = ERROR_INIT;

	assert_int_equal(cgroup_open("../x", &small, s->uid, &g, &e), ERR_INVALID);
}

static void processes_are_limited(void **state)
{
	struct site *s = *state;
	struct cgroup *g = open_group(s, own("pids"));
	int status = -1;

	s->plan.cgroup = g;
	s->plan.limits = small;
	AUTO_FREE char *out = site_run(s, "i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done", &status);
	assert_int_not_equal(status, 0);
	assert_non_null(strstr(out, "fork"));
	cgroup_close(g);
}

static void memory_is_limited_and_the_kill_is_seen(void **state)
{
	struct site *s = *state;
	struct cgroup *g = open_group(s, own("memory"));
	struct cgroup_usage u;
	int status = -1;

	if (holds_limits(g)) {
		s->plan.cgroup = g;
		AUTO_FREE UNUSED char *out = site_run(s, "head -c 400m /dev/zero | tail -c 390m > /dev/null", &status);
		assert_int_equal(status, 137);
		cgroup_usage(g, &u);
		assert_true(u.oom_killed);
		assert_true(u.memory_peak > (32 << 20) && u.memory_peak <= small.memory_bytes);
		assert_true(u.cpu_us > 0);
		assert_int_equal(u.pids_now, 0);
	}
	cgroup_close(g);
}

static void killing_the_group_ends_the_sandbox(void **state)
{
	struct site *s = *state;
	struct cgroup *g = open_group(s, own("kill"));
	struct sandbox b = SANDBOX_INIT_VALUE;
	char c;

	if (holds_limits(g)) {
		s->plan.cgroup = g;
		site_shell(s, "exec sleep 1000");
		site_start(s, &b);
		wait_readable(b.error_fd);
		assert_int_equal(read(b.error_fd, &c, 1), 0);
		cgroup_kill(g);
		assert_int_equal(site_finish(&b), 137);
	}
	cgroup_close(g);
}

static bool group_is_left(const char *id)
{
	struct cgroup_places p;
	bool left = false;

	assert_int_equal(cgroup_places_find(&p, NULL), ERR_OK);
	for (int t = 0; t < TREE_COUNT; t++) {
		if (!p.at[t].own)
			continue;
		AUTO_FREE char *dir = mem_printf("%s/signalbox-%u/%s", p.at[t].own, AGENT_UID, id);
		left |= file_is_dir(dir);
	}
	cgroup_places_release(&p);
	return left;
}

static void a_dead_runners_group_is_removed_by_its_id(void **state)
{
	struct site *s = *state;
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct cgroup *g = NULL;
		_exit(cgroup_open(own("dead"), &small, s->uid, &g, NULL) == ERR_OK ? 0 : 1); /* and never closes it */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	cgroup_remove_by_id(own("dead"));
	assert_false(group_is_left(own("dead")));
	cgroup_remove_by_id(own("never-was"));
}

/* A runner opens its cgroup as root, then drops to the agent's uid for good. */
static int dropped_runner(struct site *s)
{
	struct cgroup *g = NULL;
	struct sandbox b = SANDBOX_INIT_VALUE;
	int status = -1;
	char c;

	if (cgroup_open(own("drop"), &small, s->uid, &g, NULL) != ERR_OK || setgroups(0, NULL) < 0 || setresgid(s->gid, s->gid, s->gid) < 0 || setresuid(s->uid, s->uid, s->uid) < 0)
		return 1;
	s->plan.cgroup = g;
	site_shell(s, "exec sleep 1000");
	if (sandbox_start(&s->plan, &b, NULL) != ERR_OK || read(b.error_fd, &c, 1) != 0)
		return 2;
	cgroup_kill(g);
	if (sandbox_finish(&b, &status, NULL) != ERR_OK || status != 137)
		return 3;
	cgroup_close(g);
	return group_is_left(own("drop")) ? 4 : 0;
}

static void a_runner_that_dropped_root_keeps_its_group(void **state)
{
	struct site *s = *state;
	struct cgroup *g = open_group(s, own("look"));
	bool holds = holds_limits(g);
	int status = 0;

	cgroup_close(g);
	if (geteuid() != 0 || !holds)
		skip();
	pid_t pid = fork();
	if (pid == 0)
		_exit(dropped_runner(s));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	cgroup_remove_by_id(own("drop")); /* the emptied parent goes with root's rights */
}

#define IN_SITE(t) cmocka_unit_test_setup_teardown(t, site_setup, site_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pure_v2_machine_has_one_place),
		cmocka_unit_test(a_hybrid_machine_has_one_place_for_each_controller),
		cmocka_unit_test(the_mounts_root_is_cut_off_in_a_container),
		cmocka_unit_test(odd_lines_are_passed_over),
		IN_SITE(a_group_always_opens_and_says_what_holds),
		IN_SITE(a_name_with_a_slash_is_refused),
		IN_SITE(processes_are_limited),
		IN_SITE(memory_is_limited_and_the_kill_is_seen),
		IN_SITE(killing_the_group_ends_the_sandbox),
		IN_SITE(a_dead_runners_group_is_removed_by_its_id),
		IN_SITE(a_runner_that_dropped_root_keeps_its_group),
	};
	program = getpid();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
