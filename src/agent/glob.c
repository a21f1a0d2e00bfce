/* Patterns of rules: the last star is the only one that ever has to be tried again. */
#include "agent/glob.h"
#include <stddef.h>

bool glob_word(const char *pattern, const char *word)
{
	const char *star = NULL, *again = NULL;
	while (*word) {
		if (*pattern == '*') {
			star = ++pattern;
			again = word;
		} else if (*pattern == '?' || *pattern == *word) {
			pattern++;
			word++;
		} else if (star) {
			pattern = star;
			word = ++again;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == 0;
}

/* Where to try again: behind which star, from which byte of the path. */
struct retry {
	const char *star, *again;
	bool names; /* only at the beginning of a name: for a double star and slash */
};

static bool next_try(struct retry *r, bool across)
{
	if (!r->star || !*r->again || (!across && *r->again == '/'))
		return false;
	while (r->names && *r->again != '/')
		if (!*++r->again)
			return false;
	r->again++;
	return true;
}

/* A double star at `pattern`: what stands behind it is tried everywhere. */
static struct retry begin_all(const char *pattern, const char *path, bool at_name)
{
	while (*pattern == '*')
		pattern++;
	bool names = at_name && *pattern == '/';
	return (struct retry){ pattern + names, path, names };
}

bool glob_path(const char *pattern, const char *path)
{
	const char *start = pattern;
	struct retry one = { .star = NULL }, all = { .star = NULL };
	while (*pattern || *path) {
		if (pattern[0] == '*' && pattern[1] == '*') {
			all = begin_all(pattern, path, pattern == start || pattern[-1] == '/');
			one.star = NULL;
			pattern = all.star;
		} else if (*pattern == '*') {
			one = (struct retry){ ++pattern, path, false };
		} else if (*path && (*pattern == *path || (*pattern == '?' && *path != '/'))) {
			pattern++;
			path++;
		} else if (next_try(&one, false)) {
			pattern = one.star;
			path = one.again;
		} else if (next_try(&all, true)) {
			one.star = NULL;
			pattern = all.star;
			path = all.again;
		} else {
			return false;
		}
	}
	return true;
}
