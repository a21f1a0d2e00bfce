/* The client's side of starting and finding the server. */
#include "cli/server.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "cli/text.h"
#include "core/paths.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define START_DEADLINE_MS 60000	    /* while it lives: a machine may be busy, or its disk slow */
#define START_POLL_MS 10	    /* between two looks at the socket */
#define CONNECT_TIMEOUT_MS 5000
#define CALL_TIMEOUT_MS 600000	    /* a submit makes a snapshot before it answers */
#define LOG_TAIL_LINES 8
#define LOG_READ_MAX ((size_t)64 << 10)
#define ENV_MAX 256		    /* variables handed to the server */

/* What of our environment the server gets: who and where we are, how to reach the net, and our own settings. */
static const char *const env_names[] = {
	"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "OPENAI_API_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
};
/* Ours alone: whom this client talks to is not the server's business. */
static const char *const env_not[] = { "SIGNALBOX_SERVER", "SIGNALBOX_TOKEN", "SIGNALBOX_DATA", "SIGNALBOX_RUNTIME" };

static bool env_is(const char *entry, const char *name)
{
	size_t n = strlen(name);
	return strncmp(entry, name, n) == 0 && entry[n] == '=';
}

static bool env_is_one_of(const char *entry, const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (env_is(entry, names[i]))
			return true;
	return false;
}

static void clean_environment(const char *ret[ENV_MAX + 1])
{
	size_t n = 0;
	for (char **p = environ; *p && n < ENV_MAX; p++)
		if ((env_is_one_of(*p, env_names, ARRAY_SIZE(env_names)) || str_starts(*p, "XDG_") || str_starts(*p, "LC_") || str_starts(*p, "SIGNALBOX_")) &&
		    !env_is_one_of(*p, env_not, ARRAY_SIZE(env_not)))
			ret[n++] = *p;
	ret[n] = NULL;
}

static bool is_url(const char *server)
{
	return str_starts(server, "http://") || str_starts(server, "https://");
}

char *server_socket(const struct cli *c)
{
	const char *server = cli_setting(c, SET_SERVER);
	if (!server)
		return paths_socket(cli_setting(c, SET_RUNTIME));
	return is_url(server) ? NULL : mem_strdup(str_starts(server, "unix:") ? server + 5 : server);
}

bool server_answers(const char *socket_path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	if (strlen(socket_path) >= sizeof(addr.sun_path))
		return false;
	memcpy(addr.sun_path, socket_path, strlen(socket_path));
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
}

static enum err_code check_socket_path(const char *path, struct error *e)
{
	if (strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path))
		return ERR_OK;
	error_set(e, ERR_INVALID, "the socket's path '%s' is longer than the %zu bytes the system allows", path, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	error_hint(e, "choose a shorter directory with --runtime");
	return ERR_INVALID;
}

static enum err_code open_clients(struct cli *c, const char *socket_path, struct error *e)
{
	struct client_config cfg = {
		.socket = socket_path,
		.url = socket_path ? NULL : cli_setting(c, SET_SERVER),
		.token = cli_setting(c, SET_TOKEN),
		.connect_timeout_ms = CONNECT_TIMEOUT_MS,
		.timeout_ms = CALL_TIMEOUT_MS,
	};
	enum err_code rc = client_open(&cfg, &c->client, e);
	if (rc)
		return rc;
	cfg.timeout_ms = 0;
	return client_open(&cfg, &c->stream, e);
}

static enum err_code nobody_answers(const struct cli *c, const char *socket_path, struct error *e)
{
	error_set(e, ERR_UNREACHABLE, "no server answers on '%s'", socket_path);
	if (cli_setting(c, SET_SERVER))
		error_hint(e, "start one there, or name another by --server http://HOST:PORT or --server SOCKET (this came from %s)", c->settings.from[SET_SERVER]);
	else
		error_hint(e, "signalbox serve");
	return ERR_UNREACHABLE;
}

enum err_code server_connect_running(struct cli *c, struct error *e)
{
	AUTO_FREE char *path = server_socket(c);
	if (path && check_socket_path(path, e))
		return e->code;
	if (path && !server_answers(path))
		return nobody_answers(c, path, e);
	return open_clients(c, path, e);
}

static enum err_code open_log(const char *data, char **ret_path, int *ret_fd, struct error *e)
{
	AUTO_FREE char *dir = file_join(data, "log");
	/* The data directory itself must let a sandbox's identity through to its own workspace; the log is nobody else's. */
	enum err_code rc = file_mkdirs(data, 0711, e);
	if (!rc)
		rc = file_mkdirs(dir, 0700, e);
	if (rc)
		return rc;
	AUTO_FREE char *path = file_join(dir, "server.log");
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(e, "open the server's log '%s'", path);
	*ret_fd = fd;
	*ret_path = TAKE_PTR(path);
	return ERR_OK;
}

static void add_log_tail(const char *path, off_t from, struct strbuf *out)
{
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(LOG_READ_MAX);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || lseek(fd, from, SEEK_SET) < 0 || file_read_fd(fd, LOG_READ_MAX, &text, NULL) || !text.len)
		return;
	strbuf_adds(out, "\n    ");
	text_add_block(out, text_tail(strbuf_str(&text), LOG_TAIL_LINES), 4);
}

/* Until the socket answers, the child is dead, or the time is up. */
static enum err_code wait_until_up(const char *socket_path, struct proc *server, struct error *e)
{
	int64_t deadline = clock_mono_ms() + START_DEADLINE_MS;
	while (!server_answers(socket_path)) {
		int status = 0;
		enum err_code rc = proc_wait(server, START_POLL_MS, &status, NULL);
		/* Somebody else's server may have won the race: then ours ends and theirs answers. */
		if (!rc && server_answers(socket_path))
			break;
		if (!rc)
			return error_set(e, ERR_UNREACHABLE, "the server ended at its start with exit status %d", status);
		if (rc != ERR_TIMEOUT)
			return error_set(e, ERR_INTERNAL, "lost sight of the server while it started");
		if (clock_mono_ms() > deadline)
			return error_set(e, ERR_UNREACHABLE, "the server did not answer on '%s' within %d s", socket_path, START_DEADLINE_MS / 1000);
	}
	return ERR_OK;
}

static enum err_code spawn(struct cli *c, int log_fd, struct proc *ret, struct error *e)
{
	AUTO_FREE char *self = proc_self_path();
	const char *env[ENV_MAX + 1];
	const char *argv[] = { self, "serve", "--data", cli_setting(c, SET_DATA), "--runtime", cli_setting(c, SET_RUNTIME), NULL };
	struct proc_spec spec = PROC_SPEC_INIT;
	clean_environment(env);
	spec.argv = argv;
	spec.env = env;
	spec.cwd = "/";
	spec.stdout_fd = spec.stderr_fd = log_fd;
	spec.new_session = true;
	return proc_start(&spec, ret, e);
}

static enum err_code start_and_wait(struct cli *c, const char *socket_path, struct error *e)
{
	AUTO_CLOSE int log_fd = -1;
	AUTO_FREE char *log_path = NULL;
	struct proc server = PROC_INIT;
	enum err_code rc = open_log(cli_setting(c, SET_DATA), &log_path, &log_fd, e);
	if (rc)
		return rc;
	off_t from = lseek(log_fd, 0, SEEK_END);
	rc = spawn(c, log_fd, &server, e);
	if (!rc)
		rc = wait_until_up(socket_path, &server, e);
	proc_release(&server);
	if (rc) {
		AUTO_STRBUF struct strbuf tail = STRBUF_LIMIT(ERROR_TEXT_MAX / 2);
		add_log_tail(log_path, from, &tail);
		AUTO_FREE char *words = mem_strdup(e->text);
		error_set(e, rc, "%s%s", words, strbuf_str(&tail));
		error_hint(e, "signalbox doctor; the whole log is %s", log_path);
	}
	return rc;
}

static enum err_code start_server(struct cli *c, const char *socket_path, struct error *e)
{
	const char *runtime = cli_setting(c, SET_RUNTIME);
	enum err_code rc = paths_make_runtime(runtime, e);
	if (rc)
		return rc;
	AUTO_FREE char *lock_path = file_join(runtime, "start.lock");
	AUTO_CLOSE int lock = -1;
	rc = file_lock(lock_path, true, &lock, e);
	if (rc)
		return error_wrap(e, "start the server");
	return server_answers(socket_path) ? ERR_OK : start_and_wait(c, socket_path, e);
}

enum err_code server_connect(struct cli *c, struct error *e)
{
	AUTO_FREE char *path = server_socket(c);
	enum err_code rc = ERR_OK;
	if (path)
		rc = check_socket_path(path, e);
	if (rc)
		return rc;
	if (path && !server_answers(path)) {
		/* A socket that was named is somebody's choice; only our own server is ours to start. */
		if (cli_setting(c, SET_SERVER) || !setting_is_true(cli_setting(c, SET_AUTOSTART)))
			return nobody_answers(c, path, e);
		rc = start_server(c, path, e);
	}
	return rc ? rc : open_clients(c, path, e);
}

static void offer_key(struct cli *c, const char *provider, const char *variable)
{
	const char *key = getenv(variable);
	if (str_empty(key))
		return;
	AUTO_JS struct js *body = js_object();
	AUTO_JS struct js *reply = NULL;
	int status = 0;
	js_set_str(body, "provider", provider);
	js_set_str(body, "key", key);
	struct error e = ERROR_INIT;
	/* A server that takes no keys, or knows no such provider, says so by 404 or 405; the task itself will tell when a key is missing. */
	if (client_call(c->client, "POST", "/v1/keys", body, &status, &reply, &e) && status != 404 && status != 405)
		cli_say(c, "signalbox: the server did not take %s: %s", variable, e.text);
}

void server_offer_keys(struct cli *c)
{
	AUTO_FREE char *path = server_socket(c);
	if (!path)
		return;
	offer_key(c, "openai", "OPENAI_API_KEY");
	offer_key(c, "anthropic", "ANTHROPIC_API_KEY");
}
