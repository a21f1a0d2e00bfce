/* artifacts: the files a task handed in. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/table.h"
#include "cli/remote.h"
#include <inttypes.h>

#define ARTIFACT_MAX ((size_t)1 << 30)

const struct opt artifacts_options[] = {
	{ "output", 'o', OPT_STRING, "FILE", "write the file there instead of to standard output" },
	{ .name = NULL },
};

static enum err_code list(struct cli *c, const struct js *task, struct error *e)
{
	static const char *const titles[] = { "SIZE", "TYPE", "PATH", NULL };
	AUTO_JS struct js *reply = NULL;
	int status = 0;
	struct table t;
	AUTO_FREE char *path = remote_path(remote_id(task), "/artifacts");
	enum err_code rc = client_call(c->client, "GET", path, NULL, &status, &reply, e);
	if (rc)
		return rc;
	if (c->json) {
		cli_json(c, reply);
		return ERR_OK;
	}
	table_init(&t, titles);
	const struct js *data = js_get(reply, "data");
	for (size_t i = 0; i < js_len(data); i++) {
		AUTO_STRBUF struct strbuf size = STRBUF_INIT;
		if (c->out.tty)
			str_add_size(&size, js_i64(js_at(data, i), "size", 0));
		else
			strbuf_addf(&size, "%" PRId64, js_i64(js_at(data, i), "size", 0));
		table_add(&t, COLOUR_NONE, strbuf_str(&size));
		table_add(&t, COLOUR_DIM, js_str(js_at(data, i), "mime"));
		table_add(&t, COLOUR_NONE, js_str(js_at(data, i), "path"));
	}
	table_print(&t, &c->out);
	table_release(&t);
	return ERR_OK;
}

/* "/artifacts/a%20b/c": each part encoded, the slashes kept. */
static void add_artifact_path(struct strbuf *out, const char *path)
{
	AUTO_STRBUF struct strbuf part = STRBUF_INIT;
	strbuf_adds(out, "/artifacts/");
	for (const char *p = path; *p; p++) {
		if (*p != '/') {
			strbuf_addc(&part, *p);
			continue;
		}
		str_add_urlenc(out, strbuf_str(&part));
		strbuf_addc(out, '/');
		strbuf_reset(&part);
	}
	str_add_urlenc(out, strbuf_str(&part));
}

static enum err_code print_one(struct cli *c, const struct js *task, const char *name, struct error *e)
{
	AUTO_STRBUF struct strbuf suffix = STRBUF_INIT, data = STRBUF_LIMIT(ARTIFACT_MAX);
	const char *file = cli_opt_text(c, "output");
	int status = 0;
	add_artifact_path(&suffix, name);
	AUTO_FREE char *path = remote_path(remote_id(task), strbuf_str(&suffix));
	enum err_code rc = client_get(c->client, path, "*/*", &status, &data, e);
	if (rc) {
		error_hint(e, "signalbox artifacts %s", remote_label(task));
		return rc;
	}
	if (file)
		return file_replace(file, strbuf_str(&data), data.len, 0644, FILE_NOSYNC, e);
	if (!c->out.tty) {
		term_write(&c->out, &data);
		return ERR_OK;
	}
	AUTO_STRBUF struct strbuf shown = STRBUF_LIMIT(ARTIFACT_MAX);
	str_add_printable(&shown, strbuf_str(&data), data.len);
	term_write(&c->out, &shown);
	return ERR_OK;
}

enum err_code cmd_artifacts(struct cli *c, struct error *e)
{
	AUTO_JS struct js *task = NULL;
	enum err_code rc = remote_find(c, c->args[0], &task, e);
	if (rc)
		return rc;
	return c->arg_count > 1 ? print_one(c, task, c->args[1], e) : list(c, task, e);
}
