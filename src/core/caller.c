/* Names of projects. */
#include "core/caller.h"
#include <string.h>

enum err_code project_check(const char *name, struct error *e)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
	size_t n = strlen(name);
	/* `empty` is the directory of those who have no code; projects' caches are beside it. */
	if (n > 0 && n < PROJECT_SIZE && name[0] != '-' && strspn(name, letters) == n && !str_eq(name, "empty"))
		return ERR_OK;
	error_set(e, ERR_INVALID, "project '%.80s': expected 1 to %d lowercase letters, digits and dashes, not beginning with a dash, and not 'empty'", name, PROJECT_SIZE - 1);
	error_hint(e, "a project exists when there is a token for it: signalbox token create NAME --project PROJECT");
	return ERR_INVALID;
}
