/* The configuration is read again while we serve.  Some parts only count at a start: those are named and stay as they were. */
#include "base/cleanup.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/inside.h"
#include <stdlib.h>

#define RELOADS_MAX 1000 /* old configurations that are kept, for whoever is looking at them */

/* Parts of the file in a table: by dotted name. The command line's own parts are none of ours. */
static const struct part {
	const char *section, *member; /* member NULL: all of it */
	bool live;
} parts[] = {
	{ "limits", NULL, true }, { "agents", NULL, true }, { "environments", NULL, true }, { "codex", NULL, true }, { "model", "default_model", true },
	{ "model", "default_provider", true }, { "model", "providers", true }, { "server", "hosts", true }, { "server", "listen", false }, { "sandbox", NULL, false },
	{ "source", NULL, true }, { "cache", NULL, true },
};

static const struct js *part_of(const struct conf *c, const struct part *p)
{
	const struct js *section = conf_section(c, p->section);
	return p->member ? js_get(section, p->member) : section;
}

static void compare(const struct conf *old, const struct conf *new, struct js *report)
{
	struct js *changed = js_array(), *restart = js_array();
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		const struct js *a = part_of(old, &parts[i]), *b = part_of(new, &parts[i]);
		if ((!a && !b) || (a && b && js_equal(a, b)))
			continue;
		AUTO_FREE char *name = parts[i].member ? mem_printf("%s.%s", parts[i].section, parts[i].member) : mem_strdup(parts[i].section);
		js_push_str(parts[i].live ? changed : restart, name);
	}
	js_set_str(report, "config", conf_path(new));
	js_set(report, "changed", changed);
	js_set(report, "restart", restart);
}

static enum err_code replace(struct core *c, struct js *report, struct error *e)
{
	struct conf *new = NULL;
	if (c->old_config_count == RELOADS_MAX)
		return error_set(e, ERR_LIMIT, "the configuration was reloaded %d times; restart the server", RELOADS_MAX);
	enum err_code rc = conf_load(c->config_option, &new, e);
	if (rc)
		return rc;
	compare(c->config, new, report);
	/* What needs a restart is held by others with what they made of it at the start; nobody reads those parts of the new one. */
	c->old_configs = mem_grow(c->old_configs, (c->old_config_count + 1) * sizeof(struct conf *));
	c->old_configs[c->old_config_count++] = atomic_exchange(&c->config, new);
	return ERR_OK;
}

enum err_code core_reload(struct core *c, struct js **ret, struct error *e)
{
	AUTO_JS struct js *report = js_object();
	pthread_mutex_lock(&c->reloading);
	enum err_code rc = replace(c, report, e);
	pthread_mutex_unlock(&c->reloading);
	if (rc)
		return rc;
	AUTO_FREE char *text = js_dump(report);
	log_info("configuration read again: %s", text);
	gateway_ctl_reload(c);
	sched_ask(c);
	*ret = js_ref(report);
	return ERR_OK;
}
