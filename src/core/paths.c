/* Where things live on this host. */
#include "core/paths.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char *env_path(const char *name)
{
	const char *v = getenv(name);
	return str_empty(v) ? NULL : mem_strdup(v);
}

char *paths_data_dir(void)
{
	char *given = env_path("SIGNALBOX_DATA");
	if (given)
		return given;
	/* A root server's sandboxes run as another uid, which must be able to reach the data: not below /root. */
	if (geteuid() == 0)
		return mem_strdup("/var/lib/signalbox");
	AUTO_FREE char *xdg = env_path("XDG_DATA_HOME");
	if (xdg)
		return file_join(xdg, "signalbox");
	const char *home = getenv("HOME");
	return mem_printf("%s/.local/share/signalbox", str_empty(home) ? "/tmp" : home);
}

char *paths_runtime_dir(void)
{
	char *given = env_path("SIGNALBOX_RUNTIME");
	if (given)
		return given;
	if (geteuid() == 0)
		return mem_strdup("/run/signalbox");
	AUTO_FREE char *xdg = env_path("XDG_RUNTIME_DIR");
	if (xdg && file_is_dir(xdg))
		return file_join(xdg, "signalbox");
	return mem_printf("/tmp/signalbox-%u", (unsigned)geteuid());
}

char *paths_socket(const char *runtime_dir)
{
	return file_join(runtime_dir, PATHS_SOCKET_NAME);
}

static void list_add(char **list, size_t *n, char *path)
{
	if (path && file_exists(path))
		list[(*n)++] = path;
	else
		free(path);
}

char **paths_config_files(void)
{
	char **list = mem_alloc(5 * sizeof(char *));
	size_t n = 0;
	list_add(list, &n, env_path("SIGNALBOX_CONFIG"));
	list_add(list, &n, mem_strdup(".signalbox.yaml"));
	AUTO_FREE char *xdg = env_path("XDG_CONFIG_HOME");
	const char *home = getenv("HOME");
	if (xdg)
		list_add(list, &n, mem_printf("%s/signalbox/config.yaml", xdg));
	else if (home)
		list_add(list, &n, mem_printf("%s/.config/signalbox/config.yaml", home));
	list_add(list, &n, mem_strdup("/etc/signalbox/config.yaml"));
	return list;
}

void paths_free_list(char **list)
{
	for (char **p = list; p && *p; p++)
		free(*p);
	free(list);
}

enum err_code paths_make_runtime(const char *dir, struct error *e)
{
	enum err_code rc = file_mkdirs(dir, 0711, e);
	if (rc)
		return rc;
	struct stat st;
	if (lstat(dir, &st) < 0)
		return error_errno(e, "look at the runtime directory '%s'", dir);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
		error_set(e, ERR_DENIED, "the runtime directory '%s' belongs to somebody else", dir);
		error_hint(e, "set SIGNALBOX_RUNTIME to a directory of yours");
		return ERR_DENIED;
	}
	return ERR_OK;
}
