/* token: what opens one's own server over the net. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/server.h"
#include "cli/table.h"

const struct opt token_options[] = {
	{ "expires", 0, OPT_DURATION, "TIME", "it stops opening after this time (30d); without: when it is revoked" },
	{ "no-local", 0, OPT_FLAG, NULL, "it may not name directories of the server's machine; none of another project may" },
	{ "project", 0, OPT_STRING, "NAME", "it acts for this project and sees nothing else; without: for yours" },
	{ 0 },
};

static enum err_code token_create(struct cli *c, const char *name, struct error *e)
{
	AUTO_JS struct js *body = js_object();
	AUTO_JS struct js *token = NULL;
	int status = 0;
	js_set_str(body, "name", name);
	if (cli_opt(c, "expires")->set)
		js_set_int(body, "expires_in", cli_opt(c, "expires")->number / 1000);
	js_set_str(body, "project", cli_opt_text(c, "project"));
	if (cli_flag(c, "no-local"))
		js_set_bool(body, "local", false);
	enum err_code rc = client_call(c->client, "POST", "/v1/tokens", body, &status, &token, e);
	if (rc)
		return rc;
	if (c->json) {
		cli_json(c, token);
		return ERR_OK;
	}
	fprintf(c->out.file, "%s\n", js_str_or(token, "token", ""));
	cli_say(c, "signalbox: this is told only now. Elsewhere: signalbox login URL");
	return ERR_OK;
}

static const char *token_state(const struct js *t)
{
	return js_str(t, "revoked_at") ? "revoked" : "holds";
}

static enum err_code token_list(struct cli *c, struct error *e)
{
	static const char *const titles[] = { "ID", "NAME", "PROJECT", "STATE", "CREATED", "EXPIRES", "BY", NULL };
	AUTO_JS struct js *answer = NULL;
	struct table t;
	int status = 0;
	enum err_code rc = client_call(c->client, "GET", "/v1/tokens", NULL, &status, &answer, e);
	if (rc)
		return rc;
	if (c->json) {
		cli_json(c, answer);
		return ERR_OK;
	}
	const struct js *data = js_get(answer, "data");
	table_init(&t, titles);
	for (size_t i = 0; i < js_len(data); i++) {
		const struct js *one = js_at(data, i);
		table_add(&t, COLOUR_NONE, js_str_or(one, "id", ""));
		table_add(&t, COLOUR_BOLD, js_str_or(one, "name", ""));
		table_add(&t, COLOUR_NONE, js_str_or(one, "project", ""));
		table_add(&t, js_str(one, "revoked_at") ? COLOUR_RED : COLOUR_GREEN, token_state(one));
		table_add(&t, COLOUR_DIM, js_str_or(one, "created_at", ""));
		table_add(&t, COLOUR_DIM, js_str_or(one, "expires_at", "-"));
		table_add(&t, COLOUR_DIM, js_str_or(one, "created_by", ""));
	}
	table_print(&t, &c->out);
	table_release(&t);
	if (!js_len(data) && c->err.tty)
		cli_say(c, "signalbox: no tokens; `signalbox token create NAME` makes one");
	return ERR_OK;
}

static enum err_code token_revoke(struct cli *c, const char *ref, struct error *e)
{
	AUTO_STRBUF struct strbuf path = STRBUF_INIT;
	AUTO_JS struct js *answer = NULL;
	int status = 0;
	strbuf_adds(&path, "/v1/tokens/");
	str_add_urlenc(&path, ref);
	enum err_code rc = client_call(c->client, "DELETE", strbuf_str(&path), NULL, &status, &answer, e);
	if (!rc)
		cli_say(c, "signalbox: token %s opens nothing any more", ref);
	return rc;
}

enum err_code cmd_token(struct cli *c, struct error *e)
{
	const char *verb = c->args[0], *what = c->arg_count > 1 ? c->args[1] : NULL;
	bool create = str_eq(verb, "create") && what, revoke = str_eq(verb, "revoke") && what, list = str_eq(verb, "ls") && !what;
	if (!create && !revoke && !list) {
		error_set(e, ERR_USAGE, "takes create NAME, ls or revoke NAME");
		error_hint(e, "signalbox help token");
		return ERR_USAGE;
	}
	enum err_code rc = server_connect(c, e);
	if (rc)
		return rc;
	return create ? token_create(c, what, e) : revoke ? token_revoke(c, what, e) : token_list(c, e);
}
