/* Precedence of settings. */
#include "cli/settings.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/js.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/yaml.h"
#include "cli/servers.h"
#include "cli/text.h"
#include "core/paths.h"
#include <inttypes.h>
#include <strings.h>

#define PROJECT_FILE ".signalbox.yaml"

const struct setting_def setting_defs[SET_COUNT] = {
	[SET_SERVER] = { "client.server", "SIGNALBOX_SERVER", "server", false, false, "a server's URL or socket instead of your own server" },
	[SET_CONTEXT] = { "client.context", "SIGNALBOX_CONTEXT", "context", false, false, "one of the servers you have logged in to; local is your own" },
	[SET_TOKEN] = { "client.token", "SIGNALBOX_TOKEN", "token", false, true, "bearer token for that server" },
	[SET_AUTOSTART] = { "client.autostart", "SIGNALBOX_AUTOSTART", NULL, false, false, "start your own server when none runs" },
	[SET_DATA] = { "client.data", "SIGNALBOX_DATA", "data", false, false, "data directory: the record" },
	[SET_RUNTIME] = { "client.runtime", "SIGNALBOX_RUNTIME", "runtime", false, false, "runtime directory: sockets" },
	[SET_PAGER] = { "client.pager", "SIGNALBOX_PAGER", NULL, false, false, "what shows a long diff on a terminal; \"cat\" for none" },
	[SET_AGENT] = { "run.agent", "SIGNALBOX_AGENT", "agent", true, false, "the agent of new tasks" },
	[SET_MODEL] = { "run.model", "SIGNALBOX_MODEL", "model", true, false, "its model" },
	[SET_MODE] = { "run.mode", "SIGNALBOX_MODE", "mode", true, false, "code, ask or plan" },
	[SET_ENVIRONMENT] = { "run.environment", "SIGNALBOX_ENVIRONMENT", "environment", true, false, "the environment of new tasks" },
	[SET_SETUP] = { "run.setup", "SIGNALBOX_SETUP", NULL, true, false, "setup script (its text) of new tasks" },
	[SET_SETUP_NETWORK] = { "run.setup_network", "SIGNALBOX_SETUP_NETWORK", "setup-network", true, false, "none or host" },
	[SET_VERIFY] = { "run.verify", "SIGNALBOX_VERIFY", "verify", true, false, "the command that checks the result" },
	[SET_TIMEOUT] = { "run.timeout", "SIGNALBOX_TIMEOUT", "timeout", true, false, "a run's longest time" },
	[SET_PRIORITY] = { "run.priority", "SIGNALBOX_PRIORITY", "priority", true, false, "place in the queue; higher is sooner" },
};

static void take(struct settings *s, int i, char *value_taken, const char *from)
{
	s->value[i] = value_taken;
	s->from[i] = mem_strdup(from);
}

static char *scalar_text(const struct js *v)
{
	switch (js_type(v)) {
	case JS_STRING:
		return mem_strdup(js_text(v));
	case JS_BOOL:
		return mem_strdup(js_true(v) ? "true" : "false");
	case JS_INT:
	case JS_REAL:
		return js_dump(v);
	case JS_NULL:
	case JS_ARRAY:
	case JS_OBJECT:
		break;
	}
	return NULL;
}

static enum err_code from_member(struct settings *s, int i, const struct js *v, const char *file, struct error *e)
{
	const struct setting_def *def = &setting_defs[i];
	bool project = str_eq(file, PROJECT_FILE);
	if (!v || js_type(v) == JS_NULL)
		return ERR_OK;
	if (project && !def->from_project) {
		if (!s->ignored)
			s->ignored = mem_printf("%s may not set %s: it comes with the repository", file, def->name);
		return ERR_OK;
	}
	char *text = scalar_text(v);
	if (!text)
		return error_set(e, ERR_INVALID, "%s: %s must be one value, not %s", file, def->name, js_type_name(js_type(v)));
	take(s, i, text, file);
	return ERR_OK;
}

static bool is_setting(const char *section, const char *key)
{
	AUTO_FREE char *name = mem_printf("%s.%s", section, key);
	for (int i = 0; i < SET_COUNT; i++)
		if (str_eq(setting_defs[i].name, name))
			return true;
	return false;
}

/* A slip of the pen shall not pass in silence; the rest of a server's own file is checked by the server. */
static void note_unknown(struct settings *s, const struct js *root, const char *file)
{
	static const char *const sections[] = { "client", "run" };
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
		for (struct js_iter it = js_iter(js_get(root, sections[i])); it.key && !s->ignored; js_next(&it)) {
			AUTO_STRBUF struct strbuf key = STRBUF_INIT;
			if (is_setting(sections[i], it.key))
				continue;
			text_add_line(&key, it.key);
			s->ignored = mem_printf("%s: there is no setting %s.%s; signalbox config lists them", file, sections[i], strbuf_str(&key));
		}
}

static enum err_code from_file(struct settings *s, const char *file, struct error *e)
{
	AUTO_JS struct js *root = yaml_load(file, e);
	enum err_code rc = ERR_OK;
	if (!root)
		return error_wrap(e, "read the settings in %s", file);
	for (int i = 0; i < SET_COUNT && !rc; i++)
		if (!s->value[i])
			rc = from_member(s, i, js_path(root, setting_defs[i].name), file, e);
	if (!rc)
		note_unknown(s, root, file);
	return rc;
}

static void from_flags_and_env(struct settings *s, const char *(*flag)(const void *, const char *), const void *ctx)
{
	for (int i = 0; i < SET_COUNT; i++) {
		const struct setting_def *def = &setting_defs[i];
		const char *v = def->flag ? flag(ctx, def->flag) : NULL;
		if (v) {
			AUTO_FREE char *from = mem_printf("--%s", def->flag);
			take(s, i, mem_strdup(v), from);
		} else if (!str_empty(getenv(def->env))) {
			take(s, i, mem_strdup(getenv(def->env)), def->env);
		}
	}
}

static void drop(struct settings *s, int i)
{
	free(TAKE_PTR(s->value[i]));
	free(TAKE_PTR(s->from[i]));
}

/* A server of the context: its URL, and its token unless another was given. */
static void take_server(struct settings *s, const struct js *server)
{
	take(s, SET_SERVER, mem_strdup(js_str(server, "url")), "context");
	if (!s->value[SET_TOKEN] && js_str(server, "token"))
		take(s, SET_TOKEN, mem_strdup(js_str(server, "token")), "context");
}

/* A context that is named by a flag is stronger than a server that is not. */
static enum err_code named_context(struct settings *s, const struct js *all, struct error *e)
{
	const char *name = s->value[SET_CONTEXT];
	const struct js *server = servers_get(all, name);
	if (!server && !str_eq(name, LOCAL_SERVER)) {
		error_set(e, ERR_NOT_FOUND, "there is no context '%.80s' (from %s)", name, s->from[SET_CONTEXT]);
		error_hint(e, "signalbox context ls; signalbox login URL adds one");
		return ERR_NOT_FOUND;
	}
	if (s->value[SET_SERVER] && !(str_eq(s->from[SET_CONTEXT], "--context") && !str_eq(s->from[SET_SERVER], "--server")))
		return ERR_OK;
	drop(s, SET_SERVER);
	if (server)
		take_server(s, server);
	return ERR_OK;
}

/* --data and --runtime say where one's own server is: a context that was chosen once is not meant then. */
static bool names_own(const struct settings *s)
{
	return str_eq(s->from[SET_DATA], "--data") || str_eq(s->from[SET_RUNTIME], "--runtime");
}

static enum err_code from_servers(struct settings *s, struct error *e)
{
	AUTO_JS struct js *all = NULL;
	enum err_code rc = servers_load(&all, e);
	if (rc)
		return rc;
	if (s->value[SET_CONTEXT])
		return named_context(s, all, e);
	const struct js *current = servers_get(all, servers_current(all));
	/* The token that was given for a URL goes there and nowhere else. */
	const struct js *same = s->value[SET_SERVER] ? servers_by_url(all, s->value[SET_SERVER]) : NULL;
	if (same && !s->value[SET_TOKEN] && js_str(same, "token"))
		take(s, SET_TOKEN, mem_strdup(js_str(same, "token")), "login");
	if (!s->value[SET_SERVER] && current && !names_own(s))
		take_server(s, current);
	return ERR_OK;
}

static void from_defaults(struct settings *s)
{
	/* What the server chooses by itself stays unset here. */
	if (!s->value[SET_DATA])
		take(s, SET_DATA, paths_data_dir(), "default");
	if (!s->value[SET_RUNTIME])
		take(s, SET_RUNTIME, paths_runtime_dir(), "default");
	if (!s->value[SET_AUTOSTART])
		take(s, SET_AUTOSTART, mem_strdup("true"), "default");
	if (!s->value[SET_PAGER]) {
		const char *pager = getenv("PAGER");
		take(s, SET_PAGER, mem_strdup(str_empty(pager) ? "less -FRX" : pager), str_empty(pager) ? "default" : "PAGER");
	}
}

/* A relative directory is relative to us: the server lives elsewhere. */
static void make_absolute(struct settings *s, enum setting which)
{
	char *v = s->value[which];
	AUTO_FREE char *cwd = v[0] == '/' ? NULL : getcwd(NULL, 0);
	if (!cwd)
		return;
	s->value[which] = file_join(cwd, v);
	free(v);
}

enum err_code settings_load(struct settings *s, const char *(*flag)(const void *ctx, const char *name), const void *ctx, struct error *e)
{
	*s = (struct settings){ .files = paths_config_files() };
	from_flags_and_env(s, flag, ctx);
	for (char **f = s->files; *f; f++) {
		enum err_code rc = from_file(s, *f, e);
		if (rc)
			return rc;
	}
	enum err_code rc = from_servers(s, e);
	if (rc)
		return rc;
	from_defaults(s);
	make_absolute(s, SET_DATA);
	make_absolute(s, SET_RUNTIME);
	return ERR_OK;
}

void settings_release(struct settings *s)
{
	for (int i = 0; i < SET_COUNT; i++) {
		free(s->value[i]);
		free(s->from[i]);
	}
	paths_free_list(s->files);
	free(s->ignored);
	*s = (struct settings){ .files = NULL };
}

bool setting_is_true(const char *value)
{
	static const char *const yes[] = { "1", "true", "yes", "on" };
	for (size_t i = 0; value && i < ARRAY_SIZE(yes); i++)
		if (strcasecmp(value, yes[i]) == 0)
			return true;
	return false;
}
