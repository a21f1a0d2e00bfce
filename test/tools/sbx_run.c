/* Test tool: runs one command in a sandbox described by options, as the runner would, and ends with its status.
 *
 *   sbx_run --init build/signalbox-init --upper DIR [--lower DIR... --work DIR --merged DIR] [options] -- /bin/true
 *
 * As root the sandbox takes --uid/--gid; with --drop the tool itself becomes that uid first, after the cgroup was opened.
 * SIGINT and SIGTERM are passed to the agent. */
#include "base/cleanup.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/opt.h"
#include "base/str.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

enum {
	O_INIT, O_UID, O_GID, O_DROP, O_LOWER, O_UPPER, O_WORK, O_MERGED, O_HOME, O_GATEWAY, O_PORT, O_SHARE_NET, O_ENV, O_BIND,
	O_EXPOSE, O_CGROUP, O_MEMORY, O_PIDS, O_CPU, O_FILE, O_TMP, O_FILES, O_PRINT, O_ID, O_USAGE, O_REMOVE, O_COUNT
};

static const struct opt table[] = {
	[O_INIT] = { .name = "init", .type = OPT_STRING, .value = "FILE", .help = "signalbox-init" },
	[O_UID] = { .name = "uid", .type = OPT_INT, .value = "N", .help = "host uid of the agent when root" },
	[O_GID] = { .name = "gid", .type = OPT_INT, .value = "N", .help = "host gid of the agent when root" },
	[O_DROP] = { .name = "drop", .type = OPT_FLAG, .help = "become uid/gid before the sandbox is started" },
	[O_LOWER] = { .name = "lower", .type = OPT_LIST, .value = "DIR", .help = "read-only layer, top-most first" },
	[O_UPPER] = { .name = "upper", .type = OPT_STRING, .value = "DIR", .help = "changes; without --lower the workspace itself" },
	[O_WORK] = { .name = "work", .type = OPT_STRING, .value = "DIR", .help = "overlay's work directory" },
	[O_MERGED] = { .name = "merged", .type = OPT_STRING, .value = "DIR", .help = "mount point" },
	[O_HOME] = { .name = "home", .type = OPT_STRING, .value = "DIR", .help = "the agent's home" },
	[O_GATEWAY] = { .name = "gateway", .type = OPT_STRING, .value = "DIR", .help = "directory with model.sock" },
	[O_PORT] = { .name = "port", .type = OPT_INT, .value = "N", .help = "forwarded port inside" },
	[O_SHARE_NET] = { .name = "share-net", .type = OPT_FLAG, .help = "the host's network" },
	[O_ENV] = { .name = "env", .type = OPT_LIST, .value = "K=V", .help = "environment" },
	[O_BIND] = { .name = "bind", .type = OPT_LIST, .value = "FROM:TO", .help = "read-only bind" },
	[O_EXPOSE] = { .name = "expose", .type = OPT_LIST, .value = "FROM:AT", .help = "root: make FROM reachable at AT" },
	[O_CGROUP] = { .name = "cgroup", .type = OPT_FLAG, .help = "open a cgroup" },
	[O_MEMORY] = { .name = "memory", .type = OPT_SIZE, .value = "BYTES", .help = "memory limit" },
	[O_PIDS] = { .name = "pids", .type = OPT_INT, .value = "N", .help = "processes" },
	[O_CPU] = { .name = "cpu", .type = OPT_INT, .value = "PERCENT", .help = "cpu limit" },
	[O_FILE] = { .name = "file-bytes", .type = OPT_SIZE, .value = "BYTES", .help = "largest file" },
	[O_TMP] = { .name = "tmp-bytes", .type = OPT_SIZE, .value = "BYTES", .help = "size of /tmp" },
	[O_FILES] = { .name = "open-files", .type = OPT_INT, .value = "N", .help = "descriptors" },
	[O_PRINT] = { .name = "print", .type = OPT_FLAG, .help = "print the plan and end" },
	[O_ID] = { .name = "id", .type = OPT_STRING, .value = "ID", .help = "run id" },
	[O_USAGE] = { .name = "usage", .type = OPT_FLAG, .help = "print what the cgroup counted" },
	[O_REMOVE] = { .name = "remove-cgroup", .type = OPT_FLAG, .help = "clean up after a dead runner with this --id, and end" },
	{ .name = NULL },
};

/* "FROM:TO"; the strings live as long as the process. */
static void pair_split(const char *pair, const char **ret_from, const char **ret_to)
{
	const char *colon = strchr(pair, ':');

	*ret_from = colon ? mem_strndup(pair, (size_t)(colon - pair)) : pair;
	*ret_to = colon ? colon + 1 : pair;
}

static int64_t number_or(const struct opt_value *v, int64_t otherwise)
{
	return v->set ? v->number : otherwise;
}

static void layers_fill(const struct opt_value *v, struct sandbox_layers *l)
{
	l->mode = v[O_LOWER].list_len ? LAYERS_OVERLAY : LAYERS_PLAIN;
	for (int i = 0; i < v[O_LOWER].list_len && i < SANDBOX_LOWERS_MAX; i++)
		l->lower[l->lower_count++] = v[O_LOWER].list[i];
	l->upper = v[O_UPPER].text;
	l->work = v[O_WORK].text;
	l->merged = v[O_MERGED].text;
}

static void plan_fill(const struct opt_value *v, struct sandbox_plan *p)
{
	p->id = v[O_ID].set ? v[O_ID].text : "sbx-run";
	p->uid = (uid_t)number_or(&v[O_UID], (int64_t)geteuid());
	p->gid = (gid_t)number_or(&v[O_GID], (int64_t)getegid());
	layers_fill(v, &p->layers);
	for (int i = 0; i < v[O_BIND].list_len && i < SANDBOX_BINDS_MAX; i++, p->bind_count++)
		pair_split(v[O_BIND].list[i], &p->binds[i].from, &p->binds[i].to);
	p->home = v[O_HOME].text;
	p->gateway_dir = v[O_GATEWAY].text;
	p->gateway_port = (int)number_or(&v[O_PORT], 0);
	p->share_net = v[O_SHARE_NET].flag;
	p->init_path = v[O_INIT].text;
	p->limits = (struct sandbox_limits){
		.memory_bytes = v[O_MEMORY].number,
		.pids = v[O_PIDS].number,
		.cpu_percent = v[O_CPU].number,
		.file_bytes = v[O_FILE].number,
		.tmp_bytes = v[O_TMP].number,
		.open_files = v[O_FILES].number,
	};
	p->stdin_fd = 0;
	p->stdout_fd = 1;
	p->stderr_fd = 2;
}

static const char *const *environment_make(const struct opt_value *v)
{
	static const char *const usual[] = { "PATH=/usr/local/bin:/usr/bin:/bin", ("HOME=" SANDBOX_HOME), "LANG=C.UTF-8", "TMPDIR=/tmp" };
	const char **env = mem_alloc((ARRAY_SIZE(usual) + OPT_LIST_MAX + 1) * sizeof *env);
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
		env[n++] = usual[i];
	for (int i = 0; i < v->list_len; i++)
		env[n++] = v->list[i];
	return env;
}

static enum err_code root_part(const struct opt_value *v, struct sandbox_plan *p, struct error *e)
{
	enum err_code rc = ERR_OK;

	for (int i = 0; rc == ERR_OK && i < v[O_EXPOSE].list_len; i++) {
		const char *from, *at;

		pair_split(v[O_EXPOSE].list[i], &from, &at);
		rc = sandbox_expose(from, at, e);
	}
	if (rc == ERR_OK && v[O_CGROUP].flag)
		rc = cgroup_open(p->id, &p->limits, p->uid, &p->cgroup, e);
	if (rc == ERR_OK && v[O_DROP].flag && (setgroups(0, NULL) < 0 || setresgid(p->gid, p->gid, p->gid) < 0 || setresuid(p->uid, p->uid, p->uid) < 0))
		rc = error_errno(e, "drop root");
	return rc;
}

static void relay_until_over(struct sandbox *s, int signals)
{
	struct signalfd_siginfo info;

	for (;;) {
		struct pollfd f[] = { { .fd = s->pidfd, .events = POLLIN }, { .fd = signals, .events = POLLIN } };

		if (poll(f, ARRAY_SIZE(f), -1) < 0 && errno != EINTR)
			return;
		if (f[0].revents)
			return;
		if (f[1].revents && read(signals, &info, sizeof info) == sizeof info)
			sandbox_signal(s, (int)info.ssi_signo);
	}
}

static int signals_open(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static void usage_print(struct cgroup *g)
{
	struct cgroup_usage u;

	cgroup_usage(g, &u);
	fprintf(stderr, "confined by %s (%s): memory peak %lld, cpu %lld us, pids %lld, oom %d\n", sandbox_confinement_name(cgroup_kind(g)),
		cgroup_why(g), (long long)u.memory_peak, (long long)u.cpu_us, (long long)u.pids_now, u.oom_killed);
}

static enum err_code run(const struct opt_value *v, struct sandbox_plan *p, int *ret_status, struct error *e)
{
	struct sandbox s = SANDBOX_INIT_VALUE;
	enum err_code rc = root_part(v, p, e);

	if (rc == ERR_OK)
		rc = sandbox_start(p, &s, e);
	if (rc == ERR_OK) {
		relay_until_over(&s, signals_open());
		rc = sandbox_finish(&s, ret_status, e);
	}
	if (v[O_USAGE].flag)
		usage_print(p->cgroup);
	cgroup_close(p->cgroup);
	return rc;
}

int main(int argc, char **argv)
{
	struct opt_value v[O_COUNT] = { 0 };
	struct sandbox_plan plan = { 0 };
	struct error e = ERROR_INIT;
	AUTO_FREE char **rest = mem_alloc(((size_t)argc + 1) * sizeof *rest);
	int count = 0, status = 0;

	if (opt_parse(table, argc, argv, v, rest, &count, &e) != ERR_OK) {
		fprintf(stderr, "sbx_run: %s\n", e.text);
		return 2;
	}
	plan_fill(v, &plan);
	plan.argv = (const char *const *)(count > 0 && str_eq(rest[0], argv[0]) ? rest + 1 : rest);
	plan.env = environment_make(&v[O_ENV]);
	if (v[O_REMOVE].flag) {
		cgroup_remove_by_id(plan.id);
		return 0;
	}
	if (v[O_PRINT].flag) {
		AUTO_STRBUF struct strbuf out = STRBUF_INIT;
		sandbox_plan_print(&plan, &out);
		fputs(strbuf_str(&out), stdout);
		return 0;
	}
	if (run(v, &plan, &status, &e) != ERR_OK) {
		fprintf(stderr, "sbx_run: %s%s%s\n", e.text, e.hint[0] ? "; " : "", e.hint);
		return 126;
	}
	return status;
}
