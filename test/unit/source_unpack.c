/* An archive's entries under the rules: names, link targets, and what they are to one another. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/unpack.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const struct unpack_limits wide = { .files = 1000, .bytes = 1 << 30, .file_bytes = 1 << 30, .ratio = 100 };

static enum err_code check(const char *raw, char **ret_path, enum unpack_verdict *ret, struct error *e)
{
	*ret_path = NULL;
	return unpack_name_check(raw, ret_path, ret, e);
}

static void names_come_out_clean(void **state)
{
	static const char *const pairs[][2] = { { "a", "a" }, { "./a//b/./c", "a/b/c" }, { "a/", "a" }, { "a b/\xc3\xa4", "a b/\xc3\xa4" }, { "x\\y", "x\\y" }, { "..a/b..", "..a/b.." },
		{ "gitignore", "gitignore" }, { ".gitx", ".gitx" }, { "git~2", "git~2" } };
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct error e = ERROR_INIT;
		enum unpack_verdict verdict;
		AUTO_FREE char *path = NULL;
		assert_int_equal(check(pairs[i][0], &path, &verdict, &e), ERR_OK);
		assert_int_equal(verdict, UNPACK_TAKE);
		assert_string_equal(path, pairs[i][1]);
	}
}

static void hostile_names_are_refused_and_named(void **state)
{
	static const char *const bad[] = { "", "..", "a/../b", "/a", "\\a", "..\\a", "c:a", "a\nb", "\xff", ".GIT", ".git ", ".git.", ".git:x", "GIT~1", "a/.g\xe2\x80\x8cit/b", "\xef\xbb\xbf.git" };
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = ERROR_INIT;
		enum unpack_verdict verdict;
		AUTO_FREE char *path = NULL;
		assert_int_not_equal(check(bad[i], &path, &verdict, &e), ERR_OK);
		assert_true(str_starts(e.text, "entry '") && e.hint[0]);
		assert_null(strchr(e.text, '\n'));
	}
}

static void what_is_no_source_is_left_out(void **state)
{
	static const struct { const char *name; enum unpack_verdict verdict; } names[] = { { ".git", UNPACK_LEAVE_GIT }, { ".git/config", UNPACK_LEAVE_GIT }, { "a/b/.git/x", UNPACK_LEAVE_GIT },
		{ ".codex/tasks", UNPACK_LEAVE_OWN }, { "a/.codex/tasks/T.json", UNPACK_LEAVE_OWN }, { ".codex/tasksx", UNPACK_TAKE }, { "__MACOSX/._a", UNPACK_LEAVE_MAC }, { "a/__MACOSX", UNPACK_TAKE },
		{ ".", UNPACK_IS_TOP }, { "./", UNPACK_IS_TOP } };
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct error e = ERROR_INIT;
		enum unpack_verdict verdict;
		AUTO_FREE char *path = NULL;
		assert_int_equal(check(names[i].name, &path, &verdict, &e), ERR_OK);
		assert_int_equal(verdict, names[i].verdict);
	}
}

/* "f NAME", "d NAME", "l NAME TARGET", "h NAME TARGET" */
static enum err_code settle(const char *const *lines, const struct unpack_limits *limits, struct unpack_list *l, struct error *e)
{
	for (; *lines; lines++) {
		char name[64], target[64] = "";
		struct unpack_entry x = { .kind = UNPACK_FILE, .size = 10, .mark = 1 };
		assert_true(sscanf(*lines + 2, "%63s %63s", name, target) >= 1);
		x.kind = **lines == 'd' ? UNPACK_DIR : **lines == 'l' ? UNPACK_LINK : **lines == 'h' ? UNPACK_HARD : UNPACK_FILE;
		x.path = mem_strdup(name);
		x.target = *target ? mem_strdup(target) : NULL;
		assert_int_equal(unpack_list_add(l, &x, e), ERR_OK);
	}
	return unpack_list_settle(l, limits, e);
}

static void refused(const char *const *lines, const char *named)
{
	struct unpack_list l = { .v = NULL };
	struct error e = ERROR_INIT;
	assert_int_not_equal(settle(lines, &wide, &l, &e), ERR_OK);
	assert_non_null(strstr(e.text, named));
	unpack_list_release(&l);
}

#define LINES(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void entries_that_are_in_each_others_way_are_refused(void **state)
{
	(void)state;
	refused(LINES("f a", "f b", "f a"), "'a'");
	refused(LINES("d a", "f a"), "'a'");
	refused(LINES("f a/b", "f a"), "'a/b'");
	refused(LINES("l a .", "f a-b", "f a/b"), "'a/b'");
	refused(LINES("f a", "f a.b", "f a/b"), "'a/b'");
	refused(LINES("h a b", "f b"), "'a'");
	refused(LINES("h a a", "f b"), "'a'");
	refused(LINES("d a", "d a/b"), "no files");
}

static void links_that_lead_out_are_refused_however_they_go(void **state)
{
	(void)state;
	refused(LINES("f x", "l a .."), "'a'");
	refused(LINES("f x", "l a/b ../.."), "'a/b'");
	refused(LINES("f x", "l d/top ..", "l a d/top/.."), "'a'");
	refused(LINES("l a d/top/..", "l d/top ..", "f x"), "'a'");
	refused(LINES("f x", "l n1 n2", "l n2 n3", "l n3 ./..", "l a n1"), "leads out");
	refused(LINES("f p/x", "l p/a ../p/x"), "'a'"); /* once p is the top */
}

static void what_is_well_is_taken_and_a_single_top_comes_off(void **state)
{
	struct unpack_list l = { .v = NULL };
	struct error e = ERROR_INIT;
	(void)state;
	assert_int_equal(settle(LINES("d p", "f p/a", "d p/d", "d p/d", "f p/d/b", "l p/d/up ..", "l p/l d/up/a", "l p/loop loop", "h p/h p/a", "f p/A"), &wide, &l, &e), ERR_OK);
	assert_string_equal(l.top, "p");
	assert_int_equal(l.files, 7);
	assert_true(unpack_list_has_name(&l, "b"));
	assert_false(unpack_list_has_name(&l, "p"));
	unpack_list_release(&l);
}

static void a_top_stays_when_asked_or_when_it_is_not_alone(void **state)
{
	const struct unpack_limits keep = { .files = 10, .bytes = 1 << 20, .keep_top = true };
	struct error e = ERROR_INIT;
	struct unpack_list kept = { .v = NULL }, two = { .v = NULL }, file = { .v = NULL };
	(void)state;
	assert_int_equal(settle(LINES("f p/a"), &keep, &kept, &e), ERR_OK);
	assert_int_equal(settle(LINES("f p/a", "f pq/a"), &wide, &two, &e), ERR_OK);
	assert_int_equal(settle(LINES("f p"), &wide, &file, &e), ERR_OK);
	assert_null(kept.top);
	assert_null(two.top);
	assert_null(file.top);
	unpack_list_release(&kept);
	unpack_list_release(&two);
	unpack_list_release(&file);
}

static void hard_links_count_as_the_files_that_they_become(void **state)
{
	const struct unpack_limits tight = { .files = 10, .bytes = 25 };
	struct unpack_list l = { .v = NULL };
	struct error e = ERROR_INIT;
	(void)state;
	assert_int_equal(settle(LINES("f a", "h b a", "h c b"), &tight, &l, &e), ERR_TOO_LARGE);
	assert_non_null(strstr(e.text, "'c'"));
	unpack_list_release(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_come_out_clean),
		cmocka_unit_test(hostile_names_are_refused_and_named),
		cmocka_unit_test(what_is_no_source_is_left_out),
		cmocka_unit_test(entries_that_are_in_each_others_way_are_refused),
		cmocka_unit_test(links_that_lead_out_are_refused_however_they_go),
		cmocka_unit_test(what_is_well_is_taken_and_a_single_top_comes_off),
		cmocka_unit_test(a_top_stays_when_asked_or_when_it_is_not_alone),
		cmocka_unit_test(hard_links_count_as_the_files_that_they_become),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
