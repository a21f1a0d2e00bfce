/* `signalbox gateway`: start, wait for signals, drain, end. */
#include "base/clock.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "gateway/control.h"
#include "gateway/exchange.h"
#include "gateway/gateway.h"
#include "gateway/sockets.h"
#include "gateway/users.h"
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define GATEWAY_THREADS 1 /* each connection has its own; this is the least the server takes */
#define GATEWAY_ARENAS 2  /* many threads, few of which allocate at once */
#define GATEWAY_MMAP_BYTES (64 << 10) /* bodies this long go back to the system when they are freed */

enum { OPT_CONFIG, OPT_CONFIG_FD, OPT_COUNT };

const struct opt gateway_options[] = {
	[OPT_CONFIG] = { "config", 'c', OPT_STRING, "FILE", "the configuration (JSON, mode 0600); read again on SIGHUP" },
	[OPT_CONFIG_FD] = { "config-fd", 0, OPT_INT, "N", "read the configuration from an inherited descriptor" },
	[OPT_COUNT] = { .name = NULL },
};

struct gateway {
	const char *config_path; /* NULL: it came by a descriptor */
	struct exchange_host host;
	struct control control;
	struct gateway_sockets sockets;
	struct users users;
	struct http_server *model_http, *control_http;
	int signal_fd;
	int wake_fd; /* an eventfd: drain was asked for, or nothing is active any more */
	atomic_bool drain_asked;
	int64_t drain_until_ms; /* 0: not draining */
};

/* The keys live in this process's memory: nobody but root may look at it, and it is never written to disk. */
static enum err_code process_harden(struct error *e)
{
	const struct rlimit none = { 0, 0 };

	if (prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L) != 0 || setrlimit(RLIMIT_CORE, &none) != 0)
		return error_errno(e, "switch core dumps off");
	return ERR_OK;
}

static enum err_code ids_drop(const struct config *c, struct error *e)
{
	if (!c->drop_ids || geteuid() == c->uid)
		return ERR_OK;
	if (geteuid() != 0)
		return error_set(e, ERR_UNSUPPORTED, "the gateway can become uid %u only as root", (unsigned)c->uid);
	if (setgroups(0, NULL) != 0 || setresgid(c->gid, c->gid, c->gid) != 0 || setresuid(c->uid, c->uid, c->uid) != 0)
		return error_errno(e, "become uid %u gid %u", (unsigned)c->uid, (unsigned)c->gid);
	return process_harden(e); /* the change of user has reset it */
}

static enum err_code record_dir_prepare(const struct config *c, struct error *e)
{
	enum err_code rc = file_mkdirs(c->record_dir, 0700, e);

	if (rc != ERR_OK || !c->drop_ids || geteuid() != 0)
		return rc;
	if (lchown(c->record_dir, c->uid, c->gid) != 0)
		return error_errno(e, "give the record directory '%s' to uid %u", c->record_dir, (unsigned)c->uid);
	return ERR_OK;
}

static void wake(struct gateway *g)
{
	const uint64_t one = 1;

	(void)!write(g->wake_fd, &one, sizeof(one));
}

static void on_idle(void *ctx)
{
	wake(ctx);
}

static void on_drain(void *ctx)
{
	struct gateway *g = ctx;

	atomic_store(&g->drain_asked, true);
	wake(g);
}

static enum err_code signals_open(struct gateway *g, struct error *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	g->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	g->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return g->signal_fd < 0 || g->wake_fd < 0 ? error_errno(e, "open the gateway's signals") : ERR_OK;
}

static enum err_code servers_start(struct gateway *g, struct error *e)
{
	struct http_config http = { .routes = exchange_routes, .ctx = &g->host, .unix_fd = g->sockets.model.fd, .tcp_fd = -1,
		.threads = GATEWAY_THREADS, .thread_per_connection = true, .server_name = "signalbox-gateway",
		.sandbox_connections_max = GATEWAY_SANDBOX_CONNECTIONS_MAX };
	enum err_code rc = upstream_start(&g->host.upstream, e);

	if (rc == ERR_OK)
		rc = http_server_start(&http, &g->model_http, e);
	if (rc != ERR_OK)
		return rc;
	g->control.host = &g->host;
	g->control.drain = on_drain;
	g->control.drain_ctx = g;
	clock_rfc3339(clock_wall_ms(), g->control.started);
	http.routes = control_routes;
	http.ctx = &g->control;
	http.unix_fd = g->sockets.control.fd;
	http.thread_per_connection = false;
	http.sandbox_connections_max = 0;
	return http_server_start(&http, &g->control_http, e);
}

/* Before the first request can come. */
static enum err_code hidden_take(struct gateway *g, struct error *e)
{
	struct config *c = g->host.config;
	enum err_code rc = ERR_OK;

	for (struct js_iter it = js_iter(c->hide); it.key != NULL && rc == ERR_OK; js_next(&it))
		rc = record_hide(g->host.recorder, it.key, it.value, e);
	config_forget_hidden(c);
	return rc;
}

static enum err_code gateway_start(struct gateway *g, struct error *e)
{
	const struct config *c = g->host.config;
	enum err_code rc = signals_open(g, e);

	if (rc == ERR_OK)
		rc = record_dir_prepare(c, e);
	if (rc == ERR_OK)
		rc = recorder_open(c->record_dir, &g->host.recorder, e);
	if (rc == ERR_OK && c->users != NULL)
		recorder_expect_files(g->host.recorder);
	if (rc == ERR_OK)
		rc = hidden_take(g, e);
	if (rc == ERR_OK)
		rc = users_open(c->users, c->linger_ms, &g->users, e);
	if (rc == ERR_OK)
		rc = sockets_take(c->socket, c->control, &g->sockets, e);
	if (rc == ERR_OK)
		rc = ids_drop(c, e); /* before there are threads */
	return rc == ERR_OK ? servers_start(g, e) : rc;
}

static void gateway_stop(struct gateway *g)
{
	atomic_store(&g->host.draining, true);
	if (g->host.upstream != NULL)
		upstream_stop(g->host.upstream); /* readers get their end, so that the server's threads can be joined */
	http_server_stop(g->model_http);
	http_server_stop(g->control_http);
	upstream_free(g->host.upstream);
	recorder_free(g->host.recorder);
	sockets_release(&g->sockets);
	config_unref(g->host.config);
	if (g->signal_fd >= 0)
		close(g->signal_fd);
	if (g->wake_fd >= 0)
		close(g->wake_fd);
	users_release(&g->users);
	pthread_mutex_destroy(&g->host.lock);
}

static void drain_begin(struct gateway *g)
{
	if (g->drain_until_ms != 0)
		return;
	g->drain_until_ms = clock_mono_ms() + g->host.config->drain_ms;
	atomic_store(&g->host.draining, true);
	http_server_quiesce(g->model_http);
	log_info("draining, active=%d", atomic_load(&g->host.active));
}

static void config_reload(struct gateway *g)
{
	struct config *fresh = NULL, *old;
	struct error e = ERROR_INIT;

	if (g->config_path == NULL)
		return;
	if (config_load(g->config_path, &fresh, &e) != ERR_OK) {
		log_error("the configuration stays as it was: %s", e.text);
		return;
	}
	pthread_mutex_lock(&g->host.lock);
	old = g->host.config;
	g->host.config = fresh;
	pthread_mutex_unlock(&g->host.lock);
	config_unref(old);
	log_info("configuration read again, hash=%s", fresh->hash);
}

/* False when it is time to end at once. */
static bool signal_obey(struct gateway *g)
{
	struct signalfd_siginfo info;

	while (read(g->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			config_reload(g);
		else if (g->drain_until_ms != 0)
			return false;
		else
			drain_begin(g);
	}
	return true;
}

static bool drain_is_over(const struct gateway *g)
{
	if (g->drain_until_ms == 0)
		return false;
	return atomic_load(&g->host.active) == 0 || clock_mono_ms() >= g->drain_until_ms;
}

/* Until the drain's end, or until it is to be seen who is there; -1: for ever. */
static int wait_ms(const struct gateway *g, int64_t now)
{
	int64_t until = users_next_ms(&g->users), left;

	if (g->drain_until_ms != 0 && g->drain_until_ms < until)
		until = g->drain_until_ms;
	left = until == INT64_MAX ? -1 : until > now ? until - now : 0;
	return left > INT32_MAX ? INT32_MAX : (int)left;
}

static void gateway_wait(struct gateway *g)
{
	struct pollfd fds[2] = { { .fd = g->signal_fd, .events = POLLIN }, { .fd = g->wake_fd, .events = POLLIN } };
	uint64_t count;

	while (!drain_is_over(g)) {
		(void)poll(fds, 2, wait_ms(g, clock_mono_ms()));
		if (read(g->wake_fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
			malloc_trim(0); /* the last exchange has ended: what it took goes back to the system */
		if (!signal_obey(g))
			return;
		if (atomic_load(&g->drain_asked))
			drain_begin(g);
		if (atomic_load(&g->host.active) == 0 && users_are_gone(&g->users, clock_mono_ms())) {
			log_info("neither a server nor a runner has been there for %lld ms: ending", (long long)g->users.linger_ms);
			return;
		}
	}
}

static enum err_code config_open(const struct opt_value *v, struct config **ret, struct error *e)
{
	AUTO_CLOSE int fd = -1;

	if (v[OPT_CONFIG].set == v[OPT_CONFIG_FD].set) {
		error_set(e, ERR_USAGE, "gateway needs either --config FILE or --config-fd N");
		error_hint(e, "signalbox gateway --config FILE");
		return ERR_USAGE;
	}
	if (v[OPT_CONFIG].set)
		return config_load(v[OPT_CONFIG].text, ret, e);
	if (v[OPT_CONFIG_FD].number < 0 || v[OPT_CONFIG_FD].number > INT32_MAX)
		return error_set(e, ERR_USAGE, "--config-fd: %lld is not a descriptor", (long long)v[OPT_CONFIG_FD].number);
	fd = (int)v[OPT_CONFIG_FD].number;
	return config_load_fd(fd, ret, e);
}

static enum err_code libraries_start(struct error *e)
{
	mallopt(M_ARENA_MAX, GATEWAY_ARENAS);
	mallopt(M_MMAP_THRESHOLD, GATEWAY_MMAP_BYTES);
	if (sodium_init() < 0 || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return error_set(e, ERR_INTERNAL, "libsodium or libcurl does not start");
	return ERR_OK;
}

static enum err_code gateway_run(int argc, char **argv, struct error *e)
{
	AUTO_FREE char **rest = mem_alloc(sizeof(*rest) * (size_t)(argc + 1));
	struct gateway g = { .sockets = GATEWAY_SOCKETS_INIT, .users = USERS_INIT, .signal_fd = -1, .wake_fd = -1 };
	struct opt_value v[OPT_COUNT];
	int rest_count = 0;
	enum err_code rc = opt_parse(gateway_options, argc - 1, argv + 1, v, rest, &rest_count, e);

	if (rc == ERR_OK && rest_count > 0)
		rc = error_set(e, ERR_USAGE, "gateway takes no argument, got '%s'", rest[0]);
	if (rc == ERR_OK)
		rc = process_harden(e);
	if (rc == ERR_OK)
		rc = libraries_start(e);
	if (rc == ERR_OK)
		rc = config_open(v, &g.host.config, e);
	if (rc != ERR_OK)
		return rc;
	(void)setsid(); /* the server's end is not ours; fails where it is so already */
	g.config_path = v[OPT_CONFIG].text;
	g.host.idle = on_idle;
	g.host.idle_ctx = &g;
	pthread_mutex_init(&g.host.lock, NULL);
	rc = gateway_start(&g, e);
	if (rc == ERR_OK) {
		log_info("listening on %s, providers=%zu", g.sockets.model.path, g.host.config->provider_count);
		gateway_wait(&g);
	}
	gateway_stop(&g);
	return rc;
}

int gateway_main(int argc, char **argv)
{
	struct error e = ERROR_INIT;

	log_open("signalbox-gateway", LOG_INFO);
	if (gateway_run(argc, argv, &e) == ERR_OK)
		return 0;
	fprintf(stderr, "signalbox gateway: %s\n", e.text);
	if (e.hint[0] != '\0')
		fprintf(stderr, "  %s\n", e.hint);
	return err_exit_status(e.code);
}
