/* What an archive says of its entries, one a line (a letter for its kind, the name, a tab, the target of a link): names, targets, and what they are
 * to one another.  With n odd a single top directory stays. */
#include "fuzz.h"
#include "base/str.h"
#include "source/unpack.h"

#define ENTRIES_MAX 2000

static void check_clean(const char *path)
{
	size_t n = strlen(path);
	AUTO_FREE char *slashed = mem_printf("/%s/", path);
	CHECK(n <= UNPACK_NAME_MAX && str_is_utf8(path, n) && path[0] != '/');
	CHECK(!strstr(slashed, "/../") && !strstr(slashed, "/./") && !strcasestr(slashed, "/.git/") && !strcasestr(slashed, "/git~1/"));
	CHECK(n == 0 || !strstr(slashed, "//"));
}

static void check_words(const struct error *e, enum err_code rc)
{
	CHECK(e->code == rc && e->text[0] && !strchr(e->text, '\n') && str_is_utf8(e->text, strlen(e->text)));
}

static void add(struct unpack_list *l, char kind, const char *name, const char *target)
{
	struct error e = ERROR_INIT;
	enum unpack_verdict verdict = UNPACK_TAKE;
	struct unpack_entry x = { .kind = kind == 'd' ? UNPACK_DIR : kind == 'l' ? UNPACK_LINK : kind == 'h' ? UNPACK_HARD : UNPACK_FILE, .size = 1, .mark = 1 };
	enum err_code rc = unpack_name_check(name, &x.path, &verdict, &e);
	if (!rc && verdict == UNPACK_TAKE) {
		check_clean(x.path);
		if (x.kind == UNPACK_HARD)
			rc = unpack_name_check(target, &x.target, &verdict, &e);
		else if (x.kind == UNPACK_LINK)
			rc = unpack_target_check(x.path, target, &e);
		if (x.kind == UNPACK_LINK)
			x.target = mem_strdup(target);
	}
	if (!rc && verdict == UNPACK_TAKE)
		rc = unpack_list_add(l, &x, &e);
	if (rc)
		check_words(&e, rc);
	free(x.path);
	free(x.target);
}

/* In order and apart: nothing is there twice or lies below what is no directory; a link at the top goes nowhere up. */
static void check_settled(const struct unpack_list *l)
{
	CHECK(l->files > 0);
	for (size_t i = 0; i < l->n; i++) {
		const struct unpack_entry *x = &l->v[i], *next = i + 1 < l->n ? x + 1 : NULL;
		size_t n = strlen(x->path);
		check_clean(x->path);
		CHECK(x->kind != UNPACK_HARD && x->path[0]);
		bool below = next && strncmp(x->path, next->path, n) == 0 && (next->path[n] == '/' || !next->path[n]);
		CHECK(!below || x->kind == UNPACK_DIR);
		CHECK(x->kind != UNPACK_LINK || (x->target[0] != '/' && (strchr(x->path, '/') || !(str_eq(x->target, "..") || str_starts(x->target, "../")))));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const struct unpack_limits limits = { .files = ENTRIES_MAX, .bytes = 1000, .file_bytes = 100, .ratio = 100, .keep_top = n % 2 };
	struct unpack_list l = { .v = NULL };
	struct error e = ERROR_INIT;
	for (int i = 0; n && i < ENTRIES_MAX; i++) {
		size_t len;
		AUTO_FREE char *line = fuzz_part(&data, &n, '\n', &len);
		char *tab = strchr(line, '\t');
		if (tab)
			*tab++ = '\0';
		if (line[0])
			add(&l, line[0], line + 1, tab ? tab : "");
	}
	enum err_code rc = unpack_list_settle(&l, &limits, &e);
	if (rc)
		check_words(&e, rc);
	else
		check_settled(&l);
	unpack_list_release(&l);
	return 0;
}
