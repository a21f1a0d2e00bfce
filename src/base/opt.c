/* Command line options read by a const table. */
#include "base/opt.h"
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include <string.h>

#define NAME_MAX_LEN 63

/* One parse on its way: the next argument, and where results go. */
struct scan {
	const struct opt *table;
	struct opt_value *values;
	char **next, **end;
	struct error *e;
};

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t ab = a < b ? a : b;

	return ab < c ? ab : c;
}

/* Edit distance, one row of the table at a time. */
static size_t distance(const char *a, const char *b)
{
	size_t row[NAME_MAX_LEN + 1];
	size_t n = strnlen(a, NAME_MAX_LEN), m = strnlen(b, NAME_MAX_LEN);

	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t corner = row[0];
		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t above = row[j];
			row[j] = min3(above + 1, row[j - 1] + 1, corner + (a[i - 1] != b[j - 1]));
			corner = above;
		}
	}
	return row[m];
}

/* NULL when nothing is near enough to be meant. */
static const char *nearest(const struct opt *table, const char *name)
{
	const char *best = NULL;
	size_t least = strlen(name) / 3 + 2;

	for (; table->name; table++) {
		size_t d = distance(name, table->name);
		if (d < least) {
			least = d;
			best = table->name;
		}
	}
	return best;
}

/* Only the option is repeated, not what is attached to it: that may be a secret. */
static enum err_code unknown(const struct scan *s, const char *dashes, const char *text, size_t n)
{
	AUTO_STRBUF struct strbuf shown = STRBUF_LIMIT(100);
	AUTO_FREE char *name = mem_strndup(text, n);
	const char *near = dashes[1] ? nearest(s->table, name) : NULL;

	str_add_printable(&shown, name, n);
	if (near)
		return error_set(s->e, ERR_USAGE, "unknown option '%s%s', did you mean '--%s'?", dashes, strbuf_str(&shown), near);
	return error_set(s->e, ERR_USAGE, "unknown option '%s%s'", dashes, strbuf_str(&shown));
}

static const struct opt *find_name(const struct opt *table, const char *name, size_t n)
{
	for (; table->name; table++)
		if (strlen(table->name) == n && memcmp(table->name, name, n) == 0)
			return table;
	return NULL;
}

static const struct opt *find_letter(const struct opt *table, char letter)
{
	for (; table->name; table++)
		if (letter && table->letter == letter)
			return table;
	return NULL;
}

static enum err_code add_to_list(struct opt_value *v, const struct opt *o, const char *text, struct error *e)
{
	if (v->list_len == OPT_LIST_MAX)
		return error_set(e, ERR_USAGE, "--%s is given more than %d times", o->name, OPT_LIST_MAX);
	v->list[v->list_len++] = text;
	return ERR_OK;
}

static enum err_code convert(const struct opt *o, const char *text, struct opt_value *v, struct error *e)
{
	AUTO_STRBUF struct strbuf what = STRBUF_INIT;

	strbuf_addf(&what, "--%s", o->name);
	switch (o->type) {
	case OPT_INT: return str_to_i64(text, strbuf_str(&what), INT64_MIN, INT64_MAX, &v->number, e);
	case OPT_DURATION: return str_to_duration_ms(text, strbuf_str(&what), 0, INT64_MAX, &v->number, e);
	case OPT_SIZE: return str_to_size(text, strbuf_str(&what), 0, INT64_MAX, &v->number, e);
	case OPT_LIST: return add_to_list(v, o, text, e);
	case OPT_FLAG:
	case OPT_STRING: break;
	}
	return ERR_OK;
}

static enum err_code set_value(const struct scan *s, const struct opt *o, const char *text)
{
	struct opt_value *v = &s->values[o - s->table];

	if (convert(o, text, v, s->e) != ERR_OK) {
		if (s->e)
			s->e->code = ERR_USAGE; /* the value came from the command line */
		return ERR_USAGE;
	}
	v->set = true;
	v->text = text;
	return ERR_OK;
}

static void set_flag(const struct scan *s, const struct opt *o, bool on)
{
	struct opt_value *v = &s->values[o - s->table];

	v->set = true;
	v->flag = on;
}

/* The value is `attached`, or else the next argument, whatever it looks like. */
static enum err_code take_value(struct scan *s, const struct opt *o, const char *attached)
{
	if (!attached && s->next == s->end)
		return error_set(s->e, ERR_USAGE, "--%s needs a value%s%s", o->name, o->value ? ": " : "", o->value ? o->value : "");
	return set_value(s, o, attached ? attached : *s->next++);
}

static enum err_code scan_long(struct scan *s, const char *name)
{
	size_t n = strcspn(name, "=");
	const char *attached = name[n] ? name + n + 1 : NULL;
	const struct opt *o = find_name(s->table, name, n);
	const struct opt *negated = !o && n > 3 && str_starts(name, "no-") ? find_name(s->table, name + 3, n - 3) : NULL;

	if (!o && !(negated && negated->type == OPT_FLAG))
		return unknown(s, "--", name, n);
	if (o && o->type != OPT_FLAG)
		return take_value(s, o, attached);
	if (attached)
		return error_set(s->e, ERR_USAGE, "--%.*s takes no value", (int)n, name);
	set_flag(s, o ? o : negated, o != NULL);
	return ERR_OK;
}

/* "-v", "-vq" for flags; "-n5" or "-n 5" for a value. */
static enum err_code scan_short(struct scan *s, const char *letters)
{
	for (; *letters; letters++) {
		const struct opt *o = find_letter(s->table, *letters);
		if (!o)
			return unknown(s, "-", letters, 1);
		if (o->type != OPT_FLAG)
			return take_value(s, o, letters[1] ? letters + 1 : NULL);
		set_flag(s, o, true);
	}
	return ERR_OK;
}

enum err_code opt_parse(const struct opt *table, int argc, char **argv, struct opt_value *values, char **rest,
			int *ret_rest, struct error *e)
{
	struct scan s = { .table = table, .values = values, .next = argv, .end = argv + argc, .e = e };
	bool options = true;
	int n = 0;

	for (const struct opt *o = table; o->name; o++)
		values[o - table] = (struct opt_value){ .set = false };
	while (s.next < s.end) {
		char *arg = *s.next++;
		enum err_code r = ERR_OK;
		if (!options || arg[0] != '-' || !arg[1])
			rest[n++] = arg;
		else if (strcmp(arg, "--") == 0)
			options = false;
		else
			r = arg[1] == '-' ? scan_long(&s, arg + 2) : scan_short(&s, arg + 1);
		if (r != ERR_OK)
			return r;
	}
	*ret_rest = n;
	return ERR_OK;
}
