/* say, gates, answer, reject: people's words to a task, and the questions that wait for them. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/remote.h"
#include "cli/server.h"
#include "cli/table.h"
#include "cli/text.h"

const struct opt say_options[] = {
	{ "queue", 0, OPT_FLAG, NULL, "when the agent is at work: deliver it as the next turn, after this one" },
	{ 0 },
};

enum err_code cmd_say(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	AUTO_JS struct js *after = NULL;
	AUTO_JS struct js *body = js_object();
	int status = 0;
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (rc)
		return rc;
	AUTO_FREE char *path = remote_path(remote_id(task), "/messages");
	js_set_str(body, "text", c->args[1]);
	if (cli_flag(c, "queue"))
		js_set_bool(body, "queue", true);
	rc = client_call(c->client, "POST", path, body, &status, &after, e);
	if (rc)
		return rc;
	if (c->json)
		cli_json(c, after);
	else
		cli_say(c, "signalbox: task %s is %s; `signalbox wait %s` for its end", remote_label(after), remote_status(after), remote_label(after));
	return ERR_OK;
}

static void add_question(struct table *t, const struct js *gate)
{
	const struct js *questions = js_path(gate, "data.questions");
	const char *text = js_len(questions) ? js_text(js_at(questions, 0)) : js_text(js_path(gate, "data.text"));
	table_add(t, COLOUR_BOLD, js_str_or(gate, "id", ""));
	table_add(t, COLOUR_NONE, js_str(gate, "name") ? js_str(gate, "name") : js_str_or(gate, "task", ""));
	table_add(t, COLOUR_YELLOW, js_str_or(gate, "kind", ""));
	table_add(t, COLOUR_NONE, text ? text : "");
}

enum err_code cmd_gates(struct cli *c, struct error *e)
{
	static const char *const titles[] = { "GATE", "TASK", "KIND", "QUESTION", NULL };
	AUTO_JS struct js *answer = NULL;
	int status = 0;
	struct table t;
	enum err_code rc = server_connect(c, e);
	if (!rc)
		rc = client_call(c->client, "GET", "/v1/gates?state=blocked", NULL, &status, &answer, e);
	if (rc)
		return rc;
	if (c->json)
		cli_json(c, js_get(answer, "data"));
	table_init(&t, titles);
	for (size_t i = 0; i < js_len(js_get(answer, "data")) && !c->json; i++)
		add_question(&t, js_at(js_get(answer, "data"), i));
	table_print(&t, &c->out);
	table_release(&t);
	if (!js_len(js_get(answer, "data")))
		cli_say(c, "signalbox: nobody waits for you");
	return ERR_OK;
}

static enum err_code decide(struct cli *c, const char *decision, const char *text, struct error *e)
{
	AUTO_JS struct js *gate = NULL;
	AUTO_JS struct js *body = js_object();
	AUTO_STRBUF struct strbuf path = STRBUF_INIT;
	int status = 0;
	strbuf_adds(&path, "/v1/gates/");
	str_add_urlenc(&path, c->args[0]);
	strbuf_adds(&path, "/decision");
	js_set_str(body, "decision", decision);
	js_set_str(body, "answer", text);
	enum err_code rc = server_connect(c, e);
	if (!rc)
		rc = client_call(c->client, "POST", strbuf_str(&path), body, &status, &gate, e);
	if (rc)
		return rc;
	if (c->json)
		cli_json(c, gate);
	else
		cli_say(c, "signalbox: gate %s is %s; task %s goes on", c->args[0], js_str_or(gate, "state", "settled"), js_str_or(gate, "task", ""));
	return ERR_OK;
}

enum err_code cmd_answer(struct cli *c, struct error *e)
{
	return decide(c, "answer", c->args[1], e);
}

enum err_code cmd_reject(struct cli *c, struct error *e)
{
	return decide(c, "reject", c->arg_count > 1 ? c->args[1] : NULL, e);
}
