/* A tree from another one and a list of changes, by git fast-import, which reads only the directories that change. */
#pragma once
#include "source/diff_walk.h"
#include "source/git.h"

/* Out of `base` (a tree when base_is_tree, else a commit) go the paths in `remove`, in come the entries of the index at index_path
 * (NULL: none). The ids of all named files exist already. *ret_tree is the result's tree id. */
MUST_USE enum err_code diff_import(const struct git *g, const char *base, bool base_is_tree, const struct name_list *remove,
	const char *index_path, char **ret_tree, struct error *e);
