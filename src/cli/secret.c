/* secret: what opens private repositories. It goes in by standard input and never comes out again. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/server.h"
#include "cli/table.h"
#include <string.h>
#include <termios.h>

#define SECRET_MAX ((size_t)32 << 10)

const struct opt secret_options[] = {
	{ "user", 0, OPT_STRING, "NAME", "the name beside a password; a token does without" },
	{ "known-hosts", 0, OPT_STRING, "FILE", "with an ssh key: the host's own keys (ssh-keyscan HOST)" },
	{ "project", 0, OPT_STRING, "NAME", "of this project; for the server's owner, on its machine" },
	{ .name = NULL },
};

/* Typed at a terminal it is not shown. */
static enum err_code read_secret(const struct cli *c, struct strbuf *text, struct error *e)
{
	struct termios before, quiet;
	bool tty = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
	if (tty) {
		quiet = before;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		cli_say(c, "paste the secret, then Enter and Ctrl-D; it is not shown");
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
	}
	enum err_code rc = file_read_fd(STDIN_FILENO, SECRET_MAX, text, e);
	if (tty)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
	return rc;
}

/* A token is one line; a key keeps its last newline. */
static void trim(struct strbuf *text, bool is_key)
{
	while (!is_key && text->len && (text->data[text->len - 1] == '\n' || text->data[text->len - 1] == '\r'))
		text->data[--text->len] = 0;
}

static enum err_code make_body(const struct cli *c, const char *name, struct js *body, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(SECRET_MAX), hosts = STRBUF_LIMIT(SECRET_MAX);
	const char *file = cli_opt_text(c, "known-hosts");
	enum err_code rc = read_secret(c, &text, e);
	if (rc)
		return error_wrap(e, "read the secret from standard input");
	trim(&text, str_starts(name, "ssh:"));
	if (!text.len)
		return error_set(e, ERR_USAGE, "standard input gives no secret");
	if (!str_is_utf8(text.data, text.len))
		return error_set(e, ERR_INVALID, "the secret is not text");
	js_set_str(body, "secret", text.data);
	explicit_bzero(text.data, text.len);
	js_set_str(body, "user", cli_opt_text(c, "user"));
	if (file && file_read(file, SECRET_MAX, &hosts, e))
		return error_wrap(e, "--known-hosts");
	if (file)
		js_set_str(body, "known_hosts", strbuf_str(&hosts));
	return ERR_OK;
}

/* name NULL: all of them */
static char *secret_path(const struct cli *c, const char *name)
{
	const char *project = cli_opt_text(c, "project");
	struct strbuf path = STRBUF_INIT;
	strbuf_adds(&path, name ? "/v1/secrets/" : "/v1/secrets");
	str_add_urlenc(&path, name ? name : "");
	strbuf_adds(&path, project ? "?project=" : "");
	str_add_urlenc(&path, project ? project : "");
	return strbuf_detach(&path);
}

static enum err_code secret_set(struct cli *c, const char *name, struct error *e)
{
	AUTO_JS struct js *body = js_object();
	AUTO_JS struct js *reply = NULL;
	AUTO_FREE char *path = secret_path(c, name);
	int status = 0;
	enum err_code rc = make_body(c, name, body, e);
	if (!rc)
		rc = server_connect(c, e);
	if (!rc)
		rc = client_call(c->client, "PUT", path, body, &status, &reply, e);
	if (!rc)
		cli_say(c, "stored %s", name);
	return rc;
}

static enum err_code secret_rm(struct cli *c, const char *name, struct error *e)
{
	AUTO_JS struct js *reply = NULL;
	AUTO_FREE char *path = secret_path(c, name);
	int status = 0;
	enum err_code rc = server_connect(c, e);
	if (!rc)
		rc = client_call(c->client, "DELETE", path, NULL, &status, &reply, e);
	if (!rc)
		cli_say(c, "forgot %s", name);
	return rc;
}

static enum err_code secret_ls(struct cli *c, const char *name UNUSED, struct error *e)
{
	static const char *const titles[] = { "NAME", "KIND", "FROM", "SINCE", NULL };
	AUTO_JS struct js *reply = NULL;
	AUTO_FREE char *path = secret_path(c, NULL);
	int status = 0;
	enum err_code rc = server_connect(c, e);
	if (!rc)
		rc = client_call(c->client, "GET", path, NULL, &status, &reply, e);
	if (rc)
		return rc;
	if (c->json) {
		cli_json(c, reply);
		return ERR_OK;
	}
	const struct js *data = js_get(reply, "data");
	struct table t;
	table_init(&t, titles);
	for (size_t i = 0; i < js_len(data); i++) {
		const struct js *s = js_at(data, i);
		table_add(&t, COLOUR_BOLD, js_str(s, "name"));
		table_add(&t, COLOUR_NONE, js_str(s, "kind"));
		table_add(&t, COLOUR_DIM, js_str(s, "from"));
		table_add(&t, COLOUR_DIM, js_str(s, "created_at"));
	}
	table_print(&t, &c->out);
	table_release(&t);
	if (!js_len(data) && c->err.tty)
		cli_say(c, "signalbox: no secrets; `signalbox secret set NAME` keeps one");
	return ERR_OK;
}

static const struct {
	const char *word;
	bool named;
	enum err_code (*run)(struct cli *c, const char *name, struct error *e);
} words[] = { { "set", true, secret_set }, { "ls", false, secret_ls }, { "rm", true, secret_rm } };

enum err_code cmd_secret(struct cli *c, struct error *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (str_eq(c->args[0], words[i].word) && (c->arg_count == 2) == words[i].named)
			return words[i].run(c, c->args[1], e);
	error_set(e, ERR_USAGE, "takes set NAME, ls or rm NAME");
	error_hint(e, "signalbox secret set git:HOST < TOKEN-FILE");
	return ERR_USAGE;
}
