/* config: each effective value, and where it came from. */
#include "base/cleanup.h"
#include "base/str.h"
#include "cli/table.h"
#include "cli/cli.h"

#define WIDE_COLUMNS 140 /* a terminal of as many has room for what each is for; `config NAME --json` tells it on any */

static const char *shown(const struct cli *c, int i)
{
	const char *v = c->settings.value[i];
	return v && setting_defs[i].secret ? "(set)" : v;
}

static void add_json(const struct cli *c, struct js *all, int i)
{
	struct js *one = js_object();
	js_set(one, "value", js_string(shown(c, i)));
	js_set(one, "from", js_string(c->settings.from[i]));
	js_set_str(one, "env", setting_defs[i].env);
	js_set_str(one, "flag", setting_defs[i].flag);
	js_set_str(one, "help", setting_defs[i].help);
	js_set(all, setting_defs[i].name, one);
}

static void print_json(const struct cli *c, const char *only)
{
	AUTO_JS struct js *answer = js_object();
	struct js *all = js_object(), *files = js_array();
	js_set(answer, "settings", all);
	js_set(answer, "files", files);
	for (int i = 0; i < SET_COUNT; i++)
		if (!only || str_eq(only, setting_defs[i].name))
			add_json(c, all, i);
	for (char **f = c->settings.files; *f; f++)
		js_push_str(files, *f);
	cli_json(c, answer);
}

static void print_table(const struct cli *c)
{
	static const char *const titles[] = { "NAME", "VALUE", "FROM", "VARIABLE", "WHAT", NULL };
	static const char *const narrow[] = { "NAME", "VALUE", "FROM", "VARIABLE", NULL };
	bool wide = !c->out.tty || term_width(&c->out) >= WIDE_COLUMNS;
	struct table t;
	table_init(&t, wide ? titles : narrow);
	t.whole = !wide;
	for (int i = 0; i < SET_COUNT; i++) {
		table_add(&t, COLOUR_BOLD, setting_defs[i].name);
		table_add(&t, COLOUR_NONE, shown(c, i) ? shown(c, i) : "-");
		table_add(&t, COLOUR_DIM, c->settings.from[i] ? c->settings.from[i] : "-");
		table_add(&t, COLOUR_DIM, setting_defs[i].env);
		if (wide)
			table_add(&t, COLOUR_NONE, setting_defs[i].help);
	}
	table_print(&t, &c->out);
	table_release(&t);
	for (char **f = c->settings.files; *f; f++)
		cli_say(c, "read %s", *f);
}

static int find(const char *name)
{
	int i = 0;
	while (i < SET_COUNT && !str_eq(setting_defs[i].name, name))
		i++;
	return i;
}

enum err_code cmd_config(struct cli *c, struct error *e)
{
	const char *only = c->arg_count ? c->args[0] : NULL;
	if (only && find(only) == SET_COUNT) {
		error_set(e, ERR_NOT_FOUND, "there is no setting '%s'", only);
		error_hint(e, "signalbox config");
		return ERR_NOT_FOUND;
	}
	if (c->json)
		print_json(c, only);
	else if (only)
		fprintf(c->out.file, "%s\n", shown(c, find(only)) ? shown(c, find(only)) : "");
	else
		print_table(c);
	return ERR_OK;
}
