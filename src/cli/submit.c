/* The request of run and start: prompt, source, settings. */
#include "cli/submit.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/interrupt.h"
#include "cli/server.h"
#include "cli/remote.h"
#include "cli/text.h"
#include "cli/upload.h"
#include <string.h>

#define PROMPT_MAX ((size_t)4 << 20)
#define SETUP_MAX ((size_t)1 << 20)
#define PRIORITY_MAX 1000000
#define POST_PAUSE_FIRST_MS 100 /* before a submit is sent again */
#define POST_PAUSE_LAST_MS 1000

const struct opt submit_options[] = {
	{ "name", 'n', OPT_STRING, "NAME", "your own name for the task, for example T-001" },
	{ "repo", 'r', OPT_STRING, "URL|DIR|-", "where the code is; - for an empty workspace" },
	{ "ref", 0, OPT_STRING, "REF", "branch, tag or commit to start from" },
	{ "depth", 0, OPT_INT, "N", "of a URL: only so many commits of its history" },
	{ "submodules", 0, OPT_FLAG, NULL, "of a URL: its submodules too" },
	{ "lfs", 0, OPT_FLAG, NULL, "of a URL: the files that git-lfs keeps elsewhere" },
	{ "archive", 0, OPT_STRING, "FILE|-", "a zip, tar, tar.gz, tar.zst or tar.xz with the code" },
	{ "keep-top", 0, OPT_FLAG, NULL, "an archive that holds a single directory is taken with it, not from it" },
	{ "prompt-file", 'F', OPT_STRING, "FILE", "read the prompt from a file" },
	{ "agent", 'a', OPT_STRING, "NAME", "which agent: codex (the default), codex-exec, claude, command, or a configured one" },
	{ "model", 'm', OPT_STRING, "NAME", "which model the agent uses" },
	{ "mode", 0, OPT_STRING, "code|ask|plan", "what the agent shall do: change the code, answer, or plan only" },
	{ "environment", 0, OPT_STRING, "NAME", "how the workspace is prepared" },
	{ "env", 'e', OPT_LIST, "K=V", "a variable for setup and agent; K alone takes it from yours" },
	{ "setup", 0, OPT_STRING, "FILE", "a script that runs before the agent" },
	{ "setup-network", 0, OPT_STRING, "none|host", "the network the setup script has" },
	{ "verify", 0, OPT_STRING, "CMD", "a command that checks the result; failing it fails the task" },
	{ "timeout", 't', OPT_DURATION, "TIME", "longest time of a run (30m, 1h)" },
	{ "retries", 0, OPT_INT, "N", "further attempts when one fails (0)" },
	{ "stall-timeout", 0, OPT_DURATION, "TIME", "longest silence of the agent" },
	{ "setup-timeout", 0, OPT_DURATION, "TIME", "longest time of the setup script" },
	{ "limit", 0, OPT_LIST, "K=V", "memory=2G, pids=N, cpu_percent=N, file_size=1G, output=64M" },
	{ "approvals", 0, OPT_STRING, "MODE", "what the agent asks people for: always, on-request or never" },
	{ "require", 0, OPT_STRING, "WORD,...", "what the agent must be able to do: gates, questions, steer, interrupt, resume, todos, usage" },
	{ "priority", 0, OPT_INT, "N", "higher is sooner" },
	{ "label", 'l', OPT_LIST, "K=V", "a label to find the task by" },
	{ .name = NULL },
};

static const struct {
	const char *name;
	bool is_size;
} limits[] = { { "memory", true }, { "pids", false }, { "cpu_percent", false }, { "file_size", true }, { "output", true } };

static enum err_code read_prompt_from(const char *path, struct strbuf *ret, struct error *e)
{
	enum err_code rc = str_eq(path, "-") ? file_read_fd(0, PROMPT_MAX, ret, e) : file_read(path, PROMPT_MAX, ret, e);
	return rc ? error_wrap(e, "read the prompt") : rc;
}

static enum err_code take_prompt(const struct cli *c, struct js *body, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(PROMPT_MAX);
	const char *file = cli_opt_text(c, "prompt-file");
	if (file && c->arg_count)
		return error_set(e, ERR_USAGE, "takes a PROMPT or --prompt-file, not both");
	if (!file && !c->arg_count) {
		error_set(e, ERR_USAGE, "needs a PROMPT");
		error_hint(e, "signalbox %s \"what should be done\"", c->command->name);
		return ERR_USAGE;
	}
	if (file || str_eq(c->args[0], "-")) {
		enum err_code rc = read_prompt_from(file ? file : "-", &text, e);
		if (rc)
			return rc;
	} else {
		strbuf_adds(&text, c->args[0]);
	}
	if (!text.len)
		return error_set(e, ERR_USAGE, "the prompt is empty");
	if (!str_is_utf8(text.data, text.len))
		return error_set(e, ERR_INVALID, "the prompt is not UTF-8 text");
	js_set(body, "prompt", js_string_n(text.data, text.len));
	return ERR_OK;
}

static bool is_git_url(const char *s)
{
	const char *colon = strchr(s, ':');
	const char *slash = strchr(s, '/');
	/* "scheme://..." or git's short "user@host:path" */
	return strstr(s, "://") || (colon && strchr(s, '@') && (!slash || colon < slash));
}

static void source_local(struct js *source, const char *dir, const char *ref)
{
	js_set_str(source, "kind", "local");
	js_set_str(source, "dir", dir);
	js_set_str(source, "ref", ref); /* a named ref of a directory is its committed state */
}

static enum err_code source_here(struct js *source, const char *ref, struct error *e)
{
	AUTO_FREE char *top = remote_here();
	AUTO_FREE char *cwd = getcwd(NULL, 0);
	if (!top) {
		error_set(e, ERR_USAGE, "'%s' is not inside a repository", cwd ? cwd : ".");
		error_hint(e, "add --repo . to take this directory as it is, or --repo - to start with an empty workspace");
		return ERR_USAGE;
	}
	source_local(source, top, ref);
	return ERR_OK;
}

static enum err_code source_named(const struct cli *c, struct js *source, const char *repo, const char *ref, struct error *e)
{
	static const char *const flags[] = { "submodules", "lfs" };
	AUTO_FREE char *real = NULL;
	if (file_is_dir(repo)) {
		enum err_code rc = file_realpath(repo, &real, e);
		if (!rc)
			source_local(source, real, ref);
		return rc;
	}
	if (!is_git_url(repo)) {
		AUTO_STRBUF struct strbuf shown = STRBUF_INIT;
		text_add_line(&shown, repo);
		return error_set(e, ERR_USAGE, "--repo '%s' is neither a directory nor a URL", strbuf_str(&shown));
	}
	js_set_str(source, "kind", "git");
	js_set_str(source, "url", repo);
	js_set_str(source, "ref", ref);
	if (cli_opt(c, "depth")->set)
		js_set_int(source, "depth", cli_opt(c, "depth")->number);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (cli_opt(c, flags[i])->set)
			js_set_bool(source, flags[i], cli_flag(c, flags[i]));
	return ERR_OK;
}

/* The upload itself is made when there is a server to send it to: submit_task. */
static enum err_code source_archive(const struct cli *c, struct js *source, struct error *e)
{
	if (cli_opt_text(c, "repo") || cli_opt_text(c, "ref"))
		return error_set(e, ERR_USAGE, "--archive is a source of its own: --repo and --ref mean nothing with it");
	js_set_str(source, "kind", "archive");
	if (cli_opt(c, "keep-top")->flag)
		js_set_bool(source, "keep_top", true);
	return ERR_OK;
}

static enum err_code take_source(const struct cli *c, struct js *body, struct error *e)
{
	const char *repo = cli_opt_text(c, "repo"), *ref = cli_opt_text(c, "ref");
	struct js *source = js_object();
	js_set(body, "source", source);
	if (cli_opt_text(c, "archive"))
		return source_archive(c, source, e);
	if (cli_opt(c, "keep-top")->set)
		return error_set(e, ERR_USAGE, "--keep-top means nothing without --archive");
	if (!repo)
		return source_here(source, ref, e);
	if (!str_eq(repo, "-"))
		return source_named(c, source, repo, ref, e);
	if (ref)
		return error_set(e, ERR_USAGE, "--ref means nothing with --repo -");
	js_set_str(source, "kind", "none");
	return ERR_OK;
}

/* K=V pairs of an option as an object; K alone takes its value from the environment when `from_env`. */
static enum err_code take_pairs(const struct cli *c, const char *option, const char *member, bool from_env, struct js *body, struct error *e)
{
	const struct opt_value *v = cli_opt(c, option);
	struct js *pairs = v->list_len ? js_object() : NULL;
	if (pairs)
		js_set(body, member, pairs);
	for (int i = 0; i < v->list_len; i++) {
		size_t n = strcspn(v->list[i], "=");
		AUTO_FREE char *key = mem_strndup(v->list[i], n);
		const char *value = v->list[i][n] ? v->list[i] + n + 1 : from_env ? getenv(key) : NULL;
		if (!n || !value)
			return error_set(e, ERR_USAGE, "--%s '%s' is not K=V%s", option, key, from_env ? ", and your environment has no such variable" : "");
		js_set_str(pairs, key, value);
	}
	return ERR_OK;
}

static enum err_code take_limit(struct js *body, const char *text, struct error *e)
{
	int64_t number = 0;
	size_t n = strcspn(text, "=");
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		if (strlen(limits[i].name) != n || strncmp(limits[i].name, text, n) != 0 || !text[n])
			continue;
		if (limits[i].is_size ? str_to_size(text + n + 1, text, 1, INT64_MAX, &number, e) : str_to_i64(text + n + 1, text, 1, INT64_MAX, &number, e)) {
			e->code = ERR_USAGE;
			return ERR_USAGE;
		}
		if (!js_get(body, "limits"))
			js_set(body, "limits", js_object());
		js_set_int(js_get(body, "limits"), limits[i].name, number);
		return ERR_OK;
	}
	error_set(e, ERR_USAGE, "there is no limit '%s'", text);
	error_hint(e, "memory=2G, pids=N, cpu_percent=N, file_size=1G or output=64M");
	return ERR_USAGE;
}

static enum err_code take_limits(const struct cli *c, struct js *body, struct error *e)
{
	const struct opt_value *v = cli_opt(c, "limit");
	for (int i = 0; i < v->list_len; i++)
		if (take_limit(body, v->list[i], e))
			return e->code;
	return ERR_OK;
}

static enum err_code take_setup(const struct cli *c, struct js *body, struct error *e)
{
	const char *file = cli_opt_text(c, "setup");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(SETUP_MAX);
	js_set_str(body, "setup", cli_setting(c, SET_SETUP));
	if (!file)
		return ERR_OK;
	if (file_read(file, SETUP_MAX, &text, e))
		return error_wrap(e, "read the setup script");
	js_set(body, "setup", js_string_n(strbuf_str(&text), text.len));
	return ERR_OK;
}

static enum err_code take_numbers(const struct cli *c, struct js *body, struct error *e)
{
	const char *timeout = cli_setting(c, SET_TIMEOUT), *priority = cli_setting(c, SET_PRIORITY);
	int64_t n = 0;
	if (timeout) {
		if (str_to_duration_ms(timeout, c->settings.from[SET_TIMEOUT], 1, INT64_MAX, &n, e))
			return e->code;
		js_set_int(body, "timeout_ms", n);
	}
	if (priority) {
		if (str_to_i64(priority, c->settings.from[SET_PRIORITY], -PRIORITY_MAX, PRIORITY_MAX, &n, e))
			return e->code;
		js_set_int(body, "priority", n);
	}
	if (cli_opt(c, "retries")->set)
		js_set_int(body, "retries", cli_opt(c, "retries")->number);
	if (cli_opt(c, "stall-timeout")->set)
		js_set_int(body, "stall_timeout_ms", cli_opt(c, "stall-timeout")->number);
	if (cli_opt(c, "setup-timeout")->set)
		js_set_int(body, "setup_timeout_ms", cli_opt(c, "setup-timeout")->number);
	return ERR_OK;
}

/* What people are asked, and what the agent must have: words that the server checks. */
static enum err_code take_approvals(const struct cli *c, struct js *body, struct error *e)
{
	static const char *const modes[] = { "always", "on-request", "never" };
	const char *mode = cli_opt_text(c, "approvals"), *at = cli_opt_text(c, "require");
	bool known = !mode;
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		known = known || str_eq(mode, modes[i]);
	if (!known)
		return error_set(e, ERR_USAGE, "--approvals takes always, on-request or never, not '%.40s'", mode);
	if (mode) {
		js_set(body, "approvals", js_object());
		js_set_str(js_get(body, "approvals"), "ask", mode);
	}
	if (at)
		js_set(body, "require", js_array());
	for (; at && *at; at += strspn(at, ", ")) {
		size_t n = strcspn(at, ", ");
		if (n)
			js_push(js_get(body, "require"), js_string_n(at, n));
		at += n;
	}
	return ERR_OK;
}

/* A directory of ours means nothing to a server elsewhere. */
static enum err_code check_reach(const struct cli *c, const struct js *body, struct error *e)
{
	static const char *const local[] = { "http://127.", "http://localhost", "http://[::1]", "https://127.", "https://localhost", "https://[::1]" };
	const struct js *source = js_get(body, "source");
	const char *server = cli_setting(c, SET_SERVER);
	bool is_dir = str_eq(js_str(source, "kind"), "local") || str_starts(js_str_or(source, "url", ""), "file:");
	AUTO_FREE char *socket_path = server_socket(c);
	for (size_t i = 0; server && i < ARRAY_SIZE(local); i++)
		if (str_starts(server, local[i]))
			return ERR_OK;
	if (socket_path || !is_dir)
		return ERR_OK;
	error_set(e, ERR_USAGE, "the server is on another machine and cannot see '%s'", js_str_or(source, "dir", js_str_or(source, "url", "")));
	error_hint(e, "push the code and give its URL: --repo URL --ref BRANCH");
	return ERR_USAGE;
}

/* Before the prompt is read from it. */
static enum err_code check_stdin(const struct cli *c, struct error *e)
{
	bool is_prompt = str_eq(cli_opt_text(c, "prompt-file"), "-") || (c->arg_count && str_eq(c->args[0], "-"));
	if (is_prompt && str_eq(cli_opt_text(c, "archive"), "-"))
		return error_set(e, ERR_USAGE, "standard input is the archive or the prompt, not both");
	return ERR_OK;
}

static enum err_code make_request(const struct cli *c, struct js *body, struct error *e)
{
	static const struct { const char *member; enum setting setting; } plain[] = {
		{ "agent", SET_AGENT }, { "model", SET_MODEL }, { "mode", SET_MODE }, { "environment", SET_ENVIRONMENT },
		{ "setup_network", SET_SETUP_NETWORK }, { "verify", SET_VERIFY },
	};
	js_set_str(body, "name", cli_opt_text(c, "name"));
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		js_set_str(body, plain[i].member, cli_setting(c, plain[i].setting));
	if (check_stdin(c, e) || take_approvals(c, body, e) || take_prompt(c, body, e) || take_source(c, body, e) || take_setup(c, body, e) || take_numbers(c, body, e) ||
	    take_pairs(c, "env", "env", true, body, e) || take_pairs(c, "label", "labels", false, body, e) || take_limits(c, body, e) ||
	    check_reach(c, body, e))
		return e->code;
	return ERR_OK;
}

/* An agent that needs a model and has no key fails after a while, in words of its own: better said now. */
static void warn_of_missing_key(struct cli *c, const struct js *task)
{
	AUTO_JS struct js *reply = NULL;
	int status = 0;
	if (!str_starts(js_str_or(task, "agent", ""), "codex") || client_call(c->client, "GET", "/v1/doctor", NULL, &status, &reply, NULL))
		return;
	const struct js *checks = js_get(reply, "checks");
	for (size_t i = 0; i < js_len(checks); i++)
		if (str_eq(js_str(js_at(checks, i), "name"), "model") && !js_flag(js_at(checks, i), "ok", true))
			cli_say(c, "signalbox: %s; %s", js_str_or(js_at(checks, i), "text", "no model key"), js_str_or(js_at(checks, i), "hint", "signalbox doctor"));
}

static enum err_code send_archive(struct cli *c, const struct js *body, struct error *e)
{
	AUTO_FREE char *id = NULL;
	enum err_code rc = upload_archive(c, cli_opt_text(c, "archive"), &id, e);
	if (!rc)
		js_set_str(js_get(body, "source"), "upload", id);
	return rc;
}

static void drop_archive(struct cli *c, const struct js *body)
{
	const char *id = js_str(js_get(body, "source"), "upload");
	AUTO_FREE char *path = mem_printf("/v1/uploads/%s", id ? id : "");
	int status = 0;
	if (id && client_call(c->client, "DELETE", path, NULL, &status, NULL, NULL))
		return; /* it goes when it is old enough */
}

/* When the connection breaks nobody knows whether the task was made: under the same key it is safe to ask again. */
static enum err_code post_task(struct client *client, const struct js *body, struct js **ret_task, struct error *e)
{
	char key[ID_SIZE];
	clock_new_id(key);
	AUTO_FREE char *header = mem_printf("Idempotency-Key: %s", key);
	for (int64_t pause = POST_PAUSE_FIRST_MS;; pause *= 3) {
		int status = 0;
		client_header(client, header);
		enum err_code rc = client_call(client, "POST", "/v1/tasks", body, &status, ret_task, e);
		if (rc != ERR_UNREACHABLE || status || pause > POST_PAUSE_LAST_MS)
			return rc;
		interrupt_sleep(pause);
		error_clear(e);
	}
}

enum err_code submit_task(struct cli *c, struct js **ret_task, struct error *e)
{
	AUTO_JS struct js *body = js_object();
	enum err_code rc = make_request(c, body, e);
	if (!rc)
		rc = server_connect(c, e);
	if (rc)
		return rc;
	server_offer_keys(c);
	if (cli_opt_text(c, "archive"))
		rc = send_archive(c, body, e);
	if (rc)
		return rc;
	rc = post_task(cli_opt_text(c, "archive") ? c->stream : c->client, body, ret_task, e); /* unpacking takes its time */
	if (rc == ERR_INVALID || rc == ERR_TOO_LARGE)
		drop_archive(c, body); /* it will not be accepted the next time either */
	if (!rc && !js_str(*ret_task, "id"))
		return error_set(e, ERR_INTERNAL, "the server took the task but told no id");
	if (!rc)
		warn_of_missing_key(c, *ret_task);
	return rc;
}
