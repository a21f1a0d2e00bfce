/* Listening sockets: addresses, dead and living ones, who may connect. */
#include "net_site.h"
#include <sys/stat.h>

static int setup(void **state)
{
	struct site *f = NEW(struct site);
	site_init(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	site_release(*state);
	free(*state);
	return 0;
}

static void a_socket_path_over_the_limit_is_refused_with_the_limit(void **state)
{
	struct site *f = *state;
	struct error e = ERROR_INIT;
	AUTO_STRBUF struct strbuf path = STRBUF_INIT;
	strbuf_adds(&path, f->dir);
	strbuf_addc(&path, '/');
	while (path.len < 108)
		strbuf_addc(&path, 'p');
	int fd = -1;
	assert_int_equal(http_listen_unix(path.data, 0600, &fd, &e), ERR_INVALID);
	assert_non_null(strstr(e.text, "107"));
	path.data[107] = '\0';
	assert_int_equal(http_listen_unix(path.data, 0600, &fd, &e), ERR_OK);
	close(fd);
}

static void a_living_socket_is_not_taken_over_and_a_dead_one_is(void **state)
{
	struct site *f = *state;
	struct error e = ERROR_INIT;
	int first = -1, second = -1;
	assert_int_equal(http_listen_unix(f->path, 0600, &first, &e), ERR_OK);
	assert_int_equal(http_listen_unix(f->path, 0600, &second, &e), ERR_CONFLICT);
	assert_non_null(strstr(e.text, f->path));
	close(first);
	assert_int_equal(http_listen_unix(f->path, 0660, &second, &e), ERR_OK);
	struct stat st;
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	close(second);
	AUTO_FREE char *plain = file_join(f->dir, "plain");
	assert_int_equal(file_replace(plain, "x", 1, 0600, FILE_NOSYNC, &e), ERR_OK);
	assert_int_equal(http_listen_unix(plain, 0600, &second, &e), ERR_CONFLICT);
	assert_true(file_exists(plain));
}

static void tcp_addresses_are_parsed(void **state)
{
	(void)state;
	static const char *const bad[] = { "", "localhost", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "::1:80", ":80", "[::1]", "256.1.1.1:80" };
	struct error e = ERROR_INIT;
	int fd = -1, port = 0, again = -1;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_not_equal(http_listen_tcp(bad[i], &fd, &port, &e), ERR_OK);
	assert_int_equal(http_listen_tcp("127.0.0.1:0", &fd, &port, &e), ERR_OK);
	assert_true(port > 0);
	AUTO_FREE char *taken = mem_printf("127.0.0.1:%d", port);
	assert_int_not_equal(http_listen_tcp(taken, &again, &port, &e), ERR_OK);
	assert_non_null(strstr(e.text, taken));
	close(fd);
	if (http_listen_tcp("[::1]:0", &fd, &port, &e) == ERR_OK) /* where the machine has IPv6 */
		close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_socket_path_over_the_limit_is_refused_with_the_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(a_living_socket_is_not_taken_over_and_a_dead_one_is, setup, teardown),
		cmocka_unit_test_setup_teardown(tcp_addresses_are_parsed, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
