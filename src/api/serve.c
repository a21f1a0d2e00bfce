/* `signalbox serve`: opens the record, listens, schedules; TERM or INT stops it, the runs go on. */
#include "api/serve.h"
#include "api/api.h"
#include "api/systemd.h"
#include "api/uploads.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define SERVE_UNIX_THREADS 32
#define SERVE_TCP_THREADS 16
#define SERVE_RUNNER_THREADS 4
#define SERVE_GOODBYE_MS 2000
#define SERVE_GOODBYE_POLL_MS 50
#define SERVE_STOP_RUNS_MS 30000
#define SERVE_ARENAS_MIN 2 /* glibc's arenas, one for each processor: each keeps pages of its own that are nearly empty */
#define SERVE_ARENAS_MAX 4
#define SERVE_LOOK_MS 2000 /* how often it is seen whether memory can be given back */
#define SERVE_CROWD 64	   /* connections whose going leaves memory that is worth it */

enum serve_option { SERVE_DATA, SERVE_RUNTIME, SERVE_CONFIG, SERVE_LISTEN, SERVE_HOST, SERVE_STOP_RUNS };
const struct opt serve_options[] = {
	[SERVE_DATA] = { "data", 0, OPT_STRING, "DIR", "the record's directory (default: SIGNALBOX_DATA, or below your home)" },
	[SERVE_RUNTIME] = { "runtime", 0, OPT_STRING, "DIR", "where the sockets are (default: SIGNALBOX_RUNTIME, or below XDG_RUNTIME_DIR)" },
	[SERVE_CONFIG] = { "config", 0, OPT_STRING, "FILE", "configuration (default: the first of .signalbox.yaml, your own, /etc/signalbox)" },
	[SERVE_LISTEN] = { "listen", 0, OPT_STRING, "ADDR:PORT", "also listen on TCP, for those who have a token (signalbox token create)" },
	[SERVE_HOST] = { "host", 0, OPT_LIST, "NAME", "a name by which a proxy or your network calls this server; others are refused" },
	[SERVE_STOP_RUNS] = { "stop-runs", 0, OPT_FLAG, NULL, "when the server is stopped, end the runs too (else they go on, and the next server finds them)" },
	{ 0 },
};

struct serve {
	struct api api;
	int unix_fd, runner_fd, tcp_fd;
	struct http_server *http, *runners;
};

/* What the option says, or the configuration; NULL: no TCP. */
static const char *listen_address(const struct serve *s, const struct opt_value *v)
{
	return v[SERVE_LISTEN].set ? v[SERVE_LISTEN].text : core_listen(s->api.core);
}

static enum err_code open_sockets(struct serve *s, const char *listen, struct error *e)
{
	AUTO_FREE char *runners = mem_printf("%s", core_runner_socket(s->api.core));
	s->unix_fd = systemd_listen_fd();
	enum err_code rc = s->unix_fd >= 0 ? ERR_OK : http_listen_unix(core_socket(s->api.core), 0600, &s->unix_fd, e);
	/* A root server's runners have become another uid by the time they call; their token is what opens. */
	if (!rc)
		rc = http_listen_unix(runners, geteuid() == 0 ? 0666 : 0600, &s->runner_fd, e);
	if (rc || !listen)
		return rc;
	rc = http_listen_tcp(listen, &s->tcp_fd, &s->api.tcp_port, e);
	if (rc)
		return rc;
	AUTO_FREE char *host = mem_strdup(listen);
	char *colon = strrchr(host, ':');
	if (colon)
		*colon = 0;
	s->api.tcp_host = mem_printf("%s:%d", host, s->api.tcp_port);
	return api_load_token(core_data_dir(s->api.core), &s->api.token, e);
}

static enum err_code start_http(struct serve *s, struct error *e)
{
	struct http_config people = { .routes = api_routes, .ctx = &s->api, .authorize = api_authorize, .unix_fd = s->unix_fd, .tcp_fd = s->tcp_fd,
		.threads = s->tcp_fd >= 0 ? SERVE_TCP_THREADS : SERVE_UNIX_THREADS, .server_name = "signalbox" };
	people.intakes = api_intakes;
	struct http_config runners = { .routes = api_runner_routes, .ctx = &s->api, .authorize = api_authorize_runner, .unix_fd = s->runner_fd, .tcp_fd = -1,
		.threads = SERVE_RUNNER_THREADS, .server_name = "signalbox" };
	enum err_code rc = http_server_start(&people, &s->http, e);
	return rc ? rc : http_server_start(&runners, &s->runners, e);
}

static void announce(const struct serve *s)
{
	log_info("serving on %s", core_socket(s->api.core));
	if (s->api.tcp_host) {
		log_info("serving on http://%s, for those who have a token (signalbox token create)", s->api.tcp_host);
		printf("http://%s\n", s->api.tcp_host); /* with port 0 this is how to learn which */
		fflush(stdout);
	}
}

static void reload(struct serve *s)
{
	struct js *report = NULL;
	struct error e = ERROR_INIT;
	if (core_reload(s->api.core, &report, &e))
		log_error("the configuration was not read again: %s; the old one holds", e.text);
	js_free(report);
}

/* True when a signal to stop came within the time; INT64_MAX waits for ever. A hangup is a wish that the configuration be read again. */
static bool stop_asked(struct serve *s, int signals, int64_t within_ms)
{
	struct pollfd p = { .fd = signals, .events = POLLIN };
	struct signalfd_siginfo info;
	int timeout = within_ms > INT32_MAX ? -1 : (int)within_ms;
	while (poll(&p, 1, timeout) > 0)
		if (read(signals, &info, sizeof(info)) == sizeof(info)) {
			if (info.ssi_signo != SIGHUP)
				return true;
			reload(s);
		}
	return false;
}

/* The watchdog is fed only while the scheduler's thread moves. */
struct quiet {
	uint64_t most;		  /* connections since memory was given back */
	uint64_t requests, given; /* when looked last; when memory was given back */
};

/* What a crowd leaves behind, glibc keeps for the next; it goes back to the system when half of them have gone, or nobody asks for anything. */
static void give_memory_back(const struct serve *s, struct quiet *q)
{
	struct http_stats now = { 0 };
	http_server_stats(s->http, &now);
	q->most = now.connections_now > q->most ? now.connections_now : q->most;
	bool crowd_left = q->most >= SERVE_CROWD && now.connections_now <= q->most / 2;
	bool resting = now.requests == q->requests && now.requests != q->given;
	if (crowd_left || resting) {
		malloc_trim(0);
		q->most = now.connections_now;
		q->given = now.requests;
	}
	q->requests = now.requests;
}

static void serve_until_asked(struct serve *s, int signals)
{
	int64_t interval = systemd_watchdog_interval_ms();
	struct quiet quiet = { 0 };
	uint64_t pulse = 0;
	systemd_notify("READY=1");
	while (!stop_asked(s, signals, interval && interval < SERVE_LOOK_MS ? interval : SERVE_LOOK_MS)) {
		give_memory_back(s, &quiet);
		if (core_pulse(s->api.core) != pulse) {
			pulse = core_pulse(s->api.core);
			systemd_notify("WATCHDOG=1");
		}
	}
	systemd_notify("STOPPING=1");
}

/* No new claims; streams and waits are told and end; the runs go on, unless they shall end too (asked by option or by a second signal). */
static void drain(struct serve *s, int signals, bool stop_runs)
{
	struct http_stats stats = { 0 };
	int64_t until = clock_mono_ms() + SERVE_GOODBYE_MS;
	core_drain(s->api.core);
	s->api.stopping = true;
	do {
		hub_tick(core_hub(s->api.core));
		http_server_stats(s->http, &stats);
		stop_runs = stop_asked(s, signals, SERVE_GOODBYE_POLL_MS) || stop_runs;
	} while (stats.streams_now && clock_mono_ms() < until);
	if (!stop_runs) {
		log_info("stopping; the runs go on");
		return;
	}
	int left = core_stop_runs(s->api.core, SERVE_STOP_RUNS_MS);
	log_info("stopping; the runs were asked to end, %d are still there", left);
}

static void stop(struct serve *s)
{
	if (s->http)
		http_server_stop(s->http);
	if (s->runners)
		http_server_stop(s->runners);
	core_close(s->api.core);
	if (s->unix_fd >= 0)
		close(s->unix_fd);
	if (s->runner_fd >= 0)
		close(s->runner_fd);
	if (s->tcp_fd >= 0)
		close(s->tcp_fd);
	free(s->api.token);
	free(s->api.tcp_host);
	free(s->api.openapi);
	free(s->api.owner_name);
	free(s->api.root_name);
}

static int open_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* Many streams are many descriptors. */
static void raise_nofile(void)
{
	struct rlimit l;
	if (getrlimit(RLIMIT_NOFILE, &l) == 0) {
		l.rlim_cur = l.rlim_max;
		setrlimit(RLIMIT_NOFILE, &l);
	}
}

static int arenas(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	return n < SERVE_ARENAS_MIN ? SERVE_ARENAS_MIN : n > SERVE_ARENAS_MAX ? SERVE_ARENAS_MAX : (int)n;
}

static enum err_code serve(const struct opt_value *v, struct serve *s, struct error *e)
{
	s->api.hosts = v[SERVE_HOST].list;
	s->api.host_count = v[SERVE_HOST].list_len;
	pthread_mutex_init(&s->api.lock, NULL);
	struct core_options o = { .data_dir = v[SERVE_DATA].text, .runtime_dir = v[SERVE_RUNTIME].text, .config_path = v[SERVE_CONFIG].text };
	api_load_names(&s->api);
	enum err_code rc = core_open(&o, &s->api.core, e);
	if (!rc)
		rc = open_sockets(s, listen_address(s, v), e);
	if (!rc)
		rc = core_start(s->api.core, e); /* who connects before the next line waits in the backlog */
	if (!rc)
		rc = start_http(s, e);
	return rc;
}

int serve_main(int argc, char **argv)
{
	struct opt_value v[ARRAY_SIZE(serve_options)] = { 0 };
	struct error e = ERROR_INIT;
	struct serve s = { .unix_fd = -1, .runner_fd = -1, .tcp_fd = -1, .api = { .started_ms = clock_wall_ms() } };
	char **rest = mem_alloc((size_t)(argc + 1) * sizeof(char *));
	int n = 0;
	log_open("signalbox", LOG_INFO);
	mallopt(M_ARENA_MAX, arenas());
	raise_nofile();
	AUTO_CLOSE int signals = open_signals();
	enum err_code rc = opt_parse(serve_options, argc - 1, argv + 1, v, rest, &n, &e);
	if (!rc && n > 0)
		rc = error_set(&e, ERR_USAGE, "serve takes no argument '%s'", rest[0]);
	free(rest);
	if (!rc)
		rc = serve(v, &s, &e);
	if (!rc) {
		announce(&s);
		serve_until_asked(&s, signals);
		drain(&s, signals, v[SERVE_STOP_RUNS].flag);
	} else {
		log_error("%s%s%s", e.text, e.hint[0] ? "; " : "", e.hint);
	}
	stop(&s);
	return rc ? err_exit_status(rc) : 0;
}
