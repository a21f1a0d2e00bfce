/* What the run's processes do, seen from outside: the CPU time of everything below the stage, and which process is the busiest.  Read from
 * /proc every few seconds; the agent cannot make it up. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PULSE_PROCESSES_MAX 8192
#define PULSE_STAT_MAX 1024
#define PULSE_DEPTH_MAX 256
#define PULSE_BUSY_PERCENT 5 /* of one core: below it is idling, which agents do too while they wait */

struct entry {
	pid_t pid, parent;
	int64_t ticks;
	char name[17];
	bool ours;
};

/* Fields 1, 2, 4, 14 and 15 of /proc/PID/stat; the name may hold blanks and brackets. */
static bool read_entry(const char *pid, struct entry *ret)
{
	AUTO_FREE char *path = mem_printf("/proc/%s/stat", pid);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[PULSE_STAT_MAX];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = 0;
	char *open_at = strchr(text, '('), *close_at = strrchr(text, ')');
	unsigned long utime = 0, stime = 0;
	int parent = 0;
	if (!open_at || !close_at ||
		sscanf(close_at + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &parent, &utime, &stime) != 3)
		return false;
	*close_at = 0;
	*ret = (struct entry){ .pid = (pid_t)strtol(text, NULL, 10), .parent = parent, .ticks = (int64_t)(utime + stime) };
	snprintf(ret->name, sizeof(ret->name), "%s", open_at + 1);
	return true;
}

static int read_all(struct entry *list)
{
	DIR *d = opendir("/proc");
	int n = 0;
	for (struct dirent *e; d && n < PULSE_PROCESSES_MAX && (e = readdir(d));)
		if (isdigit((unsigned char)e->d_name[0]) && read_entry(e->d_name, &list[n]))
			n++;
	if (d)
		closedir(d);
	return n;
}

static int by_pid(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	return (x->pid > y->pid) - (x->pid < y->pid);
}

/* Up the parents until the stage, or the top, or a depth that no honest tree has. */
static bool is_below(struct entry *list, int n, const struct entry *at, pid_t root)
{
	for (int depth = 0; at && depth < PULSE_DEPTH_MAX; depth++) {
		if (at->pid == root)
			return true;
		const struct entry key = { .pid = at->parent };
		at = bsearch(&key, list, (size_t)n, sizeof(*list), by_pid);
	}
	return false;
}

static void mark_ours(struct entry *list, int n, pid_t root)
{
	qsort(list, (size_t)n, sizeof(*list), by_pid);
	for (int i = 0; i < n; i++)
		list[i].ours = is_below(list, n, &list[i], root);
}

void pulse_take(struct runner *r, int64_t now_ms)
{
	struct pulse *p = &r->pulse;
	if (!r->step.active || !r->step.is_box || !str_eq(r->step.name, "agent"))
		return;
	struct entry *list = mem_alloc(PULSE_PROCESSES_MAX * sizeof(*list));
	int n = read_all(list), busiest = -1;
	int64_t ticks = 0, per_second = sysconf(_SC_CLK_TCK);
	mark_ours(list, n, r->step.box.pid);
	p->processes = 0;
	for (int i = 0; i < n; i++) {
		if (!list[i].ours)
			continue;
		p->processes++;
		ticks += list[i].ticks;
		if (busiest < 0 || list[i].ticks >= list[busiest].ticks)
			busiest = i;
	}
	int64_t span_ms = now_ms - p->at_ms, busy_ms = (ticks - p->ticks) * 1000 / per_second;
	if (p->at_ms && span_ms > 0 && busy_ms * 100 >= span_ms * PULSE_BUSY_PERCENT)
		p->busy_at_ms = now_ms;
	p->cpu_ms = ticks * 1000 / per_second;
	p->ticks = ticks;
	p->at_ms = now_ms;
	if (busiest >= 0) {
		p->pid = list[busiest].pid;
		snprintf(p->name, sizeof(p->name), "%s", list[busiest].name);
	}
	free(list);
}
