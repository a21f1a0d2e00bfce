/* The heartbeat file: no link is followed in directories that are others', a stopped holder of the lock holds nobody up. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/statefile.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

struct site {
	char *dir, *repo, *elsewhere, *mirror;
};

static int site_make(void **state)
{
	struct site *s = NEW(struct site);
	assert_int_equal(file_tmpdir("/tmp", "statefile-", &s->dir, NULL), ERR_OK);
	s->repo = file_join(s->dir, "repo");
	s->elsewhere = file_join(s->dir, "elsewhere");
	s->mirror = file_join(s->repo, ".codex/tasks");
	assert_int_equal(mkdir(s->repo, 0755), 0);
	assert_int_equal(mkdir(s->elsewhere, 0755), 0);
	*state = s;
	return 0;
}

static int site_drop(void **state)
{
	struct site *s = *state;
	assert_int_equal(file_remove_tree(s->dir, NULL), ERR_OK);
	free(s->dir);
	free(s->repo);
	free(s->elsewhere);
	free(s->mirror);
	free(s);
	return 0;
}

static const struct statefile some = { .task_id = "t", .session_id = "s", .status = "RUNNING", .run = 2 };

static void the_file_is_written_beside_a_gitignore_of_its_own(void **state)
{
	struct site *s = *state;
	AUTO_FREE char *file = file_join(s->mirror, "a.json");
	AUTO_FREE char *ignore = file_join(s->mirror, ".gitignore");
	assert_int_equal(statefile_prepare_mirror(s->mirror, NULL), ERR_OK);
	assert_int_equal(statefile_write(s->mirror, "a.json", NULL, &some, NULL), ERR_OK);
	assert_true(file_exists(file) && file_exists(ignore));
}

static void a_directory_that_is_a_link_is_refused(void **state)
{
	struct site *s = *state;
	AUTO_FREE char *link = file_join(s->repo, ".codex");
	AUTO_FREE char *made = file_join(s->elsewhere, "tasks");
	assert_int_equal(symlink(s->elsewhere, link), 0);
	assert_int_not_equal(statefile_prepare_mirror(s->mirror, NULL), ERR_OK);
	assert_false(file_exists(made));
	assert_int_equal(mkdir(made, 0755), 0);
	assert_int_not_equal(statefile_write(s->mirror, "a.json", NULL, &some, NULL), ERR_OK);
	assert_int_equal(rmdir(made), 0); /* nothing was put into it */
}

static void an_older_run_does_not_write_over_a_newer_ones_file(void **state)
{
	struct site *s = *state;
	struct statefile older = some;
	older.run = 1;
	assert_int_equal(statefile_prepare_mirror(s->mirror, NULL), ERR_OK);
	assert_int_equal(statefile_write(s->mirror, "a.json", NULL, &some, NULL), ERR_OK);
	assert_int_equal(statefile_write(s->mirror, "a.json", NULL, &older, NULL), ERR_STALE);
}

static void a_lock_that_is_never_given_back_is_not_waited_for_for_ever(void **state)
{
	struct site *s = *state;
	AUTO_CLOSE int held = -1;
	AUTO_FREE char *lock = file_join(s->dir, "lock");
	assert_int_equal(statefile_prepare_mirror(s->mirror, NULL), ERR_OK);
	assert_int_equal(file_lock(lock, false, &held, NULL), ERR_OK);
	assert_int_equal(statefile_write(s->mirror, "a.json", lock, &some, NULL), ERR_BUSY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_file_is_written_beside_a_gitignore_of_its_own, site_make, site_drop),
		cmocka_unit_test_setup_teardown(a_directory_that_is_a_link_is_refused, site_make, site_drop),
		cmocka_unit_test_setup_teardown(an_older_run_does_not_write_over_a_newer_ones_file, site_make, site_drop),
		cmocka_unit_test_setup_teardown(a_lock_that_is_never_given_back_is_not_waited_for_for_ever, site_make, site_drop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
