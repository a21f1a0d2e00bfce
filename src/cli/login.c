/* login, logout and context: which servers one has tokens for, and which is meant. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/servers.h"
#include "cli/table.h"
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define LOGIN_TIMEOUT_MS 15000
#define TOKEN_MAX ((size_t)4 << 10)

const struct opt login_options[] = {
	{ "name", 'n', OPT_STRING, "NAME", "how to call it here (default: its host)" },
	{ 0 },
};

/* On a terminal it is not shown while it is typed. */
static enum err_code read_token(const struct cli *c, const char *url, struct strbuf *ret, struct error *e)
{
	struct termios was, quiet;
	bool tty = isatty(0) && tcgetattr(0, &was) == 0;
	if (tty) {
		quiet = was;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(0, TCSAFLUSH, &quiet); /* before anybody is asked to type */
		fprintf(c->err.file, "Token for %s (from `signalbox token create NAME` there): ", url);
		fflush(c->err.file);
	}
	enum err_code rc = ERR_OK;
	char one;
	while (!rc && ret->len < TOKEN_MAX && read(0, &one, 1) == 1 && one != '\n')
		strbuf_addc(ret, one);
	if (tty) {
		tcsetattr(0, TCSAFLUSH, &was);
		fputc('\n', c->err.file);
	}
	while (ret->len && (ret->data[ret->len - 1] == '\r' || ret->data[ret->len - 1] == ' '))
		ret->data[--ret->len] = 0;
	return ret->len ? rc : error_set(e, ERR_USAGE, "no token was given; it is read from standard input");
}

/* That a Signalbox answers there, and that the token opens it. */
static enum err_code try_server(const char *url, const char *token, struct error *e)
{
	struct client_config cfg = { .url = url, .connect_timeout_ms = LOGIN_TIMEOUT_MS, .timeout_ms = LOGIN_TIMEOUT_MS };
	AUTO_JS struct js *version = NULL;
	AUTO_JS struct js *list = NULL;
	struct client *client = NULL;
	int status = 0;
	enum err_code rc = client_open(&cfg, &client, e);
	if (!rc)
		rc = client_call(client, "GET", "/version", NULL, &status, &version, e);
	if (!rc && !str_eq(js_str(version, "name"), "signalbox"))
		rc = error_set(e, ERR_UNREACHABLE, "what answers at '%s' is not a Signalbox server", url);
	client_close(client);
	client = NULL;
	if (rc || !token)
		return rc;
	cfg.token = token;
	rc = client_open(&cfg, &client, e);
	if (!rc)
		rc = client_call(client, "GET", "/v1/tasks?limit=1", NULL, &status, &list, e);
	client_close(client);
	return rc;
}

static char *default_name(const char *url)
{
	const char *host = strstr(url, "://") + 3;
	return mem_strndup(host, strcspn(host, "/"));
}

static bool is_loopback(const char *url)
{
	static const char *const local[] = { "http://127.", "http://localhost", "http://[::1]" };
	for (size_t i = 0; i < ARRAY_SIZE(local); i++)
		if (str_starts(url, local[i]))
			return true;
	return false;
}

static enum err_code remember(const char *name, const char *url, const char *token, struct error *e)
{
	AUTO_JS struct js *all = NULL;
	enum err_code rc = servers_load(&all, e);
	if (rc)
		return rc;
	struct js *one = js_object();
	js_set_str(one, "url", url);
	js_set_str(one, "token", token);
	if (!js_get(all, "servers"))
		js_set(all, "servers", js_object());
	js_set(js_get(all, "servers"), name, one);
	js_set_str(all, "current", name);
	return servers_save(all, e);
}

enum err_code cmd_login(struct cli *c, struct error *e)
{
	AUTO_STRBUF struct strbuf token = STRBUF_LIMIT(TOKEN_MAX + 1);
	AUTO_FREE char *url = NULL;
	AUTO_FREE char *path = servers_path();
	enum err_code rc = servers_check_url(c->args[0], &url, e);
	if (!rc)
		rc = try_server(url, NULL, e);
	if (!rc && str_starts(url, "http://") && !is_loopback(url))
		cli_say(c, "signalbox: %s is not encrypted: whoever sees the traffic has the token", url);
	if (!rc)
		rc = read_token(c, url, &token, e);
	if (!rc)
		rc = try_server(url, strbuf_str(&token), e);
	AUTO_FREE char *name = url ? default_name(url) : NULL;
	const char *called = cli_opt_text(c, "name") ? cli_opt_text(c, "name") : name;
	if (!rc && (str_empty(called) || str_eq(called, LOCAL_SERVER)))
		return error_set(e, ERR_USAGE, "a server cannot be called '%s'", called ? called : "");
	if (!rc)
		rc = remember(called, url, strbuf_str(&token), e);
	if (!rc)
		cli_say(c, "signalbox: logged in to %s as '%s'; kept in %s. `signalbox context use %s` goes back to your own server", url, called, path, LOCAL_SERVER);
	return rc;
}

static void list_row(struct cli *c, struct table *t, struct js *list, const char *name, const char *url, bool current)
{
	struct js *o = js_object();
	js_set_str(o, "name", name);
	js_set(o, "url", js_string(url));
	js_set_bool(o, "current", current);
	js_push(list, o);
	table_add(t, COLOUR_GREEN, current ? "*" : "");
	table_add(t, COLOUR_BOLD, name);
	table_add(t, COLOUR_NONE, url ? url : "your own, on its socket");
	(void)c;
}

static enum err_code context_list(struct cli *c, const struct js *all)
{
	static const char *const titles[] = { "", "NAME", "SERVER", NULL };
	AUTO_JS struct js *answer = js_object();
	struct js *list = js_array();
	struct table t;
	js_set(answer, "data", list);
	table_init(&t, titles);
	list_row(c, &t, list, LOCAL_SERVER, NULL, str_eq(servers_current(all), LOCAL_SERVER));
	for (struct js_iter it = js_iter(js_get(all, "servers")); it.key; js_next(&it))
		list_row(c, &t, list, it.key, js_str_or(it.value, "url", ""), str_eq(servers_current(all), it.key));
	if (c->json)
		cli_json(c, answer);
	else
		table_print(&t, &c->out);
	table_release(&t);
	if (cli_setting(c, SET_SERVER) && !str_eq(c->settings.from[SET_SERVER], "context"))
		cli_say(c, "signalbox: now %s is meant, by %s", cli_setting(c, SET_SERVER), c->settings.from[SET_SERVER]);
	return ERR_OK;
}

static enum err_code context_change(struct cli *c, struct js *all, const char *verb, const char *name, struct error *e)
{
	bool known = servers_get(all, name) || str_eq(name, LOCAL_SERVER);
	bool removes = str_eq(verb, "rm");
	if (!known || (removes && str_eq(name, LOCAL_SERVER))) {
		error_set(e, known ? ERR_USAGE : ERR_NOT_FOUND, known ? "your own server '%s' cannot be removed" : "there is no context '%s'", name);
		error_hint(e, "signalbox context ls; signalbox login URL adds one");
		return e->code;
	}
	if (removes)
		js_del(js_get(all, "servers"), name);
	if (!removes)
		js_set_str(all, "current", name);
	else if (str_eq(servers_current(all), name))
		js_del(all, "current");
	enum err_code rc = servers_save(all, e);
	if (!rc)
		cli_say(c, removes ? "signalbox: '%s' and its token are forgotten here; on the server it holds until `signalbox token revoke`" : "signalbox: '%s' is meant from now on", name);
	return rc;
}

enum err_code cmd_context(struct cli *c, struct error *e)
{
	AUTO_JS struct js *all = NULL;
	const char *verb = c->arg_count ? c->args[0] : "ls";
	enum err_code rc = servers_load(&all, e);
	if (rc)
		return rc;
	if (str_eq(verb, "ls") && c->arg_count <= 1)
		return context_list(c, all);
	if ((str_eq(verb, "use") || str_eq(verb, "rm")) && c->arg_count == 2)
		return context_change(c, all, verb, c->args[1], e);
	error_set(e, ERR_USAGE, "takes ls, use NAME or rm NAME");
	error_hint(e, "signalbox help context");
	return ERR_USAGE;
}
