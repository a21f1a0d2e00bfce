/* Files and trees in a directory of their own: ceilings, atomic replacement, locks, and hostile trees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char *dir; /* of the present test */
static int dirfd_;
static struct error e;

static int set_up(void **state)
{
	(void)state;
	error_clear(&e);
	if (file_tmpdir(NULL, "base-file", &dir, &e) != ERR_OK)
		return -1;
	dirfd_ = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dirfd_ < 0;
}

static int tear_down(void **state)
{
	(void)state;
	enum err_code r = file_remove_tree(dir, &e);
	close(dirfd_);
	free(dir);
	return r != ERR_OK;
}

static void put(const char *name, const char *text)
{
	assert_int_equal(file_replace_at(dirfd_, name, text, strlen(text), 0644, FILE_NOSYNC, &e), ERR_OK);
}

static void assert_holds(const char *name, const char *text)
{
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;

	assert_int_equal(file_read_at(dirfd_, name, 1 << 20, &b, &e), ERR_OK);
	assert_string_equal(strbuf_str(&b), text);
}

static int count_entries(void)
{
	AUTO_FREE char *again = file_join(dir, ".");
	DIR *d = opendir(again);
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void a_file_over_the_ceiling_is_refused(void **state)
{
	AUTO_FREE char *path = file_join(dir, "f");

	(void)state;
	put("f", "12345");
	for (size_t max = 0; max < 8; max++) {
		AUTO_STRBUF struct strbuf b = STRBUF_INIT;
		assert_int_equal(file_read(path, max, &b, &e), max < 5 ? ERR_LIMIT : ERR_OK);
		if (max >= 5)
			assert_string_equal(strbuf_str(&b), "12345");
	}
	AUTO_STRBUF struct strbuf small = STRBUF_LIMIT(3);
	assert_int_equal(file_read(path, 3, &small, &e), ERR_LIMIT);
	assert_non_null(strstr(e.text, path));
}

static void a_large_file_and_one_without_a_size_are_read_whole(void **state)
{
	AUTO_FREE char *text = mem_alloc(300001);
	AUTO_STRBUF struct strbuf proc = STRBUF_INIT;

	(void)state;
	memset(text, 'x', 300000);
	put("f", text);
	assert_holds("f", text);
	assert_int_equal(file_read("/proc/self/status", 1 << 20, &proc, &e), ERR_OK);
	assert_true(proc.len > 100);
}

static void only_regular_files_are_read_below_a_directory(void **state)
{
	AUTO_STRBUF struct strbuf b = STRBUF_INIT;

	(void)state;
	put("f", "x");
	assert_int_equal(symlinkat("f", dirfd_, "link"), 0);
	assert_int_equal(mkfifoat(dirfd_, "fifo", 0600), 0);
	assert_int_equal(mkdirat(dirfd_, "d", 0700), 0);
	assert_int_equal(file_read_at(dirfd_, "link", 10, &b, &e), ERR_DENIED);
	assert_int_equal(file_read_at(dirfd_, "fifo", 10, &b, &e), ERR_INVALID);
	assert_int_equal(file_read_at(dirfd_, "d", 10, &b, &e), ERR_INVALID);
	assert_int_equal(file_read_at(dirfd_, "none", 10, &b, &e), ERR_NOT_FOUND);
	assert_int_equal(b.len, 0);
}

static void a_replaced_file_has_its_mode_and_leaves_nothing_beside_it(void **state)
{
	AUTO_FREE char *path = file_join(dir, "f");
	struct stat st;

	(void)state;
	put("f", "old");
	assert_int_equal(file_replace(path, "new", 3, 0640, FILE_SYNC, &e), ERR_OK);
	assert_holds("f", "new");
	assert_int_equal(fstatat(dirfd_, "f", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(count_entries(), 1);
}

static void a_failed_replacement_leaves_the_old_state(void **state)
{
	AUTO_FREE char *path = file_join(dir, "d");
	AUTO_FREE char *nowhere = file_join(dir, "none/f");

	(void)state;
	assert_int_equal(mkdirat(dirfd_, "d", 0700), 0);
	assert_int_not_equal(file_replace(path, "x", 1, 0600, FILE_NOSYNC, &e), ERR_OK);
	assert_non_null(strstr(e.text, "'d'"));
	assert_int_equal(file_replace(nowhere, "x", 1, 0600, FILE_NOSYNC, &e), ERR_NOT_FOUND);
	assert_int_equal(count_entries(), 1);
}

static void replacing_a_link_replaces_the_link(void **state)
{
	(void)state;
	put("f", "untouched");
	assert_int_equal(symlinkat("f", dirfd_, "link"), 0);
	put("link", "new");
	assert_holds("f", "untouched");
	assert_holds("link", "new");
}

static void directories_are_made_with_their_parents(void **state)
{
	AUTO_FREE char *path = file_join(dir, "a//b/c/");
	AUTO_FREE char *under_file = file_join(dir, "f/x");
	AUTO_FREE char *at_file = file_join(dir, "f");

	(void)state;
	put("f", "");
	assert_int_equal(file_mkdirs(path, 0700, &e), ERR_OK);
	assert_int_equal(file_mkdirs(path, 0700, &e), ERR_OK);
	assert_true(file_is_dir(path));
	assert_int_equal(file_mkdirs(dir, 0700, &e), ERR_OK);
	assert_int_equal(file_mkdirs("/", 0700, &e), ERR_OK);
	assert_int_not_equal(file_mkdirs(under_file, 0700, &e), ERR_OK);
	assert_int_equal(file_mkdirs(at_file, 0700, &e), ERR_CONFLICT);
}

static void a_tree_is_removed_without_following_links(void **state)
{
	AUTO_FREE char *tree = file_join(dir, "tree");
	AUTO_FREE char *sub = file_join(dir, "tree/a/b");
	AUTO_FREE char *link = file_join(dir, "link");

	(void)state;
	put("outside", "kept");
	assert_int_equal(mkdirat(dirfd_, "kept", 0700), 0);
	put("kept/f", "kept");
	assert_int_equal(file_mkdirs(sub, 0700, &e), ERR_OK);
	put("tree/a/f", "x");
	assert_int_equal(symlinkat("../kept", dirfd_, "tree/to_dir"), 0);
	assert_int_equal(symlinkat("../../outside", dirfd_, "tree/a/to_file"), 0);
	assert_int_equal(symlinkat("kept", dirfd_, "link"), 0);
	assert_int_equal(fchmodat(dirfd_, "tree/a", 0, 0), 0);
	assert_int_equal(file_remove_tree(tree, &e), ERR_OK);
	assert_false(file_exists(tree));
	assert_int_equal(file_remove_tree(link, &e), ERR_OK);
	assert_holds("outside", "kept");
	assert_holds("kept/f", "kept");
}

static void an_absent_tree_and_a_single_file_are_fine(void **state)
{
	AUTO_FREE char *absent = file_join(dir, "no/such");
	AUTO_FREE char *file = file_join(dir, "f");

	(void)state;
	put("f", "x");
	assert_int_equal(file_remove_tree(absent, &e), ERR_OK);
	assert_int_equal(file_remove_tree(file, &e), ERR_OK);
	assert_false(file_exists(file));
}

static void a_tree_without_a_name_is_not_removed(void **state)
{
	AUTO_FREE char *up = file_join(dir, "..");

	(void)state;
	assert_int_equal(file_remove_tree("/", &e), ERR_INVALID);
	assert_int_equal(file_remove_tree(up, &e), ERR_INVALID);
	assert_int_equal(file_remove_tree("", &e), ERR_INVALID);
	assert_true(file_is_dir(dir));
}

/* Deeper than any path and any number of descriptors. */
static void a_tree_of_any_depth_is_removed(void **state)
{
	AUTO_FREE char *tree = file_join(dir, "tree");
	int fd;

	(void)state;
	assert_int_equal(mkdirat(dirfd_, "tree", 0700), 0);
	fd = openat(dirfd_, "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 3000; i++) {
		assert_int_equal(mkdirat(fd, "down", 0700), 0);
		close(openat(fd, ".fold-0", O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); /* a name the removal might want */
		int next = openat(fd, "down", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(fd);
		fd = next;
	}
	close(fd);
	assert_int_equal(file_remove_tree(tree, &e), ERR_OK);
	assert_false(file_exists(tree));
}

static void a_copy_has_the_bytes_and_the_mode(void **state)
{
	AUTO_FREE char *from = file_join(dir, "from");
	AUTO_FREE char *to = file_join(dir, "to");
	AUTO_FREE char *text = mem_alloc(200001);
	struct stat st;

	(void)state;
	memset(text, 'y', 200000);
	put("from", text);
	assert_int_equal(file_copy(from, to, 0750, &e), ERR_OK);
	assert_holds("to", text);
	assert_int_equal(stat(to, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0750);
	assert_int_equal(file_copy(from, from, 0600, &e), ERR_OK);
	assert_holds("from", text);
	assert_int_equal(file_copy("/proc/self/status", to, 0600, &e), ERR_OK);
	assert_true(stat(to, &st) == 0 && st.st_size > 100);
	assert_int_equal(file_copy(dir, to, 0600, &e), ERR_IO);
	assert_int_equal(count_entries(), 2);
}

static void a_tree_is_handed_over_without_following_links(void **state)
{
	AUTO_FREE char *tree = file_join(dir, "tree");
	AUTO_FREE char *sub = file_join(dir, "tree/a/b/c");
	uid_t uid = getuid() ? getuid() : 4321;
	gid_t gid = getuid() ? getgid() : 4321;
	struct stat st;

	(void)state;
	put("outside", "x");
	assert_int_equal(file_mkdirs(sub, 0700, &e), ERR_OK);
	put("tree/a/b/f", "x");
	assert_int_equal(symlinkat("../outside", dirfd_, "tree/link"), 0);
	assert_int_equal(file_chown_tree(tree, uid, gid, &e), ERR_OK);
	static const char *const names[] = { "tree", "tree/a", "tree/a/b/c", "tree/a/b/f", "tree/link" };
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(fstatat(dirfd_, names[i], &st, AT_SYMLINK_NOFOLLOW), 0);
		assert_int_equal(st.st_uid, uid);
		assert_int_equal(st.st_gid, gid);
	}
	assert_int_equal(fstatat(dirfd_, "outside", &st, 0), 0);
	assert_int_equal(st.st_uid, getuid());
}

static void a_lock_has_one_holder(void **state)
{
	AUTO_FREE char *path = file_join(dir, "lock");
	AUTO_CLOSE int first = -1, second = -1;
	struct stat st;

	(void)state;
	assert_int_equal(file_lock(path, false, &first, &e), ERR_OK);
	assert_int_equal(file_lock(path, false, &second, &e), ERR_BUSY);
	assert_int_equal(second, -1);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(close(TAKE_FD(first)), 0);
	assert_int_equal(file_lock(path, true, &second, &e), ERR_OK);
	assert_int_equal(fcntl(second, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

static void names_that_lead_outside_are_told_apart(void **state)
{
	static const char *const good[] = { "a", "a/b", ".a", "..a", "a..", "a b", NULL };
	static const char *const bad[] = { "", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/..", "a/../b", NULL };
	AUTO_FREE char *longest = mem_alloc(4098);

	(void)state;
	for (int i = 0; good[i]; i++)
		assert_true(file_name_is_inside(good[i]));
	for (int i = 0; bad[i]; i++)
		assert_false(file_name_is_inside(bad[i]));
	assert_false(file_name_is_inside(NULL));
	memset(longest, 'a', 4096);
	assert_true(file_name_is_inside(longest));
	longest[4096] = 'a';
	assert_false(file_name_is_inside(longest));
}

static void nothing_is_opened_through_a_link(void **state)
{
	AUTO_FREE char *sub = file_join(dir, "d/e");
	int fd = -1;

	(void)state;
	assert_int_equal(file_mkdirs(sub, 0700, &e), ERR_OK);
	put("d/e/f", "x");
	assert_int_equal(symlinkat("d", dirfd_, "link"), 0);
	assert_int_equal(symlinkat("/etc", dirfd_, "etc"), 0);
	assert_int_equal(file_open_beneath(dirfd_, "link/e/f", O_RDONLY, &fd, &e), ERR_DENIED);
	assert_int_equal(file_open_beneath(dirfd_, "etc/passwd", O_RDONLY, &fd, &e), ERR_DENIED);
	assert_int_equal(file_open_beneath(dirfd_, "link", O_PATH, &fd, &e), ERR_DENIED);
	assert_int_equal(file_open_beneath(dirfd_, "d/../d/e/f", O_RDONLY, &fd, &e), ERR_INVALID);
	assert_int_equal(file_open_beneath(dirfd_, "d/none", O_RDONLY, &fd, &e), ERR_NOT_FOUND);
	assert_int_equal(fd, -1);
	assert_int_equal(file_open_beneath(dirfd_, "d/e/f", O_RDONLY, &fd, &e), ERR_OK);
	close(fd);
	assert_int_equal(file_open_beneath(dirfd_, "d/e/g", O_WRONLY | O_CREAT | O_EXCL, &fd, &e), ERR_OK);
	close(fd);
	assert_holds("d/e/g", "");
}

static void paths_are_taken_apart_and_put_together(void **state)
{
	static const char *const cases[][2] = { { "a/b", "a" }, { "a", "." }, { "/a", "/" }, { "/", "/" }, { "a/b/", "a" }, { "a//b", "a" }, { "", "." } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		AUTO_FREE char *d = file_dirname(cases[i][0]);
		assert_string_equal(d, cases[i][1]);
	}
	AUTO_FREE char *a = file_join("x", "y");
	AUTO_FREE char *b = file_join("/", "y");
	AUTO_FREE char *c = file_join("", "y");
	assert_string_equal(a, "x/y");
	assert_string_equal(b, "/y");
	assert_string_equal(c, "y");
	AUTO_FREE char *real = NULL;
	assert_int_equal(file_realpath("/usr/../usr/.", &real, &e), ERR_OK);
	assert_string_equal(real, "/usr");
	assert_true(file_is_executable("/bin/sh"));
	assert_false(file_is_executable("/usr"));
	assert_int_equal(file_sync_dir(dir, &e), ERR_OK);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_file_over_the_ceiling_is_refused),
		TEST(a_large_file_and_one_without_a_size_are_read_whole),
		TEST(only_regular_files_are_read_below_a_directory),
		TEST(a_replaced_file_has_its_mode_and_leaves_nothing_beside_it),
		TEST(a_failed_replacement_leaves_the_old_state),
		TEST(replacing_a_link_replaces_the_link),
		TEST(directories_are_made_with_their_parents),
		TEST(a_tree_is_removed_without_following_links),
		TEST(an_absent_tree_and_a_single_file_are_fine),
		TEST(a_tree_without_a_name_is_not_removed),
		TEST(a_tree_of_any_depth_is_removed),
		TEST(a_copy_has_the_bytes_and_the_mode),
		TEST(a_tree_is_handed_over_without_following_links),
		TEST(a_lock_has_one_holder),
		TEST(names_that_lead_outside_are_told_apart),
		TEST(nothing_is_opened_through_a_link),
		TEST(paths_are_taken_apart_and_put_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
