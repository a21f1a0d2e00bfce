/* Looking for programs of agents. */
#include "agent/find.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include <stdlib.h>
#include <string.h>

#define PACKAGE_MAX ((size_t)1 << 20) /* bytes of a package.json */
#define PACKAGE_LEVELS 3	      /* directories above the program that may be its package's */

char *find_modules(const char *relative)
{
	static const char *const places[] = { "../node_modules", "../lib/signalbox/node_modules", "../../lib/signalbox/node_modules" };
	AUTO_FREE char *self = proc_self_path();
	AUTO_FREE char *exe = NULL;
	if (file_realpath(self, &exe, NULL))
		return NULL;
	AUTO_FREE char *dir = file_dirname(exe);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		AUTO_FREE char *modules = file_join(dir, places[i]);
		AUTO_FREE char *file = file_join(modules, relative);
		char *real = NULL;
		if (file_exists(file) && !file_realpath(modules, &real, NULL))
			return real;
	}
	return NULL;
}

char *find_on_path(const char *program)
{
	AUTO_FREE char *dirs = mem_strdup(getenv("PATH"));
	for (char *save = NULL, *dir = dirs ? strtok_r(dirs, ":", &save) : NULL; dir; dir = strtok_r(NULL, ":", &save)) {
		AUTO_FREE char *candidate = file_join(dir, program);
		char *real = NULL;
		if (file_is_executable(candidate) && !file_realpath(candidate, &real, NULL))
			return real;
	}
	return NULL;
}

char *find_version(const char *program)
{
	AUTO_FREE char *dir = file_dirname(program);
	for (int level = 0; level < PACKAGE_LEVELS; level++) {
		AUTO_FREE char *path = file_join(dir, "package.json");
		AUTO_JS struct js *package = js_load(path, PACKAGE_MAX, NULL);
		if (js_str(package, "version"))
			return mem_strdup(js_str(package, "version"));
		char *above = file_dirname(dir);
		free(dir);
		dir = above;
	}
	return NULL;
}

bool find_version_is_at_least(const char *version, int64_t major, int64_t minor)
{
	char *end = NULL;
	long long is_major = version ? strtoll(version, &end, 10) : -1;
	if (is_major < 0 || end == version || *end != '.')
		return true;
	long long is_minor = strtoll(end + 1, NULL, 10);
	return is_major > major || (is_major == major && is_minor >= minor);
}
