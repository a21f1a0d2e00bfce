/* server: one's own server, as a process: start, stop, status, reload. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/server.h"
#include "cli/table.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STOP_WAIT_MS 60000
#define GATEWAY_SOCKET "gateway-control.sock" /* in the runtime directory */
#define GATEWAY_TIMEOUT_MS 5000
#define STOP_RUNS_WAIT_MS 10000 /* beyond the time that the server itself gives them */

const struct opt server_options[] = {
	{ "runs", 0, OPT_FLAG, NULL, "stop: end the runs and the model gateway too (else they go on, and the next server finds them)" },
	{ 0 },
};

static enum err_code check_own(const struct cli *c, struct error *e)
{
	AUTO_FREE char *path = server_socket(c);
	if (path)
		return ERR_OK;
	error_set(e, ERR_USAGE, "'%s' is another machine's server", cli_setting(c, SET_SERVER));
	error_hint(e, "use this command on its own machine; here signalbox --context local server ...");
	return ERR_USAGE;
}

static enum err_code ask_version(struct client *client, struct js **ret, struct error *e)
{
	int status = 0;
	return client_call(client, "GET", "/version", NULL, &status, ret, e);
}

static enum err_code server_status(struct cli *c, struct error *e)
{
	AUTO_JS struct js *version = NULL;
	AUTO_FREE char *path = server_socket(c);
	enum err_code rc = c->client ? ERR_OK : server_connect_running(c, e);
	if (!rc)
		rc = ask_version(c->client, &version, e);
	if (rc)
		return rc;
	js_set_str(version, "socket", path);
	js_set_str(version, "data", cli_setting(c, SET_DATA));
	if (c->json) {
		cli_json(c, version);
		return ERR_OK;
	}
	struct table t;
	static const char *const titles[] = { "", "", NULL };
	table_init(&t, titles);
	t.whole = true;
	for (struct js_iter it = js_iter(version); it.key; js_next(&it)) {
		AUTO_FREE char *number = js_text(it.value) ? NULL : js_dump(it.value);
		table_add(&t, COLOUR_DIM, it.key);
		table_add(&t, COLOUR_NONE, number ? number : js_text(it.value));
	}
	table_print(&t, &c->out);
	table_release(&t);
	return ERR_OK;
}

/* The process that answers there, held so that its number cannot become another's. */
static enum err_code hold_process(struct client *client, int *ret_pidfd, pid_t *ret_pid, struct error *e)
{
	AUTO_JS struct js *first = NULL;
	AUTO_JS struct js *again = NULL;
	enum err_code rc = ask_version(client, &first, e);
	if (rc)
		return rc;
	*ret_pid = (pid_t)js_i64(first, "pid", 0);
	AUTO_CLOSE int fd = *ret_pid > 0 ? (int)syscall(SYS_pidfd_open, *ret_pid, 0) : -1;
	if (fd < 0)
		return error_set(e, ERR_UNREACHABLE, "the server's process %d cannot be found from here", (int)*ret_pid);
	rc = ask_version(client, &again, e);
	if (!rc && js_i64(again, "pid", 0) != *ret_pid)
		rc = error_set(e, ERR_BUSY, "another server has just taken over; try again");
	if (!rc)
		*ret_pidfd = TAKE_FD(fd);
	return rc;
}

static enum err_code signal_process(int pidfd, pid_t pid, int sig, struct error *e)
{
	if (syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) == 0 || errno == ESRCH)
		return ERR_OK;
	return error_errno(e, "signal the server (pid %d)", (int)pid);
}

static bool wait_end(int pidfd, int timeout_ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	return poll(&p, 1, timeout_ms) > 0;
}

/* The door to models outlives a server for the sake of its runs; when those end too, nobody needs it. */
static void stop_gateway(const struct cli *c)
{
	AUTO_FREE char *path = file_join(cli_setting(c, SET_RUNTIME), GATEWAY_SOCKET);
	struct client_config cfg = { .socket = path, .connect_timeout_ms = GATEWAY_TIMEOUT_MS, .timeout_ms = GATEWAY_TIMEOUT_MS };
	struct client *client = NULL;
	AUTO_CLOSE int fd = -1;
	pid_t pid = 0;
	if (!client_open(&cfg, &client, NULL) && !hold_process(client, &fd, &pid, NULL) && !signal_process(fd, pid, SIGTERM, NULL))
		wait_end(fd, GATEWAY_TIMEOUT_MS);
	client_close(client);
}

static enum err_code server_stop(struct cli *c, struct error *e)
{
	AUTO_CLOSE int fd = -1;
	pid_t pid = 0;
	enum err_code rc = server_connect_running(c, e);
	if (rc == ERR_UNREACHABLE) {
		error_clear(e);
		cli_say(c, "signalbox: no server runs");
		return ERR_OK;
	}
	if (!rc)
		rc = hold_process(c->client, &fd, &pid, e);
	if (!rc)
		rc = signal_process(fd, pid, SIGTERM, e);
	/* A second signal while it stops means: the runs too. */
	if (!rc && cli_flag(c, "runs"))
		rc = signal_process(fd, pid, SIGINT, e);
	if (rc)
		return rc;
	if (!wait_end(fd, STOP_WAIT_MS + (cli_flag(c, "runs") ? STOP_RUNS_WAIT_MS : 0)))
		return error_set(e, ERR_TIMEOUT, "the server (pid %d) was told to stop, but has not ended within %d s", (int)pid, STOP_WAIT_MS / 1000);
	if (cli_flag(c, "runs"))
		stop_gateway(c);
	cli_say(c, cli_flag(c, "runs") ? "signalbox: stopped, and the runs with it" : "signalbox: stopped; runs go on, and the next server finds them");
	return ERR_OK;
}

static enum err_code server_reload(struct cli *c, struct error *e)
{
	AUTO_JS struct js *report = NULL;
	int status = 0;
	enum err_code rc = server_connect_running(c, e);
	if (!rc)
		rc = client_call(c->client, "POST", "/v1/reload", NULL, &status, &report, e);
	if (rc)
		return rc;
	if (c->json) {
		cli_json(c, report);
		return ERR_OK;
	}
	const struct js *changed = js_get(report, "changed"), *restart = js_get(report, "restart");
	for (size_t i = 0; i < js_len(changed); i++)
		fprintf(c->out.file, "changed\t%s\n", js_text(js_at(changed, i)));
	for (size_t i = 0; i < js_len(restart); i++)
		fprintf(c->out.file, "restart\t%s\n", js_text(js_at(restart, i)));
	if (js_len(restart))
		cli_say(c, "signalbox: what is marked restart holds after the next start; runs go on meanwhile: signalbox server stop; signalbox server start");
	else if (!js_len(changed))
		cli_say(c, "signalbox: nothing has changed in %s", *js_str_or(report, "config", "") ? js_str_or(report, "config", "") : "the configuration");
	return ERR_OK;
}

static enum err_code server_start(struct cli *c, struct error *e)
{
	enum err_code rc = server_connect(c, e);
	return rc ? rc : server_status(c, e);
}

enum err_code cmd_server(struct cli *c, struct error *e)
{
	static const struct { const char *verb; command_fn *run; } verbs[] = {
		{ "status", server_status }, { "start", server_start }, { "stop", server_stop }, { "reload", server_reload },
	};
	const char *verb = c->arg_count ? c->args[0] : "status";
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (str_eq(verbs[i].verb, verb)) {
			enum err_code rc = check_own(c, e);
			return rc ? rc : verbs[i].run(c, e);
		}
	error_set(e, ERR_USAGE, "takes status, start, stop or reload");
	error_hint(e, "signalbox help server");
	return ERR_USAGE;
}
