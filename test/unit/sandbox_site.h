/* What the tests of the sandbox share: directories of an agent's uid, a plan over them, and the output of one agent.
 * SIGNALBOX_INIT names signalbox-init; else it is looked for in the directories above the test program. */
#pragma once
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "sandbox/sandbox.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 120000	   /* for what must come; a test that gets there has failed */
#define AGENT_UID 31007u   /* need not be in passwd */
#define OUTPUT_MAX ((size_t)1 << 20)

struct site {
	char *dir, *lower, *upper, *work, *merged, *home, *init;
	uid_t uid;
	gid_t gid;
	struct sandbox_plan plan;
	const char *argv[4];
};

static const char *const site_env[] = { "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" SANDBOX_HOME, "SECRET=s3cr3t", NULL };

static inline char *site_find_init(void)
{
	const char *named = getenv("SIGNALBOX_INIT");
	char *dir = proc_self_path();

	if (named)
		return mem_strdup(named);
	while (dir && strlen(dir) > 1) {
		char *up = file_dirname(dir);
		AUTO_FREE char *candidate = file_join(up, "signalbox-init");

		free(dir);
		dir = up;
		if (file_is_executable(candidate)) {
			free(dir);
			return TAKE_PTR(candidate);
		}
	}
	fail_msg("signalbox-init is not above the test program; set SIGNALBOX_INIT");
	return NULL;
}

static inline char *site_dir(struct site *s, const char *name)
{
	struct error e = ERROR_INIT;
	char *path = file_join(s->dir, name);

	assert_int_equal(file_mkdirs(path, 0755, &e), ERR_OK);
	if (geteuid() == 0)
		assert_int_equal(chown(path, s->uid, s->gid), 0);
	return path;
}

static inline void site_write(const struct site *s, const char *dir, const char *name, const char *text)
{
	struct error e = ERROR_INIT;
	AUTO_FREE char *path = file_join(dir, name);

	assert_int_equal(file_replace(path, text, strlen(text), 0644, FILE_NOSYNC, &e), ERR_OK);
	if (geteuid() == 0)
		assert_int_equal(chown(path, s->uid, s->gid), 0);
}

static inline void site_plan(struct site *s)
{
	s->plan = (struct sandbox_plan){
		.id = "unit-test", .uid = s->uid, .gid = s->gid, .home = s->home, .env = site_env, .argv = s->argv, .init_path = s->init,
		.layers = { .mode = LAYERS_OVERLAY, .lower = { s->lower }, .lower_count = 1, .upper = s->upper, .work = s->work, .merged = s->merged },
		.stdin_fd = PROC_NULL, .stdout_fd = PROC_NULL, .stderr_fd = PROC_NULL,
	};
}

static inline int site_setup(void **state)
{
	struct error e = ERROR_INIT;
	struct site *s = NEW(struct site);
	AUTO_FREE char *init = site_find_init();

	s->uid = geteuid() == 0 ? AGENT_UID : geteuid();
	s->gid = geteuid() == 0 ? AGENT_UID : getegid();
	assert_int_equal(file_tmpdir("/tmp", "sbsandbox", &s->dir, &e), ERR_OK);
	assert_int_equal(chmod(s->dir, 0755), 0);
	s->lower = site_dir(s, "lower");
	s->upper = site_dir(s, "upper");
	s->work = site_dir(s, "work");
	s->merged = site_dir(s, "merged");
	s->home = site_dir(s, "home");
	s->init = file_join(s->dir, "signalbox-init"); /* the build tree may be out of the agent's reach */
	if (file_copy(init, s->init, 0755, &e) != ERR_OK)
		fail_msg("%s", e.text);
	site_write(s, s->lower, "old", "old text\n");
	site_plan(s);
	*state = s;
	return 0;
}

static inline int site_teardown(void **state)
{
	struct site *s = *state;
	struct error e = ERROR_INIT;

	if (file_remove_tree(s->dir, &e) != ERR_OK)
		fail_msg("%s", e.text);
	char *all[] = { s->dir, s->lower, s->upper, s->work, s->merged, s->home, s->init };
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		free(all[i]);
	free(s);
	return 0;
}

static inline void site_shell(struct site *s, const char *script)
{
	s->argv[0] = "/bin/sh";
	s->argv[1] = "-c";
	s->argv[2] = script;
	s->argv[3] = NULL;
}

static inline void wait_readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n;

	do
		n = poll(&p, 1, WAIT_MS);
	while (n < 0 && errno == EINTR);
	assert_int_equal(n, 1);
}

static inline int site_finish(struct sandbox *b)
{
	struct error e = ERROR_INIT;
	int status = -1;

	wait_readable(b->pidfd);
	if (sandbox_finish(b, &status, &e) != ERR_OK)
		fail_msg("%s", e.text);
	return status;
}

static inline void site_start(struct site *s, struct sandbox *b)
{
	struct error e = ERROR_INIT;

	if (sandbox_start(&s->plan, b, &e) != ERR_OK)
		fail_msg("%s", e.text);
}

/* Runs a shell script in the sandbox to its end; its output (stdout and stderr) is the caller's to free. */
static inline char *site_run(struct site *s, const char *script, int *ret_status)
{
	struct sandbox b = SANDBOX_INIT_VALUE;
	struct error e = ERROR_INIT;
	struct strbuf out = STRBUF_LIMIT(OUTPUT_MAX);
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	site_shell(s, script);
	s->plan.stdout_fd = s->plan.stderr_fd = fds[1];
	site_start(s, &b);
	close(fds[1]);
	s->plan.stdout_fd = s->plan.stderr_fd = PROC_NULL;
	assert_int_equal(file_read_fd(fds[0], OUTPUT_MAX, &out, &e), ERR_OK);
	close(fds[0]);
	*ret_status = site_finish(&b);
	return strbuf_detach(&out);
}

static inline char *site_run_ok(struct site *s, const char *script)
{
	int status = -1;
	char *out = site_run(s, script, &status);

	if (status != 0)
		fail_msg("status %d: %s", status, out);
	return out;
}
