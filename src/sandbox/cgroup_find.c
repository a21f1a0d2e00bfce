/* See cgroup_find.h. */
#include "sandbox/cgroup_find.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

#include <string.h>

#define MOUNTINFO_FIELDS_MAX 32
enum { FIELD_ROOT = 3, FIELD_POINT = 4, FIELD_FIRST_OPTIONAL = 6 };

static const char *const controller_of[TREE_COUNT] = { [TREE_MEMORY] = "memory", [TREE_PIDS] = "pids", [TREE_CPU] = "cpu", [TREE_CPUACCT] = "cpuacct" };

/* "a,b,c" has word b */
static bool list_has(const char *list, size_t n, const char *word)
{
	size_t w = strlen(word);

	for (size_t at = 0; at + w <= n;) {
		size_t end = at;

		while (end < n && list[end] != ',')
			end++;
		if (end - at == w && memcmp(list + at, word, w) == 0)
			return true;
		at = end + 1;
	}
	return false;
}

/* Spaces and the like are \ooo in mountinfo. */
static char *octal_decode(const char *s)
{
	char *out = mem_alloc(strlen(s) + 1);
	size_t at = 0;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			out[at++] = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			out[at++] = *s;
		}
	}
	return out;
}

/* The path of our own cgroup in a hierarchy ("memory", or "" for v2), as /proc/self/cgroup tells it. The caller frees. */
static char *own_path(const char *self_cgroup, const char *controller)
{
	for (const char *line = self_cgroup; *line;) {
		size_t n = strcspn(line, "\n");
		const char *names = memchr(line, ':', n);
		const char *path = names ? memchr(names + 1, ':', n - (size_t)(names + 1 - line)) : NULL;

		if (path) {
			size_t names_len = (size_t)(path - (names + 1));
			bool match = *controller ? list_has(names + 1, names_len, controller) : names_len == 0;

			if (match)
				return mem_strndup(path + 1, n - (size_t)(path + 1 - line));
		}
		line += n + (line[n] == '\n');
	}
	return NULL;
}

/* A container may see only a part of the hierarchy: the mount's root is cut off. */
static char *own_dir(const char *mount, const char *root, const char *path)
{
	size_t n = strlen(root);

	if (strcmp(root, "/") == 0)
		n = 0;
	else if (!str_starts(path, root) || (path[n] != '/' && path[n] != '\0'))
		return mem_strdup(mount);
	path += n;
	if (strstr(path, "/..") || strcmp(path, "/") == 0 || *path == '\0')
		return mem_strdup(mount);
	return mem_printf("%s%s", mount, path);
}

static void place_set(struct cgroup_place *p, const char *point, const char *root, const char *self_cgroup, const char *controller)
{
	AUTO_FREE char *path = own_path(self_cgroup, controller);

	if (p->mount || !path)
		return; /* the first mount wins */
	p->mount = octal_decode(point);
	AUTO_FREE char *plain_root = octal_decode(root);
	p->own = own_dir(p->mount, plain_root, path);
}

static void line_parse(char *line, const char *self_cgroup, struct cgroup_places *ret)
{
	char *fields[MOUNTINFO_FIELDS_MAX];
	char *save = NULL;
	int n = 0, dash = -1;

	for (char *f = strtok_r(line, " ", &save); f && n < MOUNTINFO_FIELDS_MAX; f = strtok_r(NULL, " ", &save)) {
		if (dash < 0 && n >= FIELD_FIRST_OPTIONAL && strcmp(f, "-") == 0)
			dash = n;
		fields[n++] = f;
	}
	if (dash < 0 || dash + 3 >= n)
		return;
	const char *type = fields[dash + 1], *options = fields[dash + 3];
	if (strcmp(type, "cgroup2") == 0)
		place_set(&ret->at[TREE_V2], fields[FIELD_POINT], fields[FIELD_ROOT], self_cgroup, "");
	if (strcmp(type, "cgroup") != 0)
		return;
	for (int t = TREE_MEMORY; t < TREE_COUNT; t++)
		if (list_has(options, strlen(options), controller_of[t]))
			place_set(&ret->at[t], fields[FIELD_POINT], fields[FIELD_ROOT], self_cgroup, controller_of[t]);
}

void cgroup_places_parse(const char *mountinfo, const char *self_cgroup, struct cgroup_places *ret)
{
	AUTO_FREE char *copy = mem_strdup(mountinfo);
	char *save = NULL;

	*ret = (struct cgroup_places){ 0 };
	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		line_parse(line, self_cgroup, ret);
}

enum err_code cgroup_places_find(struct cgroup_places *ret, struct error *e)
{
	AUTO_STRBUF struct strbuf mounts = STRBUF_INIT;
	AUTO_STRBUF struct strbuf self = STRBUF_INIT;
	enum err_code rc = file_read("/proc/self/mountinfo", CGROUP_TEXT_MAX, &mounts, e);

	if (rc == ERR_OK)
		rc = file_read("/proc/self/cgroup", CGROUP_TEXT_MAX, &self, e);
	if (rc == ERR_OK)
		cgroup_places_parse(strbuf_str(&mounts), strbuf_str(&self), ret);
	return rc;
}

void cgroup_places_release(struct cgroup_places *p)
{
	for (int t = 0; t < TREE_COUNT; t++) {
		free(p->at[t].mount);
		free(p->at[t].own);
	}
	*p = (struct cgroup_places){ 0 };
}
