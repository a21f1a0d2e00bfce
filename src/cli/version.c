/* version: ours, and the server's when one runs. */
#include "cli/version.h"
#include "base/cleanup.h"
#include "cli/server.h"
#include "cli/table.h"

enum err_code cmd_version(struct cli *c, struct error *e UNUSED)
{
	static const char *const titles[] = { "PART", "VERSION", NULL };
	AUTO_JS struct js *reply = NULL;
	struct table t;
	int status = 0;
	/* That no server runs is not an error here: nothing is started to be asked for its version. */
	const char *server = NULL;
	if (!server_connect_running(c, NULL) && !client_call(c->client, "GET", "/version", NULL, &status, &reply, NULL))
		server = js_str(reply, "version");
	if (c->json) {
		AUTO_JS struct js *answer = js_object();
		js_set_str(answer, "version", SIGNALBOX_VERSION);
		js_set(answer, "server", js_string(server));
		cli_json(c, answer);
		return ERR_OK;
	}
	table_init(&t, titles);
	table_add(&t, COLOUR_NONE, "signalbox");
	table_add(&t, COLOUR_NONE, SIGNALBOX_VERSION);
	if (server) {
		table_add(&t, COLOUR_NONE, "server");
		table_add(&t, COLOUR_NONE, server);
	}
	table_print(&t, &c->out);
	table_release(&t);
	return ERR_OK;
}
