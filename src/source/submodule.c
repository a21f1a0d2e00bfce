/* Finding the submodules of a commit: which there are (the tree says), where they come from (.gitmodules says), and each one's commit. */
#include "source/submodule.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "source/git.h"
#include "source/url.h"
#include <string.h>

#define GITMODULES_MAX ((size_t)1 << 20)
#define GITLINK "160000 commit "

struct walk {
	struct fetch *fetch;
	const struct mirror_want *top;
	struct submodule_list *list;
	int depth;
};

struct level { /* one repository whose submodules are looked for */
	const char *url;    /* its own: others may be relative to it */
	const char *prefix; /* where it lies below the top, "" or "a/b/" */
	const char *store, *commit;
	struct identity owner;
	struct strbuf modules; /* .gitmodules as `git config -z --list` has it */
};

void submodule_list_release(struct submodule_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->v[i].path);
		free(l->v[i].store);
		free(l->v[i].commit);
	}
	free(l->v);
	*l = (struct submodule_list){ .v = NULL };
}

/* ---- .gitmodules ---- */

static enum err_code read_modules(struct level *l, struct error *e)
{
	const struct git g = { .git_dir = l->store };
	AUTO_FREE char *blob = mem_printf("--blob=%s:.gitmodules", l->commit);
	int status = 0;

	l->modules.max = GITMODULES_MAX;
	TRY(git_try(&g, (const char *const[]){ "config", "-z", "--no-includes", "--list", blob, NULL }, NULL, 0, &l->modules, NULL, &status, e));
	if (status != 0)
		strbuf_reset(&l->modules); /* there is none, or it is none */
	return ERR_OK;
}

/* The value of submodule.<name>.<member>; *at is the entry to begin with and moves on. "key\nvalue\0" each. */
static const char *next_value(const struct strbuf *modules, const char **at, const char *member, char **ret_name)
{
	const char *end = strbuf_str(modules) + modules->len;

	while (*at < end) {
		const char *key = *at, *newline = strchr(key, '\n'), *dot;

		*at += strlen(key) + 1;
		if (!newline || !str_starts(key, "submodule."))
			continue;
		AUTO_FREE char *whole = mem_strndup(key, (size_t)(newline - key));
		dot = strrchr(whole, '.');
		if (dot <= whole + strlen("submodule") || !str_eq(dot + 1, member))
			continue;
		*ret_name = mem_strndup(whole + strlen("submodule."), (size_t)(dot - whole) - strlen("submodule."));
		return newline + 1;
	}
	return NULL;
}

static const char *url_of_name(const struct strbuf *modules, const char *name)
{
	const char *at = strbuf_str(modules), *url;

	for (;;) {
		AUTO_FREE char *found = NULL;

		url = next_value(modules, &at, "url", &found);
		if (!url || str_eq(found, name))
			return url;
	}
}

static const char *url_of_path(const struct strbuf *modules, const char *path)
{
	const char *at = strbuf_str(modules), *value;

	for (;;) {
		AUTO_FREE char *name = NULL;

		value = next_value(modules, &at, "path", &name);
		if (!value)
			return NULL;
		if (str_eq(value, path))
			return url_of_name(modules, name);
	}
}

/* "../x" is beside the repository that names it, as git has it: one part of the path goes for each "../". */
static char *resolve_url(const char *base, const char *url)
{
	AUTO_FREE char *left = mem_strdup(base);

	if (!str_starts(url, "./") && !str_starts(url, "../"))
		return mem_strdup(url);
	for (size_t n = strlen(left); n && left[n - 1] == '/'; n--)
		left[n - 1] = '\0';
	for (;;) {
		if (str_starts(url, "./")) {
			url += 2;
		} else if (str_starts(url, "../")) {
			char *cut = strrchr(left, '/');

			if (!cut || (cut > left && cut[-1] == '/'))
				return mem_strdup(url); /* above the host: no URL, and refused as such */
			*cut = '\0';
			url += 3;
		} else {
			return mem_printf("%s/%s", left, url);
		}
	}
}

/* ---- one ---- */

/* What was given for the top's host and path is for nothing else. */
static bool credential_is_for(const struct walk *w, const struct source_url *top, const struct source_url *u)
{
	const char *scope = js_str(w->fetch->job, "scope"), *path = u->path + strspn(u->path, "/");
	size_t n = scope ? strlen(scope) : 0;

	if (!w->top->credential || u->kind != top->kind || !str_eq(u->host, top->host) || !str_eq(u->port, top->port))
		return false;
	return n == 0 || (strncmp(path, scope, n) == 0 && (!path[n] || path[n] == '/' || str_starts(path + n, ".git")));
}

static enum err_code find_one(struct walk *w, const struct level *l, const char *url, const char *commit, struct mirror_found *ret, struct error *e)
{
	AUTO(source_url_release) struct source_url top = { .text = NULL };
	AUTO(source_url_release) struct source_url u = { .text = NULL };
	struct mirror_want want = { .url = url, .ref = commit, .depth = w->top->depth };

	TRY(source_url_parse(w->top->url, &top, e));
	TRY(source_url_parse(url, &u, e));
	if (u.kind == URL_FILE && top.kind != URL_FILE)
		return error_set(e, ERR_DENIED, "'%s' leads to a directory of this machine", url);
	if (u.kind == URL_FILE)
		want.owner = &l->owner;
	if (credential_is_for(w, &top, &u)) {
		want.credential = w->top->credential;
		want.fingerprint = w->top->fingerprint;
	}
	return mirror_find(w->fetch, &want, ret, e);
}

static void keep(struct submodule_list *list, const char *path, const struct mirror_found *found)
{
	if (!list->v)
		list->v = mem_alloc(SUBMODULES_MAX * sizeof(*list->v));
	list->v[list->n++] = (struct submodule){ .path = mem_strdup(path), .store = mem_strdup(found->store), .commit = mem_strdup(found->commit) };
}

static enum err_code take_level(struct walk *w, struct level *l, struct error *e);

static enum err_code take_one(struct walk *w, const struct level *l, const char *name, const char *commit, struct error *e)
{
	AUTO(mirror_found_release) struct mirror_found found = { .store = NULL };
	AUTO_FREE char *path = mem_printf("%s%s", l->prefix, name);
	AUTO_FREE char *prefix = mem_printf("%s/", path);
	const char *given = url_of_path(&l->modules, name);
	enum err_code code;

	if (!given)
		return ERR_OK; /* left empty, and told so by the checkout */
	if (w->list->n >= SUBMODULES_MAX)
		return error_set(e, ERR_LIMIT, "there are more than %d submodules", SUBMODULES_MAX);
	AUTO_FREE char *url = resolve_url(l->url, given);
	code = find_one(w, l, url, commit, &found, e);
	if (code != ERR_OK)
		return error_wrap(e, "the submodule '%s'", path);
	keep(w->list, path, &found);
	struct level below = { .url = url, .prefix = prefix, .store = found.store, .commit = found.commit, .owner = found.owner };
	code = take_level(w, &below, e);
	strbuf_release(&below.modules);
	return code;
}

/* `ls-tree -r -z`: "160000 commit <id>\t<path>" */
static enum err_code take_links(struct walk *w, const struct level *l, const struct strbuf *listed, struct error *e)
{
	const char *end = strbuf_str(listed) + listed->len;

	for (const char *at = strbuf_str(listed); at < end; at += strlen(at) + 1) {
		const char *tab = strchr(at, '\t');

		if (!tab || !str_starts(at, GITLINK) || !file_name_is_inside(tab + 1))
			continue;
		AUTO_FREE char *commit = mem_strndup(at + strlen(GITLINK), (size_t)(tab - at) - strlen(GITLINK));
		TRY(take_one(w, l, tab + 1, commit, e));
	}
	return ERR_OK;
}

static enum err_code take_level(struct walk *w, struct level *l, struct error *e)
{
	const struct git g = { .git_dir = l->store };
	AUTO_STRBUF struct strbuf listed = STRBUF_LIMIT(GIT_OUTPUT_MAX);
	enum err_code code;

	TRY(read_modules(l, e));
	if (l->modules.len == 0)
		return ERR_OK;
	if (w->depth >= SUBMODULE_DEPTH_MAX)
		return error_set(e, ERR_LIMIT, "submodules lie in each other more than %d deep", SUBMODULE_DEPTH_MAX);
	TRY(git_run(&g, (const char *const[]){ "ls-tree", "-r", "-z", "--full-tree", l->commit, NULL }, NULL, 0, &listed, e));
	w->depth++;
	code = take_links(w, l, &listed, e);
	w->depth--;
	return code;
}

enum err_code submodule_fetch(struct fetch *f, const struct mirror_want *of, const struct mirror_found *found, struct submodule_list *ret, struct error *e)
{
	struct walk w = { .fetch = f, .top = of, .list = ret };
	struct level l = { .url = of->url, .prefix = "", .store = found->store, .commit = found->commit, .owner = found->owner };
	enum err_code code = take_level(&w, &l, e);

	strbuf_release(&l.modules);
	return code;
}
