/* What the other end has: HEAD, branches and tags as `git ls-remote --symref` lists them. */
#pragma once
#include "base/strbuf.h"
#include <stdbool.h>
#include <stddef.h>

struct ref_list {
	struct strbuf text; /* the listing; names point into it */
	char *head_branch;  /* "main", or NULL when HEAD is detached or absent; into text */
	bool has_head;
	struct ref_item { const char *id, *name, *peeled; } *items; /* peeled: the commit of an annotated tag, or NULL */
	size_t n;
};

void ref_list_parse(struct ref_list *l); /* takes what is in l->text apart */
void ref_list_release(struct ref_list *l);
/* "id name" lines, as for-each-ref has them. */
void ref_list_print(const struct ref_list *l, struct strbuf *out);
const char *ref_list_find(const struct ref_list *l, const char *name); /* the id, or NULL */
const char *ref_list_commit(const struct ref_list *l, const char *name); /* the same, but of an annotated tag its commit */
/* For a hint: up to a few branches and tags, those that resemble `wanted` first. */
void ref_list_suggest(const struct ref_list *l, const char *wanted, struct strbuf *out);
