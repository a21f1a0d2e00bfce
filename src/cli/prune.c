/* prune: the cache without what nothing needs. */
#include "base/cleanup.h"
#include "base/str.h"
#include "cli/server.h"
#include "cli/table.h"

const struct opt prune_options[] = {
	{ "dry-run", 'n', OPT_FLAG, NULL, "only say what would go" },
	{ "older-than", 0, OPT_DURATION, "TIME", "only what nobody has used within that time (7d)" },
	{ .name = NULL },
};

static void add_rows(struct table *t, const struct js *list, const char *word, enum colour colour)
{
	for (size_t i = 0; i < js_len(list); i++) {
		const struct js *o = js_at(list, i);
		AUTO_STRBUF struct strbuf size = STRBUF_INIT;
		str_add_size(&size, js_i64(o, "bytes", 0));
		table_add(t, colour, word);
		table_add(t, COLOUR_NONE, js_str(o, "kind"));
		table_add(t, COLOUR_NONE, strbuf_str(&size));
		table_add(t, COLOUR_DIM, js_str(o, "used_at"));
		table_add(t, COLOUR_NONE, js_str(o, "what"));
		table_add(t, COLOUR_DIM, js_str(o, "why"));
	}
}

static void print(const struct cli *c, const struct js *reply)
{
	static const char *const titles[] = { "", "KIND", "SIZE", "LAST USED", "WHAT", "WHY", NULL };
	AUTO_STRBUF struct strbuf removed = STRBUF_INIT, kept = STRBUF_INIT;
	bool dry = js_flag(reply, "dry_run", false);
	struct table t;
	table_init(&t, titles);
	t.whole = true; /* why it stays is what one looks for */
	add_rows(&t, js_get(reply, "removed"), dry ? "would go" : "gone", COLOUR_YELLOW);
	add_rows(&t, js_get(reply, "kept"), "stays", COLOUR_NONE);
	table_print(&t, &c->out);
	table_release(&t);
	str_add_size(&removed, js_i64(reply, "removed_bytes", 0));
	str_add_size(&kept, js_i64(reply, "kept_bytes", 0));
	cli_say(c, "%s %s, %s stay", strbuf_str(&removed), dry ? "would go" : "removed", strbuf_str(&kept));
}

enum err_code cmd_prune(struct cli *c, struct error *e)
{
	AUTO_JS struct js *body = js_object();
	AUTO_JS struct js *reply = NULL;
	int status = 0;
	js_set_bool(body, "dry_run", cli_flag(c, "dry-run"));
	js_set_int(body, "older_than_s", cli_opt(c, "older-than")->number / 1000);
	enum err_code rc = server_connect(c, e);
	if (!rc)
		rc = client_call(c->client, "POST", "/v1/prune", body, &status, &reply, e);
	if (rc)
		return rc;
	if (c->json)
		cli_json(c, reply);
	else
		print(c, reply);
	return ERR_OK;
}
