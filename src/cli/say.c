/* say, interrupt: people's words to a task, and the end of its turn. */
#include "base/cleanup.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/remote.h"

const struct opt say_options[] = {
	{ "queue", 0, OPT_FLAG, NULL, "when the agent is at work: deliver it as the next turn, after this one" },
	{ "id", 0, OPT_STRING, "ID", "your own id of the message: said again with it, it counts once" },
	{ 0 },
};

/* What became of the words. */
static const struct {
	const char *how, *text;
} hows[] = {
	{ "turn", "begins its next turn" },
	{ "steering", "is told at once; `signalbox events -f` shows what comes of it" },
	{ "queued", "is told when this turn has ended" },
};

static void tell(const struct cli *c, const struct js *task)
{
	const char *how = js_str_or(js_get(task, "message"), "how", ""), *text = js_flag(js_get(task, "message"), "again", false) ? "has had this message before" : NULL;
	for (size_t i = 0; !text && i < ARRAY_SIZE(hows); i++)
		if (str_eq(hows[i].how, how))
			text = hows[i].text;
	if (text)
		cli_say(c, "signalbox: task %s %s", remote_label(task), text);
	else
		cli_say(c, "signalbox: task %s is %s", remote_label(task), remote_status(task));
	if (!str_eq(how, "steering"))
		cli_say(c, "  wait  signalbox wait %s", remote_label(task));
}

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
	js_set_str(body, "id", cli_opt_text(c, "id"));
	rc = client_call(c->client, "POST", path, body, &status, &after, e);
	if (rc)
		return rc;
	if (c->json)
		cli_json(c, after);
	else
		tell(c, after);
	return ERR_OK;
}

enum err_code cmd_interrupt(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	AUTO_JS struct js *after = NULL;
	int status = 0;
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (rc)
		return rc;
	AUTO_FREE char *path = remote_path(remote_id(task), "/interrupt");
	rc = client_call(c->client, "POST", path, NULL, &status, &after, e);
	if (rc)
		return rc;
	if (c->json)
		cli_json(c, after);
	else
		cli_say(c, "signalbox: task %s was asked to end its turn; `signalbox say %s ...` goes on from there", remote_label(task), remote_label(task));
	return ERR_OK;
}
