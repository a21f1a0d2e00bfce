/* The file of servers. */
#include "cli/servers.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SERVERS_FILE_MAX ((size_t)1 << 20)

char *servers_path(void)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	if (!str_empty(xdg) && xdg[0] == '/')
		return mem_printf("%s/signalbox/servers.json", xdg);
	return mem_printf("%s/.config/signalbox/servers.json", str_empty(home) ? "" : home);
}

static enum err_code check_private(const char *path, struct error *e)
{
	struct stat st;
	if (stat(path, &st) || (st.st_uid == geteuid() && !(st.st_mode & 077)))
		return ERR_OK;
	error_set(e, ERR_DENIED, "'%s' holds tokens, and others may read or own it", path);
	error_hint(e, "chmod 600 %s", path);
	return ERR_DENIED;
}

enum err_code servers_load(struct js **ret, struct error *e)
{
	AUTO_FREE char *path = servers_path();
	if (!file_exists(path)) {
		*ret = js_object();
		return ERR_OK;
	}
	enum err_code rc = check_private(path, e);
	if (rc)
		return rc;
	*ret = js_load(path, SERVERS_FILE_MAX, e);
	return *ret ? ERR_OK : error_wrap(e, "read the servers in '%s'", path);
}

enum err_code servers_save(const struct js *all, struct error *e)
{
	AUTO_FREE char *path = servers_path();
	AUTO_FREE char *dir = file_dirname(path);
	AUTO_FREE char *text = js_pretty(all);
	enum err_code rc = file_mkdirs(dir, 0700, e);
	return rc ? rc : file_replace(path, text, strlen(text), 0600, FILE_SYNC, e);
}

const char *servers_current(const struct js *all)
{
	return js_str_or(all, "current", LOCAL_SERVER);
}

struct js *servers_get(const struct js *all, const char *name)
{
	return js_get(js_get(all, "servers"), name);
}

struct js *servers_by_url(const struct js *all, const char *url)
{
	for (struct js_iter it = js_iter(js_get(all, "servers")); it.key; js_next(&it))
		if (str_eq(js_str(it.value, "url"), url))
			return it.value;
	return NULL;
}

enum err_code servers_check_url(const char *text, char **ret, struct error *e)
{
	bool has_scheme = strstr(text, "://") != NULL;
	AUTO_FREE char *url = has_scheme ? mem_strdup(text) : mem_printf("https://%s", text);
	size_t n = strlen(url);
	while (n && url[n - 1] == '/')
		url[--n] = 0;
	const char *host = strstr(url, "://") + 3;
	bool good = (str_starts(url, "https://") || str_starts(url, "http://")) && *host && !strpbrk(url, " \t\r\n?#@");
	if (!good) {
		error_set(e, ERR_USAGE, "'%.120s' is not the address of a server", text);
		error_hint(e, "write it as https://HOST or http://HOST:PORT");
		return ERR_USAGE;
	}
	*ret = TAKE_PTR(url);
	return ERR_OK;
}
