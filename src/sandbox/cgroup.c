/* A run's cgroup in each hierarchy that holds something: BASE/signalbox-UID/RUN.  The middle directory belongs to the sandbox's uid,
 * so that a runner that has dropped root can still remove its own; the files that need root are opened before and kept.
 *
 *   v2 with controllers   limits and kill in one directory            "cgroup2"
 *   hybrid                v1 memory, pids, cpu hold; v2 kills          "hybrid"   (v2 only where the stage can be cloned into it)
 *   none                  rlimits and the PID namespace                "rlimits" (v2 may still kill) */
#include "sandbox/cgroup.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "sandbox/cgroup_base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define GROUP_PREFIX "signalbox-"
#define CPU_PERIOD_US 100000
#define EMPTY_WAIT_MS 3000 /* for killed processes to be gone */
#define EMPTY_STEP_MS 1
#define OPEN_TRIES_MAX 8 /* another run's end may remove the middle directory just when it was made */
#define PIDS_TEXT_MAX 65536
#define STAT_TEXT_MAX 4096

struct part {
	char *parent, *dir;
	int entry_fd; /* opened for writing: the kernel checks the opener's rights */
};

struct cgroup {
	enum sandbox_confinement kind;
	char *why;
	bool pids;
	int kill_fd;
	int clone_fd;
	pid_t warmer; /* 0: none */
	struct part part[TREE_COUNT]; /* dir NULL: not used */
};

const char *sandbox_confinement_name(enum sandbox_confinement c)
{
	static const char *const names[] = { [CONFINED_BY_CGROUP2] = "cgroup2", [CONFINED_BY_HYBRID] = "hybrid", [CONFINED_BY_RLIMITS] = "rlimits" };

	return names[c];
}

enum sandbox_confinement cgroup_kind(const struct cgroup *g)
{
	return g ? g->kind : CONFINED_BY_RLIMITS;
}

const char *cgroup_why(const struct cgroup *g)
{
	return g ? g->why : "no cgroup was opened for this run";
}

bool cgroup_limits_pids(const struct cgroup *g)
{
	return g && g->pids;
}

static bool dir_make(const char *path, uid_t uid)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return false;
	if (geteuid() == 0 && lchown(path, uid, (gid_t)-1) < 0)
		return false;
	return true;
}

/* What a runner that is no longer root writes and reads again. */
static void files_hand_over(const char *dir, uid_t uid)
{
	static const char *const names[] = { "cgroup.procs", "cgroup.kill", "tasks" };

	for (size_t i = 0; geteuid() == 0 && i < ARRAY_SIZE(names); i++) {
		AUTO_FREE char *path = file_join(dir, names[i]);
		(void)!lchown(path, uid, (gid_t)-1); /* not every version has each of them */
	}
}

static void part_release(struct part *p)
{
	if (p->dir)
		(void)rmdir(p->dir);
	if (p->parent)
		(void)rmdir(p->parent); /* only when it was the last one, and only as root */
	if (p->entry_fd >= 0)
		close(p->entry_fd);
	free(p->dir);
	free(p->parent);
	*p = (struct part){ .entry_fd = -1 };
}

/* A single thread that moves itself by v1's `tasks` costs nothing; `cgroup.procs` stops the world for an RCU grace period. */
static bool part_open(struct part *p, const char *base, const char *entry, const char *run_id, uid_t uid)
{
	p->parent = mem_printf("%s/" GROUP_PREFIX "%u", base, (unsigned)uid);
	p->dir = file_join(p->parent, run_id);
	AUTO_FREE char *entry_path = file_join(p->dir, entry);
	for (int try = 0; p->entry_fd < 0 && try < OPEN_TRIES_MAX && dir_make(p->parent, uid); try++) {
		struct cgroup_base ignored = { .dir = NULL };

		cgroup_base_enable(p->parent, &ignored); /* v1 has no such file */
		if (dir_make(p->dir, uid))
			p->entry_fd = open(entry_path, O_WRONLY | O_CLOEXEC);
	}
	if (p->entry_fd >= 0) {
		files_hand_over(p->dir, uid);
		return true;
	}
	part_release(p);
	return false;
}

static bool number_write(const char *dir, const char *name, int64_t value)
{
	AUTO_FREE char *text = mem_printf("%lld", (long long)value);

	return cgroup_text_write(dir, name, text);
}

static void limits_write_v2(const struct cgroup *g, const struct sandbox_limits *l, const struct cgroup_base *base)
{
	const char *dir = g->part[TREE_V2].dir;

	if (base->memory && l->memory_bytes > 0) {
		(void)number_write(dir, "memory.max", l->memory_bytes);
		(void)cgroup_text_write(dir, "memory.swap.max", "0"); /* absent without swap */
	}
	if (base->pids && l->pids > 0)
		(void)number_write(dir, "pids.max", l->pids);
	if (base->cpu && l->cpu_percent > 0) {
		AUTO_FREE char *text = mem_printf("%lld %d", (long long)(l->cpu_percent * CPU_PERIOD_US / 100), CPU_PERIOD_US);
		(void)cgroup_text_write(dir, "cpu.max", text);
	}
}

static void limits_write_v1(const struct cgroup *g, const struct sandbox_limits *l)
{
	const char *memory = g->part[TREE_MEMORY].dir, *pids = g->part[TREE_PIDS].dir, *cpu = g->part[TREE_CPU].dir;

	if (memory && l->memory_bytes > 0) {
		(void)number_write(memory, "memory.limit_in_bytes", l->memory_bytes);
		(void)number_write(memory, "memory.memsw.limit_in_bytes", l->memory_bytes); /* absent without swap accounting */
	}
	if (pids && l->pids > 0)
		(void)number_write(pids, "pids.max", l->pids);
	if (cpu && l->cpu_percent > 0) {
		(void)number_write(cpu, "cpu.cfs_period_us", CPU_PERIOD_US);
		(void)number_write(cpu, "cpu.cfs_quota_us", l->cpu_percent * CPU_PERIOD_US / 100);
	}
}

static void open_v1(struct cgroup *g, const struct cgroup_places *places, const char *run_id, uid_t uid)
{
	for (int t = TREE_MEMORY; t < TREE_COUNT; t++)
		if (places->at[t].own)
			(void)part_open(&g->part[t], places->at[t].own, "tasks", run_id, uid);
}

static void v2_files_open(struct cgroup *g)
{
	if (!g->part[TREE_V2].dir)
		return;
	g->clone_fd = open(g->part[TREE_V2].dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_FREE char *path = file_join(g->part[TREE_V2].dir, "cgroup.kill");
	g->kill_fd = open(path, O_WRONLY | O_CLOEXEC); /* absent before Linux 5.14: then one by one */
}

static void kind_decide(struct cgroup *g, const struct cgroup_base *base)
{
	const char *cpu = base->cpu || g->part[TREE_CPU].dir ? "" : "; cpu is not limited";

	if (g->part[TREE_V2].dir && base->memory && base->pids) {
		g->kind = CONFINED_BY_CGROUP2;
		g->pids = true;
		g->why = mem_printf("cgroup v2 with its controllers%s", cpu);
	} else if (g->part[TREE_MEMORY].dir && g->part[TREE_PIDS].dir) {
		g->kind = CONFINED_BY_HYBRID;
		g->pids = true;
		g->why = mem_printf("limits in the cgroup v1 hierarchies, killing in v2 or one by one%s", cpu);
	} else {
		g->kind = CONFINED_BY_RLIMITS;
		g->pids = g->part[TREE_PIDS].dir != NULL;
		g->why = mem_strdup("no cgroup with memory and pids controllers may be made here (not delegated): memory and cpu are not limited, processes by rlimit");
	}
}

static void v2_finish(struct cgroup *g, const struct sandbox_limits *limits, const struct cgroup_base *base)
{
	if (g->part[TREE_V2].dir)
		limits_write_v2(g, limits, base);
	v2_files_open(g);
	kind_decide(g, base);
}

/* Where a dropped runner's stage must move itself by cgroup.procs: the first such move waits for an RCU grace period (10 ms), those that
 * follow soon do not. A child makes that first move now, while the runner prepares the workspace, and ends. Nothing depends on it. */
static void warm_up(struct cgroup *g)
{
	struct clone_args a = { .exit_signal = 0 };
	long pid = syscall(SYS_clone3, &a, sizeof a);

	if (pid == 0) {
		(void)!cgroup_join(g, false, NULL);
		_exit(0);
	}
	g->warmer = pid > 0 ? (pid_t)pid : 0;
}

static void warmer_reap(struct cgroup *g, int flags)
{
	if (g->warmer && waitpid(g->warmer, NULL, __WALL | flags) != 0)
		g->warmer = 0;
}

enum err_code cgroup_open(const char *run_id, const struct sandbox_limits *limits, uid_t uid, struct cgroup **ret, struct error *e)
{
	struct cgroup_places places = { 0 };
	struct cgroup_base base = { .dir = NULL };

	if (!file_name_is_inside(run_id) || strchr(run_id, '/'))
		return error_set(e, ERR_INVALID, "cgroup: the run id '%s' is not a name", run_id);
	enum err_code rc = cgroup_places_find(&places, e);
	if (rc != ERR_OK)
		return error_wrap(e, "find the cgroups");
	struct cgroup *g = NEW(struct cgroup);
	g->kill_fd = g->clone_fd = -1;
	for (int t = 0; t < TREE_COUNT; t++)
		g->part[t].entry_fd = -1;
	cgroup_base_find(&places.at[TREE_V2], &base);
	if (base.dir)
		(void)part_open(&g->part[TREE_V2], base.dir, "cgroup.procs", run_id, uid);
	if (!base.memory || !base.pids || !g->part[TREE_V2].dir) {
		open_v1(g, &places, run_id, uid);
		limits_write_v1(g, limits);
	}
	v2_finish(g, limits, &base);
	if (g->kind == CONFINED_BY_CGROUP2)
		warm_up(g);
	free(base.dir);
	cgroup_places_release(&places);
	*ret = g;
	return ERR_OK;
}

int cgroup_clone_fd(struct cgroup *g)
{
	if (!g)
		return -1;
	warmer_reap(g, WNOHANG);
	return g->clone_fd;
}

enum err_code cgroup_join(const struct cgroup *g, bool cloned, struct error *e)
{
	/* Without controllers v2 could only kill, which is not worth the wait: the PID namespace and v1 can, too. */
	bool wants_v2 = g && !cloned && g->kind == CONFINED_BY_CGROUP2;

	for (int t = wants_v2 ? TREE_V2 : TREE_V2 + 1; g && t < TREE_COUNT; t++)
		if (g->part[t].dir && write(g->part[t].entry_fd, "0", 1) < 0)
			return error_errno(e, "enter the cgroup '%s'", g->part[t].dir);
	return ERR_OK;
}

static int pids_kill(const char *dir)
{
	AUTO_FREE char *text = mem_alloc(PIDS_TEXT_MAX);
	char *save = NULL;
	int n = 0;

	if (!cgroup_text_read(dir, "cgroup.procs", text, PIDS_TEXT_MAX))
		return 0;
	for (char *p = strtok_r(text, "\n", &save); p; p = strtok_r(NULL, "\n", &save)) {
		long pid = strtol(p, NULL, 10);

		if (pid > 1 && pid != getpid())
			n += kill((pid_t)pid, SIGKILL) == 0;
	}
	return n;
}

void cgroup_kill(struct cgroup *g)
{
	if (!g)
		return;
	bool killed = g->kill_fd >= 0 && write(g->kill_fd, "1", 1) == 1;
	if (killed && g->kind == CONFINED_BY_CGROUP2)
		return;
	for (int t = 0; t < TREE_COUNT; t++)
		if (g->part[t].dir)
			(void)pids_kill(g->part[t].dir);
}

/* rmdir says by itself when a cgroup is empty. */
static bool dir_remove(const char *dir, int64_t until_ms)
{
	while (rmdir(dir) < 0 && errno == EBUSY) {
		if (clock_mono_ms() >= until_ms)
			return false;
		if (!cgroup_text_write(dir, "cgroup.kill", "1"))
			(void)pids_kill(dir);
		(void)poll(NULL, 0, EMPTY_STEP_MS);
	}
	return true;
}

void cgroup_close(struct cgroup *g)
{
	if (!g)
		return;
	int64_t until = clock_mono_ms() + EMPTY_WAIT_MS;
	cgroup_kill(g);
	warmer_reap(g, 0); /* ended long ago, or was just killed */
	for (int t = 0; t < TREE_COUNT; t++) {
		if (g->part[t].dir)
			(void)dir_remove(g->part[t].dir, until);
		part_release(&g->part[t]);
	}
	cleanup_close(&g->kill_fd);
	cleanup_close(&g->clone_fd);
	free(g->why);
	free(g);
}

static int64_t number_read(const char *dir, const char *name)
{
	char text[STAT_TEXT_MAX];

	return dir && cgroup_text_read(dir, name, text, sizeof text) ? strtoll(text, NULL, 10) : 0;
}

/* "key value" lines */
static int64_t member_read(const char *dir, const char *name, const char *key)
{
	char text[STAT_TEXT_MAX];
	char *save = NULL;
	size_t n = strlen(key);

	if (!dir || !cgroup_text_read(dir, name, text, sizeof text))
		return 0;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (strncmp(line, key, n) == 0 && line[n] == ' ')
			return strtoll(line + n + 1, NULL, 10);
	return 0;
}

void cgroup_usage(struct cgroup *g, struct cgroup_usage *ret)
{
	*ret = (struct cgroup_usage){ 0 };
	if (!g)
		return;
	warmer_reap(g, WNOHANG);
	const char *v2 = g->part[TREE_V2].dir, *memory = g->part[TREE_MEMORY].dir, *pids = g->part[TREE_PIDS].dir, *cpuacct = g->part[TREE_CPUACCT].dir;
	ret->memory_peak = memory ? number_read(memory, "memory.max_usage_in_bytes") : number_read(v2, "memory.peak");
	ret->cpu_us = cpuacct ? number_read(cpuacct, "cpuacct.usage") / 1000 : member_read(v2, "cpu.stat", "usage_usec");
	ret->pids_now = pids ? number_read(pids, "pids.current") : number_read(v2, "pids.current");
	ret->oom_killed = memory ? member_read(memory, "memory.oom_control", "oom_kill") > 0 : member_read(v2, "memory.events", "oom_kill") > 0;
}

/* Below one base: every uid's directory may hold the run. */
static void remove_below(const char *base, const char *run_id)
{
	DIR *d = base ? opendir(base) : NULL;
	struct dirent *entry;

	while (d && (entry = readdir(d)) != NULL) {
		if (strncmp(entry->d_name, GROUP_PREFIX, strlen(GROUP_PREFIX)) != 0)
			continue;
		AUTO_FREE char *parent = file_join(base, entry->d_name);
		AUTO_FREE char *dir = file_join(parent, run_id);
		if (file_is_dir(dir))
			(void)dir_remove(dir, clock_mono_ms() + EMPTY_WAIT_MS);
		(void)rmdir(parent); /* when it was the last */
	}
	if (d)
		closedir(d);
}

void cgroup_remove_by_id(const char *run_id)
{
	struct cgroup_places places = { 0 };

	if (!file_name_is_inside(run_id) || strchr(run_id, '/') || cgroup_places_find(&places, NULL) != ERR_OK)
		return;
	for (int t = 0; t < TREE_COUNT; t++) {
		AUTO_FREE char *parent = places.at[t].own ? file_dirname(places.at[t].own) : NULL;

		remove_below(places.at[t].own, run_id);
		remove_below(parent, run_id);
		remove_below(places.at[t].mount, run_id);
	}
	cgroup_places_release(&places);
}

static void list_below(const char *base, uid_t uid, void (*fn)(void *ctx, const char *run_id), void *ctx)
{
	AUTO_FREE char *dir = base ? mem_printf("%s/%s%u", base, GROUP_PREFIX, (unsigned)uid) : NULL;
	DIR *d = dir ? opendir(dir) : NULL;
	for (struct dirent *entry; d && (entry = readdir(d)) != NULL;)
		if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
			fn(ctx, entry->d_name);
	if (d)
		closedir(d);
}

void cgroup_list(uid_t uid, void (*fn)(void *ctx, const char *run_id), void *ctx)
{
	struct cgroup_places places = { 0 };
	if (cgroup_places_find(&places, NULL) != ERR_OK)
		return;
	for (int t = 0; t < TREE_COUNT; t++) {
		AUTO_FREE char *parent = places.at[t].own ? file_dirname(places.at[t].own) : NULL;
		list_below(places.at[t].own, uid, fn, ctx);
		list_below(parent, uid, fn, ctx);
		list_below(places.at[t].mount, uid, fn, ctx);
	}
	cgroup_places_release(&places);
}
