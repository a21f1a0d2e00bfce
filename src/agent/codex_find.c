/* Where the native Codex program is: a configured path, the packages installed beside us from our lockfile, or PATH.  The npm package's
 * `codex` is a node script that starts the native one; we look through it. */
#include "agent/backend.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include <string.h>

#if defined(__aarch64__)
#define CODEX_NATIVE "@openai/codex-linux-arm64/vendor/aarch64-unknown-linux-musl/bin/codex"
#else
#define CODEX_NATIVE "@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex"
#endif

static char *native_below(const char *dir, const char *modules)
{
	char *path = mem_printf("%s/%s/%s", dir, modules, CODEX_NATIVE);
	if (file_is_executable(path))
		return path;
	free(path);
	return NULL;
}

/* PATH's codex may be a symbolic link into node_modules/@openai/codex/bin/codex.js. */
static char *native_behind(const char *found)
{
	AUTO_FREE char *real = NULL;
	if (file_realpath(found, &real, NULL))
		return NULL;
	char *at = strstr(real, "/@openai/codex/");
	if (!at)
		return mem_strdup(real);
	*at = 0;
	char *beside = native_below(real, ".");
	return beside ? beside : native_below(real, "@openai/codex/node_modules");
}

static char *search_path(void)
{
	AUTO_FREE char *dirs = mem_strdup(getenv("PATH"));
	for (char *save = NULL, *dir = dirs ? strtok_r(dirs, ":", &save) : NULL; dir; dir = strtok_r(NULL, ":", &save)) {
		AUTO_FREE char *candidate = file_join(dir, "codex");
		if (file_is_executable(candidate)) {
			char *native = native_behind(candidate);
			if (native)
				return native;
		}
	}
	return NULL;
}

enum err_code codex_find(const char *configured, char **ret_path, struct error *e)
{
	if (configured) {
		if (!file_is_executable(configured))
			return error_set(e, ERR_UNSUPPORTED, "Codex is configured as '%s', which is not an executable file", configured);
		*ret_path = native_behind(configured);
		return *ret_path ? ERR_OK : error_set(e, ERR_UNSUPPORTED, "no native Codex program behind '%s'", configured);
	}
	AUTO_FREE char *self = proc_self_path(); /* a file of that name also after an upgrade */
	AUTO_FREE char *exe = NULL;
	char *found = NULL;
	if (!file_realpath(self, &exe, NULL)) {
		AUTO_FREE char *dir = file_dirname(exe);
		found = native_below(dir, "../node_modules");
		found = found ? found : native_below(dir, "../lib/signalbox/node_modules");
	}
	found = found ? found : search_path();
	if (!found) {
		error_set(e, ERR_UNSUPPORTED, "Codex was not found");
		error_hint(e, "npm install -g @openai/codex, or set codex.path in the configuration; --agent command needs none");
		return ERR_UNSUPPORTED;
	}
	*ret_path = found;
	return ERR_OK;
}
