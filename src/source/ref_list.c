/* ls-remote's lines taken apart. */
#include "source/ref_list.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdlib.h>
#include <string.h>

#define SUGGEST_MAX 6
#define ALIKE_PREFIX 3 /* characters in common that make a name worth suggesting */

static const char heads[] = "refs/heads/";

void ref_list_release(struct ref_list *l)
{
	strbuf_release(&l->text);
	free(l->items);
}

static void add_item(struct ref_list *l, const char *id, const char *name)
{
	if ((l->n & (l->n + 1)) == 0) /* 0, 1, 3, 7: grow to twice */
		l->items = mem_grow(l->items, (l->n * 2 + 2) * sizeof(*l->items));
	l->items[l->n++] = (struct ref_item){ .id = id, .name = name };
}

static void take_line(struct ref_list *l, char *line)
{
	char *tab = strchr(line, '\t'), *name;

	if (!tab)
		return;
	name = tab + 1;
	*tab = '\0';
	if (str_starts(line, "ref: ")) {
		if (str_eq(name, "HEAD") && str_starts(line + 5, heads))
			l->head_branch = line + 5 + strlen(heads);
	} else if (str_eq(name, "HEAD")) {
		l->has_head = true;
		add_item(l, line, name);
	} else if (str_starts(name, "refs/") && str_ends(name, "^{}")) {
		if (l->n && strncmp(l->items[l->n - 1].name, name, strlen(name) - 3) == 0)
			l->items[l->n - 1].peeled = line;
	} else if (str_starts(name, "refs/")) {
		add_item(l, line, name);
	}
}

void ref_list_parse(struct ref_list *l)
{
	char *save = NULL;

	if (!l->text.data)
		return;
	for (char *line = strtok_r(l->text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		take_line(l, line);
}

void ref_list_print(const struct ref_list *l, struct strbuf *out)
{
	for (size_t i = 0; i < l->n; i++)
		if (str_starts(l->items[i].name, heads) || str_starts(l->items[i].name, "refs/tags/"))
			strbuf_addf(out, "%s %s\n", l->items[i].id, l->items[i].name);
}

const char *ref_list_find(const struct ref_list *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (str_eq(l->items[i].name, name))
			return l->items[i].id;
	return NULL;
}

const char *ref_list_commit(const struct ref_list *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (str_eq(l->items[i].name, name))
			return l->items[i].peeled ? l->items[i].peeled : l->items[i].id;
	return NULL;
}

static const char *short_name(const char *name)
{
	const char *slash = str_starts(name, "refs/") ? strchr(name + 5, '/') : NULL;

	return slash ? slash + 1 : name;
}

static bool is_alike(const char *name, const char *wanted)
{
	return strcasestr(name, wanted) || strcasestr(wanted, name) || strncasecmp(name, wanted, ALIKE_PREFIX) == 0;
}

void ref_list_suggest(const struct ref_list *l, const char *wanted, struct strbuf *out)
{
	int shown = 0;

	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < l->n && shown < SUGGEST_MAX; i++) {
			const char *name = short_name(l->items[i].name);

			if (str_eq(name, "HEAD") || is_alike(name, wanted) != (round == 0))
				continue;
			strbuf_adds(out, shown++ ? ", " : "");
			str_add_printable(out, name, strlen(name));
		}
}
