/* What a runner pays for the walls: sandbox_start to sandbox_finish of /bin/true, beside a plain bwrap of the same identity,
 * A B A B from one process.  Prints one JSON line.
 * usage: sandbox_time ROUNDS INIT UPPER UID -- bwrap ARGS... (UID is taken when we are root) */
#include "base/clock.h"
#include "base/err.h"
#include "base/proc.h"
#include "base/str.h"
#include "sandbox/sandbox.h"
#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS_MAX 10000
#define WARM_UP 3
#define END_WAIT_MS 10000
#define ARGS_BEFORE 6 /* argv[0] ... "--" */

static const char *const true_argv[] = { "/bin/true", NULL };
static const char *const env[] = { "PATH=/usr/bin:/bin", "HOME=" SANDBOX_HOME, NULL };

static enum err_code time_ours(struct sandbox_plan *p, double *ret_ms, struct error *e)
{
	struct sandbox s = SANDBOX_INIT_VALUE;
	int status = 0;
	int64_t from = clock_mono_us();
	enum err_code rc = sandbox_start(p, &s, e);
	if (rc)
		return rc;
	struct pollfd ended = { .fd = s.pidfd, .events = POLLIN };
	poll(&ended, 1, END_WAIT_MS);
	rc = sandbox_finish(&s, &status, e);
	*ret_ms = (double)(clock_mono_us() - from) / 1e3;
	return rc || !status ? rc : error_set(e, ERR_FAILED, "/bin/true ended with status %d in the sandbox", status);
}

static enum err_code time_plain(const char *const *argv, double *ret_ms, struct error *e)
{
	struct proc_spec spec = PROC_SPEC_INIT;
	struct proc p = PROC_INIT;
	int status = 0;
	spec.argv = argv;
	int64_t from = clock_mono_us();
	enum err_code rc = proc_start(&spec, &p, e);
	if (rc)
		return rc;
	rc = proc_wait(&p, END_WAIT_MS, &status, e);
	proc_release(&p);
	*ret_ms = (double)(clock_mono_us() - from) / 1e3;
	return rc || !status ? rc : error_set(e, ERR_FAILED, "plain bwrap ended with status %d", status);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void print(const char *name, double *ms, size_t n)
{
	qsort(ms, n, sizeof(*ms), by_value);
	printf("\"%s\":{\"p10\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f}", name, ms[n / 10], ms[n / 2], ms[n - 1 - n / 10], ms[n - 1 - n / 100]);
}

static enum err_code measure(struct sandbox_plan *plan, const char *const *plain, size_t rounds, struct error *e)
{
	double *ours = calloc(rounds, sizeof(double)), *theirs = calloc(rounds, sizeof(double)), a = 0, b = 0;
	enum err_code rc = ours && theirs ? ERR_OK : error_set(e, ERR_LIMIT, "no memory");
	for (size_t i = 0; !rc && i < rounds + WARM_UP; i++) {
		rc = time_ours(plan, &a, e);
		if (!rc)
			rc = time_plain(plain, &b, e);
		if (!rc && i >= WARM_UP) {
			ours[i - WARM_UP] = a;
			theirs[i - WARM_UP] = b;
		}
	}
	if (!rc) {
		printf("{\"rounds\":%zu,", rounds);
		print("a", ours, rounds);
		printf(",");
		print("b", theirs, rounds);
		printf("}\n");
	}
	free(ours);
	free(theirs);
	return rc;
}

int main(int argc, char **argv)
{
	struct error e = ERROR_INIT;
	int64_t rounds = 0, uid = 0;
	if (argc <= ARGS_BEFORE || strcmp(argv[ARGS_BEFORE - 1], "--") != 0 || str_to_i64(argv[1], "rounds", 1, ROUNDS_MAX, &rounds, &e) ||
		str_to_i64(argv[4], "uid", 1, UINT32_MAX - 1, &uid, &e)) {
		fprintf(stderr, "usage: sandbox_time ROUNDS INIT UPPER UID -- bwrap ARGS... %s\n", e.text);
		return 2;
	}
	if (geteuid() == 0 && (setgroups(0, NULL) || setresgid((gid_t)uid, (gid_t)uid, (gid_t)uid) || setresuid((uid_t)uid, (uid_t)uid, (uid_t)uid))) {
		fprintf(stderr, "sandbox_time: cannot become uid %lld\n", (long long)uid);
		return 1;
	}
	struct sandbox_plan plan = { .id = "bench", .uid = geteuid(), .gid = getegid(), .layers = { .mode = LAYERS_PLAIN, .upper = argv[3] },
		.init_path = argv[2], .argv = true_argv, .env = env, .stdin_fd = PROC_NULL, .stdout_fd = PROC_NULL, .stderr_fd = 2 };
	if (measure(&plan, (const char *const *)argv + ARGS_BEFORE, (size_t)rounds, &e)) {
		fprintf(stderr, "sandbox_time: %s\n", e.text);
		return 1;
	}
	return 0;
}
