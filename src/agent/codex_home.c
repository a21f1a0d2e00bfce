/* CODEX_HOME and the program: config.toml for a worker that must talk to nobody but its gateway. */
#include "agent/codex_home.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define CODEX_INSIDE "/run/signalbox/codex"
#define CODEX_TOKEN_ENV "SIGNALBOX_MODEL_TOKEN"
#define CODEX_REQUEST_RETRIES 3
#define CODEX_STREAM_RETRIES 4
#define CODEX_STREAM_IDLE_MS 300000

enum err_code codex_check(struct js *agent, const char *codex_path, struct error *e)
{
	AUTO_FREE char *program = NULL;
	const char *own = js_str(agent, "path");
	enum err_code rc = codex_find(own ? own : codex_path, &program, e);
	if (!rc)
		js_set_str(agent, "program", program);
	if (!rc && !js_str(agent, "model"))
		js_set_str(agent, "model", CODEX_DEFAULT_MODEL);
	return rc;
}

static void toml_string(struct strbuf *out, const char *s)
{
	AUTO_JS struct js *v = js_string(s); /* a JSON string is a TOML basic string, but for \/ which jansson does not write */
	js_dump_to(v, out);
}

static void config_toml(const struct agent_run *run, struct strbuf *out)
{
	strbuf_adds(out, "model = ");
	toml_string(out, js_str_or(run->agent, "model", CODEX_DEFAULT_MODEL));
	strbuf_adds(out, "\nmodel_provider = \"gateway\"\ncheck_for_update_on_startup = false\nallow_login_shell = false\n"
		"[analytics]\nenabled = false\n[feedback]\nenabled = false\n"
		"[otel]\nexporter = \"none\"\nmetrics_exporter = \"none\"\ntrace_exporter = \"none\"\n"
		"[features]\nplugins = false\napps = false\nremote_plugin = false\nshell_snapshot = false\nunbounded_connection_retries = false\n"
		"[tools.update_plan]\nenabled = true\n"
		"[model_providers.gateway]\nname = \"gateway\"\nwire_api = \"responses\"\nsupports_websockets = false\n"
		"env_key = \"" CODEX_TOKEN_ENV "\"\nbase_url = ");
	toml_string(out, run->model_url);
	strbuf_addf(out, "\nrequest_max_retries = %d\nstream_max_retries = %d\nstream_idle_timeout_ms = %d\n", CODEX_REQUEST_RETRIES,
		CODEX_STREAM_RETRIES, CODEX_STREAM_IDLE_MS);
}

/* The home was the agent's in earlier turns: its directory is opened without following what may have become a link. */
static enum err_code open_home(struct agent *a, int *ret_fd, struct error *e)
{
	AUTO_FREE char *dir = file_join(a->run.home, CODEX_HOME_NAME);
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return error_errno(e, "make '%s'", dir);
	*ret_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return *ret_fd < 0 ? error_errno(e, "open '%s'", dir) : ERR_OK;
}

enum err_code codex_home_write(struct agent *a, int *ret_dir, struct error *e)
{
	AUTO_CLOSE int dir = -1;
	AUTO_STRBUF struct strbuf toml = STRBUF_INIT;
	config_toml(&a->run, &toml);
	enum err_code rc = open_home(a, &dir, e);
	if (!rc)
		rc = file_replace_at(dir, "config.toml", toml.data, toml.len, 0600, FILE_NOSYNC, e);
	if (!rc)
		*ret_dir = TAKE_FD(dir);
	return rc;
}

enum err_code codex_launch(struct agent *a, struct agent_launch *l, struct error *e)
{
	const char *program = js_str(a->run.agent, "program");
	if (!program)
		return error_set(e, ERR_INTERNAL, "the spec names no Codex program");
	/* <vendor>/bin/codex: the whole vendor directory is shown, since Codex brings tools of its own beside it. */
	AUTO_FREE char *bin = file_dirname(program);
	AUTO_FREE char *vendor = file_dirname(bin);
	bool packaged = str_ends(bin, "/bin") && str_ends(program, "/codex");
	agent_launch_bind(l, packaged ? vendor : program, packaged ? CODEX_INSIDE : CODEX_INSIDE "/bin/codex");
	agent_launch_arg(l, CODEX_INSIDE "/bin/codex");
	agent_launch_env(l, "CODEX_HOME", CODEX_HOME_INSIDE);
	agent_launch_env(l, CODEX_TOKEN_ENV, a->run.model_token);
	return ERR_OK;
}
