/* What the run's processes do, seen from outside: the CPU time of everything below the stage, and which process is the busiest.  Read from
 * /proc every few seconds, down the kernel's own lists of children, so that it costs what the run has and not what the machine has; the
 * agent cannot make it up. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "runner/runner.h"
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PULSE_PROCESSES_MAX 4096
#define PULSE_STAT_MAX ((size_t)4096)
#define PULSE_CHILDREN_MAX ((size_t)256 << 10)
#define PULSE_BUSY_PERCENT 5 /* of one core: below it is idling, which agents do too while they wait */

struct look {
	pid_t pids[PULSE_PROCESSES_MAX]; /* found; those before `done` are read */
	int count;
	int64_t ticks, most;
	bool wants_cpu; /* one is runnable: on a crowded machine it gets little, and is at work all the same */
	pid_t busiest;
	char name[17];
};

/* A process's time with that of the children it has waited for: so nothing is lost when a short one ends. */
static void read_time(struct look *l, pid_t pid)
{
	AUTO_FREE char *path = mem_printf("/proc/%d/stat", (int)pid);
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(PULSE_STAT_MAX);
	unsigned long t[4] = { 0 };
	char state = 0;
	if (file_read(path, PULSE_STAT_MAX, &text, NULL))
		return; /* gone meanwhile */
	char *open_at = strchr(text.data, '('), *close_at = strrchr(text.data, ')'); /* the name may hold blanks and brackets */
	if (!open_at || !close_at ||
		sscanf(close_at + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %lu %lu", &state, &t[0], &t[1], &t[2], &t[3]) != 5)
		return;
	int64_t own = (int64_t)(t[0] + t[1]);
	l->wants_cpu = l->wants_cpu || state == 'R';
	l->ticks += own + (int64_t)(t[2] + t[3]);
	if (l->busiest && own < l->most)
		return;
	*close_at = 0;
	l->most = own;
	l->busiest = pid;
	snprintf(l->name, sizeof(l->name), "%s", open_at + 1);
}

/* Children are listed by the thread that made them, the oldest first. */
int pulse_children(pid_t pid, pid_t *ret_pids, int max)
{
	int count = 0;
	AUTO_FREE char *tasks = mem_printf("/proc/%d/task", (int)pid);
	DIR *d = opendir(tasks);
	for (struct dirent *thread; d && (thread = readdir(d));) {
		if (!isdigit((unsigned char)thread->d_name[0]))
			continue;
		AUTO_FREE char *path = mem_printf("%s/%s/children", tasks, thread->d_name);
		AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(PULSE_CHILDREN_MAX);
		if (file_read(path, PULSE_CHILDREN_MAX, &text, NULL) || !text.len)
			continue;
		for (char *save = NULL, *word = strtok_r(text.data, " ", &save); word && count < max; word = strtok_r(NULL, " ", &save))
			ret_pids[count++] = (pid_t)strtol(word, NULL, 10);
	}
	if (d)
		closedir(d);
	return count;
}

void pulse_take(struct runner *r, int64_t now_ms)
{
	struct pulse *p = &r->pulse;
	if (!r->step.active || !r->step.is_box || !str_eq(r->step.name, "agent"))
		return;
	struct look *l = NEW(struct look);
	l->pids[l->count++] = r->step.box.pid;
	for (int i = 0; i < l->count; i++) {
		read_time(l, l->pids[i]);
		l->count += pulse_children(l->pids[i], l->pids + l->count, PULSE_PROCESSES_MAX - l->count);
	}
	int64_t per_second = sysconf(_SC_CLK_TCK), span_ms = now_ms - p->at_ms, busy_ms = (l->ticks - p->ticks) * 1000 / per_second;
	if (p->at_ms && span_ms > 0 && (l->wants_cpu || busy_ms * 100 >= span_ms * PULSE_BUSY_PERCENT))
		p->busy_at_ms = now_ms;
	p->processes = l->count;
	p->cpu_ms = l->ticks * 1000 / per_second;
	p->ticks = l->ticks;
	p->at_ms = now_ms;
	p->pid = l->busiest;
	snprintf(p->name, sizeof(p->name), "%s", l->name);
	free(l);
}
