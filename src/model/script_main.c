/* `signalbox model`: options, sockets, and waiting for the signal that ends it. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/scenario.h"
#include "model/script.h"
#include "model/script_server.h"
#include "net/server.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { OPT_SCRIPT, OPT_LISTEN, OPT_KEY, OPT_PORT_FILE, OPT_LOG, OPT_RECORD, OPT_CHECK, OPT_COUNT };

const struct opt model_options[] = {
	[OPT_SCRIPT] = { "script", 's', OPT_STRING, "FILE", "the scenarios to play (YAML)" },
	[OPT_LISTEN] = { "listen", 'l', OPT_STRING, "ADDR", "127.0.0.1:PORT (0: any free one) or the path of a unix socket; default 127.0.0.1:0" },
	[OPT_KEY] = { "key", 0, OPT_STRING, "FILE", "ask for the API key that is in FILE" },
	[OPT_PORT_FILE] = { "port-file", 0, OPT_STRING, "FILE", "write the port to FILE once it listens" },
	[OPT_LOG] = { "log", 0, OPT_FLAG, NULL, "one JSON line per request on stdout" },
	[OPT_RECORD] = { "record", 0, OPT_STRING, "DIR", "keep each request's body in DIR" },
	[OPT_CHECK] = { "check", 0, OPT_FLAG, NULL, "only read the scenarios, then end" },
	[OPT_COUNT] = { .name = NULL },
};

struct sockets {
	int unix_fd, tcp_fd, port;
	const char *addr; /* as it was asked for */
	const char *path;
};

static void sockets_release(struct sockets *s)
{
	if (s->unix_fd >= 0)
		close(s->unix_fd);
	if (s->tcp_fd >= 0)
		close(s->tcp_fd);
	if (s->unix_fd >= 0 && s->path != NULL)
		unlink(s->path);
}

static enum err_code sockets_open(const char *addr, struct sockets *ret, struct error *e)
{
	ret->addr = addr;
	if (strchr(addr, '/') == NULL)
		return http_listen_tcp(addr, &ret->tcp_fd, &ret->port, e);
	ret->path = str_starts(addr, "unix:") ? addr + strlen("unix:") : addr;
	return http_listen_unix(ret->path, 0600, &ret->unix_fd, e);
}

static enum err_code sockets_tell(const struct sockets *s, const char *port_file, struct error *e)
{
	AUTO_FREE char *port = mem_printf("%d\n", s->port);

	if (port_file != NULL && file_replace(port_file, port, strlen(port), 0644, FILE_NOSYNC, e) != ERR_OK)
		return e->code;
	if (s->tcp_fd >= 0)
		printf("listening on %.*s:%d\n", (int)(strrchr(s->addr, ':') - s->addr), s->addr, s->port);
	else
		printf("listening on %s\n", s->path);
	fflush(stdout);
	return ERR_OK;
}

static enum err_code key_read(const char *path, char **ret, struct error *e)
{
	AUTO_STRBUF struct strbuf key = STRBUF_LIMIT(SCRIPT_KEY_MAX);
	enum err_code rc;

	if (path == NULL)
		return ERR_OK;
	rc = file_read(path, SCRIPT_KEY_MAX, &key, e);
	if (rc != ERR_OK)
		return rc;
	while (key.len > 0 && strchr(" \r\n\t", key.data[key.len - 1]) != NULL)
		key.data[--key.len] = '\0';
	if (key.len == 0)
		return error_set(e, ERR_INVALID, "the key file '%s' is empty", path);
	*ret = strbuf_detach(&key);
	return ERR_OK;
}

/* Signals are waited for, never handled: nothing runs at an odd moment. */
static void signals_block(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGHUP);
	pthread_sigmask(SIG_BLOCK, ret, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void signals_wait(const sigset_t *set)
{
	int sig = 0;

	while (sigwait(set, &sig) == EINTR)
		;
}

static enum err_code model_serve(const struct opt_value *v, const struct script *script, struct error *e)
{
	AUTO(sockets_release) struct sockets socks = { .unix_fd = -1, .tcp_fd = -1 };
	AUTO_FREE char *key = NULL;
	struct script_server_config cfg = { .script = script, .log = v[OPT_LOG].flag, .record_dir = v[OPT_RECORD].text };
	struct script_server *server = NULL;
	sigset_t signals;
	enum err_code rc = key_read(v[OPT_KEY].text, &key, e);

	if (rc == ERR_OK && cfg.record_dir != NULL)
		rc = file_mkdirs(cfg.record_dir, 0700, e);
	if (rc == ERR_OK)
		rc = sockets_open(v[OPT_LISTEN].set ? v[OPT_LISTEN].text : "127.0.0.1:0", &socks, e);
	if (rc != ERR_OK)
		return rc;
	cfg.key = key;
	cfg.unix_fd = socks.unix_fd;
	cfg.tcp_fd = socks.tcp_fd;
	signals_block(&signals);
	rc = script_server_start(&cfg, &server, e);
	if (rc != ERR_OK)
		return rc;
	rc = sockets_tell(&socks, v[OPT_PORT_FILE].text, e);
	if (rc == ERR_OK)
		signals_wait(&signals);
	script_server_stop(server);
	return rc;
}

static enum err_code model_run(int argc, char **argv, struct error *e)
{
	AUTO_FREE char **rest = mem_alloc(sizeof(*rest) * (size_t)(argc + 1));
	AUTO_SCRIPT struct script script = { .doc = NULL };
	struct opt_value v[OPT_COUNT];
	int rest_count = 0;
	enum err_code rc = opt_parse(model_options, argc - 1, argv + 1, v, rest, &rest_count, e);

	if (rc != ERR_OK)
		return rc;
	if (rest_count > 0)
		return error_set(e, ERR_USAGE, "model takes no argument, got '%s'", rest[0]);
	if (!v[OPT_SCRIPT].set) {
		error_set(e, ERR_USAGE, "model needs --script FILE");
		error_hint(e, "signalbox model --script FILE [--listen ADDR]");
		return ERR_USAGE;
	}
	rc = script_load(v[OPT_SCRIPT].text, &script, e);
	if (rc != ERR_OK || v[OPT_CHECK].flag)
		return rc;
	return model_serve(v, &script, e);
}

int model_main(int argc, char **argv)
{
	struct error e = ERROR_INIT;

	log_open("signalbox-model", LOG_INFO);
	if (model_run(argc, argv, &e) == ERR_OK)
		return 0;
	fprintf(stderr, "signalbox model: %s\n", e.text);
	if (e.hint[0] != '\0')
		fprintf(stderr, "  %s\n", e.hint);
	return err_exit_status(e.code);
}
