/* Who needs the gateway: told by a lock, at times that the test makes up. */
#include "gateway/users.h"
#include "base/cleanup.h"
#include "base/file.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>
#include <cmocka.h>

#define LINGER_MS 8000

struct site {
	char *dir, *path;
	struct users users;
};

static int set_up(void **state)
{
	struct site *s = calloc(1, sizeof(*s));
	assert_int_equal(file_tmpdir("/tmp", "users-", &s->dir, NULL), ERR_OK);
	s->path = file_join(s->dir, "lock");
	assert_int_equal(users_open(s->path, LINGER_MS, &s->users, NULL), ERR_OK);
	*state = s;
	return 0;
}

static int tear_down(void **state)
{
	struct site *s = *state;
	users_release(&s->users);
	assert_int_equal(file_remove_tree(s->dir, NULL), ERR_OK);
	free(s->dir);
	free(s->path);
	free(s);
	return 0;
}

static int hold(const struct site *s, int how)
{
	int fd = open(s->path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	if (flock(fd, how | LOCK_NB) == 0)
		return fd;
	close(fd);
	return -1;
}

static void whoever_holds_the_lock_is_there_however_long(void **state)
{
	struct site *s = *state;
	int one = hold(s, LOCK_SH), other = hold(s, LOCK_SH);
	for (int64_t now = 1; now < 10 * LINGER_MS; now += LINGER_MS / 4)
		assert_false(users_are_gone(&s->users, now));
	close(one);
	assert_false(users_are_gone(&s->users, 11 * LINGER_MS));
	assert_false(users_are_gone(&s->users, 13 * LINGER_MS));
	close(other);
	assert_false(users_are_gone(&s->users, 20 * LINGER_MS)); /* from now on it is alone */
	assert_true(users_are_gone(&s->users, 21 * LINGER_MS));
}

static void who_comes_back_in_time_is_not_counted_as_gone(void **state)
{
	struct site *s = *state;
	assert_false(users_are_gone(&s->users, 1));
	int fd = hold(s, LOCK_SH); /* between two looks the lock is free */
	assert_true(fd >= 0);
	assert_false(users_are_gone(&s->users, 1 + LINGER_MS));
	close(fd);
	assert_false(users_are_gone(&s->users, 1 + 2 * LINGER_MS));
	assert_true(users_are_gone(&s->users, 1 + 3 * LINGER_MS));
}

static void a_descriptor_that_was_handed_on_holds_it_too(void **state)
{
	struct site *s = *state;
	int server = hold(s, LOCK_SH), runner = dup(server);
	close(server);
	assert_false(users_are_gone(&s->users, 1));
	assert_false(users_are_gone(&s->users, 1 + 2 * LINGER_MS));
	close(runner);
}

static void once_it_is_alone_nobody_takes_the_lock_before_it_has_ended(void **state)
{
	struct site *s = *state;
	assert_false(users_are_gone(&s->users, 1));
	assert_true(users_are_gone(&s->users, 1 + LINGER_MS));
	assert_int_equal(hold(s, LOCK_SH), -1);
	users_release(&s->users);
	int fd = hold(s, LOCK_SH);
	assert_true(fd >= 0);
	close(fd);
}

static void without_a_file_it_is_never_alone(void **state)
{
	struct users u;
	(void)state;
	assert_int_equal(users_open(NULL, LINGER_MS, &u, NULL), ERR_OK);
	assert_false(users_are_gone(&u, INT64_MAX));
	assert_true(users_next_ms(&u) == INT64_MAX);
	users_release(&u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(whoever_holds_the_lock_is_there_however_long, set_up, tear_down),
		cmocka_unit_test_setup_teardown(who_comes_back_in_time_is_not_counted_as_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_descriptor_that_was_handed_on_holds_it_too, set_up, tear_down),
		cmocka_unit_test_setup_teardown(once_it_is_alone_nobody_takes_the_lock_before_it_has_ended, set_up, tear_down),
		cmocka_unit_test(without_a_file_it_is_never_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
