/* The gateway process seen from the server: started when none answers, replaced when its configuration changed, restarted when it died.
 * It is no child whose life depends on us: it outlives the server, and the next server finds it by its control socket.  It ends by itself when neither
 * a server nor a runner has been there for limits.gateway_linger: each holds a shared lock as long as it lives, the runners by a descriptor of ours. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "core/gate.h"
#include "core/inside.h"
#include "model/token.h"
#include "net/client.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define HASH_BYTES 16
#define CALL_TIMEOUT_MS 2000
#define RESTART_FIRST_MS 100
#define RESTART_MAX_MS 30000
#define CONFIG_FD 3
#define MODEL_SOCKET "model.sock"
#define CONTROL_SOCKET "gateway-control.sock"
#define USERS_WAIT_MS 5000 /* for a gateway that ends this moment, and holds the lock until it has */
#define USERS_LOOK_MS 10
#define KEYS_MAX 32
#define TOKEN_GRACE_S (30 * 24 * 3600) /* beyond the run's own time limit: while it waits for people its clocks stand still, and this is the wall's */

struct offered {
	char *provider, *key;
};

struct gateway_ctl {
	pthread_mutex_t lock; /* guards all below */
	struct offered keys[KEYS_MAX];
	int key_count;
	int users_fd;	   /* the lock that says that somebody is there; not guarded: it does not change */
	int pidfd, former; /* of the running gateway, of the one before it; or -1 */
	char *config;	   /* the document it was started with */
	int64_t next_start_ms, backoff_ms;
};

char *gateway_ctl_dir(struct core *c)
{
	return file_join(c->runtime, "gateway");
}

static char *control_path(struct core *c)
{
	return file_join(c->runtime, CONTROL_SOCKET);
}

static enum err_code load_key(struct core *c, struct error *e)
{
	AUTO_FREE char *dir = file_join(c->data, "gateway");
	AUTO_FREE char *exchanges = file_join(dir, "exchanges");
	AUTO_FREE char *path = file_join(dir, "token.key");
	AUTO_STRBUF struct strbuf text = STRBUF_LIMIT(TOKEN_KEY_SIZE + 1);
	enum err_code rc = file_mkdirs(dir, 0711, e);
	if (!rc)
		rc = file_mkdirs(exchanges, 0700, e);
	if (rc)
		return rc;
	rc = file_read(path, TOKEN_KEY_SIZE + 1, &text, e);
	if (!rc && text.len == TOKEN_KEY_SIZE) {
		memcpy(c->token_key, text.data, TOKEN_KEY_SIZE);
		return ERR_OK;
	}
	if (rc && rc != ERR_NOT_FOUND)
		return rc;
	clock_random(c->token_key, TOKEN_KEY_SIZE);
	return file_replace(path, c->token_key, TOKEN_KEY_SIZE, 0600, FILE_SYNC, e);
}

/* The built-in providers when nothing is configured, with the keys of the usual variables. */
static struct js *providers(struct core *c)
{
	const struct js *given = conf_providers(c->config);
	if (js_len(given))
		return js_copy(given);
	static const struct { const char *name, *base_url, *key_env, *wire; } built_in[] = {
		{ "openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "responses" },
		{ "anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "messages" },
	};
	struct js *all = js_object();
	for (size_t i = 0; i < ARRAY_SIZE(built_in); i++) {
		struct js *one = js_object();
		js_set_str(one, "base_url", built_in[i].base_url);
		js_set_str(one, "key_env", built_in[i].key_env);
		js_set_str(one, "wire", built_in[i].wire);
		js_set(all, built_in[i].name, one);
	}
	return all;
}

static const char *offered_key(struct gateway_ctl *g, const char *provider)
{
	for (int i = 0; i < g->key_count; i++)
		if (str_eq(g->keys[i].provider, provider))
			return g->keys[i].key;
	return NULL;
}

static bool has_key(struct core *c, const char *name, const struct js *provider)
{
	AUTO_FREE char *key = NULL;
	return offered_key(c->gateway, name) || conf_provider_key(provider, name, &key, NULL) == ERR_OK;
}

static struct js *providers_with_keys(struct core *c)
{
	AUTO_JS struct js *all = providers(c);
	struct js *out = js_object();
	for (struct js_iter it = js_iter(all); it.key; js_next(&it)) {
		struct js *p = js_object();
		AUTO_FREE char *key = NULL;
		const char *offered = offered_key(c->gateway, it.key);
		js_set_str(p, "base_url", js_str(it.value, "base_url"));
		js_set_str(p, "wire", js_str(it.value, "wire"));
		if (offered)
			js_set_str(p, "key", offered);
		else if (conf_provider_key(it.value, it.key, &key, NULL) == ERR_OK)
			js_set_str(p, "key", key);
		js_set(out, it.key, p);
	}
	return out;
}

static char *users_path(struct core *c)
{
	return file_join(c->runtime, "gateway-users.lock");
}

/* MODEL.PID, CONTROL.PID and CONTROL.PID.old are a gateway's while it takes the sockets over: when it was killed in the middle, they are nobody's. */
static bool is_left_socket(int dir, const char *name, const char *socket)
{
	struct stat st;
	size_t n = strlen(socket);
	char *end = NULL;
	if (!str_starts(name, socket) || name[n] != '.')
		return false;
	long pid = strtol(name + n + 1, &end, 10);
	bool is_ours = pid > 0 && end != name + n + 1 && (!*end || str_eq(end, ".old"));
	return is_ours && kill((pid_t)pid, 0) < 0 && errno == ESRCH && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(st.st_mode);
}

static void remove_left_sockets(const char *path, const char *socket)
{
	DIR *d = opendir(path);
	for (struct dirent *entry; d && (entry = readdir(d));)
		if (is_left_socket(dirfd(d), entry->d_name, socket))
			(void)unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
}

/* Taken before a gateway is looked for: one that is found goes on. */
static enum err_code hold_users(struct core *c, struct error *e)
{
	AUTO_FREE char *path = users_path(c);
	int64_t until = clock_mono_ms() + USERS_WAIT_MS;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_errno(e, "open '%s'", path);
	c->gateway->users_fd = fd;
	while (flock(fd, LOCK_SH | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error_errno(e, "lock '%s'", path);
		if (clock_mono_ms() > until)
			return error_set(e, ERR_BUSY, "a model gateway that has ended does not go away: '%s' stays locked", path);
		poll(NULL, 0, USERS_LOOK_MS);
	}
	return ERR_OK;
}

int gateway_ctl_users_fd(struct core *c)
{
	return c->gateway->users_fd;
}

/* A root server's gateway becomes an id of its own, next to the sandboxes': not theirs, since it holds the keys. */
static char *make_config(struct core *c)
{
	AUTO_JS struct js *o = js_object();
	AUTO_FREE char *dir = gateway_ctl_dir(c);
	AUTO_FREE char *socket = file_join(dir, MODEL_SOCKET);
	AUTO_FREE char *control = control_path(c);
	AUTO_FREE char *records = file_join(c->data, "gateway/exchanges");
	AUTO_FREE char *users = users_path(c);
	struct js *limits = js_object();
	AUTO_STRBUF struct strbuf key = STRBUF_INIT;
	str_add_base64url(&key, c->token_key, TOKEN_KEY_SIZE);
	js_set_str(o, "socket", socket);
	js_set_str(o, "control", control);
	js_set_str(o, "key", strbuf_str(&key));
	js_set_str(o, "record_dir", records);
	js_set_str(o, "users", users);
	js_set_int(limits, "linger_ms", conf_limit(c->config, "gateway_linger"));
	js_set(o, "limits", limits);
	if (c->root) {
		js_set_int(o, "uid", (int64_t)c->uid + 1);
		js_set_int(o, "gid", (int64_t)c->gid + 1);
	}
	js_set_str(o, "default_provider", conf_default_provider(c->config));
	js_set(o, "providers", providers_with_keys(c));
	return js_dump(o);
}

static void config_hash(const char *config, char ret[HASH_BYTES * 2 + 1])
{
	unsigned char hash[HASH_BYTES];
	crypto_generichash(hash, sizeof(hash), (const unsigned char *)config, strlen(config), NULL, 0);
	sodium_bin2hex(ret, HASH_BYTES * 2 + 1, hash, sizeof(hash));
}

/* The pid of a gateway that answers, or 0; *ret_same: it runs with this very configuration. */
static pid_t find_running(struct core *c, const char *config, bool *ret_same)
{
	AUTO_FREE char *control = control_path(c);
	struct client_config cc = { .socket = control, .connect_timeout_ms = CALL_TIMEOUT_MS, .timeout_ms = CALL_TIMEOUT_MS };
	struct client *client = NULL;
	AUTO_JS struct js *body = NULL;
	char hash[HASH_BYTES * 2 + 1];
	int status = 0;
	*ret_same = false;
	if (client_open(&cc, &client, NULL))
		return 0;
	enum err_code rc = client_call(client, "GET", "/version", NULL, &status, &body, NULL);
	client_close(client);
	if (rc)
		return 0;
	config_hash(config, hash);
	*ret_same = str_eq(js_str(body, "config_hash"), hash) && js_flag(body, "hides", false); /* an older one could not keep secrets */
	return (pid_t)js_i64(body, "pid", 0);
}

/* What a gateway must hide it knows before its first request. That is no part of what makes one gateway's configuration another's. */
static char *with_hidden(struct core *c, const char *config)
{
	struct error e = ERROR_INIT;
	AUTO_JS struct js *o = js_parse(config, strlen(config), NULL);
	AUTO_JS struct js *hidden = NULL;
	if (gate_secrets(c, NULL, &hidden, &e))
		log_warn("gateway: not all secret answers are hidden before their tasks' next runs: %s", e.text);
	js_set(o, "hide", js_ref(hidden));
	return js_dump(o);
}

static enum err_code spawn_gateway(struct core *c, const char *config, struct proc *ret, struct error *e)
{
	AUTO_FREE char *log_dir = file_join(c->data, "log");
	AUTO_FREE char *log_path = file_join(log_dir, "gateway.log");
	AUTO_CLOSE int log = -1;
	int fds[2];
	enum err_code rc = file_mkdirs(log_dir, 0700, e);
	if (rc)
		return rc;
	log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return error_errno(e, "open '%s'", log_path);
	AUTO_CLOSE int read_end = fds[0];
	const char *argv[] = { c->exe, "gateway", "--config-fd", "3", NULL };
	struct proc_spec spec = PROC_SPEC_INIT;
	spec.argv = argv;
	spec.cwd = "/";
	spec.stdout_fd = spec.stderr_fd = log;
	spec.new_session = true;
	spec.fds[0].from = read_end;
	spec.fds[0].to = CONFIG_FD;
	spec.fd_count = 1;
	AUTO_FREE char *document = with_hidden(c, config);
	rc = proc_start(&spec, ret, e);
	if (!rc)
		rc = file_write_all(fds[1], document, strlen(document), e);
	close(fds[1]);
	sodium_memzero(document, strlen(document));
	return rc;
}

static int open_process(pid_t pid)
{
	struct proc_id id;
	return pid > 0 && proc_identify(pid, &id, NULL) == ERR_OK ? proc_open(&id) : -1;
}

/* With the lock held. */
static enum err_code ensure(struct core *c, struct error *e)
{
	struct gateway_ctl *g = c->gateway;
	AUTO_FREE char *config = make_config(c);
	bool same = false;
	pid_t old = find_running(c, config, &same);
	AUTO_CLOSE int old_fd = open_process(old);
	if (old > 0 && same) {
		log_info("gateway: adopted, pid %d", (int)old);
		if (g->pidfd >= 0)
			close(g->pidfd);
		g->pidfd = TAKE_FD(old_fd);
		return ERR_OK;
	}
	struct proc p = PROC_INIT;
	enum err_code rc = spawn_gateway(c, config, &p, e);
	if (rc) {
		proc_release(&p);
		return error_wrap(e, "start the model gateway");
	}
	if (g->former >= 0)
		close(g->former);
	g->former = TAKE_FD(g->pidfd); /* if it was our child it is reaped when it has ended */
	g->pidfd = TAKE_FD(p.pidfd);
	if (old_fd >= 0) {
		struct proc former = { .pid = old, .pidfd = old_fd };
		proc_signal(&former, 15); /* it finishes what streams, and ends */
	}
	return ERR_OK;
}

enum err_code gateway_ctl_start(struct core *c, struct error *e)
{
	struct gateway_ctl *g = NEW(struct gateway_ctl);
	c->gateway = g;
	g->pidfd = g->former = g->users_fd = -1;
	g->backoff_ms = RESTART_FIRST_MS;
	pthread_mutex_init(&g->lock, NULL);
	AUTO_FREE char *dir = gateway_ctl_dir(c);
	enum err_code rc = load_key(c, e);
	if (!rc)
		rc = file_mkdirs(dir, 0755, e);
	if (!rc)
		rc = hold_users(c, e);
	remove_left_sockets(dir, MODEL_SOCKET);
	remove_left_sockets(c->runtime, CONTROL_SOCKET);
	if (!rc) {
		pthread_mutex_lock(&g->lock);
		rc = ensure(c, e);
		pthread_mutex_unlock(&g->lock);
	}
	return rc;
}

void gateway_ctl_stop(struct core *c)
{
	struct gateway_ctl *g = c->gateway;
	if (!g)
		return;
	for (int i = 0; i < g->key_count; i++) {
		sodium_memzero(g->keys[i].key, strlen(g->keys[i].key));
		free(g->keys[i].key);
		free(g->keys[i].provider);
	}
	if (g->pidfd >= 0)
		close(g->pidfd);
	if (g->former >= 0)
		close(g->former);
	if (g->users_fd >= 0)
		close(g->users_fd);
	pthread_mutex_destroy(&g->lock);
	free(g->config);
	free(g);
	c->gateway = NULL;
}

static bool is_gone(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	siginfo_t info;
	if (pidfd >= 0 && poll(&p, 1, 0) == 0)
		return false;
	if (pidfd >= 0)
		waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG); /* reaps it when it was our child */
	return true;
}

void gateway_ctl_tick(struct core *c)
{
	struct gateway_ctl *g = c->gateway;
	struct error e = ERROR_INIT;
	pthread_mutex_lock(&g->lock);
	if (g->former >= 0 && is_gone(g->former)) {
		close(g->former);
		g->former = -1;
	}
	if (!is_gone(g->pidfd)) {
		g->backoff_ms = RESTART_FIRST_MS;
	} else if (clock_mono_ms() >= g->next_start_ms) {
		log_warn("gateway: it is gone; starting it again");
		g->backoff_ms = g->backoff_ms * 2 < RESTART_MAX_MS ? g->backoff_ms * 2 : RESTART_MAX_MS;
		g->next_start_ms = clock_mono_ms() + g->backoff_ms;
		if (ensure(c, &e))
			log_error("%s", e.text);
	}
	pthread_mutex_unlock(&g->lock);
}

enum err_code gateway_ctl_set_key(struct core *c, const char *provider, const char *key, struct error *e)
{
	struct gateway_ctl *g = c->gateway;
	AUTO_JS struct js *known = providers(c);
	if (!js_get(known, provider))
		return error_set(e, ERR_NOT_FOUND, "no model provider '%s' is configured", provider);
	AUTO_FREE char *own = NULL;
	if (conf_provider_key(js_get(known, provider), provider, &own, NULL) == ERR_OK)
		return ERR_OK; /* the configuration's key is stronger than an offer */
	enum err_code rc = ERR_OK;
	pthread_mutex_lock(&g->lock);
	const char *old = offered_key(g, provider);
	if (!str_eq(old, key)) {
		if (old)
			for (int i = 0; i < g->key_count; i++)
				if (str_eq(g->keys[i].provider, provider)) {
					free(g->keys[i].key);
					g->keys[i].key = mem_strdup(key);
				}
		if (!old && g->key_count < KEYS_MAX)
			g->keys[g->key_count++] = (struct offered){ mem_strdup(provider), mem_strdup(key) };
		else if (!old)
			rc = error_set(e, ERR_LIMIT, "%d keys are offered already", KEYS_MAX);
		if (!rc)
			rc = ensure(c, e);
	}
	pthread_mutex_unlock(&g->lock);
	return rc;
}

static enum err_code tell_hidden(struct core *c, const struct js *body, struct error *e)
{
	AUTO_FREE char *control = control_path(c);
	struct client_config cc = { .socket = control, .connect_timeout_ms = CALL_TIMEOUT_MS, .timeout_ms = CALL_TIMEOUT_MS };
	struct client *client = NULL;
	AUTO_JS struct js *reply = NULL;
	int status = 0;
	enum err_code rc = client_open(&cc, &client, e);
	if (rc)
		return rc;
	rc = client_call(client, "POST", "/hide", body, &status, &reply, e);
	client_close(client);
	return rc;
}

enum err_code gateway_ctl_hide(struct core *c, const char *task, const struct js *texts, struct error *e)
{
	AUTO_JS struct js *body = js_object();
	struct error why = ERROR_INIT;
	js_set_str(body, "task", task);
	js_set(body, "texts", js_ref(texts));
	pthread_mutex_lock(&c->gateway->lock); /* one that is being started has read what is settled */
	enum err_code rc = tell_hidden(c, body, &why);
	pthread_mutex_unlock(&c->gateway->lock);
	return rc ? error_set(e, ERR_BUSY, "the model gateway cannot be told what to hide: %s", why.text) : ERR_OK;
}

void gateway_ctl_reload(struct core *c)
{
	struct error e = ERROR_INIT;
	pthread_mutex_lock(&c->gateway->lock);
	if (ensure(c, &e))
		log_error("%s", e.text);
	pthread_mutex_unlock(&c->gateway->lock);
}

bool gateway_ctl_has_key(struct core *c, const char *provider)
{
	AUTO_JS struct js *all = providers(c);
	const struct js *p = js_get(all, provider);
	pthread_mutex_lock(&c->gateway->lock);
	/* A provider that is configured without any key (a local server) needs none. */
	bool ok = p && (has_key(c, provider, p) || (!js_get(p, "key") && !js_get(p, "key_env") && !js_get(p, "key_file")));
	pthread_mutex_unlock(&c->gateway->lock);
	return ok;
}

enum err_code gateway_ctl_token(struct core *c, const char *run_id, const struct js *spec, char **ret, struct error *e)
{
	AUTO_STRBUF struct strbuf text = STRBUF_INIT;
	AUTO_FREE char *run = mem_strdup(run_id);
	AUTO_FREE char *provider = mem_strdup(conf_default_provider(c->config));
	const struct js *limits = js_get(spec, "limits");
	int64_t life_ms = js_i64(limits, "timeout", 0) + js_i64(limits, "fetch_timeout", 0) + js_i64(limits, "setup_timeout", 0);
	struct token_claims claims = { .run = run, .provider = provider, .exp_s = clock_wall_ms() / 1000 + life_ms / 1000 + TOKEN_GRACE_S };
	enum err_code rc = token_sign(c->token_key, &claims, &text, e);
	if (!rc)
		*ret = strbuf_detach(&text);
	return rc;
}
